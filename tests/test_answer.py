"""What the plan of a study makes comparable, and that the answer holds every part that the plan has cells for."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from test_classifier import striped_faces
from test_study import BANK, GAN_POOL, KEPT, POOL, two_test_sets

from fer_lib import answer, explorer_study, paths, predictions, runs, study
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.intervals import fields, paired_gain

USUAL = dict(arms=["real", "real_long", "mixed", "generated", "external"], ratios=[1], n_real=24, n_seeds=2)
BLOCKS = [{}, {"arms": ["mixed"], "stopping": "paper"}, {"arms": ["mixed"], "ratios": [0.5, 2]},
          {"arms": ["real_long", "mixed"], "n_real": [12, 18], "n_seeds": 1}, {"arms": ["mixed"], "weight": 0.3},
          {"arms": ["mixed"], "crossed": 2}]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder, tests = tmp_path_factory.mktemp("study"), two_test_sets()
    cells = study.plan_blocks(BLOCKS, **USUAL)
    table = study.run(cells, train=POOL, validation=striped_faces(12, seed=7), generated=BANK, pool=GAN_POOL, kept=KEPT,
                      tests=tests, folder=folder, device="cpu", jobs=1, updates=2, looks=1, max_epochs=2, lr=1e-3,
                      authors_mode=True)
    return cells, table, folder, tests, answer.analyse(table, cells, folder, tests, n_real=24, headline_ratio=1,
                                                       resamples=200)


def test_a_group_holds_one_cell_per_arm_ratio_and_seed():
    cells = study.plan_blocks(BLOCKS, **USUAL)
    for options in ({"n_real": 24}, {"n_real": 24, "weight": 0.3}, {"n_real": 12}, {"n_real": 24, "stopping": "paper"}):
        group = answer.group(cells, **options)
        names = [(cell.arm, cell.ratio, cell.train_seed) for cell in group]
        assert group and len(names) == len(set(names)), options
    assert {cell.arm for cell in answer.group(cells, n_real=24, stopping="paper")} == {"real", "mixed"}
    assert {cell.ratio for cell in answer.group(cells, n_real=24) if cell.arm == "mixed"} == {0.5, 1, 2}


@pytest.mark.parametrize("options, message", [({"headline_ratio": 5}, "no arm mixed at the headline ratio 5"),
                                              ({"headline_ratio": 1, "intensity": 0.5}, "no arm mixed"),
                                              ({"headline_ratio": 1, "n_real": 13}, "no arm mixed")])
def test_a_plan_without_its_answer_is_refused_before_it_is_trained(options, message):
    cells = study.plan_blocks(BLOCKS, **USUAL)
    answer.check_plan(cells, n_real=24, headline_ratio=1)
    with pytest.raises(FerError, match=message):
        answer.check_plan(cells, **{"n_real": 24, **options})
    with pytest.raises(FerError, match="add real_long"):
        answer.check_plan([cell for cell in cells if not cell.arm.startswith("real")], n_real=24, headline_ratio=1)


@pytest.mark.parametrize("change, message", [({"arms": ["real_long", "mixd"]}, "'mixd' is unknown"),
                                             ({"blocks": [{"arm": ["mixed"]}]}, "no key 'arm'"),
                                             ({"ratios": [0, 1, 2]}, "no arm mixed at the headline ratio 5"),
                                             ({"blocks": [{"n_real": [600]}]}, "holds 360 images"),
                                             ({"blocks": [{"arms": ["mixed_filtered"], "intensity": 0.6}]},
                                              "mixed_filtered"),
                                             ({"expression_method": "stargan", "blocks": [{"intensity": 0.6}]},
                                              "which StarGAN does not have"),
                                             ({"expression_method": "stargan", "blocks": [{"intensity": 0.6}],
                                               "n_blocks": 0}, "which StarGAN does not have"),  # the bank has all
                                             ({"expression_method": "stargan", "person_weight": 1.0},
                                              "set person_weight=0"),
                                             ({"arms": ["real_long", "mixed", "generated"], "ratios": [0.02, 5]},
                                              "At ratio 0.02 the arm generated has 2 images"),
                                             ({"study_updates": 350, "study_looks": 20}, "set study_updates=360")])
def test_a_profile_whose_study_would_fail_is_refused_before_anything_is_trained(change, message):
    values = {"arms": ["real_long", "mixed"], "ratios": [5.0], "headline_ratio": 5.0, "n_real": 120, "n_seeds": 3,
              "blocks": [], "n_blocks": 99, "intensity": 1.0, "truncation": 1.0, "n_train_per_class": 60}
    answer.check_profile(values)
    answer.check_profile({"arms": ["mixd"]})  # notebooks without the study
    with pytest.raises(FerError, match=message):
        answer.check_profile(values | change)


def test_one_seed_has_an_answer_that_says_what_it_cannot_tell():
    main = {"seeds": 1, "accuracy": 0.5, "baseline_accuracy": 0.4, "baseline": "real_long",
            "gain_points": {"estimate": 10.0, "low": 2.0, "high": 18.0},
            "gain_relative": {"estimate": 0.25, "low": 0.0, "high": 0.5},
            "gain_points_anova": {"estimate": 10.0, "low": None, "high": None, "p": None}}
    told = answer.sentences({"main_contrast": main, "headline_ratio": 5.0, "test_set": "lab", "contrasts": {},
                             "upper_bound": {"identified": False}})
    assert "cannot be told" in told[0] and "analysis of variance" not in told[0] and "may change" in told[0]


def test_only_intervals_by_analysis_of_variance_are_called_so():
    def gain(seeds, low):
        return {"seeds": seeds, "accuracy": 0.5, "baseline_accuracy": 0.4, "baseline": "real_long", "ratio": 5.0,
                "gain_points": {"estimate": 10.0, "low": low, "high": 18.0},
                "gain_relative": {"estimate": None, "low": None, "high": None},
                "gain_points_anova": {"estimate": 10.0, "low": 4.0, "high": 16.0, "p": 0.1}}
    found = {"main_contrast": gain(8, 2.0), "headline_ratio": 5.0, "test_set": "lab",
             "contrasts": {"generated": gain(8, 2.0), "augmented": gain(3, 2.0)}, "upper_bound": {"identified": False}}
    told = answer.sentences(found)[1]
    assert "(+2.0 to +18.0); " in told and "(+4.0 to +16.0; by analysis of variance)" in told
    assert "generated faces alone +10.0" in told
    found["contrasts"]["generated"]["ratio"] = 1.0
    assert "generated faces alone (ratio 1) +10.0" in answer.sentences(found)[1]
    found["contrasts"].pop("generated")
    assert "baseline (by analysis of variance): " in answer.sentences(found)[1]


@pytest.mark.parametrize("seeds, anova, words", [(3, (-1, 20), "do not clearly change"), (3, (1, 19), "raise"),
                                                 (8, (-1, 20), "raise")])
def test_with_few_seeds_the_verdict_is_that_of_the_interval_to_be_trusted(seeds, anova, words):
    main = {"seeds": seeds, "accuracy": 0.5, "baseline_accuracy": 0.0, "baseline": "real_long",
            "gain_points": {"estimate": 10.0, "low": 2.0, "high": 18.0},
            "gain_relative": {"estimate": None, "low": None, "high": None},
            "gain_points_anova": {"estimate": 10.0, "low": anova[0], "high": anova[1], "p": 0.1}}
    told = answer.sentences({"main_contrast": main, "headline_ratio": 5.0, "test_set": "lab", "contrasts": {},
                             "upper_bound": {"identified": False, "at_most": 2.0}})
    assert f" {words} the accuracy" in told[0] and "relative" not in told[0] and "More than 2.0" in told[1]


@pytest.mark.parametrize("seeds, people, words", [(1, 30, "other seeds"), (8, 1, "other people"),
                                                  (8, 5, "so few people tested"), (8, 30, None)])
def test_few_people_are_too_few_to_tell_as_few_seeds_are(seeds, people, words):
    rng = np.random.default_rng(3)
    scores = rng.random((2, seeds, 60)) < [[[0.3]], [[0.9]]]
    gain = paired_gain(*scores, clusters=[f"person {index % people}" for index in range(60)], resamples=200)
    main = {"accuracy": 0.9, "baseline_accuracy": 0.3, "baseline": "real_long", **fields(gain, seeds)}
    told = answer.sentences({"main_contrast": main, "headline_ratio": 5.0, "test_set": "lab", "contrasts": {},
                             "upper_bound": {"identified": False, "at_most": 2.0}})[0]
    assert ("raise" if min(seeds, people) > 1 else "may change") in told
    assert "variance" not in told and "cannot be told" not in told if words is None else words in told


def test_what_a_quirk_fakes_is_the_difference_of_the_gains(found):
    *_, summary = found
    rows = {(row["test_set"], row["quirk"]): row for row in summary["authors_mode"]}
    for (name, quirk), row in rows.items():
        if quirk != "none":
            more = row["gain_points"]["estimate"] - rows[name, "none"]["gain_points"]["estimate"]
            assert row["faked_points"]["estimate"] == pytest.approx(more)
            assert row["faked_points_anova"]["estimate"] == pytest.approx(more)


def test_a_study_that_kept_quirks_of_the_papers_stopping_alone_is_told_without_the_others(found, tmp_path):
    cells, table, folder, tests, summary = found
    shutil.copytree(folder, tmp_path / "old")
    for path in (tmp_path / "old").glob("*_u.npz"):
        with np.load(path) as file:
            kept = {name: file[name] for name in file.files if ":" not in name}
        np.savez(path, **kept)
    rows = answer.authors_mode(cells, tmp_path / "old", tests, 24, 1, {}, resamples=200)
    assert rows == [row for row in summary["authors_mode"] if not row["quirk"].endswith("_at_equal_updates")]


def test_a_quirk_is_told_over_the_seeds_that_stop_as_in_the_paper(found):
    cells, _, folder, tests, _ = found
    fewer = [cell for cell in cells if cell.stopping == "updates" or cell.train_seed == 0]
    seeds = {row["quirk"]: row["seeds"] for row in answer.authors_mode(fewer, folder, tests, 24, 1, {}, resamples=50)}
    assert seeds.pop("none") == 2 and set(seeds.values()) == {1} and len(seeds) == 1 + 2 * len(study.QUIRKS)


def test_only_quirks_that_are_told_are_packed(found):
    cells, _, folder, tests, _ = found
    packed = {key.partition(":")[0].rpartition("/")[0] for key in predictions.pack(cells, folder, tests) if ":" in key}
    assert packed == {cell.name for cell in study.told_with_quirks(cells)}
    assert any(name.endswith("_u") for name in packed) and len(packed) < len(set(cells))


@pytest.mark.parametrize("change, complaint", [({"tests": {}}, "no test set"), ({"n_real": 100}, "no arm mixed"),
                                               ({"tests": "fewer"}, "tested on 24 images of lab, but 6 are given"),
                                               ({"tests": "other"}, "no test set 'street'")])
def test_an_answer_that_cannot_be_had_is_refused(found, change, complaint):
    cells, table, folder, tests, _ = found
    other = {"fewer": {"lab": tests["lab"].select(np.arange(6))}, "other": {"street": tests["lab"]}}
    options = {"tests": tests, "n_real": 24} | change
    if isinstance(options["tests"], str):
        options["tests"] = other[options["tests"]]
    with pytest.raises(FerError, match=complaint):
        answer.analyse(table, cells, folder, headline_ratio=1, **options)


def test_a_study_of_another_intensity_has_its_answer(tmp_path):
    bank = Faces(BANK.images, BANK.table.assign(intensity=0.6, truncation=1.0), "generated")
    blocks = [{"ratios": [0.5, 1, 2], "n_real": [12, 24], "n_seeds": 1}, {}]
    cells = study.plan_blocks(blocks, arms=["real_long", "mixed"], ratios=[1], n_real=24, n_seeds=2, intensity=0.6)
    tests = two_test_sets()
    table = study.run(cells, train=POOL, validation=striped_faces(12, seed=7), generated=bank, tests=tests,
                      folder=tmp_path, device="cpu", jobs=1, updates=2, looks=1, lr=1e-3)
    summary = answer.analyse(table, cells, tmp_path, tests, n_real=24, headline_ratio=1, usual={"intensity": 0.6},
                             resamples=200)
    assert summary["main_contrast"]["seeds"] == 2 and summary["law"]["cells"] == 6
    assert len(explorer_study.main_rows(table, summary)) == len(table.query("n_real == 24"))
    np.savez(tmp_path / "predictions.npz", **predictions.pack(cells, tmp_path, tests))
    table.to_csv(tmp_path / "ratio_study.csv", index=False)
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"trained_on": {}}))
    assert predictions.analyse(tmp_path, resamples=200)["main_contrast"] == summary["main_contrast"]
    other = table.assign(intensity=1.0)[table["arm"] == "mixed"]  # a block of full intensity beside it
    rows = explorer_study.main_rows(pd.concat([table, other]), summary)
    assert set(rows[rows["arm"] == "mixed"]["intensity"]) == {0.6}


@pytest.mark.parametrize("arms, blocks", [
    (["real", "mixed"], [{"n_real": [12, 18, 24], "ratios": [0.5, 1]}]),  # six cells of mixed, but no real_long
    (["real", "real_long", "mixed"],
     [{"n_real": [12, 18, 24], "weight": [0, 1]}]),  # six, of which three count for nothing
    (["real", "mixed"], [{"n_real": [12, 18, 24], "ratios": [0.5, 1]}, {"arms": ["real_long"], "n_real": 30}]),
    (["real", "mixed"], [{"n_real": [12, 18, 24], "ratios": [0.5, 1]},
                         {"arms": ["real_long"], "n_real": 24}])])  # six; four have nothing to compare with
def test_a_plan_with_too_little_for_a_law_has_its_answer_without_one(tmp_path, arms, blocks):
    cells = study.plan_blocks(blocks, arms=arms, ratios=[1], n_real=24, n_seeds=1)
    assert len({(cell.n_real, cell.ratio, cell.weight) for cell in cells if cell.arm == "mixed"}) == 6
    tests = two_test_sets()
    table = study.run(cells, train=POOL, validation=striped_faces(12, seed=7), generated=BANK, tests=tests,
                      folder=tmp_path, device="cpu", jobs=1, updates=2, looks=1, max_epochs=1, lr=1e-3)
    summary = answer.analyse(table, cells, tmp_path, tests, n_real=24, headline_ratio=1, resamples=100)
    assert "law" not in summary
    anova = summary["main_contrast"]["gain_points_anova"]
    assert anova["low"] is anova["high"] is anova["p"] is None and anova["estimate"] == pytest.approx(
        summary["gain_points"]["estimate"])  # one seed
    json.dumps(summary, allow_nan=False)


def test_no_arm_has_no_probabilities(found):
    cells, _, folder, _, _ = found
    assert answer.probabilities(cells, folder, "lab", [("augmented", 0.0)]) == {}


def test_the_answer_is_plain_and_holds_all_that_was_planned(found):
    *_, summary = found
    assert json.loads(json.dumps(summary)).keys() == summary.keys()
    assert ({"main_contrast", "axes", "worth", "variance", "paper_stopping", "authors_mode", "other_n_real"}
            <= summary.keys())
    assert summary["main_contrast"]["baseline"] == "real_long" and summary["main_contrast"]["equal_updates"]
    alone = {f"{quirk}_at_equal_updates" for quirk in study.QUIRKS}
    assert {row["quirk"] for row in summary["authors_mode"]} == {"none", "paper_stopping", *study.QUIRKS, *alone}
    assert {size: other["worth"]["n_real"] for size, other in summary["other_n_real"].items()} == {"12": 12, "18": 18}
    assert set(summary["paper_stopping"]) == {"lab", "wild"}


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A profile `mine`, which writes into tmp_path."""
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "mine.yaml").write_text("")
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")


