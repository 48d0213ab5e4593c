"""Shares compare with what would be perfect and with doing nothing."""

import json

import numpy as np
import pytest
from test_classifier import striped_faces
from test_metrics import as_generated

from fer_lib import metrics, paths, quality, referee, training, truth
from fer_lib.errors import FerError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS


@pytest.fixture(scope="module")
def judge():
    faces = striped_faces(280, seed=1, expressions=ALL_EXPRESSIONS, contrast=150)
    return metrics.train_judge(faces, seed=0, epochs=8, width=8, device="cpu")


def test_faces_as_good_as_real_have_a_fidelity_of_one_and_wrong_labels_have_less(judge):
    test = striped_faces(120, seed=2, contrast=150)
    good = quality.fidelity_share(judge, as_generated(striped_faces(120, seed=3, contrast=150)), test)
    assert good["low"] <= 1 <= good["high"] and abs(good["estimate"] - 1) < 0.15
    shifted = as_generated(test, expressions=[EXPRESSIONS[(EXPRESSIONS.index(name) + 1) % 6]
                                              for name in test.table["expression"]])
    assert quality.fidelity_share(judge, shifted, test)["high"] < 0.5


def test_real_faces_cover_as_much_as_real_faces_and_one_face_covers_little(judge):
    pool, test = striped_faces(240, seed=4, contrast=150), striped_faces(120, seed=5, contrast=150)
    _, same = quality.coverage_share(judge, pool, as_generated(striped_faces(120, seed=6, contrast=150)), test,
                                     draws=10)
    assert same["low"] - 0.1 <= 1 <= same["high"] + 0.1
    rows = np.repeat(np.arange(6), 20)
    collapsed = as_generated(test.select(rows))
    neighbours, share = quality.coverage_share(judge, pool, collapsed, test, draws=10)
    assert share["high"] < 0.5
    assert neighbours["generated"]["coverage"] < neighbours["test"]["coverage"]
    of_each = neighbours["by_expression"]
    assert list(of_each) == list(EXPRESSIONS)
    for name in ("generated", "test"):
        assert np.mean([found[name]["recall"] for found in of_each.values()]) == pytest.approx(
            neighbours[name]["recall"], abs=1e-3)


def test_too_few_faces_for_a_measure_are_told(judge, tmp_path):
    pool, test = striped_faces(24, seed=4), striped_faces(12, seed=5)
    with pytest.raises(FerError, match="two faces of every expression"):
        quality.coverage_share(judge, pool, as_generated(striped_faces(6, seed=6)), test)
    bank = as_generated(striped_faces(12, seed=6))
    bank = Faces(bank.images, bank.table.assign(generator_seed=0), "generated")
    other = Faces(bank.images, bank.table.assign(intensity=0.6, truncation=1.0), "generated")
    usual = Faces(bank.images, bank.table.assign(intensity=1.0, truncation=1.0), "generated")
    for too_few in (bank, concatenate([usual, other])):  # those of another intensity do not count
        with pytest.raises(FerError, match="24 generated faces of each seed, and fewer"):
            quality.gan_train_share({"train": pool, "validation": test}, too_few, test, tmp_path, n_real=24, n_seeds=1)
    options = dict(updates=2, looks=1, lr=1e-3, device="cpu", jobs=1, resamples=50)
    share = quality.gan_train_share({"train": pool, "validation": test}, concatenate([usual, other]), test, tmp_path,
                                    n_real=12, n_seeds=1, **options)
    assert set(share) == {"estimate", "low", "high"}


def test_copies_are_nearer_to_the_pool_than_unseen_faces():
    pool, test = (striped_faces(60, seed=seed, contrast=150) for seed in (4, 5))
    copies, fresh = as_generated(pool), as_generated(striped_faces(60, seed=6, contrast=150))
    assert quality.nearest_distance_share(pool, copies, test, resamples=50)["high"] < 0.1
    mirrored = as_generated(Faces(pool.images[..., ::-1].copy(), pool.table, pool.origin))
    assert quality.nearest_distance_share(pool, mirrored, test, resamples=50)["high"] < 0.1
    found = quality.nearest_distance_share(pool, fresh, test, resamples=200)
    assert abs(found["estimate"] - 1) < 0.2 and 0.7 < found["low"] < found["high"] < 1.4


