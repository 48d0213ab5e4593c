"""Intervals over training seeds and test subjects, by resampling and by analysis of variance;
gains of one arm over another."""

from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fer_lib.design import FEW_SEEDS
from fer_lib.errors import FerError
from fer_lib.labels import EXPRESSIONS

POINTS = 100.0  # percentage points per fraction
FEW_SUBJECTS = 10  # as design.FEW_SEEDS, of people tested
CHUNK = 1_000   # resamples at a time, so that large test sets fit in memory


# ---- resampling ----------------------------------------------------------------------------------------

def cluster_codes(clusters, n):
    """Cluster number of each of n test images: int64 [n]. Images without a known subject stand alone."""
    if clusters is None:
        return np.arange(n)
    clusters = np.asarray(clusters, dtype=object)
    if clusters.shape != (n,):
        raise FerError(f"{len(clusters)} subjects were given for {n} test images: give one per image.")
    if pd.isna(clusters).any():
        raise FerError("The subject of a test image is no name: give \"\" where it is not known.")
    alone = np.array([f"image {index}" for index in range(n)], dtype=object)
    return pd.factorize(np.where(clusters == "", alone, clusters))[0]


@lru_cache(maxsize=4)
def crossed_weights(n_seeds, n_groups, resamples, seed):
    """How often every resample draws each training seed and, independently, each group of test images.

    The same arguments give the same draws, so that all comparisons on one test set share them.
    Returns (uint16 [resamples, n_seeds], uint16 [resamples, n_groups]); each row sums to its number of columns.
    Source: Owen (2007), The pigeonhole bootstrap.
    """
    rng = np.random.default_rng([seed, n_seeds, n_groups])
    drawn = []
    for n in (n_seeds, n_groups):
        counts = np.empty((resamples, n), np.uint16)
        for start in range(0, resamples, CHUNK):
            rows = counts[start:start + CHUNK]
            picks = rng.integers(n, size=rows.shape) + n * np.arange(len(rows))[:, None]
            rows[:] = np.bincount(picks.ravel(), minlength=rows.size).reshape(rows.shape)
        counts.flags.writeable = False
        drawn.append(counts)
    return tuple(drawn)


def resampled_means(arms, groups, *, resamples, seed, counted=None):
    """Mean of every arm in each resample of seeds and of groups of test images.

    arms : list of [seeds, images], bool or float, all of one shape. groups : int [images], from 0.
    counted : bool [images], the images that enter the mean, or None for all.
    Returns float64 [arms, resamples]; NaN where a resample holds no counted image.
    """
    n_seeds, n_groups = len(arms[0]), int(groups.max()) + 1
    counted = np.ones(len(groups)) if counted is None else np.asarray(counted, float)
    sums = np.stack([np.bincount(groups, row * counted, n_groups) for arm in arms for row in np.asarray(arm, float)])
    sizes = np.bincount(groups, counted, n_groups)
    seeds, images = crossed_weights(n_seeds, n_groups, resamples, seed)
    means = np.empty((len(arms), resamples))
    for start in range(0, resamples, CHUNK):
        part = slice(start, start + CHUNK)
        drawn = images[part].astype(float)
        of_seeds = (drawn @ sums.T).reshape(len(drawn), len(arms), n_seeds)
        total = (drawn @ sizes)[:, None] * n_seeds
        means[:, part] = np.divide(np.einsum("ras,rs->ra", of_seeds, seeds[part]), total,
                                   out=np.full((len(drawn), len(arms)), np.nan), where=total > 0).T
    return means


def interval(estimate, resampled, level=0.95):
    """A value with its percentile interval from the resamples that are numbers: {estimate, low, high}."""
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return {"estimate": float(estimate), "low": float(low), "high": float(high)}


def by_anova(gain):
    """Whether analysis of variance is to be trusted with a gain, and not resampling: where seeds or subjects are few.

    gain : dict with seeds, gain_points and, where they are known, test_groups and gain_points_anova, as the contrasts
    of summary.json. False where the analysis has no interval, as for a single seed or subject.
    """
    anova = gain.get("gain_points_anova")
    few = gain["seeds"] < FEW_SEEDS or gain.get("test_groups", FEW_SUBJECTS) < FEW_SUBJECTS
    return bool(few and anova and anova["low"] is not None)


def trusted(gain, what="gain_points"):
    """The interval of a gain that is to be trusted, {estimate, low, high}; see `by_anova`.

    what : "gain_points" or "gain_relative". With a single seed or subject none can be: then this one speaks of these
    very seeds, or subjects, see `effect`.
    """
    anova = gain.get(f"{what}_anova") if by_anova(gain) else None
    return anova if anova and anova["low"] is not None else gain[what]


