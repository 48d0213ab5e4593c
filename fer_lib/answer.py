"""What a planned study found, group by group: the main comparison first, then each control and each axis.

    found = answer.analyse(table, cells, folder, tests, n_real=600, headline_ratio=5)
"""

import numpy as np

from fer_lib import statistics, study
from fer_lib.design import FEW_SEEDS
from fer_lib.errors import FerError
from fer_lib.intervals import by_anova, effect, fields, trusted
from fer_lib.labels import EXPRESSIONS

AXES = ("n_real", "weight", "intensity", "truncation")
PLAIN = {"weight": 1.0, "intensity": 1.0, "truncation": 1.0, "stopping": "updates"}


def group(cells, *, n_real, **other):
    """The cells that can be compared seed by seed: those of one n_real, weight, intensity, truncation and stopping.

    other : values other than those of `PLAIN`. Arms without generated faces have no weight, intensity or truncation
    of their own and belong to every group; `real`, which stops as in the paper, to every one of its n_real.
    """
    wanted = PLAIN | other
    return [cell for cell in cells if cell.n_real == n_real and same_seeds(cell)
            and (cell.arm == "real" or cell.stopping == wanted["stopping"])
            and (not study.ARMS[cell.arm].uses_bank
                 or all(getattr(cell, name) == wanted[name] for name in ("weight", "intensity", "truncation")))]


def same_seeds(cell):
    """Whether a cell takes part in comparisons seed by seed; those of a block with `crossed` but for some do not."""
    return cell.split_seed == cell.generator_seed == cell.train_seed


def check_plan(cells, *, n_real, headline_ratio, **usual):
    """Raise FerError where a plan lacks the comparison that is to be the answer, before anything is trained.

    cells : the plan. n_real, headline_ratio : of that comparison. usual : its intensity and truncation.
    """
    main = group(cells, n_real=n_real, **usual)
    if not _has(main, "mixed", headline_ratio):
        raise FerError(f"The plan has no arm mixed at the headline ratio {headline_ratio:g}: add it to arms and "
                       "ratios, or set headline_ratio to one of the ratios.")
    if not (_has(main, "real_long") or _has(main, "real")):
        raise FerError("The plan has no arm without generated faces to compare with: add real_long to arms.")
    usual = {"intensity": 1.0, "truncation": 1.0} | usual
    for cell in cells:
        if (cell.arm == "mixed_filtered"
                and (cell.intensity, cell.truncation) != (usual["intensity"], usual["truncation"])):
            raise FerError("The arm mixed_filtered is there for the study's own intensity and truncation alone: leave "
                           "it out of the block that varies them.")


def check_profile(values):
    """Raise FerError where the values of a profile plan a study that would fail, before anything is trained.

    values : dict of all parameters, as profiles.resolve returns it; those of notebooks that are not there may be
    missing.
    """
    names = ("arms", "ratios", "n_real", "n_seeds", "intensity", "truncation")
    if not {*names, "blocks", "n_blocks", "headline_ratio"} <= values.keys():
        return
    grid, usual = ({name: values[name] for name in chosen} for chosen in (names, names[-2:]))
    everything = study.plan_blocks([{}, *values["blocks"]], **grid)  # those that are left for later must be right, too
    cells = study.plan_blocks([{}, *values["blocks"][:values["n_blocks"]]], **grid)
    check_plan(cells, n_real=values["n_real"], headline_ratio=values["headline_ratio"], **usual)
    faint = [cell for cell in everything if study.ARMS[cell.arm].uses_bank and cell.intensity != 1]
    if faint and values.get("expression_method") == "stargan":
        raise FerError(f"The plan asks for expressions of intensity {faint[0].intensity:g}, which StarGAN does not "
                       "have: leave it out, or set expression_method to flow.")
    if values.get("person_weight") and values.get("expression_method") == "stargan":
        raise FerError("StarGAN has no term for the person: set person_weight=0, or expression_method to flow.")
    few = [cell for cell in everything if cell.arm == "generated" and cell.n_generated < len(EXPRESSIONS)]
    if few:
        raise FerError(f"At ratio {few[0].ratio:g} the arm generated has {few[0].n_generated} images for "
                       f"{len(EXPRESSIONS)} expressions: raise the ratio, or n_real.")
    if {"study_updates", "study_looks"} <= values.keys() and values["study_updates"] % values["study_looks"]:
        looks = values["study_looks"]
        fits = max(1, round(values["study_updates"] / looks)) * looks
        raise FerError(f"{values['study_updates']} study_updates cannot be looked at {looks} times at even distances: "
                       f"set study_updates={fits}, or other study_looks.")
    reserve = len(EXPRESSIONS) * values.get("n_train_per_class", float("inf"))
    largest = max(cell.n_real for cell in cells if cell.arm != "generated")
    if largest > reserve:
        raise FerError(f"n_real is {largest}, but the training reserve holds {reserve} images: lower n_real, or raise "
                       f"n_train_per_class to {-(-largest // len(EXPRESSIONS))}.")


