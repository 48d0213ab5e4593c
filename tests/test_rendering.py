"""Laws of the built-in faces."""
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from fer_lib import labels, rendering
from fer_lib.errors import FerError

NEUTRAL_SHOT = ("neutral", 0)


def difference(a, b):
    """Mean absolute difference per pixel, float [size, size]."""
    return np.abs(a.astype(float) - b.astype(float)).mean(2)


def test_same_picture_alone_in_a_batch_and_on_any_number_of_processes():
    """The bytes depend on the key, not on what else is drawn or where."""
    subjects, expressions = [2, 0, 1], ("anger", "neutral")
    batches = [rendering.render_faces(subjects, takes=2, domain="wild", expressions=expressions,
                                      image_size=32, channels=3, jobs=jobs) for jobs in (1, 2)]
    assert np.array_equal(batches[0].images, batches[1].images)
    assert batches[0].table.equals(batches[1].table)
    row = batches[0].table.query("id == 'wild-s0-0001-anger-01'").index[0]
    alone = rendering.render_image(1, "anger", 1, "wild", image_size=32)
    assert np.array_equal(batches[0].images[row].transpose(1, 2, 0), alone)


def test_same_picture_whatever_the_processor_can_do():
    """numpy picks other code on processors without AVX; the pictures must not notice."""
    code = ("import hashlib; from fer_lib import rendering; print(hashlib.sha256(b''.join("
            "rendering.render_image(s, 'fear', 0, d, image_size=40).tobytes() "
            "for s in range(3) for d in rendering.DOMAINS)).hexdigest())")
    here = hashlib.sha256(b"".join(rendering.render_image(s, "fear", 0, d, image_size=40).tobytes()
                                   for s in range(3) for d in rendering.DOMAINS)).hexdigest()
    newer = ("AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR "
             "X86_V3 X86_V4")       # as numpy 2.0 to 2.3 call them, then as 2.4 does
    there = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True,
                           env=os.environ | {"NPY_DISABLE_CPU_FEATURES": newer}, check=True, timeout=120)
    assert there.stdout.strip() == here


def test_a_batch_is_complete_balanced_and_named():
    seen = []
    faces = rendering.render_faces([3, 12], takes=2, domain="lab", seed=5, image_size=32, jobs=1,
                                   progress=lambda done, total: seen.append((done, total)))
    assert faces.images.shape == (28, 1, 32, 32) and faces.origin == "rendered"
    assert (faces.table.groupby(["subject", "expression"]).size() == 2).all()
    assert list(faces.table["expression"][:14:2]) == list(labels.ALL_EXPRESSIONS)
    assert set(faces.table["subject"]) == {"s5-0003", "s5-0012"}
    assert "lab-s5-0003-anger-01" in set(faces.table["id"])
    neutral = faces.table["expression"] == "neutral"
    assert (faces.table["intensity"][neutral] == 0).all() and (faces.table["intensity"][~neutral] > 0.5).all()
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("other", [{"subject": 4}, {"seed": 1}, {"take": 1}, {"domain": "wild"},
                                   {"expression": "fear"}])
def test_every_part_of_the_key_changes_the_picture(other):
    key = {"subject": 3, "expression": "neutral", "take": 0, "domain": "lab", "seed": 0, "image_size": 32}
    assert difference(rendering.render_image(**key), rendering.render_image(**key | other)).mean() > 2


def test_people_differ_more_than_takes_of_one_person():
    """Same pose, light and ground for each take: what is left is the person, and the moment."""
    faces = np.stack([rendering.render_takes(subject, "neutral", "lab", takes=range(4), shot_of=NEUTRAL_SHOT,
                                             image_size=32) for subject in range(12)])[:, :, 0].astype(float)
    centre = faces[:, :, 8:26, 8:24]
    moments = np.abs(centre[:, 1:] - centre[:, :1]).mean((1, 2, 3))
    pairs = [np.abs(centre[a, 0] - centre[b, 0]).mean() for a in range(12) for b in range(a)]
    assert np.median(pairs) > 5 * np.median(moments) and min(pairs) > 3


@pytest.mark.parametrize("domain", rendering.DOMAINS)
def test_an_expression_moves_the_face_and_not_the_ground(domain):
    mouth, brows, corner = [], [], []
    for subject in range(4):
        rest = rendering.render_image(subject, "neutral", 0, domain, image_size=48)
        masks = rendering.region_masks(subject, "neutral", 0, domain, image_size=48)
        for expression in ("happiness", "surprise"):
            moved = rendering.render_image(subject, expression, 0, domain, image_size=48,
                                           shot_of=NEUTRAL_SHOT)
            change = difference(rest, moved)
            mouth.append(change[masks["mouth"]].mean())
            brows.append(change[masks["brows"]].mean())
            corner.append(change[:8, :4].mean())
    assert np.mean(mouth) > 8 * np.mean(corner) and np.mean(brows) > 3 * np.mean(corner)