def trusted_p(gain):
    """The p of no gain that belongs to `trusted`."""
    anova = gain["gain_points_anova"]["p"] if by_anova(gain) else None
    return gain["p"] if anova is None else anova


def effect(gain):
    """What a gain amounts to: 1 a gain, -1 a loss, 0 neither shown; None where one seed or subject cannot tell."""
    found = trusted(gain)
    if gain["seeds"] < 2 or gain.get("test_groups", 2) < 2:
        return None
    return 1 if found["low"] > 0 else -1 if found["high"] < 0 else 0


def bootstrap_p(difference):
    """Two-sided p of no difference: how rarely a resample, of those that are numbers,
    lies on the other side of zero."""
    difference = difference[np.isfinite(difference)]
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


def anova_interval(scores, groups, *, counted=None, level=0.95):
    """Mean over training seeds and groups of test images, with a t interval that tells other seeds and other images.

    Seeds and groups are crossed and both random, as readers and cases are in studies of diagnostic tests. With few
    seeds the t distribution has few degrees of freedom where seeds differ, and many where test images are what differs.
    Unlike percentiles of resamples, it holds its promise with three seeds, too, and nearly so with two or three groups
    (.88 to .96, benchmarks/interval_coverage.py).

    scores : float [seeds, images], for example the differences of two arms. groups : int [images], from 0, such as
    `cluster_codes` returns. counted : bool [images], the images that enter the mean, or None for all. level : coverage
    in (0, 1).
    Returns a dict: estimate, low, high in the units of scores, and p, two-sided, of a mean of 0; the last three are
    None for a single seed or group, and p where nothing varies. Raises FerError when no image is counted, or a score is
    no number.
    Source: Hillis (2007), Statistics in Medicine 26, 596. As there the variance of groups is not taken to be negative,
    and here that of seeds neither: where they differ by less than what is left does, that takes the place, with the
    freedom of both. The degrees of freedom are Satterthwaite's (1946), those of groups among them, as test subjects,
    unlike images, may be few; a mean square that is subtracted does not make them fewer than the fewest. Sums over
    groups of unequal sizes are linearised, Cochran (1977), section 6.
    """
    scores = np.asarray(scores, float)
    counted = np.ones(len(groups), bool) if counted is None else np.asarray(counted, bool)
    if not counted.any() or not np.isfinite(scores[:, counted]).all():
        raise FerError("An interval needs at least one test image that is counted, and a number for each: "
                       "choose other images.")
    scores, used = scores[:, counted], np.unique(groups[counted], return_inverse=True)[1]
    n_seeds, n_groups, mean = len(scores), used.max() + 1, scores.mean()
    if min(n_seeds, n_groups) < 2:
        return {"estimate": float(mean), "low": None, "high": None, "p": None}
    sums = np.stack([np.bincount(used, row, n_groups) for row in scores - mean]) * n_groups / scores.shape[1]
    seed, group = sums.mean(1), sums.mean(0)
    left = sums - seed[:, None] - group
    ms_left = (left**2).sum() / (n_seeds - 1) / (n_groups - 1)
    ms_seed, freedom = n_groups * (seed**2).sum() / (n_seeds - 1), n_seeds - 1
    if ms_seed < ms_left:
        ms_seed, freedom = ms_left, freedom * n_groups
    ms_group = n_seeds * (group**2).sum() / (n_groups - 1)
    total, doubt = ms_seed, ms_seed**2 / freedom
    if ms_group > ms_left:
        total += ms_group - ms_left
        doubt += ms_group**2 / (n_groups - 1) + ms_left**2 / (n_seeds - 1) / (n_groups - 1)
    error = (total / n_seeds / n_groups) ** 0.5
    freedom = max(total**2 / doubt, min(freedom, n_groups - 1)) if doubt > 0 else np.inf
    half = stats.t.ppf((1 + level) / 2, freedom) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error > 0 else None
    return {"estimate": float(mean), "low": float(mean - half), "high": float(mean + half), "p": p}


# ---- gains ---------------------------------------------------------------------------------------------

