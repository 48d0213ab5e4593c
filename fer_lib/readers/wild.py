"""Readers of photographs found on the web: FER2013, RAF-DB, AffectNet-like folders, and any list in a CSV."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from fer_lib import alignment, labels
from fer_lib.errors import FerError
from fer_lib.readers import images

logger = logging.getLogger(__name__)

FER2013_SIDE = 48
FER2013_PARTS = {"training": "train", "publictest": "PublicTest", "privatetest": "PrivateTest"}


def read_fer2013(root, *, image_size=48, channels=1, align=False, usages=None):
    """FER2013, as the challenge's CSV or as the folders of its Kaggle copy.

    root : the CSV (columns emotion, pixels, Usage), a folder `<part>/<label>/<file>`, or a
        folder or a .zip that holds either; a zip is read without unpacking it to disk.
    image_size : side in pixels (48 keeps the published pixels); channels : 1 or 3.
    usages : keep only these parts ("train", "PublicTest", "PrivateTest", or a folder's
        name such as "test"); None keeps all.
    Returns (Faces, notes). Subjects are unknown (""); column `usage` names the part.
    Raises FerError naming file and line for a wrong column, number of pixels or label.
    Source: Goodfellow et al. (2013), "Challenges in representation learning".
    """
    images.check_shape(image_size, channels)
    root = Path(root).expanduser()
    if root.is_file() and root.suffix.lower() == ".csv":
        source, table = images.Source(root.parent, (root.name,)), root.name
    else:
        source = images.open_source(root)
        table = _pixel_table(source)
    if table is not None and align:
        raise FerError("The pictures in FER2013's CSV are cropped to the face already: leave out align=true.")
    if table is None:
        notes, rows = _part_label_rows(source, usages)
        return images.gather(source, rows, image_size=image_size, channels=channels, align=align, notes=notes)
    pixels, rows, notes = _read_pixel_table(source, table, usages)
    pixels = pixels[[row["expression"] not in labels.LEFT_OUT for row in rows]]
    rows = images.keep_studied(rows, notes=notes, root=source.root / table)
    return images.make_faces(_resize(pixels, image_size, channels), rows, notes=notes)


def read_raf_db(root, *, image_size, channels, align=False, aligned=True):
    """RAF-DB's basic expressions, from its list file `list_patition_label.txt` (spelt so), or from numbered folders.

    root : folder (or zip) with the list, whose lines are like "train_0001.jpg 5", and the
        pictures: `train_0001_aligned.jpg`, or with aligned=False `train_0001.jpg`; or without a list, as in its Kaggle copy,
        `<part>/<number>/<picture>`.
    Returns (Faces, notes). Subjects are unknown; column `usage` is "train" or "test".
    Raises FerError for a missing list or picture and for a line that is not "name number".
    Source: Li, Deng, Du (2017), "Reliable crowdsourcing and deep locality-preserving learning".
    """
    source = images.open_source(root)
    lists = [
        name
        for name in source.names
        if name.endswith(("list_patition_label.txt", "list_partition_label.txt"))
    ]
    if not lists and all(is_numbered(name) for name in source.images()):
        _, rows = _part_label_rows(source, None, "raf_db")
        return images.gather(source, rows, image_size=image_size, channels=channels, align=align)
    if not lists:
        raise FerError(f"{root} lacks list_patition_label.txt, the list of RAF-DB's labels, "
                       "and its pictures are not in folders 1 to 7 either")
    by_name = {PurePosixPath(name).name: name for name in source.images()}
    rows = []
    for number, line in enumerate(source.text(lists[0]).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{source.root / lists[0]}, line {number}"
        picture, label = _picture_and_label(line, where)
        file = f"{Path(picture).stem}_aligned.jpg" if aligned else picture
        if file not in by_name:
            raise FerError(f"{where}: {file} is not in {root}; copy the data set again")
        rows.append(
            {
                "file": by_name[file],
                "expression": label,
                "subject": "",
                "domain": "wild",
                "usage": picture.split("_")[0],
            }
        )
    return images.gather(source, rows, image_size=image_size, channels=channels, align=align)


def read_affectnet(root, *, image_size, channels, align=False):
    """Folders as in AffectNet-HQ: `<label>/<picture>`, at any depth below root.

    Folder names are expressions or AffectNet's numbers (0 neutral .. 7 contempt); a line in the log says so of numbers.
    Returns (Faces, notes). Subjects are unknown; contempt is left out and counted.
    Raises FerError, listing the known labels, for a folder that is none.
    Source: Mollahosseini, Hasani, Mahoor (2017), "AffectNet".
    """
    source = images.open_source(root)
    if any(is_numbered(name) for name in source.images()):
        order = ", ".join(f"{number} {name}" for number, name in labels.ORDERS["affectnet"].items())
        logger.warning("numbered folders of %s are read in the order of AffectNet: %s", root, order)
    rows = [
        {"file": name, "expression": folder_label(source, name, "affectnet"), "subject": "", "domain": "wild"}
        for name in source.images()
    ]
    return images.gather(source, rows, image_size=image_size, channels=channels, align=align)


def read_csv(root, *, image_size, channels, align=False):
    """Any pictures, listed in a CSV with the columns path, expression, subject (and domain, if wanted).

    root : the CSV; its paths are relative to its own folder. An empty subject means unknown.
    Returns (Faces, notes); `Faces.table.id` is the path as it is written in the list.
    Raises FerError naming file and line for a missing column, picture or unknown label.
    """
    path = Path(root).expanduser()
    if not path.is_file():
        raise FerError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; "
                       "the reader 'csv' needs the CSV file itself")
    source = images.Source(path.parent, (path.name,))
    rows, seen = [], set()
    for line, record in csv_records(source, path.name, ("path", "expression", "subject")):
        where, file = f"{path}, line {line}", record["path"].strip()
        if file in seen:
            raise FerError(f"{where}: {file} is listed twice; remove one of the two lines")
        if not (path.parent / file).is_file():
            raise FerError(f"{where}: {path.parent / file} does not exist; paths are relative to the CSV")
        seen.add(file)
        rows.append(
            {
                "file": file,
                "expression": _labelled(record["expression"], None, where),
                "subject": record["subject"].strip(),
                "domain": (record.get("domain") or "").strip(),
            }
        )
    return images.gather(source, rows, image_size=image_size, channels=channels, align=align)


def csv_sources(root):
    """The files that a list in a CSV stands for: itself, and the pictures that are where it says. List of Path."""
    path = Path(root).expanduser()
    if not path.is_file():
        return [path]
    records = csv_records(images.Source(path.parent, (path.name,)), path.name, ("path",))
    pictures = (path.parent / record["path"].strip() for _, record in records)
    return [path, *(picture for picture in pictures if picture.is_file())]


def folder_label(source, name, dataset=None):
    """The expression that the folder of file `name` is called after."""
    folder = PurePosixPath(name).parent
    label = folder.name or source.root.name
    return _labelled(label, dataset, f"{source.root / name}: its folder should be named after an expression")


def is_numbered(name):
    """Whether the folder of file `name` is called after a number."""
    return PurePosixPath(name).parent.name.isdigit()


def csv_records(source, name, required):
    """(line number, dict) of a CSV's rows; FerError naming file and line for a wrong column."""
    csv.field_size_limit(1 << 24)  # a row of FER2013 is longer than the default
    lines = csv.reader(io.StringIO(source.text(name), newline=""))
    header = [column.strip() for column in next(lines, [])]  # one Kaggle copy writes " pixels"
    missing = [column for column in required if column not in header]
    if missing:
        raise FerError(
            f"{source.root / name}, line 1: no column {', '.join(missing)}; "
            f"expected {', '.join(required)}, found {', '.join(header) or 'nothing'}"
        )
    for record in _readable(lines, source.root / name):
        if not record:
            continue
        if len(record) != len(header):
            raise FerError(
                f"{source.root / name}, line {lines.line_num}: {len(record)} values, "
                f"expected {len(header)} ({', '.join(header)})"
            )
        yield lines.line_num, dict(zip(header, record, strict=True))


