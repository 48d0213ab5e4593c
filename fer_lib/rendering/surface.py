"""Colour of every pixel of a face, in base-mesh coordinates: it follows every deformation."""
from dataclasses import dataclass

import numpy as np

from fer_lib.rendering.head import (BODY, HAIR, LEFT_EYE, LOWER_TEETH, RIGHT_EYE, TONGUE, UPPER_TEETH, bump,
                                    smoothstep, value_noise)

EYE_CENTRE = (0.31, 7.285)
CREASE_TINT = (0.55, 0.70, 0.75)         # how much of red, green, blue a full crease takes away
GLOSSY = 0.5                             # specular strength from which a surface is wet (eyes)


@dataclass
class Paint:
    """What is built up layer by layer, m pixels; float32.

    colour : [3, m] linear RGB; specular, occlusion : [m]; body : [m], 1 on skin;
    noise : three [m] arrays in [0, 1], coarse to fine; side : [m], |x|.
    """

    colour: np.ndarray
    specular: np.ndarray
    occlusion: np.ndarray
    body: np.ndarray
    noise: tuple
    side: np.ndarray

    def mix(self, weight, colour):
        """Cover with a linear colour, [3] or [3, m], by weight [m]."""
        self.colour += weight * (_column(colour) - self.colour)

    def darken(self, weight, shares):
        """Take away a share of red, green, blue, by weight [m]."""
        self.colour *= 1 - weight * _column(shares)


def linear(colour):
    """Display value to light. The display curve is the square root: exact in floating point everywhere."""
    return np.asarray(colour, np.float32) ** 2


def paint(view, identity, expression, gaze):
    """Colour a view. expression : its strengths deepen creases; gaze : iris offset (x, y). Returns Paint."""
    paint = _bare_skin(view, identity.skin)
    _flush(paint, view, identity.skin)
    _crease_brow(paint, view, identity.skin, expression)
    _crease_middle(paint, view, identity.skin, expression)
    lips = _paint_lips(paint, view, identity.skin)
    _paint_brows(paint, view, identity.brows, identity.skin.offset)
    if identity.hair.beard:
        _paint_beard(paint, view, identity.hair, lips)
    _paint_scalp(paint, view, identity.hair, identity.skin.offset)
    _paint_long_hair(paint, view, identity)
    for material, side in ((LEFT_EYE, 1), (RIGHT_EYE, -1)):
        _paint_eye(paint, view, view.material == material, side, identity.iris, gaze)
    _paint_teeth(paint, view)
    lashes = view.lashes * np.float32(identity.skin.lash)
    paint.colour *= 1 - lashes
    paint.specular *= 1 - lashes
    return paint


def _column(colour):
    colour = np.asarray(colour, np.float32)
    return colour[:, None] if colour.ndim == 1 else colour


def _bare_skin(view, skin):
    points = np.stack([view.x, view.y, view.z])
    noise = tuple(value_noise(*(points * np.float32(scale) + skin.offset[:, None])) for scale in (5, 19, 47))
    mottle = (noise[0] - 0.5) * 0.5 + (noise[1] - 0.5) * 0.45 + (noise[2] - 0.5) * 0.35
    colour = _column(linear(skin.colour)) * (1 + skin.mottle * mottle)
    return Paint(colour=colour, specular=np.full(len(view.x), skin.specular, np.float32), noise=noise,
                 occlusion=np.ones(len(view.x), np.float32), side=np.abs(view.x),
                 body=(view.material == BODY).astype(np.float32))


def _flush(paint, view, skin):
    """Red cheeks and nose, dark eye sockets, freckles."""
    side, y, z = paint.side, view.y, view.z
    cheek = bump(((side - 0.42) ** 2 + (y - 6.95) ** 2) * (1 / 0.03))
    nose = bump((side * side + (y - 6.93) ** 2) * (1 / 0.012)) * (z > 1.5)
    paint.darken((cheek + 0.8 * nose) * skin.blush, (0, 0.35, 0.3))
    socket = bump((side - 0.29) ** 2 * (1 / 0.03) + (y - 7.2) ** 2 * (1 / 0.006))
    paint.darken(socket * skin.socket, (0.7, 0.9, 0.8))
    if skin.freckles:
        spots = value_noise(*(np.stack([view.x, y, z]) * np.float32(30) + (skin.offset + 7)[:, None]))
        where = bump((side - 0.3) ** 2 * (1 / 0.06) + (y - 7.0) ** 2 * (1 / 0.04))
        paint.darken(smoothstep(0.74, 0.82, spots) * where * skin.freckles, (0.3, 0.45, 0.55))


