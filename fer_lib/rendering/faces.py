"""Built-in faces: each picture is a function of subject, expression, take, domain and seed alone."""
from numbers import Integral

import numpy as np
import pandas as pd

from fer_lib import engine
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS
from fer_lib.rendering.degradation import degrade
from fer_lib.rendering.expression import draw_expression
from fer_lib.rendering.head import BODY, LEFT_EYE, RIGHT_EYE, TONGUE, UPPER_TEETH, stream
from fer_lib.rendering.identity import draw_identity
from fer_lib.rendering.shading import SUPERSAMPLING, render, see
from fer_lib.rendering.shot import draw_shot

DOMAINS = ("lab", "wild")
SIZES = (32, 256)
LUMA = (77, 150, 29)            # shares of red, green and blue in grey, in 1/256 (ITU-R BT.601)
# Boxes in base-mesh decimetres, |x| and y from, to: the same skin on every face.
REGIONS = {"brows": ((0.0, 0.66), (7.40, 7.66)), "eyes": ((0.10, 0.56), (7.14, 7.40)),
           "nose": ((0.0, 0.22), (6.80, 7.22)), "mouth": ((0.0, 0.46), (6.36, 6.78))}


def render_image(subject, expression, take, domain, *, seed=0, image_size=64, intensity=None, shot_of=None):
    """One built-in face.

    subject, take : int, from 0. expression : of labels.ALL_EXPRESSIONS. domain : "lab" or "wild".
    seed : int; another seed is another world: other people, other takes.
    image_size : 32 to 256 pixels. intensity : 0 (rest) to 1 (full) and a little above; None draws one.
    shot_of : (expression, take) of the picture whose pose, light, ground and camera noise are used instead
        of this one's own, so that nothing but the face differs.
    Returns uint8 [image_size, image_size, 3]; the same bytes on every machine.
    Raises FerError for an unknown expression or domain, a negative number, or a size out of range.
    """
    _check([subject], [expression], [take], domain, image_size)
    identity = draw_identity(subject, seed=seed)
    image, _ = _picture(identity, (subject, expression, take, domain, seed), image_size,
                        intensity=intensity, shot_of=shot_of)
    return image


def render_faces(subjects, *, takes, domain, expressions=ALL_EXPRESSIONS, seed=0, image_size=64, channels=1,
                 one_sequence=False, jobs=None, progress=None):
    """All expressions and takes of some subjects, on all cores.

    subjects : ints, from 0, each once. takes : pictures per subject and expression.
    domain, seed, image_size : as in render_image. channels : 1 (grey) or 3 (RGB).
    one_sequence : all pictures of a subject have the pose, light and ground of its first neutral one, as the frames of
        one recording have; a column `sequence` says so.
    jobs, progress : as in engine.map; progress counts subjects.
    Returns Faces of origin "rendered", in the order subject, expression, take, with the columns id,
    expression, subject, domain, take and intensity (what the expression was drawn with; 0 for neutral).
    Raises FerError as render_image does, and when nothing is asked for.
    """
    subjects, expressions = [int(subject) for subject in subjects], tuple(expressions)
    if not subjects or not expressions or takes < 1 or len(set(subjects)) < len(subjects):
        raise FerError("Rendering needs at least one subject, each once, one expression and one take.")
    if channels not in (1, 3):
        raise FerError(f"Pictures have 1 or 3 channels, not {channels}.")
    _check(subjects, expressions, range(takes), domain, image_size)
    tasks = [(subject, expressions, takes, domain, seed, image_size, channels, one_sequence) for subject in subjects]
    images = np.empty((len(tasks), len(expressions) * takes, channels, image_size, image_size), np.uint8)
    rows = [None] * len(tasks)
    for index, (pictures, table) in engine.map(_render_subject, tasks, jobs=jobs, progress=progress):
        images[index], rows[index] = pictures, table
    table = pd.DataFrame([row for part in rows for row in part])
    return Faces(images=images.reshape(-1, *images.shape[2:]), table=table, origin="rendered")


def render_takes(subject, expression, domain, *, takes, shot_of, seed=0, image_size=64, channels=1):
    """The truth about a change of expression: several takes of it in the pose and light of one given picture.

    takes : ints, which takes. shot_of : (expression, take) of the given picture, for example ("neutral", 0).
    The other arguments are as in render_faces. Returns uint8 [takes, channels, image_size, image_size].
    """
    _check([subject], [expression], takes, domain, image_size)
    identity = draw_identity(subject, seed=seed)
    pictures = [_picture(identity, (subject, expression, take, domain, seed), image_size, shot_of=shot_of)[0]
                for take in takes]
    return to_channels(np.stack(pictures), channels)


