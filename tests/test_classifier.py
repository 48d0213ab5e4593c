"""The paper's network, and the laws its training keeps."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fer_lib import classical, classifier
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS
from fer_lib.networks import winograd
from fer_lib.networks.paper_cnn import Dropout, PaperCNN, set_together


def striped_faces(n, *, seed, size=32, expressions=EXPRESSIONS, contrast=120):
    """Noise with one brighter stripe whose height tells the expression: learnt within seconds."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % len(expressions)
    images = rng.integers(0, 100, (n, 1, size, size), dtype=np.uint8)
    for image, code in zip(images, codes, strict=True):
        image[0, 4 * code:4 * code + 4] += np.uint8(contrast)
    table = pd.DataFrame({"id": [f"{seed}-{i}" for i in range(n)], "subject": "", "domain": "",
                          "expression": [expressions[code] for code in codes]})
    return Faces(images, table, "rendered")


def train(training, validation, *, seed=0, **options):
    return classifier.train(training, validation, seed=seed, device="cpu", **options)


@pytest.fixture(scope="module")
def trained():
    return train(striped_faces(120, seed=1), striped_faces(36, seed=2), lr=1e-3, max_epochs=8)


def test_network_has_the_layers_of_the_paper():
    model = PaperCNN(image_size=64)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [
        (32, 1, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3), (1024, 128 * 6 * 6), (6, 1024)]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.25, 0.25, 0.5]


