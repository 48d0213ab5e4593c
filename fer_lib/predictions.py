"""What every classifier of a study answered for every test image, in one small file.

    python -m fer_lib.predictions built_in_study    # a finished run's answers -> results/built_in_study/predictions.npz
    python -m fer_lib.predictions built_in_study --summary
        # results/built_in_study/summary.json, and the figures of what it holds, anew from it, without training
    python -m fer_lib.predictions fer2013_faces_only --against fer2013_muon    # the gain over another study's faces
    predictions.analyse("results/built_in_study")   # the same from Python
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib import answer, data, intervals, paths, plots, profiles, runs, study
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import EXPRESSIONS

# what is kept of a test image, where it is known; never its pixels
KNOWN = ("id", "expression", "subject", "intensity")
KIND = ("arm", "n_real", "ratio", "weight", "intensity", "truncation", "stopping")
"""What classifiers share that differ in their seeds alone."""


def pack(cells, folder, tests):
    """The answers of finished classifiers, ready for runs.Workspace.save_arrays.

    cells, folder : of a study that has run. tests : dict name -> Faces, its test sets.
    Returns a dict of arrays: "<cell>/<test set>" and, with authors_mode, "<cell>/<test set>:<quirk>" of the cells that
    study.told_with_quirks names, float16 [images, 6], probabilities of labels.EXPRESSIONS, rounded so that the highest
    stays the highest;
    "tests/<test set>/<column>" [images] for each column of `KNOWN` and the origin.
    Raises FerError when a cell has not been trained.
    """
    arrays, told = {}, study.told_with_quirks(cells)
    for cell in cells:
        for quirk in ("", *study.QUIRKS) if cell in told and _has_quirks(folder, cell) else ("",):
            for name, probabilities in study.predictions(folder, cell, quirk=quirk).items():
                arrays[f"{cell.name}/{name}" + (f":{quirk}" if quirk else "")] = halved(probabilities)
    for name, test in tests.items():
        arrays[f"tests/{name}/origin"] = np.full(len(test), test.origin)
        for column in KNOWN:
            if column in test.table:
                values = test.table[column]
                arrays[f"tests/{name}/{column}"] = values.to_numpy(float if column == "intensity" else str)
    return arrays


def _has_quirks(folder, cell):
    try:
        return bool(study.predictions(folder, cell, quirk=next(iter(study.QUIRKS))))
    except FerError:
        study.predictions(folder, cell)  # raises where the cell itself is missing
        return False


def halved(probabilities):
    """Probabilities [images, classes] as float16; the highest of each image stays so, or the first of equals."""
    rounded, best = probabilities.astype(np.float16), probabilities.argmax(1)
    moved, rows = rounded.argmax(1) != best, np.arange(len(best))
    rounded[rows[moved], best[moved]] = np.nextafter(rounded.max(1)[moved], np.float16(2))
    return rounded


def unpack(path, folder):
    """Write the answers of a packed file where study.predictions finds them.

    path : the .npz file. folder : Path. Returns dict test set -> Faces without pixels (uint8 [images, 1, 1, 1], all 0),
    which the statistics do not look at.
    """
    cells, tests = {}, {}
    with np.load(path, allow_pickle=False) as packed:
        for key in packed.files:
            *kind, name, last = key.split("/")
            (tests if kind else cells).setdefault(name, {})[last] = packed[key]
    for name, found in cells.items():
        np.savez(Path(folder) / f"{name}.npz", **{each: values.astype(np.float32) for each, values in found.items()})
    return {name: _without_pixels(columns.pop("origin")[0], columns) for name, columns in tests.items()}


def _without_pixels(origin, columns):
    return Faces(np.zeros((len(columns["id"]), 1, 1, 1), np.uint8), pd.DataFrame(columns).assign(domain=""),
                 str(origin))


def analyse(results, **options):
    """The answer of a study anew from its committed files, as notebook 6 writes it to summary.json.

    results : a folder results/<profile> with ratio_study.csv, summary.json and predictions.npz. options : of
    answer.analyse; `usual` is the summary's.
    Returns a dict, see answer.analyse. Raises FerError when a file is missing.
    """
    results = Path(results)
    _check_present(results, "ratio_study.csv", "summary.json", "predictions.npz")
    before = json.loads((results / "summary.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        table, tests = _opened(results, folder)
        options = {"usual": before.get("usual"), "n_real": before["n_real"], "reserve": _reserve(results),
                   "headline_ratio": before["headline_ratio"]} | options
        found = answer.analyse(table, study.cells_of(table), folder, tests, **options)
    return found | {"trained_on": before["trained_on"]}


def compare(results, other):
    """What a study's classifiers get right more often than those of another with the same plan, seeds and test images.

    results, other : folders results/<profile> with ratio_study.csv and predictions.npz.
    Returns a DataFrame, one row for each test set and kind of classifier (`KIND`) that both hold and that answered
    differently, without those of a block with `crossed`: seeds (those that both have), other_accuracy, accuracy,
    gain_points, low, high and p of intervals.paired_gain, anova_low, anova_high.
    Raises FerError when a file is missing, the test images are not the same, or the studies have nothing in common.
    """
    folders, rows = [Path(results), Path(other)], []
    for folder in folders:
        _check_present(folder, "ratio_study.csv", "predictions.npz")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        (table, tests), (others, others_tests) = map(_opened, folders, (first, second))
        known = set(study.cells_of(others))
        shared = [cell for cell in study.cells_of(table) if cell in known and answer.same_seeds(cell)]
        names = [name for name in tests if name in others_tests]
        if not shared or not names:
            raise FerError(f"{folders[0].name} and {folders[1].name} have no classifier, or no test set, in common: "
                           "compare studies with the same plan.")
        for name in names:
            if not tests[name].table.equals(others_tests[name].table):
                raise FerError(f"The images of the test set {name} differ between {folders[0].name} and "
                               f"{folders[1].name}: compare studies with the same data and data_seed.")
        for kind, cells in _by_kind(shared):
            for name in names:
                mine, theirs = (np.stack([study.predictions(folder, cell)[name].argmax(1) == tests[name].codes
                                          for cell in cells]) for folder in (first, second))
                if (mine != theirs).any():
                    rows.append({"test_set": name, **kind, "seeds": len(cells)} | _gained(theirs, mine, tests[name]))
    return pd.DataFrame(rows)


def redraw(workspace, summary, tests):
    """The figures of notebook 6 that a summary alone decides: gains, axes and worth.

    workspace : runs.Workspace. summary : as `analyse` returns it. tests : dict name -> Faces, its test sets.
    Returns the names of the figures.
    """
    origin, first = summary["trained_on"].get("real", "real"), summary["test_set"]
    units = "subjects" if any(tests[first].subjects) else "images"
    look = {"origin": origin, "interval": f"95 % interval over seeds and test {units}"}
    drawn = {f"study_gains_{name}": plots.contrast_forest([test["main_contrast"], *test["contrasts"].values()],
                                                          title=f"test set: {name}", **look)
             for name, test in summary["test_sets"].items()}
    others = summary.get("other_n_real", {})
    drawn |= {f"study_gains_{first}_n{size}": plots.contrast_forest(
                  [other["main_contrast"], *other["contrasts"].values()],
                  title=f"{size} {origin} faces, test set: {first}", **look)
              for size, other in others.items() if len(other["contrasts"]) > 2}
    drawn["study_axes"] = plots.axis_gains(summary.get("axes", []), n_real=summary["n_real"],
                                           usual=summary.get("usual"), origin=origin)
    drawn |= {f"study_worth{ending}": plots.worth_curve(found["worth"], origin=origin)
              for ending, found in [("", summary), *((f"_n{size}", other) for size, other in others.items())]
              if "worth" in found}
    drawn = {name: figure for name, figure in drawn.items() if figure}
    for name, figure in drawn.items():
        workspace.save_figure(figure, name)
    return list(drawn)


def _by_kind(cells):
    """Pairs of (dict of what is in `KIND`, the cells of that kind in the order of their seeds)."""
    found = {}
    for cell in sorted(cells, key=lambda cell: (cell.split_seed, cell.generator_seed, cell.train_seed)):
        found.setdefault(tuple(getattr(cell, name) for name in KIND), []).append(cell)
    return [(dict(zip(KIND, kind, strict=True)), cells) for kind, cells in found.items()]


def _gained(theirs, mine, test):
    gain = intervals.paired_gain(theirs, mine, clusters=test.subjects)
    return {"other_accuracy": theirs.mean(), "accuracy": mine.mean(), "gain_points": gain["points"]["estimate"],
            "low": gain["points"]["low"], "high": gain["points"]["high"], "p": gain["p"],
            "anova_low": gain["anova"]["low"], "anova_high": gain["anova"]["high"]}


def _check_present(results, *names):
    missing = [name for name in names if not (results / name).is_file()]
    if missing:
        raise FerError(f"{missing[0]} is missing in {results}: run the profile's notebooks, then "
                       f"python -m fer_lib.predictions {results.name}.")


def _opened(results, folder):
    """(ratio_study.csv as a DataFrame, dict test set -> Faces without pixels) of `results`, its answers in `folder`."""
    table, tests = pd.read_csv(results / "ratio_study.csv"), unpack(results / "predictions.npz", folder)
    _check_same(table, folder, tests)
    return table, tests


def _reserve(results):
    """How many faces of the six expressions the training part has, or None where parts.csv does not tell."""
    parts = results / "parts.csv"
    if not parts.is_file():
        return None
    return int(pd.read_csv(parts).set_index("part").loc["train", list(EXPRESSIONS)].sum())


def _check_same(table, folder, tests):
    """Raise FerError where the kept answers are not those that the table's accuracies come from."""
    for name, rows in table.groupby("test_set", sort=False):
        for cell, accuracy in zip(study.cells_of(rows), rows["accuracy"], strict=True):
            answers = study.predictions(folder, cell).get(name)
            if (name not in tests or answers is None
                    or abs((answers.argmax(1) == tests[name].codes).mean() - accuracy) > 1e-4):
                raise FerError("predictions.npz and ratio_study.csv come from different studies: run python -m "
                               "fer_lib.predictions PROFILE first, which packs the answers of the last study.")


