"""How much of the accuracy's spread comes from which source of chance."""

from itertools import combinations

import numpy as np
from scipy import stats

from fer_lib.errors import FerError
from fer_lib.intervals import POINTS, cluster_codes

SEEDS = ("split_seed", "generator_seed", "train_seed")
COMPONENTS = {"split": (1, 0, 0, 0), "generator": (0, 1, 0, 0), "train": (0, 0, 1, 1), "all": (1, 1, 1, 1)}
"""What is estimated, as a sum of the terms (split, generator, train, their interactions)."""

NOT_IDENTIFIED = {"sd_points": {"estimate": None, "low": None, "high": None}, "identified": False, "variance": 0.0}


def variance_split(table, *, correct=None, clusters=None, resamples=2_000, level=0.95, seed=0):
    """How much of a classifier's accuracy comes from split, generator sample, training and test images.

    accuracy = mean + split + generator + train + interactions: half the squared difference of two classifiers has
    the expectation of the variances of what differs between them, which gives one linear equation per pair. What
    the equations cannot tell apart is reported as not identified: where seeds vary together, everything but "all".

    table : DataFrame with split_seed, generator_seed, train_seed and accuracy (fraction), one row per classifier of
        one arm, ratio, n_real and test set.
    correct : bool [rows of table, images], or None; with it the part of the test images is estimated too.
        clusters : as in intervals.paired_gain.
    Returns a dict: components, name -> {sd_points {estimate, low, high}, share, identified}, for split, generator,
    train (initialisation, order and whatever suits only one sample: what another training on the same faces would
    change), all (their sum, none of them below 0) and images (another test set; without `correct` not identified);
    share is the part of the variances of split, generator, train and images, None where one of them is not identified;
    not_identified, names; seeds, number of each kind; classifiers, int.
    Raises FerError when columns are missing, an accuracy is no number or there are fewer than 2 classifiers.
    Source: method of moments; interval by inverting a Gaussian parametric bootstrap test, the other components at
    their estimates, DiCiccio & Romano (1990); of the sum as in Graybill & Wang (1980).
    Images: `image_variance`, interval of a difference of mean squares, Burdick & Graybill (1992), section 3.3.
    """
    missing = [name for name in (*SEEDS, "accuracy") if name not in table]
    if missing or len(table) < 2:
        raise FerError(f"A variance split needs 2 or more classifiers with {', '.join((*SEEDS, 'accuracy'))}, not "
                       f"{len(table)} ({', '.join(missing) or 'no column'} missing).")
    if not np.isfinite(table["accuracy"].to_numpy(float)).all():
        raise FerError("A variance split needs the accuracy of every classifier, and one is no number: leave it out.")
    keys, accuracy = table[list(SEEDS)].to_numpy(), POINTS * table["accuracy"].to_numpy(float)
    forms = _quadratic_forms(keys)
    variances = {name: float(accuracy @ form @ accuracy) for name, form in forms.items()}
    draws = _standard_draws(keys, resamples, np.random.default_rng(seed))
    found = {name: _component(name, forms, variances, draws, level) for name in COMPONENTS}
    found["all"] = _of_sum(found["all"], [found[name] for name in ("split", "generator", "train")])
    found["images"] = _images(correct, clusters, level)
    parts = [name for name in found if name != "all"]
    total = sum(found[name]["variance"] for name in parts) if all(found[name]["identified"] for name in parts) else 0
    for name, component in found.items():
        variance = component.pop("variance")
        component["share"] = variance / total if total > 0 else None
    return {"components": found, "not_identified": [name for name in found if not found[name]["identified"]],
            "seeds": {name: len(set(column)) for name, column in zip(SEEDS, keys.T, strict=True)},
            "classifiers": len(table)}


# ---- seeds ---------------------------------------------------------------------------------------------

def _quadratic_forms(keys):
    """Symmetric matrix of each identified component: its estimate is accuracy' matrix accuracy."""
    pairs = np.array(list(combinations(range(len(keys)), 2)))
    differs = np.column_stack([keys[pairs[:, 0]] != keys[pairs[:, 1]], np.ones(len(pairs), bool)]).astype(float)
    inverse = np.linalg.pinv(differs, rcond=1e-9)
    forms = {}
    for name, wanted in COMPONENTS.items():
        shares = np.array(wanted) @ inverse
        if np.allclose(shares @ differs, wanted):
            matrix = np.zeros((len(keys), len(keys)))
            np.add.at(matrix, (pairs[:, 0], pairs[:, 1]), -shares / 2)
            matrix += matrix.T
            forms[name] = matrix - np.diag(matrix.sum(1))
    return forms


def _standard_draws(keys, resamples, rng):
    """Unit-variance effects of split, generator and training for every classifier: dict of [resamples, n].

    other_training is training as another component must reckon with it: its variance is only estimated, from so
    many degrees of freedom, which spreads it as an F test does.
    """
    draws, levels = {}, []
    for name, column in zip(("split", "generator"), keys.T, strict=False):
        levels.append(np.unique(column, return_inverse=True)[1])
        draws[name] = rng.standard_normal((resamples, levels[-1].max() + 1))[:, levels[-1]]
    draws["train"] = rng.standard_normal((resamples, len(keys)))
    known = np.column_stack([np.eye(level.max() + 1)[level] for level in levels])
    freedom = max(1, len(keys) - np.linalg.matrix_rank(known))
    draws["other_training"] = draws["train"] * np.sqrt(freedom / rng.chisquare(freedom, (resamples, 1)))
    return draws


