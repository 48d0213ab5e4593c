"""Figures. Every function takes data and returns a matplotlib Figure; nothing is computed or saved here."""

import io
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from fer_lib.design import FEW_SEEDS
from fer_lib.intervals import FEW_SUBJECTS, by_anova, trusted
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS

COLUMN = 3.5  # inches, one column of a journal page
PAGE = 7.2    # inches, both columns
PALETTE = sns.color_palette("colorblind")
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.frameon": False, "figure.dpi": 120, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.7, "lines.linewidth": 1.3, "lines.markersize": 4,
    "errorbar.capsize": 2, "svg.hashsalt": "fer",
}
NO_FURTHER_GAIN = "no further gain beyond"
# Colour, marker, line: each arm can be told apart in grey, too.
ARMS = {"real": (PALETTE[7], "o", "-"), "mixed": (PALETTE[0], "s", "-"), "generated": (PALETTE[1], "^", "--")}


class Drawn(Figure):
    """A Figure that a notebook shows as a picture; others are shown only once pyplot has chosen a backend.

    alt : what it shows, in words, for those who do not see it.
    """

    alt = ""

    def _repr_png_(self):
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight", facecolor="white")
        return file.getvalue()


@contextmanager
def _figure(width, height, rows=1, columns=1, **options):
    """A new constrained-layout figure in the shared style, with its axes as an array [rows, columns]."""
    with mpl.rc_context({**sns.axes_style("ticks"), **STYLE}):
        figure = Drawn(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


def arm_name(arm, origin="real"):
    """What a figure calls an arm: "mixed" becomes "rendered + generated" where `origin` is "rendered"."""
    names = {"real": f"{origin} only", "generated": "generated only", "mixed": f"{origin} + generated"}
    return names.get(arm, arm)


# ---- pictures ------------------------------------------------------------------------------------------

def contact_sheet(images, *, row_titles=None, column_titles=None, title="", scale=1.0):
    """Pictures side by side.

    images : uint8 [rows, columns, C, H, W], C 1 or 3.
    row_titles, column_titles : str per row and per column, or None.
    title : says where the pictures come from.
    scale : width of a picture in units of 0.6 inch.
    """
    images, title_of_sheet = np.asarray(images), title
    rows, columns, _, height, width = images.shape
    side = 0.6 * scale
    # Room for titles, so that they do not shrink the pictures; 0.07 inch is about one letter.
    margin = 0.1 + 0.07 * scale * max(map(len, row_titles or [""]))
    top = 0.1 + (0.15 if column_titles else 0)
    fontsize = min(8, 3 + 3.2 * scale)
    size = columns * side + margin, rows * side * height / width + top
    with _figure(*size, rows, columns) as (figure, axes):
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        for row in range(rows):
            for column in range(columns):
                _picture(axes[row, column], images[row, column])
        for axis, title in zip(axes[0], column_titles or [], strict=False):
            axis.set_title(title, pad=3, fontsize=fontsize)
        for axis, title in zip(axes[:, 0], row_titles or [], strict=False):
            axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=fontsize)
        figure.suptitle(title_of_sheet or None, fontsize=8)
        figure.alt = (f"Pictures of faces, {rows} rows and {columns} columns"
                      + (f"; {title_of_sheet}" if title_of_sheet else "")
                      + (f"; columns: {', '.join(filter(None, column_titles))}" if column_titles else "")
                      + (f"; rows: {', '.join(filter(None, row_titles))}" if row_titles else "") + ".")
    return figure


def expression_sheet(faces, *, n_rows=8, title="", scale=1.0):
    """One person a row, one expression a column, from a set of faces.

    faces : Faces; of every subject its first picture of each expression, in the order of the table; subjects
        evenly spaced. Where subjects are unknown a row holds unrelated pictures, the n-th of each expression.
    """
    shown = [name for name in ALL_EXPRESSIONS if (faces.table["expression"] == name).any()]
    subjects = list(dict.fromkeys(faces.subjects))
    spaced = np.linspace(0, len(subjects) - 1, min(n_rows, len(subjects))).astype(int)
    chosen = [subjects[index] for index in spaced]
    named = chosen != [""]
    rows = []
    for number in range(len(chosen) if named else n_rows):
        mask = (faces.subjects == chosen[number]) if named else np.ones(len(faces), bool)
        of_row = [np.flatnonzero(mask & (faces.table["expression"] == name).to_numpy()) for name in shown]
        rows.append([faces.images[index[0 if named else number]] for index in of_row])
    row_titles = chosen if named else None
    return contact_sheet(rows, column_titles=shown, row_titles=row_titles, title=title, scale=scale)


def _picture(axis, image):
    """One image [C, H, W] without ticks or frame."""
    image = np.moveaxis(image, 0, -1)
    axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255,
                interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


# ---- data and training ---------------------------------------------------------------------------------

def split_overview(counts):
    """Images of every expression in every part of the data.

    counts : DataFrame [parts, expressions] of ints; parts and expressions as index and columns.
    """
    with _figure(PAGE, 0.28 * len(counts) * max(1, len(counts.columns) / 7) + 1.0) as (figure, [[axis]]):
        sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", cbar_kws={"label": "images"}, ax=axis,
                    linewidths=0.5, annot_kws={"size": 7}, vmin=0)
        axis.set(xlabel="", ylabel="")
        axis.tick_params(axis="both", length=0, rotation=0)
    return figure


