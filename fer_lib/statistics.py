"""The answer of the ratio study in one summary; every statistic of the compendium can be had from here by name."""

import numpy as np
import pandas as pd

from fer_lib.curves import equivalent_size, gains_table, law, learning_curve, predict_gain, upper_bound, worth
from fer_lib.diagnostics import (accuracy_by_intensity, brier_scores, calibration, confusion_change,
                                 expected_calibration_error, gain_by_intensity, intensity_slope, stack_predictions)
from fer_lib.design import variance_design
from fer_lib.errors import FerError
from fer_lib.intervals import (accuracy_interval, anova_interval, cluster_codes, fields, holm, paired_gain,
                               recall_gains, recovered_share, resampled_means, seed_interval, transfer, trusted_p)
from fer_lib.labels import EXPRESSIONS
from fer_lib.variance import image_variance, variance_split

__all__ = ["accuracy_by_intensity", "accuracy_by_ratio", "accuracy_interval", "accuracy_intervals", "anova_interval",
           "brier_scores", "calibration", "cluster_codes", "confusion_change", "equivalent_size",
           "expected_calibration_error", "gain_by_intensity", "gains_against", "gains_over_seeds", "gains_table",
           "holm", "image_variance", "intensity_slope", "law", "learning_curve", "paired_gain", "predict_gain",
           "recall_by_expression", "recall_gains", "recovered_share", "seed_interval", "stack_predictions", "summary",
           "transfer", "upper_bound", "variance_design", "variance_split", "worth"]

SEEDS = ["split_seed", "generator_seed", "train_seed"]
REFERENCE = "real_long"  # the arm of the main contrast's baseline: real only, as many updates as the mixed run


# ---- tables --------------------------------------------------------------------------------------------

def accuracy_by_ratio(table, *, level=0.95):
    """Mean accuracy over seeds of every arm, ratio and test set, with its t interval.

    table : DataFrame as study.run returns it; of one kind of classifiers, see `check_one_kind`.
    Returns a DataFrame: test_set, arm, ratio, seeds, n_generated, accuracy, low, high (fractions); `low`
    and `high` describe the spread over training seeds only, not over test images.
    """
    check_one_kind(table)
    columns = ["test_set", "arm", "ratio", "seeds", "n_generated", "accuracy", "low", "high"]
    rows = []
    for (test_set, arm, ratio), group in table.groupby(["test_set", "arm", "ratio"], sort=False):
        interval = seed_interval(group["accuracy"], level=level)
        rows.append((test_set, arm, ratio, len(group), group["n_generated"].iloc[0], *interval.values()))
    return pd.DataFrame(rows, columns=columns)


def recall_by_expression(table, *, level=0.95):
    """Mean recall over seeds of every expression, arm, ratio and test set, with its t interval.

    table : DataFrame as study.run returns it; of one kind of classifiers, see `check_one_kind`.
    Returns a DataFrame: test_set, arm, ratio, expression, recall, low, high (fractions).
    """
    check_one_kind(table)
    rows = [(*key, name, *seed_interval(group[f"recall_{name}"], level=level).values())
            for key, group in table.groupby(["test_set", "arm", "ratio"], sort=False) for name in EXPRESSIONS]
    return pd.DataFrame(rows, columns=["test_set", "arm", "ratio", "expression", "recall", "low", "high"])


def check_one_kind(table):
    """Raise FerError where rows of one test set, arm and ratio differ in anything but their seeds.

    table : DataFrame as study.run returns it, or some of its rows or columns.
    """
    kinds = [name for name in ("n_real", "weight", "intensity", "truncation", "stopping") if name in table]
    counts = table.groupby(["test_set", "arm", "ratio"])[kinds].nunique()
    mixed_up = [name for name in kinds if (counts[name] > 1).any()]
    if mixed_up:
        raise FerError(f"The table holds classifiers of several {mixed_up[0]}, which have no common mean: pass the "
                       "rows of one, as answer.rows_of chooses them.")


def same_seeds(rows):
    """Whether split, generator and training have one seed, as in all comparisons seed by seed: bool Series.

    rows : DataFrame with the columns of SEEDS. A block with `crossed` has others, which are no further repetitions.
    """
    return (rows["split_seed"] == rows["generator_seed"]) & (rows["generator_seed"] == rows["train_seed"])


