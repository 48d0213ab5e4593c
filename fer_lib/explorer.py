"""Widgets to play with: one person in every expression, and what the ratio study found.

`faces_of` computes, `Explorer` shows: every picture is a function of the values of the widgets, which can be
set and read without a browser. The second tab is explorer_study.StudyTab.
"""

import html
import io
import os
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import torch
import traitlets
from PIL import Image

from fer_lib import (alignment, data, explorer_drawing, explorer_study, generation, labels, paths, plots, referee,
                     weights)
from fer_lib.errors import FerError
from fer_lib.explorer_study import finding, main_rows, read_study  # noqa: F401, part of what this module offers
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS
from fer_lib.networks import expression_flow
from fer_lib.readers.images import decode
from fer_lib.referee import Referee

COLUMNS = ("as drawn", *ALL_EXPRESSIONS)
"""What the pictures of `faces_of` show, in order."""

MAX_SEED = 2**32 - 1
BIG, SMALL = 288, 96  # sides in pixels to which pictures are enlarged
RISING = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)  # intensities of the lower row

REGIONS = {"brows": (0.12, 0.31, 0.17, 0.83), "eyes": (0.31, 0.45, 0.20, 0.80), "nose": (0.45, 0.70, 0.37, 0.63),
           "mouth": (0.68, 0.95, 0.25, 0.75)}
"""Boxes (top, bottom, left, right) in an aligned face, fractions of its side: where built-in faces have 90 % of each
region on average. Notebook 4 measures with the true regions instead."""

ROW = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}  # wraps on a narrow screen
STILL = {"overflow": "visible"}  # a box that scrolls would be one more stop of the Tab key
GRID = {**STILL, "max_width": "1160px", "grid_gap": "8px"}
TILES = {**GRID,  # 8 columns, 4 on a phone
         "grid_template_columns": "repeat(auto-fill, minmax(min(124px, max(22%, 68px)), 1fr))"}
LARGE = {**GRID, "grid_template_columns": "repeat(auto-fit, minmax(150px, 1fr))", "align_items": "flex-start"}
WHAT = {"real": "real photographs", "rendered": "rendered faces, the built-in stand-in for photographs",
        "unknown": "faces that the files of their weights do not name"}
SHIPPED = {"demo": "built-in", "built_in": "built-in", "built_in_study": "built-in",
           "fer2013": "fer2013"}  # profile -> folder below weights/


# ---- the generators ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Opened:
    """Generators that are ready: gans and weights, the networks and their files; pool, Faces that the first one learned
    from, or None.

    seen : for each what its file says that it learned from, a dict of weights.trace, or None where it does not.
    image_size : of their faces. referee : referee.Referee of such faces, or None.
    """

    gans: tuple
    weights: tuple
    pool: Faces | None
    seen: tuple
    image_size: int
    referee: Referee | None = None

    @property
    def origin(self):
        """Of what they learned from: "real", "rendered", "unknown", or two of these joined by "and"."""
        return " and ".join(dict.fromkeys(each["origin"] if each else "unknown" for each in self.seen))

    @property
    def learned_from(self):
        """In words, see weights.describe."""
        first, second = map(weights.describe, self.seen)
        if first == second or all(self.seen) and len({each["fingerprint"] for each in self.seen}) == 1:
            return second  # it tells of sequences, too
        return f"{first}, the second one on {second}"


def open_generators(workspace, names=("identity_gan", "expression_gan"), *, pool="faces", device="cpu"):
    """The two generators of a profile, as notebooks 2 and 3 left them, or else those that are shipped for it.

    names, pool : what notebooks 1 to 3 publish. Returns Opened, with notebook 4's referee where there is one, or else
    the shipped one with shipped generators, of which the pool is not at hand; nor is it where the first generator
    learned from other faces.
    What was read, or that it was absent, is recorded. Raises FerError where none are shipped either.
    """
    own = True
    try:
        files = [workspace.require(name).path / "generator.safetensors" for name in names]
        faces = data.load(workspace.require(pool).path)["pool"]
        image_size = faces.image_size
        faces = faces if weights.has_seen(files[0], faces) else None
    except FerError:
        if workspace.profile not in SHIPPED:
            raise
        workspace.reads |= dict.fromkeys((*names, pool))  # the notebook runs again once they are made
        own, folder, faces = False, paths.REPOSITORY / "weights" / SHIPPED[workspace.profile], None
        files = [folder / "identity.safetensors", folder / "expression.safetensors"]
        for file in files:
            workspace.read_external(file)
        image_size = weights.read_metadata(files[0])["trained_on"]["image_size"]
    gans = tuple(weights.load_generator(path, device=device) for path in files)
    seen = tuple(weights.read_metadata(path)["trained_on"] for path in files)
    return Opened(gans, tuple(files), faces, seen, image_size,
                  referee=_open_referee(workspace, device) if own else referee.open_shipped(folder, device=device))