def learning_curves(history, *, best_epoch=None):
    """Loss and accuracy of one classifier against the epoch.

    history : DataFrame as in classifier.Trained. best_epoch : int, marked as the weights that were kept.
    """
    with _figure(PAGE * 0.8, 2.4, 1, 2) as (figure, [[loss, accuracy]]):
        epoch, validation = history["epoch"], {"color": PALETTE[0], "markersize": 3}
        loss.plot(epoch, history["train_loss"], "o-", color=PALETTE[7], markersize=3,
                  label="training (with dropout)")
        loss.plot(epoch, history["validation_loss"], "s--", label="validation", **validation)
        accuracy.plot(epoch, history["validation_accuracy"], "s--", **validation)
        _mark_chance(accuracy)
        loss.set(xlabel="epoch", ylabel="cross-entropy (nats per image)")
        accuracy.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1))
        for axis in (loss, accuracy):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            if best_epoch is not None:
                axis.axvline(best_epoch, color="0.3", linewidth=0.8, label="weights kept")
        figure.legend(*loss.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        first, last = history.iloc[0], history.iloc[-1]
        figure.alt = (f"Over {len(history)} epochs the validation loss goes from {first['validation_loss']:.2f} to "
                      f"{last['validation_loss']:.2f}, at its lowest {history['validation_loss'].min():.2f}; the "
                      f"validation accuracy goes from {first['validation_accuracy']:.2f} to "
                      f"{last['validation_accuracy']:.2f}"
                      + ("." if best_epoch is None else f"; the weights of epoch {best_epoch} are kept."))
    return figure


def _mark_chance(axis):
    """A dotted line at the accuracy of guessing."""
    chance = 1 / len(EXPRESSIONS)
    axis.axhline(chance, color="0.5", linewidth=0.8, linestyle=":", zorder=0)
    axis.annotate("chance", (0.99, chance), xycoords=("axes fraction", "data"), ha="right", va="top", fontsize=7,
                  color="0.4")


def gan_losses(history, *, x="kimg", title="", guessing=None):
    """Each loss of a GAN against training progress, one panel each; logarithmic where one value dwarfs others.
    history : DataFrame with the column `x` (thousands of images, or steps) and one column per loss.
    guessing : dict loss -> its value when the network only guesses, a dotted line.
    """
    names = [name for name in history.columns if name != x]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with _figure(PAGE, 1.6 * rows + 0.2, rows, columns, sharex=True) as (figure, axes):
        for axis, name in zip(axes.flat, names, strict=False):
            axis.plot(history[x], history[name], color=PALETTE[0], linewidth=1)
            axis.set_title(name.replace("_", " "))
            if history[name].min() > 0 and history[name].max() > 10 * history[name].median():
                axis.set_yscale("log")
            if name in (guessing or {}):
                axis.axhline(guessing[name], color="0.5", linewidth=0.8, linestyle=":", zorder=0)
                axis.annotate("guessing", (0.99, guessing[name]), xycoords=("axes fraction", "data"), ha="right",
                              va="bottom", fontsize=7, color="0.4")
        for axis in axes.flat[len(names):]:
            axis.set_visible(False)
        for axis in axes.flat[max(0, len(names) - columns):len(names)]:
            axis.tick_params(labelbottom=True)
        figure.supylabel("loss", fontsize=8)
        figure.supxlabel({"kimg": "training images (thousands)"}.get(x, x), fontsize=8)
        figure.suptitle(title or None, fontsize=8)
    return figure


def confusion(matrix, *, labels=EXPRESSIONS, title=""):
    """Confusion matrix.

    matrix : [n, n], rows (true expression) summing to 1, columns the predicted one. labels : n names.
    """
    with _figure(COLUMN, COLUMN * 0.86) as (figure, [[axis]]):
        sns.heatmap(np.asarray(matrix), vmin=0, vmax=1, cmap="Blues", square=True, annot=True, fmt=".2f",
                    ax=axis, annot_kws={"size": 7}, linewidths=0.5, yticklabels=labels,
                    cbar_kws={"label": "fraction of the true class", "shrink": 0.8})
        axis.set(xlabel="predicted", ylabel="true", title=title)
        axis.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=40, ha="right", rotation_mode="anchor")
        axis.tick_params(axis="x", length=0)
        axis.tick_params(axis="y", rotation=0, length=0)
        told = [f"{name} {value:.2f}" for name, value in zip(labels, np.diag(np.asarray(matrix)), strict=True)]
        figure.alt = f"Confusion matrix{f', {title}' if title else ''}. Fractions that are right: {', '.join(told)}."
    return figure


