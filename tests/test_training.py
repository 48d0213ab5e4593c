"""Laws of GAN training: resume is exact, weights load without running code, bad input is named."""

import argparse
import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
import torch

from fer_lib import augment, batch, generation, paths, training
from fer_lib.errors import FerError, LeakError
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS
from fer_lib.networks import expression_flow
from fer_lib.networks.judge import Judge
from fer_lib.weights import check_unseen, describe, read_metadata

SIZES = {"identity": {"channel_base": 256, "channel_max": 8, "latent_size": 8},
         "expression": {"conv_dim": 4, "n_blocks": 1},
         "flow": {"width": 8, "n_blocks": 1, "critic_width": 4}}
SIZES["identity muon"] = SIZES["identity"] | {"channel_max": 16}
SIZES["identity adaptive"] = SIZES["identity"]
TRAIN = {"identity": training.train_identity_gan, "expression": training.train_expression_gan,
         "flow": training.train_flow_gan}


def make_faces(n=28, channels=1):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": [str(index) for index in range(n)], "subject": "", "domain": "",
                          "expression": [ALL_EXPRESSIONS[index % 7] for index in range(n)]})
    return Faces(rng.integers(0, 256, (n, channels, 32, 32), dtype=np.uint8), table, "rendered")


def train(gan, folder, *, steps=4, **options):
    folder.mkdir(exist_ok=True)
    if gan in ("sequences", "muon"):
        gan, options = "flow", ({"sequences": make_sequences()} | options
                                | ({"optimiser": "muon"} if gan == "muon" else {}))
    if gan == "flow":
        options = {"warm_up": 1} | options
    if gan == "identity adaptive":
        options |= {"augmentation_target": 0.01, "objective": "relativistic"}
    if gan == "flow guided":
        gan, options = "flow", {"weight_identity": 1.0, "guide": guide(), "warm_up": 1} | options
    if gan == "identity muon":
        options |= {"optimiser": "muon", "objective": "relativistic", "critic": "residual", "precision": "bfloat16",
                    "final_gamma": 0.01}
    return TRAIN[gan.split()[0]](make_faces(), folder, steps=steps, batch_size=4, image_options=SIZES[gan],
                                 device="cpu", log_every=2, **options)


def guide():
    """A network that stands for an embedder of people."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Judge(channels=1, n_classes=2, width=8).eval().requires_grad_(False)


def make_sequences():
    """Four people, each in one pose with seven expressions, two pictures of each but of anger, which the last lacks."""
    rows = [{"id": f"{subject} {name} {take}", "expression": name, "subject": f"p{subject}", "domain": "",
             "sequence": "0"}
            for subject in range(4) for name in ALL_EXPRESSIONS for take in range(2) if (subject, name) != (3, "anger")]
    images = np.array([[[[10 * ALL_EXPRESSIONS.index(row["expression"]) + int(row["subject"][1])]]]
                       for row in rows], np.uint8)
    return Faces(images.repeat(32, 2).repeat(32, 3), pd.DataFrame(rows), "rendered")


def weights(folder):
    return training.load_generator(folder / "generator.safetensors").state_dict()


@pytest.mark.parametrize("gan, more", [*((name, {}) for name in TRAIN), ("sequences", {}), ("muon", {}),
                                       ("identity muon", {}), ("identity adaptive", {}), ("flow guided", {}),
                                       ("sequences", {"warm_up": 6}), ("muon", {"warm_up": 6}),
                                       ("muon", {"warm_up": 2, "sequence_warm_up": 6})])
def test_a_run_killed_and_resumed_ends_with_the_same_weights(gan, more, tmp_path, monkeypatch):
    """Six updates of the warm-up's networks are done when the next is killed."""
    train(gan, tmp_path / "whole", checkpoint_every=1, **more)
    killed = {"update": 0}
    update = training.update

    def update_and_die(*arguments):
        killed["update"] += 1
        if killed["update"] == 7:
            raise KeyboardInterrupt
        return update(*arguments)

    monkeypatch.setattr(training, "update", update_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(gan, tmp_path / "killed", checkpoint_every=1, **more)
    monkeypatch.setattr(training, "update", update)
    kept = torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)
    assert kept["done"] == {1: -3, 2: -1}[len(more)] if more else kept["done"] > 0
    history = train(gan, tmp_path / "killed", checkpoint_every=1, **more)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    losses = [name for name in history if "second" not in name]
    expected = training.load_history(tmp_path / "whole")[losses]
    pd.testing.assert_frame_equal(history[losses], expected)


