"""What the ratio study shows: gains with intervals, and the ratio beyond which more does not help."""

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fer_lib.errors import FerError
from fer_lib.labels import EXPRESSIONS

POINTS = 100.0  # percentage points per fraction


def paired_gain(correct_a, correct_b, *, clusters=None, resamples=10_000, level=0.95, seed=0):
    """Accuracy of arm b minus arm a, over training seeds and test images together.

    Crossed bootstrap: every resample draws training seeds with replacement and, independently, test
    subjects (all images of one together), the same ones for all seeds. Drawing images anew within each
    seed would treat the shared test set as several, and cover the truth 87 instead of 95 times in 100.

    correct_a, correct_b : bool [seeds, images], True where the prediction is right; row s of both
        comes from the same seed, and both share the test images.
    clusters : [images], the subject of each image ("" when unknown: the image stands for itself), or None.
    resamples : int. level : coverage in (0, 1). seed : int.
    Returns a dict: points {estimate, low, high} in percentage points; relative {estimate, low, high},
    the gain as a fraction of the accuracy of a (None where that is 0); p, two-sided, from the same resamples.
    Raises FerError unless both arrays have the same shape [seeds, images] with at least one of each.
    Source: Owen (2007), The pigeonhole bootstrap; percentile interval, Efron & Tibshirani (1993).
    """
    a, b = np.atleast_2d(correct_a), np.atleast_2d(correct_b)
    if a.shape != b.shape or a.ndim != 2 or 0 in a.shape:
        raise FerError(f"Two arms are compared on the same seeds and test images, but they have "
                       f"{list(a.shape)} and {list(b.shape)} [seeds, images]: train both arms on every seed.")
    rng = np.random.default_rng(seed)
    groups = cluster_codes(clusters, a.shape[1])
    resampled_a, resampled_b = _crossed_resamples([a, b], groups, resamples, rng)
    difference = resampled_b - resampled_a
    return {"points": _estimate(POINTS * (b.mean() - a.mean()), POINTS * difference, level),
            "relative": _relative(a.mean(), b.mean(), resampled_a, difference, level),
            "p": _bootstrap_p(difference)}


def accuracy_interval(correct, *, clusters=None, resamples=10_000, level=0.95, seed=0):
    """Accuracy of one arm over training seeds and test images together, as in `paired_gain`.

    correct : bool [seeds, images]. clusters : as in `paired_gain`.
    Returns {estimate, low, high}, fractions.
    """
    correct = np.atleast_2d(correct)
    rng = np.random.default_rng(seed)
    resampled, = _crossed_resamples([correct], cluster_codes(clusters, correct.shape[1]), resamples, rng)
    return _estimate(correct.mean(), resampled, level)


def cluster_codes(clusters, n):
    """Cluster number of each of n test images: int64 [n]. Images without a known subject stand alone."""
    if clusters is None:
        return np.arange(n)
    clusters = np.asarray(clusters, dtype=object)
    if clusters.shape != (n,):
        raise FerError(f"{len(clusters)} subjects were given for {n} test images: give one per image.")
    alone = np.array([f"image {index}" for index in range(n)], dtype=object)
    return pd.factorize(np.where(clusters == "", alone, clusters))[0]


def _crossed_resamples(arms, groups, resamples, rng):
    """Accuracy of each arm in every resample of seeds and of groups of images: list of float [resamples]."""
    n_seeds, n_groups = len(arms[0]), groups.max() + 1
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples)
    images = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples)
    sizes = images @ np.bincount(groups, minlength=n_groups)
    right = [np.stack([np.bincount(groups, row, n_groups) for row in arm]) for arm in arms]
    return [((seeds @ hits) * images).sum(1) / (n_seeds * sizes) for hits in right]


