"""The ratio study: which classifiers are trained on what, and how well each does on every test set."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib import classifier, engine
from fer_lib.errors import FerError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import EXPRESSIONS

logger = logging.getLogger(__name__)

SCORES = ["accuracy", "macro_f1", *(f"recall_{name}" for name in EXPRESSIONS)]
COLUMNS = ["arm", "ratio", "weight", "n_real", "n_generated", "updates", "split_seed", "generator_seed",
           "train_seed", "test_set", "n_test", *SCORES, "best_epoch", "seconds",
           "stopping", "intensity", "truncation"]


@dataclass(frozen=True)
class Cell:
    """One classifier of the study.

    arm : a name in `ARMS`. ratio : added / real images, at least 0.
    weight : factor on the loss of each generated image.
    n_real : real training images that the ratio refers to; the arm `generated` uses none of them.
    split_seed : chooses the real images. generator_seed : chooses the rows of the generated bank (arms without
        generated images carry it only to be paired with the others). train_seed : initial weights, order, dropout.
    stopping : "updates", as many as every other arm of this ratio gets, or "paper", the paper's early stopping.
    intensity, truncation : of the generated images that are drawn.
    """

    arm: str
    ratio: float
    n_real: int
    split_seed: int
    generator_seed: int
    train_seed: int
    weight: float = 1.0
    stopping: str = "paper"
    intensity: float = 1.0
    truncation: float = 1.0

    @property
    def n_added(self):
        """Number of images that the ratio adds (or, for the arm `generated`, puts in the place of real ones)."""
        return round(self.ratio * self.n_real)

    @property
    def n_generated(self):
        """Number of generated training images."""
        return self.n_added if ARMS[self.arm].uses_bank else 0

    @property
    def n_budget(self):
        """Images of one pass over the training set of `mixed` at this ratio, which is what every arm is trained for."""
        return self.n_real + self.n_added

    @property
    def name(self):
        """A name for files, unique within a study."""
        extras = [f"_{letter}{value:g}" for letter, value in (("i", self.intensity), ("c", self.truncation)) if value != 1]
        return (f"{self.arm}_r{self.ratio:g}_w{self.weight:g}_n{self.n_real}"
                f"_s{self.split_seed}_g{self.generator_seed}_t{self.train_seed}"
                + "".join(extras) + ("_u" if self.stopping == "updates" else ""))


@dataclass(frozen=True)
class Sources:
    """Where training images come from.

    train : Faces, the reserve of real (or rendered) images. bank : Faces, the generated ones, or None. pool : Faces
    that the GANs were trained on, or None. kept : bool [len(bank)], which generated faces pass the filter, or None.
    """

    train: Faces
    bank: Faces | None = None
    pool: Faces | None = None
    kept: np.ndarray | None = None


# ---- arms: what a classifier is trained on -------------------------------------------------------------

def real(sources, cell):
    """Only real images."""
    return [draw_real(sources.train, cell.n_real, seed=cell.split_seed)]


def oversampled(sources, cell):
    """The images of `real`, repeated until there are as many as in `mixed`."""
    part, = real(sources, cell)
    return [part.select(np.resize(np.arange(len(part)), cell.n_budget))]


def noise(sources, cell):
    """The images of `real`, and images of pixels drawn at random with their mean and spread, labels in turn."""
    part, = real(sources, cell)
    rng = np.random.default_rng([cell.split_seed, 2])
    pixels = np.asarray(part.images)
    drawn = rng.normal(pixels.mean(), pixels.std(), (cell.n_added, *pixels.shape[1:])).round().clip(0, 255)
    names = [EXPRESSIONS[row % len(EXPRESSIONS)] for row in range(cell.n_added)]
    table = pd.DataFrame({"id": [f"noise-{row}" for row in range(cell.n_added)], "expression": names, "subject": "",
                          "domain": ""})
    return [part, Faces(drawn.astype(np.uint8), table, part.origin)]


def generated(sources, cell):
    """Only generated images, as many as `mixed` adds at the same ratio."""
    return [draw_generated(sources.bank, cell.n_generated, generator_seed=cell.generator_seed, intensity=cell.intensity,
                           truncation=cell.truncation)]


def mixed(sources, cell):
    """The images of `real` and those of `generated` together; at ratio 0 the same as `real`."""
    return real(sources, cell) + (generated(sources, cell) if cell.n_generated else [])


def mixed_filtered(sources, cell):
    """As `mixed`, of the generated images that a selector keeps (see selection.select)."""
    if sources.kept is None:
        raise FerError("No generated face was selected: run notebooks/04_generation.ipynb with measures=[selection].")
    return mixed(replace(sources, bank=sources.bank.select(sources.kept), kept=None), cell)


def external(sources, cell):
    """The images of `real` and as many of those that the GANs were trained on, with their labels."""
    if sources.pool is None:
        raise FerError("The arm external needs the pool that the GANs were trained on: give pool=parts['pool'].")
    rng = np.random.default_rng([cell.split_seed, 3])
    return real(sources, cell) + [_draw_balanced(sources.pool, cell.n_added, rng, "the GANs' pool")]


@dataclass(frozen=True)
class Arm:
    """How one arm of the study is trained: its images, whether they are augmented, whether some are generated."""

    parts: Callable
    augmented: bool = False
    uses_bank: bool = False


ARMS = {
    "real": Arm(real),
    "real_long": Arm(real),
    "oversampled": Arm(oversampled),
    "augmented": Arm(real, augmented=True),
    "noise": Arm(noise),
    "generated": Arm(generated, uses_bank=True),
    "mixed": Arm(mixed, uses_bank=True),
    "mixed_filtered": Arm(mixed_filtered, uses_bank=True),
    "mixed_augmented": Arm(mixed, augmented=True, uses_bank=True),
    "external": Arm(external),
}
"""Every arm: what it is trained on. `parts` is a function (sources, cell) that returns a list of Faces.