def test_distances_are_of_equally_many_faces(judge, monkeypatch):
    seen = []
    monkeypatch.setattr(quality.metrics, "frechet_distance", lambda pool, faces: seen.append(len(faces)) or 0.0)
    monkeypatch.setattr(quality.metrics, "kernel_distance", lambda pool, faces: (0.0, 0.0))
    pool = striped_faces(60, seed=4, contrast=150)
    quality.distances(judge, pool, as_generated(striped_faces(90, seed=5)), {"a": pool, "b": striped_faces(24, seed=6)})
    assert seen == [24, 24, 24]


def test_distances_are_those_of_the_metrics(judge):
    pool, test = (striped_faces(24, seed=seed, contrast=150) for seed in (4, 6))
    found = quality.distances(judge, pool, as_generated(test), {"a": test})
    assert found["fid"]["generated"] == found["fid"]["rendered, test a"] == metrics.fid(judge, pool, test) > 0
    assert found["kid"]["generated"]["mean"] == round(metrics.kid(judge, pool, test)[0], 5)


def test_a_gan_is_as_far_from_the_pool_as_itself(judge, tmp_path, monkeypatch):
    pool = striped_faces(60, seed=4, contrast=150)
    monkeypatch.setattr(quality, "IDENTITY_DRAWS", 2)
    training.train_identity_gan(pool, tmp_path, steps=1, batch_size=4,
                                image_options={"channel_base": 256, "channel_max": 16, "latent_size": 16})
    found = quality.identity_fid_ratio(judge, pool, tmp_path, tmp_path, seed=0)
    assert found == {"estimate": 1, "low": 1, "high": 1}


