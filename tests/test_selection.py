"""Selection keeps the classes balanced, drops repeats, and never learns from generated faces."""

import numpy as np
import pandas as pd
import pytest
from test_classifier import striped_faces
from test_metrics import as_generated

from fer_lib import selection
from fer_lib.errors import FerError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import EXPRESSIONS


def test_the_best_of_every_expression_and_seed_are_kept():
    faces = as_generated(striped_faces(120, seed=0))
    faces = Faces(faces.images, faces.table.assign(generator_seed=np.arange(120) % 2), "generated")
    scores = np.random.default_rng(0).random(120)
    kept = selection.keep_best(faces, scores, share=0.5)
    table = faces.table.assign(kept=kept, score=scores)
    for _, group in table.groupby(["expression", "generator_seed"]):
        assert group["kept"].sum() == np.ceil(len(group) / 2)
        assert group.loc[group["kept"], "score"].min() >= group.loc[~group["kept"], "score"].max()


@pytest.mark.parametrize("share, kept", [(0.07, 7), (0.55, 55), (0.551, 56)])
def test_as_many_are_kept_as_the_share_says(share, kept):
    faces = striped_faces(600, seed=1)
    counts = pd.Series(faces.codes[selection.keep_best(faces, np.random.default_rng(0).random(600), share=share)])
    assert (counts.value_counts() == kept).all()


def test_a_share_of_one_keeps_all_and_other_shares_are_refused():
    faces = as_generated(striped_faces(12, seed=0))
    assert selection.keep_best(faces, np.zeros(12), share=1).all()
    for share in (0, -0.1, 1.5):
        with pytest.raises(FerError, match="cannot be kept"):
            selection.keep_best(faces, np.zeros(12), share=share)


def test_a_repeated_face_is_kept_once():
    rng = np.random.default_rng(1)
    faces = as_generated(striped_faces(60, seed=1))
    images = rng.integers(0, 256, faces.images.shape, dtype=np.uint8)
    faces = Faces(images, faces.table, "generated")
    twice = concatenate([faces, faces.select(np.arange(6))])
    kept = selection.distinct(twice)
    assert kept[:60].all() and not kept[60:].any()


def test_selection_says_what_it_left_out():
    faces = striped_faces(96, seed=2, contrast=150)
    selector = selection.train_selector(faces, seed=0, epochs=3, batch_size=16, device="cpu")
    given = as_generated(striped_faces(48, seed=4, contrast=150))
    kept, counts = selection.select(given, selection.score(selector, given), share=0.75, remove_duplicates=False)
    assert counts == {"generated": 48, "low_scored": 12, "near_duplicates": 0, "kept": 36}
    assert (kept.counts()[list(EXPRESSIONS)] == 6).all()


def test_the_selector_refuses_generated_faces():
    with pytest.raises(FerError, match="must not learn from generated"):
        selection.train_selector(as_generated(striped_faces(12, seed=1)), seed=0)