def _open_referee(workspace, device):
    """The networks of notebook 4 with the thresholds that it found, or None where it has not run."""
    try:
        networks, judged = (workspace.require(name).path for name in ("referee", "quality"))
    except FerError:
        workspace.reads |= dict.fromkeys(("referee", "quality"))
        return None
    return referee.load(networks, thresholds=referee.read_thresholds(judged / "quality.json"), device=device)


# ---- faces ---------------------------------------------------------------------------------------------


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
    both = torch.cat([generation.latents([0], seed=each, latent_size=identity_gan.latent_size)
                      for each in (seed, other)])
    w = identity_gan.mapping(both.to(device), truncation=truncation)
    return identity_gan.synthesise(w[:1].lerp(w[1:], mix), noise="fixed").clamp(-1, 1)


class Changes:
    """What the expression GAN does to one face, worked out once: another intensity costs next to nothing.

    expression_gan : stargan.Generator or expression_flow.Generator. person : float [1, C, H, W] in -1..1.
    """

    @torch.inference_mode()
    def __init__(self, expression_gan, person):
        self.flows = generation.has_intensity(expression_gan)
        self.person = person.expand(len(ALL_EXPRESSIONS), -1, -1, -1)
        self.parts = (expression_gan.change(self.person, torch.arange(len(self.person), device=person.device))
                      if self.flows else (generation.impose_all(expression_gan, person),))

    @torch.inference_mode()
    def all(self, intensity=1.0):
        """All seven expressions, float [7, C, H, W] in -1..1: the same pixels as generation.impose_all."""
        if self.flows and intensity >= 0:
            return expression_flow.apply_change(self.person, *self.parts, intensity=intensity).clamp(-1, 1)
        if intensity != 1:
            raise FerError(f"The intensity {intensity} is not possible: use 0 or more with the flow GAN, and 1 with "
                           "StarGAN.")
        return self.parts[0]

    @torch.inference_mode()
    def rising(self, expression, intensities=RISING):
        """One expression at several intensities: uint8 [n, C, H, W]. StarGAN shows the face itself below 0.5."""
        code, n = ALL_EXPRESSIONS.index(expression), len(intensities)
        if not self.flows:
            return generation.to_uint8(torch.stack([(self.parts[0] if value >= 0.5 else self.person)[code]
                                                    for value in intensities]))
        values = torch.tensor(intensities, dtype=self.person.dtype, device=self.person.device)
        parts = (part[code:code + 1].expand(n, -1, -1, -1) for part in (self.person, *self.parts))
        return generation.to_uint8(expression_flow.apply_change(*parts, intensity=values).clamp(-1, 1))


