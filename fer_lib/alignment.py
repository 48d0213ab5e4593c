"""Find a face in an uncropped picture and turn, scale and crop it by its eyes, offline.

Detection uses the Haar cascades that come with OpenCV below version 5
(Viola & Jones 2001); nothing is downloaded. Aligned faces have their eyes level,
`EYE_DISTANCE` of the width apart and `EYE_HEIGHT` of the height below the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fer_lib.errors import FerError

EYE_DISTANCE = 0.35
"""Between the centres of the eyes, as a fraction of the crop's width."""
EYE_HEIGHT = 0.385
"""From the crop's top to the eyes, as a fraction of its height."""

FACE_CASCADE = "haarcascade_frontalface_alt2.xml"
EYE_CASCADE = "haarcascade_eye.xml"
DETECTION_SIDE = 320
"""Longer side in pixels to which a picture is resized before a face is looked for."""
CROP_SIDE = 144
"""Side in pixels to which a cropped face is enlarged before it is looked for in its crop."""
EYE_SEARCH_SIDE = 160
"""Side in pixels to which a face is resized before its eyes are looked for."""


def centre_square(image, image_size):
    """The central square of a Pillow image at image_size x image_size, antialiased; as it is if that size."""
    if image.size == (image_size, image_size):
        return image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize(
        (image_size, image_size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )


@dataclass(frozen=True)
class Detectors:
    """The cascades that find a face and, in it, the eyes. Not to be shared between threads."""

    face: cv2.CascadeClassifier
    eyes: cv2.CascadeClassifier


def load_detectors():
    """The detectors that come with OpenCV; FerError where it has none (OpenCV 5)."""
    folder = Path(getattr(getattr(cv2, "data", None), "haarcascades", ""))
    if not hasattr(cv2, "CascadeClassifier") or not (folder / FACE_CASCADE).is_file():
        raise FerError(
            f"OpenCV {cv2.__version__} has no face cascades: install opencv-python-headless>=4.10,<5, "
            "or set align to False for pictures that are cropped already."
        )
    return Detectors(
        cv2.CascadeClassifier(str(folder / FACE_CASCADE)), cv2.CascadeClassifier(str(folder / EYE_CASCADE))
    )


def align(images, *, image_size, detectors=None):
    """Align several pictures of any sizes.

    images : sequence of uint8 [H, W] or [H, W, 3]. Returns (list of crops as in `align_image`,
        list of str found).
    """
    detectors = detectors or load_detectors()
    aligned = [align_image(image, image_size=image_size, detectors=detectors) for image in images]
    return [crop for crop, _ in aligned], [found for _, found in aligned]


def align_image(image, *, image_size, detectors):
    """The largest face of a picture, upright and scaled by its eyes.

    image : uint8 [H, W] or [H, W, 3]; image_size : side S of the crop in pixels.
    Returns (uint8 [S, S] or [S, S, 3], found): found is "eyes" where both eyes were seen;
    "face" where only the face was, whose eyes are then taken to be at the usual place
    and level; "none" where no face was, and the crop is the central square.
    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    box = find_face(grey, detectors)
    if box is None:
        return np.asarray(centre_square(Image.fromarray(image), image_size)), "none"
    eyes = find_eyes(grey, box, detectors)
    found = "face" if eyes is None else "eyes"
    return crop_by_eyes(image, *(usual_eyes(box) if eyes is None else eyes), image_size=image_size), found


def find_face(grey, detectors):
    """(x, y, side) in pixels of the largest face in a grey picture uint8 [H, W], or None."""
    # No histogram equalisation: with it, dark-skinned faces on a light ground were missed.
    scale = DETECTION_SIDE / max(grey.shape)  # small pictures are enlarged: the cascade needs 24 pixels
    resized = cv2.resize(
        grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    boxes = detectors.face.detectMultiScale(resized, 1.1, 3, minSize=(60, 60))
    if len(boxes) == 0:
        return None
    x, y, side, _ = max(boxes, key=lambda box: (box[2], -box[0], -box[1]))
    return x / scale, y / scale, side / scale


def shows_face(images):
    """In which pictures that are cropped to a face, or should be, the detector finds one: bool [n].

    images : uint8 [n, C, H, W]. A face counts that is seen from the front and at least half as wide as the picture.
    Around each picture a quarter of it is mirrored, as the detector knows faces with what surrounds them.
    Raises FerError as `load_detectors`.
    """
    cascade, margin = load_detectors().face, CROP_SIDE // 4
    found = np.zeros(len(images), bool)
    for index, image in enumerate(images):
        grey = image[0] if len(image) == 1 else cv2.cvtColor(np.moveaxis(image, 0, 2), cv2.COLOR_RGB2GRAY)
        large = cv2.resize(grey, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_CUBIC)
        large = cv2.copyMakeBorder(large, margin, margin, margin, margin, cv2.BORDER_REFLECT)
        found[index] = len(cascade.detectMultiScale(large, 1.05, 4, minSize=(CROP_SIDE // 2, CROP_SIDE // 2))) > 0
    return found


def find_eyes(grey, box, detectors):
    """Centres ((x, y), (x, y)) of the eyes on the picture's left and right in a face's box, or None.

    One eye is looked for in each upper quarter of the box; a pair that is too near,
    too far apart or too steep for a face is dismissed.
    """
    x, y, side = box
    scale = EYE_SEARCH_SIDE / side
    face = crop_square(grey, x, y, side, EYE_SEARCH_SIDE)
    top, bottom = round(0.18 * EYE_SEARCH_SIDE), round(0.58 * EYE_SEARCH_SIDE)
    centres = []
    for left in (0, EYE_SEARCH_SIDE // 2):
        quarter = face[top:bottom, left : left + EYE_SEARCH_SIDE // 2]
        boxes = detectors.eyes.detectMultiScale(quarter, 1.05, 4, minSize=(EYE_SEARCH_SIDE // 9,) * 2)
        if len(boxes) == 0:
            return None
        eye_x, eye_y, eye_side, _ = max(boxes, key=lambda box: (box[2], -box[0], -box[1]))
        centres.append((x + (left + eye_x + eye_side / 2) / scale, y + (top + eye_y + eye_side / 2) / scale))
    (x0, y0), (x1, y1) = centres
    plausible = 0.25 * side < x1 - x0 < 0.6 * side and abs(y1 - y0) < 0.5 * (x1 - x0)
    return tuple(centres) if plausible else None


def usual_eyes(box):
    """Where the eyes are in a face's box on average, as `find_eyes` returns them."""
    x, y, side = box
    return (x + 0.315 * side, y + 0.405 * side), (x + 0.685 * side, y + 0.405 * side)


def crop_by_eyes(image, left_eye, right_eye, *, image_size):
    """Turn, scale and crop so that the eyes lie level at their place; antialiased.

    image : uint8 [H, W] or [H, W, 3]; left_eye, right_eye : (x, y) in pixels, left on the
        picture. What lies outside the picture repeats its edge.
    Returns uint8 [S, S] or [S, S, 3].
    """
    (x0, y0), (x1, y1) = left_eye, right_eye
    distance = np.hypot(x1 - x0, y1 - y0)
    native = max(image_size, int(np.ceil(distance / EYE_DISTANCE)))  # turned at full size, then reduced
    zoom = native * EYE_DISTANCE / distance
    turn = cv2.getRotationMatrix2D(
        ((x0 + x1) / 2, (y0 + y1) / 2), np.degrees(np.arctan2(y1 - y0, x1 - x0)), zoom
    )
    turn[:, 2] += (native - 1) / 2 - (x0 + x1) / 2, EYE_HEIGHT * (native - 1) - (y0 + y1) / 2
    crop = cv2.warpAffine(
        image, turn, (native, native), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(centre_square(Image.fromarray(crop), image_size))


def crop_square(grey, x, y, side, size):
    """The square at (x, y) of `side` pixels, resized to size x size: uint8; edges are repeated."""
    zoom = size / side
    matrix = np.array([[zoom, 0, -x * zoom], [0, zoom, -y * zoom]])
    return cv2.warpAffine(grey, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