def test_the_share_of_found_faces_counts_what_the_gan_draws_and_what_the_test_shows(tmp_path, monkeypatch):
    test = striped_faces(60, seed=4, contrast=150)
    training.train_identity_gan(test, tmp_path, steps=1, batch_size=4,
                                image_options={"channel_base": 256, "channel_max": 16, "latent_size": 16})
    monkeypatch.setattr(quality, "FACES_PER_DRAW", 80)
    monkeypatch.setattr(quality.alignment, "shows_face", lambda images: np.arange(len(images)) % 4 < len(images) // 40)
    rates, share = quality.face_found_share(tmp_path, test, seed=0)
    assert rates == {"generated": 0.5, "test": 0.25} and share["low"] < share["estimate"] == 2 < share["high"]


def test_doing_nothing_has_an_error_share_of_one_and_the_truth_of_zero():
    given, true, masks = truth.render_truth([0, 1, 2], takes=2, image_size=32, jobs=1)
    rng = np.random.default_rng(0)
    unchanged = np.repeat(given.images[:, None], len(EXPRESSIONS), 1)
    for made, share in ((unchanged, 1), (true[:, :, 0], 0)):
        found = quality.region_error_share(given, made, true, masks, 100, rng)
        assert all(found[region] == {"estimate": share, "low": share, "high": share} for region in truth.REGIONS)
    found = quality.region_error_share(given, unchanged, true, masks, 100, rng, nearest=False)
    assert all(found[region]["estimate"] == 1 for region in truth.REGIONS)
    one, other = (truth.mean_errors(true[:, 0, take], true[:, 0], masks) for take in (0, 1))
    assert one.to_numpy() == pytest.approx(other.to_numpy())  # of two takes, each is half the way to the other
    halfway = np.uint8((unchanged.astype(int) + true[:, :, 0]) // 2)
    found = quality.region_error_share(given, halfway, true[:, :, :1], masks, 100, rng)
    assert all(found[region]["estimate"] == pytest.approx(0.5, abs=0.06) for region in truth.REGIONS)


def test_a_region_that_nobody_shows_has_no_share():
    above = np.array([[0.2, np.nan], [0.3, np.nan]])
    found = quality._by_region(above, np.ones((2, 2)), {"mouth": None, "brows": None}, 50, np.random.default_rng(0))
    assert list(found) == ["mouth"] and found["mouth"]["estimate"] == pytest.approx(0.25)


def test_strangers_are_less_alike_than_a_person_is_to_herself(monkeypatch):
    test = striped_faces(24, seed=4, expressions=EXPRESSIONS[:2])
    test = Faces(test.images, test.table.assign(subject=[f"s0-{row // 2 % 4}" for row in range(24)]), test.origin)
    people = {name: np.eye(4, dtype=np.float32)[int(name[-1])] * 0.8 for name in set(test.subjects)}

    def embed(embedder, faces):
        noise = np.random.default_rng(len(faces)).normal(scale=0.1, size=(len(faces), 4)).astype(np.float32)
        vectors = np.stack([people[name] for name in faces.subjects]) + noise
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(quality.embedding, "embed", embed)
    made = np.repeat(np.asarray(test.images)[:, None], 2, 1)
    found = quality.identity_shares(None, test, made, test, 200, np.random.default_rng(0))
    assert found["identity_similarity_share_of_strangers"]["high"] < 0.3
    assert abs(found["identity_similarity_share"]["estimate"] - 1) < 0.1


def test_a_selection_counts_for_the_bank_that_it_was_made_from(tmp_path):
    banks = [as_generated(striped_faces(12, seed=seed)) for seed in (1, 2)]
    banks = [Faces(bank.images, bank.table.assign(intensity=1.0, truncation=1.0), "generated") for bank in banks]
    with pytest.raises(FerError, match="`selection` among"):
        quality.load_kept(tmp_path, banks[0])
    np.savez(tmp_path / "kept.npz", kept=np.arange(12) < 5, bank=banks[0].fingerprint)
    assert quality.load_kept(tmp_path, banks[0]).sum() == 5
    with pytest.raises(FerError, match="of another bank"):
        quality.load_kept(tmp_path, banks[1])


def test_an_unknown_measure_is_refused_before_anything_is_trained():
    with pytest.raises(FerError, match="'beauty' is unknown: choose from coverage"):
        quality.judge_generators({}, {}, None, {}, None, None, measures=["beauty"], seed=0)


def test_distances_in_inceptions_features_are_told_on_request(judge, tmp_path, monkeypatch):
    """The judge plays Inception here; tests/test_metrics.py looks at the real one."""
    pool, test, bank = (striped_faces(24, seed=seed, contrast=150) for seed in (4, 5, 6))
    bank, asked = as_generated(bank), []
    referee.train(pool, tmp_path, epochs=1, device="cpu")
    monkeypatch.setattr(quality.inception, "load", lambda path, device: asked.append(path) or judge)
    given = ({"pool": pool}, {"lab": test}, bank, {}, tmp_path, tmp_path)
    found = []
    for options in ({}, {"inception_weights": "a file"}):
        quality.judge_generators(*given, measures=[], seed=0, resamples=10, device="cpu", **options)
        found.append(quality.load_quality(tmp_path))
    assert asked == ["a file"] and found[1].keys() - found[0].keys() == {"inception_fid", "inception_kid"}
    assert found[1]["inception_fid"] == quality.distances(judge, pool, bank, {"lab": test})["fid"] != found[1]["fid"]


def test_a_file_that_is_not_inceptions_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(FerError, match="no.pth does not exist: give weights-inception"):
        quality.judge_generators({}, {}, None, {}, None, None, measures=[], seed=0,
                                 inception_weights=tmp_path / "no.pth")


def test_a_change_of_the_mouth_alone_is_of_the_mouth_alone():
    given, true, masks = truth.render_truth([0, 1, 2], takes=2, image_size=32, jobs=1)
    rng = np.random.default_rng(0)
    alone = masks["mouth"] & ~np.any([mask for name, mask in masks.items() if name != "mouth"], axis=0)
    share = (alone.sum((1, 2)) / masks["mouth"].sum((1, 2))).mean()  # regions overlap a little
    changed = np.repeat(given.images[:, None, None].astype(int), 6, 1) + 10 * (1 + 3 * alone[:, None, None, None])
    found = quality.region_change_ratio(given, changed, masks, 50, rng)
    expected = {"mouth": 1 + 3 * share, "brows": 1, "eyes": 1, "nose": 1}
    assert {region: value["estimate"] for region, value in found.items()} == pytest.approx(expected, abs=1e-4)
    assert share > 0.9
    assert all(value["estimate"] > 1.5 for value in quality.region_change_ratio(given, true, masks, 50, rng).values())


@pytest.mark.parametrize("path", sorted((paths.REPOSITORY / "results").glob("*/generators.json")),
                         ids=lambda path: path.parent.name)
def test_committed_measures_name_the_run_that_took_them(path):
    """The ratio to the paper's GAN comes from a run that had one."""
    measured = json.loads(path.read_text(encoding="utf-8"))
    notes = json.loads((path.parent / "provenance.json").read_text(encoding="utf-8")).values()
    notes = [note for note in notes if path.name in note["files"]]
    assert notes and set(measured) >= {key for note in notes for key in note.get("keys", ())}
    of_ratio = [note for note in notes if "identity_gan_paper" in note["inputs"]
                and "identity_fid_ratio" in note.get("keys", measured)]
    assert bool(of_ratio) == ("identity_fid_ratio" in measured)
