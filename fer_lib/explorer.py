"""Widgets to play with: one person in every expression, and the curve of the ratio study.

`faces_of` computes, `Explorer` shows: every picture is a function of the values of the widgets, which can be
set and read without a browser.
"""

import io
import json
from pathlib import Path

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError

from fer_lib import alignment, generation, labels, paths, plots, statistics
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS
from fer_lib.networks import expression_flow

COLUMNS = ("as drawn", *ALL_EXPRESSIONS)
"""What the pictures of `faces_of` show, in order."""

MAX_SEED = 2**32 - 1
BIG, SMALL = 288, 96  # sides in pixels to which pictures are enlarged
RISING = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)  # intensities of the lower row

REGIONS = {"brows": (0.12, 0.31, 0.17, 0.83), "eyes": (0.31, 0.45, 0.20, 0.80), "nose": (0.45, 0.70, 0.37, 0.63),
           "mouth": (0.68, 0.95, 0.25, 0.75)}
"""Boxes (top, bottom, left, right) in an aligned face, fractions of its side: where built-in faces have 90 % of each
region on average. Notebook 4 measures with the true regions instead."""

ROW = {"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start"}  # wraps on a narrow screen
WHAT = {"real": "real photographs", "rendered": "rendered faces, the built-in stand-in for photographs"}


@torch.inference_mode()
def person_of(identity_gan, *, seed, truncation, other=None, mix=0.0):
    """The first identity of a seed, or one between two: float [1, C, H, W] in -1..1, on the generator's device.

    other : seed of a second person, or None. mix : 0 the first, 1 the second, between them in the latent space W.
    Raises FerError for a negative seed or truncation, or a mix outside 0..1.
    """
    for name in (seed, other):
        if name is not None and name < 0:
            raise FerError(f"The seed {name} is below 0: use 0 or more.")
    if not 0 <= mix <= 1:
        raise FerError(f"The mix {mix} is not possible: use 0, the first person, to 1, the second.")
    if other is None or mix == 0:
        return generation.identities(identity_gan, [0], seed=seed, truncation=truncation)
    if truncation < 0:
        raise FerError(f"The truncation {truncation} is below 0: use 1 for the full variety, less for typical faces.")
    device = next(identity_gan.parameters()).device
    both = torch.cat([generation.latents([0], seed=each, latent_size=identity_gan.latent_size) for each in (seed, other)])
    w = identity_gan.mapping(both.to(device), truncation=truncation)
    return identity_gan.synthesise(w[:1].lerp(w[1:], mix), noise="fixed").clamp(-1, 1)


@torch.inference_mode()
def rising(expression_gan, person, expression, *, intensities=RISING):
    """One face, float [1, C, H, W] in -1..1, with one expression at several intensities: uint8 [n, C, H, W].

    StarGAN knows one intensity only and shows the face itself below 0.5, the expression above.
    """
    if not generation.has_intensity(expression_gan):
        full = generation.impose(expression_gan, person, expression)
        return generation.to_uint8(torch.cat([full if value >= 0.5 else person for value in intensities]))
    flow, residual = expression_gan.change(person, torch.tensor([ALL_EXPRESSIONS.index(expression)], device=person.device))
    n, values = len(intensities), torch.tensor(intensities, dtype=person.dtype, device=person.device)
    shown = expression_flow.apply_change(*(part.expand(n, -1, -1, -1) for part in (person, flow, residual)), intensity=values)
    return generation.to_uint8(shown.clamp(-1, 1))


def change_map(before, after):
    """Where and how much a face has changed.

    before, after : uint8 [C, H, W]. Returns (uint8 [3, H, W], dark where nothing changed, bright from a change of a
    third of the pixel range on; dict region -> share of the whole change inside its box, with "elsewhere").
    """
    change = np.abs(after.astype(np.float32) - before).mean(0) / 255
    picture = (mpl.colormaps["magma"](np.minimum(change * 3, 1))[..., :3] * 255).round().astype(np.uint8)
    side, total, shares = len(change), max(float(change.sum()), 1e-9), {}
    for name, box in REGIONS.items():
        top, bottom, left, right = (round(value * side) for value in box)
        shares[name] = float(change[top:bottom, left:right].sum()) / total
    return picture.transpose(2, 0, 1), {**shares, "elsewhere": max(0.0, 1 - sum(shares.values()))}


