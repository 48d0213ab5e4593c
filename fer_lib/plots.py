"""Figures. Every function takes data and returns a matplotlib Figure; nothing is computed or saved here."""

from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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


@contextmanager
def _figure(width, height, rows=1, columns=1, **options):
    """A new constrained-layout figure in the shared style, with its axes as an array [rows, columns]."""
    with mpl.rc_context({**sns.axes_style("ticks"), **STYLE}):
        figure = Figure(figsize=(width, height), layout="constrained")
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
    return figure


def _mark_chance(axis):
    """A dotted line at the accuracy of guessing."""
    chance = 1 / len(EXPRESSIONS)
    axis.axhline(chance, color="0.5", linewidth=0.8, linestyle=":", zorder=0)
    axis.annotate("chance", (0.99, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                  fontsize=7, color="0.4")


def gan_losses(history, *, x="kimg", title=""):
    """Each loss of a GAN against training progress, one panel per loss.

    history : DataFrame with the column `x` (thousands of images, or steps) and one column per loss.
    """
    names = [name for name in history.columns if name != x]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with _figure(PAGE, 1.6 * rows + 0.2, rows, columns, sharex=True) as (figure, axes):
        for axis, name in zip(axes.flat, names, strict=False):
            axis.plot(history[x], history[name], color=PALETTE[0], linewidth=1)
            axis.set_title(name.replace("_", " "))
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
                          f"{origin}, test {kind} ({rows['all']['estimate']:.2f})")
        axis.axhline(1 / len(EXPRESSIONS), color="0.5", linewidth=0.8, linestyle="--")
        axis.set_xticks(range(len(names)), names)
        axis.set(ylabel="judge agrees (fraction of faces)", ylim=(0, 1))
        figure.legend(loc="outside upper center", ncols=len(scores))
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
