"""Which generated faces are kept: those that show their expression, once each.

The selector that scores them is not the judge that measures them: it has another architecture and a seed of its own.
Both learn from the pool, so a mistake that both make stays.
"""

import logging

import numpy as np
import torch

from fer_lib import classifier, duplicates, engine, metrics
from fer_lib.errors import FerError
from fer_lib.labels import EXPRESSIONS
from fer_lib.networks.pooling import Classifier

log = logging.getLogger(__name__)


def train_selector(pool, *, seed, epochs=20, lr=1e-3, batch_size=64, width=16, device="auto"):
    """The classifier that scores generated faces, trained on the pool's six expressions.

    pool : Faces, real or rendered. seed, epochs, lr, batch_size, width : as in metrics.train_judge.
    Returns networks.pooling.Classifier in evaluation mode.
    Raises FerError when `pool` holds generated faces, or an expression has no image.
    """
    if "generated" in pool.origin:
        raise FerError("The selector must not learn from generated faces: give it real or rendered ones.")
    classifier.check_six_classes(pool := pool.of(EXPRESSIONS), "the pool")
    device = engine.device(device)
    engine.keep_memory()
    with classifier.seeded(seed, device):
        selector = Classifier(image_size=pool.image_size, channels=pool.channels, critic_width=width)
        selector = selector.to(device, memory_format=torch.channels_last)
        metrics.fit_judge(selector, pool, pool.codes, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed)
    return selector.eval()


def score(selector, faces):
    """Probability that the selector gives to each face's own expression: float32 [n].

    selector : see `train_selector`. faces : Faces of the six expressions.
    """
    return classifier.predict(selector, faces)[np.arange(len(faces)), faces.codes]


def keep_best(faces, scores, *, share):
    """The best-scored faces of each expression and each generator seed.

    scores : float [n]. share : fraction kept of each expression, above 0, at most 1; 1 keeps all.
    The quantile is taken per expression, so that the classes stay balanced.
    Returns bool [n]. Raises FerError for another share.
    """
    if not 0 < share <= 1:
        raise FerError(f"A share of {share} of the generated faces cannot be kept: use more than 0, at most 1.")
    table = faces.table.assign(score=np.asarray(scores))
    groups = ["expression"] + (["generator_seed"] if "generator_seed" in table else [])
    rank = table.groupby(groups)["score"].rank(method="first", ascending=False)
    size = table.groupby(groups)["score"].transform("size")
    return (rank <= np.ceil((share * size).round(9))).to_numpy()  # 0.07 of 100 is 7, whatever floats make of it


def distinct(faces):
    """Which faces are no near-duplicate of an earlier one of the same expression: bool [n]."""
    kept = np.ones(len(faces), bool)
    for expression in np.unique(faces.table["expression"]):
        rows = np.flatnonzero(faces.table["expression"] == expression)
        described, = duplicates.describe(np.asarray(faces.images)[rows])
        for first, second in duplicates.find(described)[["a", "b"]].to_numpy():
            if kept[rows[first]]:
                kept[rows[second]] = False
    return kept


def select(faces, scores, *, share, remove_duplicates=True):
    """The generated faces that a study should use, and how many went for which reason.

    scores : float [len(faces)], see `score`. share : see `keep_best`.

    Returns (Faces, dict with the counts generated, low_scored, near_duplicates, kept).
    """
    good = keep_best(faces, scores, share=share)
    candidates = faces.select(good)
    once = distinct(candidates) if remove_duplicates else np.ones(len(candidates), bool)
    kept = candidates.select(once)
    counts = {"generated": len(faces), "low_scored": int((~good).sum()), "near_duplicates": int((~once).sum()),
              "kept": len(kept)}
    log.info("selection: %s", ", ".join(f"{name} {n}" for name, n in counts.items()))
    return kept, counts
