"""Figures show what they are given, say where images come from, and can be told apart in grey."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fer_lib import plots
from fer_lib.labels import EXPRESSIONS


def texts(figure):
    """Everything written in a figure, as one string."""
    return " | ".join(item.get_text() for item in figure.findobj(lambda item: hasattr(item, "get_text")))


def means(tests=("lab", "wild")):
    rows = [(test, arm, ratio, 3, int(600 * ratio), 0.5 + 0.01 * ratio, 0.48, 0.60)
            for test in tests for arm in ("real", "generated", "mixed")
            for ratio in ([0.0] if arm == "real" else [1.0, 2.0, 5.0])]
    columns = ["test_set", "arm", "ratio", "seeds", "n_generated", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def recalls():
    rows = [(test, arm, ratio, name, 0.5, 0.4, 0.6) for test in ("lab", "wild")
            for arm, ratio in (("real", 0.0), ("mixed", 5.0)) for name in EXPRESSIONS]
    return pd.DataFrame(rows, columns=["test_set", "arm", "ratio", "expression", "recall", "low", "high"])


HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [1.8, 1.5, 1.2], "validation_loss": [1.8, 1.6, 1.7],
                        "validation_accuracy": [0.2, 0.3, 0.35]})
LOSSES = pd.DataFrame({"kimg": [0, 1, 2], "generator": [1, 2, 3], "discriminator": [3, 2, 1], "r1": [0, 0, 1],
                       "class": [1, 1, 1]})
COUNTS = pd.DataFrame([[5] * 6, [2] * 6], index=["train", "test"], columns=EXPRESSIONS)
PICTURES = np.zeros((2, 3, 1, 32, 32), np.uint8)
FOUND = {"ratio": 2.2, "low": 1.5, "high": 3.0, "identified": True}
NOT_FOUND = {"ratio": None, "low": None, "high": None, "identified": False}

AXES = [{"test_set": test, "n_real": n, "weight": weight, "intensity": intensity, "truncation": 1.0,
         "gain_points": {"estimate": 1.0, "low": -1.0, "high": 3.0}, "seeds": 8 if weight * intensity == 1 else 3}
        for test in ("lab", "wild")
        for n, weight, intensity in ((600, 1, 1), (120, 1, 1), (600, 0.3, 1), (120, 1, 0.5))]

EVERY_FIGURE = {
    "contact_sheet": lambda: plots.contact_sheet(PICTURES, row_titles=["a", "b"], column_titles=list("xyz")),
    "contact_sheet_colour": lambda: plots.contact_sheet(np.zeros((1, 1, 3, 40, 32), np.uint8), scale=2),
    "split_overview": lambda: plots.split_overview(COUNTS),
    "learning_curves": lambda: plots.learning_curves(HISTORY, best_epoch=2),
    "gan_losses": lambda: plots.gan_losses(LOSSES),
    "confusion": lambda: plots.confusion(np.eye(6)),
    "ratio_curve": lambda: plots.ratio_curve(means(), bounds={"lab": FOUND, "wild": NOT_FOUND}),
    "ratio_curve_one_test": lambda: plots.ratio_curve(means(["lab"])),
    "arms_curve": lambda: plots.arms_curve(means(), bounds={"lab": FOUND}, baseline="real"),
    "arms_curve_of_one_ratio": lambda: plots.arms_curve(means()[means()["ratio"].isin([0, 5])], baseline="real"),
    "axis_gains": lambda: plots.axis_gains(AXES, n_real=600),
    "recall_by_expression": lambda: plots.recall_by_expression(recalls()),
}


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_every_figure_can_be_drawn_and_has_no_text_below_6_points(name):
    figure = EVERY_FIGURE[name]()
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png")
    sizes = [item.get_fontsize() for item in figure.findobj(lambda item: hasattr(item, "get_fontsize"))
             if item.get_text()]
    assert min(sizes, default=8) >= 6


@pytest.mark.parametrize("name, told", [
    ("contact_sheet", "2 rows and 3 columns; columns: x, y, z; rows: a, b."), ("learning_curves", "epoch 2 are kept."),
    ("confusion", "anger 1.00, disgust 1.00"), ("axis_gains", "600 (test set lab) +1.0 (-1.0 to +3.0)"),
    ("arms_curve", "Accuracy on the test set lab: "), ("arms_curve_of_one_ratio", "Accuracy on the test set wild: ")])
def test_figures_say_in_words_what_they_show(name, told):
    assert told in EVERY_FIGURE[name]().alt


def test_the_ratio_curve_says_what_the_classifiers_were_trained_on():
    words = texts(plots.ratio_curve(means(), origin="rendered"))
    assert "rendered only" in words and "rendered + generated" in words and "generated only" in words
    assert "generated / rendered" in words and "real" not in words


def test_the_ratio_curve_marks_a_bound_only_where_it_is_identified():
    words = texts(plots.ratio_curve(means(), bounds={"lab": FOUND, "wild": NOT_FOUND}))
    assert words.count("no further gain beyond 2.2, interval 1.5 to 3.0") == 1
    assert words.count("no point of no further gain identified") == 1
    assert "no further gain" not in texts(plots.ratio_curve(means()))


def test_a_single_seed_is_drawn_without_an_interval():
    table = means().assign(low=np.nan, high=np.nan)
    plots.ratio_curve(table).savefig(io.BytesIO(), format="png")


def test_arms_differ_in_marker_and_not_in_colour_alone():
    markers = [marker for _, marker, _ in plots.ARMS.values()]
    assert len(set(markers)) == len(markers)


def test_curves_of_an_arm_pass_through_its_accuracies():
    axis = plots.ratio_curve(means(["lab"])).axes[0]
    heights = [np.asarray(line.get_ydata()).tolist() for line in axis.lines]
    assert [0.51, 0.52, 0.55] in heights


def test_an_axis_is_shown_where_it_was_varied():
    words = texts(plots.axis_gains(AXES, n_real=600))
    assert "real training images" in words and "weight of a generated face in the loss, 600 real" in words
    assert "intensity of generated expressions, 120 real" in words and "truncation" not in words
    assert "0.3\n3 seeds" in words and "1\n8 seeds" in words
    assert plots.axis_gains(AXES[:1], n_real=600) is None and plots.axis_gains([], n_real=600) is None


def test_an_axis_has_the_interval_by_analysis_of_variance_where_seeds_are_few():
    anova = {"estimate": 1.0, "low": -9.0, "high": 11.0}
    figure = plots.axis_gains([row | {"gain_points_anova": anova} for row in AXES], n_real=600)
    many, few = (figure.axes[1].containers[0].lines[2][0].get_segments()[place] for place in (0, 1))
    assert np.allclose(few[:, 1], [-9, 11]) and np.allclose(many[:, 1], [-1, 3])
    assert "analysis of variance" in texts(figure) and "variance" not in texts(plots.axis_gains(AXES, n_real=600))


@pytest.mark.parametrize("seeds, lines", [(3, 2), (8, 0)])
def test_gains_of_few_seeds_have_the_interval_by_analysis_of_variance(seeds, lines):
    gain = {"estimate": 3.0, "low": 1.0, "high": 5.0}
    contrasts = [{"arm": arm, "ratio": 5.0, "baseline": "real_long", "seeds": seeds, "gain_points": gain,
                  "gain_points_anova": {"estimate": 3.0, "low": -7.0, "high": 13.0}} for arm in ("mixed", "generated")]
    figure = plots.contrast_forest(contrasts)
    thin = [line for line in figure.axes[0].lines if list(line.get_xdata()) == [1.0, 5.0]]
    words = texts(figure)
    assert len(thin) == lines and ("analysis of variance" in words) == bool(lines)
    assert words.count("+3.0 (-7.0 to +13.0)" if lines else "+3.0 (+1.0 to +5.0)") == 2


def test_a_loss_that_leaps_once_does_not_flatten_the_rest_and_guessing_is_marked():
    history = pd.DataFrame({"step": range(5), "generator": [0.5, 75, 0.6, 0.7, 0.6],
                            "discriminator": [1, 1.2, 1.1, 1, 1.0]})
    figure = plots.gan_losses(history, x="step", guessing={"discriminator": 1.39})
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "linear"]
    assert any(np.allclose(line.get_ydata(), 1.39) for line in figure.axes[1].lines) and "guessing" in texts(figure)


def test_worth_is_told_only_where_something_can_be_told():
    worth = {"identified": False, "low": None, "high": None, "n_real": 600}
    assert "cannot be told" in plots._worth_sentence(worth, "real")
    assert "cannot be told" in plots._worth_sentence(worth | {"low": -0.09}, "real")
    assert "at least 0.70 real" in plots._worth_sentence(worth | {"low": 0.7}, "real")


def test_changed_confusions_name_no_negative_zero():
    found = {"change": np.full((6, 6), -0.2), "low": np.full((6, 6), -1.0), "high": np.full((6, 6), 1.0)}
    words = texts(plots.confusion_change(found, title="mixed minus baseline"))
    assert "-0" not in words and "mixed minus baseline" in words and "95 %" in words


@pytest.mark.parametrize("seeds, frames", [(8, 36), (3, 0)])
def test_changed_confusions_are_framed_only_where_seeds_are_enough(seeds, frames):
    found = {"change": np.full((6, 6), 4.0), "low": np.full((6, 6), 1.0), "high": np.full((6, 6), 7.0)}
    figure = plots.confusion_change(found, seeds=seeds)
    assert len(figure.axes[0].patches) == frames and ("too few" in texts(figure)) == (not frames)
