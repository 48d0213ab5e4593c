"""The ratio study: which classifiers are trained on what, and how well each does on every test set."""

import hashlib
import json
import logging
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fer_lib import classifier, engine, runs
from fer_lib import ensemble as together
from fer_lib.design import variance_design
from fer_lib.errors import FerError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import EXPRESSIONS

logger = logging.getLogger(__name__)

SCORES = ["accuracy", "macro_f1", *(f"recall_{name}" for name in EXPRESSIONS)]
COLUMNS = ["arm", "ratio", "weight", "n_real", "n_generated", "updates", "split_seed", "generator_seed",
           "train_seed", "test_set", "n_test", *SCORES, "best_epoch", "seconds",
           "stopping", "intensity", "truncation"]


@dataclass(frozen=True)
class Cell:
    """One classifier of the study.

    arm : a name in `ARMS`. ratio : added / real images, at least 0; 0 for the arms that add none.
    weight : factor on the loss of each generated image.
    n_real : real training images that the ratio refers to; the arm `generated` uses none of them.
    split_seed : chooses the real images. generator_seed : chooses the rows of the generated bank (arms without
        generated images carry it only to be paired with the others). train_seed : initial weights, order, dropout.
    stopping : "updates", as many as every other arm gets, or "paper", the paper's early stopping.
    intensity, truncation : of the generated images that are drawn.
    """

    arm: str
    ratio: float
    n_real: int
    split_seed: int
    generator_seed: int
    train_seed: int
    weight: float = 1.0
    stopping: str = "paper"
    intensity: float = 1.0
    truncation: float = 1.0

    @property
    def n_added(self):
        """Number of images that the ratio adds (or, for the arm `generated`, puts in the place of real ones)."""
        return round(self.ratio * self.n_real)

    @property
    def n_generated(self):
        """Number of generated training images."""
        return self.n_added if ARMS[self.arm].uses_bank else 0

    @property
    def n_budget(self):
        """Images in the training set of `mixed` at this ratio."""
        return self.n_real + self.n_added

    @property
    def name(self):
        """A name for files, unique within a study."""
        extras = [f"_{letter}{value:g}" for letter, value in (("i", self.intensity), ("c", self.truncation))
                  if value != 1]
        return (f"{self.arm}_r{self.ratio:g}_w{self.weight:g}_n{self.n_real}"
                f"_s{self.split_seed}_g{self.generator_seed}_t{self.train_seed}"
                + "".join(extras) + ("_u" if self.stopping == "updates" else ""))


@dataclass(frozen=True)
class Sources:
    """Where training images come from.

    train : Faces, the reserve of real (or rendered) images. bank : Faces, the generated ones, or None. pool : Faces
    that the GANs were trained on, or None. kept : bool [len(bank)], which generated faces pass the filter, or None.
    """

    train: Faces
    bank: Faces | None = None
    pool: Faces | None = None
    kept: np.ndarray | None = None


# ---- arms: what a classifier is trained on -------------------------------------------------------------

def real(sources, cell):
    """Only real images."""
    return [draw_real(sources.train, cell.n_real, seed=cell.split_seed)]


def oversampled(sources, cell):
    """The images of `real`, repeated until there are as many as in `mixed`;
    the classes are as balanced as in `real`."""
    part, = real(sources, cell)
    times, rest = divmod(cell.n_budget, len(part))
    whole = part.select(np.tile(np.arange(len(part)), times))
    rng = np.random.default_rng([cell.split_seed, 4])
    return [whole, _draw_balanced(part, rest, rng, "the images of real", repeat=True)] if rest else [whole]


def noise(sources, cell):
    """The images of `real`, and images of pixels drawn at random with their mean and spread, labels in turn."""
    part, = real(sources, cell)
    rng = np.random.default_rng([cell.split_seed, 2])
    pixels = np.asarray(part.images)
    drawn = rng.normal(pixels.mean(), pixels.std(), (cell.n_added, *pixels.shape[1:])).round().clip(0, 255)
    names = [EXPRESSIONS[row % len(EXPRESSIONS)] for row in range(cell.n_added)]
    table = pd.DataFrame({"id": [f"noise-{row}" for row in range(cell.n_added)], "expression": names, "subject": "",
                          "domain": ""})
    return [part, Faces(drawn.astype(np.uint8), table, part.origin)]


