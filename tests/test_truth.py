"""Against the rendered truth, the truth itself has no error and doing nothing has some."""

import numpy as np
import pandas as pd
import pytest

from fer_lib import rendering, truth
from fer_lib.errors import FerError
from fer_lib.faces import Faces


@pytest.fixture(scope="module")
def rendered():
    return truth.render_truth([0, 1], takes=2, image_size=32, expressions=("surprise", "happiness"), jobs=1)


def test_the_given_picture_is_the_neutral_one(rendered):
    given, true, masks = rendered
    picture = rendering.render_image(1, "neutral", 0, "lab", image_size=32)
    assert np.array_equal(given.images[1], rendering.to_channels(picture[None], 1)[0])
    assert true.shape == (2, 2, 2, 1, 32, 32)
    assert all(mask.shape == (2, 32, 32) and mask.any() for mask in masks.values())


def test_a_true_take_has_no_error_and_the_unchanged_face_has_one(rendered):
    given, true, masks = rendered
    assert (truth.region_errors(true[:, 0, 1], true[:, 0], masks) == 0).all(axis=None)
    assert (truth.region_errors(given.images, true[:, 0], masks)["mouth"] > 0.01).all()


def test_the_nearest_take_counts(rendered):
    given, true, masks = rendered
    both = truth.region_errors(given.images, true[:, 1], masks)
    single = [truth.region_errors(given.images, true[:, 1, take:take + 1], masks) for take in range(2)]
    assert np.allclose(both, np.minimum(*single))


def test_change_is_measured_where_it_happens(rendered):
    given, _, masks = rendered
    after = given.images.copy()
    after[:, 0][masks["mouth"]] ^= 128
    change = truth.change_inside(given.images, after, masks)
    assert np.allclose(change["mouth"], 128 / 255)
    assert (change["elsewhere"] == 0).all()


def test_as_many_faces_as_truths(rendered):
    given, true, masks = rendered
    with pytest.raises(FerError, match="give one each"):
        truth.region_errors(given.images[:1], true[:, 0], masks)


def test_the_people_of_a_set_of_faces_are_rendered_from_their_names(rendered):
    given, *_ = rendered
    people = Faces(given.images.repeat(2, 0), pd.concat([given.table] * 2).assign(subject=[
        "s3-0012", "s3-0007"] * 2, id=list("abcd")).reset_index(drop=True), "rendered")
    found = truth.render_truth_of(people, takes=1)
    expected = truth.render_truth([7, 12], takes=1, seed=3, image_size=32)
    assert found[0].fingerprint == expected[0].fingerprint and np.array_equal(found[1], expected[1])
    assert all(np.array_equal(found[2][region], expected[2][region]) for region in truth.REGIONS)
