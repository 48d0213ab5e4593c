"""What changes in a classifier besides its accuracy: confusions, calibration, faint expressions."""

import numpy as np
import pandas as pd
import statsmodels.api as sm
import torch
from scipy import stats
from torchmetrics.functional.classification import multiclass_calibration_error

from fer_lib.errors import FerError
from fer_lib.intervals import (POINTS, accuracy_interval, as_pairs, bootstrap_p, cluster_codes, interval, paired_gain,
                               resampled_means, seed_interval)
from fer_lib.labels import EXPRESSIONS

BINS = 10  # of confidence, of equal width


def stack_predictions(predictions):
    """Predictions of several seeds as one array.

    predictions : list of dict test set -> float [images, 6], one per seed, as study.predictions returns them.
    Returns dict test set -> float32 [seeds, images, 6].
    """
    return {name: np.stack([each[name] for each in predictions]) for name in predictions[0]}


def _checked(probabilities, codes):
    probabilities, codes = np.asarray(probabilities), np.asarray(codes)
    probabilities = probabilities[None] if probabilities.ndim == 2 else probabilities
    if probabilities.ndim != 3 or probabilities.shape[1] != len(codes) or 0 in probabilities.shape:
        raise FerError(f"Predictions must be [seeds, images, classes] with one true code per image, not "
                       f"{list(probabilities.shape)} and {len(codes)} codes: take both from one test set.")
    return probabilities, codes


# ---- confusions ----------------------------------------------------------------------------------------

def confusion_change(probabilities_a, probabilities_b, codes, *, clusters=None, resamples=10_000, level=0.95, seed=0):
    """Confusion matrix of arm b minus that of arm a, each normalised by true class and averaged over seeds.

    probabilities_a, probabilities_b : float [seeds, images, 6], paired by seed. codes : int [images], 0..5.
    clusters, resamples, level, seed : as in intervals.paired_gain.
    Returns a dict of float [6, 6], percentage points, rows the true expression: change, low, high (NaN in the rows
    of absent expressions); rows of `change` sum to 0. The intervals hold one at a time, not for all 36 together.
    Raises FerError when shapes do not fit.
    """
    (a, codes), (b, _) = _checked(probabilities_a, codes), _checked(probabilities_b, codes)
    predicted = as_pairs(a.argmax(2), b.argmax(2))
    groups, n = cluster_codes(clusters, len(codes)), len(EXPRESSIONS)
    found = {name: np.full((n, n), np.nan) for name in ("change", "low", "high")}
    for true in np.unique(codes):
        counted = codes == true
        arms = [rows == guess for rows in predicted for guess in range(n)]
        resampled = resampled_means(arms, groups, resamples=resamples, seed=seed, counted=counted)
        means = np.array([arm[:, counted].mean() for arm in arms])
        found["change"][true] = POINTS * (means[n:] - means[:n])
        found["low"][true], found["high"][true] = POINTS * np.nanquantile(
            resampled[n:] - resampled[:n], [(1 - level) / 2, (1 + level) / 2], axis=1)
    return found


# ---- calibration ---------------------------------------------------------------------------------------

def expected_calibration_error(probabilities, codes, *, n_bins=BINS):
    """Mean distance between confidence and accuracy, per seed.

    probabilities : float [seeds, images, 6]. codes : int [images].
    Returns float [seeds], fractions.
    Source: Guo et al. (2017), equation 3, as torchmetrics computes it.
    """
    probabilities, codes = _checked(probabilities, codes)
    truth = torch.as_tensor(codes)
    errors = [multiclass_calibration_error(torch.as_tensor(np.array(rows)), truth, rows.shape[1], n_bins=n_bins)
              for rows in probabilities]
    return np.array(errors, float)


def brier_scores(probabilities, codes):
    """Squared distance between the probabilities and the truth, of every image: float [seeds, images], 0 to 2.

    Source: Brier (1950), summed over the classes.
    """
    probabilities, codes = _checked(probabilities, codes)
    return ((probabilities - np.eye(probabilities.shape[2])[codes]) ** 2).sum(2)


def calibration(arms, codes, *, baseline=None, clusters=None, resamples=2_000, level=0.95, seed=0):
    """Whether classifiers are as sure as they are right, arm by arm.

    arms : dict name -> float [seeds, images, 6]. codes : int [images], 0..5. baseline : a name in `arms`, or None.
    Returns dict name -> dict: ece {estimate, low, high} (fraction; t interval over seeds, on these test images),
    brier {estimate, low, high} (0 to 2; seeds and test subjects resampled), bins, a DataFrame with confidence,
    accuracy, low, high (fractions) and share of the predictions, one row per occupied bin; with a baseline, for the
    other arms, also brier_change {estimate, low, high, p} and ece_change {estimate, low, high}: arm minus baseline,
    below 0 where the arm is better.
    Raises FerError when shapes do not fit.
    """
    options = {"clusters": clusters, "resamples": resamples, "level": level, "seed": seed}
    found = {name: _calibration(rows, codes, options) for name, rows in arms.items()}
    for name in [other for other in arms if baseline is not None and other != baseline]:
        pair = as_pairs(*(brier_scores(arms[key], codes) for key in (baseline, name)))
        change = resampled_means(pair, cluster_codes(clusters, len(codes)), resamples=resamples, seed=seed)
        difference = change[1] - change[0]
        found[name]["brier_change"] = {**interval(pair[1].mean() - pair[0].mean(), difference, level),
                                       "p": bootstrap_p(difference)}
        eces = [expected_calibration_error(arms[key], codes) for key in (baseline, name)]
        found[name]["ece_change"] = seed_interval(eces[1] - eces[0], level=level)
    return found


