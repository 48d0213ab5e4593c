"""What a classifier of the study is trained on, and that an interrupted study goes on where it stopped."""

import json

import numpy as np
import pytest
import torch
from test_classifier import striped_faces

from fer_lib import study
from fer_lib.errors import FerError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS
from fer_lib.networks.paper_cnn import Dropout

POOL = striped_faces(240, seed=1)


def bank_of(n, *, seeds=(0, 1)):
    parts = [striped_faces(n, seed=50 + seed) for seed in seeds]
    return concatenate([Faces(part.images, part.table.assign(generator_seed=seed), "generated")
                        for part, seed in zip(parts, seeds, strict=True)])


BANK = bank_of(300)
GAN_POOL = striped_faces(900, seed=9, expressions=ALL_EXPRESSIONS)
KEPT = np.arange(len(BANK)) // 6 % 3 > 0
SOURCES = study.Sources(POOL, BANK, GAN_POOL, KEPT)


def cell(arm, ratio, *, n_real=60, seed=0, **other):
    return study.Cell(arm, ratio, n_real, split_seed=seed, generator_seed=seed, train_seed=seed, **other)


def ids(faces):
    return set(faces.table["id"])


def test_ratio_0_contains_no_generated_image_and_equals_real():
    mixed, _ = study.training_set(SOURCES, cell("mixed", 0))
    real, _ = study.training_set(SOURCES, cell("real", 0))
    assert mixed.origin == "rendered" and mixed.fingerprint == real.fingerprint


@pytest.mark.parametrize("ratio", [0.5, 1, 2.25, 5])
def test_ratio_is_generated_divided_by_real(ratio):
    faces, _ = study.training_set(SOURCES, cell("mixed", ratio))
    n_generated = len(ids(faces) & ids(BANK))
    assert n_generated == round(60 * ratio) == cell("mixed", ratio).n_generated
    assert len(faces) == 60 + n_generated


def test_mixed_is_real_and_generated_together():
    mixed, real, generated = (study.training_set(SOURCES, cell(arm, 2))[0]
                              for arm in ("mixed", "real", "generated"))
    assert ids(mixed) == ids(real) | ids(generated) and generated.origin == "generated"


@pytest.mark.parametrize("arm", study.ARMS)
def test_every_arm_has_the_real_images_and_what_it_adds_and_nothing_else(arm):
    faces, _ = study.training_set(SOURCES, cell(arm, 2))
    real = ids(study.training_set(SOURCES, cell("real", 0))[0])
    added = ids(faces) - real
    assert arm == "generated" or real <= ids(faces)
    if arm in ("real", "real_long", "augmented"):
        assert not added and len(faces) == 60
    elif arm == "oversampled":
        assert not added and len(faces) == 180 and faces.table["id"].value_counts().eq(3).all()
    else:
        assert len(added) == 120 and len(faces) == (120 if arm == "generated" else 180)
        allowed = {"noise": {f"noise-{row}" for row in range(120)}, "external": ids(GAN_POOL),
                   "mixed_filtered": ids(BANK.select(KEPT))}
        assert added <= allowed.get(arm, ids(BANK))
    assert faces.counts()[list(EXPRESSIONS)].nunique() == 1 and faces.counts()["neutral"] == 0


def test_a_pool_with_too_few_of_an_expression_has_them_repeated():
    rows = np.flatnonzero(GAN_POOL.table["expression"] == "disgust")
    few = GAN_POOL.select(np.setdiff1d(np.arange(len(GAN_POOL)), rows[7:]))
    faces, _ = study.training_set(study.Sources(POOL, BANK, few), cell("external", 2))
    added = faces.table[faces.table["id"].isin(ids(few))]["id"]
    assert faces.counts()["disgust"] == 30 and added.nunique() == 100 + 7
    with pytest.raises(FerError, match="Only 0 images of disgust"):
        study.training_set(study.Sources(POOL, BANK, few.select(few.table["expression"] != "disgust")),
                           cell("external", 2))


def test_noise_tells_nothing_of_its_label():
    faces, _ = study.training_set(SOURCES, cell("noise", 5))
    drawn = faces.select(faces.table["id"].str.startswith("noise").to_numpy())
    means = np.array([np.asarray(drawn.of([name]).images).mean() for name in EXPRESSIONS])
    assert np.ptp(means) < 3 and abs(means.mean() - np.asarray(POOL.images).mean()) < 15


