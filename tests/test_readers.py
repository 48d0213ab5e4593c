"""Laws of the readers, on tiny copies of each data set's published layout."""

import csv
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from fer_lib import paths, readers, runs
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS

SMALL = dict(image_size=24, channels=1)
FOLDERS = ("anger", "disgust", "fear", "happy", "sadness", "surprise")  # as CK+48 spells the six


def picture(path, *, value=None, size=(48, 48), mode="L", seed=0):
    """Write one small picture: even where `value` is given, noise otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] + ((3,) if mode == "RGB" else ())
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(noise if value is None else np.full(shape, value, np.uint8)).save(path)


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def fer2013_folders(root):
    for part in ("train", "test"):
        for code, name in enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")):
            picture(root / part / name / f"{part}_{code}.png", value=10 * code + (part == "test"))
    return root


def fer2013_csv(path, *, header=("emotion", "pixels", "Usage"), change=None):
    rows = [
        [str(code), " ".join([str(20 * code)] * 2304), usage]
        for usage in ("Training", "PublicTest", "PrivateTest")
        for code in range(7)
    ]
    if change:
        change(rows)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def ck_plus(root):
    for subject in ("S010", "S137"):
        for index, name in enumerate((*FOLDERS, "contempt")):
            picture(root / name / f"{subject}_{index:03d}_00000017.png", seed=index)
    return root


def jaffe(root):
    for subject in ("KA", "YM"):
        for number, letters in enumerate(("AN", "DI", "FE", "HA", "SA", "SU", "NE")):
            picture(root / f"{subject}.{letters}1.{39 + number}.tiff", size=(64, 64))
    return root


def kdef(root):
    for folder in ("AF01", "BM35"):
        for letters in ("AF", "AN", "DI", "HA", "NE", "SA", "SU"):
            for angle in ("S", "HL", "FR"):
                picture(root / folder / f"{folder}{letters}{angle}.JPG", size=(56, 76), mode="RGB")
    return root


def rafd(root):
    for angle in ("045", "090"):
        for name in ("angry", "contemptuous", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"):
            for gaze in ("frontal", "left"):
                picture(
                    root / f"Rafd{angle}_01_Caucasian_female_{name}_{gaze}.jpg", size=(40, 60), mode="RGB"
                )
    return root


def raf_db(root):
    lines = []
    for code in range(1, 8):
        for part in ("train", "test"):
            picture(root / "Image" / "aligned" / f"{part}_{code:04d}_aligned.jpg", mode="RGB")
            lines.append(f"{part}_{code:04d}.jpg {code}")
    (root / "EmoLabel").mkdir()
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return root


def oulu_casia(root):
    for light in ("Strong", "Dark"):
        for name in ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"):
            for frame in range(9):
                picture(root / light / "P001" / name / f"{frame:03d}.jpeg", value=20 * frame)
    return root


def affectnet(root):
    for name in (*FOLDERS, "neutral", "contempt"):
        picture(root / name / f"image_{name}.png", size=(96, 96), mode="RGB")
    return root


def listed(root, *, columns=("path", "expression", "subject")):
    rows = []
    for index, name in enumerate(ALL_EXPRESSIONS):
        picture(root / "faces" / f"{name}.png")
        rows.append([f"faces/{name}.png", name, f"p{index % 2}"])
    with open(root / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return root / "list.csv"


# reader, maker, images, images of contempt, subjects, has neutral
LAYOUTS = {
    "fer2013": (fer2013_folders, 14, 0, {""}),
    "ck_plus": (ck_plus, 12, 2, {"S010", "S137"}),
    "jaffe": (jaffe, 14, 0, {"KA", "YM"}),
    "kdef": (kdef, 14, 0, {"F01", "M35"}),
    "rafd": (rafd, 14, 2, {"rafd_01"}),
    "raf_db": (raf_db, 14, 0, {""}),
    "oulu_casia": (oulu_casia, 24, 0, {"P001"}),
    "affectnet": (affectnet, 7, 1, {""}),
    "csv": (listed, 7, 0, {"p0", "p1"}),
}


def test_every_reader_is_tested_here():
    assert set(LAYOUTS) == set(readers.READERS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_is_read_whole(name, channels, tmp_path):
    make, n_images, n_contempt, subjects = LAYOUTS[name]
    faces, notes = readers.read(name, make(tmp_path), image_size=24, channels=channels)
    assert faces.images.shape == (n_images, channels, 24, 24) and faces.images.dtype == np.uint8
    assert faces.origin == "real"
    assert set(faces.subjects) == subjects
    assert set(EXPRESSIONS) <= set(faces.table["expression"]) <= set(ALL_EXPRESSIONS)
    assert faces.table["id"].is_unique
    assert notes.get("contempt left out", 0) == n_contempt


@pytest.mark.parametrize("name", LAYOUTS)
def test_reading_twice_gives_the_same_faces(name, tmp_path):
    root = LAYOUTS[name][0](tmp_path)
    once, again = (readers.read(name, root, **SMALL)[0] for _ in range(2))
    assert once.fingerprint == again.fingerprint


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "csv"])
def test_a_missing_and_an_empty_folder_are_named(name, tmp_path):
    with pytest.raises(FerError, match="nowhere does not exist"):
        readers.read(name, tmp_path / "nowhere", **SMALL)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(FerError, match="hollow is empty"):
        readers.read(name, tmp_path / "hollow", **SMALL)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_truncated_picture_is_named(name, tmp_path):
    root = LAYOUTS[name][0](tmp_path)
    faces, _ = readers.read(name, root, **SMALL)
    victim = tmp_path / faces.table["id"][0]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(FerError, match=f"{victim.name} is truncated or no picture"):
        readers.read(name, root, **SMALL)


@pytest.mark.parametrize("name", ["fer2013", "ck_plus", "affectnet"])
def test_an_unknown_folder_is_named_and_the_known_labels_listed(name, tmp_path):
    root = LAYOUTS[name][0](tmp_path)
    happy = next(root.rglob("happy"))
    happy.rename(happy.with_name("smirk"))
    with pytest.raises(FerError, match="smirk.*known names: anger"):
        readers.read(name, root, **SMALL)


def test_an_unknown_code_in_a_file_name_is_named(tmp_path):
    jaffe(tmp_path)
    (tmp_path / "KA.AN1.39.tiff").rename(tmp_path / "KA.XX1.39.tiff")
    with pytest.raises(FerError, match="KA.XX1.39.tiff.*'XX'.*known names"):
        readers.read("jaffe", tmp_path, **SMALL)


@pytest.mark.parametrize("name", ["fer2013", "ck_plus", "affectnet"])
def test_a_class_without_a_picture_is_an_error(name, tmp_path):
    root = LAYOUTS[name][0](tmp_path)
    for folder in list(root.rglob("fear")):
        shutil.rmtree(folder)
    with pytest.raises(FerError, match="no picture of fear"):
        readers.read(name, root, **SMALL)


def test_unknown_data_set_and_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(FerError, match="unknown data set 'fer'.*fer2013.*csv"):
        readers.read("fer", tmp_path, **SMALL)
    fer2013_folders(tmp_path)
    for wrong in (
        dict(image_size=24, channels=2),
        dict(image_size=0, channels=1),
        dict(image_size=24.5, channels=1),
    ):
        with pytest.raises(FerError, match="channels|image_size"):
            readers.read("fer2013", tmp_path, **wrong)


# --- FER2013 -------------------------------------------------------------------------------------


def test_csv_folders_and_zips_of_both_hold_the_same_pixels(tmp_path):
    folders = tmp_path / "fer2013"
    for code, name in enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")):
        picture(folders / "train" / name / f"{code}.png", value=20 * code)
    table = tmp_path / "table"
    table.mkdir()
    fer2013_csv(table / "fer2013.csv", change=lambda rows: rows.__delitem__(slice(7, None)))
    roots = [
        folders,
        zipped(folders, tmp_path / "folders.zip"),
        table,
        table / "fer2013.csv",
        zipped(table, tmp_path / "table.zip"),
    ]
    before = sorted(tmp_path.rglob("*"))
    read = [readers.read_fer2013(root)[0] for root in roots]
    for faces in read:
        by_code = {code: int(image[0, 0, 0]) for code, image in zip(faces.codes, faces.images, strict=True)}
        assert by_code == {code: 20 * code for code in range(7)}
        assert set(faces.table["usage"]) == {"train"}
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


def test_the_table_of_fer2013_is_found_among_others(tmp_path):
    """As the competition publishes it, or with a picture beside."""
    fer2013_csv(tmp_path / "icml_face_data.csv", header=("emotion", " Usage", " pixels"),
                change=lambda rows: rows.__setitem__(slice(None), [[row[0], row[2], row[1]] for row in rows]))
    (tmp_path / "example_submission.csv").write_text("id,emotion\n1,3\n")
    (tmp_path / "train.csv").write_text("emotion,pixels\n")
    picture(tmp_path / "sample.png")
    assert len(readers.read_fer2013(tmp_path)[0]) == 21
    with pytest.raises(FerError, match="leave out align"):
        readers.read_fer2013(tmp_path, align=True)


def test_a_label_of_fer2013s_table_that_is_not_studied_is_left_out_and_counted(tmp_path):
    def contempt_first(rows):
        rows[0][0] = "contempt"
    whole, _ = readers.read_fer2013(fer2013_csv(tmp_path / "whole.csv"))
    faces, notes = readers.read_fer2013(fer2013_csv(tmp_path / "fer2013.csv", change=contempt_first))
    assert notes["contempt left out"] == 1 and len(faces) == len(whole) - 1
    assert (faces.images == whole.images[1:]).all() and (faces.codes == whole.codes[1:]).all()


def test_parts_of_fer2013_can_be_chosen(tmp_path):
    faces, notes = readers.read_fer2013(
        fer2013_csv(tmp_path / "fer2013.csv"), usages=("PublicTest", "PrivateTest")
    )
    assert set(faces.table["usage"]) == {"PublicTest", "PrivateTest"} and len(faces) == 14
    assert notes == {"other parts left out": 7}
    with pytest.raises(FerError, match="no part holdout; found: PrivateTest, PublicTest, train"):
        readers.read_fer2013(tmp_path / "fer2013.csv", usages=("holdout",))


@pytest.mark.parametrize(
    "column, value, told",
    [
        (0, "7", "line 4.*unknown expression number 7"),
        (1, "1 2 3", "line 4.*3 pixels.*2304"),
        (1, " ".join(["300"] * 2304), "line 4.*0..255"),
        (1, " ".join(["dark"] * 2304), "line 4.*not a number"),
        (2, "Holdout", "line 4.*'Holdout'.*PublicTest"),
    ],
)
def test_a_fault_in_the_csv_is_told_with_its_line(column, value, told, tmp_path):
    path = fer2013_csv(tmp_path / "fer2013.csv", change=lambda rows: rows[2].__setitem__(column, value))
    with pytest.raises(FerError, match=f"fer2013.csv, {told}"):
        readers.read_fer2013(path)


def test_a_wrong_column_is_told_with_what_was_expected(tmp_path):
    path = fer2013_csv(tmp_path / "fer2013.csv", header=("label", "pixels", "Usage"))
    with pytest.raises(
        FerError, match="line 1: no column emotion; expected emotion, pixels, Usage, found label"
    ):
        readers.read_fer2013(path)


def test_a_row_cut_short_is_told_with_its_line(tmp_path):
    path = fer2013_csv(tmp_path / "fer2013.csv", change=lambda rows: rows[-1].pop())
    with pytest.raises(FerError, match="line 22: 2 values, expected 3"):
        readers.read_fer2013(path)


def test_a_member_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = zipped(fer2013_folders(tmp_path / "fer2013"), tmp_path / "fer2013.zip")
    monkeypatch.setattr(readers.images, "LARGEST_FILE", 10)
    with pytest.raises(FerError, match="larger than 2 GB when unpacked"):
        readers.read("fer2013", path, image_size=48, channels=1)


def test_a_broken_zip_is_named(tmp_path):
    path = zipped(fer2013_folders(tmp_path / "fer2013"), tmp_path / "fer2013.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FerError, match="fer2013.zip is neither a folder nor a complete zip"):
        readers.read_fer2013(path)


def test_the_subset_of_fer2013_is_read_whole(shared_data):
    faces, notes = readers.read("fer2013", shared_data / "fer2013_subset.zip", image_size=48, channels=1)
    assert len(faces) == 8236 and notes == {}
    assert faces.counts().to_dict() == {name: 436 if name == "disgust" else 1300 for name in ALL_EXPRESSIONS}
    assert 100 < faces.images.mean() < 150


# --- what is particular to others ----------------------------------------------------------------


def test_other_angles_are_left_out_counted_and_can_be_asked_for(tmp_path):
    faces, notes = readers.read("kdef", kdef(tmp_path / "kdef"), **SMALL)
    assert set(faces.table["angle"]) == {"S"} and notes == {"other angles left out": 28}
    faces, notes = readers.read("kdef", tmp_path / "kdef", **SMALL, angles=("S", "HL"))
    assert len(faces) == 28 and notes == {"other angles left out": 14}
    assert set(faces.table["session"]) == {"A", "B"}
    faces, notes = readers.read("rafd", rafd(tmp_path / "rafd"), **SMALL, gazes=("frontal",))
    assert set(faces.table["angle"]) == {"090"} and len(faces) == 7
    assert notes["other angles left out"] == 16 and notes["other gazes left out"] == 8
    with pytest.raises(FerError, match="no picture with angle 135; found: 045, 090"):
        readers.read("rafd", tmp_path / "rafd", **SMALL, angles=("135",))


def test_names_that_do_not_fit_are_counted_and_none_that_fits_is_an_error(tmp_path):
    picture(kdef(tmp_path / "kdef") / "AF31" / "AF31V.JPG")  # is in the published set
    _, notes = readers.read("kdef", tmp_path / "kdef", **SMALL)
    assert notes["names not understood, left out"] == 1
    with pytest.raises(FerError, match="AF01AFFR.JPG is not named as expected, KA.AN1.39.tiff"):
        readers.read("jaffe", tmp_path / "kdef", **SMALL)


def test_oulu_casia_keeps_the_peak_and_the_neutral_start_of_one_light(tmp_path):
    faces, notes = readers.read("oulu_casia", oulu_casia(tmp_path), **SMALL)
    frames = faces.table.groupby(faces.table["expression"] == "neutral")["frame"].agg(set)
    assert frames[True] == {"000"} and frames[False] == {"006", "007", "008"}
    assert set(faces.table["light"]) == {"Strong"}
    assert notes == {"other frames left out": 60, "other lights left out": 24}
    alone, _ = readers.read("oulu_casia", tmp_path / "Strong", **SMALL, last=1, first=0)
    assert set(alone.table["frame"]) == {"008"} and len(alone) == 6


def test_raf_db_names_the_line_of_a_missing_picture_and_of_a_bad_line(tmp_path):
    root = raf_db(tmp_path)
    (root / "Image" / "aligned" / "train_0002_aligned.jpg").unlink()
    with pytest.raises(FerError, match="line 3: train_0002_aligned.jpg is not in"):
        readers.read("raf_db", root, **SMALL)
    (root / "EmoLabel" / "list_patition_label.txt").write_text("train_0001.jpg 5\ntrain_0003.jpg\n")
    with pytest.raises(FerError, match="line 2: 'train_0003.jpg'; expected a file name and a number"):
        readers.read("raf_db", root, **SMALL)
    (root / "EmoLabel" / "list_patition_label.txt").unlink()
    with pytest.raises(FerError, match="lacks list_patition_label.txt"):
        readers.read("raf_db", root, **SMALL)


def test_raf_db_numbers_mean_its_own_order(tmp_path):
    faces, _ = readers.read("raf_db", raf_db(tmp_path), **SMALL)
    by_name = dict(
        zip(faces.table["id"].str.extract(r"(\d{4})", expand=False), faces.table["expression"], strict=True)
    )
    assert by_name["0001"] == "surprise" and by_name["0006"] == "anger" and by_name["0007"] == "neutral"


@pytest.mark.parametrize(
    "line, told",
    [
        ("faces/nobody.png,anger,p9", "line 9.*nobody.png does not exist"),
        ("faces/anger.png,anger,p0", "line 9.*listed twice"),
        ("faces/more.png,smirk,p0", "line 9.*'smirk'.*known names"),
        ("faces/more.png,anger", "line 9: 2 values, expected 3"),
        ("faces/" + "x" * (1 << 24) + ",anger,p9", "line 9: field larger than field limit"),
    ],
)
def test_a_list_tells_the_line_of_its_fault(line, told, tmp_path):
    path = listed(tmp_path)
    picture(tmp_path / "faces" / "more.png")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(FerError, match=f"list.csv, {told}"):
        readers.read("csv", path, **SMALL)


def test_a_list_stands_for_the_pictures_that_it_names(tmp_path):
    path = listed(tmp_path)
    assert readers.sources("csv", path) == [path, *(tmp_path / "faces" / f"{name}.png" for name in ALL_EXPRESSIONS)]
    (tmp_path / "faces" / "anger.png").unlink()
    assert len(readers.sources("csv", path)) == len(ALL_EXPRESSIONS)  # what is missing is told when it is read
    assert readers.sources("affectnet", tmp_path) == [tmp_path] and readers.sources("built-in", "") == []
    with pytest.raises(FerError, match="is a folder; the reader 'csv' needs the CSV file itself"):
        readers.read("csv", tmp_path, **SMALL)


def test_a_list_without_a_column_is_refused(tmp_path):
    path = listed(tmp_path, columns=("file", "expression", "subject"))
    with pytest.raises(FerError, match="line 1: no column path; expected path, expression, subject"):
        readers.read("csv", path, **SMALL)


# --- pixels --------------------------------------------------------------------------------------


def one_class_set(root, write):
    """An AffectNet-like folder whose picture of anger is written by `write`."""
    affectnet(root)
    (root / "anger" / "image_anger.png").unlink()
    write(root / "anger" / "image_anger.png")
    return root


def test_colour_becomes_grey_by_luma_and_grey_becomes_three_equal_channels(tmp_path):
    red = np.zeros((24, 24, 3), np.uint8)
    red[..., 0] = 200
    root = one_class_set(tmp_path, lambda path: Image.fromarray(red).save(path))
    grey, _ = readers.read("affectnet", root, image_size=24, channels=1)
    colour, _ = readers.read("affectnet", root, image_size=24, channels=3)
    assert np.allclose(grey.of(["anger"]).images, 0.299 * 200, atol=1)
    assert (colour.of(["anger"]).images[0, 0] == 200).all() and (
        colour.of(["anger"]).images[0, 1:] == 0
    ).all()


def test_the_central_square_is_kept_and_reduced_without_aliasing(tmp_path):
    wide = np.full((96, 192), 255, np.uint8)
    wide[:, 48:144] = 120 + 100 * (np.indices((96, 96)).sum(0) % 2)  # a one-pixel checker, white at the sides
    root = one_class_set(tmp_path, lambda path: Image.fromarray(wide).save(path))
    faces, _ = readers.read("affectnet", root, **SMALL)
    inside = faces.of(["anger"]).images[0, 0, 1:-1, 1:-1]  # a checker's edge is cut mid-period
    assert inside.max() - inside.min() <= 3 and abs(int(inside.mean()) - 170) <= 2


def test_a_picture_of_the_right_size_is_kept_to_the_byte(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24), dtype=np.uint8)
    root = one_class_set(tmp_path, lambda path: Image.fromarray(pixels).save(path))
    assert (readers.read("affectnet", root, **SMALL)[0].of(["anger"]).images[0, 0] == pixels).all()


def test_sixteen_bit_pictures_are_refused_by_name(tmp_path):
    root = one_class_set(
        tmp_path, lambda path: Image.fromarray(np.full((24, 24), 40_000, np.uint16)).save(path)
    )
    with pytest.raises(FerError, match="image_anger.png has I;16 pixels"):
        readers.read("affectnet", root, **SMALL)


def test_hidden_files_of_an_archive_are_no_pictures(tmp_path):
    root = fer2013_folders(tmp_path / "fer2013")
    (root / "train" / "happy" / "._train_3.png").write_bytes(b"resource fork")
    path = zipped(root, tmp_path / "fer2013.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/fer2013/train/happy/train_3.png", b"resource fork")
    assert len(readers.read_fer2013(root)[0]) == len(readers.read_fer2013(path)[0]) == 14


def test_ck_plus_as_published_is_refused_as_its_folders_are_numbers_of_sequences(tmp_path):
    for sequence in range(1, 8):
        picture(tmp_path / "S005" / f"{sequence:03d}" / f"S005_{sequence:03d}_00000001.png")
    with pytest.raises(FerError, match="its folder has a number, as sequences have .* 48-pixel crops"):
        readers.read("ck_plus", tmp_path, **SMALL)


def test_numbered_folders_are_read_in_the_order_of_their_data_set(tmp_path, caplog):
    for part in ("train", "test"):
        for number in range(1, 8):
            picture(tmp_path / part / str(number) / f"{part}_{number:05d}_aligned.jpg")
    raf, _ = readers.read("raf_db", tmp_path, **SMALL)
    assert raf.table.set_index("id").loc["train/1/train_00001_aligned.jpg", "expression"] == "surprise"
    assert set(raf.table["usage"]) == {"train", "test"} and not caplog.records
    for part in ("train", "test"):
        picture(tmp_path / part / "0" / "a.jpg")
    numbered, _ = readers.read("affectnet", tmp_path, **SMALL)
    assert numbered.table.set_index("id").loc["train/1/train_00001_aligned.jpg", "expression"] == "happiness"
    assert "read in the order of AffectNet: 0 neutral, 1 happiness" in caplog.text
    with pytest.raises(FerError, match="not in folders 1 to 7 either"):
        readers.read("raf_db", affectnet(tmp_path / "named"), **SMALL)


def test_oulu_casia_as_published_keeps_visible_light_alone(tmp_path):
    for band in ("NI", "VL"):
        oulu_casia(tmp_path / "OriginalImg" / band)
    faces, notes = readers.read("oulu_casia", tmp_path, **SMALL)
    assert set(faces.table["band"]) == {"VL"} and len(faces) == 24 and notes["other bands left out"] == 48
    infrared, _ = readers.read("oulu_casia", tmp_path / "OriginalImg", **SMALL, bands=("NI",))
    assert set(infrared.table["band"]) == {"NI"}
    assert set(readers.read("oulu_casia", tmp_path / "OriginalImg" / "NI", **SMALL)[0].table["band"]) == {"NI"}


def test_a_name_that_is_not_utf8_is_told(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"b\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(FerError, match="name of the file 'b.udce9.png' is not UTF-8: rename it"):
        paths.files_below(tmp_path)


def test_links_to_folders_are_followed_unless_they_lead_back(tmp_path):
    elsewhere = affectnet(tmp_path / "elsewhere")
    root = tmp_path / "root"
    root.mkdir()
    (root / "faces").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "happy" / "back").symlink_to(root, target_is_directory=True)
    faces, _ = readers.read("affectnet", root, **SMALL)
    assert len(faces) == 7
    before = runs.fingerprint(root)
    picture(elsewhere / "happy" / "another.png")
    assert runs.fingerprint(root) != before


def test_files_that_are_no_pictures_are_counted(tmp_path):
    root = affectnet(tmp_path)
    (root / "happy" / "raw.heic").write_bytes(b"")
    Image.new("L", (30, 30), 90).save(root / "happy" / "old.gif")
    (root / "happy" / "old.gif").rename(root / "happy" / "old.GIF")
    faces, notes = readers.read("affectnet", root, **SMALL)
    assert len(faces) == 8 and notes == {"files that are no pictures, left out": 1, "contempt left out": 1}