def region_masks(subject, expression, take, domain, *, seed=0, image_size=64):
    """Where brows, eyes, nose and mouth are in a built-in picture, from its geometry.

    The arguments are as in render_image. Returns dict region -> bool [image_size, image_size].
    """
    _check([subject], [expression], [take], domain, image_size)
    identity = draw_identity(subject, seed=seed)
    face, shot = _draw(identity, (subject, expression, take, domain, seed))
    view, _ = see(identity, face, shot, image_size)
    side, masks = np.abs(view.x), {}
    for name, ((inner, outer), (low, high)) in REGIONS.items():
        inside = (view.z > 0.9) & (side >= inner) & (side <= outer) & (view.y >= low) & (view.y <= high)
        samples = np.zeros((image_size * SUPERSAMPLING) ** 2, bool)
        samples[view.pixel[inside | (view.material != BODY) & _near(view, name)]] = True
        masks[name] = samples.reshape(image_size, SUPERSAMPLING, image_size, SUPERSAMPLING).any((1, 3))
    return masks


def to_channels(images, channels):
    """uint8 [n, h, w, 3] to uint8 [n, channels, h, w]; grey by fixed integer weights."""
    if channels == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    parts = images.astype(np.uint32)
    grey = (LUMA[0] * parts[..., 0] + LUMA[1] * parts[..., 1] + LUMA[2] * parts[..., 2] + 128) >> 8
    return grey[:, None].astype(np.uint8)


def _render_subject(task):
    """All pictures of one subject: uint8 [n, channels, size, size] and their table rows."""
    subject, expressions, takes, domain, seed, image_size, channels, one_sequence = task
    identity, pictures, rows = draw_identity(subject, seed=seed), [], []
    shot_of, sequence = (("neutral", 0), {"sequence": "0"}) if one_sequence else (None, {})
    for expression in expressions:
        for take in range(takes):
            image, face = _picture(identity, (subject, expression, take, domain, seed), image_size, shot_of=shot_of)
            name = f"s{seed}-{subject:04d}"
            pictures.append(image)
            rows.append({"id": f"{domain}-{name}-{expression}-{take:02d}", "expression": expression,
                         "subject": name, "domain": domain, "take": take, "intensity": face.intensity, **sequence})
    return to_channels(np.stack(pictures), channels), rows


def _picture(identity, key, image_size, *, intensity=None, shot_of=None):
    """Draw, render and degrade one picture. Returns (uint8 [size, size, 3], Expression)."""
    face, shot = _draw(identity, key, intensity=intensity, shot_of=shot_of)
    image = render(identity, face, shot, image_size)
    return degrade(image, key[3], stream("degradation", *_shot_key(key, shot_of))), face


def _draw(identity, key, *, intensity=None, shot_of=None):
    """Expression and shot come from separate streams, so that either can be kept while the other changes."""
    _, expression, _, domain, _ = key
    face = draw_expression(expression, identity, domain, stream("expression", *key), intensity=intensity)
    return face, draw_shot(domain, stream("shot", *_shot_key(key, shot_of)))


def _shot_key(key, shot_of):
    subject, expression, take, domain, seed = key
    return (subject, *(shot_of or (expression, take)), domain, seed)


def _near(view, region):
    """Parts without skin that belong to a region: eyeballs, teeth and tongue."""
    eye = (view.material == LEFT_EYE) | (view.material == RIGHT_EYE)
    oral = (view.material >= UPPER_TEETH) & (view.material <= TONGUE)
    return {"eyes": eye, "mouth": oral}.get(region, np.zeros(len(eye), bool))


def _check(subjects, expressions, takes, domain, image_size):
    """Raise FerError unless every part of a picture's key is known and in range."""
    if domain not in DOMAINS:
        raise FerError(f"Built-in faces have no domain {domain!r}: known are {', '.join(DOMAINS)}.")
    for expression in expressions:
        if expression not in ALL_EXPRESSIONS:
            raise FerError(f"Built-in faces have no expression {expression!r}: "
                           f"known are {', '.join(ALL_EXPRESSIONS)}.")
    for name, numbers in (("subject", subjects), ("take", takes)):
        for number in numbers:
            if not isinstance(number, Integral) or number < 0:
                raise FerError(f"A {name} of the built-in faces is a whole number from 0, not {number!r}.")
    if not isinstance(image_size, Integral) or not SIZES[0] <= image_size <= SIZES[1]:
        raise FerError(f"Built-in faces are {SIZES[0]} to {SIZES[1]} pixels wide, not {image_size!r}.")