def rows_of(table, cells):
    """The rows of a study's table that belong to some of its cells."""
    names = ["arm", "ratio", "n_real", "split_seed", "generator_seed", "train_seed", "weight", "stopping", "intensity",
             "truncation"]
    wanted = {tuple(getattr(cell, name) for name in names) for cell in cells}
    return table[[row in wanted for row in table[names].itertuples(index=False, name=None)]]


def analyse(table, cells, folder, tests, *, n_real, headline_ratio, usual=None, reserve=None, resamples=10_000):
    """The whole answer of a study, ready for summary.json.

    table, folder, tests : as study.run returned and was given them. cells : its plan. n_real, headline_ratio : of the
    comparison that was declared beforehand. usual : its intensity and truncation where these are not 1, a dict.
    reserve : number of real (or rendered) faces of the six expressions that classifiers may be trained on, or None.
    Returns what statistics.summary returns of the main group, n_real, usual, and, where the plan has the cells for it:
        other_n_real: n_real -> main_contrast, contrasts and recovered of the first test set, and worth at this n_real;
        over_augmented: list of dicts n_real, arm, test_set, accuracy, baseline_accuracy and what intervals.fields
            names: arms with generated faces over classical augmentation alone;
        paper_stopping: test set -> gain of `mixed` over `real` when both stop as in the paper;
        axes: list of dicts test_set, n_real, weight, intensity, truncation, accuracy, baseline_accuracy and what
            intervals.fields names: `mixed` at the headline ratio over `real_long`;
        worth, law, variance: see curves.worth, curves.law and variance.variance_split, of the first test set; what the
            draw of real faces adds is not identified where n_real is the whole reserve;
        authors_mode: list of dicts test_set, quirk, accuracy, baseline_accuracy, what intervals.fields names, and
            faked_points, faked_points_anova: by how much it changes the gain, see `authors_mode`;
        intensity: see `by_intensity`, where the intensity of the test faces is known.
    """
    usual = usual or {}
    check_plan(cells, n_real=n_real, headline_ratio=headline_ratio, **usual)
    _check_tests(table, tests)
    first = next(iter(tests))
    clusters = {name: test.subjects for name, test in tests.items()}
    options = {"resamples": resamples}
    summaries = {size: _summary(table, group(cells, n_real=size, **usual), folder, tests, headline_ratio, clusters,
                                resamples)
                 for size in dict.fromkeys([n_real, *_sizes(cells, headline_ratio, usual)])}
    found = summaries.pop(n_real)
    found |= {"n_real": n_real, "usual": usual}
    extras = {}
    extras["other_n_real"] = {str(size): {name: each[name] for name in ("main_contrast", "contrasts", "recovered")}
                             for size, each in summaries.items()}
    extras["over_augmented"] = over_augmented(cells, folder, tests, headline_ratio, usual, **options)
    extras["axes"] = axes(cells, folder, tests, headline_ratio, **options)
    extras["paper_stopping"] = paper_stopping(cells, folder, tests, n_real, headline_ratio, usual, **options)
    extras["authors_mode"] = authors_mode(cells, folder, tests, n_real, headline_ratio, usual, **options)
    for size, other in extras["other_n_real"].items():
        if measured := worth(cells, folder, tests, int(size), headline_ratio, usual):
            other["worth"] = measured
    extras["worth"] = worth(cells, folder, tests, n_real, headline_ratio, usual)
    extras["law"] = _law(table, cells, first, usual)
    extras["variance"] = variance(table, cells, folder, tests, n_real, headline_ratio, usual, reserve)
    extras["intensity"] = by_intensity(group(cells, n_real=n_real, **usual), folder, tests, headline_ratio)
    return found | {name: value for name, value in extras.items() if value}