def generated(sources, cell):
    """Only generated images, as many as `mixed` adds at the same ratio."""
    return [draw_generated(sources.bank, cell.n_generated, generator_seed=cell.generator_seed, intensity=cell.intensity,
                           truncation=cell.truncation)]


def mixed(sources, cell):
    """The images of `real` and those of `generated` together; at ratio 0 the same as `real`."""
    return real(sources, cell) + (generated(sources, cell) if cell.n_generated else [])


def mixed_filtered(sources, cell):
    """As `mixed`, of the generated images that a selector keeps (see selection.select)."""
    if sources.kept is None:
        raise FerError("No generated face was selected: run notebooks/04_generation.ipynb with measures=[selection].")
    return mixed(replace(sources, bank=sources.bank.select(sources.kept), kept=None), cell)


def external(sources, cell):
    """The images of `real` and as many of those that the GANs were trained on, with their labels.

    An expression of which the pool has too few has them repeated, so that the classes stay balanced.
    """
    if sources.pool is None:
        raise FerError("The arm external needs the pool that the GANs were trained on: give pool=parts['pool'].")
    rng = np.random.default_rng([cell.split_seed, 3])
    return real(sources, cell) + [_draw_balanced(sources.pool, cell.n_added, rng, "the GANs' pool", repeat=True)]


@dataclass(frozen=True)
class Arm:
    """How one arm of the study is trained: its images, whether they are augmented, whether some are generated."""

    parts: Callable
    augmented: bool = False
    uses_bank: bool = False


ARMS = {
    "real": Arm(real),
    "real_long": Arm(real),
    "oversampled": Arm(oversampled),
    "augmented": Arm(real, augmented=True),
    "noise": Arm(noise),
    "generated": Arm(generated, uses_bank=True),
    "mixed": Arm(mixed, uses_bank=True),
    "mixed_filtered": Arm(mixed_filtered, uses_bank=True),
    "mixed_augmented": Arm(mixed, augmented=True, uses_bank=True),
    "external": Arm(external),
}
"""Every arm: what it is trained on. `parts` is a function (sources, cell) that returns a list of Faces.

`real` stops as in the paper; `real_long` has its images and as many updates as every other arm.
"""

WITHOUT_RATIO = ("real", "real_long", "augmented")
"""Arms that add no image: planned once, at ratio 0."""


def draw_real(pool, n, *, seed):
    """`n` real images, as many of each expression as of any other (within one).

    pool : Faces of the `train` reserve. Returns Faces [n]; FerError when an expression has too few.
    """
    return _draw_balanced(pool, n, np.random.default_rng([seed, 0]), "the training reserve")


def draw_generated(bank, n, *, generator_seed, intensity=1.0, truncation=1.0):
    """`n` generated images of one generator seed, balanced over the six expressions.

    bank : Faces whose table has the column generator_seed; where it has intensity or truncation, these count, too.
    The order within an expression is fixed, so that a larger set contains the smaller ones.
    Raises FerError when the bank has too few images of that generator seed, intensity and truncation.
    """
    if bank is None or "generator_seed" not in bank.table:
        raise FerError("There are no generated faces with a column generator_seed: "
                       "run notebooks/04_generation.ipynb first.")
    wanted = {"generator_seed": generator_seed}
    wanted |= {name: value for name, value in (("intensity", intensity), ("truncation", truncation))
               if name in bank.table}
    rows = bank.select((bank.table[list(wanted)] == list(wanted.values())).all(axis=1).to_numpy())
    what = "the generated faces of " + ", ".join(f"{name} {value:g}" for name, value in wanted.items())
    return _draw_balanced(rows, n, np.random.default_rng([generator_seed, 1]), what)


def _draw_balanced(faces, n, rng, what, *, repeat=False):
    """The first images of each expression in a random order that depends on `rng` alone, not on `n`.

    repeat : begin again where an expression has fewer than needed, instead of a FerError.
    """
    codes, chosen = faces.codes, []
    for code, expression in enumerate(EXPRESSIONS):
        rows = rng.permutation(np.flatnonzero(codes == code))
        wanted = n // len(EXPRESSIONS) + (code < n % len(EXPRESSIONS))
        if repeat and len(rows):
            rows = np.resize(rows, max(len(rows), wanted))
        if len(rows) < wanted:
            raise FerError(f"Only {len(rows)} images of {expression} are among {what}, but {wanted} are "
                           "needed: provide more, or lower n_real or the largest ratio.")
        chosen.append(rows[:wanted])
    return faces.select(np.concatenate(chosen))