def test_the_answer_can_be_had_again_from_what_is_kept(found, tmp_path, profile):
    cells, table, folder, tests, summary = found
    workspace = runs.open_workspace("mine", step="06_ratio_study")
    workspace.save_table(table, "ratio_study")
    workspace.save_json(summary | {"trained_on": {}}, "summary")
    with pytest.raises(FerError, match="predictions.npz is missing"):
        predictions.analyse(workspace.results)
    workspace.save_arrays(predictions.pack(cells, folder, tests), "predictions")
    again = predictions.analyse(workspace.results, resamples=200)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(summary | {"trained_on": {}}))
    written = workspace.results / "summary.json"
    written.write_text(json.dumps({"trained_on": {}, "n_real": again["n_real"],
                                   "headline_ratio": again["headline_ratio"]}))
    assert predictions.main(["mine", "--summary"]) == 0
    assert json.loads(written.read_text()) == json.loads(json.dumps(predictions.analyse(workspace.results)))
    assert json.loads((workspace.results / "provenance.json").read_text())["summary"]["files"] == ["summary.json"]
    drawn = {path.name for path in (tmp_path / "figures" / "mine").iterdir()}
    assert {"study_gains_lab.png", "study_gains_wild.svg", "study_axes.png", "study_worth_n12.png"} <= drawn
    assert study.cells_of(table) == cells
    workspace.save_table(table.assign(accuracy=table["accuracy"].where(table["arm"] != "mixed", 0.99)), "ratio_study")
    before = written.read_text()
    assert predictions.main(["mine", "--summary"]) == 1 and written.read_text() == before  # answers of another study