def main(arguments=None):
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="a profile whose notebook 06 is finished")
    parser.add_argument("--summary", action="store_true",
                        help="write summary.json, and the figures of what it holds, anew from what was kept")
    parser.add_argument("--against", metavar="PROFILE", help="tell the gain over the same classifiers of that profile")
    options = parser.parse_args(arguments)
    try:
        if options.against:
            table = compare(*(paths.results_folder(name) for name in (options.profile, options.against)))
            print("every answer is the same" if table.empty else table.round(3).to_string(index=False))
            return 0
        profiles.read_profile(options.profile, folder=paths.PARAMS)  # before folders are made for one that is not there
        workspace = runs.open_workspace(options.profile, step="summary" if options.summary else "predictions")
        if options.summary:
            summary = analyse(workspace.results)
            workspace.save_json(summary, "summary")
            with tempfile.TemporaryDirectory() as folder:
                drawn = redraw(workspace, summary, unpack(workspace.results / "predictions.npz", folder))
            workspace.finish()
            print(f"Wrote summary.json and {', '.join(drawn)}.")
            return 0
        tests = data.tests(data.load(workspace.require("faces").path))
        folder, table = workspace.require("study").path, workspace.results / "ratio_study.csv"
        if not table.is_file():
            raise FerError(f"{table.name} of this profile is missing: run notebooks/06_ratio_study.ipynb with it "
                           "first.")
        cells = study.cells_of(pd.read_csv(table))
        workspace.save_arrays(pack(cells, folder, tests), "predictions")
        workspace.finish()
        images = ", ".join(f"{name} {len(test)} images" for name, test in tests.items())
        print(f"Wrote predictions.npz: {len(cells)} classifiers, {images}.")
    except FerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