`real` is planned at ratio 0; `real_long` has its images, and at every ratio the updates of `mixed`.
"""


def draw_real(pool, n, *, seed):
    """`n` real images, as many of each expression as of any other (within one).

    pool : Faces of the `train` reserve. Returns Faces [n]; FerError when an expression has too few.
    """
    return _draw_balanced(pool, n, np.random.default_rng([seed, 0]), "the training reserve")


def draw_generated(bank, n, *, generator_seed, intensity=1.0, truncation=1.0):
    """`n` generated images of one generator seed, balanced over the six expressions.

    bank : Faces whose table has the column generator_seed, and intensity and truncation where these vary.
    The order within an expression is fixed, so that a larger set contains the smaller ones.
    Raises FerError when the bank has too few images, or none of that generator seed.
    """
    if bank is None or "generator_seed" not in bank.table:
        raise FerError("There are no generated faces with a column generator_seed: "
                       "run notebooks/04_generation.ipynb first.")
    wanted = {"generator_seed": generator_seed}
    wanted |= {name: value for name, value in (("intensity", intensity), ("truncation", truncation))
               if name in bank.table and bank.table[name].nunique() > 1}
    rows = bank.select((bank.table[list(wanted)] == list(wanted.values())).all(axis=1).to_numpy())
    what = "the generated faces of " + ", ".join(f"{name} {value:g}" for name, value in wanted.items())
    return _draw_balanced(rows, n, np.random.default_rng([generator_seed, 1]), what)


def _draw_balanced(faces, n, rng, what):
    """The first images of each expression in a random order that depends on `rng` alone, not on `n`."""
    codes, chosen = faces.codes, []
    for code, expression in enumerate(EXPRESSIONS):
        rows = rng.permutation(np.flatnonzero(codes == code))
        wanted = n // len(EXPRESSIONS) + (code < n % len(EXPRESSIONS))
        if len(rows) < wanted:
            raise FerError(f"Only {len(rows)} images of {expression} are among {what}, but {wanted} are "
                           "needed: provide more, or lower n_real or the largest ratio.")
        chosen.append(rows[:wanted])
    return faces.select(np.concatenate(chosen))


# ---- the grid ------------------------------------------------------------------------------------------

def plan(arms, ratios, n_real, seeds, **axes):
    """The cells of a study.

    arms : names in `ARMS`; `real` is planned at ratio 0 only, the others at every ratio above 0.
    ratios : generated / real, each at least 0. n_real : int, real training images per classifier.
    seeds : ints; each varies the real images, the generated images and the training together, and is
        shared by all arms and ratios, so that they can be compared seed by seed.
    axes : further fields of every Cell (weight, stopping, intensity, truncation).
    Returns a list of Cell: seed by seed, within it arm by arm, within it by ratio.
    Raises FerError for an unknown arm, a negative ratio, or fewer real images than expressions.
    """
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise FerError(f"The arm {unknown[0]!r} is unknown: choose from {', '.join(ARMS)}.")
    negative = [ratio for ratio in ratios if not 0 <= ratio < float("inf")]
    if negative:
        raise FerError(f"The ratio {negative[0]} is not possible: give generated / real images, 0 or more.")
    if n_real < len(EXPRESSIONS):
        raise FerError(f"n_real is {n_real}, which leaves an expression without an image: use at least "
                       f"{len(EXPRESSIONS)}.")
    return [Cell(arm, float(ratio), int(n_real), int(seed), int(seed), int(seed), **axes)
            for seed in dict.fromkeys(seeds) for arm in dict.fromkeys(arms)
            for ratio in ([0] if arm == "real" else sorted({ratio for ratio in ratios if ratio > 0}))]


def training_set(sources, cell):
    """What the classifier of `cell` is trained on.

    sources : Sources. Returns (Faces, weights): weights float32 [n], cell.weight for generated images and 1 for others.
    Raises FerError when the pool or the bank is too small, or the ratio is negative.
    """
    if cell.ratio < 0:
        raise FerError(f"The ratio {cell.ratio:g} is not possible: give generated / real images, 0 or more.")
    parts = ARMS[cell.arm].parts(sources, cell)
    weights = [np.full(len(part), cell.weight if part.origin == "generated" else 1, np.float32)
               for part in parts]
    return concatenate(parts), np.concatenate(weights)


# ---- running it ----------------------------------------------------------------------------------------

def run(cells, *, train, validation, generated, tests, folder, pool=None, kept=None, passes=50, looks=20,
        device="auto", jobs=None, **training):
    """Train and test the classifier of every cell.

    cells : list of Cell. train : Faces, the reserve that real images are drawn from.
    validation : Faces on which every arm stops early: always real (or rendered) ones.
    generated : Faces, the bank, with the column generator_seed; None when no arm needs it.
    tests : dict name -> Faces; nothing is chosen by looking at them.
    pool : Faces that the GANs were trained on, for the arm `external`. kept : bool [len(generated)], for the arm
        `mixed_filtered`.
    passes : of cells that stop after a number of updates: passes over the training set of `mixed` at the cell's
        ratio, the same number for every arm. looks : how often, evenly, the validation part is looked at meanwhile;
        the best look is kept.
    folder : where each cell's result is kept as it finishes; a second call trains only what is missing.
    jobs : worker processes on a CPU; on a GPU the cells run one after another in this process.
    training : further options of classifier.train (lr, batch_size, max_epochs, patience).
    Returns a DataFrame with the columns `COLUMNS`, one row per cell and test set, in the order of
    `cells`, then of `tests`.
    Raises FerError for too small a pool or bank, before anything is trained.
    """
    if kept is not None:
        generated = Faces(generated.images, generated.table.assign(kept=np.asarray(kept, bool)), generated.origin)
    inputs = {"train": train, "validation": validation, "generated": generated, "pool": pool,
              **{f"test_{name}": faces for name, faces in tests.items()}}
    inputs = {name: faces for name, faces in inputs.items() if faces is not None}
    for name in tests:
        classifier.check_six_classes(inputs[f"test_{name}"], f"the test set {name}")
    training = training | {"passes": passes, "looks": looks}
    for cell in cells:
        training_set(_sources(inputs), cell)
    folder, device = Path(folder), engine.device(device)
    tasks = [_Task(cell, str(folder), str(device), tuple(tests), training, key)
             for cell, key in zip(cells, _keys(cells, inputs, training), strict=True)]
    waiting = [task for task in tasks if _finished(task) is None]
    if waiting:
        _save_inputs(inputs, folder / "inputs")
        _train_all(waiting, n_finished=len(tasks) - len(waiting), jobs=1 if device.type == "cuda" else jobs)
        shutil.rmtree(folder / "inputs")
    rows = [row for task in tasks for row in _finished(task)["rows"]]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class _Task:
    """What a worker process needs to know; the faces wait in `folder`/inputs, memory-mapped."""

    cell: Cell
    folder: str
    device: str
    tests: tuple
    training: dict
    key: str

    @property
    def path(self):
        return Path(self.folder) / f"{self.cell.name}.json"


def _keys(cells, inputs, training):
    """One key per cell: a kept result counts only for the same cell, data and options."""
    data = {name: faces.fingerprint for name, faces in inputs.items()}
    facts = json.dumps([data, training], sort_keys=True)
    return [hashlib.sha256(f"{facts} {json.dumps(asdict(cell))}".encode()).hexdigest()[:16] for cell in cells]


def _save_inputs(inputs, folder):
    for name, faces in inputs.items():
        saved = (folder / name / "faces.json").is_file()
        if not saved or Faces.load(folder / name).fingerprint != faces.fingerprint:
            faces.save(folder / name)


def _train_all(tasks, *, n_finished, jobs):
    """Train the cells of `tasks`, the biggest first so that no process is left alone at the end."""
    tasks = sorted(tasks, key=_work, reverse=True)
    total, done, start = sum(map(_work, tasks)), 0, time.perf_counter()
    for n, (index, rows) in enumerate(engine.map(train_cell, tasks, jobs=jobs), start=1):
        done += _work(tasks[index])
        left = (time.perf_counter() - start) * (total - done) / done
        scores = ", ".join(f"{row['test_set']} {row['accuracy']:.3f}" for row in rows)
        logger.info("cell %d of %d: %s, accuracy %s (%.0f s; about %.0f min left)", n_finished + n,
                    n_finished + len(tasks), tasks[index].cell.name, scores, rows[0]["seconds"], left / 60)


def _work(task):
    """Images that are trained on, the measure of how long a cell takes."""
    if task.cell.stopping == "updates":
        return task.cell.n_budget
    return task.cell.n_added if task.cell.arm == "generated" else task.cell.n_budget


def train_cell(task):
    """Train and test one classifier, and keep its result. Returns its rows, one dict per test set."""
    inputs = {path.parent.name: Faces.load(path.parent) for path in Path(task.folder, "inputs").glob("*/faces.json")}
    faces, weights = training_set(_sources(inputs), task.cell)
    trained = classifier.train(faces, inputs["validation"], seed=task.cell.train_seed, weights=weights,
                               augmented=ARMS[task.cell.arm].augmented, device=task.device,
                               **stopping_rule(task.cell, **task.training))
    tests = {name: inputs[f"test_{name}"] for name in task.tests}
    probabilities = {name: classifier.predict(trained.model, test) for name, test in tests.items()}
    rows = [_row(task.cell, trained, name, test, probabilities[name]) for name, test in tests.items()]
    _save_result(task, rows, trained.history, probabilities)
    return rows


def _sources(inputs):
    """Sources from the inputs of `run`, by name."""
    bank = inputs.get("generated")
    kept = bank.table["kept"].to_numpy(bool) if bank is not None and "kept" in bank.table else None
    return Sources(inputs["train"], bank, inputs.get("pool"), kept)


def stopping_rule(cell, *, passes, looks, batch_size=16, **training):
    """Options of classifier.train for a cell: those given, with a fixed number of updates where the cell asks for it."""
    if cell.stopping == "updates":
        steps = max(1, round(passes * cell.n_budget / batch_size / looks))
        training |= {"steps_per_epoch": steps, "max_epochs": looks, "patience": looks}
    return {"batch_size": batch_size, **training}


def _row(cell, trained, name, test, probabilities):
    scores = classifier.evaluate(probabilities, test)
    return {**asdict(cell), "n_generated": cell.n_generated, "updates": trained.updates, "test_set": name,
            "n_test": len(test), **{column: round(scores[column], 6) for column in SCORES},
            "best_epoch": trained.best_epoch, "seconds": round(trained.seconds, 1)}


def _save_result(task, rows, history, probabilities):
    """Write <cell>.npz, then <cell>.json; each appears whole or not at all, the JSON file last."""
    path = task.path
    with (partial := path.with_suffix(".npz.partial")).open("wb") as file:
        np.savez(file, **probabilities)
    os.replace(partial, path.with_suffix(".npz"))
    result = {"key": task.key, "rows": rows, "history": history.to_dict("list")}
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _finished(task):
    """The kept result of a cell, or None when it is absent or belongs to other data or options."""
    try:
        result = json.loads(task.path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return result if result["key"] == task.key else None


# ---- reading it ----------------------------------------------------------------------------------------

def predictions(folder, cell):
    """Test probabilities of a finished cell: dict test set -> float32 [n_test, 6].

    Raises FerError when the cell has not been trained in `folder`.
    """
    path = Path(folder) / f"{cell.name}.npz"
    if not path.is_file():
        raise FerError(f"The classifier {cell.name} has no predictions in {folder}: "
                       "run notebooks/06_ratio_study.ipynb.")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def history(folder, cell):
    """Learning curve of a finished cell: DataFrame as in classifier.Trained."""
    path = Path(folder) / f"{cell.name}.json"
    if not path.is_file():
        raise FerError(f"The classifier {cell.name} has no result in {folder}: "
                       "run notebooks/06_ratio_study.ipynb.")
    return pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["history"])


def correctness(folder, cells, tests):
    """Which test images each classifier gets right, ready for the statistics.

    cells, tests : as given to `run`. Seeds are put in the order of split_seed, generator_seed, train_seed.
    Returns dict test set -> dict (arm, ratio) -> bool [seeds, n_test].
    Raises FerError when the cells differ in n_real or weight: analyse such groups one at a time.
    """
    if len({(cell.n_real, cell.weight) for cell in cells if cell.arm != "real"}) > 1:
        raise FerError("These cells differ in n_real or weight: pass those of one n_real and one weight.")
    truth = {name: faces.codes for name, faces in tests.items()}
    correct = {name: {} for name in tests}
    for cell in sorted(cells, key=lambda cell: (cell.split_seed, cell.generator_seed, cell.train_seed)):
        for name, probabilities in predictions(folder, cell).items():
            right = probabilities.argmax(1) == truth[name]
            correct[name].setdefault((cell.arm, cell.ratio), []).append(right)
    return {name: {key: np.stack(rows) for key, rows in arms.items()} for name, arms in correct.items()}