def test_two_studies_are_compared_classifier_by_classifier(found, tmp_path, profile, capsys):
    cells, table, folder, tests, _ = found
    packed = predictions.pack(cells, folder, tests)
    changed = {key for key in packed if key.startswith("mixed_r1_w1_n24") and key.endswith("/lab")}
    better = {key: np.eye(6, dtype=np.float16)[tests["lab"].codes] if key in changed else values
              for key, values in packed.items()}
    right, lab = table.copy(), table["test_set"] == "lab"
    right.loc[lab, "accuracy"] = [1.0 if f"{cell.name}/lab" in changed else accuracy for cell, accuracy in zip(
        study.cells_of(table[lab]), table.loc[lab, "accuracy"], strict=True)]
    for name, rows, arrays in (("mine", right, better), ("theirs", table, packed)):
        workspace = runs.open_workspace(name, step="06_ratio_study")
        workspace.save_table(rows, "ratio_study")
        workspace.save_arrays(arrays, "predictions")
    gained = predictions.compare(*(paths.results_folder(name) for name in ("mine", "theirs")))
    assert set(gained["arm"]) == {"mixed"} and set(gained["test_set"]) == {"lab"} and (gained["accuracy"] == 1).all()
    assert gained["gain_points"].to_numpy() == pytest.approx(100 * (1 - gained["other_accuracy"]).to_numpy())
    crossed = [cell for cell in cells if f"{cell.name}/lab" in changed and not answer.same_seeds(cell)]
    assert crossed and gained["seeds"].sum() == len(changed) - len(crossed)  # which are no further repetitions
    assert predictions.compare(*[paths.results_folder("mine")] * 2).empty
    assert predictions.main(["mine", "--against", "theirs"]) == 0 and "gain_points" in capsys.readouterr().out
    assert predictions.main(["mine", "--against", "none"]) == 1 and "is missing" in capsys.readouterr().err
    others = packed | {"tests/lab/id": packed["tests/lab/id"][::-1].copy()}
    runs.open_workspace("theirs", step="06_ratio_study").save_arrays(others, "predictions")
    with pytest.raises(FerError, match="images of the test set lab differ between mine and theirs"):
        predictions.compare(*(paths.results_folder(name) for name in ("mine", "theirs")))


