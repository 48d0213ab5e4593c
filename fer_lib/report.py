"""One HTML page of what a profile found: opens offline, without a script or a file from elsewhere.

    from fer_lib import report
    report.write("demo")            # runs/demo/report.html, from results/demo/ and figures/demo/
"""

import base64
import fnmatch
import json
import os
from pathlib import Path

import jinja2
import pandas as pd
from PIL import Image

from fer_lib import notebooks as nb
from fer_lib import paths
from fer_lib.errors import FerError
from fer_lib.intervals import effect, fields, trusted, trusted_p

FIGURES = {
    # File name or pattern -> (section, caption). Sections list their figures in this order.
    "study_curve": ("answer", "Accuracy of every arm, against the ratio of generated to {origin} faces where there are "
                    "several, with 95 % intervals by resampling"),
    "ratio_curve": ("answer", "Accuracy against the ratio of generated to {origin} faces, with 95 % intervals"),
    "study_gains_*[!0-9]": ("answer", "Gain of every arm over the baseline of equal updates, test set {rest}"),
    "study_gains_*_n[0-9]*": ("answer", "Gain of every arm over the baseline of equal updates, with another number of "
                              "{origin} faces"),
    "study_gains_*": ("answer", "Gain of every arm over the baseline of equal updates, test set {rest}"),
    "study_intensity*": ("answer", "Accuracy on faint and on strong expressions, test set {rest}"),
    "study_axes": ("answer", "Gain with other numbers of {origin} faces, weights, intensities or truncations, as far "
                   "as they were planned"),
    "study_worth": ("answer", "What one generated face is worth"),
    "study_worth_n*": ("answer", "What one generated face is worth beside {rest} {origin} ones"),
    "study_confusions": ("answer", "How confusions change with generated faces"),
    "study_calibration": ("answer", "Whether a classifier is as sure as it is right"),
    "study_variance": ("answer", "Where the spread between runs comes from"),
    "ratio_recall": ("answer", "Recall of each expression, without and with generated faces"),
    "generated_faces": ("generators", "Generated faces: one row a person, one column an expression"),
    "generated_label_fidelity": ("generators", "Share of faces in which an independent judge sees the intended "
                                 "expression"),
    "identity_gan_faces": ("generators", "People drawn by the first GAN"),
    "expression_gan_faces": ("generators", "Expressions imposed by the second GAN; the first column is its input"),
    "identity_gan_losses": ("generators", "Losses of the first GAN while it learned"),
    "expression_gan_losses": ("generators", "How well labels are recognised while the second GAN learned"),
    "explorer_sheet": ("generators", "Generated people with every expression"),
    "classifier_learning": ("classifier", "Loss and accuracy of the classifier while it learned"),
    "classifier_confusion_*": ("classifier", "What the classifier takes each expression for, test set {rest}"),
    "parts": ("data", "Faces of the part that the GANs learn from"),
}
SOURCES = {
    # Section -> what it needs from results/<profile>/, and the notebook that makes it.
    "answer": (("summary.json", "ratio_study.csv"), "06_ratio_study"),
    "generators": (("generators.json",), "04_generation"),
    "classifier": (("classifier.csv",), "05_classifier"),
    "data": (("parts.csv",), "01_data_prep"),
}
SHARES = {
    "label_fidelity_share": "The judge's accuracy on generated faces ÷ on test faces",
    "label_fidelity_filtered_share": "The same, without the least convincing faces",
    "coverage_unfiltered_share": "Variety of the faces that the GANs learned from which generated ones meet ÷ which "
                                 "test faces meet",
    "coverage_share": "The same, without the least convincing faces",
    "identity_similarity_share": "Likeness of a face before and after ÷ of two pictures of one person",
    "gan_train_share": "Accuracy after training on generated faces alone ÷ on as many {origin} ones",
}


def write(profile="demo", *, root=None, notebooks=paths.NOTEBOOKS):
    """Write runs/<profile>/report.html from whatever is in results/<profile>/ and figures/<profile>/.

    root : folder that holds runs/, results/ and figures/ (FER_OUTPUT, or the repository). notebooks : Path of
    the folder with the notebooks, which the page links to.
    Returns its Path. What is absent is named on the page, with the notebook that makes it.
    """
    root = Path(root or paths.output_root()).resolve()
    target = root / "runs" / profile / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(".report.html.partial")
    partial.write_text(page(profile, root=root, notebooks=notebooks), encoding="utf-8")
    os.replace(partial, target)
    return target


