"""The explorer's second tab: what the ratio study found for one test set, arm, number of real images and ratio.

`Study` holds what was found, the functions answer one choice from it, `StudyTab` shows the answer.
"""

import html
import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
from scipy import stats

from fer_lib import data, explorer_drawing, plots, statistics, study
from fer_lib.errors import FerError
from fer_lib.intervals import POINTS, effect, trusted
from fer_lib.labels import EXPRESSIONS

AXES = ("weight", "intensity", "truncation")  # varied beside arm, n_real and ratio
OVER_SEEDS = "95 % t interval over seeds"


# ---- what was found ------------------------------------------------------------------------------------

class Study(tuple):
    """(ratio_study.csv as a DataFrame, summary.json as a dict); kept : Kept predictions, or None."""

    def __new__(cls, table, summary, *, kept=None):
        made = super().__new__(cls, (table, summary))
        made.kept = kept
        return made


@dataclass(frozen=True)
class Kept:
    """The predictions that notebook 6 left. folder : of the study. faces : folder of the parts, for the true codes."""

    folder: Path
    faces: Path

    @cached_property
    def codes(self):
        """dict test set -> int [images], the true expressions."""
        return {name: faces.codes for name, faces in data.tests(data.load(self.faces)).items()}

    def confusions(self, rows):
        """The confusion matrix of each row of a study's table: float [rows, 6, 6], or None where one is absent.

        Fractions of the true expression, NaN in rows of absent ones. Predictions that do not give the accuracy of
        the table belong to another study and count as absent.
        """
        found = [self._confusion(row) for row in rows.to_dict("records")]
        return None if not found or any(matrix is None for matrix in found) else np.stack(found)

    def _confusion(self, row):
        cell = study.Cell(**{field.name: row[field.name] for field in fields(study.Cell)})
        codes = self.codes.get(row["test_set"])
        try:
            guessed = study.predictions(self.folder, cell)[row["test_set"]].argmax(1)
        except (FerError, KeyError):
            return None
        if codes is None or len(codes) != len(guessed) or abs((codes == guessed).mean() - row["accuracy"]) > 1e-5:
            return None
        counts = np.bincount(codes * len(EXPRESSIONS) + guessed, minlength=len(EXPRESSIONS) ** 2)
        counts = counts.reshape(len(EXPRESSIONS), -1).astype(float)
        total = counts.sum(1, keepdims=True)
        return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def read_study(workspace):
    """What notebook 6 found: Study, that is ratio_study.csv as a DataFrame and summary.json as a dict, or None.
    Its `kept` are the predictions in runs/<profile>, where they are. What was read, or that it was absent, is
    recorded: a new study makes the explorer's notebook run again. Raises FerError when a file is damaged.
    """
    table, summary = (workspace.results / name for name in ("ratio_study.csv", "summary.json"))
    if not (table.is_file() and summary.is_file()):
        workspace.reads["study"] = None  # differs from any key that notebook 6 will publish
        return None
    for path in (table, summary):
        workspace.read_external(path)
    try:
        read = pd.read_csv(table), json.loads(summary.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FerError(f"The results in {workspace.results} cannot be read ({error}): run "
                       "notebooks/06_ratio_study.ipynb again.") from error
    return Study(*read, kept=_kept(workspace))


def _kept(workspace):
    try:
        return Kept(workspace.require("study").path, workspace.require("faces").path)
    except FerError:
        workspace.reads["study"] = None  # committed results without a run of their own
        return None


# ---- one choice ----------------------------------------------------------------------------------------

def main_rows(table, summary, *, n_real=None):
    """The rows of the study that can be compared with each other, those of its main comparison unless told otherwise.

    table : ratio_study.csv. summary : summary.json. n_real : of these rows; None takes the summary's, or else the
    largest of the table.
    """
    n_real = summary.get("n_real", table["n_real"].max()) if n_real is None else n_real
    plain = _plain(table, summary.get("usual"))
    return plain[plain["n_real"].isna() | (plain["n_real"] == n_real)]


def _plain(table, usual=None):
    """Rows with one seed for everything, the usual weight, intensity and truncation, and, where known, equal updates.
    usual : dict of those that are known; of others the value that most rows have.
    """
    rows = (table["split_seed"] == table["train_seed"]) & (table["generator_seed"] == table["train_seed"])
    alone = table["n_generated"] == 0
    for name in AXES:
        most = table.loc[~alone, name].mode().tolist()  # a whole study may have been made with another value than 1
        value = (usual or {}).get(name, 1 if 1 in most or not most else most[0])
        rows &= (table[name].isna()  # earlier ones lack some columns
                 | (table[name] == value) | (alone & (table[name] == 1)))
    if (table["stopping"] == "updates").any():
        rows &= (table["stopping"] == "updates") | (table["arm"] == "real")
    return table[rows]


def options(table, *, usual=None, **chosen):
    """What can still be chosen once some is chosen: dict of lists test_set, arm, n_real, ratio, in that order.

    table : ratio_study.csv. usual : as in `_plain`. chosen : values of the same names; each narrows those after it. One
    that does not exist together with those before it is left out of account.
    """
    rows, found = _plain(table, usual), {}
    for name in ("test_set", "arm", "n_real", "ratio"):
        values = list(dict.fromkeys(rows[name]))
        found[name] = values if name in ("test_set", "arm") else sorted(values)
        if name in chosen and chosen[name] in values:
            rows = rows[rows[name] == chosen[name]]
    return found


@dataclass(frozen=True)
class Choice:
    """The rows of one choice, and what they are compared with.

    points : statistics.accuracy_by_ratio of the same test set and n_real, all arms. rows, base : DataFrames of the
    chosen arm and of the baseline on the seeds that both have, in one order; base is None where there is none, or
    where it is the choice. baseline : the name of its arm, or None. alone : every row of the chosen arm.
    """

    points: pd.DataFrame
    alone: pd.DataFrame
    rows: pd.DataFrame
    base: pd.DataFrame | None
    baseline: str | None


def choose(table, *, test_set, arm, n_real, ratio, usual=None):
    """Choice of one test set, arm, number of real images and ratio; usual : as in `_plain`.

    Raises FerError where no classifier is of that kind.
    """
    near = main_rows(table, {"usual": usual}, n_real=n_real)
    near = near[near["test_set"] == test_set].sort_values("train_seed", kind="stable")
    alone = near[(near["arm"] == arm) & (near["ratio"] == ratio)]
    if alone.empty:
        raise FerError(f"The study has no classifier of the arm {arm} at ratio {ratio:g} with {n_real:g} real images "
                       f"on the test set {test_set}: add it to the plan of notebook 6.")
    baseline = next((name for name in (statistics.REFERENCE, "real") if (near["arm"] == name).any()), None)
    rows, base = alone, None
    if baseline is not None and arm != baseline:
        base = near[near["arm"] == baseline].drop_duplicates("train_seed")
        rows = alone[alone["train_seed"].isin(base["train_seed"])].drop_duplicates("train_seed")
        base = base[base["train_seed"].isin(rows["train_seed"])]
        rows, base = (None, None) if rows.empty else (rows, base)
    return Choice(statistics.accuracy_by_ratio(near), alone, alone if base is None else rows, base, baseline)


def gain(choice, column="accuracy"):
    """A score of the choice minus the baseline's, seed by seed, in points: {estimate, low, high} of a t interval.
    None where there is no baseline to compare with; NaN where the table lacks the score.
    """
    if choice.base is None:
        return None
    return statistics.seed_interval(
        POINTS * (choice.rows[column].to_numpy(float) - choice.base[column].to_numpy(float)))


def recall_gains(choice):
    """dict expression -> `gain` in its recall, or None without a baseline."""
    return None if choice.base is None else {name: gain(choice, f"recall_{name}") for name in EXPRESSIONS}


def clear_change(a, b):
    """Confusion matrices b minus a, seed by seed: (mean change, bool where a t interval over seeds excludes 0).

    a, b : float [seeds, 6, 6], paired. With one seed nothing is clear.
    """
    change = b - a
    if len(change) < 2:
        return change.mean(0), np.zeros(change.shape[1:], bool)
    reach = stats.t.ppf(0.975, len(change) - 1) * change.std(0, ddof=1) / len(change) ** 0.5
    return change.mean(0), np.abs(change.mean(0)) > reach + 1e-12


def sentence(choice, *, origin):
    """What was found for a choice, in a sentence with its numbers. origin : of the training images."""
    row = choice.alone.iloc[0]
    ratio = f" at ratio {row['ratio']:g}" if row["ratio"] else ""
    own = statistics.seed_interval(choice.alone["accuracy"])
    n = len(choice.alone)
    told = (f"Test set {row['test_set']}, {row['n_real']:g} {origin} images: "
            f"{plots.arm_title(row['arm'], origin)}{ratio} is right on {_percent(own)} of the faces ({_seeds(n)})")
    if row["arm"] == choice.baseline:
        return f"{told}. This is the baseline that the other arms are compared with."
    if choice.base is None:
        return f"{told}. There is no baseline of as many images on the same seeds."
    base = statistics.seed_interval(choice.base["accuracy"])
    return (f"{told}, {plots.arm_title(choice.baseline, origin)} on {_percent(base)}: "
            f"{explorer_drawing.told(gain(choice))} points on the same {_seeds(len(choice.rows))}.")


def _seeds(n):
    return f"{n} seed{'s' if n > 1 else ''}"


def _percent(value):
    reach = f" ({100 * value['low']:.1f} to {100 * value['high']:.1f})" if np.isfinite(value["low"]) else ""
    return f"{100 * value['estimate']:.1f} %{reach}"


def finding(summary, test_set):
    """The gain at the headline's ratio and the upper bound on one test set, in a sentence.

    summary : summary.json as a dict, see statistics.summary.
    """
    found = summary["test_sets"][test_set]
    gained, bound = trusted(found["main_contrast"]), found["upper_bound"]
    alone = ""
    if effect(found["main_contrast"]) is None:
        one = "seed" if found["main_contrast"]["seeds"] < 2 else "person"
        alone = f", one {one} alone: how much others would change is not known"
    upper = "no ratio can be named beyond which more does not help"
    if bound["identified"]:
        upper = (f"beyond a ratio of {bound['ratio']:.1f} ({bound['low']:.1f} to {bound['high']:.1f}) "
                 "more does not help")
    elif bound.get("at_most"):
        upper = f"beyond a ratio of {bound['at_most']:.1f}, or fewer, more does not help"
    return (f"Test set {test_set}: {summary['headline_ratio']:g} generated images for each "
            f"{summary['trained_on']['real']} one change the accuracy by {gained['estimate']:+.1f} points "
            f"({gained['low']:+.1f} to {gained['high']:+.1f}{alone}); {upper}.")


# ---- the widgets ---------------------------------------------------------------------------------------

class StudyTab:
    """Controls that are linked, and what they choose.

    study : Study, or a pair of its table and summary, or None. profile : its name, for the texts.
    test_set, arm, n_real, ratio, view : the controls; each offers only what exists with those before it.
    sentence, curve, confusion, gains, finding : widgets.HTML.
    """

    def __init__(self, study, *, profile):
        self.study, self.filling = study, False
        self._make_widgets(profile)
        if not study:
            return
        self.table, self.summary = study
        self.origin = self.summary["trained_on"]["real"]
        first = {"test_set": self.summary.get("test_set"), "arm": "mixed", "ratio": self.summary["headline_ratio"],
                 "n_real": self.summary.get("n_real", self.table["n_real"].max())}
        self._fill(first)
        for control in (*self.controls.values(), self.view):
            control.observe(self._changed, "value")
        self.draw()

    def _make_widgets(self, profile):
        layout = {"width": "calc(100% - 4px)", "max_width": "30em"}
        told = {"test_set": ("Test set", "The faces on which the classifiers are tested"),
                "arm": ("Trained on", "The arm: what the classifier is trained on"),
                "n_real": ("Real images", "Number of real (or rendered) training images, which the ratio refers to"),
                "ratio": ("Ratio", "Generated images for each real (or rendered) one")}
        self.controls = {name: widgets.Dropdown(description=text, tooltip=tip, layout=layout)
                         for name, (text, tip) in told.items()}
        self.test_set, self.arm, self.n_real, self.ratio = self.controls.values()
        self.view = widgets.ToggleButtons(
            options=["matrix", "change"], description="Confusions", style={"button_width": "7.5em"},
            tooltip="What the table shows",
            tooltips=["The confusion matrix of the choice", "Its change against the baseline"])
        self.sentence, self.curve, self.confusion, self.gains, self.finding = (widgets.HTML() for _ in range(5))
        for text in (self.sentence, self.curve, self.confusion, self.gains, self.finding):
            text.add_class("fer-text")
        self.finding.value = (f"<p>There are no results of profile {html.escape(profile)} yet: "
                              "notebooks/06_ratio_study.ipynb makes them.</p>")

    def show(self):
        """The tab as one widget."""
        if not self.study:
            return widgets.VBox([self.finding])
        grid = {"grid_template_columns": "repeat(auto-fit, minmax(min(340px, 100%), 1fr))", "grid_gap": "8px 24px",
                "max_width": "1160px", "overflow": "visible"}
        drawn = widgets.GridBox([self.curve, widgets.VBox([self.view, self.confusion]), self.gains], layout=grid)
        controls = widgets.GridBox(list(self.controls.values()), layout={**grid, "grid_gap": "0 24px"})
        return widgets.VBox([controls, self.sentence, drawn, self.finding])

    def _changed(self, change):
        if not self.filling:
            if change["owner"] is not self.view:
                self._fill({})
            self.draw()

    def _fill(self, wanted):
        """Offer what exists together; keep what is chosen where it still exists, and else take what is closest."""
        self.filling, chosen = True, {}
        for name, control in self.controls.items():
            values = options(self.table, usual=self.summary.get("usual"), **chosen)[name]
            chosen[name] = _closest(wanted.get(name, control.value), values)
            offered = tuple((self._told(name, value), value) for value in values)
            if control.options != offered:
                control.options = offered
            control.value, control.disabled = chosen[name], len(values) == 1
        self.filling = False

    def _told(self, name, value):
        if name == "arm":
            return plots.arm_title(value, self.origin)
        if name == "ratio":
            return f"{value:g}" if value else "none: no image is added"
        return value if name == "test_set" else f"{value:g}"

    def draw(self):
        """Everything anew from the controls' values."""
        choice = choose(self.table, usual=self.summary.get("usual"),
                        **{name: control.value for name, control in self.controls.items()})
        told = html.escape(sentence(choice, origin=self.origin))
        self.sentence.value = f'<p role="status">{told}</p>'
        self._draw_curve(choice, told)
        self._draw_confusion(choice)
        self._draw_gains(choice)
        declared = "" if "points" not in told else (
            f" Intervals above are over seeds alone ({OVER_SEEDS}), those of the declared comparison over seeds and "
            "the test set, too.")
        self.finding.value = (f"<p>The declared comparison. {html.escape(finding(self.summary, self.test_set.value))}"
                              f"{declared}</p>")

    def _draw_curve(self, choice, told):
        label = f"Curve of accuracy against ratio. {told}"
        self.curve.tooltip = label
        base = f"dashed with band: {plots.arm_title(choice.baseline, self.origin)}; " if choice.baseline else ""
        legend = f"Accuracy, with its {OVER_SEEDS}. Circled: the choice; {base}grey: the other arms."
        self.curve.value = (f"<p>{legend}</p>" + explorer_drawing.curve(
            choice.points, baseline=choice.baseline, chosen=(self.arm.value, self.ratio.value), label=label,
            origin=self.origin)
            + explorer_drawing.points_table(choice.points, name_of=lambda arm: plots.arm_title(arm, self.origin)))

    def _draw_confusion(self, choice):
        kept = getattr(self.study, "kept", None)
        seen = [kept.confusions(rows) if kept is not None and rows is not None else None
                for rows in (choice.rows, choice.base)]
        self.view.layout.display = "none" if seen[0] is None else None
        if seen[0] is None:
            self.confusion.value = self._recalls(choice)
        elif self.view.value == "matrix":
            self.confusion.value = explorer_drawing.matrix_table(
                seen[0].mean(0), caption=f"Predicted expression in % of the true one, mean over {_seeds(len(seen[0]))}")
        elif seen[1] is None:
            self.confusion.value = ("<p>The baseline is not compared with itself: choose another arm to see what "
                                    "changes.</p>")
        else:
            change, clear = clear_change(seen[1], seen[0])
            self.confusion.value = explorer_drawing.matrix_table(
                change, caption="Change against the baseline in points of the true expression; framed: the interval "
                "over seeds, one at a time, excludes 0", signed=True, framed=clear)

    def _recalls(self, choice):
        """What the table holds where no confusion matrix can be made."""
        values = {name: float(choice.alone[f"recall_{name}"].mean()) for name in EXPRESSIONS}
        why = ("The predictions of these classifiers are not kept on this machine (notebooks/06_ratio_study.ipynb "
               "makes them), so recalls stand for the confusion matrix.")
        known = {name: value for name, value in values.items() if np.isfinite(value)}
        return f"<p>{why}</p>" + (
            explorer_drawing.percent_list(known, title="Recall, mean over seeds:") if known else "")

    def _draw_gains(self, choice):
        gains = recall_gains(choice)
        if gains is None:
            self.gains.value = "<p>The gain of each expression is shown for arms other than the baseline.</p>"
            return
        title = f"Gain in recall over the baseline, in points ({OVER_SEEDS}, each on its own):"
        label = title + " " + "; ".join(f"{name} {explorer_drawing.told(value)}" for name, value in gains.items())
        self.gains.value = f"<p>{title}</p>" + explorer_drawing.interval_rows(gains, label=label)


def _closest(value, values):
    """The value itself where it is offered, or else the closest number, or the first."""
    if value in values:
        return value
    if isinstance(value, (int, float)) and not isinstance(values[0], str):
        return min(values, key=lambda other: abs(other - value))
    return values[0]