# ---- the grid ------------------------------------------------------------------------------------------

def plan(arms, ratios, n_real, seeds, **axes):
    """The cells of a study.

    arms : names in `ARMS`; those of `WITHOUT_RATIO` are planned once, the others at every ratio above 0.
    ratios : generated / real, each at least 0. n_real : int, real training images per classifier.
    seeds : ints; each varies the real images, the generated images and the training together, and is
        shared by all arms and ratios, so that they can be compared seed by seed.
    axes : further fields of every Cell (weight, stopping, intensity, truncation); `real` always stops as in the paper,
        and arms without generated images have no weight, intensity or truncation but 1.
    Returns a list of Cell: seed by seed, within it arm by arm, within it by ratio.
    Raises FerError for an unknown arm, a negative ratio, or fewer real images than expressions.
    """
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise FerError(f"The arm {unknown[0]!r} is unknown: choose from {', '.join(ARMS)}.")
    negative = [ratio for ratio in ratios if not 0 <= ratio < float("inf")]
    if negative:
        raise FerError(f"The ratio {negative[0]} is not possible: give generated / real images, 0 or more.")
    if n_real < len(EXPRESSIONS):
        raise FerError(f"n_real is {n_real}, which leaves an expression without an image: use at least "
                       f"{len(EXPRESSIONS)}.")
    cells = [Cell(arm, float(ratio), int(n_real), int(seed), int(seed), int(seed), **axes)
             for seed in dict.fromkeys(seeds) for arm in dict.fromkeys(arms)
             for ratio in ([0] if arm in WITHOUT_RATIO else sorted({ratio for ratio in ratios if ratio > 0}))]
    without = dict.fromkeys(("weight", "intensity", "truncation"), 1.0)
    cells = [cell if ARMS[cell.arm].uses_bank else replace(cell, **without) for cell in cells]
    return [replace(cell, stopping="paper") if cell.arm == "real" else cell for cell in cells]


BLOCK = {"arms": list, "ratios": list, "n_real": list, "n_seeds": int, "weight": list, "intensity": list,
         "truncation": list, "stopping": str, "crossed": int}
"""What a block of a plan may say; where a list is meant, one value will do."""


def plan_blocks(blocks, **defaults):
    """The cells of a study that gives most effort to what its claim rests on: one grid per block.

    blocks : list of dicts with keys of `BLOCK`. Every combination of n_real, weight, intensity, truncation, arm and
        ratio is planned, with the seeds 0 to n_seeds - 1; crossed: L instead takes the L * L seed triples of
        design.variance_design, which tell the sources of chance apart.
    defaults : values for the keys that a block leaves out; stopping is "updates" unless said otherwise.
    Returns a list of Cell, each once, in the order of the blocks.
    Raises FerError for an unknown key or value; see `plan`.
    """
    cells = []
    for block in blocks:
        full = {"weight": 1.0, "intensity": 1.0, "truncation": 1.0, "stopping": "updates"} | _checked(defaults | block)
        missing = [name for name in ("arms", "ratios", "n_real", "n_seeds") if name not in full
                   and not (name == "n_seeds" and "crossed" in full)]
        if missing:
            raise FerError(f"The plan does not say {missing[0]}: give {BLOCK_WANTS[missing[0]]}.")
        axes = {name: full[name] if isinstance(full[name], list) else [full[name]]
                for name in ("n_real", "weight", "intensity", "truncation")}
        for values in product(*axes.values()):
            options = dict(zip(axes, values, strict=True)) | {"stopping": full["stopping"]}
            if "crossed" in full:
                cells += [replace(cell, split_seed=split, generator_seed=sample, train_seed=training)
                          for split, sample, training in variance_design(full["crossed"])
                          for cell in plan(full["arms"], full["ratios"], options["n_real"], [0],
                                           **{name: value for name, value in options.items() if name != "n_real"})]
            else:
                cells += plan(full["arms"], full["ratios"], seeds=range(full["n_seeds"]), **options)
    return list(dict.fromkeys(cells))


def _checked(block):
    for name, value in block.items():
        if name not in BLOCK:
            raise FerError(f"A block of the plan has no key {name!r}: choose from {', '.join(BLOCK)}.")
        if not _possible(name, value):
            raise FerError(f"{name}: {value!r} is not possible in a block of the plan: give {BLOCK_WANTS[name]}.")
    return block