def test_every_arm_gets_the_same_updates():
    rules = [study.stopping_rule(cell(arm, ratio, stopping="updates"), updates=100, looks=5, lr=1e-4)
             for arm in study.ARMS for ratio in (1, 5)]
    assert all(rule == rules[0] for rule in rules)
    assert rules[0]["steps_per_epoch"] * rules[0]["max_epochs"] == 100 and rules[0]["patience"] == 5
    assert "steps_per_epoch" not in study.stopping_rule(cell("mixed", 2), updates=100, looks=5)


def test_a_fixed_number_of_updates_is_spent_whatever_the_arm(tmp_path):
    cells = [cell(arm, 1, n_real=24, stopping="updates")
             for arm in ("real_long", "mixed_filtered", "augmented", "external")]
    table = study.run(cells, train=POOL, validation=striped_faces(12, seed=3), generated=BANK, pool=GAN_POOL, kept=KEPT,
                      tests={"lab": striped_faces(12, seed=4)}, folder=tmp_path, updates=6, looks=3, jobs=1)
    assert set(table["updates"]) == {6} and (table["stopping"] == "updates").all()
    assert table["n_generated"].tolist() == [0, 24, 0, 0]


def test_an_arm_without_its_source_is_refused():
    for arm, what in (("mixed_filtered", "selected"), ("external", "pool"), ("generated", "no generated faces")):
        with pytest.raises(FerError, match=what):
            study.training_set(study.Sources(POOL, BANK if arm == "mixed_filtered" else None), cell(arm, 1))