def _crease(paint, distance, width, depth):
    """A dark line. distance : [m], signed, to the line; width : half width; depth : [m], 0 to 1."""
    paint.darken(bump((distance * (1 / width)) ** 2) * depth * paint.body, CREASE_TINT)


def _lines(position):
    """Distance to the nearest of a family of parallel lines, in line spacings."""
    return position - np.round(position)


def _depth(skin, rest, gain, strength):
    """How deep a crease is: age, and what the muscle does."""
    return min(max(skin.wrinkles * (rest + gain * strength), 0), 0.8)


def _crease_brow(paint, view, skin, expression):
    """Forehead (AU 1, 2), frown (AU 4) and nose root (AU 9)."""
    x, y, side = view.x, view.y, paint.side
    forehead = _depth(skin, 0.10, 1.1, expression.strength("browInnerUp", "browOuterUp"))
    if forehead > 0.03:
        where = smoothstep(7.56, 7.64, y) * smoothstep(7.98, 7.86, y) * smoothstep(0.5, 0.25, side)
        line = (y - 7.60 + 0.03 * (paint.noise[0] - 0.5) + 0.04 * x * x) * (1 / 0.085)
        _crease(paint, _lines(line), 0.17, forehead * where)
    where = smoothstep(7.36, 7.42, y) * smoothstep(7.6, 7.5, y)
    frown = _depth(skin, 0.05, 1.0, expression.strength("browDown"))
    _crease(paint, side - 0.055 - 0.02 * (y - 7.5), 0.012, frown * where)
    where = bump(side * side * (1 / 0.004) + (y - 7.25) ** 2 * (1 / 0.006))
    sneer = _depth(skin, 0.05, 1.0, expression.strength("noseSneer"))
    _crease(paint, _lines((y - 7.25) * (1 / 0.05)), 0.2, sneer * where)


def _crease_middle(paint, view, skin, expression):
    """Crow's feet (AU 6) and the fold from the nose around the mouth (AU 9, 10, 12)."""
    y, side = view.y, paint.side
    fan = (y - 7.27) / np.maximum(side - 0.42, 0.04)
    where = smoothstep(0.48, 0.53, side) * smoothstep(0.64, 0.58, side) * (np.abs(fan) < 1)
    feet = _depth(skin, 0.05, 0.9, expression.strength("cheekSquint"))
    _crease(paint, _lines(fan * (1 / 0.35)), 0.2, feet * where)
    raised = max(expression.strength("mouthSmile"), 0.8 * expression.strength("noseSneer"),
                 0.7 * expression.strength("mouthUpperUp"))
    fold = min(0.10 + 0.32 * skin.wrinkles + 0.5 * raised, 0.75) * 0.8
    down = np.clip((6.98 - y) * (1 / 0.46), 0, 1)          # 0 at the wing of the nose, 1 beside the mouth
    arc = 0.165 + 0.30 * down - 0.11 * down * down
    where = smoothstep(7.01, 6.90, y) * smoothstep(6.50, 6.74, y) * (view.z > 1.05)
    _crease(paint, side - arc, 0.016 + 0.012 * fold, fold * where)
    cheek = bump(((side - arc - 0.055) * (1 / 0.03)) ** 2)         # bulges beside the fold
    paint.colour *= 1 + 0.25 * fold * where * cheek


def _paint_lips(paint, view, skin):
    """Lips, and the dark inside of the mouth. Returns their joint weight [m], where no hair grows."""
    lips = smoothstep(0.25, 0.7, view.lips * paint.body)
    paint.mix(lips, _column(linear(skin.lips)) * (0.9 + 0.2 * paint.noise[1]))
    paint.specular += lips * 0.15
    inner = smoothstep(0.3, 0.7, view.mouth) * paint.body * (1 - lips)
    paint.mix(inner, linear((0.32, 0.12, 0.12)))
    paint.occlusion *= 1 - 0.93 * smoothstep(1.36, 1.05, view.z) * inner
    return np.maximum(lips, inner)


def _paint_brows(paint, view, brows, offset):
    x, y, z, side = view.x, view.y, view.z, paint.side
    along = (side - brows.inner) * (1 / (brows.outer - brows.inner))
    u = np.clip(along, 0, 1)
    middle = brows.height + brows.tilt * (u - 0.5) + brows.arch * (1 - ((u - 0.62) * (1 / 0.62)) ** 2)
    thickness = brows.thickness * (1 - 0.72 * smoothstep(0.35, 1, u)) * (0.6 + 0.4 * smoothstep(0, 0.12, u))
    across = np.abs((y - middle) / thickness)
    flow = np.sign(x)
    hairs = value_noise((x * 0.8 + flow * y * 1.6 * (0.2 + u)) * 38 + offset[0] + 3,
                        (y - x * flow * 0.3) * 16 + offset[1] + 3, z * 4 + offset[2] + 3)
    ends = smoothstep(-0.05, 0.06, along) * smoothstep(1.06, 0.9, along)
    where = bump(across * across * (0.4 + 0.6 * across)) * ends
    weight = np.clip(where * (z > 1) * paint.body * (0.55 + 0.9 * hairs) * brows.density, 0, 1)
    paint.mix(weight, linear(brows.colour))


