"""What camera and storage do to a picture: blur, contrast, noise, and JPEG-like compression."""
import math

import numpy as np

from fer_lib.rendering.raster import gaussian_blur
from fer_lib.rendering.shot import resize

# Quantisation tables of ITU-T T.81 (JPEG), annex K: brightness and colour.
BRIGHTNESS_STEPS = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]])
COLOUR_STEPS = np.array([
    [17, 18, 24, 47, 99, 99, 99, 99], [18, 21, 26, 66, 99, 99, 99, 99], [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99]] + [[99] * 8] * 4)


def degrade(image, domain, rng):
    """Linear light to stored pixels. image : float32 [size, size, 3]; rng : numpy Generator of the shot.

    Returns uint8 [size, size, 3].
    """
    if domain == "lab":
        return _to_bytes(_display(image) + rng.normal(0, 0.008, image.shape))
    blur = abs(rng.normal(0, 0.3)) * len(image) / 64
    small, shrink = rng.random() < 0.15, rng.uniform(0.6, 0.9)
    contrast, brightness, noise = rng.uniform(0.85, 1.25), rng.normal(0, 0.04), rng.uniform(0.003, 0.02)
    quality = int(rng.integers(45, 95))
    if blur > 0.2:
        image = gaussian_blur(image, round(float(blur), 6))
    image = _display(image)
    if small:
        image = resize(resize(image, max(24, int(len(image) * shrink))), len(image))
    image = (image - 0.5) * round(float(contrast), 6) + 0.5 + round(float(brightness), 6)
    return compress(_to_bytes(image + rng.normal(0, noise, image.shape)), quality)


def compress(image, quality):
    """What JPEG storage does to a picture, without a JPEG library: its bytes would depend on the build.

    image : uint8 [size, size, 3]; quality : 1 (worst) to 100. Returns uint8 [size, size, 3].
    Source: ITU-T T.81, colour halved in both directions; entropy coding loses nothing and is left out.
    """
    size = len(image)
    margin = -size % 16
    planes = _to_ycc(np.pad(image, ((0, margin), (0, margin), (0, 0)), mode="edge").astype(np.float64))
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    for k, table in enumerate((BRIGHTNESS_STEPS, COLOUR_STEPS, COLOUR_STEPS)):
        steps = np.clip(np.floor((table * scale + 50) / 100), 1, 255)
        if k == 0:
            planes[k] = _quantise(planes[k], steps)
        else:
            planes[k] = _quantise(_halve(planes[k]), steps).repeat(2, 0).repeat(2, 1)
    return _to_rgb(planes)[:size, :size]


def _display(image):
    return np.sqrt(np.clip(image, 0, 1))


def _to_bytes(image):
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _halve(plane):
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4


def _quantise(plane, steps):
    """Round the cosine coefficients of 8 x 8 blocks to multiples of steps [8, 8]. plane : float64 [h, w]."""
    h, w = plane.shape
    blocks = plane.reshape(h // 8, 8, w // 8, 8).transpose(1, 3, 0, 2)          # [row, column, block, block]
    basis = _cosines()
    coefficients = _transform(_transform(blocks, basis, 0), basis, 1)
    steps = steps[:, :, None, None]
    coefficients = np.round(coefficients / steps) * steps
    blocks = _transform(_transform(coefficients, basis.T, 0), basis.T, 1)
    return blocks.transpose(2, 0, 3, 1).reshape(h, w)


def _cosines():
    """Orthonormal DCT-II, [frequency, sample], rounded so that every libm gives the same."""
    rows = [[math.sqrt((1 if k == 0 else 2) / 8) * math.cos(math.pi * (2 * n + 1) * k / 16) for n in range(8)]
            for k in range(8)]
    return np.round(rows, 12)


def _transform(blocks, basis, axis):
    """Apply basis [8, 8] along one of the first two axes, summed in a fixed order (no BLAS)."""
    parts = np.moveaxis(blocks, axis, 0)
    result = np.stack([sum(basis[k, n] * parts[n] for n in range(8)) for k in range(8)])
    return np.moveaxis(result, 0, axis)


def _to_ycc(image):
    r, g, b = np.moveaxis(image, 2, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return [y - 128, (b - y) * 0.564, (r - y) * 0.713]


def _to_rgb(planes):
    y, cb, cr = planes
    y = y + 128
    r, b = y + cr / 0.713, y + cb / 0.564
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    return np.clip(np.round(np.stack([r, g, b], 2)), 0, 255).astype(np.uint8)
