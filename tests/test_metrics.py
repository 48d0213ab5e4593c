"""The judge learns from the right faces, and its measures move the right way."""

import numpy as np
import pytest
import torch
from scipy import linalg
from test_classifier import striped_faces

from fer_lib import metrics
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