def _readable(lines, where):
    """The records of a csv.reader; FerError naming the line where it gives up."""
    try:
        yield from lines
    except csv.Error as error:
        raise FerError(f"{where}, line {lines.line_num}: {error}; write the list anew as plain CSV") from error


def _labelled(label, dataset, where):
    try:
        return labels.expression(label, dataset)
    except FerError as error:
        raise FerError(f"{where}: {error}") from error


def _pixel_table(source):
    """The name of the source's CSV with a `pixels` column, or None where there are pictures instead.

    The competition's archive holds others beside it, of fewer columns; of several that fit, fer2013.csv is taken.
    """
    tables = sorted((name for name in source.names if name.lower().endswith(".csv")),
                    key=lambda name: PurePosixPath(name).name != "fer2013.csv")
    pictures = any(name.lower().endswith(images.IMAGE_ENDINGS) for name in source.names)
    whole = (name for name in tables
             if {"emotion", "pixels", "Usage"} <= {column.strip() for column in _header(source, name)})
    return next(whole, None if pictures or not tables else tables[0])


def _header(source, name):
    """The columns that the first line of a CSV names; none where it is no text."""
    try:
        return source.text(name).partition("\n")[0].split(",")
    except FerError:
        return []


def _part_label_rows(source, usages, dataset="fer2013"):
    """(notes, rows) of `<part>/<label>/<file>`, at any depth below the source."""
    rows = []
    for name in source.images():
        parts = PurePosixPath(name).parts
        part = parts[-3] if len(parts) >= 3 else ""
        rows.append(
            {
                "file": name,
                "expression": folder_label(source, name, dataset),
                "subject": "",
                "domain": "wild",
                "usage": FER2013_PARTS.get(part.lower(), part),
            }
        )
    notes = {}
    keep = _wanted([row["usage"] for row in rows], usages, notes=notes, where=source.root)
    return notes, [row for row, kept in zip(rows, keep, strict=True) if kept]


