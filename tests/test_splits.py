"""Laws of the splits: nothing is shared, and what is planted is found."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fer_lib import duplicates, readers, rendering, splits
from fer_lib.errors import FerError, LeakError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS

COUNTS = dict(n_train_per_class=4, n_validation_per_class=2, n_test_per_class=3)


def noise_faces(n_subjects, takes=2, *, expressions=ALL_EXPRESSIONS, seed=0, known=True):
    """Smooth noise, different for every picture: subjects s000, s001.. or unknown ones."""
    rows = [
        {
            "id": f"s{subject:03d}-{name}-{take}",
            "expression": name,
            "domain": "",
            "subject": f"s{subject:03d}" if known else "",
        }
        for subject in range(n_subjects)
        for name in expressions
        for take in range(takes)
    ]
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(len(rows), 48, 48)), (0, 2, 2))
    return Faces(np.clip(128 + 300 * noise, 0, 255).astype(np.uint8)[:, None], pd.DataFrame(rows), "real")


@pytest.fixture(scope="module")
def people():
    """Rendered frontal faces of 24 subjects: the hard case, as all are cropped and lit alike."""
    return rendering.render_faces(range(24), takes=1, domain="lab", image_size=48, jobs=1)


def as_jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


ALTERED = {
    "stored again": lambda image: image,
    "brighter": lambda image: np.clip(image * 0.8 + 40, 0, 255).astype(np.uint8),
    "darker by a gamma": lambda image: (255 * (image / 255) ** 1.5).astype(np.uint8),
    "recompressed": lambda image: as_jpeg(image, 60),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
}


def planted(host, guest, alter):
    """`host` and, at its end, one picture of `guest` altered, under a name and subject of its own."""
    table = guest.table.assign(id="planted", subject="" if set(host.subjects) == {""} else "planted")
    return concatenate([host, Faces(alter(guest.images[0, 0])[None, None], table, guest.origin)])


# --- split ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_subject_is_in_two_parts(seed):
    parts = splits.split(noise_faces(12), **COUNTS, seed=seed)
    subjects = [set(part.subjects) for part in parts.values()]
    assert list(parts) == ["train", "validation", "test", "pool"]
    assert sum(map(len, subjects)) == len(set.union(*subjects))


@pytest.mark.parametrize("known", [True, False])
def test_counts_are_as_asked_and_only_the_pool_is_neutral(known):
    parts = splits.split(noise_faces(12, known=known), **COUNTS, seed=0)
    for name, asked in (("train", 4), ("validation", 2), ("test", 3)):
        assert parts[name].counts().to_dict() == {e: 0 if e == "neutral" else asked for e in ALL_EXPRESSIONS}
    assert (parts["pool"].counts() > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_as_asked_where_subjects_lack_expressions(seed):
    faces = noise_faces(40, takes=1)
    faces = faces.select(np.random.default_rng(seed).random(len(faces)) < 0.6)
    parts = splits.split(faces, **COUNTS, seed=seed)
    assert all(
        (parts[name].counts()[list(EXPRESSIONS)] == asked).all()
        for name, asked in (("train", 4), ("validation", 2), ("test", 3))
    )
    subjects = [set(part.subjects) for part in parts.values()]
    assert sum(map(len, subjects)) == len(set.union(*subjects))


def test_unknown_subjects_are_split_by_picture_and_all_pictures_are_used():
    faces = noise_faces(12, known=False)
    parts = splits.split(faces, **COUNTS, seed=0)
    ids = [name for part in parts.values() for name in part.table["id"]]
    unused = set(faces.table["id"]) - set(ids)
    assert len(ids) == len(set(ids)) and not unused


def test_same_seed_same_split_and_another_seed_another():
    faces = noise_faces(12)
    once, again, other = (splits.split(faces, **COUNTS, seed=seed) for seed in (3, 3, 4))
    assert all(once[name].fingerprint == again[name].fingerprint for name in once)
    assert set(once["test"].subjects) != set(other["test"].subjects)


def test_every_subject_comes_to_test_under_some_seed():
    faces = noise_faces(8)
    seen = {
        subject for seed in range(30) for subject in splits.split(faces, **COUNTS, seed=seed)["test"].subjects
    }
    assert seen == set(faces.subjects)


def test_the_pool_can_come_from_elsewhere():
    parts = splits.split(noise_faces(5), **COUNTS, seed=0, pool=False)  # 2 + 1 + 2 subjects suffice
    assert list(parts) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    "faces, told",
    [
        (noise_faces(1, takes=20), "1 subject cannot be divided into 4 parts.*at least 4 subjects"),
        (
            noise_faces(12, expressions=("anger", "disgust", "fear", "happiness", "neutral", "surprise")),
            "no image of sadness",
        ),
        (noise_faces(4), "8 images of anger but the parts need 10.*lower n_train_per_class"),
        (noise_faces(5), "Nothing of anger.* is left for the GANs' pool: lower n_train_per_class"),
    ],
)
def test_what_cannot_be_split_is_told_with_the_remedy(faces, told):
    with pytest.raises(FerError, match=told):
        splits.split(faces, **COUNTS, seed=0)


def test_a_part_that_runs_out_of_subjects_is_named():
    with pytest.raises(
        FerError,
        match="part train needs 6 images of anger but 3 are left for it, of 1 subject: "
        "lower n_train_per_class",
    ):
        splits.split(
            noise_faces(4, takes=3),
            n_train_per_class=6,
            n_validation_per_class=1,
            n_test_per_class=4,
            seed=0,
            pool=False,
        )


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "3"])
def test_a_count_below_one_is_refused_by_name(wrong):
    with pytest.raises(FerError, match="n_validation_per_class is"):
        splits.split(noise_faces(12), **{**COUNTS, "n_validation_per_class": wrong}, seed=0)


# --- near-duplicates -----------------------------------------------------------------------------


@pytest.mark.parametrize("alteration", ALTERED)
def test_an_altered_copy_is_found_among_unknown_faces(alteration, people):
    unknown = Faces(people.images, people.table.assign(subject=""), people.origin)
    for index in (0, 60, 120):
        pairs = splits.find_near_duplicates(planted(unknown, unknown.select([index]), ALTERED[alteration]))
        copies = pairs[pairs["id_b"] == "planted"]
        assert unknown.table["id"][index] in set(copies["id_a"])


def test_different_people_are_no_near_duplicates(people):
    (described,) = duplicates.describe(people.images)
    pairs = duplicates.find(described)
    different = people.subjects[pairs["a"]] != people.subjects[pairs["b"]]
    assert not different.any()


def test_of_repeats_with_one_label_the_first_is_kept_and_of_others_none():
    faces = noise_faces(20, takes=1, known=False)
    repeat = faces.select([3, 3, 10])
    repeat = Faces(repeat.images, repeat.table.assign(id=["a", "b", "c"]), "real")
    relabelled = repeat.table.assign(expression=[*repeat.table["expression"][:2], "sadness"])
    assert faces.table["expression"][10] != "sadness"
    kept, notes = splits.remove_near_duplicates(
        concatenate([faces, Faces(repeat.images, relabelled, "real")])
    )
    assert list(kept.table["id"]) == list(faces.table["id"].drop(10))
    assert notes == {
        "pictures compared": 143,
        "groups of near-duplicates": 2,
        "repeats removed": 2,
        "removed because labels disagree": 2,
    }


def test_removing_twice_removes_nothing_more_and_distinct_pictures_stay():
    faces = noise_faces(20, known=False)
    kept, notes = splits.remove_near_duplicates(faces)
    assert len(kept) == len(faces) and notes["repeats removed"] == 0


def test_a_copy_without_a_subject_goes_and_the_known_one_stays():
    known = noise_faces(4, takes=1)
    copies = Faces(known.images[:7], known.table.iloc[:7].assign(subject="", id=list("abcdefg")), "real")
    for faces in (concatenate([known, copies]), concatenate([copies, known])):
        kept, notes = splits.remove_near_duplicates(faces)
        assert sorted(kept.table["id"]) == sorted(known.table["id"]) and notes["repeats removed"] == 7
    unlike = Faces(copies.images, copies.table.assign(expression="neutral"), "real")
    disagree = (known.table["expression"][:7] != "neutral").sum()
    kept, notes = splits.remove_near_duplicates(concatenate([known, unlike]))
    assert len(kept) == len(known) - disagree and notes["removed because labels disagree"] == 2 * disagree


def test_takes_of_a_known_subject_are_not_compared():
    faces = noise_faces(4)
    kept, notes = splits.remove_near_duplicates(concatenate([faces, faces]))
    assert len(kept) == 2 * len(faces) and notes["pictures compared"] == 0


def test_even_pictures_are_only_found_when_they_are_the_same():
    faces = noise_faces(10, takes=1, known=False)
    images = faces.images.copy()
    images[[0, 7]], images[14] = 0, 255
    pairs = splits.find_near_duplicates(Faces(images, faces.table, "real"))
    assert list(zip(pairs["index_a"], pairs["index_b"], strict=True)) == [(0, 7)] and pairs["exact"].all()


# --- audit ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(people):
    return splits.split(people, n_train_per_class=6, n_validation_per_class=3, n_test_per_class=6, seed=0)


def test_a_clean_split_passes_and_the_report_says_what_was_compared(parts):
    report = splits.audit(parts)
    assert list(report.columns) == ["check", "part_a", "part_b", "n_a", "n_b", "found"]
    assert len(report) == 3 * 6 and (report["found"] == 0).all()
    pixels = report[report["check"] == "same pixels"].set_index(["part_a", "part_b"])
    assert tuple(pixels.loc[("test", "pool"), ["n_a", "n_b"]]) == (len(parts["test"]), len(parts["pool"]))


@pytest.mark.parametrize("alteration", ALTERED)
@pytest.mark.parametrize("host, guest", [("pool", "test"), ("pool", "validation"), ("train", "test")])
def test_a_planted_copy_stops_the_audit_and_is_named(host, guest, alteration, parts):
    leaky = {**parts, host: planted(parts[host], parts[guest].select([5]), ALTERED[alteration])}
    name = parts[guest].table["id"][5]
    with pytest.raises(LeakError, match=f"{name}.*planted|planted.*{name}") as caught:
        splits.audit(leaky)
    assert host in str(caught.value) and guest in str(caught.value)


def test_a_shared_subject_stops_the_audit_and_is_named(parts):
    shared = parts["test"].subjects[0]
    table = parts["pool"].table.copy()
    table.loc[0, "subject"] = shared
    with pytest.raises(LeakError, match=f"test and pool share 1 same subject.*{shared}"):
        splits.audit({**parts, "pool": Faces(parts["pool"].images, table, "rendered")})


def test_two_test_sets_may_show_the_same_people(parts):
    splits.audit({"train": parts["train"], "test_lab": parts["test"], "test_wild": parts["test"]})
    with pytest.raises(LeakError):
        splits.audit({"train": parts["test"], "test_lab": parts["test"]})


def test_an_empty_part_is_audited_without_a_fault(parts):
    report = splits.audit(
        {"test": parts["test"], "pool": parts["pool"].select(np.zeros(len(parts["pool"]), bool))}
    )
    assert (report["found"] == 0).all()


def test_fer2013_is_split_without_a_leak_after_its_repeats_are_removed(shared_data):
    faces, _ = readers.read("fer2013", shared_data / "fer2013_subset.zip", image_size=48, channels=1)
    kept, notes = splits.remove_near_duplicates(faces)
    assert 300 < notes["groups of near-duplicates"] < 600 and notes["removed because labels disagree"] > 50
    for seed in range(2):
        parts = splits.split(
            kept, n_train_per_class=100, n_validation_per_class=30, n_test_per_class=100, seed=seed
        )
        assert (splits.audit(parts)["found"] == 0).all()
    with pytest.raises(LeakError, match="near-duplicate"):
        splits.audit(
            splits.split(
                faces, n_train_per_class=100, n_validation_per_class=30, n_test_per_class=100, seed=0
            )
        )