def gains_over_seeds(table, *, baseline=REFERENCE, level=0.95):
    """Gain of every kind of classifier over the baseline of the same n_real and seeds, with its t interval.

    table : DataFrame as study.run returns it, or as results/<profile>/ratio_study.csv holds it; of classifiers that
        make equally many updates.
    Returns a DataFrame: test_set, n_real, arm, ratio, weight, intensity, truncation, seeds, gain, low, high (points; on
    these very test images, so beside intervals over both, see paired_gain, where seeds are few).
    """
    keys = ["test_set", "n_real", *SEEDS]
    rows = table[(table["stopping"] == "updates") & same_seeds(table)]
    base = rows[rows["arm"] == baseline].set_index(keys)["accuracy"].rename("before")
    rows = rows[rows["arm"] != baseline].join(base, on=keys).dropna(subset="before")
    kinds = ["test_set", "n_real", "arm", "ratio", "weight", "intensity", "truncation"]
    found = [(*key, len(group), *seed_interval(100 * (group["accuracy"] - group["before"]), level=level).values())
             for key, group in rows.groupby(kinds, sort=False)]
    return pd.DataFrame(found, columns=[*kinds, "seeds", "gain", "low", "high"])


# ---- arms and their seeds ------------------------------------------------------------------------------

def seeds_of(table, test_set):
    """Which seeds the rows of study.correctness come from: dict (arm, ratio) -> list of tuples, in its order.

    table : DataFrame as study.run returns it, of one n_real and one weight (`real` may have a weight of its own).
    """
    columns = [name for name in SEEDS if name in table]
    rows = table[table["test_set"] == test_set].sort_values(columns, kind="stable")
    return {key: list(map(tuple, group[columns].to_numpy())) for key, group in rows.groupby(["arm", "ratio"])}


def paired(arms, seeds, *keys):
    """The arms at `keys`, each cut to the seeds that all of them have: list of bool [seeds, images].

    arms : dict (arm, ratio) -> bool [seeds, images]. seeds : as `seeds_of` returns it, or None: the rows of all
        arms come from the same seeds.
    Raises FerError when table and predictions disagree, or no seed is shared.
    """
    if seeds is None:
        return [arms[key] for key in keys]
    for key in keys:
        if len(seeds.get(key, [])) != len(arms[key]):
            raise FerError(f"The table has {len(seeds.get(key, []))} seeds of the arm {key[0]} at ratio {key[1]:g}, "
                           f"but predictions come from {len(arms[key])}: pass both for the same cells.")
    shared = set(seeds[keys[0]]).intersection(*(seeds[key] for key in keys))
    if not shared:
        names = ", ".join(f"{arm} at ratio {ratio:g}" for arm, ratio in keys)
        raise FerError(f"No seed is shared by {names}: train them on the same seeds.")
    return [arms[key][[seed in shared for seed in seeds[key]]] for key in keys]


def closest(arms, name, ratio):
    """The key (name, ratio) of an arm at the ratio closest to `ratio`, or None where the arm is absent."""
    ratios = [r for arm, r in arms if arm == name]
    return (name, min(ratios, key=lambda r: (abs(r - ratio), r))) if ratios else None


def gains_against(arms, baseline, *, seeds=None, keys=None, **options):
    """Gain of every arm over one baseline arm, on the seeds that both have.

    arms : dict (arm, ratio) -> bool [seeds, images]. baseline : a key of it.
    seeds : as `seeds_of` returns it; needed where arms have different seeds. keys : which arms, or None for all.
    options : as in intervals.paired_gain.
    Returns dict (arm, ratio) -> what intervals.paired_gain returns, the accuracies of both on these seeds (accuracy,
    baseline_accuracy) and the number of seeds, without the baseline itself.
    """
    found = {}
    for key in (arms if keys is None else keys):
        if key != baseline:
            a, b = paired(arms, seeds, baseline, key)
            found[key] = {**paired_gain(a, b, **options), "seeds": len(a), "accuracy": float(b.mean()),
                          "baseline_accuracy": float(a.mean())}
    return found


def accuracy_intervals(correct, *, clusters=None, **options):
    """Accuracy of every arm, ratio and test set, over training seeds and test subjects together.

    correct, clusters : as in `summary`. options : as in intervals.accuracy_interval.
    Returns a DataFrame: test_set, arm, ratio, seeds, accuracy, low, high (fractions).
    """
    rows = [(test_set, *key, len(rows), *accuracy_interval(
                rows, clusters=(clusters or {}).get(test_set), **options).values())
            for test_set, arms in correct.items() for key, rows in arms.items()]
    return pd.DataFrame(rows, columns=["test_set", "arm", "ratio", "seeds", "accuracy", "low", "high"])


# ---- the answer ----------------------------------------------------------------------------------------

