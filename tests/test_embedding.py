"""An embedder finds one person's pictures more alike than two people's, and says when it cannot learn."""

import numpy as np
import pandas as pd
import pytest
from test_metrics import as_generated

from fer_lib import embedding
from fer_lib.errors import FerError
from fer_lib.faces import Faces
from fer_lib.labels import EXPRESSIONS


def people(n_subjects, *, seed):
    """A smooth pattern per subject, the same in each expression but for noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.uniform(60, 190, (n_subjects, 1, 4, 4)).repeat(8, 2).repeat(8, 3)
    images = np.repeat(patterns, 6, 0) + rng.normal(0, 10, (6 * n_subjects, 1, 32, 32))
    table = pd.DataFrame({"id": np.arange(6 * n_subjects).astype(str), "expression": list(EXPRESSIONS) * n_subjects,
                          "subject": np.repeat([f"p{index}" for index in range(n_subjects)], 6), "domain": ""})
    return Faces(images.clip(0, 255).astype(np.uint8), table, "real")


@pytest.fixture(scope="module")
def embedder():
    return embedding.train_embedder(people(12, seed=0), seed=0, epochs=12, width=8, device="cpu")


def test_strangers_are_told_apart(embedder):
    same, different, _ = embedding.pair_similarities(embedder, people(6, seed=1))
    assert np.median(same) > np.quantile(different, 0.9)


def test_a_face_is_most_alike_to_itself(embedder):
    faces = people(3, seed=2)
    assert np.allclose(embedding.similarity(embedder, faces, faces), 1, atol=1e-5)


def test_pairs_of_one_person_show_two_expressions(embedder):
    faces = people(3, seed=3)
    _, _, rows = embedding.pair_similarities(embedder, faces)
    assert (faces.subjects[rows[:, 0]] == faces.subjects[rows[:, 1]]).all()
    assert (faces.codes[rows[:, 0]] != faces.codes[rows[:, 1]]).all()


def test_unknown_subjects_and_generated_faces_are_refused():
    faces = people(2, seed=0)
    with pytest.raises(FerError, match="who is who"):
        embedding.train_embedder(Faces(faces.images, faces.table.assign(subject=""), "real"), seed=0)
    with pytest.raises(FerError, match="must not learn from generated"):
        embedding.train_embedder(as_generated(faces), seed=0)