def rising(expression_gan, person, expression, *, intensities=RISING):
    """One face, float [1, C, H, W] in -1..1, with one expression at several intensities: uint8 [n, C, H, W].

    StarGAN knows one intensity only and shows the face itself below 0.5, the expression above.
    """
    return Changes(expression_gan, person).rising(expression, intensities)


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
    Raises FerError for bytes that are no picture, and without OpenCV's detectors.
    """
    detectors = alignment.load_detectors()
    try:
        crop, found = decode(bytes(data), image_size=image_size, channels=channels, name="The photo",
                             detectors=detectors)
    except FerError as error:
        raise FerError("The file is no picture that can be read: choose a JPEG or an 8-bit PNG.") from error
    return torch.from_numpy(np.array(crop)).float().div(127.5).sub(1)[None], found


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


def sheet_of(identity_gan, expression_gan, *, expression, seed, truncation, intensity=1.0, other=None, mix=0.0):
    """What the explorer saves: a person in all expressions, and below in one at rising intensity, as a Figure.

    expression : of the lower row. Other arguments and errors: see `faces_of`.
    """
    labels.code(expression)
    person = person_of(identity_gan, seed=seed, truncation=truncation, other=other, mix=mix)
    changes = Changes(expression_gan, person)
    faces = generation.to_uint8(torch.cat([person, changes.all(intensity)]))
    return sheet_figure(faces, changes.rising(expression), expression=expression,
                        title=f"{who(seed, other, mix)}, truncation {truncation:.2f}; "
                              f"expressions of intensity {intensity:.2f}")


def sheet_figure(faces, steps, *, expression, title):
    """Both rows of the explorer as a matplotlib Figure.

    faces : uint8 [8, C, H, W], in the order of COLUMNS. steps : uint8 [7, C, H, W], intensities RISING of `expression`.
    """
    images = np.concatenate([faces, steps, np.full_like(steps[:1], 255)])  # the lower row is one shorter
    figure = plots.contact_sheet(images.reshape(2, len(COLUMNS), *images.shape[1:]), column_titles=COLUMNS,
                                 row_titles=["", f"{expression},\nintensity"], title=title)
    for axis, value in zip(figure.axes[len(COLUMNS):], RISING, strict=False):
        axis.set_title(f"{value:g}", pad=3, fontsize=figure.axes[0].title.get_fontsize())
    return figure


def who(seed, other=None, mix=0.0):
    """What a generated person is called."""
    mixed = f" mixed with {other} ({mix:.2f})" if mix else ""
    return f"Generated face, seed {seed}{mixed}"


def snippet(files, *, name, expression, settings):
    """Python that makes a saved sheet again, as pasted at the repository's root.

    files : the two generators' files. name : of the PNG. expression : of the lower row. settings : of `faces_of`.
    """
    person = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    first, second = (f'"{portable(path)}"' for path in files)
    return f"""from pathlib import Path

from fer_lib import explorer, training

gans = [training.load_generator(path) for path in (
    {first},
    {second})]
person = dict({person})
faces = explorer.faces_of(*gans, **person)  # uint8 [8, C, H, W]: as drawn, then the seven expressions
sheet = explorer.sheet_of(*gans, expression="{expression}", **person)
Path("{name}.png").write_bytes(explorer.figure_png(sheet))"""


def portable(path):
    """A generator's file as others can name it: the shipped one of the same bytes, or relative to the repository."""
    path = Path(path)
    for shipped in sorted((paths.REPOSITORY / "weights").glob("*/*.safetensors")):
        if shipped.stat().st_size == path.stat().st_size and shipped.read_bytes() == path.read_bytes():
            path = shipped
            break
    return Path(os.path.relpath(path, paths.REPOSITORY)).as_posix()


# ---- the widgets ---------------------------------------------------------------------------------------

class Picture(widgets.Image):
    """An image whose tooltip is shown, and read out: the browser's view asks for a description, which Image lacks."""

    description = traitlets.Unicode("").tag(sync=True)


