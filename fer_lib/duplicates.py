"""Near-duplicate pictures: the same photograph posted twice, resaved, brightened, shifted or mirrored.

Faces that are cropped alike resemble one another, so a perceptual hash alone
takes different people for one. Two steps, therefore:

1. candidates: 64-bit DCT hashes at most `RADIUS` bits apart;
2. confirmation: correlation of what is particular to a picture. Its fine detail at
   32 x 32 pixels, from which the mean and the leading `COMPONENTS` principal
   components of all compared pictures (what faces have in common: eigenfaces) are
   removed, correlates with the other's by `CORRELATION` (or `LEAK`) or more at some shift.

The thresholds were set by looking at pairs of 48 pixels, on the same pictures that are quoted here.
In FER2013 (8,236 pictures) the correlations of candidates are rarest between 0.40 and 0.45; all 34 pairs
between 0.45 and 0.5 and 40 sampled between 0.5 and 0.65 looked like one photograph, and so did
most of the 23 just below: some repeats remain. Of 2,800 rendered frontal faces no two people exceed
0.57. A copy of one saved again as JPEG of quality 50 stays above 0.65 in 99 of 100 cases, one with
another contrast above 0.95; one shifted by a pixel does in only a third. The audit misses such copies.
Source: the hash is Zauner (2010), "Implementation and benchmarking of perceptual
image hash functions"; eigenfaces are Turk & Pentland (1991).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

RADIUS = 12  # bits of 64
CORRELATION = 0.45  # for removing: a mistake costs one picture
LEAK = 0.65  # for the audit, where a mistake stops a sound study; well above CORRELATION because what
#                         pictures have in common is learnt anew from every set, which moves a borderline pair
COMPONENTS = 48
SIDE = 32  # pixels to which pictures are reduced
SHIFT = 2  # of SIDE pixels, each way
DETAIL_SIGMA = 1.5  # of SIDE pixels: coarser structure is light and pose
FITTED = 2_000  # pictures, evenly spaced, from which the principal components are learnt
ROWS = 2_048  # of the table of distances at a time: bounds memory


@dataclass(frozen=True)
class Descriptors:
    """What pictures are compared by.

    hashes, mirrored_hashes : float32 [n, 64] of -1 and 1, of the pictures and of their mirror images.
    details : float32 [n, SIDE, SIDE], what is particular to each; zero for an even picture.
    """

    hashes: np.ndarray
    mirrored_hashes: np.ndarray
    details: np.ndarray


def describe(*sets):
    """`Descriptors` of each set (uint8 [n, C, H, W]); what faces share is learnt from all sets."""
    small = [_reduce(images) for images in sets]
    details = [_fine_detail(reduced) for reduced in small]
    mean, components = _shared(np.concatenate(details))
    return [
        Descriptors(_hash(reduced), _hash(reduced[:, :, ::-1]), _particular(detail, mean, components))
        for reduced, detail in zip(small, details, strict=True)
    ]


def find(a, b=None, *, radius=RADIUS, correlation=CORRELATION):
    """Near-duplicates between two described sets, or within one.

    a, b : Descriptors from one call of `describe`; without b, pairs within a.
    radius : bits in which hashes may differ; correlation : least correlation of details.
    Returns DataFrame, one row per pair: a, b (indices; a < b within one set), distance
    (bits), correlation, mirrored (bool), sorted by a and b.
    """
    within, b = b is None, a if b is None else b
    tables = [
        _matches(a, b.details, b.hashes, within=within, radius=radius, correlation=correlation),
        _matches(
            a, b.details[:, :, ::-1], b.mirrored_hashes, within=within, radius=radius, correlation=correlation
        ),
    ]
    found = pd.concat([table.assign(mirrored=bool(kind)) for kind, table in enumerate(tables)])
    found = found.sort_values(["a", "b", "correlation"], ascending=[True, True, False])
    return found.drop_duplicates(["a", "b"]).reset_index(drop=True)


def _reduce(images):
    """float32 [n, SIDE, SIDE] grey, by area."""
    small = np.empty((len(images), SIDE, SIDE), np.float32)
    for index, image in enumerate(images):
        grey = np.asarray(image).mean(axis=0, dtype=np.float32)
        small[index] = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small


def _hash(small):
    """Signs of the 8 x 8 lowest DCT coefficients about their median: float32 [n, 64]."""
    if not len(small):
        return np.empty((0, 64), np.float32)
    low = dctn(small, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(small), 64)
    return np.where(low > np.median(low, axis=1, keepdims=True), 1, -1).astype(np.float32)


def _fine_detail(small):
    """High-pass of each picture in units of its standard deviation, so that contrast does not count."""
    detail = small - gaussian_filter(small, (0, DETAIL_SIGMA, DETAIL_SIGMA))
    spread = detail.std(axis=(1, 2), keepdims=True)
    return np.where(spread > 0.1, detail / np.maximum(spread, 0.1), 0)


def _shared(details):
    """(mean [SIDE^2], components [k, SIDE^2]) of what the pictures have in common.

    Few pictures do not show what is common: their mean is drawn to zero and they give
    one component per 8, or else the two copies of a pair would themselves be "common".
    """
    flat = details.reshape(len(details), SIDE * SIDE)
    flat = flat[np.linspace(0, len(flat) - 1, min(FITTED, len(flat))).astype(int)]
    mean = flat.sum(axis=0) / (len(flat) + 8)
    centred = flat - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending eigenvalues
    count = min(COMPONENTS, len(flat) // 8)
    return mean, vectors[:, ::-1][:, :count].T


def _particular(details, mean, components):
    flat = details.reshape(len(details), SIDE * SIDE)
    even = ~flat.any(axis=1)
    flat = flat - mean
    flat -= (flat @ components.T) @ components
    flat[even] = 0  # or all even pictures would resemble one another
    return flat.reshape(details.shape).astype(np.float32)


def _matches(a, details_b, hashes_b, *, within, radius, correlation):
    pairs, distance = _candidates(a.hashes, hashes_b, within=within, radius=radius)
    score = _shifted_correlation(a.details, details_b, pairs)
    keep = score >= correlation
    return pd.DataFrame(
        {"a": pairs[keep, 0], "b": pairs[keep, 1], "distance": distance[keep], "correlation": score[keep]}
    )


def _candidates(hashes_a, hashes_b, *, within, radius):
    """(int [pairs, 2], int [pairs]): indices with hashes that differ in at most `radius` bits, how many."""
    pairs, distances = [], []
    for start in range(0, max(len(hashes_a), 1), ROWS):
        distance = (64 - hashes_a[start : start + ROWS] @ hashes_b.T) / 2  # of signs, by their product
        first, second = np.nonzero(distance <= radius)
        keep = (first + start < second) if within else np.ones(len(first), bool)
        pairs.append(np.stack([first[keep] + start, second[keep]], axis=1))
        distances.append(distance[first[keep], second[keep]].astype(int))
    return np.concatenate(pairs), np.concatenate(distances)


def _shifted_correlation(details_a, details_b, pairs):
    """float [pairs]: the highest correlation of a's middle with b's, over shifts of up to SHIFT pixels."""
    best = np.full(len(pairs), -1.0)
    offsets = range(-SHIFT, SHIFT + 1)
    for start in range(0, len(pairs), ROWS):
        first, second = details_a[pairs[start : start + ROWS, 0]], details_b[pairs[start : start + ROWS, 1]]
        middle = _window(first, 0, 0)
        scores = [np.einsum("ij,ij->i", middle, _window(second, dy, dx)) for dy in offsets for dx in offsets]
        best[start : start + ROWS] = np.max(scores, axis=0)
    return best


def _window(details, dy, dx):
    """The middle of each detail, moved by (dy, dx): rows of mean 0 and length 1 (0 where it is even)."""
    inner = SIDE - 2 * SHIFT - 2  # one pixel more off each side: blur's edge
    top, left = SHIFT + 1 + dy, SHIFT + 1 + dx
    flat = details[:, top : top + inner, left : left + inner].reshape(len(details), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)
