"""The faces of a study: read or rendered, split into parts, audited and kept.

A new data set is one reader in `readers`; everything else here serves all of them.
"""

import json
import logging
from pathlib import Path

import pandas as pd

from fer_lib import readers, rendering, splits
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS

BUILT_IN = "built-in"
TESTS = ("test", "test_lab", "test_wild")
FIRST_OF_POOL = 100_000  # number of the pool's first built-in subject; the other parts may grow below it
FIRST_OF_SEQUENCES = 200_000  # and of the first one who was recorded in sequences

log = logging.getLogger(__name__)


def prepare(folder, *, dataset, data_root, pool_dataset, pool_root, image_size, channels, n_train_per_class,
            n_validation_per_class, n_test_per_class, takes_per_subject, n_pool_subjects, pool_takes, align, seed,
            n_sequence_subjects=0):
    """Make the parts of a study and write them into `folder`, one sub-folder a part, with the audit.

    dataset : "built-in", or a key of readers.READERS, read at `data_root`.
    pool_dataset, pool_root : a data set of its own for the GANs; "" takes what `dataset` has left.
    n_*_per_class : images per expression of train, validation and each test part.
    takes_per_subject, n_pool_subjects, pool_takes, n_sequence_subjects : size of the built-in faces.
    align : detect each face and align it by its eyes. Other arguments as in readers.read.
    Returns nothing; `load` reads what was written.
    Raises FerError for bad input, and LeakError when parts share a subject or a picture.
    """
    if n_sequence_subjects and (dataset != BUILT_IN or pool_dataset):
        raise FerError("Sequences can be rendered for the GANs of built-in faces alone: set n_sequence_subjects to 0 "
                       f"for {pool_dataset or dataset!r}.")
    size = {"image_size": image_size, "channels": channels}
    counts = {"n_train_per_class": n_train_per_class, "n_validation_per_class": n_validation_per_class,
              "n_test_per_class": n_test_per_class}
    if dataset == BUILT_IN:
        parts, notes = rendered_parts(**size, **counts, takes_per_subject=takes_per_subject, seed=seed,
                                      n_pool_subjects=0 if pool_dataset else n_pool_subjects, pool_takes=pool_takes,
                                      n_sequence_subjects=n_sequence_subjects)
    else:
        parts, notes = read_parts(dataset, data_root, **size, **counts, align=align, seed=seed,
                                  pool=not pool_dataset)
    if pool_dataset:
        parts["pool"], pool_notes = _read(pool_dataset, pool_root, **size, align=align)
        notes |= {f"pool: {name}": count for name, count in pool_notes.items()}
    checked = splits.audit(parts)
    for name, part in parts.items():
        part.save(Path(folder) / name)
    checked.to_csv(Path(folder) / "audit.csv", index=False)
    (Path(folder) / "left_out.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def rendered_parts(*, image_size, channels, n_train_per_class, n_validation_per_class, n_test_per_class,
                   takes_per_subject, n_pool_subjects, pool_takes, seed, n_sequence_subjects=0):
    """Built-in faces: train, validation, test_lab, test_wild (the subjects of test_lab), pool, and sequences if wanted.

    Subjects are numbered through the parts, so that no two parts share one; those of the pool and of the sequences have
    numbers of their own, so that the GANs' people stay the same whatever the size of the other parts. In `sequences`
    all pictures of a person have one pose and light.
    Returns (dict part -> Faces, notes).
    """
    plan = {"train": (n_train_per_class, EXPRESSIONS), "validation": (n_validation_per_class, EXPRESSIONS),
            "test_lab": (n_test_per_class, EXPRESSIONS), "pool": (n_pool_subjects * pool_takes, ALL_EXPRESSIONS)}
    options = {"seed": seed, "image_size": image_size, "channels": channels}
    parts, first = {}, 0
    for name, (n_per_class, expressions) in plan.items():
        takes = pool_takes if name == "pool" else takes_per_subject
        if n_per_class % takes:
            raise FerError(f"{n_per_class} images per class cannot be shared by subjects of {takes} takes each: "
                           f"choose a multiple of {takes} for part {name}.")
        start = FIRST_OF_POOL if name == "pool" else first
        subjects = range(start, start + n_per_class // takes)
        first += len(subjects)
        for part, domain in (("test_lab", "lab"), ("test_wild", "wild")) if name == "test_lab" else ((name, "lab"),):
            if len(subjects):
                parts[part] = _rendered(part, subjects, takes=takes, domain=domain, expressions=expressions, **options)
    if n_sequence_subjects:
        subjects = range(FIRST_OF_SEQUENCES, FIRST_OF_SEQUENCES + n_sequence_subjects)
        parts["sequences"] = _rendered("sequences", subjects, takes=pool_takes, domain="lab", one_sequence=True,
                                       expressions=ALL_EXPRESSIONS, **options)
    return parts, {}


def _rendered(part, subjects, *, takes, expressions, **options):
    log.info("rendering %s: %d subjects x %d expressions x %d takes", part, len(subjects), len(expressions), takes)
    return rendering.render_faces(subjects, takes=takes, expressions=expressions, **options)


def read_parts(dataset, root, *, image_size, channels, align, seed, pool, **counts):
    """A published data set, without near-duplicates, split into train, validation, test and pool.

    Returns (dict part -> Faces, notes on what was left out).
    """
    faces, notes = _read(dataset, root, image_size=image_size, channels=channels, align=align)
    faces, removed = splits.remove_near_duplicates(faces)
    return splits.split(faces, **counts, seed=seed, pool=pool), notes | removed


def _read(dataset, root, **options):
    if not root:
        raise FerError(f"The data set {dataset!r} needs data_root, the folder or file it lies in: "
                       "give --set data_root=PATH (or pool_root for the GANs' pool).")
    return readers.read(dataset, root, **options)


def load(folder):
    """The parts that `prepare` wrote: dict part -> Faces, memory-mapped."""
    return {path.parent.name: Faces.load(path.parent) for path in sorted(Path(folder).glob("*/faces.json"))}


def load_audit(folder):
    """(the audit's DataFrame, the notes on what was left out) of `prepare`."""
    notes = json.loads((Path(folder) / "left_out.json").read_text(encoding="utf-8"))
    return pd.read_csv(Path(folder) / "audit.csv"), notes


def tests(parts):
    """The test sets among the parts, by their short names: {"lab": Faces, "wild": Faces} or {"test": Faces}."""
    return {name.removeprefix("test_"): parts[name] for name in TESTS if name in parts}


def overview(parts):
    """One row per part: origin, images, subjects ("unknown" if so) and images per expression: DataFrame."""
    rows = [{"part": name, "origin": part.origin, "images": len(part),
             "subjects": len(set(part.subjects) - {""}) or "unknown",
             **part.counts().to_dict()} for name, part in parts.items()]
    return pd.DataFrame(rows).set_index("part")