def _paint_beard(paint, view, hair, lips):
    y, z, side = view.y, view.z, paint.side
    jaw = smoothstep(6.78, 6.62, y - 0.22 * smoothstep(0.25, 0.6, side)) * smoothstep(0, 0.1, z - 0.35)
    jaw = jaw * smoothstep(6.05, 6.2, y)
    moustache = bump((y - 6.80) ** 2 * (1 / 0.0035) + side * side * (1 / 0.06)) * (z > 1.3)
    stubble = hair.beard * (0.75 + 0.35 * paint.noise[2] + 0.15 * paint.noise[1])
    weight = np.clip(np.maximum(jaw, moustache) * stubble, 0, 0.9) * paint.body * (1 - lips)
    paint.mix(weight, linear(hair.colour) * np.float32(0.9))


def _paint_scalp(paint, view, hair, offset):
    x, y, z, side = view.x, view.y, view.z, paint.side
    fringe = value_noise(x * 9 + offset[0], y * 9 + offset[1], z * 9 + offset[2]) - 0.5
    line = hair.line - 0.35 * smoothstep(0.3, 0.85, side) * hair.temple + 0.10 * fringe
    burns = (side > 0.55) & (z < 0.95) & (y > hair.side + 0.05 * (paint.noise[1] - 0.5))
    cover = np.clip(smoothstep(-0.03, 0.05, y - line) + burns * smoothstep(0.98, 0.85, z), 0, 1)
    cover = cover * paint.body * (1 - smoothstep(0.3, 0.6, view.ears)) * (0.25 if hair.bald else 1)
    strands = value_noise(view.angle * 30 + offset[0], y * 4 + offset[1], z * 0 + offset[2]) * 0.7
    paint.mix(cover, _column(linear(hair.colour)) * (0.35 + 1.1 * (strands + 0.6 * paint.noise[2])))
    paint.specular += cover * (0.1 - paint.specular)


def _paint_long_hair(paint, view, identity):
    k = np.flatnonzero(view.material == HAIR)
    if len(k):
        offset = identity.skin.offset
        strands = value_noise(view.angle[k] * 40 + offset[0], view.y[k] * 2.5 + offset[1],
                              view.z[k] * 0 + offset[2])
        paint.colour[:, k] = _column(linear(identity.hair.colour)) * (0.3 + 1.2 * strands)
        paint.specular[k] = 0.12


def _paint_eye(paint, view, chosen, side, iris, gaze):
    """White, iris, pupil, and the shade of the upper lid. side : 1 left, -1 right."""
    k = np.flatnonzero(chosen)
    dx, dy = view.x[k] * side - EYE_CENTRE[0] - side * gaze[0], view.y[k] - EYE_CENTRE[1] - gaze[1]
    r = np.sqrt(dx * dx + dy * dy)
    colour = _column(linear((0.86, 0.83, 0.80))) * (1 - 0.25 * smoothstep(0.06, 0.14, r))
    ring = _column(linear(iris)) * (0.5 + 0.9 * smoothstep(0.056, 0.03, r))
    colour = colour + smoothstep(0.066, 0.056, r) * (ring - colour)
    paint.colour[:, k] = colour + smoothstep(0.030, 0.022, r) * (np.float32(0.004) - colour)
    paint.specular[k] = 0.9
    paint.occlusion[k] *= 1 - 0.55 * smoothstep(7.27, 7.37, view.y[k])


def _paint_teeth(paint, view):
    """Teeth and tongue get darker towards the throat."""
    for material, colour in ((UPPER_TEETH, (0.86, 0.83, 0.76)), (LOWER_TEETH, (0.80, 0.77, 0.70))):
        k = np.flatnonzero(view.material == material)
        gap = _lines(paint.side[k] * (1 / 0.075) - 0.03)
        paint.colour[:, k] = _column(linear(colour))
        paint.occlusion[k] *= 0.35 + 0.65 * smoothstep(1.15, 1.45, view.z[k])
        paint.occlusion[k] *= 1 - 0.25 * (np.abs(gap) < 0.03)
    k = np.flatnonzero(view.material == TONGUE)
    paint.colour[:, k] = _column(linear((0.62, 0.28, 0.27)))
    paint.occlusion[k] *= 0.15 + 0.6 * smoothstep(0.9, 1.35, view.z[k])
