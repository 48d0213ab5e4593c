"""What each pixel shows: the head's layers drawn over one another, and their attributes per pixel."""
from dataclasses import dataclass

import numpy as np

from fer_lib.rendering.head import BODY, HAIR, LASH, load_head, value_noise
from fer_lib.rendering.raster import rasterise, vertex_normals

LASH_REACH = np.float32(0.02)     # lashes sit in the lid: let them win by this much depth


@dataclass(frozen=True)
class View:
    """The pixels that the head covers, m of them; all float32 but where said.

    pixel : int [m], index into the flat picture; material : int8 [m], head.BODY ... head.HAIR.
    x, y, z, angle, lips, mouth, ears : [m], base-mesh coordinates and masks, the same point of every face.
    normal, position : [3, m], in the scene. lashes : bool [m], an upper lash lies over the pixel.
    depth : [width * width], infinite where the ground shows.
    """

    pixel: np.ndarray
    material: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    angle: np.ndarray
    lips: np.ndarray
    mouth: np.ndarray
    ears: np.ndarray
    normal: np.ndarray
    position: np.ndarray
    lashes: np.ndarray
    depth: np.ndarray


class Canvas:
    """The nearest surface at each pixel so far: three vertices, their weights, depth."""

    def __init__(self, points, width):
        self.points, self.width = points, width
        self.corners = np.zeros((width * width, 3), np.int32)
        self.weights = np.zeros((width * width, 3), np.float32)
        self.depth = np.full(width * width, np.inf, np.float32)

    def draw(self, triangles, *, keep=None):
        """Draw triangles where they are nearest and where keep(pixels, corners, weights) agrees."""
        triangle, weights, depth = rasterise(self.points, triangles, self.width)
        pixel = np.flatnonzero(depth < self.depth)
        corners, weights = triangles[triangle[pixel]], weights[pixel]
        if keep is not None:
            kept = keep(pixel, corners, weights)
            pixel, corners, weights = pixel[kept], corners[kept], weights[kept]
        self.corners[pixel], self.weights[pixel], self.depth[pixel] = corners, weights, depth[pixel]


def interpolate(values, corners, weights):
    """Vertex attributes at pixels. values : float32 [vertices, k]. Returns float32 [k, pixels]."""
    total = values[corners[:, 0]] * weights[:, :1]
    for k in (1, 2):
        total += values[corners[:, k]] * weights[:, k:k + 1]
    return np.ascontiguousarray(total.T)


def look(positions, points, identity, width):
    """Draw the head.

    positions, points : float32 [vertices, 3], in the scene and on the picture (shot.place, shot.project).
    identity : decides whether there is long hair and where it is cut. Returns View.
    """
    head, canvas = load_head(), Canvas(points, width)
    canvas.draw(head.triangles["solid"])
    _draw_teeth(canvas, head)
    if identity.hair.long:
        _draw_long_hair(canvas, head, identity)
    pixel = np.flatnonzero(np.isfinite(canvas.depth))
    corners, weights = canvas.corners[pixel], canvas.weights[pixel]
    normals = _normals(positions, identity.hair.long)
    x, y, z, angle, lips, mouth, ears, *scene = interpolate(
        np.hstack([head.static, normals, positions]), corners, weights)
    material = head.material[corners[:, 0]]
    _, _, lash_depth = rasterise(points, head.triangles["lashes"], width, double_sided=True)
    return View(pixel=pixel, material=material, x=x, y=y, z=z, angle=angle, lips=lips, mouth=mouth, ears=ears,
                normal=_unit_towards_camera(np.stack(scene[:3]), material), position=np.stack(scene[3:]),
                lashes=(lash_depth < canvas.depth + LASH_REACH)[pixel], depth=canvas.depth)


def _normals(positions, long_hair):
    """The deformed mesh needs new normals; hair and head share no vertex."""
    parts = ("solid", "oral", "hair") if long_hair else ("solid", "oral")
    return vertex_normals(positions, np.concatenate([load_head().triangles[part] for part in parts]))


def _unit_towards_camera(normal, material):
    length = np.sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2])
    normal = normal / np.maximum(length, np.float32(1e-9))
    inside_out = ((material == HAIR) | (material == LASH)) & (normal[2] < 0)
    return np.where(inside_out, -normal, normal)


def _draw_teeth(canvas, head):
    """Teeth and tongue, only over the inside of the mouth: else they poke through the lips."""
    def over_inner_mouth(pixel, *_):
        corners, weights = canvas.corners[pixel], canvas.weights[pixel]
        inner = interpolate((head.masks["mouth"] * (1 - head.masks["lips"]))[:, None], corners, weights)[0]
        return (inner > 0.45) & (head.material[corners[:, 0]] == BODY) & np.isfinite(canvas.depth[pixel])
    canvas.draw(head.triangles["oral"], keep=over_inner_mouth)


def _draw_long_hair(canvas, head, identity):
    """The hull of the hair, outside then inside, cut open per pixel for the face and at its lower end."""
    hair, offset = identity.hair, identity.skin.offset

    def wave(y, angle):
        return 0.12 * (value_noise(angle * 9 + offset[0], y * 0.8 + offset[1], y * 0 + offset[2]) - 0.5)

    def hangs(_, corners, weights):
        y, angle = interpolate(head.static[:, [1, 3]], corners, weights)
        return y >= hair.length + 1.2 * wave(y, angle)

    def frames_the_face(_, corners, weights):
        x, y, z, angle = interpolate(head.static[:, :4], corners, weights)
        edge = wave(y, angle)
        window = (np.abs(x) < 0.66 + edge + 0.10 * np.clip(7.2 - y, 0, 1)) & (y < hair.line + 0.12 + edge)
        return ~(window & (z > 0.25)) & (y >= hair.length + 1.2 * edge)

    canvas.draw(head.triangles["hair"], keep=frames_the_face)
    # The inside of the hull lies behind the face: a window in it would show the ground.
    canvas.draw(np.ascontiguousarray(head.triangles["hair"][:, ::-1]), keep=hangs)
