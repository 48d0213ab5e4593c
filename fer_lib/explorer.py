"""Widgets to play with: one person in every expression, and the curve of the ratio study.

`faces_of` computes, `Explorer` shows: every picture is a function of the values of the widgets, which can be
set and read without a browser.
"""

import io
import json

import ipywidgets as widgets
import pandas as pd
import torch
from PIL import Image

from fer_lib import generation, labels, plots, statistics
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS

COLUMNS = ("as drawn", *ALL_EXPRESSIONS)
"""What the pictures of `faces_of` show, in order."""

MAX_SEED = 2**32 - 1
BIG, SMALL = 288, 96  # sides in pixels to which pictures are enlarged

ROW = {"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start"}  # wraps on a narrow screen
WHAT = {"real": "real photographs", "rendered": "rendered faces, the built-in stand-in for photographs"}


@torch.inference_mode()
def faces_of(identity_gan, expression_gan, *, seed, truncation, intensity=1.0):
    """The first identity of a seed, as drawn and in all seven expressions.

    identity_gan, expression_gan : the two generators, on one device.
    seed : int, 0 or more. truncation : 0 the mean face, 1 the full variety. intensity : of the expressions, 0 or
    more; 1 is full, and all that StarGAN knows.
    Returns uint8 [8, C, H, W], in the order of COLUMNS; the same arguments give the same bytes.
    Raises FerError for a negative seed or truncation, or an intensity that the generator does not know.
    """
    if seed < 0:
        raise FerError(f"The seed {seed} is below 0: use 0 or more.")
    person = generation.identities(identity_gan, [0], seed=seed, truncation=truncation)
    shown = generation.impose_all(expression_gan, person, intensity=intensity)
    return generation.to_uint8(torch.cat([person, shown]))


