"""The networks that look at generated faces: what they learned from, what they keep, and where they come from."""

import numpy as np
import pytest
from test_classifier import striped_faces
from test_metrics import as_generated

from fer_lib import generation, imports, paths, referee, selection, weights
from fer_lib.errors import FerError, LeakError
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS


@pytest.fixture(scope="module")
def pool():
    faces = striped_faces(280, seed=1, expressions=ALL_EXPRESSIONS, contrast=150)
    return Faces(faces.images, faces.table.assign(subject=[f"p{row % 5}" for row in range(280)]), faces.origin)


@pytest.fixture(scope="module")
def folder(pool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("referee")
    referee.provide({"pool": pool}, folder, given={}, epochs=8, seed=0, device="cpu")
    return folder


def test_it_sees_expressions_that_it_was_not_trained_on(folder):
    test = striped_faces(60, seed=2, contrast=150)
    seen = referee.load(folder, device="cpu").probabilities(test.images)
    assert seen.shape == (60, len(ALL_EXPRESSIONS)) and np.allclose(seen.sum(1), 1, atol=1e-5)
    assert (seen.argmax(1) == test.codes).mean() > 0.8


def test_it_keeps_as_large_a_share_as_asked_for(folder):
    bank = as_generated(striped_faces(240, seed=3, contrast=150))
    networks = referee.load(folder, device="cpu")
    thresholds = referee.thresholds_of(bank, selection.score(networks.selector, bank), share=0.7)
    networks = referee.load(folder, thresholds=thresholds, device="cpu")
    for name in EXPRESSIONS:
        kept = networks.keeps(bank.of([name]).images, name)
        assert kept.mean() == pytest.approx(0.7, abs=0.03)


def test_without_a_threshold_it_says_which_notebook_finds_one(folder):
    with pytest.raises(FerError, match="threshold .* anger: run notebooks/04"):
        referee.load(folder, device="cpu").keeps(striped_faces(6, seed=0).images, "anger")


def test_an_embedder_needs_names(pool, folder, tmp_path):
    assert referee.load(folder, device="cpu").embedder is not None
    nameless = Faces(pool.images, pool.table.assign(subject=""), pool.origin)
    referee.train(nameless, tmp_path, epochs=1, device="cpu")
    assert referee.load(tmp_path, device="cpu").embedder is None


def test_given_networks_are_taken_as_they_are_and_refused_where_they_have_seen_a_part(pool, folder, tmp_path):
    given = {name: folder / f"{name}.safetensors" for name in referee.KINDS}
    referee.provide({"pool": pool, "train": striped_faces(12, seed=9)}, tmp_path, given=given, epochs=1, seed=5)
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in given.values())
    with pytest.raises(LeakError, match="of the part test"):
        referee.provide({"pool": pool, "test": pool.select(np.arange(6))}, tmp_path, given=given, epochs=1, seed=5)


def test_a_choice_is_shipped_or_train(pool, monkeypatch, tmp_path, folder):
    assert referee.shipped("train", dataset="built-in", faces=pool) == {}
    monkeypatch.setattr(imports.paths, "REPOSITORY", tmp_path)
    (tmp_path / "weights" / "striped").mkdir(parents=True)
    (tmp_path / "weights" / "striped" / "judge.safetensors").write_bytes((folder / "judge.safetensors").read_bytes())
    assert list(referee.shipped("shipped", dataset="striped", faces=pool)) == ["judge"]
    with pytest.raises(FerError, match="give shipped or train"):
        referee.shipped("best", dataset="striped", faces=pool)


def test_another_network_is_named(folder, tmp_path):
    (tmp_path / "judge.safetensors").write_bytes((folder / "selector.safetensors").read_bytes())
    with pytest.raises(FerError, match="is not a judge of this compendium"):
        referee.load(tmp_path, device="cpu")
    assert weights.read_metadata(folder / "selector.safetensors")["kind"] == "selector"


@pytest.mark.parametrize("dataset", ["built-in", "fer2013"])
def test_the_shipped_judge_recognises_what_the_shipped_generators_draw(dataset):
    folder = paths.REPOSITORY / "weights" / dataset
    gans = [weights.load_generator(folder / f"{role}.safetensors") for role in ("identity", "expression")]
    faces = generation.generate(*gans, n_identities=16, seed=0)
    networks = referee.open_shipped(folder, device="cpu")
    assert set(networks.thresholds) == set(EXPRESSIONS)
    assert (networks.probabilities(faces.images).argmax(1) == faces.codes).mean() > 0.5
    kept = [networks.keeps(faces.of([name]).images, name).mean() for name in EXPRESSIONS]
    assert 0.4 < np.mean(kept) < 1