def label_fidelity(scores, *, origin="real"):
    """How often the judge sees the expression that a face should show: generated faces beside test faces.

    scores : dict set ("generated" or a test set) -> expression or "all" -> {estimate, low, high}, fractions.
    origin : "real" or "rendered", what the test faces are.
    """
    names = [*EXPRESSIONS, "all"]
    with _figure(PAGE * 0.8, 2.4) as (figure, [[axis]]):
        for position, (kind, rows) in enumerate(scores.items()):
            values = np.array([[rows[name][key] for key in ("estimate", "low", "high")] for name in names])
            reach = np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]])
            generated = kind == "generated"
            axis.errorbar(np.arange(len(names)) + 0.16 * position - 0.16, values[:, 0], yerr=np.maximum(reach, 0),
                          linestyle="", elinewidth=0.9, marker="^osDv"[position % 5],
                          color=PALETTE[1] if generated else PALETTE[(7, 0, 2)[(position - 1) % 3]],
                          label=f"generated ({rows['all']['estimate']:.2f})" if generated else
                          f"{origin}, {'test' if kind == 'test' else f'test {kind}'} ({rows['all']['estimate']:.2f})")
        axis.axhline(1 / len(EXPRESSIONS), color="0.5", linewidth=0.8, linestyle="--", label="guessing")
        axis.set_xticks(range(len(names)), names)
        axis.set(ylabel="judge agrees (fraction of faces)", ylim=(0, 1.04))
        figure.legend(loc="outside upper center", ncols=len(scores) + 1, title="95 % interval; in brackets: all faces")
        figure.alt = "Fraction of faces in which the judge sees the expression. " + " ".join(
            f"{kind if kind == 'generated' else f'{origin}, test set {kind}'}: "
            + ", ".join(f"{name} {rows[name]['estimate']:.2f}" for name in names) + "."
            for kind, rows in scores.items())
    return figure


# ---- the ratio study -----------------------------------------------------------------------------------

def ratio_curve(means, *, bounds=None, origin="real", interval="95 % interval over training seeds"):
    """Accuracy against ratio, one panel per test set: the answer of the study.

    means : DataFrame as statistics.accuracy_by_ratio returns it (fractions; `low` and `high` may be NaN).
    bounds : dict test set -> dict as statistics.upper_bound returns it; marked where identified.
    origin : "real" or "rendered", what the non-generated training images are. interval : what bars show.
    """
    tests = list(dict.fromkeys(means["test_set"]))
    width = PAGE if len(tests) > 1 else COLUMN * 1.2
    with _figure(width, 2.9, 1, len(tests), sharey=True) as (figure, [axes]):
        for axis, test in zip(axes, tests, strict=True):
            panel = means[means["test_set"] == test]
            _ratio_panel(axis, panel, origin)
            note = _mark_bound(axis, (bounds or {}).get(test))
            axis.set(title=f"test set: {test}{note}", xlabel=f"ratio (generated / {origin})")
        axes[0].set_ylabel("accuracy (fraction of test images)")
        _shared_legend(figure, axes, f"trained on … (bars and band: {interval})")
    return figure


def _shared_legend(figure, axes, title):
    """One legend above all panels, each label once; what is not an arm comes last."""
    entries = {label: handle for axis in axes
               for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    labels = sorted(entries, key=lambda label: label == NO_FURTHER_GAIN)
    figure.legend([entries[label] for label in labels], labels, loc="outside upper center", ncols=len(labels),
                  title=title, title_fontsize=7)


def _ratio_panel(axis, panel, origin):
    """One test set: the line of `real` with its band, every other arm as a curve with error bars."""
    others = [arm for arm in dict.fromkeys(panel["arm"]) if arm != "real"]
    for _, row in panel[panel["arm"] == "real"].iterrows():
        axis.axhline(row["accuracy"], color=ARMS["real"][0], label=arm_name("real", origin), zorder=1)
        axis.axhspan(row["low"], row["high"], color=ARMS["real"][0], alpha=0.18, linewidth=0, zorder=0)
    spread = 0.015 * panel["ratio"].max()  # keeps the error bars of two arms from hiding each other
    for position, arm in enumerate(others):
        rows = panel[panel["arm"] == arm].sort_values("ratio")
        colour, marker, line = ARMS.get(arm, (PALETTE[2 + position % 5], "Dv<>P"[position % 5], ":"))
        shift = spread * (position - (len(others) - 1) / 2)
        reach = np.stack([rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]])
        axis.errorbar(rows["ratio"] + shift, rows["accuracy"], yerr=np.nan_to_num(reach), color=colour,
                      marker=marker, linestyle=line, elinewidth=0.9, label=arm_name(arm, origin), zorder=3)
    ratios = sorted(set(panel["ratio"]))
    axis.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axis.set_xlim(-2 * spread, ratios[-1] + 3 * spread)


def _mark_bound(axis, bound):
    """Mark the ratio beyond which more does not help, with its interval. Returns a note for the title."""
    if bound is None:
        return ""
    if bound.get("at_most"):
        axis.axvspan(bound["low"], bound["high"], color=PALETTE[2], alpha=0.12, linewidth=0, zorder=0)
        return f"\n(no further gain beyond {bound['at_most']:.1f} or less)"
    if not bound["identified"]:
        return "\n(no point of no further gain identified)"
    axis.axvline(bound["ratio"], color=PALETTE[2], linestyle="-.", linewidth=1, label=NO_FURTHER_GAIN)
    axis.axvspan(bound["low"], bound["high"], color=PALETTE[2], alpha=0.12, linewidth=0, zorder=0)
    interval = f"interval {bound['low']:.1f} to {bound['high']:.1f}"
    return f"\n(no further gain beyond {bound['ratio']:.1f}, {interval})"