def test_change_grows_with_intensity():
    rest, half, full = (rendering.render_image(7, "surprise", 3, "lab", image_size=48, intensity=level,
                                               shot_of=NEUTRAL_SHOT) for level in (0, 0.5, 1))
    mouth = rendering.region_masks(7, "surprise", 3, "lab", image_size=48)["mouth"]
    assert difference(rest, full)[mouth].mean() > difference(rest, half)[mouth].mean() > 1


def test_takes_in_one_shot_are_the_pictures_drawn_alone():
    takes = rendering.render_takes(1, "anger", "wild", takes=[0, 4], shot_of=NEUTRAL_SHOT, image_size=32,
                                   channels=3)
    alone = rendering.render_image(1, "anger", 4, "wild", image_size=32, shot_of=NEUTRAL_SHOT)
    assert np.array_equal(takes[1].transpose(1, 2, 0), alone)
    own = rendering.render_image(1, "anger", 4, "wild", image_size=32, shot_of=("anger", 4))
    assert np.array_equal(own, rendering.render_image(1, "anger", 4, "wild", image_size=32))


def test_regions_are_where_a_face_has_them():
    masks = rendering.region_masks(0, "neutral", 0, "lab", image_size=64)
    heights = [np.argwhere(masks[region])[:, 0].mean() for region in ("brows", "eyes", "nose", "mouth")]
    assert heights == sorted(heights) and 0.33 * 64 < heights[1] < 0.45 * 64
    assert all(0.03 < mask.mean() < 0.2 for mask in masks.values())
    assert not (masks["mouth"] & masks["brows"]).any()


def test_grey_is_the_luma_of_the_colours():
    colour, grey = (rendering.render_faces([1], takes=1, domain="wild", expressions=["disgust"],
                                           image_size=32, channels=channels, jobs=1).images[0]
                    for channels in (3, 1))
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    assert grey.shape == (1, 32, 32) and np.abs(grey[0] - luma).max() <= 1


@pytest.mark.parametrize("domain", rendering.DOMAINS)
@pytest.mark.parametrize("image_size", [32, 45, 48, 96, 130, 256])
def test_any_size_shows_the_same_face(image_size, domain):
    """Reduced to 8 x 8, the picture does not depend on the size it was rendered at."""
    def reduced(size):
        picture = rendering.render_image(5, "happiness", 1, domain, image_size=size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
        edges = np.arange(9) * size // 8
        spans = list(zip(edges, edges[1:]))
        return np.array([[picture[a:b, c:d].mean() for c, d in spans] for a, b in spans])
    assert reduced(image_size).std() > 10
    assert np.abs(reduced(image_size) - reduced(64)).mean() < 6


def test_a_face_is_in_the_centre():
    """Brows, eyes, nose and mouth lie round the middle, in the wild too."""
    for subject in range(6):
        masks = rendering.region_masks(subject, "neutral", 0, "wild", image_size=48)
        y, x = np.argwhere(np.any(list(masks.values()), axis=0)).mean(0) / 48
        assert 0.35 < y < 0.6 and 0.38 < x < 0.62


@pytest.mark.parametrize("bad, words", [
    ({"domain": "studio"}, ["studio", "lab", "wild"]),
    ({"expression": "contempt"}, ["contempt", *labels.ALL_EXPRESSIONS]),
    ({"subject": -1}, ["subject", "-1"]), ({"take": -2}, ["take", "-2"]),
    ({"image_size": 16}, ["32", "256", "16"])])
def test_bad_input_is_named_with_what_is_known(bad, words):
    key = {"subject": 0, "expression": "anger", "take": 0, "domain": "lab", "image_size": 32}
    with pytest.raises(FerError) as error:
        rendering.render_image(**key | bad)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("bad", [{"subjects": []}, {"subjects": [1, 1]}, {"takes": 0},
                                 {"expressions": ["calm"]}, {"channels": 2}, {"domain": "street"}])
def test_a_batch_of_nothing_is_refused(bad):
    request = {"subjects": [0], "takes": 1, "domain": "lab", "image_size": 32, "jobs": 1}
    with pytest.raises(FerError):
        rendering.render_faces(**request | bad)


def test_compression_keeps_flat_pictures_and_loses_more_at_lower_quality():
    from fer_lib.rendering.degradation import compress
    flat = np.full((30, 30, 3), 128, np.uint8)
    assert np.array_equal(compress(flat, 50), flat)
    picture = rendering.render_image(0, "anger", 0, "lab", image_size=50)
    errors = [difference(compress(picture, quality), picture).mean() for quality in (95, 70, 45)]
    assert errors == sorted(errors) and errors[0] < errors[2]