def page(profile, *, root, notebooks=paths.NOTEBOOKS):
    """The page as str; arguments as in `write`, `root` as a Path."""
    results, figures = root / "results" / profile, root / "figures" / profile
    summary = _json(results / "summary.json")
    origin = summary.get("trained_on", {}).get("real", "real")
    generators, provenance = _json(results / "generators.json"), _json(results / "provenance.json")
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
                                     autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"signed": signed, "percent": percent, "words": words}
    return environment.get_template("report.html").render(
        profile=profile, origin=origin, summary=summary, verdicts=verdicts(summary, origin),
        gains=gains(summary), span=span(gains(summary)), shares=shares(generators, origin), regions=regions(generators),
        parts=_table(results / "parts.csv"), classifier=_table(results / "classifier.csv"),
        study=_table(results / "ratio_study.csv"), sweeps=sweeps(results), provenance=provenance,
        missing=missing(results), figures=sections(figures, origin, written(root, profile, notebooks)),
        notebooks=links(notebooks, root / "runs" / profile), newest=newest(provenance))


def verdicts(summary, origin):
    """One sentence per test set: what generated faces did to accuracy at the headline ratio."""
    told = []
    for name, test in summary.get("test_sets", {}).items():
        main = test["main_contrast"]
        effects = {1: "helped", -1: "did harm", 0: "neither help nor harm was shown",
                   None: f"cannot be told from one {'seed' if main['seeds'] < 2 else 'person'}"}
        told.append({"test_set": name, "n_test": test["n_test"], "effect": effects[effect(main)],
                     "gain": trusted(main), "relative": trusted(main, "gain_relative"),
                     "without": main["baseline_accuracy"],
                     "text": f"{summary['headline_ratio']:g} generated faces for each {origin} one",
                     "bound": bound(test["upper_bound"])})
    return told


def bound(found):
    """The point of no further gain, in words."""
    if found.get("at_most"):
        return (f"More than {found['at_most']:.3g} generated faces for each one did not help further; fewer may do, "
                "which this study does not tell.")
    if not found.get("identified"):
        return "The point beyond which more does not help is not identified by this study."
    return (f"More than {found['ratio']:.3g} generated faces for each one did not help further "
            f"({found['low']:.3g} to {found['high']:.3g}).")


def gains(summary):
    """Rows of the table of gains: the declared comparison, each other ratio and each control of each test set.

    gain_points are those to be trusted, p belongs to them: of the declared comparison as it is, of the others p_holm.
    """
    rows = []
    for name, test in summary.get("test_sets", {}).items():
        declared = test["main_contrast"]
        told = [(declared, ", declared beforehand", trusted_p(declared))]
        told += [({"arm": "mixed", **row}, "", row["p_holm"]) for row in test["by_ratio"]
                 if row["ratio"] != declared["ratio"]]
        told += [(row, "", row["p_holm"]) for row in test["contrasts"].values()]
        rows += [{"test_set": name, "what": words(row["arm"]) + (f", ratio {row['ratio']:g}" if row["ratio"] else "")
                  + note, "gain_points": trusted(row), "accuracy": row["accuracy"], "p": p} for row, note, p in told]
    return rows


def recall_table(test):
    """Gain in recall of every expression in the declared comparison, with the interval to be trusted: DataFrame.

    test : one of the test_sets of summary.json. Columns: expression, gain, low, high (points), p_holm.
    """
    seeds = test["main_contrast"]["seeds"]
    rows = [{"expression": name, **trusted(fields(gain, seeds)), "p_holm": gain["p_holm"]}
            for name, gain in test["expressions"].items()]
    table = pd.DataFrame(rows).rename(columns={"estimate": "gain"})
    return table[["expression", "gain", "low", "high", "p_holm"]].round({"gain": 1, "low": 1, "high": 1, "p_holm": 3})


def transfer_told(found):
    """How much larger a gain is on another test set, as `+2.1 points (-7.5 to +11.6)`, by the interval to be trusted.

    found : one of the entries of summary.json's transfer, see intervals.transfer.
    """
    return in_points(trusted({"gain_points": found["difference"], "gain_points_anova": found["difference_anova"],
                              "seeds": found["seeds"], "test_groups": found["test_groups"]}))


def in_points(gain):
    """{estimate, low, high} as `+2.3 points (-1.3 to +6.0)`."""
    return f"{gain['estimate']:+.1f} points ({gain['low']:+.1f} to {gain['high']:+.1f})"


def span(rows):
    """The largest distance from 0 that an interval reaches, in points: what the small charts are scaled by."""
    return max([1.0, *(abs(row["gain_points"][end]) for row in rows for end in ("low", "high", "estimate"))])


def shares(generators, origin):
    """Rows of the table on the generators: the shares of which 1 is as good as real (or rendered) faces."""
    return [{"what": meaning.format(origin=origin), **generators[key]} for key, meaning in SHARES.items()
            if "estimate" in (generators.get(key) or {})]