def recall_by_expression(recalls, *, origin="real"):
    """Recall of every expression for a few classifiers, one panel per test set.

    recalls : DataFrame as statistics.recall_by_expression returns it (fractions), with the rows to show:
        at most about four combinations of arm and ratio. Bars show its 95 % interval over training seeds.
    origin : "real" or "rendered".
    """
    tests = list(dict.fromkeys(recalls["test_set"]))
    with _figure(PAGE, 2.7, 1, len(tests), sharey=True) as (figure, [axes]):
        for axis, test in zip(axes, tests, strict=True):
            _recall_panel(axis, recalls[recalls["test_set"] == test], origin)
            axis.set_title(f"test set: {test}")
        axes[0].set(ylabel="recall (fraction of the class)", ylim=(0, 1))
        _shared_legend(figure, axes, "trained on … (bars: 95 % interval over training seeds)")
    return figure


def _recall_panel(axis, rows, origin):
    groups = list(rows.groupby(["arm", "ratio"], sort=False))
    for position, ((arm, ratio), group) in enumerate(groups):
        group = group.set_index("expression").loc[list(EXPRESSIONS)]
        colour, marker, _ = ARMS.get(arm, (PALETTE[2 + position % 5], "D", ":"))
        x = np.arange(len(EXPRESSIONS)) + 0.5 * (position - (len(groups) - 1) / 2) / len(groups)
        reach = np.stack([group["recall"] - group["low"], group["high"] - group["recall"]])
        again = position > 0 and arm == groups[position - 1][0][0]
        shade = tuple(0.6 * part for part in colour) if again else colour
        label = arm_name(arm, origin) + (f" (ratio {ratio:g})" if ratio else "")
        axis.errorbar(x, group["recall"], yerr=np.nan_to_num(reach), color=shade, marker=marker, linestyle="",
                      elinewidth=0.9, label=label)
    _mark_chance(axis)
    axis.set_xticks(range(len(EXPRESSIONS)), EXPRESSIONS, rotation=35, ha="right", rotation_mode="anchor")


# ---- the answer with its controls ----------------------------------------------------------------------

# Colour, marker, line of the further arms; those that bound the answer, external and augmented, stand out.
ARM_STYLES = {**ARMS, "real_long": ("0.25", "o", "--"), "oversampled": (PALETTE[5], "v", "-"),
              "augmented": (PALETTE[2], "D", "-."), "noise": (PALETTE[9], "X", ":"),
              "mixed_filtered": (PALETTE[4], "P", "-"), "mixed_augmented": ("#332288", "p", "-"),
              "external": (PALETTE[3], "*", "-.")}
CURVE_TICKS = (0, 1, 2, 3, 5, 7, 10)  # of a square-root axis at column width


def arm_title(arm, origin="real"):
    """What a figure of all arms calls one; as `arm_name`, with the controls."""
    titles = {"real": f"{origin} only, stopped early", "real_long": f"{origin} only, equal updates",
              "oversampled": f"{origin}, repeated",
              "augmented": f"{origin}, augmented", "noise": f"{origin} + noise images",
              "mixed_filtered": f"{origin} + generated, filtered",
              "mixed_augmented": f"{origin} + generated, augmented", "external": f"{origin} + GANs' training faces"}
    return titles.get(arm, arm_name(arm, origin))


def _style(arm, position=0):
    return ARM_STYLES.get(arm, (PALETTE[position % 10], "<>hd"[position % 4], ":"))


def _reach(rows):
    """Lengths of error bars below and above, [2, n], of a table with estimate (or accuracy), low and high."""
    value = rows["estimate"] if "estimate" in rows else rows["accuracy"]
    return np.nan_to_num(np.maximum([value - rows["low"], rows["high"] - value], 0))


def arms_curve(means, *, bounds=None, origin="real", baseline="real_long",
               interval="95 % interval over seeds and test subjects"):
    """The answer: accuracy against ratio, and beside it the arms that have one ratio only; a row per test set.

    means : DataFrame as statistics.accuracy_intervals returns it (fractions).
    bounds : dict test set -> dict as statistics.upper_bound returns it; marked where identified.
    origin : "real" or "rendered". baseline : the arm drawn as a line with a band, `real` where it is absent.
    """
    tests = list(dict.fromkeys(means["test_set"]))
    base = baseline if (means["arm"] == baseline).any() else "real"
    single = _single_arms(means, base)
    curved = ~means["arm"].isin([*single, base, "real"])
    if not curved.any():
        return _points_only(means, tests, base, single, origin, interval)
    columns, width = (2, PAGE) if single else (1, COLUMN * 1.2)
    with _figure(width, 2.5 * len(tests) + 0.5, len(tests), columns, sharex="col") as (figure, axes):
        for row, test in zip(axes, tests, strict=True):
            panel = means[means["test_set"] == test]
            _baseline_band(row, panel[panel["arm"] == base].iloc[-1], base, origin)
            _curves(row[0], panel[~panel["arm"].isin([*single, base, "real"])], origin)
            note = _mark_bound(row[0], (bounds or {}).get(test))
            row[0].set(title=f"test set: {test}{note}", ylabel="accuracy (fraction of test images)")
            if single:
                _single_points(row[1], panel[panel["arm"].isin(single)], origin)
        axes[-1, 0].set_xlabel(f"ratio (generated / {origin}), square-root scale")
        if single:
            axes[-1, 1].set_xlabel("accuracy (fraction of test images)")
        _shared_legend(figure, axes[:, 0], f"trained on … (bars and band: {interval})")
        figure.alt = _accuracies_told(means, tests, origin)
    return figure


