"""Planted components are recovered, and what a design cannot tell apart is called not identified."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from fer_lib import statistics, variance
from fer_lib.errors import FerError

PARTS = ("split", "generator", "train")
TOGETHER = [(seed, seed, seed) for seed in range(8)]
ONE_AT_A_TIME = [(0, 0, 0), *((seed, 0, 0) for seed in (1, 2, 3)), *((0, seed, 0) for seed in (1, 2, 3)),
                 *((0, 0, seed) for seed in (1, 2, 3))]


def accuracies(design, spreads, rng):
    """A table of classifiers whose accuracy has the given standard deviations (points) of split, generator, train."""
    table = pd.DataFrame(design, columns=["split_seed", "generator_seed", "train_seed"])
    split, generator = (rng.normal(scale=spread, size=50) for spread in spreads[:2])
    own = rng.normal(scale=spreads[2], size=len(table))
    return table.assign(accuracy=0.6 + (split[table.split_seed] + generator[table.generator_seed] + own) / 100)


@pytest.mark.parametrize("spreads", [(2.0, 1.0, 1.5), (0.0, 0.0, 2.0)], ids=["all three", "training alone"])
def test_intervals_of_components_cover(spreads):
    truth = [*spreads, np.sqrt(np.square(spreads).sum())]
    covered, squares = [], []
    for world in range(100):
        table = accuracies(statistics.variance_design(4), spreads, np.random.default_rng([1, world]))
        parts = statistics.variance_split(table, resamples=400, seed=world)["components"]
        found = [parts[name]["sd_points"] for name in (*PARTS, "all")]
        covered.append([part["low"] <= sd <= part["high"] for part, sd in zip(found, truth, strict=True)])
        squares.append([part["estimate"] ** 2 for part in found])
    assert (np.mean(covered, axis=0) >= 0.88).all()  # 0.95, less 3 standard errors of 100 trials
    # Variances are cut at 0, hence a little too large where they are 0.
    assert np.sqrt(np.mean(squares, axis=0)) == pytest.approx(truth, abs=0.8)


def test_components_agree_with_the_analysis_of_variance():
    table = accuracies(statistics.variance_design(5), (3, 2, 1), np.random.default_rng(2))
    squares = anova_lm(ols("accuracy ~ C(split_seed) + C(generator_seed)", table).fit())["mean_sq"] * 100**2
    parts = statistics.variance_split(table, resamples=50)["components"]
    assert parts["train"]["sd_points"]["estimate"] ** 2 == pytest.approx(squares["Residual"])
    of_split = (squares["C(split_seed)"] - squares["Residual"]) / 5
    assert parts["split"]["sd_points"]["estimate"] ** 2 == pytest.approx(of_split)


@pytest.mark.parametrize(("design", "hidden"), [
    (TOGETHER, ["split", "generator", "train"]), (ONE_AT_A_TIME, []), (statistics.variance_design(2), []),
    ([(0, 0, seed) for seed in range(4)], ["split", "generator", "all"]),
    ([(seed // 2, seed // 2, seed) for seed in range(8)], ["split", "generator"])],
    ids=["together", "one at a time", "crossed", "training alone", "two trainings per sample"])
def test_what_a_design_cannot_tell_apart_is_not_identified(design, hidden):
    split = statistics.variance_split(accuracies(design, (2, 1, 1), np.random.default_rng(3)), resamples=50)
    assert split["not_identified"] == [*hidden, "images"]
    assert all(split["components"][name]["sd_points"]["estimate"] is None for name in hidden)


def test_seeds_that_vary_together_give_only_their_sum():
    table = accuracies(TOGETHER, (2, 1, 1), np.random.default_rng(4))
    total = statistics.variance_split(table)["components"]["all"]["sd_points"]
    assert total["estimate"] == pytest.approx(100 * table["accuracy"].std())
    assert total["low"] < total["estimate"] < total["high"]


def test_shares_add_up_and_images_have_their_part():
    rng = np.random.default_rng(5)
    table = accuracies(statistics.variance_design(3), (2, 1, 1), rng)
    correct = rng.random((9, 400)) < table["accuracy"].to_numpy()[:, None]
    parts = statistics.variance_split(table, correct=correct)["components"]
    assert sum(parts[name]["share"] for name in (*PARTS, "images")) == pytest.approx(1)


def test_the_variance_over_test_images_is_recovered():
    variances = []
    for world in range(60):
        rng = np.random.default_rng([6, world])
        easy = rng.choice([0.3, 0.9], size=500)
        variances.append(statistics.image_variance(rng.random((6, 500)) < easy, np.arange(500)))
    assert np.mean(variances) == pytest.approx(0.3**2 / 500, rel=0.1)


@pytest.mark.parametrize("shape, n_classifiers", [((1, 1.5), 9), ((8, 12), 4), ((20, 30), 2)])
def test_the_interval_of_the_images_part_covers(shape, n_classifiers):
    """Also where most of what is seen is disagreement of the classifiers."""
    truth = 100 * (beta(*shape).var() / 600) ** 0.5
    covered = []
    for world in range(100):
        rng = np.random.default_rng([8, world])
        correct = rng.random((n_classifiers, 600)) < rng.beta(*shape, 600)
        part = variance._images(correct, None, 0.95)["sd_points"]
        covered.append(part["low"] <= truth <= part["high"])
    assert np.mean(covered) >= 0.88  # 0.95, less 3 standard errors of 100 trials


def test_the_sum_is_that_of_the_parts():
    for world in range(10):
        table = accuracies(statistics.variance_design(3), (0, 0, 2), np.random.default_rng([9, world]))
        parts = statistics.variance_split(table, resamples=50)["components"]
        squares = [parts[name]["sd_points"]["estimate"] ** 2 for name in PARTS]
        assert parts["all"]["sd_points"]["estimate"] ** 2 == pytest.approx(sum(squares))


def test_copies_of_an_image_do_not_shrink_the_part_of_the_images():
    correct, subjects = np.random.default_rng(7).random((4, 100)) < 0.5, np.arange(100)
    alone = statistics.image_variance(correct, subjects)
    assert statistics.image_variance(np.tile(correct, 5), np.tile(subjects, 5)) == pytest.approx(alone)


def test_one_test_subject_tells_nothing_of_others():
    table = pd.DataFrame({"split_seed": range(3), "generator_seed": range(3), "train_seed": range(3),
                          "accuracy": [0.4, 0.5, 0.6]})
    found = variance.variance_split(table, correct=np.ones([3, 8], bool), clusters=["a"] * 8, resamples=50)
    assert "images" in found["not_identified"] and found["components"]["all"]["identified"]


def test_a_table_without_seeds_is_refused():
    with pytest.raises(FerError, match="no number"):
        statistics.variance_split(accuracies(TOGETHER, (1, 1, 1), np.random.default_rng(0)).assign(accuracy=np.nan))
    with pytest.raises(FerError, match="train_seed"):
        statistics.variance_split(pd.DataFrame({"accuracy": [0.5, 0.6]}))
    with pytest.raises(FerError, match="at least 2 seeds"):
        statistics.variance_design(1)
