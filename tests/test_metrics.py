"""The judge learns from the right faces, and its measures move the right way."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg
from test_classifier import striped_faces

from fer_lib import inception, metrics
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS


def as_generated(faces, *, images=None, expressions=None):
    table = faces.table.assign(expression=faces.table["expression"] if expressions is None else expressions)
    return Faces(faces.images if images is None else images, table, "generated")


@pytest.fixture(scope="module")
def judge():
    faces = striped_faces(280, seed=1, expressions=ALL_EXPRESSIONS, contrast=150)
    return metrics.train_judge(faces, seed=0, epochs=8, width=8, device="cpu")


def test_the_judge_knows_the_seven_expressions_it_saw(judge):
    test = striped_faces(70, seed=2, expressions=ALL_EXPRESSIONS, contrast=150)
    assert (metrics.judged_codes(judge, test) == test.codes).mean() > 0.8


def test_the_same_seed_gives_the_same_judge():
    faces = striped_faces(24, seed=1)
    states = [metrics.train_judge(faces, seed=3, epochs=1, width=8, device="cpu").state_dict()
              for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_judge_refuses_generated_faces_and_missing_classes():
    with pytest.raises(FerError, match="must not learn from generated"):
        metrics.train_judge(as_generated(striped_faces(12, seed=1)), seed=0)
    with pytest.raises(FerError, match="no image of surprise"):
        metrics.train_judge(striped_faces(12, seed=1).of(EXPRESSIONS[:5]), seed=0)


def test_fidelity_is_high_for_right_labels_and_low_for_wrong_ones(judge):
    faces = striped_faces(72, seed=3, contrast=150)
    right = metrics.label_fidelity(judge, as_generated(faces), faces, resamples=200).set_index("expression")
    shifted = np.roll(EXPRESSIONS, 1)[faces.codes]
    wrong = metrics.label_fidelity(judge, as_generated(faces, expressions=shifted), faces,
                                   resamples=200).set_index("expression")
    assert right.loc["all", "fidelity"] == right.loc["all", "judge_recall"] > 0.8
    assert wrong.loc["all", "fidelity"] < 0.2
    assert list(right.index) == [*ALL_EXPRESSIONS, "all"] and right.loc["neutral", "n_generated"] == 0
    assert (right["low"].dropna() <= right["fidelity"].dropna()).all()


def test_a_rate_that_all_share_has_an_interval_all_the_same():
    """25 people of whom all are right: the true rate may be .87 (Clopper & Pearson), not 1 for certain."""
    people = np.repeat([f"p{number}" for number in range(25)], 4)
    options = {"resamples": 200, "level": 0.95, "seed": 0}
    assert metrics._rate(np.ones(100, bool), people, **options) == pytest.approx((1, 0.025 ** (1 / 25), 1))
    assert metrics._rate(np.zeros(100, bool), people, **options) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 25)))
    assert metrics._rate(np.ones(4, bool), people[:4], **options) == (1, 0, 1)


def test_the_interval_of_a_rate_covers_when_images_of_a_subject_agree():
    covered = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        rates = rng.beta(3, 2, 40)
        subjects = np.repeat(np.arange(40).astype(str), 6)
        hit = rng.random(240) < np.repeat(rates, 6)
        _, low, high = metrics._rate(hit, subjects, resamples=400, level=0.95, seed=trial)
        covered += low <= 0.6 <= high
    assert 0.90 < covered / 200 < 0.99


def test_fid_equals_the_formula_and_grows_with_damage(judge):
    real, other = striped_faces(150, seed=4), striped_faces(150, seed=5)
    damaged = as_generated(other, images=255 - other.images)
    close, far = (metrics.fid(judge, real, as_generated(faces)) for faces in (other, damaged))
    assert 0 <= close < far
    x, y = (metrics.judge_features(judge, faces).astype(float) for faces in (real, damaged))
    root = linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    formula = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert far == pytest.approx(formula, rel=0.02)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_is_near_zero_for_the_same_source_and_repeats_exactly(judge):
    real, other = striped_faces(150, seed=4), striped_faces(150, seed=5)
    damaged = as_generated(other, images=255 - other.images)
    near, far = (metrics.kid(judge, real, as_generated(faces), subsets=20, subset_size=100)
                 for faces in (other, damaged))
    assert abs(near[0]) < 0.1 * far[0]
    assert far == metrics.kid(judge, real, damaged, subsets=20, subset_size=100)


def test_a_single_face_has_no_distance(judge):
    with pytest.raises(FerError, match="at least 2 generated faces"):
        metrics.fid(judge, striped_faces(12, seed=1), striped_faces(1, seed=2))


def test_a_sample_of_the_same_distribution_is_covered_and_a_collapsed_one_is_not():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(2, 400, 8))
    same, collapsed = metrics.coverage(real, other), metrics.coverage(real, np.repeat(other[:1], 400, 0))
    assert same["coverage"] > 0.9 and 0.8 < same["density"] < 1.2
    assert collapsed["coverage"] < 0.1 and collapsed["recall"] == 0
    with pytest.raises(FerError, match="draw as many"):
        metrics.coverage(real, other[:399])


# ---- Inception on request --------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A file as torch-fidelity publishes it, but with random weights: nobody should need a download for a test."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("inception") / inception.WEIGHTS
    network = module.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng([]):
        torch.manual_seed(0)
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(network, "load_state_dict", lambda *_: None)
        weights = network("inception", ["2048"]).state_dict()
        for weight in weights.values():
            if weight.dim() == 4:  # so that what goes in reaches the last layer
                weight.normal_(std=(2 / weight[0].numel()) ** 0.5)
        torch.save(weights, path)
    return path


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_inception_gives_the_distance_that_torchmetrics_gives(inception_file):
    """The reference: torchmetrics with torch-fidelity's own network, which takes colours of 0..255. (The kernel
    distance, as that of Fréchet takes the roots of 2048 x 2048 numbers.)"""
    from torchmetrics.image.kid import KernelInceptionDistance

    real = striped_faces(6, seed=1)
    generated = as_generated(real, images=real.images // 4)
    network = inception.load(inception_file, device="cpu")
    features = metrics.judge_features(network, real)
    assert features.shape == (6, 2048) == (len(real), network.n_features) and features.dtype == np.float32
    metric = KernelInceptionDistance(feature=_First(network.network, network.n_features), subsets=1, subset_size=6)
    for faces, is_real in ((real, True), (generated, False)):
        metric.update(torch.from_numpy(np.repeat(faces.images, 3, axis=1)), real=is_real)
    found, _ = metrics.kid(network, real, generated, subsets=1)
    assert found == pytest.approx(float(metric.compute()[0]), rel=1e-4) and found > 0.01
    assert metrics.kid(network, real, as_generated(real), subsets=1)[0] < found / 10


class _First(torch.nn.Module):
    """A network that returns a tuple of features, as one that returns the first."""

    def __init__(self, network, num_features):
        super().__init__()
        self.network, self.num_features = network, num_features

    def forward(self, images):
        return self.network(images)[0]


def test_a_file_that_is_not_inceptions_is_refused_and_not_executed(tmp_path, inception_file):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("bomb", "other", "text"):
        with pytest.raises(FerError, match=f"{name}.pth holds no weights of Inception v3 .*: give weights-inception"):
            inception.load(tmp_path / f"{name}.pth")
    with pytest.raises(FerError, match="missing.pth does not exist: give weights-inception"):
        inception.load(tmp_path / "missing.pth")
    assert not (tmp_path / "executed").exists()


def test_inception_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "file.pth").touch()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(FerError, match=r'pip install -e ".\[inception\]"'):
        inception.load(tmp_path / "file.pth")


def test_distances_of_too_few_features_are_refused():
    some = np.zeros((3, 4), np.float32)
    for distance in (metrics.frechet_distance, metrics.kernel_distance):
        for n in (0, 1):
            with pytest.raises(FerError, match=f"at least 2 generated faces, not {n}"):
                distance(some, some[:n])