def _accuracies_told(means, tests, origin):
    """The accuracy of every arm and ratio on each test set, in words."""
    return " ".join(f"Accuracy on the test set {test}: " + ", ".join(
        f"{_with_ratio(row, origin)} {row['accuracy']:.3f}" for _, row in
        means[means["test_set"] == test].sort_values(["arm", "ratio"]).iterrows()) + "." for test in tests)


def _points_only(means, tests, base, single, origin, interval):
    """`arms_curve` of a study with one ratio: one panel per test set, side by side."""
    height = 0.24 * len(single) + 1.1
    with _figure(PAGE, height, 1, len(tests), sharey=True) as (figure, [axes]):
        for axis, test in zip(axes, tests, strict=True):
            panel = means[means["test_set"] == test]
            _baseline_band([None, axis], panel[panel["arm"] == base].iloc[-1], base, origin)
            _single_points(axis, panel[panel["arm"].isin(single)], origin, order=single)
            axis.set(title=f"test set: {test}", xlabel="accuracy (fraction of test images)")
        figure.legend(*_unique_handles(axes[0]), loc="outside upper center",
                      title=f"trained on … (ratio in brackets; bars and band: {interval})", title_fontsize=7)
        figure.alt = _accuracies_told(means, tests, origin)
    return figure


def _single_arms(means, base):
    """Arms other than the baseline that were trained at one ratio only; not `real`, where that is the baseline."""
    counts = means.groupby("arm", sort=False)["ratio"].nunique()
    return [arm for arm, count in counts.items() if count == 1 and arm != base]


def _baseline_band(axes, row, arm, origin):
    """Accuracy of the baseline with its interval: across the curves, and upright where arms stand in rows."""
    colour, _, line = _style(arm)
    for axis, draw_line, draw_span in zip(axes, ("axhline", "axvline"), ("axhspan", "axvspan"), strict=False):
        if axis is None:
            continue
        getattr(axis, draw_line)(row["accuracy"], color=colour, linestyle=line, linewidth=1,
                                 label=arm_title(arm, origin), zorder=1)
        getattr(axis, draw_span)(row["low"], row["high"], color=colour, alpha=0.13, linewidth=0, zorder=0)


def _curves(axis, rows, origin):
    """Arms with several ratios, with bars dodged so that they do not hide each other."""
    axis.set_xscale("function", functions=(lambda r: np.sqrt(np.maximum(r, 0)), np.square))
    arms = list(dict.fromkeys(rows["arm"]))
    for position, arm in enumerate(arms):
        part, (colour, marker, line) = rows[rows["arm"] == arm].sort_values("ratio"), _style(arm, position)
        shift = 0.03 * (position - (len(arms) - 1) / 2)
        axis.errorbar((np.sqrt(part["ratio"]) + shift).clip(lower=0) ** 2, part["accuracy"], yerr=_reach(part),
                      color=colour, marker=marker, linestyle=line, elinewidth=0.9, zorder=3,
                      label=arm_title(arm, origin))
    largest = rows["ratio"].max() if len(rows) else 1
    axis.set_xticks([tick for tick in CURVE_TICKS if tick <= largest])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlim(0, 1.06 * largest)


def _single_points(axis, rows, origin, order=None):
    """One arm a line, the best on top, or in a given order from below."""
    rows = rows.sort_values("accuracy", key=None if order is None else lambda column: rows["arm"].map(order.index))
    rows = rows.reset_index(drop=True)
    for position, row in rows.iterrows():
        colour, marker, _ = _style(row["arm"], position)
        axis.errorbar(row["accuracy"], position, xerr=_reach(row).reshape(2, 1), color=colour, marker=marker,
                      markersize=7 if marker == "*" else 4.5, elinewidth=0.9, zorder=3)
    axis.set_yticks(range(len(rows)), [_with_ratio(row, origin) for _, row in rows.iterrows()])
    axis.set(title="arms at one ratio (in brackets)", ylim=(-0.6, max(len(rows), 1) - 0.4))
    axis.tick_params(axis="y", length=0)


def _with_ratio(entry, origin):
    return arm_title(entry["arm"], origin) + (f" ({entry['ratio']:g})" if entry["ratio"] else "")


def _unique_handles(axis):
    entries = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    return list(entries.values()), list(entries)


def contrast_forest(contrasts, *, origin="real", title="", interval="95 % interval over seeds and test subjects"):
    """Gains of all arms over one baseline, with the contrast declared beforehand on top.

    contrasts : list of dicts as summary's main_contrast and the values of its contrasts; the first is the main one.
    Where seeds or people tested are few (intervals.by_anova), intervals are those by analysis of variance, and a thin
    line is the one by resampling. origin : "real" or "rendered".
    """
    few = [by_anova(entry) for entry in contrasts]
    if any(few):
        interval = (("" if all(few) else f"{interval}, with few seeds or people ")
                    + f"95 % interval by analysis of variance; thin: {interval.removeprefix('95 % interval ')}")
    entries = [contrasts[0], *sorted(contrasts[1:], key=lambda entry: -entry["gain_points"]["estimate"])]
    heights = [-n - 0.35 * (n > 0) for n in range(len(entries))]
    with _figure(COLUMN * 1.35, 0.24 * len(entries) + 0.85) as (figure, [[axis]]):
        for entry, height in zip(entries, heights, strict=True):
            _forest_row(axis, entry, height, main=height == 0)
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.axhline(-0.7, color="0.7", linewidth=0.6, linestyle=":")
        axis.set_yticks(heights, [_with_ratio(entry, origin) for entry in entries])
        axis.get_yticklabels()[0].set_weight("bold")
        axis.set(xlabel=f"gain over {arm_title(entries[0]['baseline'], origin)}\n(percentage points; {interval})",
                 title=title, ylim=(heights[-1] - 0.5, 0.55))
        axis.tick_params(axis="y", length=0)
        told = "; ".join(f"{_with_ratio(entry, origin)} {_reach_told(trusted(entry))}" for entry in entries)
        figure.alt = (f"Gain over {arm_title(entries[0]['baseline'], origin)} in percentage points"
                      f"{f', {title}' if title else ''} ({interval}): {told}.")
    return figure


