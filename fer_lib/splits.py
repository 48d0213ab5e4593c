"""Parts that share no subject and no picture, and the audit that proves it.

    faces, removed = splits.remove_near_duplicates(faces)        # where subjects are unknown
    parts = splits.split(faces, n_train_per_class=100, n_validation_per_class=30,
                         n_test_per_class=100, seed=0)
    report = splits.audit(parts)

`train` is the reserve from which the study draws real images, `validation` stops
training, `test` is looked at once, `pool` is what the two GANs learn from.
"""

from __future__ import annotations

import hashlib
import itertools
import logging

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from fer_lib import duplicates
from fer_lib.errors import FerError, LeakError
from fer_lib.labels import EXPRESSIONS

logger = logging.getLogger(__name__)


def split(faces, *, n_train_per_class, n_validation_per_class, n_test_per_class, seed, pool=True):
    """Divide faces into train, validation, test and pool.

    A subject is in exactly one part; a picture whose subject is unknown ("") stands for
    itself, so remove near-duplicates first. Train, validation and test get exactly the
    asked number of each of the six expressions and no neutral; subjects are drawn at
    random until they suffice, and what those have beyond that is used nowhere. All
    pictures of the other subjects, neutral included, are the pool.

    n_*_per_class : int >= 1, images per expression; seed : int, same seed, same parts.
    pool : False leaves the pool out, for a study whose GANs learn from another data set.
    Returns dict part -> Faces, in the order train, validation, test, pool.
    Raises FerError for a class with no image, too few images or subjects (naming the
    part and the remedy) and an expression of which nothing is left for the pool.
    """
    counts = {"train": n_train_per_class, "validation": n_validation_per_class, "test": n_test_per_class}
    expressions = faces.table["expression"].to_numpy(object)
    groups = _groups(faces.subjects)
    _check_totals(expressions, groups, counts, pool=pool)
    rng = np.random.default_rng(seed)
    free = rng.permutation(np.unique(groups))
    chosen = {}
    for part in ("test", "validation", "train"):  # the scarcest pictures go where the claim is measured
        taken = _draw_groups(free, groups, expressions, counts[part], part=part)
        free = free[~np.isin(free, taken)]
        chosen[part] = _draw_images(np.isin(groups, taken), expressions, counts[part], rng=rng)
    parts = {part: faces.select(chosen[part]) for part in counts}
    if pool:
        parts["pool"] = faces.select(_pool(np.isin(groups, free), expressions))
    return parts


def find_near_duplicates(faces):
    """Pairs of pictures that are the same one, posted or stored twice.

    Pictures of unknown subjects are compared with each other and with all others. Those of known subjects are not
    compared among themselves: several takes of one person look alike for a good reason, and a known
    subject is in one part anyway.
    Returns DataFrame, one row per pair: index_a, index_b, id_a, id_b, expression_a,
    expression_b, exact (the very same pixels), distance, correlation, mirrored (see `duplicates`).
    """
    unknown, known = (np.flatnonzero((faces.subjects == "") == wanted) for wanted in (True, False))
    sets = [unknown, known] if len(unknown) and len(known) else [unknown]
    described = duplicates.describe(*(faces.images[rows] for rows in sets))
    pairs = []
    for rows, other in zip(sets, (None, *described[1:])):
        near, exact = duplicates.find(described[0], other), _same_pixels(faces.images[unknown], faces.images[rows])
        exact = (exact[exact["a"] < exact["b"]] if other is None else exact).assign(
            distance=0, correlation=1.0, mirrored=False, exact=True)
        found = pd.concat([exact, near.assign(exact=False)]).drop_duplicates(["a", "b"])
        pairs.append(found.assign(a=unknown[found["a"]], b=rows[found["b"]]))
    pairs = pd.concat(pairs).sort_values(["a", "b"])
    columns = {"index_a": pairs["a"].to_numpy(), "index_b": pairs["b"].to_numpy()}
    for side in "ab":
        rows = faces.table.iloc[columns[f"index_{side}"]]
        columns |= {f"id_{side}": rows["id"].to_numpy(), f"expression_{side}": rows["expression"].to_numpy()}
    columns |= {name: pairs[name].to_numpy() for name in ("exact", "distance", "correlation", "mirrored")}
    return pd.DataFrame(columns)


