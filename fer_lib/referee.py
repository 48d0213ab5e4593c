"""Networks that look at generated faces and had no part in making them.

The judge measures: its opinion of labels, and its features. The selector decides which generated faces a study may
use; it has another architecture and another seed than the judge, so that faces which please it need not please the
judge. The embedder, where it is known who is on a picture, tells whether a person stays the same. All learn from the
pool's real (or rendered) faces alone.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fer_lib import embedding, engine, imports, metrics, selection, weights
from fer_lib.errors import FerError
from fer_lib.labels import EXPRESSIONS
from fer_lib.networks.judge import Judge
from fer_lib.networks.pooling import Classifier

KINDS = {"judge": Judge, "selector": Classifier, "embedder": Judge}
"""The networks by their names, which are those of their files too."""


@dataclass(frozen=True)
class Referee:
    """The networks, in evaluation mode, on one device.

    judge : networks.judge.Judge. selector : networks.pooling.Classifier. embedder : Judge, or None where subjects
    are unknown. thresholds : dict expression -> probability that the selector must give to a face for it to be kept,
    see `thresholds_of`; empty where no generated face was looked at yet.
    """

    judge: torch.nn.Module
    selector: torch.nn.Module
    embedder: torch.nn.Module | None = None
    thresholds: dict = field(default_factory=dict)

    def probabilities(self, images):
        """What the judge sees in images uint8 [n, C, H, W]: float32 [n, k], rows summing to 1, the columns the first
        k of labels.ALL_EXPRESSIONS."""
        return _probabilities(self.judge, images)

    def keeps(self, images, expression):
        """Whether the selector would keep generated faces as pictures of one of the six expressions: bool [n].

        images : uint8 [n, C, H, W]. Raises FerError when no threshold of this expression is known.
        """
        if expression not in self.thresholds:
            raise FerError(f"No threshold of the selector is known for {expression}: "
                           "run notebooks/04_generation.ipynb.")
        return _probabilities(self.selector, images)[:, EXPRESSIONS.index(expression)] >= self.thresholds[expression]


@torch.no_grad()
def _probabilities(network, images):
    pixels = torch.from_numpy(np.array(images)).to(next(network.parameters()).device)
    return network(pixels.float().div(255)).softmax(1).cpu().numpy()


def train(pool, folder, *, epochs=20, seed=100, device="auto"):
    """Train what is missing of <name>.safetensors in `folder`, on the pool's faces.

    pool : Faces, real or rendered; only where it shows several people, each named, is there an embedder.
    epochs : passes over the pool, of the judge and the selector. seed : int; each network has one of its own.
    """
    makers = {
        "judge": lambda: metrics.train_judge(pool, seed=seed, epochs=epochs, device=device),
        "selector": lambda: selection.train_selector(pool, seed=seed + 1, epochs=epochs, device=device),
        "embedder": lambda: embedding.train_embedder(pool, seed=seed + 2, device=device)}
    people = set(pool.subjects)
    for name, make in makers.items():
        if Path(folder, f"{name}.safetensors").is_file() or (name == "embedder" and ("" in people or len(people) < 2)):
            continue
        network = make()
        weights.save_weights(network, folder, name=name, kind=name, faces=pool, options=network.options)


def shipped(choice, *, dataset, faces):
    """The files that a choice of networks means: dict name -> path, empty where all are to be trained.

    choice : "shipped" or "train". dataset : name as in data.prepare. faces : Faces of the pool.
    Raises FerError for another choice.
    """
    if choice not in ("shipped", "train"):
        raise FerError(f"judge_weights: {choice!r} is not possible: give shipped or train.")
    found = {name: imports.find_weights(choice, role=name, dataset=dataset, faces=faces) for name in KINDS}
    return {name: path for name, path in found.items() if path}


def provide(parts, folder, *, given, epochs, seed, device="auto"):
    """Put the networks into `folder`: copies of those that are given, newly trained ones for the others.

    parts : dict part -> Faces, `pool` among them. given : see `shipped`. Other arguments: see `train`.
    Raises LeakError when a given network has seen a person or a picture of another part.
    """
    for name, path in given.items():
        weights.check_unseen(weights.read_metadata(path)["trained_on"], parts, name=path.name)
        shutil.copyfile(path, Path(folder, f"{name}.safetensors"))
    train(parts["pool"], folder, epochs=epochs, seed=seed, device=device)


def load(folder, *, thresholds=None, device="auto"):
    """The Referee whose networks `provide` put into `folder`. thresholds : see Referee."""
    on = device if isinstance(device, torch.device) else engine.device(device)
    networks = {name: weights.load_network(path, kinds={name: KINDS[name]}, what=name, device=on)
                for name in KINDS if (path := Path(folder, f"{name}.safetensors")).is_file()}
    return Referee(**networks, thresholds=thresholds or {})


THRESHOLDS = "thresholds.json"  # beside shipped networks; in a run they stand in quality.json


def open_shipped(folder, *, device="auto"):
    """The Referee that is shipped in weights/<dataset>, or None where there is none."""
    if not all(Path(folder, name).is_file() for name in ("judge.safetensors", "selector.safetensors", THRESHOLDS)):
        return None
    return load(folder, thresholds=read_thresholds(Path(folder, THRESHOLDS)), device=device)


def read_thresholds(path):
    """Thresholds of the selector from a JSON file that holds `selector_thresholds`: dict,
    empty where there are none."""
    path = Path(path)
    return json.loads(path.read_text(encoding="utf-8")).get("selector_thresholds", {}) if path.is_file() else {}


def thresholds_of(bank, scores, *, share):
    """About the score from which on the best `share` of each expression's faces lies: dict expression -> probability.

    bank : Faces, generated. scores : float [len(bank)], see selection.score.
    """
    names = bank.table["expression"].to_numpy()
    return {name: float(np.quantile(scores[names == name], 1 - share)) for name in EXPRESSIONS if (names == name).any()}
