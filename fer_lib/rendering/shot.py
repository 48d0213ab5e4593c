"""How the picture is taken: camera, light and ground, before anybody stands in front of it."""
from dataclasses import dataclass
import math

import numpy as np

from fer_lib.rendering.head import DECIMALS
from fer_lib.rendering.raster import gaussian_blur

EYE_LEVEL = 0.385            # height of the eyes in the crop, from the top
EYE_SPACING = 0.62           # distance between the eyes in scene units
POSE = {"lab": 0.6, "wild": 0.55}
PIVOT = np.array([0, -0.75, -0.9])      # where the neck turns, from the point between the eyes
CENTRE = np.array([0, 0, -0.28])        # inside the head: half-way to it, turning does not shift the face


@dataclass(frozen=True)
class Light:
    """direction : unit float32 [3], to the light; colour : linear RGB; wrap : softness; shadow : 0 to 1."""

    direction: np.ndarray
    colour: np.ndarray
    wrap: float
    shadow: float


@dataclass(frozen=True)
class Blob:
    """A soft ellipse or box of the ground: centre, size in crop widths, display RGB, turn in radians."""

    centre: np.ndarray
    size: np.ndarray
    colour: np.ndarray
    turn: float
    box: bool


@dataclass(frozen=True)
class Ground:
    """What is behind the head. colour : display RGB; slope : [2, 3] change of it over height and width;
    texture : [9, 9, 3] in [0, 1]; blur in crop widths."""

    colour: np.ndarray
    slope: np.ndarray
    texture: np.ndarray
    blobs: tuple
    blur: float


@dataclass(frozen=True)
class Shot:
    """Angles in radians; eye_spacing : eye distance / crop width; shift : sideways, in crop widths;
    distance : camera to face, scene units; gaze : [2] offset of the iris."""

    yaw: float
    pitch: float
    roll: float
    eye_spacing: float
    shift: float
    eye_level: float
    distance: float
    lights: tuple
    ambient: np.ndarray
    exposure: float
    gaze: tuple
    ground: Ground


def draw_shot(domain, rng):
    """domain : "lab" (frontal, even light, plain ground) or "wild" (pose, light, clutter). Returns Shot."""
    return _draw_lab(rng) if domain == "lab" else _draw_wild(rng)


def _draw_lab(rng):
    pose, key = POSE["lab"], rng.uniform(0.55, 0.75)
    yaw, pitch, roll = rng.normal(0, [0.035, 0.035, 0.02]) * pose
    shift, level = rng.normal(0, 0.012, 2) * pose
    fill = [_light((side, 0.2, 0.7), np.full(3, 0.22)) for side in (-0.9, 0.9)]
    lamp = _light((rng.normal(0, 0.25), rng.normal(0.5, 0.1), 1), np.full(3, key), shadow=0.35)
    return Shot(yaw=_value(yaw), pitch=_value(pitch), roll=_value(roll), shift=_value(shift),
                eye_spacing=_value(rng.uniform(0.335, 0.365)), eye_level=_value(EYE_LEVEL + level),
                distance=_value(rng.uniform(8, 14)), lights=(lamp, *fill),
                ambient=_vector(np.full(3, rng.uniform(0.30, 0.42))),
                exposure=_value(np.exp(rng.normal(0, 0.06))),
                gaze=tuple(_vector(rng.normal(0, 0.006, 2)).tolist()),
                ground=_plain(np.clip(rng.uniform(0.35, 0.75) + rng.normal(0, 0.015, 3), 0, 1)))


def _draw_wild(rng):
    pose, warmth = POSE["wild"], rng.normal(0, 0.12)
    limit = np.array([0.75, 0.4, 0.35])
    yaw, pitch, roll = np.clip(rng.normal(0, [0.32, 0.16, 0.12]) * pose, -limit, limit)
    side, height = np.clip(rng.normal(0, 0.65), -1.3, 1.3), rng.uniform(-0.15, 1)
    lamp = _light((np.sin(side), np.sin(height), np.cos(side)), rng.uniform(0.45, 1.05) * _tint(warmth),
                  wrap=rng.uniform(0.5, 1.2), shadow=rng.uniform(0.3, 0.95))
    fill = _light((-np.sin(side), rng.uniform(-0.3, 0.4), 0.5),
                  np.full(3, rng.uniform(0.05, 0.4) * (1 - warmth / 2)))
    return Shot(yaw=_value(yaw), pitch=_value(pitch), roll=_value(roll), shift=_value(rng.normal(0, 0.02)),
                eye_spacing=_value(rng.uniform(0.30, 0.37) * np.cos(yaw) ** 0.6),
                eye_level=_value(EYE_LEVEL + rng.normal(0, 0.02)), distance=_value(rng.uniform(4.5, 12)),
                lights=(lamp, fill), ambient=_vector(rng.uniform(0.12, 0.45) * _tint(-0.4 * warmth)),
                exposure=_value(np.exp(rng.normal(-0.05, 0.2))),
                gaze=tuple(_vector(rng.normal(0, 0.014, 2)).tolist()), ground=_clutter(rng))


def _tint(warmth):
    return np.array([1 + warmth, 1, 1 - warmth])