def paired_gain(correct_a, correct_b, *, clusters=None, resamples=10_000, level=0.95, seed=0, counted=None):
    """Accuracy of arm b minus arm a, over training seeds and test images together.

    Crossed bootstrap: every resample draws training seeds with replacement and, independently, test subjects (all
    images of one together), the same ones for all seeds. Drawing images anew within each seed would treat the shared
    test set as several, and cover the truth 87 instead of 95 times in 100. Where gains differ between seeds more than
    test images make them (a standard deviation of 5 points, 600 images), the truth is covered 90 times in 100 with
    three seeds, 91 with five, 97 with eight (benchmarks/interval_coverage.py); where seeds are few, `anova` is the
    one to trust.

    correct_a, correct_b : bool [seeds, images], True where the prediction is right; row s of both
        comes from the same seed, and both share the test images. Any other score per image does as well.
    clusters : [images], the subject of each image ("" when unknown: the image stands for itself), or None.
    resamples : int. level : coverage in (0, 1). seed : int. counted : as in `resampled_means`.
    Returns a dict: points {estimate, low, high} in percentage points; relative {estimate, low, high},
    the gain as a fraction of the accuracy of a (None where that is 0); p, two-sided, from the same resamples; anova
    {estimate, low, high, p}, the points again by `anova_interval`; relative_anova {estimate, low, high}, the relative
    gain by the same (linearised, Cochran 1977, section 6.4); groups, how many subjects, or images where these are
    unknown, were counted.
    Raises FerError unless both arrays have the same shape [seeds, images] with at least one of each that is counted.
    Source: Owen (2007), The pigeonhole bootstrap; percentile interval, Efron & Tibshirani (1993).
    """
    a, b = as_pairs(correct_a, correct_b)
    groups = cluster_codes(clusters, a.shape[1])
    anova = anova_interval(POINTS * (b.astype(float) - a), groups, counted=counted, level=level)
    kept = slice(None) if counted is None else np.asarray(counted, bool)
    resampled_a, resampled_b = resampled_means([a, b], groups, resamples=resamples, seed=seed, counted=counted)
    mean_a, mean_b, difference = a[:, kept].mean(), b[:, kept].mean(), resampled_b - resampled_a
    return {"points": interval(POINTS * (mean_b - mean_a), POINTS * difference, level),
            "relative": _relative(mean_a, mean_b, resampled_a, difference, level),
            "relative_anova": _relative_anova(a, b, groups, counted=counted, level=level),
            "p": bootstrap_p(difference),
            "anova": anova,
            "groups": len(np.unique(groups[kept]))}


def fields(gain, seeds):
    """What summary.json keeps of a gain.

    gain : as `paired_gain` returns it. seeds : how many were paired.
    Returns a dict: seeds, test_groups, gain_points, gain_relative, p, gain_points_anova, gain_relative_anova.
    """
    return {"seeds": seeds, "test_groups": gain["groups"], "gain_points": gain["points"],
            "gain_relative": gain["relative"], "p": gain["p"], "gain_points_anova": gain["anova"],
            "gain_relative_anova": gain["relative_anova"]}


def as_pairs(*arms):
    """Arms as arrays [seeds, images] of one shape; FerError tells what to do when shapes differ."""
    arrays = [np.atleast_2d(arm) for arm in arms]
    if any(array.shape != arrays[0].shape or array.ndim != 2 or 0 in array.shape for array in arrays):
        shapes = " and ".join(str(list(array.shape)) for array in arrays)
        raise FerError(f"Arms are compared on the same seeds and test images, but they have {shapes} "
                       "[seeds, images]: train both arms on every seed.")
    return arrays


def _relative(accuracy_a, accuracy_b, resampled_a, difference, level):
    """The gain as a fraction of the accuracy of a, from the resamples in which a is right at all."""
    if accuracy_a == 0:
        return {"estimate": None, "low": None, "high": None}
    possible = resampled_a > 0
    return interval(accuracy_b / accuracy_a - 1, difference[possible] / resampled_a[possible], level)


def _relative_anova(a, b, groups, **options):
    """mean(b) / mean(a) - 1 by analysis of variance of what the ratio leaves over, or None where a is never right."""
    counted = options["counted"]
    kept = slice(None) if counted is None else np.asarray(counted, bool)
    mean = a[:, kept].mean()
    if mean == 0:
        return {"estimate": None, "low": None, "high": None}
    ratio = b[:, kept].mean() / mean
    found = anova_interval((b - ratio * a.astype(float)) / mean, groups, **options)
    return {name: None if found[name] is None else float(found[name] + ratio - 1)
            for name in ("estimate", "low", "high")}


def accuracy_interval(correct, *, clusters=None, resamples=10_000, level=0.95, seed=0, counted=None):
    """Accuracy of one arm over training seeds and test images together, as in `paired_gain`.

    correct : bool [seeds, images]. clusters, counted : as in `paired_gain`.
    Returns {estimate, low, high}, fractions.
    """
    correct, = as_pairs(correct)
    resampled, = resampled_means([correct], cluster_codes(clusters, correct.shape[1]), resamples=resamples,
                                 seed=seed, counted=counted)
    kept = slice(None) if counted is None else np.asarray(counted, bool)
    return interval(correct[:, kept].mean(), resampled, level)


