"""Laws of the parts of a study."""

import numpy as np
import pandas as pd
import pytest

from fer_lib import data
from fer_lib.errors import FerError, LeakError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import EXPRESSIONS

SMALL = dict(image_size=32, channels=1, n_train_per_class=2, n_validation_per_class=2, n_test_per_class=2,
             takes_per_subject=2, n_pool_subjects=2, pool_takes=1, seed=0)
WHOLE = dict(dataset=data.BUILT_IN, data_root="", pool_dataset="", pool_root="", align=False)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    data.prepare(folder, **WHOLE, **SMALL)
    return data.load(folder)


def test_built_in_parts_share_no_subject(parts):
    assert set(parts) == {"train", "validation", "test_lab", "test_wild", "pool"}
    subjects = [set(part.subjects) for name, part in parts.items() if name != "test_wild"]
    assert sum(map(len, subjects)) == len(set.union(*subjects))
    assert set(parts["test_wild"].subjects) == set(parts["test_lab"].subjects)


def test_classes_are_balanced_and_only_the_pool_is_neutral(parts):
    for name, part in parts.items():
        counts = part.counts()
        assert set(counts[list(EXPRESSIONS)]) == {2}
        assert (counts["neutral"] > 0) == (name == "pool")


def test_people_of_sequences_are_nobody_elses_and_keep_their_pose(tmp_path):
    data.prepare(tmp_path, **WHOLE, **{**SMALL, "pool_takes": 2}, n_sequence_subjects=2)
    parts = data.load(tmp_path)
    sequences = parts["sequences"]
    assert len(sequences) == 2 * 7 * 2 and len(set(sequences.subjects)) == 2
    assert not set(sequences.subjects) & {name for part, faces in parts.items() if part != "sequences"
                                          for name in faces.subjects}
    corners = np.asarray(sequences.images)[:, 0, :3, :3].reshape(2, 14, -1)
    assert (corners == corners[:, :1]).all()  # the ground, lit and seen the same way, noise and all
    pool = np.asarray(parts["pool"].images)[:, 0, :3, :3].reshape(len(parts["pool"]), -1)
    assert len(np.unique(pool, axis=0)) == len(pool)


@pytest.mark.parametrize("other", [{"dataset": "fer2013"}, {"pool_dataset": "fer2013", "pool_root": "there"}])
def test_sequences_of_other_faces_are_refused(tmp_path, other):
    with pytest.raises(FerError, match="n_sequence_subjects"):
        data.prepare(tmp_path / "out", **{**WHOLE, **other}, **SMALL, n_sequence_subjects=2)
    assert not (tmp_path / "out").exists()


def test_everything_built_in_is_called_rendered(parts):
    assert {part.origin for part in parts.values()} == {"rendered"}
    assert set(data.overview(parts)["origin"]) == {"rendered"}


def test_tests_are_called_by_their_short_names(parts):
    assert set(data.tests(parts)) == {"lab", "wild"}


def test_a_leak_stops_the_preparation(tmp_path, monkeypatch, parts):
    leaky = {**parts, "pool": concatenate([parts["pool"], parts["test_lab"].select([0])])}
    monkeypatch.setattr(data, "rendered_parts", lambda **_: (leaky, {}))
    with pytest.raises(LeakError):
        data.prepare(tmp_path, **WHOLE, **SMALL)
    assert not list(tmp_path.iterdir())


def test_counts_that_subjects_cannot_share_are_named(tmp_path):
    with pytest.raises(FerError, match="multiple of 2"):
        data.prepare(tmp_path, **WHOLE, **{**SMALL, "n_train_per_class": 3})


def test_a_published_data_set_needs_its_place(tmp_path):
    with pytest.raises(FerError, match="data_root"):
        data.prepare(tmp_path, **{**WHOLE, "dataset": "fer2013"}, **SMALL)


def test_photographs_are_split_by_image_without_near_duplicates(tmp_path, shared_data):
    size = {**SMALL, "n_train_per_class": 100, "n_validation_per_class": 10, "n_test_per_class": 100,
            "image_size": 48}
    data.prepare(tmp_path, **{**WHOLE, "dataset": "fer2013", "data_root": shared_data / "fer2013_subset.zip"}, **size)
    parts = data.load(tmp_path)
    audit, left_out = data.load_audit(tmp_path)
    assert {part.origin for part in parts.values()} == {"real"}
    assert set(parts["test"].counts()[list(EXPRESSIONS)]) == {100} and left_out["repeats removed"] > 0
    ids = [set(part.table["id"]) for part in parts.values()]
    assert sum(map(len, ids)) == len(set.union(*ids))


def test_an_overview_counts_the_people_who_are_named(parts):
    some = Faces(parts["pool"].images[:3], parts["pool"].table.head(3).assign(subject=["a", "", ""]), "real")
    assert data.overview({"some": some, "pool": parts["pool"]})["subjects"].to_dict() == {
        "some": 1, "pool": parts["pool"].table["subject"].nunique()}
    nobody = Faces(some.images, some.table.assign(subject=""), "real")
    assert data.overview({"pool": nobody})["subjects"].item() == "unknown"


def test_faces_are_square():
    table = pd.DataFrame({"id": ["0"], "expression": ["anger"], "subject": "", "domain": ""})
    with pytest.raises(FerError, match="must be square, not 32 x 48: crop or pad"):
        Faces(np.zeros((1, 1, 32, 48), np.uint8), table, "real")