def _check_tests(table, tests):
    """Raise FerError where a study was not tested on these images."""
    if not tests:
        raise FerError("There is no test set: give those that the study was run with.")
    counts = table.groupby("test_set")["n_test"].first()
    for name, test in tests.items():
        if name not in counts:
            raise FerError(f"The study has no test set {name!r}: choose from {', '.join(counts.index)}.")
        if counts[name] != len(test):
            raise FerError(f"The study was tested on {counts[name]} images of {name}, but {len(test)} are given: give "
                           "those that it was run with.")


def _summary(table, main, folder, tests, headline_ratio, clusters, resamples):
    return statistics.summary(rows_of(table, main), study.correctness(folder, main, tests),
                              headline_ratio=headline_ratio, test_set=next(iter(tests)), clusters=clusters,
                              codes={name: test.codes for name, test in tests.items()}, resamples=resamples)


def _sizes(cells, ratio, usual):
    """The numbers of real images at which `mixed` can be compared with a baseline."""
    return [size for size in sorted({cell.n_real for cell in cells})
            if _has(main := group(cells, n_real=size, **usual), "mixed", ratio) and
            (_has(main, "real_long") or _has(main, "real"))]


def _has(cells, arm, ratio=None):
    return any(cell.arm == arm and ratio in (None, cell.ratio) for cell in cells)


def _answers(cells, folder, tests, base, headline, quirk=""):
    """Which test images two arms get right, by seed: dict train_seed -> test set -> (base, headline), bool [images]."""
    chosen = [cell for cell in cells if (cell.arm, cell.ratio) in (base, headline)]
    of_arm = [{cell.train_seed for cell in chosen if (cell.arm, cell.ratio) == key} for key in (base, headline)]
    found = {}
    for seed in sorted(of_arm[0] & of_arm[1]):  # seeds that both arms have, so that rows pair
        right = study.correctness(folder, [cell for cell in chosen if cell.train_seed == seed], tests, quirk=quirk)
        found[seed] = {name: (arms[base][0], arms[headline][0]) for name, arms in right.items()}
    return found


def _gain(cells, folder, tests, base, headline, **options):
    """Gain of one arm over another on each test set: list of dicts."""
    return _gains(_answers(cells, folder, tests, base, headline), tests, **options)


def _gains(found, tests, resamples=10_000):
    rows = []
    for name in next(iter(found.values()), {}):
        before, after = (np.stack([of_seed[name][arm] for of_seed in found.values()]) for arm in (0, 1))
        gain = statistics.paired_gain(before, after, clusters=tests[name].subjects, resamples=resamples)
        rows.append({"test_set": name, "accuracy": float(after.mean()), "baseline_accuracy": float(before.mean()),
                     **fields(gain, len(before))})
    return rows


def axes(cells, folder, tests, ratio, **options):
    """`mixed` at one ratio over `real_long`, for every n_real, weight, intensity and truncation that was planned."""
    settings = sorted({tuple(getattr(cell, name) for name in AXES) for cell in cells
                       if cell.arm == "mixed" and cell.ratio == ratio and cell.stopping == "updates"})
    rows = []
    for setting in settings:
        values = dict(zip(AXES, setting, strict=True))
        rows += [{**values, **row} for row in
                 _gain(group(cells, **values), folder, tests, ("real_long", 0.0), ("mixed", float(ratio)), **options)]
    return rows


