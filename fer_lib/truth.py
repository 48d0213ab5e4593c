"""What a change of expression should look like: on built-in faces the truth can be rendered."""

import numpy as np
import pandas as pd

from fer_lib import engine, rendering
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import EXPRESSIONS

REGIONS = ("brows", "eyes", "nose", "mouth")
GIVEN = ("neutral", 0)  # the expression and take of the picture that is changed


def render_truth(subjects, *, takes=16, seed=0, image_size=64, channels=1, expressions=EXPRESSIONS, jobs=None):
    """Neutral lab pictures of some people, and the same people, poses and lights with each expression.

    subjects : ints, numbers of built-in subjects. takes : true pictures of each expression. Others as in
    rendering.render_faces.
    Returns (given Faces [n], truth uint8 [n, expressions, takes, C, H, W], masks dict region -> bool [n, H, W]).
    """
    tasks = [(int(subject), tuple(expressions), takes, seed, image_size, channels) for subject in subjects]
    results = dict(engine.map(_render_subject, tasks, jobs=jobs))
    given, truth, masks = zip(*(results[index] for index in range(len(tasks))))
    names = [f"s{seed}-{subject:04d}" for subject in subjects]
    table = pd.DataFrame({"id": [f"lab-{name}-neutral-00" for name in names], "expression": "neutral",
                          "subject": names, "domain": "lab"})
    masks = {region: np.stack([mask[region] for mask in masks]) for region in REGIONS}
    return Faces(np.concatenate(given), table, "rendered"), np.stack(truth), masks


def render_truth_of(faces, *, takes=16):
    """`render_truth` of the people in rendered faces, of their size and colours.

    faces : Faces, whose subjects are called s<data seed>-<number>. Returns what render_truth does, people in the order
    of their names.
    """
    names = [name.removeprefix("s").split("-") for name in sorted(set(faces.subjects))]
    return render_truth([int(number) for _, number in names], takes=takes, seed=int(names[0][0]),
                        image_size=faces.image_size, channels=faces.channels)


def _render_subject(task):
    subject, expressions, takes, seed, image_size, channels = task
    options = {"seed": seed, "image_size": image_size}
    given = rendering.render_takes(subject, *GIVEN[:1], "lab", takes=[GIVEN[1]], shot_of=GIVEN,
                                   channels=channels, **options)
    truth = [rendering.render_takes(subject, name, "lab", takes=range(takes), shot_of=GIVEN, channels=channels,
                                    **options) for name in expressions]
    return given, np.stack(truth), rendering.region_masks(subject, *GIVEN, "lab", **options)


def region_errors(images, truth, masks, *, unchanged=None):
    """Mean absolute error of each face to the nearest of its true takes, region by region.

    images : uint8 [n, C, H, W] (one person each). truth : uint8 [n, takes, C, H, W].
    masks : dict region -> bool [n, H, W]. The nearest take is sought per region.
    unchanged : uint8 [n, C, H, W], the faces before; the error of leaving them as they are, to the take that is
    nearest to `images`, is then returned beside it.
    Returns DataFrame [n], one column a region, in pixel values 0..1 (NaN where a region is hidden); with
    `unchanged` two of them.
    Raises FerError when the numbers of people differ.
    """
    if len(images) != len(truth):
        raise FerError(f"{len(images)} faces were given with the truth of {len(truth)}: give one each.")
    own, before = {}, {}
    for region, mask in masks.items():
        to_takes = _inside(images, truth, mask)
        nearest = np.nan_to_num(to_takes, nan=np.inf).argmin(1)[:, None]
        own[region] = np.take_along_axis(to_takes, nearest, 1)[:, 0]
        if unchanged is not None:
            before[region] = np.take_along_axis(_inside(unchanged, truth, mask), nearest, 1)[:, 0]
    return pd.DataFrame(own) if unchanged is None else (pd.DataFrame(own), pd.DataFrame(before))


def mean_errors(images, truth, masks):
    """Mean absolute error of each face over all of its true takes, region by region.

    Arguments and units as in `region_errors`. Beside the nearest take, which a face may choose, this asks for none.
    Returns DataFrame [n], one column a region.
    """
    return pd.DataFrame({region: _inside(images, truth, mask).mean(1) for region, mask in masks.items()})


def _inside(images, truth, mask):
    """Mean absolute difference of each face [n] to each take, within a mask: float [n, takes], 0..1."""
    difference = np.abs(np.asarray(truth, np.float32) - np.asarray(images, np.float32)[:, None]).mean(2) / 255
    with np.errstate(invalid="ignore"):
        return (mask[:, None] * difference).sum((2, 3)) / mask.sum((1, 2))[:, None]


def change_inside(before, after, masks):
    """Mean absolute change of pixels inside each region and outside all of them: DataFrame [n], 0..1."""
    change = np.abs(np.asarray(after, np.float32) - np.asarray(before, np.float32)).mean(1) / 255
    regions = masks | {"elsewhere": ~np.any(list(masks.values()), axis=0)}
    with np.errstate(invalid="ignore"):
        return pd.DataFrame({name: (change * mask).sum((1, 2)) / mask.sum((1, 2)) for name, mask in regions.items()})