@pytest.mark.parametrize("size", [32, 33, 48, 63, 64, 100])
def test_network_takes_every_size_from_32(size):
    assert PaperCNN(image_size=size, channels=3, n_classes=7)(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_weights_start_as_in_keras():
    torch.manual_seed(0)
    for layer in PaperCNN(image_size=48).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            patch = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
            limit = (6 / (patch * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            assert 0.9 * limit < layer.weight.abs().max() <= limit and not layer.bias.any()


def test_relu_after_pooling_equals_relu_before_it():
    x, pool = torch.randn(4, 8, 10, 10, requires_grad=True), nn.MaxPool2d(2)
    after, before = pool(x).relu(), pool(x.relu())
    assert torch.equal(after, before)
    assert torch.equal(*(torch.autograd.grad((y**2).sum(), x)[0] for y in (after, before)))


def test_it_learns_what_can_be_learnt(trained):
    test = striped_faces(60, seed=3)
    scores = classifier.evaluate(classifier.predict(trained.model, test), test)
    assert scores["accuracy"] > 0.9


def test_same_seed_same_weights_and_another_seed_others(trained):
    parts = striped_faces(48, seed=1), striped_faces(12, seed=2)
    state = [train(*parts, seed=seed, max_epochs=2).model.state_dict() for seed in (5, 5, 6)]
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])
    assert not torch.equal(state[0]["classifier.1.weight"], state[2]["classifier.1.weight"])


def test_training_leaves_no_trace_in_global_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(striped_faces(12, seed=1), striped_faces(6, seed=2), max_epochs=1)
    assert torch.equal(torch.rand(4), expected)


def test_the_best_weights_are_restored(trained):
    validation = striped_faces(36, seed=2)
    probabilities = classifier.predict(trained.model, validation)
    loss = -np.log(probabilities[np.arange(36), validation.codes]).mean()
    assert loss == pytest.approx(trained.history["validation_loss"].min(), abs=1e-5)
    assert trained.best_epoch == trained.history["validation_loss"].argmin() + 1


def test_training_stops_after_patience_epochs_without_improvement():
    unlearnable = striped_faces(24, seed=1, contrast=0)
    result = train(unlearnable, striped_faces(12, seed=2, contrast=0), lr=1e-3, patience=2, max_epochs=40)
    assert len(result.history) == result.best_epoch + 2 < 40


def test_every_image_is_seen_once_per_epoch():
    result = train(striped_faces(50, seed=1), striped_faces(6, seed=2), batch_size=16, max_epochs=3)
    assert result.updates == 3 * 4


def test_an_epoch_of_given_steps_takes_as_many_updates_whatever_the_number_of_images():
    results = [train(striped_faces(n, seed=1), striped_faces(6, seed=2), steps_per_epoch=3, max_epochs=2)
               for n in (12, 96)]
    assert [result.updates for result in results] == [6, 6]


def test_steps_cross_the_end_of_a_pass_without_losing_an_image():
    epochs = classifier.epochs_of(10, 4, 2, torch.Generator().manual_seed(0))
    batches = [batch for _ in range(3) for batch in next(epochs)]
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    assert sorted(torch.cat(batches[3:]).tolist()) == list(range(10))


def test_images_with_weight_0_do_not_count():
    faces, validation = striped_faces(24, seed=1), striped_faces(12, seed=2)
    scrambled = Faces(faces.images.copy(), faces.table, faces.origin)
    scrambled.images[12:] = 255 - scrambled.images[12:]
    weights = np.r_[np.ones(12), np.zeros(12)]
    results = [train(each, validation, max_epochs=2, weights=weights) for each in (faces, scrambled)]
    pd.testing.assert_frame_equal(results[0].history, results[1].history)


def test_weights_of_1_change_nothing():
    parts = striped_faces(24, seed=1), striped_faces(12, seed=2)
    results = [train(*parts, max_epochs=2, weights=weights) for weights in (None, np.ones(24))]
    pd.testing.assert_frame_equal(results[0].history, results[1].history)


def test_probabilities_sum_to_one_and_do_not_depend_on_the_company(trained):
    test = striped_faces(70, seed=4)
    together = classifier.predict(trained.model, test)
    alone = classifier.predict(trained.model, test.select([69]))
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(together[69:], alone, atol=1e-5)


def test_scores_agree_with_a_case_counted_by_hand():
    faces = striped_faces(12, seed=1)
    predicted = faces.codes.copy()
    predicted[:3] = 5
    scores = classifier.evaluate(np.eye(6)[predicted], faces)
    assert scores["accuracy"] == pytest.approx(9 / 12)
    assert [scores[f"recall_{name}"] for name in EXPRESSIONS] == pytest.approx([0.5, 0.5, 0.5, 1, 1, 1])
    assert scores["macro_f1"] == pytest.approx((3 * 2 / 3 + 2 + 4 / 7) / 6)
    assert scores["confusion"].sum() == 12 and scores["confusion"][0, 5] == 1


def test_a_class_without_an_image_and_a_seventh_label_are_refused():
    six, validation = striped_faces(12, seed=1), striped_faces(6, seed=2)
    with pytest.raises(FerError, match="no image of anger in the training part"):
        train(six.of(EXPRESSIONS[1:]), validation)
    with pytest.raises(FerError, match="neutral in the validation part"):
        train(six, striped_faces(14, seed=3, expressions=ALL_EXPRESSIONS))


def test_different_or_too_small_sizes_are_refused():
    with pytest.raises(FerError, match="prepare both at one size"):
        train(striped_faces(6, seed=1), striped_faces(6, seed=1, size=48))
    with pytest.raises(FerError, match="at least 32"):
        train(striped_faces(6, seed=1, size=28), striped_faces(6, seed=1, size=28))


def test_classical_augmentation_changes_pixels_and_keeps_range_and_shape():
    images = torch.rand(8, 1, 48, 48)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        varied = classical.vary(images)
        torch.manual_seed(0)
        assert torch.equal(varied, classical.vary(images))
    assert varied.shape == images.shape and 0 <= varied.min() and varied.max() <= 1
    assert (varied - images).abs().mean([1, 2, 3]).min() > 0.01
    still = classical.vary(images, degrees=0, shift=0, scale=0, light=0)
    mirrored = [torch.allclose(a, b, atol=1e-4) or torch.allclose(a, b.flip(2), atol=1e-4)
                for a, b in zip(still, images)]
    assert all(mirrored)


def test_bfloat16_learns_and_keeps_float32_weights(monkeypatch):
    # Many updates in one epoch: copies of the weights that outlive an update would leave it guessing.
    monkeypatch.setattr(classifier.engine, "has_bfloat16", lambda kind: True)
    half = train(striped_faces(120, seed=1), striped_faces(36, seed=2), precision="bfloat16", lr=1e-3,
                 steps_per_epoch=64, max_epochs=1)
    assert all(weight.dtype == torch.float32 for weight in half.model.parameters())
    test = striped_faces(60, seed=3)
    assert classifier.evaluate(classifier.predict(half.model, test), test)["accuracy"] > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.25, 0.5])