def over_augmented(cells, folder, tests, ratio, usual, **options):
    """`mixed` and `mixed_augmented` over `augmented`, for every n_real: do they give what augmentation does not?"""
    return [{"n_real": size, "arm": arm, **row} for size in sorted({cell.n_real for cell in cells})
            for arm in ("mixed", "mixed_augmented")
            for row in _gain(group(cells, n_real=size, **usual), folder, tests, ("augmented", 0.0),
                             (arm, float(ratio)), **options)]


def paper_stopping(cells, folder, tests, n_real, ratio, usual, **options):
    """test set -> gain of `mixed` over `real` when every run stops as in the paper."""
    rows = _gain(group(cells, n_real=n_real, stopping="paper", **usual), folder, tests, ("real", 0.0),
                 ("mixed", float(ratio)), **options)
    return {row.pop("test_set"): row for row in rows}


def authors_mode(cells, folder, tests, n_real, ratio, usual, **options):
    """The gain that each of the authors' quirks would have shown, beside the corrected one: list of dicts.

    quirk : "none", the corrected gain, over all seeds; "<name>_at_equal_updates", that of study.QUIRKS alone;
    "paper_stopping", the paper's stopping alone; "<name>", both; these over the seeds that stop as in the paper.
    faked_points, by resampling, and faked_points_anova: how much larger the gain is than the corrected one, over the
    seeds that both have.
    """
    headline, equal, paper = ("mixed", float(ratio)), ("real_long", 0.0), ("real", 0.0)
    as_paper, corrected = (group(cells, n_real=n_real, stopping=stopping, **usual) for stopping in ("paper", "updates"))
    before = _answers(corrected, folder, tests, equal, headline)
    seeds = _answers(as_paper, folder, tests, paper, headline).keys()
    twins = [cell for cell in corrected if cell.train_seed in seeds]
    ways = [*((f"{quirk}_at_equal_updates", quirk, twins, equal) for quirk in study.QUIRKS),
            ("paper_stopping", "", as_paper, paper), *((quirk, quirk, as_paper, paper) for quirk in study.QUIRKS)]
    rows = [{"quirk": "none", **row} for row in _gains(before, tests, **options)]
    for name, quirk, chosen, base in ways if rows and seeds else ():
        try:
            after = _answers(chosen, folder, tests, base, headline, quirk=quirk)
        except FerError:  # kept only where the study ran with authors_mode
            if chosen is as_paper:
                return []
            continue  # a study of before these were kept
        rows += [{"quirk": name, **row, **_faked(before, after, row["test_set"], tests, **options)}
                 for row in _gains(after, tests, **options)]
    return rows if any(row["quirk"] != "none" for row in rows) else []


def _faked(before, after, name, tests, **options):
    """How much larger the gain is in `after` than in `before`, both as `_answers` returns them: dict."""
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        return {}
    gains = [np.stack([of_arm.astype(int) - of_base for of_base, of_arm in (found[seed][name] for seed in seeds)])
             for found in (before, after)]
    change = gains[1] - gains[0]
    found = statistics.paired_gain(np.zeros_like(change), change, clusters=tests[name].subjects, **options)
    return {"faked_points": found["points"], "faked_points_anova": found["anova"]}


def worth(cells, folder, tests, n_real, ratio, usual):
    """curves.worth on the first test set, or None where `real_long` has fewer than three sizes."""
    first = next(iter(tests))
    sizes = [size for size in sorted({cell.n_real for cell in cells})
             if _has(group(cells, n_real=size, **usual), "real_long")]
    if len(sizes) < 3 or not _has(group(cells, n_real=n_real, **usual), "mixed", ratio):
        return None
    by_size = {size: study.correctness(folder, group(cells, n_real=size, **usual), {first: tests[first]})[first]
               for size in sizes}
    return statistics.worth(by_size, n_real, ratio, baseline="real_long", codes=tests[first].codes,
                            clusters=tests[first].subjects)