def _reach_told(gain):
    return f"{gain['estimate']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})"


def _forest_row(axis, entry, height, *, main):
    colour, marker, _ = _style(entry["arm"])
    gain, resampled = trusted(entry), entry["gain_points"]
    if by_anova(entry):
        axis.plot([resampled["low"], resampled["high"]], [height - 0.2] * 2, color=colour, linewidth=0.6)
    axis.errorbar(gain["estimate"], height, xerr=_reach_of(gain), color=colour, marker=marker, linestyle="",
                  markersize=7 if main or marker == "*" else 4.5, elinewidth=2 if main else 1)
    axis.annotate(_reach_told(gain), (1.02, height),
                  xycoords=("axes fraction", "data"), va="center", fontsize=6.5, annotation_clip=False,
                  weight="bold" if main else "normal")


def _reach_of(estimate):
    value = estimate["estimate"]
    return [[max(value - estimate["low"], 0)], [max(estimate["high"] - value, 0)]]


def worth_curve(worth, *, origin="real"):
    """The learning curve of real images alone, and how many of them give what the mixed run gives.

    worth : dict as statistics.worth returns it. origin : "real" or "rendered".
    """
    curve, equivalent = worth["curve"], worth["equivalent"]
    sizes, accuracy = np.array(curve["sizes"]), worth["accuracy"]
    n = np.geomspace(sizes[0], sizes[-1], 200)
    n_generated = worth["ratio"] * worth["n_real"]
    with _figure(COLUMN * 1.25, 2.7) as (figure, [[axis]]):
        (grey, dot, _), (blue, square, _) = _style("real"), _style("mixed")
        axis.plot(n, curve["a"] - curve["b"] * n ** -curve["c"], color=grey, label="power law, fitted")
        values = np.array([curve[name] for name in ("accuracies", "low", "high")])
        axis.errorbar(sizes, values[0], yerr=np.maximum([values[0] - values[1], values[2] - values[0]], 0), color=grey,
                      marker=dot, linestyle="", elinewidth=0.9, label=arm_title(worth["baseline"], origin))
        axis.errorbar(worth["n_real"], accuracy["estimate"], yerr=_reach_of(accuracy), color=blue, marker=square,
                      linestyle="", markersize=6, label=f"{worth['n_real']} {origin} + {n_generated:g} generated",
                      zorder=4)
        axis.axvspan(equivalent["low"], equivalent["high"], color=blue, alpha=0.13, linewidth=0, zorder=0)
        beyond = equivalent["estimate"] >= sizes[-1]  # more than were measured: an arrow to the edge, no number
        axis.plot([worth["n_real"], equivalent["estimate"], equivalent["estimate"]],
                  [accuracy["estimate"], accuracy["estimate"], accuracy["estimate"] if beyond else 0], color=blue,
                  linewidth=0.9, linestyle="--", zorder=2, marker=">" if beyond else "", markevery=[2])
        axis.set_xscale("log")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        low, high = min(values[1].min(), accuracy["low"]), max(values[2].max(), accuracy["high"])
        axis.set(xlabel=f"{origin} training images (log scale)", ylabel="accuracy (fraction of test images; 95 %)",
                 title=_worth_sentence(worth, origin), ylim=(low - 0.1 * (high - low), high + 0.1 * (high - low)))
        figure.legend(loc="outside lower center", ncols=3, fontsize=6.5, handletextpad=0.4, columnspacing=1)
        alone = ", ".join(f"{size}: {value:.3f}" for size, value in zip(sizes, values[0], strict=True))
        figure.alt = (f"{_worth_sentence(worth, origin)}. Accuracy with {origin} faces alone: {alone}; with "
                      f"{worth['n_real']} and {n_generated:g} generated: {accuracy['estimate']:.3f}.")
    return figure


def _worth_sentence(worth, origin):
    low, high = worth["low"], worth["high"]
    if worth["identified"]:
        return f"one generated face is worth {worth['estimate']:.2f} {origin} ones\n({low:.2f} to {high:.2f})"
    if low is not None and low > 0:
        return f"one generated face: at least {low:.2f} {origin} ones\n(the rest lies beyond the sizes measured)"
    if high is not None:
        return f"one generated face: at most {high:.2f} {origin} ones\n(the rest lies beyond the sizes measured)"
    return (f"what a generated face is worth beside {worth['n_real']} {origin} ones\n"
            "cannot be told from the sizes measured")