def _estimate(estimate, resampled, level):
    """A value with its percentile interval, as plain floats."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return {"estimate": float(estimate), "low": float(low), "high": float(high)}


def _relative(accuracy_a, accuracy_b, resampled_a, difference, level):
    """The gain as a fraction of the accuracy of a, from the resamples in which a is right at all."""
    if accuracy_a == 0:
        return {"estimate": None, "low": None, "high": None}
    possible = resampled_a > 0
    return _estimate(accuracy_b / accuracy_a - 1, difference[possible] / resampled_a[possible], level)


def _bootstrap_p(difference):
    """Two-sided p of no difference: how rarely a resample lies on the other side of zero."""
    other_side = min((difference <= 0).sum(), (difference >= 0).sum())
    return float(min(1.0, 2 * (1 + other_side) / (1 + len(difference))))


def holm(p_values):
    """p-values adjusted for testing several ratios. Source: Holm (1979)."""
    return multipletests(list(p_values), method="holm")[1].tolist() if len(p_values) else []


def seed_interval(values, *, level=0.95):
    """Mean over training seeds with a t interval, on these very test images.

    values : float [seeds]. Returns {estimate, low, high}; low and high are NaN for a single seed.
    With three seeds the interval is 4.3 standard errors to each side, and honestly so.
    """
    values = np.asarray(values, float)
    estimate = float(values.mean())
    if len(values) < 2:
        return {"estimate": estimate, "low": float("nan"), "high": float("nan")}
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return {"estimate": estimate, "low": float(estimate - half), "high": float(estimate + half)}


def accuracy_by_ratio(table, *, level=0.95):
    """Mean accuracy over seeds of every arm, ratio and test set, with its t interval.

    table : DataFrame as study.run returns it.
    Returns a DataFrame: test_set, arm, ratio, seeds, n_generated, accuracy, low, high (fractions); `low`
    and `high` describe the spread over training seeds only, not over test images.
    """
    columns = ["test_set", "arm", "ratio", "seeds", "n_generated", "accuracy", "low", "high"]
    rows = []
    for (test_set, arm, ratio), group in table.groupby(["test_set", "arm", "ratio"], sort=False):
        interval = seed_interval(group["accuracy"], level=level)
        rows.append((test_set, arm, ratio, len(group), group["n_generated"].iloc[0], *interval.values()))
    return pd.DataFrame(rows, columns=columns)


# ---- the point of no further gain ----------------------------------------------------------------------

def upper_bound(ratios, accuracies, *, resamples=2_000, level=0.95, seed=0):
    """The ratio at which the accuracy stops rising: the knee of a line that turns into a plateau.

    Each seed has its own level; the shape is common: flat, a straight line, or a line up to a knee and
    flat beyond. The maximum is never taken as the answer: of equal ratios the luckiest would win.

    ratios : float [R], 0 included (the arm `real`), at least 3 of them, increasing.
    accuracies : float [seeds, R], of `mixed` at these ratios on one test set, fractions.
    Returns a dict: ratio, the knee; low and high, from resampling seeds (the whole grid for one seed);
    identified, True only where the knee lies inside the grid, its interval ends before the largest ratio,
    and the plateau is preferred to both other shapes by more than 2 units of AICc; preferred, the name
    of the shape with the lowest AICc.
    Raises FerError when shapes do not fit or ratios are fewer than 3.
    Source: AICc, Hurvich & Tsai (1989); a difference above 2, Burnham & Anderson (2002), section 2.6.
    """
    ratios, accuracies = np.asarray(ratios, float), np.atleast_2d(accuracies)
    if len(ratios) < 3 or accuracies.shape[1] != len(ratios) or (np.diff(ratios) <= 0).any():
        raise FerError(f"A point of no further gain needs at least 3 increasing ratios and an accuracy for "
                       f"each, not {len(ratios)} ratios and {list(accuracies.shape)} accuracies: add ratios.")
    knots = np.linspace(ratios[1], ratios[-1], 200)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(accuracies), size=(resamples, len(accuracies)))
    knees, _ = _plateau_fit(ratios, accuracies[draws].mean(1), knots)
    knee, = _plateau_fit(ratios, accuracies.mean(0)[None], knots)[0]
    edges = [ratios[1], ratios[-1]]
    low, high = np.quantile(knees, [(1 - level) / 2, (1 + level) / 2]) if len(accuracies) > 1 else edges
    scores = _shape_scores(ratios, accuracies, knee)
    clear = all(scores["plateau"] + 2 < scores[other] for other in ("flat", "line"))
    identified = clear and ratios[1] < knee < ratios[-1] and high < ratios[-1]
    return {"ratio": float(knee), "low": float(low), "high": float(high), "identified": bool(identified),
            "preferred": min(scores, key=scores.get)}


def _plateau_fit(ratios, curves, knots):
    """Least squares of y = c + slope * min(ratio, knot) with slope >= 0, over a grid of knots.

    curves : float [n, R]. knots : float [K].
    Returns (best knot [n], sum of squares that it explains [n]); without any rise the knot is the last.
    """
    ramps = np.minimum(ratios, knots[:, None])
    ramps = ramps - ramps.mean(1, keepdims=True)
    rise = np.maximum(curves @ ramps.T, 0)
    explained = rise**2 / (ramps**2).sum(1)
    # Without a rise every knot explains nothing; the last one is a grid edge, hence never `identified`.
    best = np.where(explained.max(1) > 0, explained.argmax(1), len(knots) - 1)
    return knots[best], explained.max(1)


def _shape_scores(ratios, accuracies, knee):
    """AICc of the three shapes, each with one level per seed. Returns dict shape -> float."""
    centred = accuracies - accuracies.mean(1, keepdims=True)
    n, n_levels = accuracies.size, len(accuracies)
    explained = {"flat": (0.0, 0)}
    for shape, knots, slopes in (("line", ratios[-1:], 1), ("plateau", np.array([knee]), 2)):
        _, squares = _plateau_fit(ratios, centred.mean(0)[None], knots)
        explained[shape] = float(squares[0]) * n_levels, slopes
    total = (centred**2).sum()
    return {shape: _aicc(total - squares, n, n_levels + slopes + 1)
            for shape, (squares, slopes) in explained.items()}


def _aicc(residual_squares, n, k):
    """AICc = n ln(RSS / n) + 2k + 2k(k+1) / (n-k-1), for Gaussian residuals and k parameters."""
    if n - k - 1 <= 0:
        return float("inf")
    return n * np.log(max(residual_squares, 1e-12) / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


# ---- the answer ----------------------------------------------------------------------------------------

def summary(table, correct, *, headline_ratio, test_set, clusters=None, resamples=10_000, seed=0):
    """The answer of the study, ready for summary.json.

    table : DataFrame as study.run returns it, of one n_real and one weight.
    correct : dict test set -> dict (arm, ratio) -> bool [seeds, images], as study.correctness returns it.
    headline_ratio : the ratio whose gain is the headline; it must be in the study.
    test_set : the test set of the headline. clusters : dict test set -> subject of each image, or None.
    Returns plain values: headline_ratio, test_set, seeds; gain_points and gain_relative {estimate, low,
    high}; upper_bound; controls, one entry per arm other than real and mixed; and test_sets, the same
    for every test set with `by_ratio` (gain at every ratio, p adjusted by Holm over ratios).
    Raises FerError when the headline's ratio or test set, or the arm `real`, is missing.
    """
    if test_set not in correct:
        raise FerError(f"The test set {test_set!r} is not in the study: choose from {', '.join(correct)}.")
    clusters = clusters or {}
    options = {"resamples": resamples, "seed": seed}
    tests = {name: _summary_of_test(table[table["test_set"] == name], arms, headline_ratio,
                                    {"clusters": clusters.get(name), **options})
             for name, arms in correct.items()}
    entries = ("gain_points", "gain_relative", "upper_bound", "controls")
    return {"headline_ratio": float(headline_ratio), "test_set": test_set,
            "seeds": int(table["train_seed"].nunique()), **{name: tests[test_set][name] for name in entries},
            "test_sets": tests}


def _summary_of_test(table, arms, headline_ratio, options):
    """Everything about one test set; arguments as in `summary`."""
    for needed in (("real", 0.0), ("mixed", float(headline_ratio))):
        if needed not in arms:
            raise FerError(f"The study has no arm {needed[0]} at ratio {needed[1]:g}: "
                           "add it to arms and ratios.")
    baseline = arms["real", 0.0]
    gains = {key: paired_gain(baseline, correct, **options)
             for key, correct in arms.items() if key[0] != "real"}
    by_ratio = _by_ratio(arms, {ratio: gain for (arm, ratio), gain in gains.items() if arm == "mixed"})
    headline = gains["mixed", float(headline_ratio)]
    controls = dict.fromkeys(arm for arm, _ in arms if arm not in ("real", "mixed"))
    return {"n_test": int(table["n_test"].iloc[0]),
            "real_accuracy": accuracy_interval(baseline, **options),
            "gain_points": headline["points"], "gain_relative": headline["relative"], "p": headline["p"],
            "upper_bound": _bound_of_test(arms), "by_ratio": by_ratio,
            "controls": {_control_name(arm): _control(arm, arms, gains, headline_ratio) for arm in controls}}


def _by_ratio(arms, gains):
    """One entry per ratio of `mixed`: accuracy and gain, with p adjusted over the ratios."""
    ratios = sorted(gains)
    adjusted = holm([gains[ratio]["p"] for ratio in ratios])
    return [{"ratio": ratio, "accuracy": float(arms["mixed", ratio].mean()),
             "gain_points": gains[ratio]["points"], "gain_relative": gains[ratio]["relative"],
             "p": gains[ratio]["p"], "p_holm": p}
            for ratio, p in zip(ratios, adjusted, strict=True)]


def _bound_of_test(arms):
    """`upper_bound` of `mixed` with `real` as ratio 0; not identified where ratios are fewer than 3."""
    curve = {0.0: arms["real", 0.0], **{ratio: c for (arm, ratio), c in arms.items() if arm == "mixed"}}
    ratios = sorted(curve)
    if len(ratios) < 3:
        return {"ratio": None, "low": None, "high": None, "identified": False, "preferred": None}
    return upper_bound(ratios, np.stack([curve[ratio].mean(1) for ratio in ratios], axis=1))


def _control_name(arm):
    return "generated_only" if arm == "generated" else arm


def _control(arm, arms, gains, headline_ratio):
    """A control arm at the headline ratio, or at its own ratio closest to it."""
    ratio = min((r for a, r in arms if a == arm), key=lambda r: (abs(r - headline_ratio), r))
    gain = gains[arm, ratio]
    return {"ratio": ratio, "accuracy": float(arms[arm, ratio].mean()), "gain_points": gain["points"],
            "gain_relative": gain["relative"], "p": gain["p"]}


def recall_by_expression(table, *, level=0.95):
    """Mean recall over seeds of every expression, arm, ratio and test set, with its t interval.

    table : DataFrame as study.run returns it.
    Returns a DataFrame: test_set, arm, ratio, expression, recall, low, high (fractions).
    """
    rows = [(*key, name, *seed_interval(group[f"recall_{name}"], level=level).values())
            for key, group in table.groupby(["test_set", "arm", "ratio"], sort=False) for name in EXPRESSIONS]
    return pd.DataFrame(rows, columns=["test_set", "arm", "ratio", "expression", "recall", "low", "high"])