def _read_pixel_table(source, name, usages):
    """(uint8 [n, 48, 48], rows, notes) of the challenge's CSV."""
    pixels, rows = [], []
    for line, record in csv_records(source, name, ("emotion", "pixels", "Usage")):
        where = f"{source.root / name}, line {line}"
        usage = record["Usage"].strip()
        if usage.lower() not in FER2013_PARTS:
            raise FerError(f"{where}: Usage is {usage!r}; expected Training, PublicTest or PrivateTest")
        pixels.append(_parse_pixels(record["pixels"], where))
        rows.append(
            {
                "file": f"{usage}_{line:06d}",
                "expression": _labelled(record["emotion"], "fer2013", where),
                "subject": "",
                "domain": "wild",
                "usage": FER2013_PARTS[usage.lower()],
            }
        )
    notes = {}
    keep = _wanted([row["usage"] for row in rows], usages, notes=notes, where=source.root / name)
    rows = [row for row, kept in zip(rows, keep, strict=True) if kept]
    kept_pixels = [square for square, kept in zip(pixels, keep, strict=True) if kept]
    return np.array(kept_pixels, np.uint8).reshape(-1, FER2013_SIDE, FER2013_SIDE), rows, notes


def _parse_pixels(text, where):
    """uint8 [48 * 48] from 2,304 numbers 0..255 separated by blanks."""
    expected = f"expected {FER2013_SIDE * FER2013_SIDE} whole numbers 0..255"
    try:
        values = np.array(text.split(), dtype=np.float32)
    except ValueError as error:
        raise FerError(f"{where}: a pixel is not a number ({error}); {expected}") from error
    if len(values) != FER2013_SIDE * FER2013_SIDE:
        raise FerError(f"{where}: {len(values)} pixels; {expected}")
    if not ((values >= 0) & (values <= 255) & (values % 1 == 0)).all():
        raise FerError(f"{where}: a pixel is not a whole number 0..255; {expected}")
    return values.astype(np.uint8)


def _wanted(found, usages, *, notes, where):
    """bool per usage; counts the others in `notes`; FerError when a wanted part is absent."""
    if usages is None:
        return [True] * len(found)
    absent = sorted(set(usages) - set(found))
    if absent:
        raise FerError(f"{where} has no part {', '.join(absent)}; found: {', '.join(sorted(set(found)))}")
    keep = [usage in usages for usage in found]
    notes["other parts left out"] = len(keep) - sum(keep)
    return keep


def _resize(squares, image_size, channels):
    """uint8 [n, C, S, S] from grey uint8 [n, 48, 48]."""
    if squares.shape[1] != image_size:
        squares = np.stack(
            [np.asarray(alignment.centre_square(Image.fromarray(square), image_size)) for square in squares]
        )
    return np.repeat(squares[:, None], channels, axis=1)


def _picture_and_label(line, where):
    parts = line.split()
    if len(parts) != 2:
        raise FerError(
            f"{where}: {line.strip()!r}; expected a file name and a number, as in 'train_0001.jpg 5'"
        )
    return parts[0], _labelled(parts[1], "raf_db", where)