def _calibration(probabilities, codes, options):
    probabilities, codes = _checked(probabilities, codes)
    return {"ece": seed_interval(expected_calibration_error(probabilities, codes), level=options["level"]),
            "brier": accuracy_interval(brier_scores(probabilities, codes), **options),
            "bins": _reliability(probabilities, codes, **options)}


def _reliability(probabilities, codes, *, clusters, resamples, level, seed):
    """One row per occupied bin of confidence; an image counts in a bin for the seeds whose confidence lies there."""
    confidence, right = probabilities.max(2), probabilities.argmax(2) == codes
    groups = cluster_codes(clusters, len(codes))
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(bins):
        inside = bins == number
        hits, counts = resampled_means([right & inside, inside], groups, resamples=resamples, seed=seed)
        accuracy = interval(right[inside].mean(), hits[counts > 0] / counts[counts > 0], level)
        rows.append((confidence[inside].mean(), *accuracy.values(), inside.mean()))
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "low", "high", "share"])


# ---- accuracy against the known intensity --------------------------------------------------------------

def accuracy_by_intensity(arms, intensity, *, n_bins=5, clusters=None, **options):
    """Accuracy of every arm for faint to strong expressions, where the intensity of each test face is known.

    arms : dict name -> bool [seeds, images]. intensity : float [images], 0 (rest) to 1 (full) and a little above,
        as built-in faces carry it in their table. n_bins : bins of equally many faces.
    clusters, options : as in intervals.paired_gain.
    Returns a DataFrame: arm, intensity (mean of the bin), images, accuracy, low, high (fractions).
    Raises FerError when intensities are not one number per image.
    """
    intensity, bins = _intensity_bins(arms, intensity, n_bins)
    rows = []
    for name, correct in arms.items():
        for number in np.unique(bins):
            counted = bins == number
            accuracy = accuracy_interval(correct, clusters=clusters, counted=counted, **options)
            rows.append((name, intensity[counted].mean(), counted.sum(), *accuracy.values()))
    return pd.DataFrame(rows, columns=["arm", "intensity", "images", "accuracy", "low", "high"])


def gain_by_intensity(correct_a, correct_b, intensity, *, n_bins=5, **options):
    """Gain of arm b over arm a for faint to strong expressions: DataFrame intensity, images, estimate, low, high, p.

    Arguments as in `accuracy_by_intensity` and intervals.paired_gain; gains in percentage points.
    """
    intensity, bins = _intensity_bins({"a": correct_a}, intensity, n_bins)
    rows = []
    for number in np.unique(bins):
        gain = paired_gain(correct_a, correct_b, counted=bins == number, **options)
        rows.append((intensity[bins == number].mean(), (bins == number).sum(), *gain["points"].values(), gain["p"]))
    return pd.DataFrame(rows, columns=["intensity", "images", "estimate", "low", "high", "p"])


def _intensity_bins(arms, intensity, n_bins):
    intensity = np.asarray(intensity, float)
    n_images = np.atleast_2d(next(iter(arms.values()))).shape[1]
    if intensity.shape != (n_images,) or not np.isfinite(intensity).all():
        raise FerError(f"An intensity is needed for each of the {n_images} test faces: only built-in faces have one.")
    known, place = np.unique(intensity, return_inverse=True)
    return intensity, place if len(known) <= n_bins else pd.qcut(intensity, n_bins, labels=False, duplicates="drop")


def intensity_slope(correct, intensity, *, clusters=None, level=0.95):
    """How much the odds of being right rise with the intensity: logistic regression over all seeds and images.

    correct : bool [seeds, images]. intensity : float [images]. clusters : as in intervals.paired_gain.
    Returns a dict: estimate, low, high (change of the log-odds per 0.1 of intensity; robust to subjects, whose
    images and seeds are one cluster; which seeds were drawn is not in the interval), p; both by Student's t with one
    degree of freedom less than there are subjects.
    Raises FerError when intensities do not fit or are all the same, there are fewer than 5 subjects, or the predictions
    are right (or wrong) at all intensities, or above one and at none below.
    Source: logit with cluster-robust covariance, Liang & Zeger (1986), as statsmodels computes it.
    """
    correct, = as_pairs(correct)
    intensity, _ = _intensity_bins({"a": correct}, intensity, 2)
    subjects = cluster_codes(clusters, correct.shape[1])
    freedom = subjects.max()
    at = np.tile(intensity, (len(correct), 1))
    right, wrong = at[correct], at[~correct]
    if (len(right) == 0 or len(wrong) == 0 or freedom < 4 or right.min() >= wrong.max() or right.max() <= wrong.min()):
        raise FerError("No slope over the intensity can be fitted to these predictions: take a larger test set, of 5 "
                       "subjects or more.")
    terms = sm.add_constant(np.tile(10 * (intensity - intensity.mean()), len(correct)))
    fit = sm.Logit(correct.ravel().astype(float), terms).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": np.tile(subjects, len(correct))})
    slope, error = float(fit.params[1]), float(fit.bse[1])
    half = stats.t.ppf((1 + level) / 2, freedom) * error
    return {"estimate": slope, "low": slope - half, "high": slope + half,
            "p": float(2 * stats.t.sf(abs(slope) / error, freedom))}