BLOCK_WANTS = {"arms": f"a list of names from {', '.join(ARMS)}", "ratios": "a list of numbers, 0 or more",
               "n_real": "a whole number or a list of them, 6 or more", "n_seeds": "a whole number, 1 or more",
               **dict.fromkeys(("weight", "intensity", "truncation"), "a number or a list of them, 0 or more"),
               "stopping": "updates or paper", "crossed": "a whole number, 2 or more"}
"""What a block of a plan accepts, in words."""


def _possible(name, value):
    """Whether a block of a plan may say `name: value`. (YAML reads 5e-1 as text.)"""
    values = value if isinstance(value, list) and BLOCK[name] is list else [value]
    if name == "arms":
        return isinstance(value, list) and all(isinstance(each, str) for each in values)
    if name == "stopping":
        return value in ("updates", "paper")
    least = {"n_real": len(EXPRESSIONS), "n_seeds": 1, "crossed": 2}
    if name in least:
        return bool(values) and all(type(each) is int and each >= least[name] for each in values)
    numbers = bool(values) and all(type(each) in (int, float) and 0 <= each < math.inf for each in values)
    return numbers and (name != "ratios" or isinstance(value, list))


def bank_needed(cells, *, first=(1.0, 1.0), keep_share=1.0, spare=1.1):
    """The generated faces that a plan draws from.

    first : intensity and truncation of the faces that come first, which are those to be judged.
    keep_share : fraction of them that a selector keeps, for `mixed_filtered`. spare : near-duplicates may go too, so
        this many times as many are asked for.
    Returns a list of dicts seed, intensity, truncation, n_identities.
    """
    needed = {}
    for cell in cells:
        if ARMS[cell.arm].uses_bank:
            share = keep_share / spare if cell.arm == "mixed_filtered" else 1
            key = (cell.intensity, cell.truncation, cell.generator_seed)
            needed[key] = max(needed.get(key, 1), math.ceil(cell.n_generated / len(EXPRESSIONS) / share))
    order = sorted(needed, key=lambda key: (key[:2] != first, key))
    return [{"seed": seed, "intensity": intensity, "truncation": truncation,
             "n_identities": needed[intensity, truncation, seed]} for intensity, truncation, seed in order]


def training_set(sources, cell):
    """What the classifier of `cell` is trained on.

    sources : Sources. Returns (Faces, weights): weights float32 [n], cell.weight for generated images and 1 for others.
    Raises FerError when the pool or the bank is too small, or the ratio is negative.
    """
    if cell.ratio < 0:
        raise FerError(f"The ratio {cell.ratio:g} is not possible: give generated / real images, 0 or more.")
    parts = ARMS[cell.arm].parts(sources, cell)
    weights = [np.full(len(part), cell.weight if part.origin == "generated" else 1, np.float32)
               for part in parts]
    return concatenate(parts), np.concatenate(weights)


# ---- running it ----------------------------------------------------------------------------------------