def summary(table, correct, *, headline_ratio, test_set, clusters=None, codes=None, resamples=10_000, seed=0):
    """The answer of the study, ready for summary.json.

    table : DataFrame as study.run returns it, of one n_real and one weight.
    correct : dict test set -> dict (arm, ratio) -> bool [seeds, images], as study.correctness returns it. Arms may
        have different seeds; each comparison uses those that both arms have. Only `mixed` and `real` or `real_long` are
        needed.
    headline_ratio : the ratio whose gain is the headline; it must be in the study.
    test_set : the test set of the headline. clusters : dict test set -> subject of each image, or None.
    codes : dict test set -> int [images], the true expressions, 0..5, or None.
    Returns plain values. For the headline's test set at the top, and for every test set in test_sets:
        gain_points, gain_relative {estimate, low, high}: mixed over the baseline, which is `real_long`, or `real` where
            that is absent;
        main_contrast: the same in full:
            arm, ratio, baseline, baseline_ratio, seeds, equal_updates (None where the table has no updates), accuracy,
            baseline_accuracy, test_groups (test subjects, or images where these are unknown), gain_points,
            gain_relative, p, gain_points_anova and gain_relative_anova (see intervals.anova_interval; for few seeds or
            subjects);
        contrasts: every other arm at the headline ratio, or its own closest to it, over the same baseline, as in
            main_contrast, with p_holm over these arms, of the p to be trusted (intervals.trusted_p);
        recovered: share of external's gain that each arm of its ratio, or of none, recovers {estimate, low, high,
            identified, ratio, external_ratio}; {} without the arm external;
        upper_bound, see curves.upper_bound, and start, the arm that stands for ratio 0 (the same baseline);
        controls, one entry per arm other than the baseline and mixed, over the baseline;
    and in test_sets also by_ratio (gain of mixed at every ratio, p adjusted by Holm over ratios), generated_by_ratio
    (the same of generated faces alone), n_test, real_accuracy, p, and with codes expressions (gain in recall in the
    main contrast). transfer: further test set -> arm -> its gains on the headline's and on that test set and their
    difference (see intervals.transfer), over the same baseline. seeds: of the main contrast.
    Raises FerError when the headline's ratio or test set, or both `real` and `real_long`, are missing.
    """
    if test_set not in correct:
        raise FerError(f"The test set {test_set!r} is not in the study: choose from {', '.join(correct)}.")
    clusters, codes = clusters or {}, codes or {}
    options = {"resamples": resamples, "seed": seed}
    tests = {name: _summary_of_test(table[table["test_set"] == name], arms, headline_ratio, codes.get(name),
                                    {"clusters": clusters.get(name), **options})
             for name, arms in correct.items()}
    entries = ("gain_points", "gain_relative", "main_contrast", "contrasts", "recovered", "upper_bound", "controls")
    return {"headline_ratio": float(headline_ratio), "test_set": test_set,
            "seeds": tests[test_set]["main_contrast"]["seeds"], **{name: tests[test_set][name] for name in entries},
            "transfer": _transfers(table, correct, headline_ratio, test_set, clusters, options), "test_sets": tests}


def _summary_of_test(table, arms, headline_ratio, codes, options):
    """Everything about one test set; arguments as in `summary`."""
    base, headline = baseline_of(arms, headline_ratio), ("mixed", float(headline_ratio))
    for needed in (base, headline):
        if needed not in arms:
            raise FerError(f"The study has no arm {needed[0]} at ratio {needed[1]:g}: "
                           "add it to arms and ratios.")
    seeds = seeds_of(table, table["test_set"].iloc[0])
    over_base = gains_against(arms, base, seeds=seeds, **options)
    controls = dict.fromkeys(arm for arm, _ in arms if arm not in (base[0], "mixed"))
    found = {"n_test": int(table["n_test"].iloc[0]),
             "real_accuracy": accuracy_interval(arms[base], **options),
             "gain_points": over_base[headline]["points"], "gain_relative": over_base[headline]["relative"],
             "p": over_base[headline]["p"],
             "main_contrast": _contrast(table, headline, base, over_base[headline]),
             "contrasts": _contrasts(table, arms, headline, base, over_base),
             "recovered": _recovered(arms, seeds, base, headline_ratio, options),
             "upper_bound": {**_bound_of_test(arms, seeds, base, options), "start": base[0]},
             "by_ratio": _by_ratio("mixed", over_base),
             "generated_by_ratio": _by_ratio("generated", over_base),
             "controls": {_control_name(arm): _control(closest(arms, arm, headline_ratio), over_base)
                          for arm in controls}}
    if codes is not None:
        found["expressions"] = recall_gains(*paired(arms, seeds, base, headline), codes, **options)
    return found


def baseline_of(arms, headline_ratio):
    """The key of the main contrast's baseline: `real_long` where the study has it, otherwise `real`."""
    return closest(arms, REFERENCE, headline_ratio) or ("real", 0.0)