def leaves(value, name=""):
    """(name, value) of everything in a summary that holds nothing else."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield name, value
    for key, each in inside or ():
        yield from leaves(each, f"{name}/{key}")


@pytest.mark.parametrize("path", sorted((paths.REPOSITORY / "results").glob("*/predictions.npz")),
                         ids=lambda path: path.parent.name)
def test_committed_answers_give_the_committed_summary(path):
    committed = json.loads((path.parent / "summary.json").read_text(encoding="utf-8"))
    again, before = (dict(leaves(summary)) for summary in (predictions.analyse(path.parent), committed))
    numbers = [name for name, value in before.items() if isinstance(value, float)]
    small = ("demo", "fer2013_muon", "fer2013_faces_only", "fer2013_deeper")  # plans, whose summaries are small, too
    expected = 500 if path.parent.name in small else 1_000
    assert len(numbers) > expected and again.keys() == before.keys()
    assert [again.pop(name) for name in numbers] == pytest.approx([before.pop(name) for name in numbers],
                                                                  rel=1e-6, abs=1e-6)
    assert again == before


def test_answers_of_a_study_that_has_not_run_are_not_kept(tmp_path, profile, capsys):
    assert predictions.main(["mine"]) == 1 and "run notebooks/01_data_prep.ipynb" in capsys.readouterr().err
    assert predictions.main(["mien"]) == 1 and "did you mean `mine`" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "mien").exists()


def test_rounded_answers_have_the_same_first_choice():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(6) * 1e4, 5_000).astype(np.float32)
    rounded = predictions.halved(probabilities)
    assert (rounded.argmax(1) == probabilities.argmax(1)).all() and np.abs(rounded - probabilities).max() < 1e-3
    assert (probabilities.astype(np.float16).argmax(1) != probabilities.argmax(1)).any()


def test_gains_agree_with_the_table(found):
    _, table, _, _, summary = found
    main = table.query("n_real == 24 and stopping == 'updates' and weight == 1 and split_seed == train_seed"
                       " and generator_seed == train_seed and test_set == 'lab'")
    means = main.groupby(["arm", "ratio"])["accuracy"].mean()
    gain = 100 * (means["mixed", 1] - means["real_long", 0])
    assert (np.isclose(summary["gain_points"]["estimate"], gain)
            and np.isclose(summary["axes"][-2]["gain_points"]["estimate"], gain))
    paper = table.query("stopping == 'paper' and test_set == 'wild'").groupby("arm")["accuracy"].mean()
    assert np.isclose(summary["paper_stopping"]["wild"]["gain_points"]["estimate"],
                      100 * (paper["mixed"] - paper["real"]))


def test_generated_faces_are_compared_with_augmentation(tmp_path):
    cells, tests = study.plan(["augmented", "mixed"], [1], 24, range(2), stopping="updates"), two_test_sets()
    table = study.run(cells, train=POOL, validation=striped_faces(12, seed=7), generated=BANK, tests=tests,
                      folder=tmp_path, device="cpu", jobs=1, updates=2, looks=1)
    rows = answer.over_augmented(cells, tmp_path, tests, 1, {}, resamples=50)
    means = table.groupby(["test_set", "arm"])["accuracy"].mean()
    assert ([(row["n_real"], row["arm"], row["test_set"]) for row in rows]
            == [(24, "mixed", "lab"), (24, "mixed", "wild")])
    for row in rows:
        gain = means[row["test_set"], "mixed"] - means[row["test_set"], "augmented"]
        assert np.isclose(row["gain_points"]["estimate"], 100 * gain)


def test_accuracy_is_told_by_intensity_where_that_is_known(found):
    cells, table, folder, tests, summary = found
    assert "intensity" not in summary
    lab = tests["lab"]
    strength = np.random.default_rng(0).uniform(0.6, 1.1, len(lab))
    known = tests | {"lab": Faces(lab.images, lab.table.assign(intensity=strength), lab.origin)}
    told = answer.by_intensity(answer.group(cells, n_real=24), folder, known, 1, n_bins=2, resamples=50)
    assert set(told) == {"lab"} and json.loads(json.dumps(told)) == told
    rows = [row for row in told["lab"]["accuracy"] if row["arm"] == "mixed"]
    of_mixed = table.query("arm == 'mixed' and ratio == 1 and n_real == 24 and stopping == 'updates' and weight == 1"
                           " and split_seed == train_seed and generator_seed == train_seed"
                           " and test_set == 'lab'")["accuracy"]
    assert len(rows) == 2 and np.isclose(np.average([row["accuracy"] for row in rows],
                                                    weights=[row["images"] for row in rows]), of_mixed.mean())


def test_a_small_plan_has_a_small_answer(found):
    cells, table, folder, tests, _ = found
    few = [cell for cell in answer.group(cells, n_real=24) if cell.arm in ("real_long", "mixed") and cell.ratio != 2]
    summary = answer.analyse(answer.rows_of(table, few), few, folder, tests, n_real=24, headline_ratio=1, resamples=50)
    assert not {"worth", "law", "variance", "authors_mode", "paper_stopping"} & summary.keys()
    assert len(answer.sentences(summary)) == 2


@pytest.mark.parametrize("low, high, verb", [(1, 3, "raise"), (-3, -1, "lower"), (-1, 1, "do not clearly change")])
def test_the_sentences_follow_the_interval(found, low, high, verb):
    summary = json.loads(json.dumps(found[-1]))
    for interval in ("gain_points", "gain_points_anova"):  # two seeds: the latter counts
        summary["main_contrast"][interval] |= {"low": low, "high": high}
    told = answer.sentences(summary, "rendered")
    assert verb in told[0] and "rendered faces alone at as many updates" in told[0] and len(told) == 3


def test_few_seeds_have_the_interval_that_holds_with_few(found):
    summary = json.loads(json.dumps(found[-1]))
    other = next(name for name in ("generated", "augmented", "external") if name in summary["contrasts"])
    summary["contrasts"][other] |= {"seeds": 3, "gain_points_anova": {"estimate": 2.0, "low": -4.5, "high": 8.5}}
    assert "2.0 points (-4.5 to +8.5)" in answer.sentences(summary)[1]
    summary["contrasts"][other] |= {"seeds": 8, "gain_points": {"estimate": 2.0, "low": 0.5, "high": 3.5}}
    assert "2.0 points (+0.5 to +3.5)" in answer.sentences(summary)[1]
    summary["main_contrast"] |= {"seeds": 3, "gain_points_anova": {"estimate": 5.0, "low": -1.25, "high": 11.0},
                                 "gain_relative_anova": {"estimate": 0.4, "low": -0.1, "high": 0.9}}
    assert "-1.2 to +11.0 points, relative -10% to +90%, and so does not exclude 0" in answer.sentences(summary)[0]
    summary["main_contrast"]["gain_points_anova"]["low"] = 1.0
    assert "+1.0 to +11.0 points, relative -10% to +90%." in answer.sentences(summary)[0]
    summary["main_contrast"]["seeds"] = 8
    assert "variance" not in answer.sentences(summary)[0]


def test_probabilities_share_their_seeds(found):
    cells, _, folder, _, _ = found
    seen = answer.probabilities(answer.group(cells, n_real=24), folder, "lab",
                                [("mixed", 1.0), ("real_long", 0.0), ("noise", 1.0)])
    assert set(seen) == {("mixed", 1.0), ("real_long", 0.0)} and all(rows.shape == (2, 24, 6) for rows in seen.values())