def run(cells, *, train, validation, generated, tests, folder, pool=None, kept=None, updates=600, looks=20,
        authors_mode=False, device="auto", jobs=None, ensemble=None, store=None, **training):
    """Train and test the classifier of every cell.

    cells : list of Cell. train : Faces, the reserve that real images are drawn from.
    validation : Faces on which every arm stops early: always real (or rendered) ones.
    generated : Faces, the bank, with the column generator_seed; None when no arm needs it.
    tests : dict name -> Faces; nothing is chosen by looking at them. A name is neither "file" nor has : or / in it.
    pool : Faces that the GANs were trained on, for the arm `external`. kept : bool [len(generated)], for the arm
        `mixed_filtered`.
    updates : of cells that stop after a number of updates, the same for every arm, ratio and n_real. looks : how
        often, evenly, the validation part is looked at meanwhile; the look of the highest accuracy is kept.
    authors_mode : keep also what each classifier would have predicted with the authors' `QUIRKS`.
    folder : where each cell's result is kept as it finishes; a second call trains only what is missing. Two calls at
        once need two folders.
    jobs : worker processes on a CPU; on a GPU there is only this process.
    ensemble : how many cells are trained together (see ensemble.train), None for `ENSEMBLE` on a GPU and 1 on a CPU.
        Draws of dropout and augmentation depend on the company, so that another number gives results that differ as
        those of another train_seed do.
    store : folder in which finished cells are kept beyond this study, or None: another study takes from there those
        that the same code has trained with the same options on the same faces. A new bank leaves most of them valid.
    training : further options of classifier.train (lr, batch_size, max_epochs, patience, precision).
    Returns a DataFrame with the columns `COLUMNS`, one row per cell and test set, in the order of
    `cells`, then of `tests`.
    Raises FerError for too small a pool or bank, before anything is trained.
    """
    if kept is not None:
        generated = Faces(generated.images, generated.table.assign(kept=np.asarray(kept, bool)), generated.origin)
    inputs = {"train": train, "validation": validation, "generated": generated, "pool": pool,
              **{f"test_{name}": faces for name, faces in tests.items()}}
    inputs = {name: faces for name, faces in inputs.items() if faces is not None}
    unfit = [name for name in tests if name == "file" or set(name) & set(":/")]
    if unfit:
        raise FerError(f"A test set cannot be called {unfit[0]!r}: give it a name without : and /, and not file.")
    for name, faces in inputs.items():
        if faces.images.shape[1:] != train.images.shape[1:]:
            raise FerError(f"The pictures of {name} are {_size(faces)}, those of train {_size(train)}: read both with "
                           "the same image_size and channels.")
    for name in tests:
        classifier.check_six_classes(inputs[f"test_{name}"], f"the test set {name}")
    training = training | {"updates": updates, "looks": looks}
    for cell in cells:
        classifier.check_six_classes(training_set(_sources(inputs), cell)[0], f"the training set of {cell.name}")
    folder, device = Path(folder), engine.device(device)
    store = store and str(Path(store) / runs.code_fingerprint(["fer_lib.study"])[:16])
    tasks = [_Task(cell, str(folder), str(device), tuple(tests), training, key, authors_mode, store)
             for cell, key in zip(cells, _keys(cells, inputs, training), strict=True)]
    waiting = [task for task in tasks if _finished(task) is None and not _taken_from_store(task)]
    if waiting:
        _save_inputs(inputs, folder / "inputs")
        jobs = 1 if device.type == "cuda" else jobs
        ensemble = ensemble or (ENSEMBLE if device.type == "cuda" else 1)
        announce(sum(map(_work, waiting)), len(waiting), train, jobs=jobs, device=device,
                 ensemble=min(ensemble, len(waiting)), precision=training.get("precision", "float32"))
        _train_all(_groups(waiting, ensemble), n_finished=len(tasks) - len(waiting), jobs=jobs)
        shutil.rmtree(folder / "inputs")
    rows = [row for task in tasks for row in _finished(task)["rows"]]
    return pd.DataFrame(rows, columns=COLUMNS)


def _size(faces):
    channels, height, width = faces.images.shape[1:]
    return f"{width} x {height} pixels in {'grey' if channels == 1 else 'colour'}"


@dataclass(frozen=True)
class _Task:
    """What a worker process needs to know; the faces wait in `folder`/inputs, memory-mapped."""

    cell: Cell
    folder: str
    device: str
    tests: tuple
    training: dict
    key: str
    authors_mode: bool
    store: str | None = None

    @property
    def path(self):
        return Path(self.folder) / f"{self.cell.name}.json"


def _keys(cells, inputs, training):
    """One key per cell: a kept result counts only for the same cell, options and data that its arm uses."""
    data = {name: faces.fingerprint for name, faces in inputs.items()}
    bank = inputs.get("generated")
    if bank is not None and "kept" in bank.table:
        data["filtered"] = data["generated"]
        data["generated"] = Faces(bank.images, bank.table.drop(columns="kept"), bank.origin).fingerprint
    keys = []
    for cell in cells:
        used = {name: mark for name, mark in data.items() if name not in _unused(cell.arm)}
        rule = stopping_rule(cell, **training)
        facts = json.dumps([used, rule, asdict(cell)], sort_keys=True)
        keys.append(hashlib.sha256(facts.encode()).hexdigest()[:16])
    return keys


def _unused(arm):
    """Names of the inputs that the classifiers of an arm do not see."""
    seen = {"filtered"} if arm == "mixed_filtered" else {"generated"} if ARMS[arm].uses_bank else set()
    return {"generated", "filtered", "pool"} - seen - ({"pool"} if arm == "external" else set())


def _save_inputs(inputs, folder):
    for name, faces in inputs.items():
        saved = (folder / name / "faces.json").is_file()
        if not saved or Faces.load(folder / name).fingerprint != faces.fingerprint:
            faces.save(folder / name)


ENSEMBLE = 64  # cells that are trained together on a GPU, where its memory allows