def test_generated_faces_of_one_intensity_are_drawn():
    table = BANK.table.assign(intensity=np.where(np.arange(len(BANK)) // 6 % 2, 1.0, 0.5))
    sources = study.Sources(POOL, Faces(BANK.images, table, "generated"))
    for intensity in (0.5, 1.0):
        faces, _ = study.training_set(sources, cell("generated", 1, intensity=intensity))
        assert (faces.table["intensity"] == intensity).all()
    one = study.Sources(POOL, Faces(BANK.images, BANK.table.assign(truncation=1.0), "generated"))
    with pytest.raises(FerError, match="truncation 0.5"):
        study.training_set(one, cell("generated", 1, truncation=0.5))


def test_every_class_has_as_many_images_as_any_other_within_one():
    for n in (6, 60, 63):
        counts = study.draw_real(POOL, n, seed=0).counts()[list(EXPRESSIONS)]
        assert counts.sum() == n and counts.max() - counts.min() <= 1


def test_a_larger_set_contains_the_smaller_ones():
    sets = [ids(study.draw_generated(BANK, n, generator_seed=1)) for n in (10, 60, 61, 240)]
    assert all(small < large for small, large in zip(sets, sets[1:], strict=False))


def test_only_rows_of_the_generator_seed_are_drawn():
    assert set(study.draw_generated(BANK, 60, generator_seed=1).table["generator_seed"]) == {1}


def test_seeds_decide_the_images_and_ratios_share_them():
    draws = [ids(study.draw_real(POOL, 60, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    reals = [ids(study.training_set(SOURCES, cell("mixed", ratio))[0]) & ids(POOL) for ratio in (1, 4)]
    assert reals[0] == reals[1]


def test_generated_images_carry_their_weight():
    faces, weights = study.training_set(SOURCES, cell("mixed", 1, weight=0.25))
    is_generated = faces.table["id"].isin(ids(BANK)).to_numpy()
    assert (weights[is_generated] == 0.25).all() and (weights[~is_generated] == 1).all()


def test_plan_has_real_once_and_every_other_arm_at_every_ratio_per_seed():
    cells = study.plan(["real", "generated", "mixed"], [0, 1, 5], 60, [0, 1, 2])
    assert len(cells) == 3 * (1 + 2 + 2) == len({each.name for each in cells})
    assert {each.ratio for each in cells if each.arm == "real"} == {0}
    assert {each.ratio for each in cells if each.arm == "mixed"} == {1, 5}
    assert all(each.split_seed == each.generator_seed == each.train_seed for each in cells)


def test_arms_that_add_nothing_are_planned_once_and_real_always_stops_as_in_the_paper():
    cells = study.plan(["real", "real_long", "augmented", "external"], [1, 5], 60, [0], stopping="updates")
    assert [(each.arm, each.ratio, each.stopping) for each in cells] == [
        ("real", 0, "paper"), ("real_long", 0, "updates"), ("augmented", 0, "updates"), ("external", 1, "updates"),
        ("external", 5, "updates")]


def test_repeated_images_stay_balanced_at_every_ratio():
    for ratio in (0.5, 1, 2.3):
        faces, _ = study.training_set(SOURCES, cell("oversampled", ratio))
        counts = np.bincount(faces.codes)
        assert len(faces) == 60 + round(60 * ratio) and np.ptp(counts) <= 1
        assert ids(faces) == ids(study.training_set(SOURCES, cell("real", 0))[0])


USUAL = dict(arms=["real_long", "mixed"], ratios=[5], n_real=60, n_seeds=2)


def test_an_arm_without_generated_images_is_planned_once_whatever_theirs_are():
    cells = study.plan_blocks([{"weight": [0.1, 0.3], "truncation": 0.5}], **USUAL)
    assert [(each.weight, each.truncation) for each in cells if each.arm == "real_long"] == [(1, 1)] * 2
    assert (sorted((each.weight, each.truncation) for each in cells if each.arm == "mixed")
            == [(0.1, 0.5)] * 2 + [(0.3, 0.5)] * 2)


def test_blocks_add_grids_and_no_cell_twice():
    main = study.plan_blocks([{}], **USUAL)
    assert len(main) == 4 and {each.stopping for each in main} == {"updates"}
    more = study.plan_blocks([{}, {"ratios": [1, 5]},
                              {"n_real": [30, 60], "weight": 0.5, "n_seeds": 1, "arms": ["mixed"]}], **USUAL)
    assert more[:4] == main and len(more) == len(set(more)) == 4 + 2 + 2
    assert {(each.n_real, each.weight) for each in more[-2:]} == {(30, 0.5), (60, 0.5)}


def test_a_crossed_block_varies_the_seeds_apart():
    cells = study.plan_blocks([{"arms": ["mixed"], "crossed": 2}], **USUAL)
    assert [(each.split_seed, each.generator_seed, each.train_seed) for each in cells] == [
        (0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)]


@pytest.mark.parametrize("block, message", [
    ({"seeds": 3}, "no key 'seeds'"), ({"n_seeds": [3]}, "give a whole number, 1"),
    ({"n_seeds": 0}, "give a whole number, 1"), ({"stopping": "soon"}, "give updates or paper"),
    ({"arms": "mixed"}, "give a list of names"), ({"arms": [["mixed"]]}, "give a list of names"),
    ({"ratios": ["5e-1"]}, "'5e-1'.* give a list of numbers"), ({"ratios": 5}, "give a list of numbers"),
    ({"weight": [-0.1]}, "0 or more"), ({"intensity": float("nan")}, "0 or more"),
    ({"n_real": [60, 60.5]}, "give a whole number")])
def test_a_block_that_cannot_be_is_refused(block, message):
    with pytest.raises(FerError, match=message):
        study.plan_blocks([block], **USUAL)
    name, value = next(iter(block.items()))
    with pytest.raises(FerError, match=message):  # and no more so where it is said for all blocks
        study.plan_blocks([{}], **USUAL | {name: value})


def test_a_plan_that_does_not_say_enough_is_refused():
    for name in ("arms", "ratios", "n_real", "n_seeds"):
        with pytest.raises(FerError, match=f"does not say {name}: give"):
            study.plan_blocks([{}], **{key: value for key, value in USUAL.items() if key != name})
    assert study.plan_blocks([{"crossed": 2}], **{key: value for key, value in USUAL.items() if key != "n_seeds"})


def test_updates_that_looks_do_not_divide_are_refused():
    cell = study.plan_blocks([{}], **USUAL)[0]
    assert study.stopping_rule(cell, updates=60, looks=20)["steps_per_epoch"] == 3
    with pytest.raises(FerError, match="choose a multiple of 20, or other looks"):
        study.stopping_rule(cell, updates=50, looks=20)


def test_the_bank_holds_what_a_plan_draws_and_no_more():
    cells = study.plan_blocks([{"arms": ["mixed"]}, {"arms": ["mixed_filtered"], "n_seeds": 1},
                               {"arms": ["generated"], "intensity": 0.5, "ratios": [1], "n_seeds": 1}], **USUAL)
    assert study.bank_needed(cells, keep_share=0.5) == [
        {"seed": 0, "intensity": 1.0, "truncation": 1.0, "n_identities": 110},
        {"seed": 1, "intensity": 1.0, "truncation": 1.0, "n_identities": 50},
        {"seed": 0, "intensity": 0.5, "truncation": 1.0, "n_identities": 10}]


def test_a_long_study_says_how_long_it_takes_and_a_short_one_does_not(caplog):
    assert study.announce(study.LONG - 1, 3, POOL) is None
    with caplog.at_level("INFO"):
        seconds = study.announce(study.LONG, 3, POOL, jobs=1)
    assert seconds > 0 and "3 classifiers, 0.2 million images" in caplog.text


def test_quirks_are_kept_of_every_classifier_whatever_else_the_plan_holds(tmp_path):
    cells = [cell("real_long", 0, n_real=12, stopping="updates"), cell("real", 0, n_real=12)]
    tests, options = two_test_sets(), {"max_epochs": 3, "updates": 2, "looks": 2}
    run(tmp_path, cells=cells[:1], authors_mode=True, **options)
    before = (tmp_path / f"{cells[0].name}.json").stat().st_mtime_ns
    run(tmp_path, cells=cells, authors_mode=True, **options)  # a larger plan trains nothing anew
    assert (tmp_path / f"{cells[0].name}.json").stat().st_mtime_ns == before
    for tested in cells:
        plain, unscaled, last = (study.predictions(tmp_path, tested, quirk=quirk)
                                 for quirk in ("", "unscaled_test", "last_weights"))
        assert set(plain) == set(unscaled) == set(tests) and not np.allclose(plain["lab"], unscaled["lab"])
        assert last["lab"].shape == plain["lab"].shape
    assert study.correctness(tmp_path, cells[1:], tests, quirk="both")["lab"]["real", 0].shape == (1, 24)
    run(tmp_path, cells=cells, **options)  # nor does one that asks for less
    assert (tmp_path / f"{cells[0].name}.json").stat().st_mtime_ns == before


def test_answers_without_the_quirks_that_are_asked_for_are_not_enough(tmp_path):
    asked, options = cell("real_long", 0, n_real=12, stopping="updates"), {"updates": 2, "looks": 2}
    plain = run(tmp_path / "one", cells=[asked], store=tmp_path / "store", **options)
    with pytest.raises(FerError, match="authors_mode=True"):
        study.predictions(tmp_path / "one", asked, quirk="both")
    for folder in ("one", "two"):  # whose own answers, or the store's, have none
        again = run(tmp_path / folder, cells=[asked], store=tmp_path / "store", authors_mode=True, **options)
        assert study.predictions(tmp_path / folder, asked, quirk="both").keys() == two_test_sets().keys()
        assert again.drop(columns="seconds").equals(plain.drop(columns="seconds"))


def test_told_with_quirks_are_twins_that_differ_in_their_stopping_alone():
    paper = [cell("real", 0), cell("mixed", 1), cell("generated", 1)]
    twins = [cell("real_long", 0, stopping="updates"), cell("mixed", 1, stopping="updates")]
    others = [cell("mixed", 2, stopping="updates"), cell("mixed", 1, stopping="updates", weight=0.5),
              cell("mixed", 1, seed=9, stopping="updates"), cell("external", 1, stopping="updates")]
    assert study.told_with_quirks([*paper, *twins, *others]) == {*paper, *twins}
    assert study.told_with_quirks([*twins, *others]) == set()


@pytest.mark.parametrize("arguments, message", [
    ((["real"], [-1], 60, [0]), "ratio -1 is not possible"),
    ((["reel"], [1], 60, [0]), "arm 'reel' is unknown"),
    ((["real"], [1], 5, [0]), "without an image"),
])
def test_a_plan_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(FerError, match=message):
        study.plan(*arguments)


def test_too_small_a_bank_or_pool_is_refused():
    with pytest.raises(FerError, match="50 images of anger are among the generated faces"):
        study.training_set(SOURCES, cell("generated", 6))
    with pytest.raises(FerError, match="40 images of anger are among the training reserve"):
        study.training_set(SOURCES, cell("real", 0, n_real=300))
    with pytest.raises(FerError, match="no generated faces with a column generator_seed"):
        study.training_set(study.Sources(POOL), cell("mixed", 1))


def two_test_sets():
    return {"lab": striped_faces(24, seed=8), "wild": striped_faces(12, seed=9)}


def run(folder, *, cells=None, **options):
    cells = cells or study.plan(["real", "mixed"], [0, 1], 12, [0, 1])
    options = {"max_epochs": 1, "lr": 1e-3, "jobs": 1, "generated": BANK, **options}
    return study.run(cells, train=POOL, validation=striped_faces(12, seed=7), tests=two_test_sets(), folder=folder,
                     device="cpu", **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, run(folder)


def test_the_table_has_the_columns_of_the_contract_in_plan_order(finished):
    _, table = finished
    assert list(table.columns) == study.COLUMNS
    assert table[["arm", "ratio", "train_seed", "test_set"]].to_records(index=False).tolist()[:4] == [
        ("real", 0, 0, "lab"), ("real", 0, 0, "wild"), ("mixed", 1, 0, "lab"), ("mixed", 1, 0, "wild")]
    assert table["n_test"].tolist()[:2] == [24, 12] and len(table) == 8


def test_same_seeds_give_the_same_table_whatever_the_number_of_processes(finished, tmp_path):
    again = run(tmp_path, jobs=2)
    assert again.drop(columns="seconds").equals(finished[1].drop(columns="seconds"))


def test_a_finished_study_trains_nothing(finished, monkeypatch):
    monkeypatch.setattr(study, "train_cell", None)
    assert run(finished[0]).equals(finished[1])


def test_an_interrupted_study_goes_on_where_it_stopped(finished, tmp_path, monkeypatch):
    train_cell, trained = study.train_cell, []

    def until_the_third(task):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(task.cell)
        return train_cell(task)

    monkeypatch.setattr(study, "train_cell", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr(study, "train_cell", lambda task: trained.append(task.cell) or train_cell(task))
    resumed = run(tmp_path)
    assert len(trained) == len(set(trained)) == 4
    assert resumed.drop(columns="seconds").equals(finished[1].drop(columns="seconds"))


def test_another_bank_trains_again_only_what_uses_the_bank(tmp_path, monkeypatch):
    cells = [cell(arm, 1, n_real=12) for arm in ("real", "noise", "mixed", "generated")]
    options = {"cells": cells, "store": tmp_path / "store"}
    first = run(tmp_path / "one", **options)
    train_cell, trained = study.train_cell, []
    monkeypatch.setattr(study, "train_cell", lambda task: trained.append(task.cell.arm) or train_cell(task))
    again = run(tmp_path / "two", **options)
    assert again.equals(first) and not trained
    other = run(tmp_path / "three", generated=bank_of(120, seeds=(0,)), **options)
    assert sorted(trained) == ["generated", "mixed"]
    plain = other["arm"].isin(["real", "noise"])
    assert other[plain].equals(first[plain]) and not other[~plain].equals(first[~plain])


def test_what_a_classifier_does_not_see_does_not_train_it_again(tmp_path, monkeypatch):
    cells = [cell(arm, 1, n_real=12, stopping="updates") for arm in ("real_long", "mixed")]
    options = {"cells": cells, "store": tmp_path / "store", "updates": 2, "looks": 1}
    first = run(tmp_path / "one", **options)
    train_cell, trained = study.train_cell, []
    monkeypatch.setattr(study, "train_cell", lambda task: trained.append(task.cell.arm) or train_cell(task))
    options |= {"kept": KEPT, "max_epochs": 7}
    options["cells"] = [*cells, cell("mixed_filtered", 1, n_real=12, stopping="updates"), cell("real", 0, n_real=12)]
    again = run(tmp_path / "two", **options)
    assert sorted(trained) == ["mixed_filtered", "real"] and again.iloc[:len(first)].equals(first)


MANY = [cell(arm, 1, n_real=12, seed=seed, stopping="updates") for arm in ("mixed", "augmented", "real_long")
        for seed in (0, 1)] + [cell("real", 0, n_real=12)]
FEW_UPDATES = {"updates": 4, "looks": 2, "lr": 1e-4}


def test_cells_trained_together_are_those_trained_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(Dropout, "forward", lambda self, x: x)
    cells = [each for each in MANY if each.arm != "augmented"]
    alone = run(tmp_path / "alone", cells=cells, **FEW_UPDATES)
    together = run(tmp_path / "together", cells=cells, ensemble=3, **FEW_UPDATES)
    assert together.drop(columns="seconds").equals(alone.drop(columns="seconds"))
    for each in cells:
        mine, other = (study.predictions(tmp_path / name, each) for name in ("together", "alone"))
        assert all(np.allclose(mine[name], other[name], atol=1e-4) for name in other)


def test_the_time_of_cells_trained_together_is_told_from_their_own_speed(monkeypatch):
    def speed(shape, n):
        if n > 4:
            raise torch.OutOfMemoryError
        return 100.0 * n

    monkeypatch.setattr(study.together, "images_per_second", speed)
    assert study.announce(study.LONG, 9, POOL, device="cuda", ensemble=9) == study.LONG / 400


def test_only_cells_of_one_kind_are_trained_together(tmp_path, monkeypatch):
    sizes, train = [], study.together.train
    monkeypatch.setattr(study.together, "train", lambda parts, *args, **options: (
        sizes.append((len(parts), options["augmented"], len(parts[0]))), train(parts, *args, **options))[1])
    papers = [cell(arm, ratio, n_real=12, seed=seed) for arm, ratio in (("real", 0), ("mixed", 1)) for seed in (0, 1)]
    cells = list(dict.fromkeys(MANY + papers))
    table = run(tmp_path, cells=cells, ensemble=3, **FEW_UPDATES)
    assert (sorted(sizes) == [(2, False, 12), (2, False, 24), (2, True, 12), (3, False, 24)]
            and len(table) == 2 * len(cells))
    assert run(tmp_path, cells=cells, ensemble=3, **FEW_UPDATES).equals(table) and len(sizes) == 4


def test_a_group_that_does_not_fit_is_trained_in_halves(tmp_path, monkeypatch):
    train = study.together.train

    def small_memory(parts, *args, **options):
        if len(parts) > 2:
            raise torch.OutOfMemoryError
        return train(parts, *args, **options)

    monkeypatch.setattr(study.together, "train", small_memory)
    cells = [cell("real_long", 0, n_real=12, seed=seed, stopping="updates") for seed in range(3)]
    assert len(run(tmp_path, cells=cells, ensemble=3, **FEW_UPDATES)) == 2 * 3


def test_a_result_of_other_options_or_data_does_not_count(finished, tmp_path):
    one = study.plan(["real"], [0], 12, [0])
    run(tmp_path, cells=one, max_epochs=1)
    assert run(tmp_path, cells=one, max_epochs=2)["updates"].iloc[0] == 2


@pytest.mark.parametrize("suffix, left", [(".json", 0), (".json", 20), (".npz", None), (".npz", 100)])
def test_a_damaged_result_is_made_again(tmp_path, suffix, left):
    one = study.plan(["real"], [0], 12, [0])
    table = run(tmp_path, cells=one).drop(columns="seconds")
    path = tmp_path / f"{one[0].name}{suffix}"
    path.write_bytes(path.read_bytes()[:left or 0])
    if left is None:
        path.unlink()
    assert run(tmp_path, cells=one).drop(columns="seconds").equals(table)
    assert study.predictions(tmp_path, one[0])["lab"].shape == (24, 6)


def test_pictures_of_another_size_are_refused_before_anything_is_trained(tmp_path):
    wide = Faces(BANK.images.repeat(2, 3).repeat(2, 2), BANK.table, BANK.origin)
    with pytest.raises(FerError, match="The pictures of generated are .* pixels in grey, those of train"):
        run(tmp_path, generated=wide)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file", "a:b", "a/b"])
def test_a_test_set_whose_name_cannot_be_kept_is_refused(tmp_path, name):
    with pytest.raises(FerError, match=f"A test set cannot be called '{name}'"):
        study.run([cell("real", 0)], train=POOL, validation=POOL, generated=None, tests={name: POOL}, folder=tmp_path)


def test_an_arm_with_too_few_images_for_all_expressions_is_named_before_anything_is_trained(tmp_path):
    with pytest.raises(FerError, match="the training set of generated_r0.25"):
        run(tmp_path, cells=study.plan(["real_long", "generated"], [0.25], 12, [0]))
    assert not list(tmp_path.iterdir())


def test_predictions_agree_with_the_table(finished):
    folder, table = finished
    cells = study.plan(["real", "mixed"], [0, 1], 12, [0, 1])
    correct = study.correctness(folder, cells, two_test_sets())
    row = table.query("arm == 'mixed' and train_seed == 1 and test_set == 'wild'").iloc[0]
    assert correct["wild"]["mixed", 1.0].shape == (2, 12)
    assert np.isclose(correct["wild"]["mixed", 1.0][1].mean(), row["accuracy"], atol=1e-6)
    assert len(study.history(folder, cells[0])) == 1


def test_only_results_are_left_in_the_folder(finished):
    names = sorted(path.name for path in finished[0].iterdir())
    assert len(names) == 8 and all(name.endswith((".json", ".npz")) for name in names)
    assert "key" in json.loads((finished[0] / names[0]).read_text(encoding="utf-8"))


def test_a_missing_cell_is_named(tmp_path):
    with pytest.raises(FerError, match="real_r0_w1_n60_s0_g0_t0 has no predictions"):
        study.predictions(tmp_path, cell("real", 0))