SOURCES = {"split": "{origin} faces\ndrawn", "generator": "generated\nfaces", "train": "initialisation\nand order",
           "images": "test\nimages", "all": "all but test\nimages together"}


def variance_bars(splits, *, origin="real"):
    """Which source of chance spreads the accuracy how much: standard deviations, one colour per study.

    splits : dict label -> dict as statistics.variance_split returns it. origin : "real" or "rendered".
    """
    width = 0.8 / len(splits)
    with _figure(COLUMN * 1.4, 2.4) as (figure, [[axis]]):
        for number, (label, split) in enumerate(splits.items()):
            look = {"color": PALETTE[(0, 1, 2, 7)[number % 4]], "hatch": ("", "///", "...", "xx")[number % 4],
                    "edgecolor": "white", "width": width * 0.9, "error_kw": {"elinewidth": 0.9}}
            for position, name in enumerate(SOURCES):
                middle = position + width * (number - (len(splits) - 1) / 2)
                _variance_bar(axis, split["components"][name], middle, label if name == "all" else None, look)
        axis.set_xticks(range(len(SOURCES)), [name.format(origin=origin) for name in SOURCES.values()], fontsize=6.5)
        axis.axvline(len(SOURCES) - 1.5, color="0.8", linewidth=0.7)
        axis.set(ylabel="standard deviation\n(percentage points; 95 %)",
                 title=", ".join(splits) if len(splits) == 1 else "", xlim=(-0.6, len(SOURCES) - 0.4))
        axis.set_ylim(bottom=0)
        if len(splits) > 1:
            figure.legend(*_unique_handles(axis), loc="outside upper center", ncols=len(splits))
    return figure


def _variance_bar(axis, component, middle, label, look):
    if component["identified"]:
        sd = component["sd_points"]
        axis.bar(middle, sd["estimate"], yerr=_reach_of(sd), label=label, **look)
    else:
        axis.annotate("not identified", (middle, 0), xytext=(0, 3), textcoords="offset points", ha="center",
                      rotation=90, fontsize=6.5, color="0.35")


def confusion_change(found, *, seeds=FEW_SEEDS, labels=EXPRESSIONS, title=""):
    """How confusions change from the baseline to the mixed arm; a change whose interval excludes 0 is bold and framed.

    found : dict of [n, n] as statistics.confusion_change returns it (percentage points). labels : n names.
    seeds : of fewer than FEW_SEEDS intervals by resampling promise too much, and nothing is framed.
    """
    change = np.round(np.asarray(found["change"], float)) + 0.0  # no negative zero
    limit = max(5, np.nanmax(np.abs(change)))
    clear = ((np.asarray(found["low"]) > 0) | (np.asarray(found["high"]) < 0)) & (seeds >= FEW_SEEDS)
    note = ("framed: 95 % interval excludes 0" if seeds >= FEW_SEEDS else
            f"{seeds} seeds: too few to tell which is chance")
    with _figure(COLUMN, COLUMN * 0.86) as (figure, [[axis]]):
        sns.heatmap(change, vmin=-limit, vmax=limit, cmap="PuOr_r", square=True, annot=True, fmt="+.0f", ax=axis,
                    annot_kws={"size": 7}, linewidths=0.5, yticklabels=labels,
                    cbar_kws={"label": "change (points of the true class)", "shrink": 0.8})
        halo = [withStroke(linewidth=2.4, foreground="white")]  # else a frame cannot be seen on the darkest fields
        for row, column in np.argwhere(clear):
            axis.add_patch(mpl.patches.Rectangle((column + 0.07, row + 0.07), 0.86, 0.86, fill=False, edgecolor="0.1",
                                                 linewidth=0.9, path_effects=halo))
        for text, bold in zip(axis.texts, clear[np.isfinite(change)], strict=True):
            text.set_weight("bold" if bold else "normal")
        axis.set(xlabel="predicted", ylabel="true",
                 title=title + ("\n" if title else "") + note)
        axis.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=40, ha="right", rotation_mode="anchor")
        axis.tick_params(axis="x", length=0)
        axis.tick_params(axis="y", rotation=0, length=0)
    return figure


def calibration(arms, *, origin="real"):
    """How often a classifier is right when it is so and so sure: reliability of a few arms.

    arms : dict arm -> dict as statistics.calibration returns it; at most about four. Bins of fewer than one in 200
    predictions are left out.
    origin : "real" or "rendered".
    """
    with _figure(COLUMN * 1.2, 3.2) as (figure, [[axis]]):
        axis.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":", label="as right as sure")
        for position, (arm, found) in enumerate(arms.items()):
            colour, marker, line = _style(arm, position)
            bins = found["bins"][found["bins"]["share"] >= 0.005]
            axis.errorbar(bins["confidence"] + 0.008 * (position - (len(arms) - 1) / 2), bins["accuracy"],
                          yerr=_reach(bins), color=colour, marker=marker, linestyle=line, elinewidth=0.8,
                          label=f"{arm_title(arm, origin)}\n(ECE {found['ece']['estimate']:.2f}, Brier "
                                f"{found['brier']['estimate']:.2f})")
        axis.set(xlabel="confidence (largest probability)", ylabel="accuracy (fraction of predictions)",
                 xlim=(1 / len(EXPRESSIONS), 1.02), ylim=(0, 1))
        figure.legend(*_unique_handles(axis), loc="outside upper center", ncols=2)
    return figure