def recovered_share(correct_base, correct_arm, correct_external, *, clusters=None, resamples=10_000, level=0.95,
                    seed=0):
    """How much of what the GANs' own training faces give is recovered by an arm: gain of arm / gain of external.

    correct_base, correct_arm, correct_external : bool [seeds, images], paired as in `paired_gain`.
    Returns a dict: estimate, low, high (1: as good as the external faces themselves), and identified; where
    the interval of external's own gain that is to be trusted includes 0 there is nothing to divide by: identified is
    False and the three numbers are None.
    Source: ratio of the two gains in each crossed resample, percentile interval.
    """
    arms = as_pairs(correct_base, correct_arm, correct_external)
    groups = cluster_codes(clusters, arms[0].shape[1])
    base, arm, external = resampled_means(arms, groups, resamples=resamples, seed=seed)
    gain = {"seeds": len(arms[0]), "test_groups": int(groups.max()) + 1,
            "gain_points": interval(arms[2].mean() - arms[0].mean(), external - base, level),
            "gain_points_anova": anova_interval(arms[2].astype(float) - arms[0], groups, level=level)}
    if trusted(gain)["low"] <= 0:
        return {"estimate": None, "low": None, "high": None, "identified": False}
    share = (arms[1].mean() - arms[0].mean()) / gain["gain_points"]["estimate"]
    possible = external > base
    return {**interval(share, (arm - base)[possible] / (external - base)[possible], level), "identified": True}


def transfer(correct_a, correct_b, clusters=(None, None), *, resamples=10_000, level=0.95, seed=0):
    """Does a gain carry over from one test set to another, for example from lab to wild?

    correct_a, correct_b : pairs (first test set, second test set) of bool [seeds, images]; arm a is the
        baseline. The test sets share their seeds; a subject who is in both is drawn for both.
    clusters : pair of subjects per image, as in `paired_gain`.
    Returns a dict: first, second (the gains), difference (second minus first), each {estimate, low, high} in
    percentage points, p of no difference, difference_anova {estimate, low, high, p}, see `anova_interval` (linearised,
    as there); seeds and test_groups, as `fields` has them.
    """
    sizes = [np.atleast_2d(part).shape[1] for part in correct_a]
    a, b = as_pairs(*(np.concatenate([np.atleast_2d(part) for part in arm], axis=1) for arm in (correct_a, correct_b)))
    names = [np.asarray([""] * size if of_set is None else of_set, object)
             for of_set, size in zip(clusters, sizes, strict=True)]
    groups, second = cluster_codes(np.concatenate(names), a.shape[1]), np.arange(a.shape[1]) >= sizes[0]
    gains, resampled = [], []
    for counted in (~second, second):
        means = resampled_means([a, b], groups, resamples=resamples, seed=seed, counted=counted)
        resampled.append(POINTS * (means[1] - means[0]))
        gains.append(POINTS * (b[:, counted].mean() - a[:, counted].mean()))
    difference = resampled[1] - resampled[0]
    signs, change = np.where(second, 1 / second.mean(), -1 / (~second).mean()), POINTS * (b.astype(float) - a)
    left = signs * (change - np.where(second, gains[1], gains[0]))  # of each image to its own set's gain
    return {"first": interval(gains[0], resampled[0], level), "second": interval(gains[1], resampled[1], level),
            "difference": interval(gains[1] - gains[0], difference, level), "p": bootstrap_p(difference),
            "difference_anova": anova_interval(left + gains[1] - gains[0], groups, level=level),
            "seeds": len(a), "test_groups": int(groups.max()) + 1}


def recall_gains(correct_a, correct_b, codes, **options):
    """Gain in recall of every expression, arm b minus arm a.

    correct_a, correct_b : bool [seeds, images]. codes : int [images], 0..5. options : as in `paired_gain`.
    Returns dict expression -> what `paired_gain` returns and p_holm, the p to be trusted (see `trusted_p`) adjusted
    over the expressions; absent expressions are left out.
    """
    codes = np.asarray(codes)
    found = {name: paired_gain(correct_a, correct_b, counted=codes == code, **options)
             for code, name in enumerate(EXPRESSIONS) if (codes == code).any()}
    seeds = len(np.atleast_2d(correct_a))
    adjusted = holm([trusted_p(fields(gain, seeds)) for gain in found.values()])
    return {name: {**gain, "p_holm": p} for (name, gain), p in zip(found.items(), adjusted, strict=True)}