def png(image, *, side):
    """PNG bytes of a face, uint8 [1 or 3, H, W], enlarged by the whole factor that comes nearest to `side`.

    Pixels are repeated, not smoothed: nothing is shown that the generator did not draw.
    """
    factor = max(1, round(side / image.shape[-1]))
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def read_study(workspace):
    """What notebook 6 found: (ratio_study.csv as a DataFrame, summary.json as a dict), or None when absent.

    What was read, or that it was absent, is recorded: a new study makes the explorer's notebook run again.
    Raises FerError when a file is damaged.
    """
    table, summary = (workspace.results / name for name in ("ratio_study.csv", "summary.json"))
    if not (table.is_file() and summary.is_file()):
        workspace.reads["study"] = None  # differs from any key that notebook 6 will publish
        return None
    for path in (table, summary):
        workspace.read_external(path)
    try:
        return pd.read_csv(table), json.loads(summary.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FerError(f"The results in {workspace.results} cannot be read ({error}): run "
                       "notebooks/06_ratio_study.ipynb again.") from error


class Explorer:
    """The widgets, each an attribute, and what connects them.

    identity_gan, expression_gan : the two generators, on one device.
    origin : "real" or "rendered", what the generators were trained on.
    study : what `read_study` returns. profile : its name, for the texts.
    seed, expression, truncation, intensity : where the widgets start. Raises FerError for an unknown expression.

    seed, another, expression, truncation, intensity, test_set : the controls; StarGAN has no intensity.
    face, tiles, curve : widgets.Image, their `value` the PNG's bytes; captions in face_caption and finding.
    """

    def __init__(self, identity_gan, expression_gan, *, origin, study=None, profile="demo", seed=0,
                 expression="happiness", truncation=1.0, intensity=1.0):
        labels.code(expression)  # names an unknown one
        self.generators = identity_gan, expression_gan
        self.origin, self.study, self.profile = origin, study, profile
        self._make_controls(seed, expression, truncation, intensity)
        self._make_pictures()
        self.another.on_click(self._another_person)
        for control in (self.seed, self.truncation, self.intensity):
            control.observe(self._draw, "value")
        self.expression.observe(self._show_face, "value")
        self._draw()
        if study:
            self.curves = self._make_curves()
            self.test_set.observe(self._show_curve, "value")
            self._show_curve()

    def faces_of(self, seed, truncation, intensity=1.0):
        """The pictures of a person: uint8 [8, C, H, W], see the function `faces_of`."""
        return faces_of(*self.generators, seed=seed, truncation=truncation, intensity=intensity)

    def show(self):
        """The explorer as one widget, to be displayed by a notebook's cell."""
        note = widgets.HTML("<p><b>All faces here are generated; no such person exists.</b> The two networks "
                            f"learned from {WHAT.get(self.origin, self.origin)}.</p>")
        person = widgets.Box([self.seed, self.another], layout=ROW)
        cell = {"margin": "4px", "align_items": "center"}
        row = widgets.Box([widgets.VBox([tile, widgets.Label(name)], layout=cell)
                           for tile, name in zip(self.tiles, COLUMNS)], layout=ROW)
        faces = widgets.VBox([note, person, self.expression, self.truncation, self.intensity, self.face, self.face_caption,
                              row])
        study = widgets.VBox([self.test_set, self.curve, self.finding] if self.study else [self.finding])
        return widgets.Tab([faces, study], titles=["Faces", "Ratio study"])

    def _make_controls(self, seed, expression, truncation, intensity):
        fluid = {"width": "100%", "max_width": "28em"}
        self.seed = widgets.BoundedIntText(
            seed, min=0, max=MAX_SEED, description="Seed", layout={"width": "16em"},
            tooltip="A number that stands for a person, 0 or more")
        self.another = widgets.Button(description="Another person", icon="user", layout={"width": "12em"},
                                      tooltip="Go to the next seed")
        self.expression = widgets.ToggleButtons(
            options=ALL_EXPRESSIONS, value=expression, description="Expression", layout={"width": "100%"},
            style={"button_width": "6.5em"},
            tooltips=[f"Show {name} in the large picture" for name in ALL_EXPRESSIONS])
        self.truncation = widgets.FloatSlider(
            truncation, min=0, max=1, step=0.05, description="Truncation", readout_format=".2f", layout=fluid,
            tooltip="0: the mean face; 1: the full variety of faces")
        self.intensity = widgets.FloatSlider(
            intensity, min=0, max=1.5, step=0.05, description="Intensity", readout_format=".2f", layout=fluid,
            disabled=not generation.has_intensity(self.generators[1]),
            tooltip="0: the face as drawn; 1: the full expression")
        names = tuple(self.study[0]["test_set"].unique()) if self.study else ()
        self.test_set = widgets.Dropdown(options=names, description="Test set", layout=fluid,
                                         tooltip="The faces on which the classifiers are tested")

    def _make_pictures(self):
        self.face = widgets.Image(format="png", layout={"max_width": "100%"})
        self.face_caption = widgets.Label()
        self.tiles = [widgets.Image(format="png") for _ in COLUMNS]
        self.curve = widgets.Image(format="png", layout={"width": "100%", "max_width": "640px"})
        self.finding = widgets.HTML(f"<p>There are no results of profile {self.profile} yet: "
                                    "notebooks/06_ratio_study.ipynb makes them.</p>")

    def _another_person(self, _):
        self.seed.value = (self.seed.value + 1) % (MAX_SEED + 1)

    def _draw(self, _=None):
        """New pictures of everything, after the person has changed."""
        self.pictures = self.faces_of(self.seed.value, self.truncation.value, self.intensity.value)
        for tile, image, name in zip(self.tiles, self.pictures, COLUMNS):
            tile.value = png(image, side=SMALL)
            tile.tooltip = f"Generated face, seed {self.seed.value}: {name}"
        self._show_face()

    def _show_face(self, _=None):
        name = self.expression.value
        self.face.value = png(self.pictures[COLUMNS.index(name)], side=BIG)
        self.face_caption.value = (f"generated: seed {self.seed.value}, {name}, "
                                   f"truncation {self.truncation.value:.2f}, intensity {self.intensity.value:.2f}")
        self.face.tooltip = self.face_caption.value

    def _make_curves(self):
        """The curve of every test set: drawing one takes longer than a control may take to answer."""
        table, summary = self.study
        curves = {}
        for name in self.test_set.options:
            means = statistics.accuracy_by_ratio(main_rows(table[table["test_set"] == name], summary))
            bounds = {name: summary["test_sets"][name]["upper_bound"]}
            curves[name] = figure_png(plots.arms_curve(means, bounds=bounds, origin=summary["trained_on"]["real"],
                                                       interval="95 % interval over seeds"))
        return curves

    def _show_curve(self, _=None):
        name = self.test_set.value
        self.curve.value = self.curves[name]
        self.finding.value = f"<p>{finding(self.study[1], name)}</p>"
        self.curve.tooltip = f"Curve of accuracy against ratio. {finding(self.study[1], name)}"


def main_rows(table, summary):
    """The rows of the study that belong to its main comparison.

    table : ratio_study.csv. summary : summary.json, whose n_real is taken, or else the largest of the table.
    """
    usual = {"n_real": summary.get("n_real", table["n_real"].max()), "weight": 1, "intensity": 1, "truncation": 1}
    rows = pd.Series(True, index=table.index)
    for name, value in usual.items():
        rows &= table[name].isna() | (table[name] == value)  # tables of earlier studies lack some columns
    same_seeds = (table["split_seed"] == table["train_seed"]) & (table["generator_seed"] == table["train_seed"])
    if (table["stopping"] == "updates").any():
        rows &= (table["stopping"] == "updates") | (table["arm"] == "real")
    return table[rows & same_seeds]


def finding(summary, test_set):
    """The gain at the headline's ratio and the upper bound on one test set, in a sentence.

    summary : summary.json as a dict, see statistics.summary.
    """
    found = summary["test_sets"][test_set]
    gain, bound = found["gain_points"], found["upper_bound"]
    upper = "no ratio can be named beyond which more does not help"
    if bound["identified"]:
        upper = (f"beyond a ratio of {bound['ratio']:.1f} ({bound['low']:.1f} to {bound['high']:.1f}) "
                 "more does not help")
    return (f"Test set {test_set}: {summary['headline_ratio']:g} generated images for each "
            f"{summary['trained_on']['real']} one change the accuracy by {gain['estimate']:+.1f} points "
            f"({gain['low']:+.1f} to {gain['high']:+.1f}); {upper}.")


def figure_png(figure):
    """PNG bytes of a matplotlib Figure, on white so that its text is readable in a dark theme."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    return file.getvalue()