def _law(table, cells, test_set, usual):
    """curves.law over n_real, ratio and weight, or None where too few of them can be paired with `real_long`."""
    kept = [cell for cell in cells if cell.stopping == "updates" and same_seeds(cell)
            and (cell.weight * cell.ratio > 0 or not study.ARMS[cell.arm].uses_bank)
            and (not study.ARMS[cell.arm].uses_bank
                 or (cell.intensity, cell.truncation) == (usual.get("intensity", 1.0), usual.get("truncation", 1.0)))]
    try:
        return statistics.law(statistics.gains_table(rows_of(table, kept), test_set=test_set))
    except FerError:
        return None


def variance(table, cells, folder, tests, n_real, ratio, usual, reserve=None):
    """variance.variance_split of `mixed` on the first test set, or None without a crossed block.

    reserve : see `analyse`; where n_real is all of it, every split seed draws the same real faces.
    """
    first = next(iter(tests))
    plain = [cell for cell in cells if (cell.arm, cell.ratio, cell.n_real) == ("mixed", ratio, n_real)
             and all(getattr(cell, name) == value for name, value in (PLAIN | usual).items())]
    levels = len({cell.split_seed for cell in plain if not same_seeds(cell)})
    design = set(statistics.variance_design(levels)) if levels > 1 else set()
    chosen = [cell for cell in plain if (cell.split_seed, cell.generator_seed, cell.train_seed) in design]
    if not design or len(chosen) < len(design):
        return None
    chosen.sort(key=lambda cell: (cell.split_seed, cell.generator_seed, cell.train_seed))
    rows = rows_of(table, chosen).query("test_set == @first")
    rows = rows.sort_values(["split_seed", "generator_seed", "train_seed"]).reset_index(drop=True)
    correct = study.correctness(folder, chosen, {first: tests[first]})[first]["mixed", float(ratio)]
    if n_real == reserve:
        rows = rows.assign(split_seed=0)
    return statistics.variance_split(rows, correct=correct, clusters=tests[first].subjects)


def by_intensity(cells, folder, tests, ratio, arms=("real_long", "mixed", "generated", "augmented"), **options):
    """Accuracy of some arms of a group on faint and on strong expressions, where the test faces' intensity is known.

    Returns test set -> dict of `accuracy`, list of dicts as the rows of diagnostics.accuracy_by_intensity, and
    `slopes`, arm -> diagnostics.intensity_slope, without arms for which there is none; test sets of unknown
    intensity are left out.
    """
    keys = [(arm, 0.0 if arm in study.WITHOUT_RATIO else float(ratio)) for arm in arms]
    known = {name: test for name, test in tests.items() if "intensity" in test.table}
    chosen = [cell for cell in cells if (cell.arm, cell.ratio) in keys]
    found = {}
    for name, correct in (study.correctness(folder, chosen, known) if known and chosen else {}).items():
        given, people = known[name].table["intensity"].to_numpy(float), known[name].subjects
        rows = {key[0]: correct[key] for key in keys if key in correct}
        table = statistics.accuracy_by_intensity(rows, given, clusters=people, **options)
        slopes = {arm: _slope(row, given, people) for arm, row in rows.items()}
        found[name] = {"accuracy": table.to_dict("records"),
                       "slopes": {arm: slope for arm, slope in slopes.items() if slope}}
    return found


def _slope(correct, intensity, people):
    """diagnostics.intensity_slope, or None where these faces give none."""
    try:
        return statistics.intensity_slope(correct, intensity, clusters=people)
    except FerError:
        return None