def _component(name, forms, variances, draws, level):
    """Standard deviation of one component with its interval; not identified where it has no form."""
    if name not in forms:
        return dict(NOT_IDENTIFIED)
    scale = {other: np.sqrt(max(variances.get(other, 0.0), 0.0)) for other in ("split", "generator", "train")}
    effects = {**draws, "train": draws["other_training"]}
    own = draws.get(name, draws["train"])  # of all, where the parts are unknown: every classifier on its own
    others = sum(scale[other] * effects[other] for other in scale if name not in (other, "all"))
    low, high = _inverted(forms[name], variances[name], own, others + np.zeros_like(own), level)
    variance = max(variances[name], 0.0)
    return {"sd_points": {"estimate": float(np.sqrt(variance)), "low": low, "high": high}, "identified": True,
            "variance": variance}


def _of_sum(total, parts):
    """The component `total` as the sum of its parts, with the interval of one, where all of them are known."""
    if not all(part["identified"] for part in (total, *parts)):
        return total
    square = {key: np.array([part["sd_points"][key] ** 2 for part in parts]) for key in ("low", "high")}
    variances = np.array([part["variance"] for part in parts])
    low = variances.sum() - np.sqrt(((variances - square["low"]).clip(0) ** 2).sum())
    high = variances.sum() + np.sqrt(((square["high"] - variances) ** 2).sum())
    interval = {"low": float(np.sqrt(max(low, 0))), "high": float(np.sqrt(high))}
    return {**total, "variance": float(variances.sum()),
            "sd_points": {"estimate": float(np.sqrt(variances.sum())), **interval}}


def _inverted(form, observed, own, others, level):
    """The standard deviations under which the observed estimate is neither too small nor too large: (low, high).

    With e = s * own + others the estimate e' form e is a parabola in s, so the draws serve for every s.
    """
    square, cross, rest = (np.einsum("ri,ij,rj->r", a, form, b) for a, b in
                           ((own, own), (own, others), (others, others)))
    top = 100 * np.sqrt(max(abs(observed), rest.var() ** 0.5, 1e-6))
    scales = np.concatenate([[0], np.geomspace(top * 1e-4, top, 400)])
    below = np.array([np.mean(square * s**2 + 2 * cross * s + rest <= observed) for s in scales])
    tail = (1 - level) / 2
    low = scales[np.argmax(below < 1 - tail)] if (below < 1 - tail).any() else 0.0
    likely = np.flatnonzero(below > tail)
    high = scales[likely[-1]] if len(likely) else 0.0
    return float(low), float(high)


# ---- test images ---------------------------------------------------------------------------------------

def image_variance(correct, groups):
    """Variance of the accuracy over test sets of this size, beside what each classifier adds on its own.

    correct : bool [classifiers, images]. groups : int [images], the subject of each image, from 0.
    Returns float, squared fractions: the variance of the classifiers' mean accuracy over groups, less the part of
    their disagreement, never negative.
    Source: two-way analysis of variance, sums over clusters.
    """
    shared, disagreement = _mean_squares(correct, groups)
    return max(0.0, shared - disagreement)


def _mean_squares(correct, groups):
    """What `image_variance` takes the difference of: variances of the mean accuracy, and of the disagreement."""
    correct = np.asarray(correct, float)
    n_groups, n = groups.max() + 1, correct.shape[1]
    if n_groups < 2:
        raise FerError("The variance over test images needs at least 2 test subjects: take a larger test set.")
    common = correct.mean(0) - correct.mean()
    shared, disagreement = (np.bincount(groups, common) ** 2).sum(), 0.0
    if len(correct) > 1:
        own = correct - correct.mean(1, keepdims=True) - common
        sums = np.stack([np.bincount(groups, row, n_groups) for row in own])
        disagreement = (sums**2).sum() / (len(correct) - 1) / len(correct)
    scale = n_groups / (n_groups - 1) / n**2
    return shared * scale, disagreement * scale


def _images(correct, clusters, level):
    """Standard deviation from the test images, with the interval of a difference of two mean squares."""
    if correct is None:
        return dict(NOT_IDENTIFIED)
    groups = cluster_codes(clusters, np.shape(correct)[1])
    if groups.max() == 0:  # a test set of one subject
        return dict(NOT_IDENTIFIED)
    shared, disagreement = (POINTS**2 * part for part in _mean_squares(correct, groups))
    freedom = groups.max()
    low, high = _difference_interval(shared, disagreement, freedom, max(1, freedom * (len(correct) - 1)), level)
    variance = max(0.0, shared - disagreement)
    return {"sd_points": {"estimate": float(variance**0.5), "low": low**0.5, "high": high**0.5},
            "identified": True, "variance": float(variance)}


def _difference_interval(a, b, freedom_a, freedom_b, level):
    """Interval of the difference of two expected mean squares, not below 0: (low, high).

    Source: Ting et al. (1990); Burdick & Graybill (1992), Confidence Intervals on Variance Components, section 3.3.
    """
    tail = (1 - level) / 2
    limits = {}
    for end, share in (("low", tail), ("high", 1 - tail)):
        of_a, of_b = freedom_a / stats.chi2.isf(share, freedom_a), freedom_b / stats.chi2.isf(1 - share, freedom_b)
        both = stats.f.isf(share, freedom_a, freedom_b)
        wide_a, wide_b = 1 - of_a, of_b - 1
        cross = ((both - 1) ** 2 - (wide_a * both) ** 2 - wide_b**2) / both
        spread = max(0.0, (wide_a * a) ** 2 + (wide_b * b) ** 2 + cross * a * b) ** 0.5
        limits[end] = max(0.0, float(a - b + (spread if end == "high" else -spread)))
    return limits["low"], limits["high"]
