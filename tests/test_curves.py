"""A planted saturation, worth or law is found; where none is planted, none is claimed."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from fer_lib import statistics
from fer_lib.curves import equivalent_size
from fer_lib.errors import FerError
from fer_lib.intervals import resampled_means

RATIOS = np.array([0, 0.5, 1, 2, 3, 5, 7, 10])
SIZES = (60, 120, 240, 480, 960)


def classifiers(rng, accuracies, *, n_seeds, n_subjects=50, per_subject=12):
    """Correctness [seeds, images] of one arm per accuracy, on shared images, each with a difficulty of its own."""
    subjects = np.repeat(np.arange(n_subjects), per_subject)
    n = len(subjects)
    easy = 0.9 * rng.normal(size=n) + 0.5 * rng.normal(size=n_subjects)[subjects]
    arms, spread = [], np.sqrt(0.9**2 + 0.5**2 + 0.35**2 + 0.15**2 + 0.08**2 + 0.8**2)
    for accuracy in accuracies:
        own = 0.35 * rng.normal(size=n) + 0.15 * rng.normal(size=n_subjects)[subjects]
        noise = 0.08 * rng.normal(size=(n_seeds, 1)) + 0.8 * rng.normal(size=(n_seeds, n))
        arms.append(spread * norm.ppf(accuracy) + easy + own + noise > 0)
    return arms, subjects


# ---- saturation ----------------------------------------------------------------------------------------

SHAPES = {"flat": lambda r: 0.55 + 0 * r, "straight": lambda r: 0.5 + 0.02 * r, "falling": lambda r: 0.6 - 0.015 * r,
          "slowing": lambda r: 0.5 + 0.05 * np.log1p(r), "steep": lambda r: 0.5 + 0.03 * np.log1p(10 * r),
          "power": lambda r: 0.5 + 0.06 * r**0.3, "early": lambda r: 0.5 + 0.05 * np.minimum(r, 0.2) / 0.2,
          "plateau": lambda r: 0.5 + 0.04 * np.minimum(r, 3),
          "rise_fall": lambda r: 0.5 + 0.05 * np.minimum(r, 3) - 0.02 * np.maximum(r - 3, 0)}


def bounds_of(shape, *, n_seeds=5, worlds=40):
    found = []
    for world in range(worlds):
        arms, subjects = classifiers(np.random.default_rng([world, n_seeds]), SHAPES[shape](RATIOS), n_seeds=n_seeds)
        resampled, images = (resampled_means(rows, subjects, resamples=400, seed=world).T
                             for rows in (arms, [arm.mean(0, keepdims=True) for arm in arms]))
        found.append(statistics.upper_bound(RATIOS, np.stack([arm.mean(1) for arm in arms], 1), resampled=resampled,
                                            images=images))
    return pd.DataFrame(found)


@pytest.mark.parametrize("shape", ["flat", "straight", "falling", "slowing", "steep", "power"])
def test_no_saturation_is_identified_in_an_endless_shape(shape):
    # 0.05 nominal; of 40 worlds more than 5 would be a chance of 1 in 70.
    bounds = bounds_of(shape)
    assert bounds["identified"].sum() <= 5 and bounds["at_most"].notna().sum() <= 5


def test_an_end_before_the_smallest_ratio_is_only_bounded():
    bounds = bounds_of("early", n_seeds=8)
    assert bounds["identified"].sum() <= 2 and bounds["at_most"].notna().sum() >= 4
    assert (bounds["at_most"].dropna() > 0.5).all() and not (bounds["identified"] & bounds["at_most"].notna()).any()


def test_one_seed_prefers_no_shape():
    bound = statistics.upper_bound(RATIOS, SHAPES["rise_fall"](RATIOS)[None])
    assert bound["preferred"] is None and not (bound["identified"] or bound["at_most"] or bound["falls"])


def test_an_accuracy_that_is_no_number_is_refused():
    with pytest.raises(FerError, match="no number"):
        statistics.upper_bound(RATIOS, np.where(RATIOS == 3, np.nan, 0.5)[None])


def test_a_planted_plateau_is_found_between_changing_images_and_seeds():
    bounds = bounds_of("plateau")
    assert bounds["identified"].mean() > 0.7 and abs(bounds["ratio"].median() - 3) < 0.4
    assert ((bounds["low"] <= 3) & (bounds["high"] >= 3)).mean() >= 0.85
    assert (bounds["turn"] == "plateau").mean() > 0.7 and bounds["falls"].mean() < 0.15


def test_a_planted_fall_beyond_the_peak_is_recognised():
    bounds = bounds_of("rise_fall")
    assert bounds["identified"].mean() > 0.9 and bounds["falls"].mean() > 0.9
    assert abs(bounds["ratio"].median() - 3) < 0.4
    assert all(change["high"] < 0 for change in bounds["change_beyond_points"][:10])


def test_a_curve_without_noise_gives_its_own_turn_back():
    bound = statistics.upper_bound(RATIOS, SHAPES["rise_fall"](RATIOS) + np.zeros((3, 1)))
    assert bound["ratio"] == pytest.approx(3, abs=0.05) and bound["turn"] == "rise_fall" and bound["identified"]
    assert bound["rise_points"]["estimate"] == pytest.approx(15, abs=0.5)
    assert bound["change_beyond_points"]["estimate"] == pytest.approx(-14, abs=0.5)


# ---- worth ---------------------------------------------------------------------------------------------

def planted_curve(n):
    return 0.85 - 1.6 * n**-0.4


def study_of_sizes(rng, n_equivalent, *, n_seeds=5):
    arms, subjects = classifiers(rng, [*map(planted_curve, SIZES), planted_curve(n_equivalent)], n_seeds=n_seeds)
    by_size = {size: {("real", 0.0): arm} for size, arm in zip(SIZES, arms, strict=False)}
    by_size[120]["mixed", 5.0] = arms[-1]
    return by_size, subjects


@pytest.mark.parametrize("worth", [0.0, 0.2])
def test_a_planted_worth_is_covered(worth):
    covered = []
    for world in range(60):
        by_size, subjects = study_of_sizes(np.random.default_rng([3, world]), 120 + 600 * worth)
        found = statistics.worth(by_size, 120, 5, clusters=subjects, resamples=300)
        low, high = ((found["equivalent"][key] - 120) / 600 for key in ("low", "high"))
        covered.append(low <= worth <= high)
    assert np.mean(covered) >= 0.87  # 0.95, less 3 standard errors of 60 trials


def test_a_worth_beyond_the_measured_sizes_is_only_bounded():
    by_size, subjects = study_of_sizes(np.random.default_rng(0), 3_000, n_seeds=8)
    found = statistics.worth(by_size, 120, 5, clusters=subjects, resamples=500)
    assert found["bound"] == "above" and found["estimate"] is None and found["high"] is None
    assert not found["identified"] and (found["low"] is None or found["low"] > 0.2)
    assert found["range"] == [-0.1, 1.4]


def test_a_worth_uses_all_seeds_that_an_arm_has():
    """Three seeds of the curve, eight of the arm: neither estimate nor interval may rest on the first three alone."""
    by_size, subjects = study_of_sizes(np.random.default_rng(4), 240, n_seeds=8)
    fewer = {size: {("real", 0.0): arms["real", 0.0][:3]} for size, arms in by_size.items()}
    fewer[120]["mixed", 5.0] = by_size[120]["mixed", 5.0]
    found = statistics.worth(fewer, 120, 5, clusters=subjects, resamples=300)
    assert found["accuracy"]["estimate"] == by_size[120]["mixed", 5.0].mean() and found["seeds"] == 8
    assert found["curve"]["seeds"] == [3] * len(SIZES)
    assert found["equivalent"]["low"] < found["equivalent"]["estimate"] < found["equivalent"]["high"]
    with pytest.raises(FerError, match="ratio 0"):
        statistics.worth(by_size, 120, 0)


def test_worth_of_every_expression_uses_its_own_recall():
    by_size, subjects = study_of_sizes(np.random.default_rng(1), 240)
    codes = np.arange(len(subjects)) % 6
    found = statistics.worth(by_size, 120, 5, clusters=subjects, codes=codes, resamples=200)
    assert len(found["expressions"]) == 6
    anger = by_size[120]["mixed", 5.0][:, codes == 0].mean()
    assert found["expressions"]["anger"]["accuracy"]["estimate"] == pytest.approx(anger)


def test_a_learning_curve_is_recovered_and_inverted():
    fit = statistics.learning_curve(SIZES, planted_curve(np.array(SIZES)))
    assert [fit[name][0] for name in "abc"] == pytest.approx([0.85, 1.6, 0.4], rel=0.05)
    assert equivalent_size(fit, np.array([planted_curve(300)]), SIZES)[0] == pytest.approx(300, rel=0.01)


def test_a_falling_learning_curve_is_flat_and_reaches_nothing_higher():
    fit = statistics.learning_curve(SIZES, [0.6, 0.5, 0.5, 0.5, 0.4])
    assert fit["b"][0] == 0 and equivalent_size(fit, np.array([0.55]), SIZES)[0] == max(SIZES)


def test_two_sizes_are_too_few_for_a_worth():
    by_size, _ = study_of_sizes(np.random.default_rng(0), 240)
    with pytest.raises(FerError, match="3 or more n_real"):
        statistics.worth({size: by_size[size] for size in (60, 120)}, 120, 5)


# ---- law -----------------------------------------------------------------------------------------------

def gains(rng, gain, *, noise=1.5):
    cells = [(n, ratio, weight) for n in (60, 120, 240, 600) for ratio in (0.5, 1, 2, 5, 10)
             for weight in ((0.1, 0.3, 0.6, 1.0) if ratio == 5 else (1.0,))]
    rows = [(*cell, gain(*cell) + own + noise * rng.normal())
            for cell in cells for own in [0.3 * rng.normal()] for _ in range(4)]
    return pd.DataFrame(rows, columns=["n_real", "ratio", "weight", "gain"])


def saturating(n, ratio, weight):
    return 4 * np.log1p(ratio * weight) * (120 / n) ** 0.5


def test_a_law_beats_the_mean_where_there_is_one():
    fits = [statistics.law(gains(np.random.default_rng([5, world]), saturating), resamples=1_000) for world in range(6)]
    assert all(fit["beats_mean"] for fit in fits)
    law, mean = (np.mean([fit["rmse_points"][name] for fit in fits]) for name in ("law", "mean"))
    assert law < 0.6 * mean


def test_no_law_is_claimed_where_the_gain_is_the_same_everywhere():
    fits = [statistics.law(gains(np.random.default_rng([6, world]), lambda *cell: 3.0), resamples=1_000)
            for world in range(12)]
    assert sum(fit["beats_mean"] for fit in fits) <= 2
    assert np.mean([fit["rmse_points"]["law"] / fit["rmse_points"]["mean"] for fit in fits]) < 1.15


def gains_over_the_same(rng, *, baseline, own, n_seeds=3):
    """Gains of 4 points everywhere, whose cells of one n_real share the chance of their classifiers without added."""
    rows = [(n, ratio, 1.0, seed, seed, seed, 4 + own * rng.normal() - luck)
            for n in (60, 120, 240, 600) for seed, luck in enumerate(baseline * rng.normal(size=n_seeds))
            for ratio in (0.5, 1, 2, 5, 10)]
    return pd.DataFrame(rows, columns=["n_real", "ratio", "weight", "split_seed", "generator_seed", "train_seed",
                                       "gain"])


def test_the_luck_of_a_baseline_is_no_law():
    fits = [statistics.law(gains_over_the_same(np.random.default_rng([8, world]), baseline=5, own=2), resamples=500)
            for world in range(16)]
    assert sum(fit["beats_mean"] for fit in fits) <= 3  # 8 of 16 and more where that luck is seen


def test_the_fitted_law_predicts_what_it_was_fitted_to():
    data = gains(np.random.default_rng(7), lambda n, ratio, weight: 2 + 1.5 * np.log(ratio) - np.log(n), noise=0.01)
    fit = statistics.law(data, resamples=200)
    assert statistics.predict_gain(fit, 120, 2.0) == pytest.approx(2 + 1.5 * np.log(2) - np.log(120), abs=0.5)


def test_gains_are_paired_by_seed_with_the_closest_baseline():
    rows = [("lab", arm, ratio, 120, 1.0, seed, seed, seed, accuracy + 0.1 * seed) for seed in (0, 1)
            for arm, ratio, accuracy in (("real_long", 2.0, 0.3), ("real_long", 5.0, 0.4), ("mixed", 5.0, 0.45))]
    table = pd.DataFrame(rows, columns=["test_set", "arm", "ratio", "n_real", "weight", "split_seed", "generator_seed",
                                        "train_seed", "accuracy"])
    assert statistics.gains_table(table, test_set="lab")["gain"].tolist() == pytest.approx([5, 5])
    with pytest.raises(FerError, match="shares n_real and seeds"):
        statistics.gains_table(table, test_set="lab", baseline="external")


def test_a_law_of_few_cells_is_refused():
    with pytest.raises(FerError, match="at least 6 cells"):
        statistics.law(gains(np.random.default_rng(0), saturating).query("n_real == 60 and ratio < 3"))
