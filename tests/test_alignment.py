"""Laws of alignment: eyes land where they should, whatever the picture."""

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_lib import alignment, readers, rendering
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS

LEFT, RIGHT = (0.5 - alignment.EYE_DISTANCE / 2), (0.5 + alignment.EYE_DISTANCE / 2)


@pytest.fixture(scope="module")
def detectors():
    return alignment.load_detectors()


@pytest.fixture(scope="module")
def portrait():
    """A rendered face of 200 pixels on a grey ground of 420 x 560; its eyes are at these places."""
    picture = np.full((420, 560, 3), 128, np.uint8)
    picture[100:300, 200:400] = rendering.render_image(1, "neutral", 0, "lab", image_size=200)
    eyes = np.array(
        [
            [200 + 200 * LEFT, 100 + 200 * alignment.EYE_HEIGHT],
            [200 + 200 * RIGHT, 100 + 200 * alignment.EYE_HEIGHT],
        ]
    )
    return picture, eyes


def turned(portrait, degrees):
    picture, eyes = portrait
    matrix = cv2.getRotationMatrix2D((300, 200), degrees, 1)
    moved = cv2.warpAffine(picture, matrix, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return moved, eyes @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize("size", [32, 64, 150])
@pytest.mark.parametrize(
    "left, right", [((40, 50), (60, 50)), ((80, 60), (160, 100)), ((150, 120), (90, 20))]
)
def test_the_eyes_land_at_their_place(left, right, size):
    picture = np.zeros((200, 240), np.uint8)
    for centre in (left, right):
        cv2.circle(picture, centre, 4, 255, -1)
    crop = alignment.crop_by_eyes(picture, left, right, image_size=size).astype(float)
    for half, expected in ((slice(0, size // 2), LEFT), (slice(size // 2, size), RIGHT)):
        y, x = np.indices((size, size))[:, :, half]
        weight = crop[:, half] / crop[:, half].sum()
        assert (x * weight).sum() / (size - 1) == pytest.approx(expected, abs=0.6 / size)
        assert (y * weight).sum() / (size - 1) == pytest.approx(alignment.EYE_HEIGHT, abs=0.6 / size)


@pytest.mark.parametrize("degrees", [-12, 0, 12])
def test_a_face_is_found_and_turned_upright(degrees, portrait, detectors):
    picture, eyes = turned(portrait, degrees)
    crop, found = alignment.align_image(picture, image_size=64, detectors=detectors)
    assert found == "eyes" and crop.shape == (64, 64, 3) and crop.dtype == np.uint8
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    seen = np.array(alignment.find_eyes(grey, alignment.find_face(grey, detectors), detectors))
    assert np.abs(seen - eyes).max() < 0.12 * 70  # 70 pixels between the eyes


def test_turned_pictures_give_nearly_the_same_crop(portrait, detectors):
    pictures = [turned(portrait, degrees)[0] for degrees in (-12, 0, 12)]
    crops, _ = alignment.align(pictures, image_size=48, detectors=detectors)
    middles = [crop[8:40, 8:40].astype(float).ravel() for crop in crops]
    assert np.corrcoef(middles).min() > 0.8


def test_grey_pictures_stay_grey_and_are_aligned_alike(portrait, detectors):
    grey = cv2.cvtColor(portrait[0], cv2.COLOR_RGB2GRAY)
    crop, found = alignment.align_image(grey, image_size=48, detectors=detectors)
    assert crop.shape == (48, 48) and found == "eyes"


def test_without_a_face_the_central_square_is_kept(detectors):
    picture = np.tile(np.arange(120, dtype=np.uint8), (60, 1))
    crop, found = alignment.align_image(picture, image_size=60, detectors=detectors)
    assert found == "none"
    assert (crop == picture[:, 30:90]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_shows_a_face_until_its_parts_change_places(channels):
    crops = np.stack([rendering.render_image(subject, "neutral", 0, "lab", image_size=48) for subject in range(20)])
    crops, rng = np.moveaxis(crops, 3, 1)[:, :channels], np.random.default_rng(0)
    blocks = crops.reshape(20, channels, 6, 8, 6, 8).transpose(0, 2, 4, 1, 3, 5).reshape(20, 36, channels, 8, 8)
    blocks = np.stack([parts[rng.permutation(36)] for parts in blocks])
    shuffled = blocks.reshape(20, 6, 6, channels, 8, 8).transpose(0, 3, 1, 4, 2, 5).reshape(crops.shape)
    assert alignment.shows_face(crops).all() and alignment.shows_face(crops[:0]).shape == (0,)
    assert alignment.shows_face(shuffled).mean() <= 0.1
    assert not alignment.shows_face(rng.integers(0, 256, crops.shape, np.uint8)).any()


def test_an_opencv_without_cascades_is_told_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(FerError, match="has no face cascades: install opencv-python-headless>=4.10,<5"):
        alignment.load_detectors()


def test_readers_align_and_count_what_was_not_found(portrait, tmp_path):
    for name in ALL_EXPRESSIONS:
        (tmp_path / name).mkdir()
        shown = np.full((80, 80, 3), 128, np.uint8) if name == "fear" else portrait[0]
        Image.fromarray(shown).save(tmp_path / name / f"{name}.png")
    faces, notes = readers.read("affectnet", tmp_path, image_size=48, channels=1, align=True)
    assert notes["no face found, centre square kept"] == 1 and notes["face found without eyes"] == 0
    crops = faces.images[(faces.table["expression"] != "fear").to_numpy()]
    assert (crops == crops[0]).all() and crops.std() > 20