def remove_near_duplicates(faces):
    """Keep one of each group of near-duplicates, of a known subject where there is one,
    or none where their labels disagree.

    Returns (Faces, notes): notes counts `pictures compared`, `groups of near-duplicates`, `repeats removed` (of a group
    with one label, all unknown subjects' but the first, and that too where it holds a known subject's) and
    `removed because labels disagree` (every member of a group with several: its expression is not known).
    What is compared says `find_near_duplicates`.
    """
    pairs = find_near_duplicates(faces)
    graph = csr_array((np.ones(len(pairs)), (pairs["index_a"], pairs["index_b"])), shape=(len(faces),) * 2)
    rows = pd.DataFrame({"group": connected_components(graph, directed=False)[1], "code": faces.codes,
                         "known": faces.subjects != ""})
    several = rows.groupby("group")["code"].transform("size") > 1
    disagree = rows.groupby("group")["code"].transform("nunique") > 1
    beside_known = rows.groupby("group")["known"].transform("any")
    repeats = (rows.duplicated("group") | beside_known) & ~rows["known"] & ~disagree
    notes = {
        "pictures compared": int((faces.subjects == "").sum()),
        "groups of near-duplicates": int(rows.loc[several, "group"].nunique()),
        "repeats removed": int(repeats.sum()),
        "removed because labels disagree": int(disagree.sum()),
    }
    return faces.select(~(repeats | disagree).to_numpy()), notes


def audit(parts):
    """Check that no two parts share a subject, a picture or a near-duplicate; stop if they do.

    parts : dict name -> Faces, for example train, validation, test, pool. All pairs are
        checked, except two test sets (names that begin with "test"): the same unseen
        people may be tested under two conditions.
    Returns DataFrame, one row per check and pair: check ("same subject", "same pixels",
    "near-duplicate"), part_a, part_b, n_a, n_b (subjects or pictures compared; 0 subjects
    where none is known), found (always 0).
    Raises LeakError that names parts, pictures and remedy when anything is found.
    """
    described = dict(zip(parts, duplicates.describe(*(part.images for part in parts.values())), strict=True))
    report, leaks = [], []
    for a, b in itertools.combinations(parts, 2):
        if a.startswith("test") and b.startswith("test"):
            continue
        for check, n_a, n_b, shared in _compare(parts[a], parts[b], described[a], described[b]):
            report.append(
                {"check": check, "part_a": a, "part_b": b, "n_a": n_a, "n_b": n_b, "found": len(shared)}
            )
            if shared:
                leaks.append(f"{a} and {b} share {_plural(len(shared), check)}, the first is {shared[0]}")
    if leaks:
        raise LeakError(
            f"{'; '.join(leaks)}: divide with splits.split, "
            "after splits.remove_near_duplicates where subjects are unknown; "
            "of a data set of the GANs' own leave out what they share."
        )
    return pd.DataFrame(report)


def _groups(subjects):
    """int64 [n]: equal where the subject is known and the same; unknown subjects differ from all others."""
    names = np.array([subject or f"\0{index}" for index, subject in enumerate(subjects)], dtype=object)
    return np.unique(names, return_inverse=True)[1]