def _groups(tasks, size):
    """Lists of at most `size` tasks that can be trained together, the biggest tasks first.

    Big ones first, so that no process is left alone at the end.
    """
    groups, open_groups = [], {}
    for task in sorted(tasks, key=_work, reverse=True):
        kind = ARMS[task.cell.arm].augmented, task.cell.stopping, task.cell.stopping == "paper" and _n_images(task.cell)
        if len(open_groups.get(kind, ())) in (0, size):
            open_groups[kind] = []
            groups.append(open_groups[kind])
        open_groups[kind].append(task)
    return groups


def _train_all(groups, *, n_finished, jobs):
    """Train the cells of `groups`, lists of tasks."""
    tasks = [task for group in groups for task in group]
    total, done, start, n = sum(map(_work, tasks)), 0, time.perf_counter(), n_finished
    for index, results in engine.map(train_group, groups, jobs=jobs):
        done += sum(map(_work, groups[index]))
        left = (time.perf_counter() - start) * (total - done) / done
        for task, rows in zip(groups[index], results, strict=True):
            n += 1
            scores = ", ".join(f"{row['test_set']} {row['accuracy']:.3f}" for row in rows)
            logger.info("cell %d of %d: %s, accuracy %s (%.0f s; about %.0f min left)", n, n_finished + len(tasks),
                        task.cell.name, scores, rows[0]["seconds"], left / 60)


def _work(task):
    """Images that are trained on, the measure of how long a cell takes; a guess where training may stop early."""
    rule = stopping_rule(task.cell, **task.training)
    epoch = rule["batch_size"] * rule["steps_per_epoch"] if rule.get("steps_per_epoch") else _n_images(task.cell)
    return epoch * rule.get("max_epochs", 50) * (1 if task.cell.stopping == "updates" else 0.5)


def _n_images(cell):
    """Length of a cell's training set."""
    n_added = cell.n_added if cell.arm not in WITHOUT_RATIO else 0
    return n_added + (cell.n_real if cell.arm != "generated" else 0)


LONG = 200_000  # images from which a study first says how long it will take


def announce(work, n_cells, faces, *, jobs=None, device="cpu", ensemble=1, precision="float32"):
    """Log how long a study will take, from the speed of this machine with all its processes busy.

    work : images to train on. faces : Faces of the size that is trained on. ensemble : how many cells a GPU trains
    together. Returns seconds, None for a short study.
    """
    if work < LONG:
        return None
    if precision == "bfloat16" and not engine.has_bfloat16(engine.device(str(device)).type):
        logger.info("this machine has no bfloat16: it computes in float32 instead")
    n = 1 if str(device) == "cuda" else engine.job_count(jobs)
    shape = [(faces.image_size, faces.channels, str(device), precision)] * n
    speed = (_speed_together(shape[0], ensemble) if str(device) == "cuda" and ensemble > 1 else
             sum(rate for _, rate in engine.map(classifier.images_per_second, shape, jobs=n)))
    logger.info("%d classifiers, %.1f million images to train on: about %.0f min on %d process%s (%.0f images/s); "
                "an interrupted study goes on where it stopped", n_cells, work / 1e6, work / speed / 60, n,
                "es" if n > 1 else "", speed)
    return work / speed