class Explorer:
    """The widgets, each an attribute, and what connects them.

    identity_gan, expression_gan : the two generators, on one device.
    origin : "real" or "rendered", what the generators were trained on.
    study : what `read_study` returns. profile : its name, for the texts. pool : Faces that the generators learned
    from, of which the nearest is shown beside, or None. folder : where pictures are saved, or None for
    runs/<profile>/explorer.
    seed, expression, truncation, intensity : where the widgets start. Raises FerError for an unknown expression.
    referee : who judges the large picture, or None. Its probabilities(images uint8 [n, C, H, W]) returns float [n, k]
    for the first k = 6 or 7 of ALL_EXPRESSIONS; keeps(images, expression) bool [n], whether the filter would keep each
    as a training image. weights : the generators' two files, so that saved settings come with a complete program, or
    None.

    seed, another, other, mix, expression, truncation, intensity, save, photo : the controls; StarGAN has no
    intensity. A photo stays in this process's memory and is not stored.
    face, change, nearest, tiles, steps : widgets.Image, their `value` the PNG's bytes; texts in face_caption,
    regions, judged, kept, nearest_caption, snippet and message.
    study_tab : explorer_study.StudyTab; its test_set, curve and finding can be had from here, too.
    """

    def __init__(self, identity_gan, expression_gan, *, origin, study=None, profile="demo", seed=0,
                 expression="happiness", truncation=1.0, intensity=1.0, pool=None, folder=None, referee=None,
                 weights=None):
        labels.code(expression)  # names an unknown one
        self.generators = identity_gan, expression_gan
        self.origin, self.study, self.profile, self.pool = origin, study, profile, pool
        self.referee, self.weights = referee, weights
        self.folder = Path(folder) if folder else paths.output_root() / "runs" / profile / "explorer"
        self.from_photo = None
        self._make_controls(seed, expression, truncation, intensity)
        self._make_pictures()
        self.another.on_click(self._another_person)
        for control in (self.seed, self.other, self.mix, self.truncation):
            control.observe(self._new_person, "value")
        self.intensity.observe(self._show_expressions, "value")
        self.expression.observe(self._show_face, "value")
        for control in (self.intensity, self.expression):
            control.observe(self._forget_saved, "value")
        self.save.on_click(self._save)
        self.photo.observe(self._take_photo, "value")
        self._draw()
        self.study_tab = explorer_study.StudyTab(study, profile=profile)
        self.test_set, self.curve, self.finding = self.study_tab.test_set, self.study_tab.curve, self.study_tab.finding

    def faces_of(self, seed, truncation, intensity=1.0):
        """The pictures of a person of one seed: uint8 [8, C, H, W], see the function `faces_of`."""
        return faces_of(*self.generators, seed=seed, truncation=truncation, intensity=intensity)

    def show(self):
        """The explorer as one widget, to be displayed by a notebook's cell."""
        near = f"the nearest face of the pool, which is {self.pool.origin}, and " if self._shows_nearest() else ""
        note = widgets.HTML(f"{explorer_drawing.CSS}<p><b>Generated faces: no such person exists.</b> All here are, "
                            f"but for {near}a photo of yours. The two networks learned from "
                            f"{' and '.join(WHAT.get(each, each) for each in self.origin.split(' and '))}.</p>")
        seeds, sliders = (widgets.Box(part, layout=ROW) for part in (
            [self.seed, self.another, self.other], [self.mix, self.truncation, self.intensity]))
        seen = [(self.face, self.face_caption)]
        seen += [(self.judged, self.kept)] if self.referee is not None else []
        seen += [(self.change, self.regions)]
        if self.pool is not None:
            seen += [(self.nearest, self.nearest_caption) if self._shows_nearest() else (self.nearest_caption,)]
        large = widgets.GridBox([widgets.VBox(pair, layout=STILL) for pair in seen], layout=LARGE)
        row = _titled(self.tiles, COLUMNS)
        steps = _titled(self.steps, [f"{value:g}" for value in RISING])
        keep = widgets.Box([self.save, self.photo], layout=ROW)
        faces = widgets.VBox([note, seeds, self.expression, sliders, large, self.row_title, row, self.steps_title,
                              steps, keep, self.message, self.snippet], layout=STILL)
        for text in (note, self.message, self.snippet, self.judged, self.row_title, self.steps_title):
            text.add_class("fer-text")
        tab = widgets.Tab([faces, self.study_tab.show()], titles=["Faces", "Ratio study"])
        tab.add_class("fer")
        return tab

    def _make_controls(self, seed, expression, truncation, intensity):
        fluid, short = {"width": "100%", "max_width": "22em"}, {"width": "14em"}
        self.seed = widgets.BoundedIntText(seed, min=0, max=MAX_SEED, description="Seed", layout=short,
                                           tooltip="A number that stands for a person, 0 or more")
        self.another = widgets.Button(description="Another person", icon="user", layout=short,
                                      tooltip="Go to the next seed")
        self.expression = widgets.ToggleButtons(
            options=ALL_EXPRESSIONS, value=expression, description="Expression", layout={"width": "100%"},
            style={"button_width": "7.5em"}, tooltip="The expression of the large picture",
            tooltips=[f"Show {name} in the large picture" for name in ALL_EXPRESSIONS])
        self.truncation = widgets.FloatSlider(
            truncation, min=0, max=1, step=0.05, description="Truncation", readout_format=".2f", layout=fluid,
            tooltip="0: the mean face; 1: the full variety of faces")
        self.intensity = widgets.FloatSlider(
            intensity, min=0, max=1.5, step=0.05, description="Intensity", readout_format=".2f", layout=fluid,
            disabled=not generation.has_intensity(self.generators[1]),
            tooltip="0: the face as drawn; 1: the full expression")
        self.other = widgets.BoundedIntText(
            (self.seed.value + 1) % (MAX_SEED + 1), min=0, max=MAX_SEED, description="Mix with", layout=short,
            tooltip="Seed of a second person, of whom some is mixed in")
        self.mix = widgets.FloatSlider(0, min=0, max=1, step=0.05, description="Mix", readout_format=".2f",
                                       layout=fluid, tooltip="0: the first person; 1: the second")
        self.save = widgets.Button(description="Save sheet", icon="download", layout=short,
                                   tooltip=f"Write the pictures as a PNG into {self.folder.name}/ and show the code "
                                           "that makes them again")
        self.photo = widgets.FileUpload(accept="image/*", multiple=False, description="Own photo", layout=short,
                                        tooltip="A picture of one face; it stays on this machine and is not stored")

    def _make_pictures(self):
        self.face, self.change, self.nearest, *small = (
            Picture(format="png", layout={"width": "100%"}) for _ in range(3 + len(COLUMNS) + len(RISING)))
        self.tiles, self.steps = small[:len(COLUMNS)], small[len(COLUMNS):]
        self.face_caption = widgets.Label()
        self.regions, self.judged, self.kept, self.nearest_caption = (widgets.HTML() for _ in range(4))
        self.snippet, self.message, self.row_title, self.steps_title = (widgets.HTML() for _ in range(4))
        self.row_title.value = "<p>The person as drawn, and in every expression:</p>"
        for picture in (self.face, self.change, self.nearest, *small):
            picture.add_class("fer-tile")
        for text in (self.face_caption, self.regions, self.kept, self.nearest_caption):
            text.add_class("fer-wrap")

    def _forget_saved(self, _):
        """The program below draws another sheet than the one on show now."""
        if self.from_photo is None:
            self.message.value = self.snippet.value = ""

    def _another_person(self, _):
        self.seed.value = (self.seed.value + 1) % (MAX_SEED + 1)

    def _new_person(self, _=None):
        """A drawn person takes the place of a photo."""
        self.from_photo = None
        self.message.value = self.snippet.value = ""
        self._draw()

    def _draw(self):
        """New pictures of everything, after the person has changed."""
        self.person = self.from_photo if self.from_photo is not None else person_of(
            self.generators[0], seed=self.seed.value, truncation=self.truncation.value, other=self.other.value,
            mix=self.mix.value)
        self.changes = Changes(self.generators[1], self.person)
        self._show_expressions()
        self._show_nearest()

    def _show_expressions(self, _=None):
        """The row of expressions and what depends on it, at the chosen intensity."""
        self.pictures = generation.to_uint8(torch.cat([self.person, self.changes.all(self.intensity.value)]))
        for tile, image, name in zip(self.tiles, self.pictures, COLUMNS):
            tile.value = png(image, side=SMALL)
            tile.tooltip = f"{self._who()}: {name}"
        self._show_face()

    def _who(self):
        if self.from_photo is not None:
            return "Your photo, changed by the expression GAN"
        return who(self.seed.value, self.other.value, self.mix.value)

    def _shows_nearest(self):
        """Whether the nearest face of the pool is shown: never a photograph, of which the distance is told alone."""
        return self.pool is not None and self.pool.origin != "real"

    def _show_nearest(self):
        if self.pool is None:
            return
        near, distance, usual = nearest(self.pictures[:1], self.pool)
        if self._shows_nearest():
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
        self.steps_title.value = (f"<p>The same person with {name} at rising intensity, "
                                  "from 0 (as drawn) over 1 (full) to 1.5:</p>")
        self.rising = self.changes.rising(name)
        for tile, image, value in zip(self.steps, self.rising, RISING):
            tile.value = png(image, side=SMALL)
            tile.tooltip = f"{self._who()}: {name}, intensity {value:g}"
        subject = "your photo" if self.from_photo is not None else f"seed {self.seed.value}"
        self.face_caption.value = (f"generated: {subject}, {name}, "
                                   f"truncation {self.truncation.value:.2f}, intensity {self.intensity.value:.2f}")
        self.face.tooltip = self.face_caption.value
        self._show_judgement(face, name)

    def _show_judgement(self, face, name):
        """What the judge sees in the large picture, and whether the filter would let it into the training set."""
        if self.referee is None:
            return
        seen = self.referee.probabilities(np.stack([self.pictures[0], face]))
        drawn, shown = (dict(zip(ALL_EXPRESSIONS, map(float, row), strict=False)) for row in seen)
        self.judged.value = explorer_drawing.percent_list(shown, title="What the judge sees:", strong=name)
        first = max(drawn, key=drawn.get)
        told = (f"In the face {'as it is on your photo' if self.from_photo is not None else 'as drawn'}: "
                f"{first} {drawn[first]:.0%}.")
        self.kept.value = f"{self._verdict(face, name, shown)} {told}"

    def _verdict(self, face, name, shown):
        """Kept or left out, and why."""
        if self.from_photo is not None:
            return "The filter is for generated people: no photo becomes a training image."
        if name not in EXPRESSIONS:
            return ("The classifier learns six expressions; neutral is not part of the six, so this is no training "
                    "image.")
        first = max(shown, key=shown.get)
        if self.referee.keeps(face[None], name)[0]:
            return f"<b>kept</b> by the filter: convincing enough as a training image of {name}."
        why = f"the judge sees {first} first" if first != name else "others of this expression are more convincing"
        return f"<b>left out</b> by the filter: not convincing enough as a training image of {name} ({why})."

    def sheet(self):
        """The row of expressions and the row of rising intensities as one matplotlib Figure."""
        title = self._who() if self.from_photo is not None else (
            f"{self._who()}, truncation {self.truncation.value:.2f}; "
            f"expressions of intensity {self.intensity.value:.2f}")
        return sheet_figure(self.pictures, self.rising, expression=self.expression.value, title=title)

    def settings(self):
        """What makes the pictures on show, as arguments of `faces_of`."""
        mixed = {"other": self.other.value, "mix": self.mix.value} if self.mix.value else {}
        intensity = {} if self.intensity.disabled else {"intensity": self.intensity.value}
        return {"seed": self.seed.value, "truncation": self.truncation.value, **intensity, **mixed}

    def _save(self, _=None):
        """Write the sheet, and show the code that makes the same pictures; a photo's sheet is not stored."""
        if self.from_photo is not None:
            self.message.value = '<p role="status">Pictures of a photo are not stored.</p>'
            return
        values = self.settings()
        name = f"seed{self.seed.value}_{self.expression.value}_t{self.truncation.value:g}"
        name += f"_i{values['intensity']:g}" if values.get("intensity", 1) != 1 else ""
        name += f"_with{values['other']}_{values['mix']:g}" if "mix" in values else ""
        path = self.folder / f"{name}.png"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(figure_png(self.sheet()))
        except OSError as error:
            self.snippet.value = ""
            self.message.value = f'<p role="status">{html.escape(f"{path} cannot be written: {error.strerror}.")}</p>'
            return
        self.saved = path
        self.message.value = (
            f'<p role="status">Saved as {self.saved.name} in {self.folder.parent.name}/{self.folder.name}/. '
            "The same from Python:</p>")
        code = f"explorer.faces_of(*gans, {', '.join(f'{key}={value!r}' for key, value in values.items())})"
        if self.weights:
            code = snippet(self.weights, name=name, expression=self.expression.value, settings=values)
        self.snippet.value = f"<pre>{html.escape(code, quote=False)}</pre>"

    def _take_photo(self, change):
        """Show the uploaded face in all expressions; the bytes are dropped at once."""
        if not change["new"]:
            return
        size, channels = self.pictures.shape[-1], self.pictures.shape[1]
        try:
            face, found = read_photo(change["new"][0]["content"], image_size=size, channels=channels)
        except FerError as error:
            self.message.value = f'<p role="status">{html.escape(str(error))}</p>'
            return
        finally:
            self.photo.value = ()
        self.from_photo, self.snippet.value = face.to(self.person.device), ""
        told = {"eyes": "aligned by its eyes", "face": "a face was found, its eyes were not",
                "none": "no face was found, the middle of the picture is shown"}[found]
        self.message.value = f'<p role="status">Your photo ({told}). It is not stored.</p>'
        self._draw()


def _titled(tiles, titles):
    """Small pictures in a grid, each with its title below."""
    labels_ = [widgets.Label(title) for title in titles]
    for label in labels_:
        label.add_class("fer-wrap")
    return widgets.GridBox([widgets.VBox([tile, label], layout={**STILL, "align_items": "center"})
                            for tile, label in zip(tiles, labels_, strict=True)], layout=TILES)


def nearest(images, pool):
    """generation.nearest_faces, with the part that depends on the pool alone kept from call to call."""
    key = pool.fingerprint
    if key not in _POOLS:
        _, _, usual = generation.nearest_faces(np.asarray(pool.images[:1]), pool)
        _POOLS.clear()
        _POOLS[key] = generation.with_mirrored(pool), usual
    known, usual = _POOLS[key]
    distances, near = generation.nearest_of(images, known)
    return np.asarray(pool.images)[near], float(distances.min()), usual


_POOLS = {}  # fingerprint -> (reduced faces, usual distance) of the pool shown last


def figure_png(figure):
    """PNG bytes of a matplotlib Figure, on white so that its text is readable in a dark theme."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    return file.getvalue()