def probabilities(cells, folder, test_set, keys):
    """Test probabilities of some arms of a group, on the seeds that all of them have.

    keys : list of (arm, ratio). Returns dict (arm, ratio) -> float32 [seeds, images, 6], arms without cells left out.
    """
    chosen = {key: {cell.train_seed: cell for cell in cells if (cell.arm, cell.ratio) == key} for key in keys}
    chosen = {key: of_seed for key, of_seed in chosen.items() if of_seed}
    if not chosen:
        return {}
    shared = sorted(set.intersection(*(set(of_seed) for of_seed in chosen.values())))
    return {key: statistics.stack_predictions([study.predictions(folder, of_seed[seed]) for seed in shared])[test_set]
            for key, of_seed in chosen.items()}


def sentences(summary, origin="real"):
    """The answer in three sentences: the gain, what controls say of it, and where more stops helping. List of str."""
    main, ratio = summary["main_contrast"], summary["headline_ratio"]
    points, relative, judged = main["gain_points"], main["gain_relative"], trusted(main)
    effects = {1: "raise", -1: "lower", 0: "do not clearly change", None: "may change"}
    baseline = f"{origin} faces alone" + (" at as many updates" if main["baseline"] == "real_long" else "")
    told = [f"{ratio:g} generated faces for each of {summary.get('n_real', 'the')} {origin} ones "
            f"{effects[effect(main)]} the "
            f"accuracy: {main['accuracy']:.3f} against {main['baseline_accuracy']:.3f} with {baseline}, "
            f"{points['estimate']:+.1f} points ({points['low']:+.1f} to {points['high']:+.1f})"
            + ("" if relative["estimate"] is None else f", relative {relative['estimate']:+.0%} "
               f"({relative['low']:+.0%} to {relative['high']:+.0%})")
            + f"; {main['seeds']} seeds, test set {summary['test_set']}."]
    if effect(main) is None:
        others = "seeds" if main["seeds"] < 2 else "people"
        told[0] += f" How much other {others} would change cannot be told from these."
    elif by_anova(main):
        few = "seeds" if main["seeds"] < FEW_SEEDS else "people tested"
        told[0] += (f" With so few {few} analysis of variance is to be trusted, which says {judged['low']:+.1f} to "
                    f"{judged['high']:+.1f} points" + _relative(main)
                    + (" and so does not exclude 0." if not effect(main) else "."))
    others = [(name, trusted(summary["contrasts"][name]))
              for name in ("generated", "augmented", "mixed_augmented", "external") if name in summary["contrasts"]]
    meaning = {"generated": "generated faces alone", "augmented": "classical augmentation alone",
               "mixed_augmented": "both together", "external": "the GANs' training faces instead"}
    if others:
        few = [by_anova(summary["contrasts"][name]) for name, _ in others]
        told.append(f"Over the same baseline{' (by analysis of variance)' if all(few) else ''}: " + "; ".join(
            f"{meaning[name]}{_at_other_ratio(summary['contrasts'][name], ratio)} {gain['estimate']:+.1f} points "
            f"({gain['low']:+.1f} to {gain['high']:+.1f}{'; by analysis of variance' if anova and not all(few) else ''}"
            ")" for (name, gain), anova in zip(others, few, strict=True)) + ".")
    bound = summary["upper_bound"]
    told.append(f"More than {bound['ratio']:.1f} for each ({bound['low']:.1f} to {bound['high']:.1f}) did not help "
                "further." if bound["identified"]
                else f"More than {bound['at_most']:.1f} for each did not help further; fewer may do, which this grid "
                "does not tell." if bound.get("at_most")
                else "From where on more does not help cannot be told from one seed or so few ratios."
                if bound.get("preferred") is None
                else "A point from which on more does not help is not identified within this grid.")
    return told


def _relative(main):
    """The relative gain by analysis of variance as an insertion, or nothing where it is not known."""
    found = main.get("gain_relative_anova")
    if not found or found["low"] is None:
        return ""
    return f", relative {found['low']:+.0%} to {found['high']:+.0%}{'' if effect(main) else ','}"


def _at_other_ratio(contrast, ratio):
    """An insertion that names an arm's ratio where it is not that of the answer."""
    return "" if contrast["ratio"] in (0, ratio) else f" (ratio {contrast['ratio']:g})"
