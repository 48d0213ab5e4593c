"""Who is drawn: face shape, skin, brows, hair, and how strongly each facial action shows."""
from dataclasses import dataclass

import numpy as np

from fer_lib.rendering.head import BODY, DECIMALS, deform, load_head, smoothstep, stream, value_noise
from fer_lib.rendering.raster import vertex_normals

ANCESTRIES = ("african", "asian", "caucasian")
# Colours are display values in [0, 1], RGB.
SKIN_TONES = {
    "african": ((0.52, 0.36, 0.28), (0.42, 0.28, 0.21), (0.32, 0.21, 0.16), (0.62, 0.44, 0.34)),
    "asian": ((0.90, 0.75, 0.62), (0.83, 0.66, 0.52), (0.75, 0.57, 0.43)),
    "caucasian": ((0.93, 0.78, 0.70), (0.88, 0.70, 0.60), (0.80, 0.61, 0.50), (0.74, 0.55, 0.43)),
}
PALEST = (0.95, 0.83, 0.76)
HAIR_COLOURS = {
    "african": ((0.05, 0.045, 0.045), (0.08, 0.06, 0.05)),
    "asian": ((0.06, 0.05, 0.05), (0.12, 0.09, 0.08)),
    "caucasian": ((0.12, 0.09, 0.07), (0.30, 0.20, 0.12), (0.45, 0.32, 0.19),
                  (0.70, 0.56, 0.36), (0.45, 0.22, 0.12)),
}
IRIS_COLOURS = {
    "african": ((0.18, 0.11, 0.07), (0.24, 0.15, 0.09)),
    "asian": ((0.22, 0.13, 0.08), (0.28, 0.17, 0.10)),
    "caucasian": ((0.35, 0.22, 0.12), (0.30, 0.42, 0.55), (0.35, 0.45, 0.30),
                  (0.45, 0.35, 0.20), (0.45, 0.52, 0.58)),
}
# Opposite directions of one feature; a person gets one of the two.
OPPOSITES = (("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
             ("compress", "uncompress"))
# These move the head within the crop, change apparent age, or open gaps around the eyes.
UNUSED = ("head-trans", "neck-trans", "nose-trans-in", "mouth-trans-in", "eye-push", "head-scale", "head-age",
          "asym", "neck-scale-vert", "head-angle", "eye-scale", "head-back")
# Largest weight by feature; the last entry that matches a target's name counts.
LIMITS = (("nose", 0.55), ("mouth", 0.45), ("eye", 0.45), ("chin", 0.5), ("cheek", 0.55), ("head", 0.4),
          ("forehead", 0.5), ("ear", 0.5), ("neck", 0.35), ("eyebrows", 0.5), ("eye-trans", 0.25),
          ("eye-height", 0.4), ("eye-corner", 0.4), ("eyefold", 0.5), ("epicanthus", 0.5),
          ("mouth-trans", 0.4), ("nose-trans", 0.3), ("prognathism", 0.35), ("neck-", 0.3), ("eye-bag", 0.5),
          ("mouth-angles", 0.15), ("lowerlip-middle", 0.3), ("upperlip-middle", 0.3),
          ("lowerlip-ext", 0.3), ("upperlip-ext", 0.3),
          ("mouth-scale-vert", 0.4), ("jaw-drop", 0.3), ("nubian", 0.35), ("laugh", 0.5))
OUTLINES = ("head-diamond", "head-invertedtriangular", "head-oval", "head-rectangular", "head-round",
            "head-square", "head-triangular")
# The base mesh rests slightly sad; without this, neutral faces read as sadness.
REST = {"mouthSmileLeft": 0.14, "mouthSmileRight": 0.14, "browInnerUp": -0.12}


@dataclass(frozen=True)
class Person:
    """What the shape and the colours are drawn from. Ages and genders in [0, 1] (old, male)."""

    ancestry: dict
    main: str
    male: float
    old: float


@dataclass(frozen=True)
class Skin:
    """colour, lips : display RGB; offset : float32 [3], noise cells; the rest : strengths, about 0 to 1."""

    colour: np.ndarray
    lips: np.ndarray
    specular: float
    mottle: float
    blush: float
    socket: float
    freckles: float
    wrinkles: float
    relief: float
    lash: float
    offset: np.ndarray


@dataclass(frozen=True)
class Brows:
    """A curve in base-mesh decimetres: from inner to outer |x| at height; colour : display RGB."""

    colour: np.ndarray
    inner: float
    outer: float
    height: float
    tilt: float
    arch: float
    thickness: float
    density: float


@dataclass(frozen=True)
class Hair:
    """colour : display RGB; line, side, length : base-mesh heights of hairline, sideburn and lower end."""

    colour: np.ndarray
    line: float
    temple: float
    side: float
    volume: float
    bald: bool
    long: bool
    length: float
    beard: float


@dataclass(frozen=True)
class Identity:
    """One subject.

    vertices : float64 [vertices, 3], the resting face. eyes : float64 [2, 3], eye centres (left, right).
    style : dict action -> gain of this subject; strength : gain of all actions together.
    """

    vertices: np.ndarray
    eyes: np.ndarray
    skin: Skin
    brows: Brows
    hair: Hair
    iris: np.ndarray
    style: dict
    strength: float


def draw_identity(subject, *, seed=0):
    """The same person for the same (subject, seed), whatever else is drawn. Returns Identity."""
    rng = stream("identity", seed, subject)
    person = _draw_person(rng)
    vertices = deform(load_head().vertices, _shape_weights(person, rng) | REST)
    hair = _draw_hair(person, rng)
    skin, brows = _draw_skin(person, rng), _draw_brows(person, hair, rng)
    vertices = _raise_hair(vertices, hair, skin.offset)
    material = load_head().material
    eyes = np.stack([np.round(vertices[material == side].mean(0), DECIMALS) for side in (1, 2)])
    return Identity(vertices=vertices, eyes=eyes, skin=skin, brows=brows, hair=hair, style=_draw_style(rng),
                    iris=_colour(_choose(IRIS_COLOURS[person.main], rng) * np.exp(rng.normal(0, 0.15))),
                    strength=float(np.round(np.exp(rng.normal(0, 0.15)), 6)))


def _draw_person(rng):
    shares = rng.dirichlet([0.35, 0.35, 0.35])
    male = rng.beta(5, 1.2) if rng.random() < 0.5 else rng.beta(1.2, 5)
    return Person(ancestry=dict(zip(ANCESTRIES, shares)), main=ANCESTRIES[int(shares.argmax())],
                  male=float(male), old=float(np.clip(rng.beta(1.1, 2.2), 0, 0.95)))


def _shape_weights(person, rng):
    """dict target -> weight of a whole face: macro shape, local features, outline, asymmetry."""
    weights = _macro_weights(person, rng) | _local_weights(rng)
    weights[OUTLINES[rng.integers(len(OUTLINES))]] = rng.uniform(0, 0.6)
    for name in load_head().targets:
        if name.startswith("asym-") and rng.random() < 0.12:
            weights[name] = rng.uniform(0, 0.35)
    width = rng.normal(0, 0.15)
    weights["head-scale-horiz-" + ("incr" if width > 0 else "decr")] = abs(width)
    return weights


def _macro_weights(person, rng):
    """MakeHuman's macro targets: ancestry x gender x age, and gender x age x muscle x weight."""
    weights = {}
    muscle, weight = np.clip(rng.normal(0.5, [0.2, 0.24]), 0, 1)
    for gender, by_gender in (("male", person.male), ("female", 1 - person.male)):
        for age, by_age in (("young", 1 - person.old), ("old", person.old)):
            share = by_gender * by_age
            weights |= {f"{name}-{gender}-{age}": share * part for name, part in person.ancestry.items()}
            for m, by_muscle in _tent(muscle).items():
                for w, by_weight in _tent(weight).items():
                    weights[f"universal-{gender}-{age}-{m}muscle-{w}weight"] = share * by_muscle * by_weight
    return {name: value for name, value in weights.items() if name in load_head().targets}


def _tent(position):
    """Shares of min, average and max at a position in [0, 1]; they sum to 1."""
    return {"min": max(0, 1 - 2 * position), "average": 1 - abs(2 * position - 1),
            "max": max(0, 2 * position - 1)}


def _local_weights(rng):
    """Weights of the paired local features; left and right nearly alike."""
    weights, shared = {}, {}
    for low, high in _feature_pairs():
        feature = low[2:] if low[:2] in ("l-", "r-") else low
        limit = [value for key, value in LIMITS if key in feature][-1]
        if feature not in shared:
            shared[feature] = np.clip(rng.normal(0, limit * 0.55), -limit, limit) * (rng.random() < 0.6)
        value = shared[feature] + (rng.normal(0, 0.05) if feature != low else 0)
        weights[high if value > 0 else low] = abs(value)
    return weights


def _feature_pairs():
    """(low, high) names of opposite targets that identities use, in the order of the asset."""
    targets = load_head().targets
    for name in targets:
        for low, high in OPPOSITES:
            opposite = name[:-len(low)] + high
            if name.endswith("-" + low) and opposite in targets and not any(word in name for word in UNUSED):
                yield name, opposite


def _draw_skin(person, rng):
    light = person.main == "caucasian"
    tone = _choose(SKIN_TONES[person.main], rng)
    colour = np.clip(tone * np.exp(rng.normal(0, 0.05) + rng.normal(0, 0.02, 3)), 0.1, PALEST)
    lips = colour * (0.88, 0.72, 0.70) * np.exp(rng.normal(0, 0.06))
    if person.male < 0.5:
        lips = lips + rng.uniform(0, 0.09) * np.array([0.8, -0.6, -0.3])
    lash = rng.uniform(0.15, 0.4) if person.male > 0.5 else rng.uniform(0.35, 0.75)
    return Skin(colour=_colour(colour), lips=_colour(np.clip(lips, 0.05, 0.95)), lash=_value(lash),
                specular=_value(rng.uniform(0.1, 0.35)),
                mottle=_value(rng.uniform(0.10, 0.35) + 0.15 * person.old),
                blush=_value(rng.uniform(0, 0.6) * (person.main != "african")),
                socket=_value(rng.uniform(0.05, 0.35) + 0.15 * person.old),
                freckles=_value(rng.uniform(0.3, 0.8) * (light and rng.random() < 0.3)),
                wrinkles=_value(min(person.old * 0.9 + rng.uniform(0.1, 0.3), 1)),
                relief=_value(rng.uniform(0.04, 0.12) + 0.1 * person.old),
                offset=np.round(rng.uniform(0, 31, 3), 4).astype(np.float32))


def _draw_hair(person, rng):
    colour = np.clip(_choose(HAIR_COLOURS[person.main], rng) * np.exp(rng.normal(0, 0.15)), 0, 1)
    if person.old > 0.45:
        grey = min((person.old - 0.45) * 2.2 * rng.uniform(0.3, 1), 0.9)
        colour = colour * (1 - grey) + grey * np.array([0.62, 0.61, 0.60])
    man = person.male > 0.5
    bald = man and rng.random() < 0.08 + 0.15 * person.old
    return Hair(colour=_colour(colour), line=_value(rng.uniform(7.85, 8.15) + 0.1 * person.old * man),
                temple=_value(rng.uniform(0, 1) * (0.4 + 0.6 * man)), side=_value(rng.uniform(6.9, 7.3)),
                volume=0.0 if bald else _value(rng.uniform(0.02, 0.16)), bald=bool(bald),
                long=bool(not man and rng.random() < 0.6), length=_value(rng.uniform(5.2, 6.9)),
                beard=_value(rng.uniform(0.1, 0.85)) if man and rng.random() < 0.45 else 0.0)


def _draw_brows(person, hair, rng):
    thickness = rng.uniform(0.030, 0.052) if person.male > 0.5 else rng.uniform(0.018, 0.038)
    return Brows(colour=_colour(hair.colour * 0.6 * np.exp(rng.normal(0, 0.2)) + 0.02),
                 inner=_value(rng.uniform(0.09, 0.14)), outer=_value(rng.uniform(0.50, 0.57)),
                 height=_value(7.475 + rng.uniform(-0.015, 0.025)), tilt=_value(rng.uniform(-0.03, 0.03)),
                 arch=_value(rng.uniform(0, 0.06)), thickness=_value(thickness),
                 density=_value(rng.uniform(0.6, 1.3)))


def _draw_style(rng):
    """Gain of each action for one subject: sides tied, so that nobody smiles with one half only."""
    style = {}
    for action in load_head().actions:
        base = action.removesuffix("Left").removesuffix("Right")
        style.setdefault(base, rng.normal(0, 0.25))
        style[action] = style[base] + rng.normal(0, 0.07)
    return {action: _value(np.clip(np.exp(style[action]), 0.5, 1.6)) for action in load_head().actions}


def hair_cover(x, y, z, hair):
    """Share of scalp hair at base-mesh points, without fringe noise. Each float [n]. Returns float [n]."""
    side = np.abs(x)
    top = smoothstep(-0.1, 0.25, y - hair.line + 0.35 * smoothstep(0.3, 0.85, side) * hair.temple)
    return np.maximum(top, smoothstep(0.9, 0.5, z) * smoothstep(hair.side, hair.side + 0.3, y))


def _raise_hair(vertices, hair, offset):
    """Push the scalp out along its normals, so that hair has volume. Returns float64 [vertices, 3]."""
    head = load_head()
    x, y, z = head.vertices.T
    cover = hair_cover(x, y, z, hair) * (1 - head.masks["ears"]) * (head.material == BODY)
    noise = value_noise(*(head.vertices * 6 + offset).astype(np.float32).T)
    height = cover * hair.volume * (0.6 + 0.8 * noise.astype(np.float64))
    normals = vertex_normals(vertices, head.triangles["body"]).astype(np.float64)
    return np.round(vertices + height[:, None] * normals, DECIMALS)


def _choose(colours, rng):
    return np.array(colours[rng.integers(len(colours))])


def _colour(rgb):
    """Rounded, so that the last bit of exp() cannot reach a pixel."""
    return np.round(np.clip(rgb, 0, 1), 6)


def _value(number):
    return float(np.round(number, 6))
