"""The shipped head mesh: vertices, triangles, identity and expression targets (CC0, assets/LICENSE.md)."""
from dataclasses import dataclass
from functools import cache
import hashlib
from pathlib import Path

import numpy as np

BODY, LEFT_EYE, RIGHT_EYE, UPPER_TEETH, LOWER_TEETH, TONGUE, LASH, HAIR = range(8)
FACIAL_ACTIONS = 52          # the first targets of the file are the ARKit-style actions
UPPER_LID_HEIGHT = 7.285     # lower lashes look like bruises at this size and are left out
STRAND_MARGIN = 0.045        # decimetres that each side of a hair strip grows
DECIMALS = 5                 # vertices are rounded, so that the last bits of a sum cannot change a pixel


@dataclass(frozen=True)
class Head:
    """The base mesh. All heads share this topology, so base-mesh coordinates serve as texture coordinates.

    vertices : float64 [vertices, 3], decimetres; x to the head's left, y up, z forward.
    triangles : dict part -> int32 [triangles, 3] for the parts solid, body, oral, lashes, hair.
    material : int8 [vertices], BODY ... HAIR.
    targets : dict name -> (int [k], float64 [k, 3]), the vertices a target moves and by how much.
    actions : names of the 52 facial actions, such as browDownLeft.
    masks : dict of float32 [vertices] in [0, 1]: lips, mouth (its inside), ears.
    static : float32 [vertices, 7], what every pixel interpolates and no identity changes:
        x, y, z, angle about the vertical axis, lips, mouth, ears.
    """

    vertices: np.ndarray
    triangles: dict
    material: np.ndarray
    targets: dict
    actions: tuple
    masks: dict
    static: np.ndarray


@cache
def load_head():
    """Read the asset once per process. Returns Head."""
    with np.load(Path(__file__).parent / "assets" / "head.npz") as file:
        data = {name: file[name] for name in file.files}
    names = [str(name) for name in data["names"]]
    vertices = _widen_strands(data["V"].astype(np.float64), data["T"][data["tm"] == HAIR])
    masks = {short: data[f"mask_{long}"].astype(np.float32)
             for short, long in (("lips", "lips"), ("mouth", "inside_mouth"), ("ears", "ears"))}
    material = np.zeros(len(vertices), np.int8)
    for part in range(8):
        material[data["T"][data["tm"] == part]] = part
    angle = np.round(np.arctan2(vertices[:, 0], vertices[:, 2]), DECIMALS)
    static = np.column_stack([vertices, angle, masks["lips"], masks["mouth"], masks["ears"]])
    return Head(vertices=vertices, triangles=_parts(data["T"], data["tm"], vertices), material=material,
                targets=_sparse_targets(names, data["targets"]), actions=tuple(names[:FACIAL_ACTIONS]),
                masks=masks, static=static.astype(np.float32))


def _parts(triangles, material, vertices):
    """Triangles by the layer they are drawn in; int32 [triangles, 3] each."""
    upper_lash = vertices[triangles, 1].mean(1) > UPPER_LID_HEIGHT
    chosen = {"solid": material <= RIGHT_EYE, "body": material == BODY, "hair": material == HAIR,
              "oral": (material >= UPPER_TEETH) & (material <= TONGUE),
              "lashes": (material == LASH) & upper_lash}
    return {name: np.ascontiguousarray(triangles[rows], dtype=np.int32) for name, rows in chosen.items()}


def _widen_strands(vertices, triangles):
    """The hull of the hair is made of strips with gaps between them; let the strips overlap instead."""
    outwards = np.zeros_like(vertices)
    for corner in triangles.T:
        np.add.at(outwards, corner, vertices[corner] - vertices[triangles].mean(1))
    outwards[:, 1] = 0
    length = np.sqrt((outwards * outwards).sum(1, keepdims=True))
    return np.round(vertices + STRAND_MARGIN * outwards / np.maximum(length, 1e-9), DECIMALS)


def _sparse_targets(names, targets):
    """Targets move a seventh of the vertices on average: keep only those."""
    moved = [np.flatnonzero(target.any(1)) for target in targets]
    return {name: (rows, target[rows].astype(np.float64))
            for name, rows, target in zip(names, moved, targets)}


def deform(vertices, weights):
    """Add weighted targets to a mesh, in double precision and without BLAS.

    vertices : float [vertices, 3]; weights : dict target name -> float.
    Returns float64 [vertices, 3], rounded to 1e-5: the same numbers on every CPU.
    """
    head, moved = load_head(), np.array(vertices, np.float64)
    for name, weight in weights.items():
        rows, offsets = head.targets[name]
        moved[rows] += weight * offsets
    return np.round(moved, DECIMALS)


def stream(name, *key):
    """Random numbers that depend on a name and a key and on nothing else. Returns numpy Generator."""
    digest = hashlib.sha256(repr((f"fer_lib.rendering.{name}", *key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, "<u4").tolist())


@cache
def _noise_cells():
    """float32 [8, 32768]: the eight corner values of each cell of a periodic 32^3 lattice."""
    lattice = stream("lattice").random((32, 32, 32)).astype(np.float32)
    corners = [np.roll(lattice, (-i, -j, -k), (0, 1, 2)).ravel()
               for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    return np.stack(corners)


def value_noise(x, y, z):
    """Smooth periodic noise in [0, 1]. x, y, z : float32 [n], lattice cells. Returns float32 [n].

    Source: value noise on a lattice, Perlin (1985) without the gradients.
    """
    points = np.stack([x, y, z])
    cell = np.floor(points)
    t = points - cell
    t *= t * (3 - 2 * t)
    i, j, k = cell.astype(np.int32) & 31
    c = _noise_cells().take((i << 10) | (j << 5) | k, axis=1)
    c = c[:4] + (c[4:] - c[:4]) * t[0]
    c = c[:2] + (c[2:] - c[:2]) * t[1]
    return c[0] + (c[1] - c[0]) * t[2]


def smoothstep(low, high, x):
    """0 below low, 1 above high, smooth between; low > high falls instead. Returns x's shape."""
    t = np.clip((x - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def bump(squared):
    """About exp(-squared), from products only: the same bits on every CPU. squared : float [n], >= 0."""
    t = np.maximum(1 - squared * 0.125, 0)
    t = t * t
    t = t * t
    return t * t