def test_the_relativistic_identity_gan_trains_and_another_objective_is_refused(tmp_path):
    history = train("identity", tmp_path / "run", objective="relativistic")
    assert {"r1", "r2"} <= set(history) and history["generator"].iloc[0] > 0
    with pytest.raises(FerError, match="'hinge' is unknown"):
        train("identity", tmp_path / "other", objective="hinge")


@pytest.mark.parametrize("gan", TRAIN)
def test_a_run_whose_weights_could_not_be_written_goes_on_from_its_checkpoint(gan, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_weights", full)
        with pytest.raises(OSError, match="No space"):
            train(gan, tmp_path / "full", checkpoint_every=3)
    assert (tmp_path / "full" / "checkpoint.pt").is_file()
    train(gan, tmp_path / "full", checkpoint_every=3)
    train(gan, tmp_path / "whole")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "full")
    assert (all(torch.equal(whole[key], resumed[key]) for key in whole)
            and not (tmp_path / "full" / "checkpoint.pt").exists())


@pytest.mark.parametrize("gan", TRAIN)
def test_the_seed_decides_the_weights(gan, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(gan, tmp_path / name, steps=1, seed=seed)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_training_leaves_the_callers_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train("identity", tmp_path / "run", steps=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_damaged_checkpoint_or_generator_is_named(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(FerError, match="checkpoint.pt"):
        train("identity", tmp_path)
    (tmp_path / "generator.safetensors").write_bytes(b"not weights")
    with pytest.raises(FerError, match="generator.safetensors"):
        training.load_generator(tmp_path / "generator.safetensors")
    with pytest.raises(FerError, match="missing.safetensors"):
        training.load_generator(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("changed", [{"lr": 1e-5}, {"seed": 9}, {"steps": 8}, {"augmentation": ()}])
def test_a_checkpoint_of_another_training_is_refused(changed, tmp_path, monkeypatch):
    update, done = training.update, []

    def update_and_die(*arguments):
        done.append(1)
        if len(done) == 6:
            raise KeyboardInterrupt
        return update(*arguments)

    monkeypatch.setattr(training, "update", update_and_die)
    with pytest.raises(KeyboardInterrupt):
        train("identity", tmp_path, checkpoint_every=1)
    with pytest.raises(FerError, match="with other settings or faces: delete it, or use another folder"):
        train("identity", tmp_path, checkpoint_every=1, **changed)
    assert (tmp_path / "checkpoint.pt").is_file()
    assert len(train("identity", tmp_path, checkpoint_every=1))


def test_images_are_augmented_the_more_the_better_real_and_generated_are_told_apart():
    chance = augment.AdaptiveChance(0.6, kimg=1.0)
    images = torch.rand(400, 1, 8, 8)
    for apart, expected in ((0.9, 0.1), (0.9, 0.2), (0.1, 0.1), (0.1, 0.0), (0.1, 0.0)):
        chance.observe(torch.tensor(apart), 100)
        assert float(chance.chance) == pytest.approx(expected, abs=1e-6)
        changed = (augment.diff_augment(images, policy=("light",), chance=chance.chance) != images).flatten(1).any(1)
        assert float(changed.float().mean()) == pytest.approx(expected, abs=0.08)
    chance.observe(torch.tensor(1.0), 5_000)
    assert float(chance.chance) == 1


def test_the_adaptive_chance_is_told_and_starts_at_none(tmp_path):
    history = train("identity adaptive", tmp_path, steps=40)
    assert history["augmented"].iloc[0] < history["augmented"].max() <= 1 and history["told_apart"].abs().max() <= 1
    assert history["augmented"].nunique() > 3  # it follows the discriminator up and down


def test_the_identity_term_is_of_people_and_needs_a_guide(tmp_path):
    faces, network = torch.rand(4, 1, 32, 32) * 2 - 1, guide()
    assert float(training.losses.identity_change(network, faces, faces)) == pytest.approx(0, abs=1e-6)
    other = (-faces).requires_grad_()
    change = training.losses.identity_change(network, faces, other)
    change.backward()
    assert 0 < float(change.detach()) <= 2 and other.grad.abs().sum() > 0
    assert "generator_identity" in train("flow guided", tmp_path)
    with pytest.raises(FerError, match="needs a guide"):
        train("flow", tmp_path / "none", weight_identity=1.0)


def test_a_width_that_cannot_be_normalised_is_refused(tmp_path):
    with pytest.raises(FerError, match="10 channels: set expression_conv_dim to a multiple of 8"):
        training.train_flow_gan(make_faces(), tmp_path, steps=1, image_options={"width": 10}, device="cpu")
    with pytest.raises(FerError, match="optimiser 'sgd' is unknown"):
        training.train_flow_gan(make_faces(), tmp_path, steps=1, optimiser="sgd", device="cpu")


def test_the_expression_gan_needs_every_expression(tmp_path):
    faces = make_faces().of(EXPRESSIONS)
    with pytest.raises(FerError, match="neutral"):
        training.train_expression_gan(faces, tmp_path, steps=1, device="cpu")


@pytest.fixture(scope="module", params=["expression", "flow"])
def gans(tmp_path_factory, request):
    folder, both = tmp_path_factory.mktemp("gans"), ("identity", request.param)
    for gan in both:
        train(gan, folder / gan, steps=1)
    return [training.load_generator(folder / gan / "generator.safetensors") for gan in both]


def test_generated_faces_are_balanced_and_decided_by_the_seed(gans):
    one, again, other = (generation.generate(*gans, n_identities=5, seed=seed) for seed in (3, 3, 4))
    assert one.origin == "generated" and len(one) == 30
    assert set(one.table.groupby("subject")["expression"].nunique()) == {6}
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_an_identity_does_not_depend_on_how_many_are_drawn(gans):
    few, many = (generation.generate(*gans, n_identities=n, seed=0) for n in (2, 70))
    assert np.abs(few.images.astype(int) - many.images[:12]).max() <= 1  # rounding of another batch size
    assert (few.table["id"] == many.table["id"][:12]).all()


def test_people_without_a_face_are_left_out_and_the_others_stay_who_they_are(gans, monkeypatch):
    everybody = generation.generate(*gans, n_identities=140, seed=0)
    people = generation.to_uint8(generation.identities(gans[0], range(140), seed=0))
    seen = np.median(people.mean((1, 2, 3)))
    monkeypatch.setattr(generation.alignment, "shows_face", lambda images: images.mean((1, 2, 3)) > seen)
    few, many = (generation.generate(*gans, n_identities=n, seed=0, faces_only=True) for n in (3, 40))
    wanted = [f"g0-{index:05d}" for index in np.flatnonzero(people.mean((1, 2, 3)) > seen)]
    assert list(dict.fromkeys(many.subjects)) == wanted[:40] and list(dict.fromkeys(few.subjects)) == wanted[:3]
    assert (few.images == many.images[:18]).all()
    same = everybody.select(everybody.table["subject"].isin(few.subjects).to_numpy())
    assert np.abs(few.images.astype(int) - same.images).max() <= 1


def test_an_identity_gan_that_draws_no_faces_is_told_after_a_while(gans, monkeypatch):
    monkeypatch.setattr(generation.alignment, "shows_face", lambda images: np.zeros(len(images), bool))
    with pytest.raises(FerError, match="A face was found in 0 of 256 identities alone: train the identity GAN"):
        generation.generate(*gans, n_identities=1, seed=0, faces_only=True)


def test_a_bank_of_no_faces_is_refused(gans, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "load_generator", lambda *_, **__: None)
    with pytest.raises(FerError, match="add mixed to arms"):
        generation.make_bank(tmp_path, tmp_path, tmp_path, wanted=[])


def test_bad_numbers_are_refused(gans):
    with pytest.raises(FerError, match="at least one"):
        generation.generate(*gans, n_identities=0, seed=0)
    with pytest.raises(FerError, match="truncation"):
        generation.identities(gans[0], [0], seed=0, truncation=-1)
    with pytest.raises(FerError, match="intensity"):
        generation.impose(gans[1], torch.zeros(1, 1, 32, 32), "fear", intensity=-1)


def test_intensity_is_for_the_flow_gan_and_zero_of_it_changes_nothing(gans):
    people = generation.identities(gans[0], range(3), seed=0)
    if isinstance(gans[1], expression_flow.Generator):
        assert torch.allclose(generation.impose(gans[1], people, "fear", intensity=0.0, seed=1), people, atol=1e-5)
        strong = generation.impose(gans[1], people, "fear", intensity=1.5)
        assert not torch.allclose(strong, generation.impose(gans[1], people, "fear"))
    else:
        with pytest.raises(FerError, match="use 0 or more with the flow GAN"):
            generation.impose(gans[1], people, "fear", intensity=0.5)


def test_a_copied_face_is_nearest_to_itself():
    faces = make_faces()
    nearest, distance, usual = generation.nearest_faces(faces.images[3:5], faces)
    assert np.array_equal(nearest, faces.images[3:5]) and distance < 1e-6 < usual


def test_partners_are_of_the_same_person_and_show_the_expression_of_the_other():
    rows = [{"id": f"{index}", "expression": name, "subject": subject, "domain": ""} for index, (name, subject) in
            enumerate((name, subject) for subject in ("a", "b", "") for name in EXPRESSIONS
                      if (name, subject) != ("fear", "b"))]
    faces = Faces(np.zeros((len(rows), 1, 8, 8), np.uint8), pd.DataFrame(rows), "rendered")
    sources, others = (part.flatten() for part in torch.meshgrid(*[torch.arange(len(rows))] * 2, indexing="ij"))
    chosen, there_was_one = (part.numpy() for part in training.partners(faces)(sources, others))
    names, subjects = faces.table["expression"].to_numpy(), faces.subjects
    assert (names[chosen] == names[others]).all()
    found = (subjects[sources] == "a") | ((subjects[sources] == "b") & (names[others] != "fear"))
    assert (subjects[chosen][found] == subjects[sources][found]).all()
    assert (chosen[~found] == others.numpy()[~found]).all()
    assert (there_was_one == found).all()


def test_frames_of_a_sequence_show_one_person_and_the_wanted_expression():
    draw = training.sequence_drawer(make_sequences(), 64, torch.device("cpu"))
    torch.manual_seed(0)
    frames, shown, wanted = draw()
    assert frames.shape == shown.shape == (64, 1, 32, 32)
    first, second = (((part[:, 0, 0, 0] + 1) * 127.5).round().long() for part in (frames, shown))
    assert (first % 10 == second % 10).all() and (second // 10 == wanted).all()
    assert not ((first % 10 == 3) & (wanted == ALL_EXPRESSIONS.index("anger"))).any()
    assert set(wanted.tolist()) == set((first // 10).tolist()) == set(range(7))


def test_sequences_teach_the_flow_gan_and_are_remembered_as_seen(tmp_path):
    history = train("flow", tmp_path / "with", sequences=make_sequences())
    assert history["generator_sequence"].gt(0).all()
    assert "generator_sequence" not in train("flow", tmp_path / "without")
    seen = read_metadata(tmp_path / "with" / "generator.safetensors")["trained_on"]
    assert seen["subjects"] == ["p0", "p1", "p2", "p3"] and seen["n_sequences"] == len(make_sequences())
    assert seen["fingerprint"] == make_faces().fingerprint
    assert describe(seen).endswith(f" faces and {len(make_sequences())} frames of sequences")
    with pytest.raises(LeakError, match="4 people"):
        check_unseen(seen, {"test": make_sequences()}, name="it")


def test_half_of_the_frames_teach_the_typical_way():
    class Unchanged:
        def change(self, image, label, *, latent):
            self.latent = latent
            return image.new_zeros(len(image), 2, 32, 32), torch.zeros_like(image)

    frame, shown = torch.zeros(400, 1, 32, 32), torch.full((400, 1, 32, 32), 0.5)
    generator, known = Unchanged(), (torch.full((400, 8), 3.0), torch.full((400, 8), -9.0))  # mean, log of the spread
    torch.manual_seed(0)
    terms = training.sequence_terms(generator, lambda *_: known, frame, shown, torch.zeros(400, dtype=torch.int64), 2)
    typical = generator.latent.eq(0).all(1)
    assert 150 < typical.sum() < 250 and ((generator.latent[~typical] - 3).abs() < 0.01).all()
    assert terms["generator_sequence"] == 0.5  # what was to become the other frame and did not change at all


def test_the_discriminator_compares_frames_of_sequences_too(tmp_path, monkeypatch):
    shown, draw = [], training.pair_drawer
    monkeypatch.setattr(training, "pair_drawer", lambda faces, *rest: shown.append(len(faces)) or draw(faces, *rest))
    train("flow", tmp_path / "without")
    train("sequences", tmp_path / "with")
    assert shown == [len(make_faces()), len(make_faces()) + len(make_sequences())]


def test_sequences_without_a_name_or_with_one_expression_are_refused():
    with pytest.raises(FerError, match="column `sequence`"):
        training.sequence_drawer(make_faces(), 4, torch.device("cpu"))
    with pytest.raises(FerError, match="two expressions"):
        training.sequence_drawer(make_sequences().of(["anger"]), 4, torch.device("cpu"))


def test_in_a_warm_up_each_network_has_its_own_number_of_updates_and_both_end_together(tmp_path, monkeypatch):
    taught, update = [], training.update

    def noted(optimiser, loss, network):
        taught.append("discriminator" if isinstance(network, expression_flow.Discriminator) else "generator")
        return update(optimiser, loss, network)

    monkeypatch.setattr(training, "update", noted)
    for options, turns in (({"warm_up": 2}, "dgdg"), ({"warm_up": 1, "sequence_warm_up": 3}, "ggdg"),
                           ({"warm_up": 3, "sequence_warm_up": 1}, "dddg")):
        taught.clear()
        train("sequences", tmp_path / turns, steps=1, **options)
        assert "".join(name[0] for name in taught[:4]) == turns and len(taught) > 4
    one = training.WarmUp(0.1, (1, torch.nn.Linear(1, 1), tuple, None), (4, torch.nn.Linear(1, 1), tuple, None))
    one.turns = [(steps, optimiser, draw, lambda: None) for steps, optimiser, draw, _ in one.turns]
    rates = [[one.step(number), one.turns[1][1].param_groups[0]["lr"]][1] for number in range(4)]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05])


def test_the_time_left_is_that_of_the_last_steps_and_the_warm_up_is_told(tmp_path, caplog, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    with caplog.at_level("INFO"):
        history = train("flow", tmp_path / "run", steps=4, warm_up=6)
    told = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("warm-up, update 2 of 6, ") and "left" in text for text in told)
    assert (history["images_per_second"].tolist() == [0.4, 0.4]
            and any("step 2 of 4, 0 images/s, 0.3 min left" in text for text in told))


def test_the_penalty_falls_by_the_same_factor_until_the_middle(tmp_path, monkeypatch):
    weights_seen, penalty = [], training.losses.r1_penalty

    def seen(discriminator, real, *, gamma):
        weights_seen.append(float(gamma))
        return penalty(discriminator, real, gamma=gamma)

    monkeypatch.setattr(training.losses, "r1_penalty", seen)
    train("identity", tmp_path / "falls", steps=8, r1_interval=1, gamma=1.0, final_gamma=0.0625)
    np.testing.assert_allclose(weights_seen, [1, 0.5, 0.25, 0.125] + 4 * [0.0625])
    weights_seen.clear()
    train("identity", tmp_path / "stays", steps=4, r1_interval=1, gamma=0.5)
    assert weights_seen == 4 * [0.5]


@pytest.mark.parametrize("gan, rates", [("muon", {"lr": 1e4}), ("sequences", {"lr": 1e4}), ("identity", {"lr": 1e30}),
                                        ("identity muon", {"lr": 1e30})])
def test_a_training_that_diverges_ends_with_a_sentence_and_without_weights(gan, rates, tmp_path):
    """grid_sample's gradient of a flow that is not a number would kill the process."""
    with pytest.raises(FerError, match="training diverged .* lower learning rate"):
        train(gan, tmp_path / "lost", steps=40, **({"warm_up": 20} if "identity" not in gan else {}), **rates)
    assert not (tmp_path / "lost" / "generator.safetensors").exists()


def test_losses_that_only_the_gpu_knows_are_looked_at_before_they_are_told_or_kept():
    with pytest.raises(FerError, match="r1 is nan"):
        training.numbers([{"r1": torch.tensor(1.0)}, {"r1": torch.tensor(float("nan"))}])
    assert training.numbers([{"r1": torch.tensor(1.5)}]) == [{"r1": 1.5}]


def test_nearest_faces_do_not_depend_on_how_many_are_compared_at_once(monkeypatch):
    faces, rng = make_faces(), np.random.default_rng(1)
    given = rng.integers(0, 256, (7, 1, 32, 32), dtype=np.uint8)
    at_once = generation.nearest_faces(given, faces), generation.nearest_distances(given, faces)
    monkeypatch.setattr(generation, "PART", 3)
    in_parts = generation.nearest_faces(given, faces), generation.nearest_distances(given, faces)
    assert np.array_equal(at_once[0][0], in_parts[0][0]) and np.allclose(at_once[0][1:], in_parts[0][1:], atol=1e-6)
    assert np.allclose(at_once[1], in_parts[1], atol=1e-6)
    assert generation.nearest_distances(faces.images[..., ::-1], faces).max() < 1e-3  # as mirror images


# ---- benchmarks/gan_settings.py --------------------------------------------------------------------------

@pytest.fixture(scope="module")
def settings():
    path = paths.REPOSITORY / "benchmarks" / "gan_settings.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options_of_notebook(number, first, values):
    """What the cell of a notebook that begins with `first` calls `options`, under the parameters `values`."""
    notebook = json.loads(next(paths.NOTEBOOKS.glob(f"{number}_*.ipynb")).read_text(encoding="utf-8"))
    cell, = ("".join(cell["source"]) for cell in notebook["cells"] if "".join(cell["source"]).startswith(first))
    names = dict(values, training=training)
    exec(cell.split("facts = ")[0], names)
    return names["options"]


@pytest.mark.parametrize("profile", ["built_in", "fer2013_deeper"])
def test_settings_are_compared_with_all_others_as_in_the_profile(settings, profile):
    values = batch.select(profile).values
    given = argparse.Namespace(steps=values["identity_steps"], seeds=[values["identity_seed"]], targets=[0.6],
                               gammas=[values["r1_gamma"]], policies=[",".join(values["augmentation"])])
    plain, adaptive = settings.identity_plan(values, given)
    assert plain == options_of_notebook("02", "options = dict(", values)
    assert adaptive == plain | {"augmentation_target": 0.6}
    given = argparse.Namespace(steps=values["expression_steps"], warm_up=values["warm_up_steps"],
                               seeds=[values["expression_seed"]], person_weights=[values["person_weight"]])
    found, = settings.expression_plan(values, given)
    assert found == options_of_notebook("03", "flow = dict(", values)


def test_a_shorter_warm_up_keeps_its_two_parts_in_proportion(settings):
    values = batch.select("built_in").values
    given = argparse.Namespace(steps=1, warm_up=values["warm_up_steps"] // 10, seeds=[0, 1], person_weights=[0.0, 1.0])
    plan = settings.expression_plan(values, given)
    assert {options["sequence_warm_up"] for options in plan} == {values["sequence_warm_up_steps"] // 10}
    assert [(options["seed"], options["weight_identity"]) for options in plan] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.raises(FerError, match="choose a profile whose expression_method is flow"):
        settings.expression_plan(values | {"expression_method": "stargan"}, given)
