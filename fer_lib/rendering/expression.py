"""Which muscles move: an Ekman expression to facial actions, through FACS action units.

Source: action units after Ekman & Friesen, Facial Action Coding System (1978), and EMFACS.
"""
from dataclasses import dataclass

import numpy as np

# Action unit -> {facial action: gain}; a final * means Left and Right.
ACTION_UNITS = {
    "1": {"browInnerUp": 1}, "2": {"browOuterUp*": 1}, "4": {"browDown*": 1}, "5": {"eyeWide*": 1},
    "6": {"cheekSquint*": 1, "eyeSquint*": 0.25}, "7": {"eyeSquint*": 1},
    "9": {"noseSneer*": 1.1, "browDown*": 0.35, "cheekSquint*": 0.25},
    "10": {"mouthUpperUp*": 1, "noseSneer*": 0.25}, "12": {"mouthSmile*": 1}, "14": {"mouthDimple*": 1},
    "15": {"mouthFrown*": 1.15}, "16": {"mouthLowerDown*": 1},
    "17": {"mouthShrugLower": 1, "mouthShrugUpper": 0.3},
    "18": {"mouthPucker": 1}, "20": {"mouthStretch*": 1.2}, "22": {"mouthFunnel": 1},
    # mouthPress alone lifts the corners into a smile, hence the frown beside it.
    "23": {"mouthPress*": 0.35, "mouthFrown*": 0.4, "mouthRollLower": 0.45, "mouthRollUpper": 0.2},
    "24": {"mouthPress*": 0.4, "mouthFrown*": 0.35, "mouthRollLower": 0.5, "mouthRollUpper": 0.35},
    "25": {"mouthLowerDown*": 0.35, "mouthUpperUp*": 0.2, "jawOpen": 0.06}, "26": {"jawOpen": 0.45},
    "27": {"jawOpen": 0.95}, "28": {"mouthRollLower": 1}, "43": {"eyeBlink*": 1}, "63": {"eyeLookUp*": 1},
    "64": {"eyeLookDown*": 1},
}
# Expression -> variants: (probability, {core unit: probability}, {optional unit: probability}).
VARIANTS = {
    "anger": (
        (0.45, {"4": 0.95, "5": 0.5, "7": 0.8, "23": 0.85}, {"17": 0.3, "24": 0.3, "9": 0.12, "15": 0.12}),
        (0.30, {"4": 0.95, "7": 0.75, "10": 0.5, "25": 0.8, "26": 0.4},
         {"5": 0.4, "9": 0.3, "16": 0.3, "22": 0.2}),
        (0.25, {"4": 0.9, "7": 0.6, "24": 0.8, "17": 0.5}, {"5": 0.3, "15": 0.25})),
    "disgust": (
        (0.55, {"9": 0.95, "15": 0.4, "16": 0.45},
         {"4": 0.35, "7": 0.35, "17": 0.35, "10": 0.4, "25": 0.3, "6": 0.3}),
        (0.45, {"10": 0.9, "17": 0.5, "15": 0.4}, {"9": 0.5, "4": 0.35, "7": 0.4, "25": 0.35, "43": 0.08})),
    "fear": (
        (0.50, {"1": 0.9, "2": 0.75, "4": 0.6, "5": 0.9, "20": 0.8, "25": 0.7}, {"7": 0.3, "26": 0.3}),
        (0.30, {"1": 0.9, "2": 0.7, "5": 0.9, "26": 0.9, "20": 0.5}, {"4": 0.4, "7": 0.2}),
        (0.20, {"1": 0.8, "4": 0.7, "5": 0.7, "20": 0.8}, {"15": 0.15, "25": 0.3})),
    "happiness": (
        (0.55, {"6": 0.85, "12": 1, "25": 0.9}, {"26": 0.25, "10": 0.1, "1": 0.08, "2": 0.08, "7": 0.2}),
        (0.45, {"6": 0.75, "12": 1}, {"14": 0.25, "24": 0.06, "17": 0.06, "7": 0.15})),
    "sadness": (
        (0.60, {"1": 0.9, "4": 0.7, "15": 0.9}, {"17": 0.5, "43": 0.2, "64": 0.35, "7": 0.15, "24": 0.15}),
        (0.40, {"1": 0.75, "15": 0.7, "17": 0.6}, {"4": 0.4, "25": 0.2, "6": 0.2, "64": 0.4, "20": 0.1})),
    "surprise": (
        (0.70, {"1": 0.95, "2": 0.95, "5": 0.8, "26": 1}, {"25": 0.4}),
        (0.30, {"1": 0.9, "2": 0.9, "5": 0.7, "27": 0.8}, {})),
    "neutral": ((1.0, {}, {}),),
}
DISTRACTORS = ("1", "2", "4", "5", "6", "7", "10", "12", "14", "15", "17", "18", "20", "23", "25", "26",
               "28", "43")