def _speed_together(shape, n):
    """Images per second of n classifiers trained together, or of as many as the memory allows."""
    try:
        return together.images_per_second(shape, n=n)
    except torch.OutOfMemoryError:
        if n == 1:
            raise
        torch.cuda.empty_cache()
        return _speed_together(shape, n // 2)


def train_group(tasks):
    """Train and test the classifiers of one group of tasks, and keep their results. Returns one list of rows per task.

    A group that does not fit into the GPU's memory is trained in halves.
    """
    if len(tasks) == 1:
        return [train_cell(tasks[0])]
    try:
        return _train_together(tasks)
    except torch.OutOfMemoryError:
        logger.info("%d classifiers together do not fit into the memory: half as many", len(tasks))
    torch.cuda.empty_cache()
    half = len(tasks) // 2
    return train_group(tasks[:half]) + train_group(tasks[half:])


def _train_together(tasks):
    inputs = _load_inputs(tasks[0])
    parts, weights = zip(*(training_set(_sources(inputs), task.cell) for task in tasks), strict=True)
    rule = stopping_rule(tasks[0].cell, **tasks[0].training)
    results = together.train(parts, inputs["validation"], seeds=[task.cell.train_seed for task in tasks],
                             weights=weights, augmented=ARMS[tasks[0].cell.arm].augmented, device=tasks[0].device,
                             **rule)
    return [_test(task, trained, inputs) for task, trained in zip(tasks, results, strict=True)]


def train_cell(task):
    """Train and test one classifier, and keep its result. Returns its rows, one dict per test set."""
    inputs = _load_inputs(task)
    faces, weights = training_set(_sources(inputs), task.cell)
    trained = classifier.train(faces, inputs["validation"], seed=task.cell.train_seed, weights=weights,
                               augmented=ARMS[task.cell.arm].augmented, device=task.device,
                               **stopping_rule(task.cell, **task.training))
    return _test(task, trained, inputs)


def _load_inputs(task):
    return {path.parent.name: Faces.load(path.parent) for path in Path(task.folder, "inputs").glob("*/faces.json")}


def _test(task, trained, inputs):
    """Test a trained classifier and keep its result. Returns its rows."""
    tests = {name: inputs[f"test_{name}"] for name in task.tests}
    probabilities = {name: classifier.predict(trained.model, test) for name, test in tests.items()}
    if task.authors_mode:
        probabilities |= _with_quirks(trained, tests)
    rows = [_row(task.cell, trained, name, test, probabilities[name]) for name, test in tests.items()]
    _save_result(task, rows, trained.history, probabilities)
    return rows


QUIRKS = {"last_weights": {"last": True}, "unscaled_test": {"scaled": False}, "both": {"last": True, "scaled": False}}
"""Ways in which the authors' code tests otherwise than it trains: the last epoch's weights instead of the best one's,
pixels of 0..255 where training saw 0..1. Their third, a mixed run of more updates, is the stopping rule "paper"."""


def _with_quirks(trained, tests):
    """What the authors' code would have predicted: dict "<test set>:<quirk>" -> float32 [n, 6]."""
    return {f"{name}:{quirk}": classifier.predict(trained.last_model() if options.get("last") else trained.model, test,
                                                  scaled=options.get("scaled", True))
            for quirk, options in QUIRKS.items() for name, test in tests.items()}


def _sources(inputs):
    """Sources from the inputs of `run`, by name."""
    bank = inputs.get("generated")
    kept = bank.table["kept"].to_numpy(bool) if bank is not None and "kept" in bank.table else None
    return Sources(inputs["train"], bank, inputs.get("pool"), kept)


def stopping_rule(cell, *, updates, looks, batch_size=16, **training):
    """Options of classifier.train for a cell: those given,
    with a fixed number of updates where the cell asks for it."""
    if cell.stopping == "updates":
        if updates % looks:
            raise FerError(f"{updates} updates cannot be looked at {looks} times at even distances: choose a multiple "
                           f"of {looks}, or other looks.")
        training |= {"steps_per_epoch": updates // looks, "max_epochs": looks, "patience": looks,
                     "best_by": "accuracy"}
    return {"batch_size": batch_size, **training}


def _row(cell, trained, name, test, probabilities):
    scores = classifier.evaluate(probabilities, test)
    return {**asdict(cell), "n_generated": cell.n_generated, "updates": trained.updates, "test_set": name,
            "n_test": len(test), **{column: round(scores[column], 6) for column in SCORES},
            "best_epoch": trained.best_epoch, "seconds": round(trained.seconds, 1)}


def _save_result(task, rows, history, probabilities):
    """Write <cell>.npz, then <cell>.json; each appears whole or not at all, the JSON file last."""
    path = task.path
    with (partial := path.with_suffix(".npz.partial")).open("wb") as file:
        np.savez(file, **probabilities)
    os.replace(partial, path.with_suffix(".npz"))
    result = {"key": task.key, "rows": rows, "history": history.to_dict("list")}
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
    if task.store:
        Path(task.store).mkdir(parents=True, exist_ok=True)
        _copy_result(path, Path(task.store, f"{task.key}.json"))


def _taken_from_store(task):
    """Copy a cell's result from the store, where it has it; returns whether it had."""
    kept = task.store and Path(task.store, f"{task.key}.json")
    if not kept or _result(kept, task.authors_mode) is None:
        return False
    task.path.parent.mkdir(parents=True, exist_ok=True)
    _copy_result(kept, task.path)
    return True


def _copy_result(source, target):
    """Copy <source>.npz, then <source>.json; each appears whole or not at all."""
    for suffix in (".npz", ".json"):
        partial = target.with_suffix(f"{suffix}.partial")
        shutil.copyfile(source.with_suffix(suffix), partial)
        os.replace(partial, target.with_suffix(suffix))


def _finished(task):
    """The kept result of a cell, or None when it is absent, damaged, lacks the authors' quirks that are asked for, or
    belongs to other data or options."""
    result = _result(task.path, task.authors_mode)
    return result if result and result["key"] == task.key else None


def _result(path, authors_mode):
    """What a result's .json file holds, or None where it, or the .npz file beside it, is absent or damaged, or the
    latter lacks the authors' quirks that are asked for."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        with zipfile.ZipFile(path.with_suffix(".npz")) as arrays:
            complete = not authors_mode or any(":" in name for name in arrays.namelist())
    except (FileNotFoundError, ValueError, zipfile.BadZipFile):
        return None
    return found if complete else None


# ---- reading it ----------------------------------------------------------------------------------------

def cells_of(table):
    """The cells that a table of `run` holds: list of Cell, in its order."""
    kinds = {field.name: field.type for field in fields(Cell)}
    rows = table[list(kinds)].drop_duplicates().to_dict("records")
    return [Cell(**{name: kind(row[name]) for name, kind in kinds.items()}) for row in rows]


def told_with_quirks(cells):
    """Those cells of a plan whose answers with the authors' `QUIRKS` are told (answer.authors_mode): the ones that stop
    as in the paper, and the same ones at equal updates; the twin of `real` is `real_long`. Returns a set of Cell."""
    as_paper = {cell for cell in cells if cell.stopping == "paper"}
    arms = {"real": "real_long"}
    twins = {replace(cell, arm=arms.get(cell.arm, cell.arm), stopping="updates") for cell in as_paper}
    return as_paper | (twins & set(cells))


def predictions(folder, cell, *, quirk=""):
    """Test probabilities of a finished cell: dict test set -> float32 [n_test, 6].

    quirk : a name in `QUIRKS`, for what the authors' code would have predicted, kept with authors_mode=True.
    Raises FerError when the cell has not been trained in `folder`, or not with that quirk.
    """
    path = Path(folder) / f"{cell.name}.npz"
    if not path.is_file():
        raise FerError(f"The classifier {cell.name} has no predictions in {folder}: "
                       "run notebooks/06_ratio_study.ipynb.")
    with np.load(path, allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files if name.partition(":")[2] == quirk}
    if not kept:
        raise FerError(f"The classifier {cell.name} has no predictions with {quirk}: run the study with "
                       "authors_mode=True.")
    return {name.partition(":")[0]: probabilities for name, probabilities in kept.items()}


def history(folder, cell):
    """Learning curve of a finished cell: DataFrame as in classifier.Trained."""
    path = Path(folder) / f"{cell.name}.json"
    if not path.is_file():
        raise FerError(f"The classifier {cell.name} has no result in {folder}: "
                       "run notebooks/06_ratio_study.ipynb.")
    return pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["history"])


def correctness(folder, cells, tests, *, quirk=""):
    """Which test images each classifier gets right, ready for the statistics.

    cells, tests : as given to `run`. Seeds are put in the order of split_seed, generator_seed, train_seed.
    quirk : see `predictions`.
    Returns dict test set -> dict (arm, ratio) -> bool [seeds, n_test].
    Raises FerError when two cells of one arm, ratio and seed differ in n_real, weight, intensity, truncation or
    stopping: analyse such groups one at a time.
    """
    names = [(cell.arm, cell.ratio, cell.split_seed, cell.generator_seed, cell.train_seed) for cell in cells]
    if len(set(names)) < len(set(cells)) or len({cell.n_real for cell in cells}) > 1:
        raise FerError("These cells differ in n_real, weight, intensity, truncation or stopping: pass those of one "
                       "n_real and one of each of the others.")
    truth = {name: faces.codes for name, faces in tests.items()}
    correct = {name: {} for name in tests}
    for cell in sorted(cells, key=lambda cell: (cell.split_seed, cell.generator_seed, cell.train_seed)):
        for name, probabilities in predictions(folder, cell, quirk=quirk).items():
            if name not in truth:
                continue
            right = probabilities.argmax(1) == truth[name]
            correct[name].setdefault((cell.arm, cell.ratio), []).append(right)
    return {name: {key: np.stack(rows) for key, rows in arms.items()} for name, arms in correct.items()}