def _check_totals(expressions, groups, counts, *, pool):
    for part, count in counts.items():
        if not isinstance(count, int | np.integer) or count < 1:
            raise FerError(f"n_{part}_per_class is {count!r}: ask for at least 1 image per expression.")
    needed = sum(counts.values()) + bool(pool)
    for name in EXPRESSIONS:
        found = int((expressions == name).sum())
        if found == 0:
            raise FerError(f"There is no image of {name}: every part needs all of {', '.join(EXPRESSIONS)}.")
        if found < needed:
            raise FerError(
                f"There are {found} images of {name} but the parts need {needed}: "
                "lower n_train_per_class, n_validation_per_class or n_test_per_class."
            )
    n_groups, n_parts = len(np.unique(groups)), len(counts) + bool(pool)
    if n_groups < n_parts:
        raise FerError(
            f"{_plural(n_groups, 'subject')} cannot be divided into {n_parts} parts that share none: "
            f"read faces of at least {n_parts} subjects."
        )


def _draw_groups(free, groups, expressions, count, *, part):
    """The first groups of `free`, an order, that hold `count` images of each expression between them."""
    held = {group: np.zeros(len(EXPRESSIONS), int) for group in free}
    for group, name in zip(groups, expressions, strict=True):
        if group in held and name in EXPRESSIONS:
            held[group][EXPRESSIONS.index(name)] += 1
    lacking, taken = np.full(len(EXPRESSIONS), count), []
    for group in free:
        if (held[group][lacking > 0] > 0).any():  # leaves those of no use here to the other parts
            taken.append(group)
            lacking -= held[group]
    if (lacking > 0).any():
        short = int(np.argmax(lacking))
        raise FerError(
            f"The part {part} needs {count} images of {EXPRESSIONS[short]} "
            f"but {count - lacking[short]} are left for it, of {_plural(len(free), 'subject')}: "
            f"lower n_{part}_per_class or read more subjects."
        )
    return np.array(taken)


def _draw_images(mask, expressions, count, *, rng):
    """Sorted indices: `count` of each expression, at random among those where mask is true."""
    drawn = [rng.permutation(np.flatnonzero(mask & (expressions == name)))[:count] for name in EXPRESSIONS]
    return np.sort(np.concatenate(drawn))


def _pool(mask, expressions):
    """Indices of the pool; FerError when it lacks one of the six, a warning when it lacks neutral."""
    missing = [name for name in EXPRESSIONS if not (mask & (expressions == name)).any()]
    if missing:
        raise FerError(
            f"Nothing of {', '.join(missing)} is left for the GANs' pool: "
            "lower n_train_per_class, n_validation_per_class or n_test_per_class."
        )
    if not (mask & (expressions == "neutral")).any():
        logger.warning("the GANs' pool has no neutral face")
    return np.flatnonzero(mask)


def _plural(number, noun):
    return f"{number} {noun}" + ("" if number == 1 or noun.endswith("s") else "s")


def _compare(faces_a, faces_b, described_a, described_b):
    """Yields (check, n_a, n_b, what is shared as text) for two parts."""
    subjects_a, subjects_b = set(faces_a.subjects) - {""}, set(faces_b.subjects) - {""}
    yield "same subject", len(subjects_a), len(subjects_b), sorted(subjects_a & subjects_b)
    ids_a, ids_b = faces_a.table["id"].to_numpy(), faces_b.table["id"].to_numpy()
    for check, pairs in (
        ("same pixels", _same_pixels(faces_a.images, faces_b.images)),
        ("near-duplicate", duplicates.find(described_a, described_b, correlation=duplicates.LEAK)),
    ):
        shared = [f"{ids_a[a]} = {ids_b[b]}" for a, b in zip(pairs["a"], pairs["b"], strict=True)]
        yield check, len(faces_a), len(faces_b), shared


def _same_pixels(images_a, images_b):
    """DataFrame a, b: indices of pictures with the same SHA-256 of their pixels."""
    hashes = [
        pd.DataFrame(
            {
                side: np.arange(len(images)),
                "hash": [hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for image in images],
            },
            dtype=object,
        )
        for side, images in (("a", images_a), ("b", images_b))
    ]
    return hashes[0].merge(hashes[1], on="hash")[["a", "b"]].astype(int)