# Lowest intensity drawn, mean number of unrelated actions / 2, asymmetry: a face shows less in the wild.
INTENSITY_FROM = {"lab": 0.7, "wild": 0.6}
DISTRACTION = {"lab": 0.15, "wild": 0.2}
ASYMMETRY = {"lab": 0.08, "wild": 0.1}
INTENSITY_TO = 1.1
DISTRACTOR_LIMIT = 0.2
STYLE = 0.5            # exponent of the subject's own gain per action
GAIN = 1.45            # actions as modelled are hard to see at 64 px
LIMIT = 1.15
AMPLIFIED = ("brow", "noseSneer", "mouthFrown", "mouthStretch", "mouthSmile", "cheekSquint", "eyeWide",
             "mouthUpperUp", "mouthLowerDown", "mouthPress")
CLOSED_MOUTH = ("mouthPressLeft", "mouthPressRight", "mouthRollUpper", "mouthRollLower", "mouthShrugLower",
                "mouthShrugUpper")


@dataclass(frozen=True)
class Expression:
    """weights : dict facial action -> weight (0 rest, about 1 full); intensity : what it was drawn with."""

    weights: dict
    intensity: float

    def strength(self, *actions):
        """The strongest of some actions, whichever side; 0 when none is active."""
        return max((value for name, value in self.weights.items() if name.startswith(actions)), default=0.0)


def draw_expression(name, identity, domain, rng, *, intensity=None):
    """One take of an expression by one subject.

    name : of VARIANTS; domain : "lab" or "wild"; rng : numpy Generator, advanced by the same draws
    whatever the intensity; intensity : 0 (rest) to 1 (full) and a little above, None draws one.
    Returns Expression.
    """
    drawn = rng.uniform(INTENSITY_FROM[domain], INTENSITY_TO)
    intensity = float(np.round(drawn, 6)) if intensity is None else float(intensity)
    units = _draw_units(name, domain, intensity, rng)
    weights = _actions(units, ASYMMETRY[domain], rng)
    for action, weight in weights.items():
        weight = min(max(weight * identity.style[action] ** STYLE * identity.strength, 0), LIMIT)
        weights[action] = min(weight * GAIN, LIMIT * GAIN) if action.startswith(AMPLIFIED) else weight
    _respect_anatomy(weights)
    weights = {action: round(float(weight), 6) for action, weight in weights.items()}
    return Expression(weights=weights, intensity=intensity if name != "neutral" else 0.0)


def _draw_units(name, domain, intensity, rng):
    """dict action unit -> strength: a variant's core and optional units, then unrelated ones."""
    variants = VARIANTS[name]
    _, core, optional = variants[rng.choice(len(variants), p=[variant[0] for variant in variants])]
    units = {}
    for chances, low, high in ((core, 0.6, 1.1), (optional, 0.25, 0.8)):
        for unit, chance in chances.items():
            active, strength = rng.random() < chance, rng.uniform(low, high)
            if active:
                units[unit] = intensity * strength
    if core and not units:
        units[next(iter(core))] = intensity
    for _ in range(rng.poisson(DISTRACTION[domain] * 2)):      # speech, habit, tension
        unit = DISTRACTORS[rng.integers(len(DISTRACTORS))]
        units[unit] = units.get(unit, 0) + rng.uniform(0.05, DISTRACTOR_LIMIT)
    return units


def _actions(units, asymmetry, rng):
    """Spread action units over facial actions, left and right a little unequal."""
    weights = {}
    for unit, strength in units.items():
        skew = rng.normal(0, asymmetry)
        for action, gain in ACTION_UNITS[unit].items():
            sides = (("Left", 1 + skew), ("Right", 1 - skew)) if action.endswith("*") else (("", 1),)
            for side, share in sides:
                key = action.rstrip("*") + side
                weights[key] = weights.get(key, 0) + strength * gain * share
    return weights


def _respect_anatomy(weights):
    """Limit, in place, what cannot happen together; the meshes would intersect."""
    def level(name):
        return min(weights.get(name, 0), 1)
    for side in ("Left", "Right"):
        if "browDown" + side in weights:
            room = 1.35 - 0.45 * level("noseSneer" + side) - 0.4 * level("browInnerUp")
            weights["browDown" + side] = min(weights["browDown" + side], room)
        blink = level("eyeBlink" + side)
        for action, fade in (("eyeWide", 1), ("eyeSquint", 0.7)):
            if action + side in weights:
                weights[action + side] *= 1 - fade * blink
        if blink:
            weights["eyeBlink" + side] = min(weights["eyeBlink" + side], 0.9)
    opening = weights.get("jawOpen", 0) - 0.15
    for action in CLOSED_MOUTH:
        if opening > 0 and action in weights:
            weights[action] *= max(0, 1 - 1.6 * opening)