def intensity_curve(table, *, slopes=None, origin="rendered"):
    """Accuracy for faint to strong expressions, whose intensity is known.

    table : DataFrame as statistics.accuracy_by_intensity returns it; at most about four arms.
    slopes : dict arm -> dict as statistics.intensity_slope returns it, for the legend, or None.
    origin : what the non-generated training images are.
    """
    arms = list(dict.fromkeys(table["arm"]))
    gap = 0.006 * (table["intensity"].max() - table["intensity"].min() + 0.1)
    with _figure(COLUMN * 1.2, 2.4 + 0.14 * len(arms)) as (figure, [[axis]]):
        for position, arm in enumerate(arms):
            rows, (colour, marker, line) = table[table["arm"] == arm], _style(arm, position)
            axis.errorbar(rows["intensity"] + gap * (position - (len(arms) - 1) / 2), rows["accuracy"],
                          yerr=_reach(rows), color=colour, marker=marker, linestyle=line, elinewidth=0.9,
                          label=arm_title(arm, origin) + _slope_note((slopes or {}).get(arm)))
        _mark_chance(axis)
        axis.set(xlabel="intensity of the expression (1: full)", ylabel="accuracy (fraction of test images)")
        axis.set_ylim(bottom=0)
        figure.legend(*_unique_handles(axis), loc="outside upper center")
    return figure


def _slope_note(slope):
    if slope is None:
        return ""
    return f": log-odds {slope['estimate']:+.2f} per 0.1 ({slope['low']:+.2f} to {slope['high']:+.2f})"


AXIS_LABELS = {"n_real": "{origin} training images", "weight": "weight of a generated face in the loss",
               "intensity": "intensity of generated expressions", "truncation": "truncation (variety of people)"}


def axis_gains(rows, *, n_real, usual=None, origin="real"):
    """Gain of `mixed` over the baseline along each axis that was varied, the others at their usual value.

    rows : list of dicts as the axes of answer.analyse; intervals are those that contrast_forest takes.
    n_real : the usual number of real images; another axis is shown for the one at which it was varied most.
    usual : intensity and truncation where these are not 1, a dict.
    Returns None where no axis was varied alone.
    """
    told = [row | {"gain_points": trusted(row)} for row in rows]
    few = any(map(by_anova, rows))
    table, varied = pd.json_normalize(told), {}
    fixed = {"weight": 1.0, "intensity": 1.0, "truncation": 1.0} | (usual or {})
    for name in AXIS_LABELS if rows else ():
        others = {other: value for other, value in fixed.items() if other != name}
        part = table[(table[list(others)] == list(others.values())).all(axis=1)]
        if name != "n_real":
            size = max(dict.fromkeys([n_real, *part["n_real"]]),
                       key=lambda n: part[part["n_real"] == n][name].nunique())
            part = part[part["n_real"] == size]
        if part[name].nunique() > 1:
            varied[name] = part, (AXIS_LABELS[name].format(origin=origin)
                                  + ("" if name == "n_real" else f", {size} {origin}"))
    if not varied:
        return None
    with _figure(PAGE, 2.3 * -(-len(varied) // 2) + 0.3, -(-len(varied) // 2), min(2, len(varied))) as (figure, axes):
        for axis, (name, (part, label)) in zip(axes.flat, varied.items(), strict=False):
            values = sorted(part[name].unique())
            for number, (test, rows_of_test) in enumerate(part.groupby("test_set", sort=False)):
                x = [values.index(value) + 0.12 * number for value in rows_of_test[name]]
                gain = rows_of_test.rename(columns=lambda column: column.removeprefix("gain_points."))
                axis.errorbar(x, gain["estimate"], yerr=_reach(gain[["estimate", "low", "high"]]), linestyle="",
                              marker="osD^"[number % 4], color=PALETTE[(0, 1, 2, 7)[number % 4]], elinewidth=0.9,
                              label=f"test set {test}")
            axis.axhline(0, color="0.3", linewidth=0.8)
            seeds = part.groupby(name)["seeds"].first()
            axis.set_xticks(range(len(values)), [f"{value:g}\n{seeds[value]} seeds" for value in values])
            axis.set(xlabel=label, ylabel="gain (percentage points; 95 %)")
        for axis in axes.flat[len(varied):]:
            axis.set_visible(False)
        figure.suptitle(f"gain of {origin} and generated faces over {origin} ones alone"
                        + (f" (fewer than {FEW_SEEDS} seeds or {FEW_SUBJECTS} people: interval by analysis of variance)"
                           if few else ""),
                        fontsize=8)
        if len(table["test_set"].unique()) > 1:
            figure.legend(*_unique_handles(axes.flat[0]), loc="outside lower center", ncols=4)
        figure.alt = f"Gain of {origin} and generated faces over {origin} ones alone, in percentage points. "
        figure.alt += " ".join(
            f"{label}: {_axis_told(part, name)}." for name, (part, label) in varied.items())
    return figure


def _axis_told(part, name):
    rows = part.sort_values(["test_set", name]).to_dict("records")
    return ", ".join(f"{row[name]:g} (test set {row['test_set']}) "
                     + _reach_told({end: row[f"gain_points.{end}"] for end in ("estimate", "low", "high")})
                     for row in rows)
