"""Names, codes and orders of the expressions, for every data set that is read.

One canonical name per expression is used everywhere in the compendium; what a
data set calls it (`angry`, `AN`, `0`, the misspelt `angery`) is translated once,
by `expression`, when the data set is read.
"""

from __future__ import annotations

from numbers import Real

import numpy as np

from fer_lib.errors import FerError

EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""The six expressions of Ekman that are classified, in code order 0..5."""

ALL_EXPRESSIONS = EXPRESSIONS + ("neutral",)
"""The seven labels of the expression GAN; neutral has code 6."""

LEFT_OUT = ("contempt", "none", "uncertain", "no_face")
"""Labels some data sets carry that are none of the seven: readers leave them out and count them."""

NAMES = {
    # `angery` is how one folder of the paper's authors is spelt; two letters are KDEF's and JAFFE's codes.
    "anger": ("anger", "angry", "angery", "an"),
    "disgust": ("disgust", "disgusted", "di"),
    "fear": ("fear", "fearful", "afraid", "fe", "af"),
    "happiness": ("happiness", "happy", "joy", "ha"),
    "sadness": ("sadness", "sad", "sa"),
    "surprise": ("surprise", "surprised", "su"),
    "neutral": ("neutral", "neutrality", "ne"),
    "contempt": ("contempt", "contemptuous"),
    "none": ("none",),
    "uncertain": ("uncertain",),
    "no_face": ("no_face", "no-face", "non-face"),
}
"""Canonical name -> every spelling that published data sets use, in lower case."""

ORDERS = {
    "study": dict(enumerate(ALL_EXPRESSIONS)),
    "fer2013": dict(enumerate(("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"))),
    "raf_db": dict(
        enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), start=1)
    ),
    "ck_plus": dict(
        enumerate(("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"))
    ),
    "affectnet": dict(
        enumerate(
            (
                "neutral",
                "happiness",
                "sadness",
                "surprise",
                "fear",
                "disgust",
                "anger",
                "contempt",
                "none",
                "uncertain",
                "no_face",
            )
        )
    ),
    "oulu_casia": dict(enumerate(EXPRESSIONS, start=1)),
    # The folders of the authors' StarGAN in alphabetical order, which is how torchvision numbers them.
    "stargan": dict(enumerate(("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"))),
}
"""Data set -> {its number: canonical name}. The same number means different things in different sets."""

_CANONICAL = {spelling: name for name, spellings in NAMES.items() for spelling in spellings}


def expression(name_or_code, dataset=None):
    """The canonical name of an expression that a data set calls `name_or_code`.

    name_or_code : str or number. Names are matched without regard to case and
        surrounding blanks; a number (also as text, "3" or "3.0e+00") needs `dataset`.
    dataset : key of `ORDERS` whose numbering applies, or None.
    Returns a member of `ALL_EXPRESSIONS`, or of `LEFT_OUT` where the label is
    known but none of the seven (contempt): readers leave such images out and count them.
    Raises FerError for an unknown label, listing the known ones.
    """
    if dataset is not None and dataset not in ORDERS:
        raise FerError(f"unknown data set {dataset!r} for expression numbers; known: {', '.join(ORDERS)}")
    number = _whole_number(name_or_code)
    if number is not None:
        return _from_number(number, dataset)
    is_text = isinstance(name_or_code, str)
    name = _CANONICAL.get(name_or_code.strip().lower()) if is_text else None
    if name is None:
        known = "; ".join(
            f"{name} ({', '.join(spellings[1:])})" if spellings[1:] else name
            for name, spellings in NAMES.items()
        )
        raise FerError(f"unknown expression {name_or_code!r}; known names: {known}")
    return name


def code(name):
    """The integer code 0..6 of a canonical name; FerError for any other name."""
    if name not in ALL_EXPRESSIONS:
        raise FerError(f"{name!r} is not one of the seven expressions: {', '.join(ALL_EXPRESSIONS)}")
    return ALL_EXPRESSIONS.index(name)


def codes(names):
    """The codes of many canonical names: int64 [n] for a sequence of n str."""
    lookup = {name: code(name) for name in set(names)}
    return np.array([lookup[name] for name in names], dtype=np.int64)


def _from_number(number, dataset):
    if dataset is None:
        raise FerError(
            f"expression number {number} means different things in different data sets; "
            f"say which numbering applies: {', '.join(ORDERS)}"
        )
    order = ORDERS[dataset]
    if number not in order:
        known = ", ".join(f"{key} {name}" for key, name in order.items())
        raise FerError(f"unknown expression number {number} for {dataset}; known: {known}")
    return order[number]


def _whole_number(value):
    """`value` as int where it is, or spells, a whole number; None otherwise."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None