def _contrast(table, key, base, gain):
    """One arm over the baseline, with what is needed to judge whether the comparison is fair."""
    return {"arm": key[0], "ratio": key[1], "baseline": base[0], "baseline_ratio": base[1],
            "equal_updates": _equal_updates(table, key, base), "accuracy": gain["accuracy"],
            "baseline_accuracy": gain["baseline_accuracy"], **fields(gain, gain["seeds"])}


def _equal_updates(table, *keys):
    """Whether the classifiers of two arms took the same numbers of updates; None where the table does not say."""
    if "updates" not in table:
        return None
    counts = [set(table.loc[(table["arm"] == arm) & (table["ratio"] == ratio), "updates"]) for arm, ratio in keys]
    return counts[0] == counts[1]


def _contrasts(table, arms, headline, base, gains):
    """Every arm but the headline's and the baseline, over the baseline, with p adjusted over these arms."""
    names = dict.fromkeys(arm for arm, _ in arms if arm not in ("mixed", base[0]))
    keys = [closest(arms, name, headline[1]) for name in names]
    found = {key[0]: _contrast(table, key, base, gains[key]) for key in keys}
    adjusted = holm([trusted_p(contrast) for contrast in found.values()])
    return {name: {**contrast, "p_holm": p} for (name, contrast), p in zip(found.items(), adjusted, strict=True)}


def _recovered(arms, seeds, base, headline_ratio, options):
    """Share of external's gain over the baseline that each other arm recovers, where it adds as many images or none."""
    external = closest(arms, "external", headline_ratio)
    if external is None:
        return {}
    names = dict.fromkeys(arm for arm, _ in arms if arm not in ("external", "real", base[0]))
    keys = [key for key in (closest(arms, name, external[1]) for name in names) if key[1] in (0, external[1])]
    return {key[0]: recovered_share(*paired(arms, seeds, base, key, external), **options)
            | {"ratio": key[1], "external_ratio": external[1]} for key in keys}


def _by_ratio(arm, gains):
    """One entry per ratio of an arm: accuracy and gain, with p adjusted over the ratios."""
    keys = sorted(key for key in gains if key[0] == arm)
    found = [{"ratio": key[1], "accuracy": gains[key]["accuracy"], **fields(gains[key], gains[key]["seeds"])}
             for key in keys]
    adjusted = holm([trusted_p(row) for row in found])
    return [{**row, "p_holm": p} for row, p in zip(found, adjusted, strict=True)]


def _bound_of_test(arms, seeds, base, options):
    """`upper_bound` of `mixed` with the baseline as ratio 0; not identified where ratios are fewer than 3."""
    keys = [base, *sorted(key for key in arms if key[0] == "mixed" and key[1] > 0)]
    if len(keys) < 3:
        return {"ratio": None, "low": None, "high": None, "identified": False, "preferred": None}
    curve = paired(arms, seeds, *keys)
    groups = cluster_codes(options["clusters"], curve[0].shape[1])
    drawn = {"resamples": min(options["resamples"], 2_000), "seed": options["seed"]}
    resampled, images = (resampled_means(rows, groups, **drawn).T
                         for rows in (curve, [each.mean(0, keepdims=True) for each in curve]))
    return upper_bound([0.0, *(ratio for _, ratio in keys[1:])], np.stack([rows.mean(1) for rows in curve], axis=1),
                       resampled=resampled, images=images)


def _control_name(arm):
    return "generated_only" if arm == "generated" else arm


def _control(key, gains):
    """A control arm at the headline ratio, or at its own ratio closest to it."""
    gain = gains[key]
    return {"ratio": key[1], "accuracy": gain["accuracy"], "gain_points": gain["points"],
            "gain_relative": gain["relative"], "p": gain["p"]}


def _transfers(table, correct, headline_ratio, first, clusters, options):
    """For every further test set and arm: does the gain on the first test set carry over?"""
    base, found = baseline_of(correct[first], headline_ratio), {}
    for other in [name for name in correct if name != first]:
        names = dict.fromkeys(arm for arm, _ in correct[first] if arm not in ("real", base[0]))
        for key in (closest(correct[first], name, headline_ratio) for name in names):
            if key in correct[other] and base in correct[other]:
                pairs = [paired(correct[name], seeds_of(table, name), base, key) for name in (first, other)]
                change = transfer(*zip(*pairs, strict=True), (clusters.get(first), clusters.get(other)), **options)
                found.setdefault(other, {})[key[0]] = {first: change["first"], other: change["second"],
                                                       **{name: value for name, value in change.items()
                                                          if name not in ("first", "second")}}
    return found