def _light(direction, colour, *, wrap=1.0, shadow=0.0):
    direction = np.array(direction, np.float64)
    direction /= math.sqrt(float((direction * direction).sum()))
    return Light(direction=_vector(direction), colour=_vector(colour), wrap=_value(wrap),
                 shadow=_value(shadow))


def _plain(colour):
    return Ground(colour=_vector(colour), slope=np.zeros((2, 3), np.float32),
                  texture=np.full((9, 9, 3), 0.5, np.float32), blobs=(), blur=0.0)


def _clutter(rng):
    """Overlapping soft shapes of unrelated, mostly muted colours."""
    blobs = tuple(Blob(centre=_vector(rng.random(2)), size=_vector(rng.uniform(0.08, 0.5, 2)),
                       colour=_muted(rng), turn=_value(rng.uniform(0, np.pi)), box=bool(rng.integers(2)))
                  for _ in range(rng.integers(3, 12)))
    return Ground(colour=_muted(rng), slope=_vector(rng.normal(0, 0.12, (2, 3))), blobs=blobs,
                  texture=_vector(rng.random((9, 9, 3))), blur=_value(rng.uniform(0, 0.035)))


def _muted(rng):
    return _vector(np.clip(rng.uniform(0.05, 0.95) + rng.normal(0, 0.13, 3), 0, 1))


def draw_ground(ground, width):
    """Paint the ground at any size. Returns linear float32 [width, width, 3]."""
    y, x = np.mgrid[0:width, 0:width].astype(np.float32) / np.float32(width)
    image = ground.colour + ground.slope[0] * (y - 0.5)[..., None] + ground.slope[1] * (x - 0.5)[..., None]
    image = image + np.float32(0.12) * (resize(ground.texture, width) - np.float32(0.5))
    for blob in ground.blobs:
        cos, sin = (np.float32(round(f(blob.turn), 6)) for f in (math.cos, math.sin))
        u = ((x - blob.centre[0]) * cos + (y - blob.centre[1]) * sin) / blob.size[0]
        v = ((y - blob.centre[1]) * cos - (x - blob.centre[0]) * sin) / (blob.size[1] * np.float32(0.6))
        inside = np.maximum(np.abs(u), np.abs(v)) < 1 if blob.box else u * u + v * v < 1
        image[inside] = np.float32(0.35) * image[inside] + np.float32(0.65) * blob.colour
    image = np.clip(image, 0, 1)
    if ground.blur * width > 0.3:
        image = gaussian_blur(image, ground.blur * width)
    return image * image


def resize(image, width):
    """Bilinear, corners on corners. image : float32 [n, n, c]. Returns float32 [width, width, c]."""
    position = np.arange(width, dtype=np.float64) * ((len(image) - 1) / (width - 1))
    low = np.minimum(position.astype(int), len(image) - 2)
    t = (position - low).astype(np.float32)
    rows = image[low] + (image[low + 1] - image[low]) * t[:, None, None]
    return rows[:, low] + (rows[:, low + 1] - rows[:, low]) * t[None, :, None]


def place(vertices, eyes, shot):
    """Put a head in front of the camera.

    vertices : float64 [vertices, 3]; eyes : float64 [2, 3], the resting eye centres, so that an
    expression moves neither the head nor the ground.
    Returns float32 [vertices, 3], scene units; the eyes are at height and depth 0.
    """
    middle, gap = (eyes[0] + eyes[1]) / 2, eyes[0] - eyes[1]
    scale = EYE_SPACING / math.sqrt(float((gap * gap).sum()))
    centre = _turn((eyes - middle) * scale - PIVOT, shot) + PIVOT
    inner = _turn((CENTRE - PIVOT)[None], shot)[0] + PIVOT
    eye_point = (centre[0] + centre[1]) / 2
    origin = np.array([(eye_point[0] + inner[0]) / 2, eye_point[1], eye_point[2]])
    placed = _turn((vertices - middle) * scale - PIVOT, shot) + PIVOT - origin
    return np.round(placed, DECIMALS).astype(np.float32)


def _turn(points, shot):
    """Roll after yaw after pitch, written out: a matrix product would depend on the BLAS. points : [n, 3]."""
    x, y, z = points.T
    c, s = math.cos(shot.pitch), math.sin(shot.pitch)
    y, z = c * y - s * z, s * y + c * z
    c, s = math.cos(shot.yaw), math.sin(shot.yaw)
    x, z = c * x + s * z, c * z - s * x
    c, s = math.cos(shot.roll), math.sin(shot.roll)
    return np.stack([c * x - s * y, s * x + c * y, z], 1)


def project(positions, shot, width):
    """Perspective projection of placed points. Returns float32 [vertices, 3]: pixel x, pixel y, depth."""
    x, y, z = positions.T
    scale = np.float32(shot.distance * shot.eye_spacing / EYE_SPACING) / (np.float32(shot.distance) - z)
    px = (x * scale + np.float32(0.5 + shot.shift)) * np.float32(width)
    py = (np.float32(shot.eye_level) - y * scale) * np.float32(width)
    return np.stack([px, py, -z], 1)


def _value(number):
    return float(np.round(number, 6))


def _vector(numbers):
    """Rounded, so that the last bit of sin() or exp() cannot reach a pixel."""
    return np.round(numbers, 6).astype(np.float32)