def read_photo(data, *, image_size, channels):
    """A face from the bytes of a picture file, aligned by its eyes where they are found.

    Returns (float [1, C, S, S] in -1..1, what was found: "eyes", "face" or "none").
    Raises FerError for bytes that are no picture.
    """
    try:
        with Image.open(io.BytesIO(bytes(data))) as picture:
            pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"))
    except (UnidentifiedImageError, OSError) as error:
        raise FerError("The file is no picture that can be read: choose a JPEG or PNG.") from error
    (crop,), (found,) = alignment.align([pixels], image_size=image_size)
    face = torch.from_numpy(np.array(crop)).float().div(127.5).sub(1)
    return (face[None] if crop.ndim == 2 else face.permute(2, 0, 1))[None], found


@torch.inference_mode()
def faces_of(identity_gan, expression_gan, *, seed, truncation, intensity=1.0, other=None, mix=0.0):
    """The first identity of a seed, as drawn and in all seven expressions.

    identity_gan, expression_gan : the two generators, on one device.
    seed : int, 0 or more. truncation : 0 the mean face, 1 the full variety. intensity : of the expressions, 0 or
    more; 1 is full, and all that StarGAN knows. other, mix : see `person_of`.
    Returns uint8 [8, C, H, W], in the order of COLUMNS; the same arguments give the same bytes.
    Raises FerError for a negative seed or truncation, or an intensity that the generator does not know.
    """
    person = person_of(identity_gan, seed=seed, truncation=truncation, other=other, mix=mix)
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
    study : what `read_study` returns. profile : its name, for the texts. pool : Faces that the generators learned
    from, of which the nearest is shown beside, or None. folder : where pictures are saved, or None for
    runs/<profile>/explorer.
    seed, expression, truncation, intensity : where the widgets start. Raises FerError for an unknown expression.

    seed, another, other, mix, expression, truncation, intensity, test_set, save, photo : the controls; StarGAN has no
    intensity. A photo stays in this process's memory and is not stored.
    face, change, nearest, tiles, steps, curve : widgets.Image, their `value` the PNG's bytes; texts in face_caption,
    regions, nearest_caption, snippet, message and finding.
    """

    def __init__(self, identity_gan, expression_gan, *, origin, study=None, profile="demo", seed=0,
                 expression="happiness", truncation=1.0, intensity=1.0, pool=None, folder=None):
        labels.code(expression)  # names an unknown one
        self.generators = identity_gan, expression_gan
        self.origin, self.study, self.profile, self.pool = origin, study, profile, pool
        self.folder = Path(folder) if folder else paths.output_root() / "runs" / profile / "explorer"
        self.from_photo = None
        self._make_controls(seed, expression, truncation, intensity)
        self._make_pictures()
        self.another.on_click(self._another_person)
        for control in (self.seed, self.other, self.mix, self.truncation):
            control.observe(self._new_person, "value")
        self.intensity.observe(self._draw, "value")
        self.expression.observe(self._show_face, "value")
        self.save.on_click(self._save)
        self.photo.observe(self._take_photo, "value")
        self._draw()
        if study:
            self.curves = self._make_curves()
            self.test_set.observe(self._show_curve, "value")
            self._show_curve()

    def faces_of(self, seed, truncation, intensity=1.0):
        """The pictures of a person of one seed: uint8 [8, C, H, W], see the function `faces_of`."""
        return faces_of(*self.generators, seed=seed, truncation=truncation, intensity=intensity)

    def show(self):
        """The explorer as one widget, to be displayed by a notebook's cell."""
        note = widgets.HTML("<p><b>All faces here are generated; no such person exists.</b> The two networks "
                            f"learned from {WHAT.get(self.origin, self.origin)}.</p>")
        person = widgets.Box([self.seed, self.another, self.other, self.mix], layout=ROW)
        cell = {"margin": "4px", "align_items": "center"}
        row = widgets.Box([widgets.VBox([tile, widgets.Label(name)], layout=cell)
                           for tile, name in zip(self.tiles, COLUMNS)], layout=ROW)
        steps = widgets.Box([widgets.VBox([tile, widgets.Label(f"intensity {value:g}")], layout=cell)
                             for tile, value in zip(self.steps, RISING)], layout=ROW)
        trio = [widgets.VBox([self.face, self.face_caption], layout=cell),
                widgets.VBox([self.change, self.regions], layout=cell)]
        trio += [widgets.VBox([self.nearest, self.nearest_caption], layout=cell)] if self.pool is not None else []
        keep = widgets.Box([self.save, self.photo], layout=ROW)
        faces = widgets.VBox([note, person, self.expression, self.truncation, self.intensity,
                              widgets.Box(trio, layout=ROW), row, steps, keep, self.message, self.snippet])
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
        self.other = widgets.BoundedIntText(
            (self.seed.value + 1) % (MAX_SEED + 1), min=0, max=MAX_SEED, description="Mix with", layout={"width": "16em"},
            tooltip="Seed of a second person, of whom some is mixed in")
        self.mix = widgets.FloatSlider(0, min=0, max=1, step=0.05, description="Mix", readout_format=".2f", layout=fluid,
                                       tooltip="0: the first person; 1: the second")
        self.save = widgets.Button(description="Save sheet", icon="download", layout={"width": "12em"},
                                   tooltip=f"Write the pictures as a PNG into {self.folder.name}/ and show the code that "
                                           "makes them again")
        self.photo = widgets.FileUpload(accept="image/*", multiple=False, description="Own photo",
                                        tooltip="A picture of one face; it stays on this machine and is not stored")
        names = tuple(self.study[0]["test_set"].unique()) if self.study else ()
        self.test_set = widgets.Dropdown(options=names, description="Test set", layout=fluid,
                                         tooltip="The faces on which the classifiers are tested")

    def _make_pictures(self):
        self.face = widgets.Image(format="png", layout={"max_width": "100%"})
        self.face_caption = widgets.Label()
        self.tiles = [widgets.Image(format="png") for _ in COLUMNS]
        self.change, self.nearest = (widgets.Image(format="png", layout={"max_width": "100%"}) for _ in range(2))
        self.steps = [widgets.Image(format="png") for _ in RISING]
        self.regions, self.nearest_caption, self.snippet, self.message = (widgets.HTML() for _ in range(4))
        self.curve = widgets.Image(format="png", layout={"width": "100%", "max_width": "640px"})
        self.finding = widgets.HTML(f"<p>There are no results of profile {self.profile} yet: "
                                    "notebooks/06_ratio_study.ipynb makes them.</p>")

    def _another_person(self, _):
        self.seed.value = (self.seed.value + 1) % (MAX_SEED + 1)

    def _new_person(self, _=None):
        """A drawn person takes the place of a photo."""
        self.from_photo = None
        self.message.value = ""
        self._draw()

    @torch.inference_mode()
    def _draw(self, _=None):
        """New pictures of everything, after the person has changed."""
        self.person = self.from_photo if self.from_photo is not None else person_of(
            self.generators[0], seed=self.seed.value, truncation=self.truncation.value, other=self.other.value,
            mix=self.mix.value)
        shown = generation.impose_all(self.generators[1], self.person, intensity=self.intensity.value)
        self.pictures = generation.to_uint8(torch.cat([self.person, shown]))
        for tile, image, name in zip(self.tiles, self.pictures, COLUMNS):
            tile.value = png(image, side=SMALL)
            tile.tooltip = f"{self._who()}: {name}"
        self._show_nearest()
        self._show_face()

    def _who(self):
        if self.from_photo is not None:
            return "Your photo, changed by the expression GAN"
        mixed = f" mixed with {self.other.value} ({self.mix.value:.2f})" if self.mix.value else ""
        return f"Generated face, seed {self.seed.value}{mixed}"

    def _show_nearest(self):
        if self.pool is None:
            return
        near, distance, usual = nearest(self.pictures[:1], self.pool)
        self.nearest.value = png(near[0], side=BIG)
        self.nearest_caption.value = (f"nearest {self.pool.origin} face of the pool: distance {distance:.3f}, "
                                      f"usual between people of the pool {usual:.3f}")
        self.nearest.tooltip = self.nearest_caption.value

    def _show_face(self, _=None):
        name = self.expression.value
        face = self.pictures[COLUMNS.index(name)]
        self.face.value = png(face, side=BIG)
        heat, shares = change_map(self.pictures[0], face)
        self.change.value = png(heat, side=BIG)
        self.regions.value = "change inside " + ", ".join(f"{region} {share:.0%}" for region, share in shares.items())
        self.change.tooltip = f"Where {name} changes the face: {self.regions.value}"
        for tile, image, value in zip(self.steps, rising(self.generators[1], self.person, name), RISING):
            tile.value = png(image, side=SMALL)
            tile.tooltip = f"{self._who()}: {name}, intensity {value:g}"
        who = "your photo" if self.from_photo is not None else f"seed {self.seed.value}"
        self.face_caption.value = (f"generated: {who}, {name}, "
                                   f"truncation {self.truncation.value:.2f}, intensity {self.intensity.value:.2f}")
        self.face.tooltip = self.face_caption.value

    def sheet(self):
        """The row of expressions and the row of rising intensities as one matplotlib Figure."""
        rows = [png_pixels(tile.value) for tile in [*self.tiles, *self.steps, self.steps[-1]]]
        size = self.pictures.shape[-1]
        shrunk = [pixels[::pixels.shape[0] // size, ::pixels.shape[1] // size] for pixels in rows]
        images = np.stack([pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1) for pixels in shrunk])
        images[-1] = 255  # the lower row is one shorter
        return plots.contact_sheet(images.reshape(2, len(COLUMNS), *images.shape[1:]), column_titles=COLUMNS,
                                   row_titles=["", f"{self.expression.value},\nrising"], title=f"{self._who()}; below, intensity "
                                   + ", ".join(f"{value:g}" for value in RISING))

    def _save(self, _=None):
        """Write the sheet, and show the code that makes the same pictures; a photo's sheet is not stored."""
        if self.from_photo is not None:
            self.message.value = "<p>Pictures of a photo are not stored.</p>"
            return
        name = f"seed{self.seed.value}_{self.expression.value}_t{self.truncation.value:g}"
        name += f"_with{self.other.value}_{self.mix.value:g}" if self.mix.value else ""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.saved = self.folder / f"{name}.png"
        self.saved.write_bytes(figure_png(self.sheet()))
        mixed = f", other={self.other.value}, mix={self.mix.value}" if self.mix.value else ""
        intensity = "" if self.intensity.disabled else f", intensity={self.intensity.value}"
        self.message.value = f"<p>Saved as {self.saved.name} in {self.folder.name}/. The same pictures from Python:</p>"
        self.snippet.value = (f"<pre>explorer.faces_of(*gans, seed={self.seed.value}, "
                              f"truncation={self.truncation.value}{intensity}{mixed})</pre>")

    def _take_photo(self, change):
        """Show the uploaded face in all expressions; the bytes are dropped at once."""
        if not change["new"]:
            return
        size, channels = self.pictures.shape[-1], self.pictures.shape[1]
        try:
            face, found = read_photo(change["new"][0]["content"], image_size=size, channels=channels)
        except FerError as error:
            self.message.value = f"<p>{error}</p>"
            return
        finally:
            self.photo.value = ()
        self.from_photo = face.to(self.person.device)
        told = {"eyes": "aligned by its eyes", "face": "a face was found, its eyes were not",
                "none": "no face was found, the middle of the picture is shown"}[found]
        self.message.value = f"<p>Your photo ({told}). It is not stored.</p>"
        self._draw()

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


def nearest(images, pool):
    """generation.nearest_faces, with the part that depends on the pool alone kept from call to call."""
    key = pool.fingerprint
    if key not in _POOLS:
        _, _, usual = generation.nearest_faces(np.asarray(pool.images[:1]), pool)
        _POOLS.clear()
        _POOLS[key] = generation.reduced(np.asarray(pool.images)), usual
    known, usual = _POOLS[key]
    distances = torch.cdist(generation.reduced(images), known) / known.shape[1] ** 0.5
    return np.asarray(pool.images)[distances.argmin(1).numpy()], float(distances.amin()), usual


_POOLS = {}  # fingerprint -> (reduced faces, usual distance) of the pool shown last


def png_pixels(data):
    """Pixels of a PNG's bytes: uint8 [H, W] or [H, W, 3]."""
    return np.array(Image.open(io.BytesIO(data)))


def figure_png(figure):
    """PNG bytes of a matplotlib Figure, on white so that its text is readable in a dark theme."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    return file.getvalue()
