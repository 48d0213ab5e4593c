"""Classifiers trained together, and that they are those trained one at a time."""

import numpy as np
import pytest
import torch
from test_classifier import striped_faces

from fer_lib import classifier, ensemble
from fer_lib.errors import FerError
from fer_lib.networks.paper_cnn import Dropout

VALIDATION = striped_faces(18, seed=9)
PARTS = [striped_faces(n, seed=n) for n in (21, 48, 30)]
WEIGHTS = [None, np.linspace(0, 1, 48), None]
OPTIONS = {"steps_per_epoch": 3, "max_epochs": 4, "patience": 9, "lr": 1e-3, "best_by": "accuracy", "device": "cpu"}


@pytest.fixture
def without_dropout(monkeypatch):
    monkeypatch.setattr(Dropout, "forward", lambda self, x: x)


@pytest.fixture
def doubles(monkeypatch):
    """Double precision: Adam turns a rounding error of a gradient near 0 into a whole step."""
    monkeypatch.setattr(classifier, "as_floats", lambda images: images.double() / 255)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_together_and_one_at_a_time_give_the_same_weights(without_dropout, doubles):
    together = ensemble.train(PARTS, VALIDATION, seeds=[3, 4, 5], weights=WEIGHTS, **OPTIONS)
    for part, seed, weights, result in zip(PARTS, [3, 4, 5], WEIGHTS, together, strict=True):
        alone = classifier.train(part, VALIDATION, seed=seed, weights=weights, **OPTIONS)
        assert (result.best_epoch, result.updates) == (alone.best_epoch, alone.updates)
        np.testing.assert_allclose(result.history, alone.history, atol=1e-6)
        for mine, other in ((result.model.state_dict(), alone.model.state_dict()),
                            (result.last_state, alone.last_state)):
            assert all(torch.allclose(mine[name], other[name], atol=1e-6) for name in other)


def test_each_stops_when_it_would_alone(without_dropout, doubles):
    options = {"max_epochs": 9, "patience": 1, "lr": 3e-3, "device": "cpu"}
    parts, seeds = [striped_faces(33, seed=n) for n in range(4)], [3, 4, 5, 6]
    together = ensemble.train(parts, VALIDATION, seeds=seeds, **options)
    for part, seed, result in zip(parts, seeds, together, strict=True):
        alone = classifier.train(part, VALIDATION, seed=seed, **options)
        assert (result.best_epoch, result.updates) == (alone.best_epoch, alone.updates)
        np.testing.assert_allclose(result.history, alone.history, atol=1e-6)
        for mine, other in ((result.model.state_dict(), alone.model.state_dict()),
                            (result.last_state, alone.last_state)):
            assert all(torch.allclose(mine[name], other[name], atol=1e-6) for name in other)
    assert len({result.updates for result in together}) > 1


def test_passes_over_sets_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="steps_per_epoch"):
        ensemble.train(PARTS, VALIDATION, seeds=[0, 1, 2])


def test_same_seeds_same_weights_and_dropout_differs_between_classifiers():
    runs = [ensemble.train([PARTS[0]] * 2, VALIDATION, seeds=[1, 1], **OPTIONS) for _ in range(2)]
    first, again = ([result.last_state["features.0.weight"] for result in run] for run in runs)
    assert all(map(torch.equal, first, again)) and not torch.equal(*first)


def test_bfloat16_on_a_processor_drops_out_together_too(monkeypatch):
    monkeypatch.setattr(ensemble.engine, "has_bfloat16", lambda kind: True)
    results = ensemble.train(PARTS, VALIDATION, seeds=[3, 4, 5], precision="bfloat16", **OPTIONS)
    assert all(result.history["train_loss"].notna().all() for result in results)
    assert len({float(result.history["train_loss"].iloc[-1]) for result in results}) == 3


def test_speed_is_that_of_all_together():
    assert ensemble.images_per_second((32, 1, "cpu", "float32"), n=2, updates=3, batch_size=6) > 0


def test_it_learns_what_can_be_learnt():
    options = OPTIONS | {"steps_per_epoch": 8, "max_epochs": 8}
    results = ensemble.train([striped_faces(120, seed=1)] * 2, VALIDATION, seeds=[0, 1], **options)
    test = striped_faces(60, seed=3)
    for result in results:
        assert classifier.evaluate(classifier.predict(result.model, test), test)["accuracy"] > 0.9


def test_other_sizes_are_refused():
    with pytest.raises(FerError, match="prepare both at one size"):
        ensemble.train([PARTS[0], striped_faces(12, seed=1, size=48)], VALIDATION, seeds=[0, 1], **OPTIONS)
