"""Intervals cover, a planted plateau is found, and nothing is found where nothing is."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fer_lib import intervals, statistics
from fer_lib.errors import FerError
from fer_lib.labels import EXPRESSIONS

RATIOS = np.array([0, 0.5, 1, 2, 3, 5, 8.0])


def two_arms(rng, *, n_seeds, n_subjects, per_subject, gain):
    """Correctness of two arms that share test images and seeds; `gain` in units of the latent scale."""
    subjects = np.repeat(np.arange(n_subjects), per_subject)
    n = len(subjects)
    easy = 0.2 + rng.normal(size=n) + 0.5 * rng.normal(size=n_subjects)[subjects]
    extra = gain + 0.3 * rng.normal(size=n_subjects)[subjects] + 0.3 * rng.normal(size=n)
    level_a, level_b = rng.normal(scale=0.12, size=(2, n_seeds, 1))
    noise_a, noise_b = rng.normal(scale=0.7, size=(2, n_seeds, n))
    return easy + level_a + noise_a > 0, easy + extra + level_b + noise_b > 0, subjects


def true_gain(gain):
    worlds = [two_arms(np.random.default_rng([9, i]), n_seeds=150, n_subjects=150, per_subject=20, gain=gain)
              for i in range(6)]
    return 100 * np.mean([b.mean() - a.mean() for a, b, _ in worlds])


@pytest.mark.parametrize("n_seeds", [3, 8])
def test_intervals_cover_the_true_gain_about_95_times_in_100(n_seeds):
    truth, covered = true_gain(0.3), np.zeros(2)
    for trial in range(300):
        rng = np.random.default_rng([1, trial])
        a, b, subjects = two_arms(rng, n_seeds=n_seeds, n_subjects=40, per_subject=6, gain=0.3)
        gain = statistics.paired_gain(a, b, clusters=subjects, resamples=500, seed=trial)
        covered += [each["low"] <= truth <= each["high"] for each in (gain["points"], gain["anova"])]
    assert (0.91 < covered / 300).all() and (covered / 300 < 0.99).all()


@pytest.mark.parametrize(("n_seeds", "seed_spread", "group_spread"), [
    (3, 0.3, 0.5), (3, 0.1, 0.5), (3, 0, 1), (8, 0.3, 0.5), (8, 0.1, 0)])
def test_the_interval_by_analysis_of_variance_covers_whatever_it_is_that_varies(n_seeds, seed_spread, group_spread):
    rng, covered = np.random.default_rng(5), 0
    for _ in range(600):
        groups = np.repeat(np.arange(60), rng.integers(1, 6, 60))
        scores = 1 + seed_spread * rng.normal(size=(n_seeds, 1)) + group_spread * rng.normal(size=60)[groups]
        found = statistics.anova_interval(scores + rng.normal(size=(n_seeds, len(groups))), groups)
        covered += found["low"] <= 1 <= found["high"]
    assert 0.92 < covered / 600 < 0.99


def test_the_interval_by_analysis_of_variance_is_the_one_of_what_varies_alone():
    rng, groups = np.random.default_rng(6), np.repeat(np.arange(30), 4)
    of_seeds, of_groups = rng.normal(size=3), rng.normal(size=30)
    found = statistics.anova_interval(of_seeds[:, None] + np.zeros(120), groups)
    assert ([found[key] for key in ("estimate", "low", "high")]
            == pytest.approx(list(statistics.seed_interval(of_seeds).values())))
    assert found["p"] == pytest.approx(stats.ttest_1samp(of_seeds, 0).pvalue)
    found = statistics.anova_interval(np.zeros([3, 1]) + of_groups[groups], groups)
    one_sample = stats.ttest_1samp(of_groups, 0)
    assert [found["low"], found["high"]] == pytest.approx(list(one_sample.confidence_interval()))
    assert found["p"] == pytest.approx(one_sample.pvalue)
    alone = statistics.anova_interval(np.ones([1, 4]), np.arange(4))
    assert alone == {"estimate": 1, "low": None, "high": None, "p": None}
    assert (statistics.anova_interval(np.full([2, 4], 3), np.arange(4))
            == {"estimate": 3, "low": 3, "high": 3, "p": None})


def test_the_interval_by_analysis_of_variance_leaves_out_what_is_not_counted():
    rng, counted = np.random.default_rng(7), np.arange(80) % 3 > 0
    scores, groups = rng.normal(size=(3, 80)), np.sort(np.arange(80) % 20)
    counted[groups == 4] = False
    part = statistics.anova_interval(scores[:, counted], np.unique(groups[counted], return_inverse=True)[1])
    assert statistics.anova_interval(scores, groups, counted=counted) == pytest.approx(part)
    for bad in ({"counted": np.zeros(80, bool)}, {"scores": np.where(groups == 2, np.nan, scores)}):
        with pytest.raises(FerError, match="at least one test image"):
            statistics.anova_interval(**{"scores": scores, "groups": groups} | bad)


def test_resamples_without_a_counted_image_do_not_make_a_gain_more_certain():
    difference = np.array([1.0, 2, -1, np.nan, np.nan, np.nan])
    assert intervals.bootstrap_p(difference) == intervals.bootstrap_p(difference[:3])


def test_no_gain_is_rarely_called_a_gain():
    false_alarms = 0
    for trial in range(200):
        rng = np.random.default_rng([2, trial])
        a, b, subjects = two_arms(rng, n_seeds=5, n_subjects=40, per_subject=6, gain=0.0)
        false_alarms += statistics.paired_gain(a, b, clusters=subjects, resamples=500, seed=trial)["p"] < 0.05
    assert false_alarms / 200 < 0.10


def test_points_and_relative_gain_agree_with_the_definition():
    a = np.zeros((2, 10), bool)
    b = np.zeros((2, 10), bool)
    a[:, :5], b[:, :6] = True, True
    gain = statistics.paired_gain(a, b)
    assert gain["points"]["estimate"] == pytest.approx(10)
    assert gain["relative"]["estimate"] == pytest.approx(0.2)


def test_an_arm_compared_with_itself_gains_exactly_nothing():
    a = np.random.default_rng(0).random((3, 50)) < 0.5
    gain = statistics.paired_gain(a, a)
    assert gain["points"] == {"estimate": 0, "low": 0, "high": 0} and gain["p"] == 1


def test_many_images_of_one_subject_count_as_one():
    a, b, subjects = two_arms(np.random.default_rng(3), n_seeds=4, n_subjects=20, per_subject=5, gain=0.3)
    few = statistics.paired_gain(a, b, clusters=subjects)
    copied = statistics.paired_gain(np.tile(a, 10), np.tile(b, 10), clusters=np.tile(subjects, 10))
    for name in ("points", "anova"):
        assert (copied[name]["high"] - copied[name]["low"]
                == pytest.approx(few[name]["high"] - few[name]["low"], rel=1e-6))


def test_unknown_subjects_stand_for_themselves():
    assert statistics.cluster_codes(["", "", "anna", "anna"], 4).tolist() == [0, 1, 2, 2]


def test_unequal_seeds_are_refused():
    with pytest.raises(FerError, match="train both arms on every seed"):
        statistics.paired_gain(np.ones((3, 5), bool), np.ones((2, 5), bool))


def test_seed_interval_covers_and_one_seed_gives_none():
    rng = np.random.default_rng(4)
    intervals = [statistics.seed_interval(rng.normal(0.6, 0.02, 3)) for _ in range(1000)]
    assert 0.93 < np.mean([i["low"] <= 0.6 <= i["high"] for i in intervals]) < 0.97
    assert np.isnan(statistics.seed_interval([0.5])["low"])


def curves(shape, *, n_seeds, noise=0.008, seed=0):
    rng = np.random.default_rng(seed)
    levels = rng.normal(0.5, 0.02, (n_seeds, 1))
    return levels + shape(RATIOS) + rng.normal(scale=noise, size=(n_seeds, len(RATIOS)))


def planted(ratios):
    return 0.05 * np.minimum(ratios, 3)


def test_a_planted_plateau_is_found():
    bounds = [statistics.upper_bound(RATIOS, curves(planted, n_seeds=8, seed=s), resamples=500)
              for s in range(60)]
    assert np.mean([bound["identified"] for bound in bounds]) > 0.95
    assert abs(np.median([bound["ratio"] for bound in bounds]) - 3) < 0.2
    assert 0.85 < np.mean([bound["low"] <= 3 <= bound["high"] for bound in bounds])


@pytest.mark.parametrize("shape", [lambda r: 0 * r, lambda r: 0.02 * r, lambda r: -0.02 * r],
                         ids=["flat", "straight", "falling"])
@pytest.mark.parametrize("n_seeds", [3, 8])
def test_no_plateau_is_identified_where_there_is_none(shape, n_seeds):
    bounds = [statistics.upper_bound(RATIOS, curves(shape, n_seeds=n_seeds, seed=s), resamples=500)
              for s in range(100)]
    assert np.mean([bound["identified"] for bound in bounds]) <= 0.06


def test_one_seed_never_identifies_a_bound():
    assert not statistics.upper_bound(RATIOS, curves(planted, n_seeds=1))["identified"]


def test_two_ratios_are_too_few_for_a_bound():
    with pytest.raises(FerError, match="at least 3"):
        statistics.upper_bound([0, 1], np.ones((3, 2)))


def a_study(rng, *, arms=("real", "mixed", "generated"), n_seeds=4):
    correct = {}
    for arm in arms:
        for ratio in [0.0] if arm == "real" else [1.0, 2.0, 5.0]:
            right = {"real": 0.5, "generated": 0.4}.get(arm, 0.5 + 0.05 * min(ratio, 2))
            correct[arm, ratio] = rng.random((n_seeds, 300)) < right
    rows = [{"test_set": "lab", "arm": arm, "ratio": ratio, "n_generated": 60 * ratio, "n_test": 300,
             "train_seed": seed, "accuracy": row.mean()}
            for (arm, ratio), group in correct.items() for seed, row in enumerate(group)]
    return pd.DataFrame(rows), {"lab": correct}


def test_summary_holds_the_contract():
    table, correct = a_study(np.random.default_rng(5))
    answer = statistics.summary(table, correct, headline_ratio=5, test_set="lab", resamples=500)
    for name in ("gain_points", "gain_relative"):
        assert answer[name]["low"] <= answer[name]["estimate"] <= answer[name]["high"]
    assert {"ratio", "low", "high", "identified"} <= set(answer["upper_bound"])
    assert list(answer["controls"]) == ["generated_only"]
    assert answer["controls"]["generated_only"]["gain_points"]["high"] < 0 < answer["gain_points"]["low"]
    entries = answer["test_sets"]["lab"]["by_ratio"]
    assert [entry["ratio"] for entry in entries] == [1, 2, 5]
    assert all(intervals.trusted_p(entry) <= entry["p_holm"] for entry in entries)


def test_summary_without_its_headline_ratio_is_refused():
    table, correct = a_study(np.random.default_rng(5))
    with pytest.raises(FerError, match="no arm mixed at ratio 7"):
        statistics.summary(table, correct, headline_ratio=7, test_set="lab")


def test_accuracy_by_ratio_has_one_row_per_arm_ratio_and_test_set():
    table, _ = a_study(np.random.default_rng(5))
    means = statistics.accuracy_by_ratio(table)
    assert len(means) == 7 and (means["low"] <= means["accuracy"]).all() and (means["seeds"] == 4).all()


# ---- contrasts at equal updates, and what external faces would give ----------------------------------------

def many_arms(rng, gains, *, n_seeds=5, n_subjects=40, per_subject=10):
    """Correctness [seeds, images] of several arms with the given latent gains, on shared images and seeds."""
    subjects = np.repeat(np.arange(n_subjects), per_subject)
    n = len(subjects)
    easy = rng.normal(size=n) + 0.5 * rng.normal(size=n_subjects)[subjects]
    arms = [gain + easy + 0.2 * rng.normal(size=n) + 0.15 * rng.normal(size=n_subjects)[subjects]
            + 0.12 * rng.normal(size=(n_seeds, 1)) + 0.7 * rng.normal(size=(n_seeds, n)) > 0 for gain in gains]
    return arms, subjects


def test_holm_keeps_the_chance_of_any_false_gain_near_its_level():
    false_alarms, raw = 0, 0
    for world in range(150):
        (base, *arms), subjects = many_arms(np.random.default_rng([11, world]), [0.0] * 8)
        p = [statistics.paired_gain(base, arm, clusters=subjects, resamples=500, seed=world)["p"] for arm in arms]
        raw += min(p) < 0.05
        false_alarms += min(p) < 0.05 and min(statistics.holm(p)) < 0.05
    assert false_alarms / 150 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150) and false_alarms < raw


def test_the_recovered_share_is_covered():
    gains, covered = [0.0, 0.3, 0.6], 0
    worlds = [many_arms(np.random.default_rng([12, i]), gains, n_seeds=100, n_subjects=200)[0] for i in range(5)]
    base, mixed, external = np.mean([[arm.mean() for arm in arms] for arms in worlds], axis=0)
    for world in range(150):
        arms, subjects = many_arms(np.random.default_rng([13, world]), gains)
        share = statistics.recovered_share(*arms, clusters=subjects, resamples=500, seed=world)
        covered += share["identified"] and share["low"] <= (mixed - base) / (external - base) <= share["high"]
    assert covered / 150 >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 150)


def test_nothing_is_recovered_of_a_gain_that_is_not_there():
    arms, subjects = many_arms(np.random.default_rng(14), [0.0, 0.3, 0.0])
    share = statistics.recovered_share(*arms, clusters=subjects, resamples=500)
    assert share == {"estimate": None, "low": None, "high": None, "identified": False}


def full_study(rng, *, tests=("lab", "wild")):
    """A study of all arms, the curve of `mixed` with fewer seeds than the main contrast."""
    levels = {("real", 0.0): 0.0, ("real_long", 5.0): 0.05, ("augmented", 5.0): 0.3, ("external", 5.0): 0.8,
              ("generated", 5.0): -0.4, **{("mixed", ratio): 0.05 + 0.1 * min(ratio, 3) for ratio in (1.0, 3.0, 5.0)}}
    rows, correct = [], {}
    for test in tests:
        arms, subjects = many_arms(rng, levels.values(), n_seeds=8)
        correct[test] = {key: arm[:5] if key[0] == "mixed" and key[1] != 5 else arm
                         for key, arm in zip(levels, arms, strict=True)}
        rows += [{"test_set": test, "arm": arm, "ratio": ratio, "n_test": 400, "split_seed": seed,
                  "generator_seed": seed, "train_seed": seed, "accuracy": row.mean(),
                  "updates": 300 if arm == "real" else 1000}
                 for (arm, ratio), group in correct[test].items() for seed, row in enumerate(group)]
    return pd.DataFrame(rows), correct, dict.fromkeys(tests, subjects)


def test_summary_compares_at_equal_updates():
    table, correct, subjects = full_study(np.random.default_rng(15))
    codes = dict.fromkeys(correct, np.arange(400) % 6)
    answer = statistics.summary(table, correct, headline_ratio=5, test_set="lab", clusters=subjects, codes=codes,
                                resamples=500)
    json.dumps(answer, allow_nan=False)
    main, lab = answer["main_contrast"], correct["lab"]
    assert (main["arm"], main["baseline"], main["seeds"], main["equal_updates"]) == ("mixed", "real_long", 8, True)
    gain = 100 * (lab["mixed", 5.0].mean() - lab["real_long", 5.0].mean())
    assert main["gain_points"]["estimate"] == pytest.approx(gain)
    assert answer["gain_points"] == main["gain_points"] and "real_long" not in answer["controls"]
    assert list(answer["contrasts"]) == ["real", "augmented", "external", "generated"]
    assert not answer["contrasts"]["real"]["equal_updates"]
    assert 0 < answer["recovered"]["augmented"]["estimate"] < 1 and answer["recovered"]["mixed"]["identified"]
    assert answer["upper_bound"]["start"] == "real_long"
    entries = answer["test_sets"]["lab"]["by_ratio"]
    assert [entry["seeds"] for entry in entries] == [5, 5, 8]
    assert set(answer["test_sets"]["wild"]["expressions"]) == set(EXPRESSIONS)
    assert ({"lab", "wild", "difference", "p", "difference_anova", "seeds", "test_groups"}
            == set(answer["transfer"]["wild"]["mixed"]))
    assert [row["ratio"] for row in answer["test_sets"]["lab"]["generated_by_ratio"]] == [5]
    assert answer["seeds"] == main["seeds"] and main["test_groups"] == len(set(subjects["lab"]))


def test_arms_are_paired_by_seed_and_not_by_position():
    table, correct, _ = full_study(np.random.default_rng(16), tests=["lab"])
    late = (table["arm"] != "mixed") | (table["train_seed"] >= 3)
    correct["lab"]["mixed", 5.0] = correct["lab"]["mixed", 5.0][3:]
    correct["lab"] = {key: arm for key, arm in correct["lab"].items() if key[0] != "mixed" or key[1] == 5}
    table = table[late & ((table["arm"] != "mixed") | (table["ratio"] == 5))]
    main = statistics.summary(table, correct, headline_ratio=5, test_set="lab", resamples=200)["main_contrast"]
    assert main["seeds"] == 5
    assert main["baseline_accuracy"] == pytest.approx(correct["lab"]["real_long", 5.0][3:].mean())


def test_arms_without_a_common_seed_are_refused():
    table, correct = a_study(np.random.default_rng(5))
    moved = table.assign(train_seed=table["train_seed"] + 10 * (table["arm"] == "mixed"))
    with pytest.raises(FerError, match="No seed is shared"):
        statistics.summary(moved, correct, headline_ratio=5, test_set="lab")


def test_transfer_finds_a_gain_that_does_not_carry_over():
    (base, arm, other), subjects = many_arms(np.random.default_rng(17), [0.0, 0.6, 0.0], n_seeds=6)
    change = statistics.transfer((base, base), (arm, other), (subjects, subjects), resamples=1_000)
    assert change["first"]["low"] > 0 > change["difference"]["high"] and change["p"] < 0.05
    assert change["second"]["low"] < 0 < change["second"]["high"]
    assert change["difference"]["estimate"] == pytest.approx(100 * (other.mean() - arm.mean()))


def test_gains_in_recall_average_to_the_gain_of_a_balanced_test():
    (a, b), subjects = many_arms(np.random.default_rng(18), [0.0, 0.3], n_subjects=30, per_subject=12)
    codes = np.arange(a.shape[1]) % 6
    gains = statistics.recall_gains(a, b, codes, clusters=subjects, resamples=500)
    assert list(gains) == list(EXPRESSIONS)
    mean = np.mean([gain["points"]["estimate"] for gain in gains.values()])
    assert mean == pytest.approx(100 * (b.mean() - a.mean()))
    assert all(gain["anova"]["p"] <= gain["p_holm"] for gain in gains.values())  # five seeds: this p counts


def test_accuracy_intervals_have_one_row_per_arm_and_test_set():
    _, correct, subjects = full_study(np.random.default_rng(19))
    means = statistics.accuracy_intervals(correct, clusters=subjects, resamples=200)
    assert len(means) == 16 and (means["low"] < means["accuracy"]).all() and set(means["seeds"]) == {5, 8}


def test_the_interval_holds_its_promise_with_few_people_too():
    """Eight seeds on three people who gain differently: percentiles of resamples cover far less than they say."""
    rng, people, held = np.random.default_rng(21), np.repeat(np.arange(3), 30), {"points": 0, "anova": 0}
    for world in range(200):
        ease, gain = rng.normal(size=90), 0.5 * rng.normal(size=3)[people]
        a, b = (shift + ease + rng.normal(size=(8, 90)) > 0 for shift in (0, gain))
        found = statistics.paired_gain(a, b, clusters=people.astype(str), resamples=300, seed=world)
        assert found["groups"] == 3
        for name in held:
            held[name] += found[name]["low"] <= 0 <= found[name]["high"]
    assert held["anova"] / 200 > 0.95 - 3 * (0.95 * 0.05 / 200) ** 0.5 and held["points"] / 200 < 0.9


def test_the_relative_gain_by_analysis_of_variance_is_the_ratio_with_its_spread():
    (a, b), subjects = many_arms(np.random.default_rng(22), [0.0, 0.4], n_seeds=8)
    found = statistics.paired_gain(a, b, clusters=subjects, resamples=4_000)
    resampled, anova = found["relative"], found["relative_anova"]
    assert anova["estimate"] == pytest.approx(b.mean() / a.mean() - 1) == resampled["estimate"]
    widths = [each["high"] - each["low"] for each in (resampled, anova)]
    assert widths[1] == pytest.approx(widths[0], rel=0.25)
    nothing = statistics.paired_gain(np.zeros((2, 4)), np.ones((2, 4)), resamples=50)
    assert nothing["relative_anova"] == {"estimate": None, "low": None, "high": None}


def test_rows_without_a_common_mean_are_refused():
    table, _ = a_study(np.random.default_rng(5))
    both = pd.concat([table.assign(n_real=60), table.assign(n_real=120)])
    for of_table in (statistics.accuracy_by_ratio, statistics.recall_by_expression):
        with pytest.raises(FerError, match="classifiers of several n_real"):
            of_table(both)
    with pytest.raises(FerError, match="classifiers of several intensity"):
        statistics.gains_table(pd.concat([table.assign(intensity=1.0), table.assign(intensity=0.6)]), test_set="lab")


def test_a_gain_that_two_test_sets_share_does_not_widen_their_difference():
    """Of other people in each, as lab and wild pictures are."""
    rng, widths = np.random.default_rng(24), []
    base = rng.random((2, 8, 120)) < 0.4
    people = [[f"{name}{row // 6}" for row in range(120)] for name in ("lab", "wild")]
    better = base | (rng.random((2, 8, 120)) < 0.05)
    for shift in (0.0, 1.0):  # one point more for every image is no more or less in one of the sets
        found = intervals.transfer(list(base.astype(float)), list(better + shift), people, resamples=200)
        anova = found["difference_anova"]
        widths.append(anova["high"] - anova["low"])
        assert anova["estimate"] == pytest.approx(found["difference"]["estimate"])
    assert widths[0] == pytest.approx(widths[1]) and (found["seeds"], found["test_groups"]) == (8, 40)


def test_an_unnamed_subject_is_refused():
    with pytest.raises(FerError, match='give "" where it is not known'):
        statistics.cluster_codes(["a", None, "b"], 3)


def test_an_arm_recovers_from_as_many_images_only():
    table, correct, subjects = full_study(np.random.default_rng(15), tests=["lab"])
    correct["lab"] = {(arm, 1.0 if arm == "external" else ratio): rows for (arm, ratio), rows in correct["lab"].items()}
    table = table.assign(ratio=table["ratio"].where(table["arm"] != "external", 1.0))
    shares = statistics.summary(table, correct, headline_ratio=5, test_set="lab", clusters=subjects,
                                resamples=200)["recovered"]
    assert {name: share["ratio"] for name, share in shares.items()} == {"mixed": 1.0}  # the others have 5
    assert all(share["external_ratio"] == 1 for share in shares.values())


def test_gains_over_seeds_are_paired_by_seed_and_size():
    rows = [{"arm": arm, "ratio": ratio, "n_real": n_real, "split_seed": seed, "generator_seed": seed,
             "train_seed": seed, "test_set": "lab", "weight": 1.0, "intensity": 1.0, "truncation": 1.0,
             "stopping": stopping, "accuracy": level + 0.1 * seed + gain}
            for n_real, level in ((60, 0.2), (120, 0.4)) for seed in range(3)
            for arm, ratio, stopping, gain in (("real_long", 0, "updates", 0.0), ("real", 0, "paper", 0.5),
                                               ("mixed", 5, "updates", 0.03 + 0.01 * seed))]
    nine = dict.fromkeys(("split_seed", "generator_seed", "train_seed"), 9)
    alone = {**rows[2], **nine, "accuracy": 1.0}  # a seed that the baseline lacks
    crossed = [{**rows[0], "train_seed": 7, "accuracy": 0.0}, {**rows[2], "train_seed": 7, "accuracy": 1.0}]
    found = statistics.gains_over_seeds(pd.DataFrame([*rows, alone, *crossed]))
    assert found["n_real"].tolist() == [60, 120] and set(found["arm"]) == {"mixed"} and set(found["seeds"]) == {3}
    assert np.allclose(found["gain"], 4.0) and np.allclose(found["high"] - found["gain"], 4.302653 / 3**0.5)