def test_dropout_on_a_processor_drops_each_value_with_probability_p_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    ones = torch.ones(8, 32, 40, 40, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    dropped = Dropout(p)(ones)
    dropped.sum().backward()
    kept = dropped != 0
    scale = torch.tensor(1 / (1 - p), dtype=dtype)
    assert torch.equal(dropped, kept * scale) and torch.equal(ones.grad, kept * scale)
    shares = torch.stack([kept.float().mean(list(set(range(4)) - {axis}))[:8] for axis in range(4)])
    spread = (p * (1 - p) / (kept.numel() / torch.tensor([8, 32, 40, 40]))) ** 0.5
    assert ((shares - (1 - p)).abs() < 5 * spread[:, None]).all()  # of every image, channel, row and column alike
    assert abs(np.corrcoef(kept.flatten()[:-1], kept.flatten()[1:])[0, 1]) < 5 / kept.numel() ** 0.5
    torch.manual_seed(0)
    assert torch.equal(Dropout(p)(ones), dropped) and not torch.equal(Dropout(p)(ones), dropped)
    assert Dropout(p).eval()(ones) is ones


def test_networks_that_are_trained_together_have_the_librarys_dropout():
    model, x = PaperCNN(), torch.randn(4, 32, 6, 6)
    set_together(model)
    torch.manual_seed(1)
    ours = next(layer for layer in model.modules() if isinstance(layer, Dropout))(x)
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout(0.25)(x))


@pytest.mark.parametrize("size", [48, 52, 64])  # at 52 pixels a layer has no whole tiles
def test_the_network_is_trained_as_it_predicts_up_to_rounding(monkeypatch, size):
    monkeypatch.setattr(winograd, "pays", lambda x, weight: True)
    monkeypatch.setattr(Dropout, "forward", lambda self, x: x)
    torch.manual_seed(0)
    model, images = PaperCNN(image_size=size), torch.rand(5, 1, size, size)
    trained, predicted = model(images), model.eval()(images)
    torch.testing.assert_close(trained, predicted, rtol=1e-4, atol=1e-4)
    assert not torch.equal(trained, predicted)


@pytest.mark.parametrize("case", ["together", "bfloat16", "double"])
def test_tiles_are_for_one_network_in_float32(monkeypatch, case):
    monkeypatch.setattr(winograd._PooledConvolution, "apply", None)  # whoever calls it fails
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    model, images = PaperCNN(), torch.rand(16, 1, 64, 64)
    if case == "together":
        set_together(model)
    if case == "double":
        model, images = model.double(), images.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "bfloat16"):
        assert model(images).shape == (16, 6)
    set_together(model, False)
    with pytest.raises(TypeError):
        PaperCNN()(torch.rand(16, 1, 64, 64))


def test_dropout_takes_any_layout_and_no_other_shares_than_bytes_can():
    spread = torch.ones(4, 6, 8)[:, :, ::2].requires_grad_()
    dropped = Dropout(0.5)(spread)
    assert set(dropped.flatten().tolist()) == {0, 2}
    for p in (0.3, 1.0):
        with pytest.raises(ValueError, match=str(p)):
            Dropout(p)


def test_weights_are_named_by_the_layers_of_the_paper():
    names = {name.rpartition(".")[0] for name in PaperCNN().state_dict()}
    assert names == {*(f"features.{n}" for n in (0, 2, 6, 9)), "classifier.1", "classifier.4"}


def test_an_unknown_precision_is_refused():
    with pytest.raises(FerError, match="'float8' is unknown: use float32 or bfloat16"):
        train(striped_faces(12, seed=0), striped_faces(12, seed=1), precision="float8")


def test_training_leaves_a_gpu_its_fast_convolutions_and_makes_them_deterministic():
    cudnn = torch.backends.cudnn
    with classifier.seeded(0, torch.device("cpu")):
        assert cudnn.enabled and cudnn.deterministic and not cudnn.allow_tf32 and not cudnn.benchmark