def regions(generators):
    """Rows of the table of errors per region: that of an imposed expression, and that of another true picture."""
    truth = generators.get("region_error_share_of_truth") or {}
    return [{"region": name, "truth": truth.get(name, {}).get("estimate"), **item}
            for name, item in (generators.get("region_error_share") or {}).items()]


def sweeps(results):
    """{parameter: rows} of every sweep_<parameter>_summary.csv."""
    found = sorted(results.glob("sweep_*_summary.csv"))
    return {path.stem.removeprefix("sweep_").removesuffix("_summary"):
            _read(path, lambda path=path: pd.read_csv(path)).to_dict("records") for path in found}


def missing(results):
    """{section: one sentence on each result that is not there, and who makes it}."""
    absent = {}
    for section, (names, notebook) in SOURCES.items():
        gone = [name for name in names if not (results / name).is_file()]
        if gone:
            verb = "are" if len(gone) > 1 else "is"
            absent[section] = (f"{' and '.join(gone)} {verb} not in results/{results.name}/: notebook {notebook} makes "
                               f"{'them' if len(gone) > 1 else 'it'}, with ",
                               f"python run_all.py --profile {results.name} --to {notebook[:2]}")
    return absent


def written(root, profile, notebooks):
    """Names of the figures that the last run of each notebook wrote, so that none of another data set's is shown, or
    None where not every notebook has run here."""
    records = [root / "runs" / profile / "steps" / f"{path.stem}.json"
               for path in sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb"))]
    if not records or not all(record.is_file() for record in records):
        return None
    return {Path(name).stem for record in records for name in _json(record)["writes"] if name.startswith("figures")}


def sections(folder, origin, only=None):
    """{section: list of figures}; each figure with its picture as a data URL, its caption and its alt text.

    only : set of their names, or None for all.
    """
    found, left = {}, {path.stem: path for path in sorted(folder.glob("*.png")) if only is None or path.stem in only}
    for pattern, (section, caption) in [*FIGURES.items(), ("*", ("data", "{rest}"))]:
        for name in fnmatch.filter(list(left), pattern):
            rest = words(name.removeprefix(pattern.split("*")[0]).strip("_"))
            found.setdefault(section, []).append(figure(left.pop(name), caption.format(origin=origin, rest=rest)))
    return found


def figure(path, caption):
    """A figure of a page, from the smaller of path.png and path.svg; its alt text is the one kept in the PNG."""
    vector = path.with_suffix(".svg")
    smaller = vector if vector.is_file() and vector.stat().st_size <= path.stat().st_size else path
    with Image.open(path) as picture:
        alt, size = picture.info.get("Description") or caption, picture.size
    kind = "svg+xml" if smaller.suffix == ".svg" else "png"
    data = base64.b64encode(smaller.read_bytes()).decode()
    return {"source": f"data:image/{kind};base64,{data}", "caption": caption, "alt": alt, "width": size[0] // 2,
            "height": size[1] // 2, "wide": size[0] > 1.4 * size[1]}


def links(notebooks, runs):
    """The notebooks, each with its question and a relative link to the executed copy, or else to its source."""
    found = []
    for path in sorted(Path(notebooks).glob("[0-9][0-9]_*.ipynb")):
        executed = runs / "notebooks" / path.name
        target = executed if executed.is_file() else path
        found.append({"name": path.stem, "question": nb.cell_title(nb.read_cells(path)[:1], 0),
                      "executed": executed.is_file(), "href": Path(os.path.relpath(target, runs)).as_posix()})
    return found


def newest(provenance):
    """The note of provenance.json that was written last, or an empty one."""
    return max(provenance.values(), key=lambda note: note["finished"], default={})


def signed(value, digits=1):
    """+2.3 or −0.6, with a true minus sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def percent(fraction):
    """A relative gain as `+5.8 %`."""
    return f"{signed(100 * fraction)}\N{NO-BREAK SPACE}%"


def words(name):
    """A column's or a file's name for people."""
    return str(name).replace("_", " ")


def _json(path):
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _read(path, read):
    try:
        return read()
    except ValueError as error:  # the parsers' errors are such
        raise FerError(f"{path.name} of {path.parent.name} is damaged ({error}): restore it, or run the notebook that "
                       "writes it again.") from error


def _table(path):
    """{"columns", "rows"} of a CSV with fractions rounded, or None."""
    if not path.is_file():
        return None
    table = _read(path, lambda: pd.read_csv(path))
    return {"columns": list(table.columns), "rows": [[f"{cell:.3g}" if isinstance(cell, float) else str(cell)
                                                      for cell in row] for row in table.astype(object).to_numpy()]}
