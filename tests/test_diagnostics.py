"""Confusions, calibration and intensity: planted changes are found, and definitions hold."""

import numpy as np
import pytest

from fer_lib import statistics
from fer_lib.errors import FerError


def predictions(rng, *, n_seeds=4, n=600, accuracy=0.6, sharpness=3.0, confuse=None):
    """Probabilities [seeds, n, 6] and codes [n]; `confuse` (true, predicted) turns half of a class into another."""
    codes = np.arange(n) % 6
    logits = rng.normal(size=(n_seeds, n, 6))
    guess = np.where(rng.random((n_seeds, n)) < accuracy, codes, rng.integers(6, size=(n_seeds, n)))
    if confuse:
        swapped = (codes == confuse[0]) & (rng.random((n_seeds, n)) < 0.5)
        guess = np.where(swapped, confuse[1], guess)
    np.put_along_axis(logits, guess[..., None], np.take_along_axis(logits, guess[..., None], 2) + sharpness, 2)
    probabilities = np.exp(logits)
    return (probabilities / probabilities.sum(2, keepdims=True)).astype(np.float32), codes


def test_a_planted_confusion_appears_and_rows_keep_their_sum():
    rng = np.random.default_rng(0)
    (a, codes), (b, _) = predictions(rng), predictions(rng, confuse=(2, 5))
    found = statistics.confusion_change(a, b, codes, resamples=300)
    assert found["low"][2, 5] > 15 and found["high"][2, 2] < -10
    assert found["change"].sum(1) == pytest.approx(np.zeros(6), abs=1e-9)
    others = np.delete(np.arange(6), 2)
    outside = (found["low"][others] > 0) | (found["high"][others] < 0)
    assert outside.mean() < 0.2


def test_an_absent_expression_has_no_row():
    a, codes = predictions(np.random.default_rng(1))
    kept = codes != 3
    found = statistics.confusion_change(a[:, kept], a[:, kept], codes[kept], resamples=50)
    assert np.isnan(found["change"][3]).all() and (found["change"][0] == 0).all()


def test_calibration_by_hand():
    certain = np.eye(6, dtype=np.float32)[None, [0, 0, 1, 1]]
    codes = np.array([0, 1, 1, 1])
    assert statistics.brier_scores(certain, codes).tolist() == [[0, 2, 0, 0]]
    assert statistics.expected_calibration_error(certain, codes) == pytest.approx([0.25])
    bins = statistics.calibration({"sure": certain}, codes, resamples=50)["sure"]["bins"]
    assert bins[["confidence", "accuracy", "share"]].to_numpy().tolist() == [[1, 0.75, 1]]


def test_probabilities_drawn_from_themselves_are_calibrated_and_sharper_ones_are_not():
    rng, n = np.random.default_rng(2), 2_000
    honest = rng.dirichlet(np.full(6, 0.7), size=n)
    codes = (honest.cumsum(1) < rng.random(n)[:, None]).sum(1).clip(0, 5)
    sure = honest**3 / (honest**3).sum(1, keepdims=True)
    arms = {"honest": np.stack([honest] * 3), "sure": np.stack([sure] * 3)}
    found = statistics.calibration(arms, codes, baseline="honest", resamples=300)
    assert found["honest"]["ece"]["estimate"] < 0.04 < found["sure"]["ece"]["estimate"]
    assert found["sure"]["brier_change"]["low"] > 0 and found["sure"]["brier_change"]["p"] < 0.05
    bins = found["honest"]["bins"]
    inside = (bins["low"] <= bins["confidence"]) & (bins["confidence"] <= bins["high"])
    assert inside.mean() >= 0.7 and bins["share"].sum() == pytest.approx(1)


def graded(rng, slope, *, n_seeds=4, n_subjects=40, per_subject=15):
    """Correctness whose log-odds rise by `slope` per 0.1 of intensity, with subjects of their own level."""
    subjects = np.repeat(np.arange(n_subjects), per_subject)
    intensity = rng.uniform(0.6, 1.1, len(subjects))
    odds = 0.3 + slope * 10 * (intensity - 0.85)
    return rng.random((n_seeds, len(subjects))) < 1 / (1 + np.exp(-odds)), intensity, subjects


def test_the_slope_over_intensity_is_covered():
    covered = 0
    for world in range(100):
        correct, intensity, subjects = graded(np.random.default_rng([3, world]), 0.3)
        slope = statistics.intensity_slope(correct, intensity, clusters=subjects)
        covered += slope["low"] <= 0.3 <= slope["high"]
    assert covered / 100 >= 0.88  # 0.95, less 3 standard errors of 100 trials


def test_accuracy_rises_over_the_bins_of_intensity():
    correct, intensity, subjects = graded(np.random.default_rng(4), 0.5)
    table = statistics.accuracy_by_intensity({"real": correct}, intensity, clusters=subjects, resamples=200)
    assert table["accuracy"].is_monotonic_increasing and table["images"].sum() == len(subjects)
    assert (table["low"] < table["accuracy"]).all() and (table["accuracy"] < table["high"]).all()
    gain = statistics.gain_by_intensity(correct, correct, intensity, resamples=50)
    assert (gain["estimate"] == 0).all()


def test_unknown_intensities_are_refused():
    correct, intensity, _ = graded(np.random.default_rng(5), 0.0)
    with pytest.raises(FerError, match="only built-in faces have one"):
        statistics.accuracy_by_intensity({"real": correct}, np.full(len(intensity), np.nan))


@pytest.mark.parametrize("change", ["all wrong", "one intensity", "separated", "four subjects"])
def test_a_slope_that_cannot_be_fitted_is_refused(change):
    correct, intensity, subjects = graded(np.random.default_rng(5), 0.3)
    if change == "all wrong":
        correct[:] = False
    elif change == "separated":
        correct[:] = intensity > 0.8
    elif change == "one intensity":
        intensity = np.full_like(intensity, 0.9)
    else:
        subjects = subjects % 4
    with pytest.raises(FerError, match="No slope"):
        statistics.intensity_slope(correct, intensity, clusters=subjects)


def test_two_intensities_are_two_bins():
    correct, intensity = np.ones((1, 60), bool), np.repeat([0.6, 1.0], [10, 50])
    table = statistics.accuracy_by_intensity({"real": correct}, intensity, resamples=50)
    assert table["images"].tolist() == [10, 50] and table["intensity"].tolist() == pytest.approx([0.6, 1.0])


def test_predictions_of_another_test_set_are_refused():
    a, codes = predictions(np.random.default_rng(6))
    with pytest.raises(FerError, match="one true code per image"):
        statistics.brier_scores(a, codes[1:])
