"""What every reader does: list files in a folder or a zip, decode them, gather `Faces`.

A reader turns its data set's layout into rows, one dict per picture:
`file` (path inside the source), `expression` (canonical name or one of
`labels.LEFT_OUT`), `subject`, `domain` and what else the names tell. `gather`
then decodes the pictures and checks that every class has one.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from fer_lib import alignment, labels, paths
from fer_lib.errors import FerError
from fer_lib.faces import Faces

logger = logging.getLogger(__name__)

IMAGE_ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
LIST_ENDINGS = (".csv", ".txt")  # what tells of pictures
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
CHUNK = 64
LARGEST_FILE = 2**31  # bytes that a member of a zip may have when it is unpacked, in memory


@dataclass(frozen=True)
class Source:
    """A folder or a zip file whose members are read by relative path, never unpacked to disk.

    root : the folder or the zip; names : the files in it, sorted, with "/" between parts;
    archive : the open zip, or None for a folder.
    """

    root: Path
    names: tuple[str, ...]
    archive: zipfile.ZipFile | None = None

    def read(self, name):
        """The bytes of one file. Raises FerError, naming it, when it cannot be read."""
        try:
            if self.archive is None:
                return (self.root / name).read_bytes()
            if self.archive.getinfo(name).file_size > LARGEST_FILE:
                raise FerError(f"{self.root / name} would be larger than 2 GB when unpacked: leave it out of the zip")
            return self.archive.read(name)
        except (*DECODING_ERRORS, RuntimeError) as error:
            raise FerError(f"cannot read {self.root / name}: {error}; copy the data set again") from error

    def text(self, name):
        """A text file's content, UTF-8 with or without a byte-order mark."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise FerError(f"{self.root / name} is not UTF-8 text: {error}") from error

    def images(self):
        """The names that end like a picture; FerError when there is none."""
        found = [name for name in self.names if name.lower().endswith(IMAGE_ENDINGS)]
        if not found:
            raise FerError(
                f"{self.root} holds no picture ({', '.join(IMAGE_ENDINGS)}); "
                "set the data root to the data set's folder"
            )
        return found


def open_source(root):
    """A `Source` for a folder or a .zip; FerError when it is missing, empty or not a zip."""
    root = Path(root).expanduser()
    if not root.exists():
        raise FerError(f"{root} does not exist; set the data root to the data set's folder or zip")
    if root.is_dir():
        names, archive = [path.relative_to(root).as_posix() for path in paths.files_below(root)], None
    else:
        archive = _open_zip(root)
        names = [name for name in archive.namelist() if not name.endswith("/")]
    names = tuple(sorted(name for name in names if not _is_hidden(name)))
    if not names:
        raise FerError(f"{root} is empty; set the data root to the data set's folder or zip")
    return Source(root, names, archive)


def decode(content, *, image_size, channels, name, detectors=None):
    """One picture as a face of the asked size.

    content : bytes of the file; image_size : side S in pixels; channels : 1 (grey by
        ITU-R 601 luma) or 3 (RGB); name : for messages; detectors : from
        `alignment.load_detectors` to find and align the face, None for the centre square.
    Returns (uint8 [C, S, S], found) where found is "eyes", "face" or "none" (see
        `alignment.align_image`), "" without detectors.
    Raises FerError naming the file when it is truncated, corrupt, not 8-bit or too narrow to be aligned.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                raise FerError(f"{name} has {image.mode} pixels; convert it to 8 bits per channel")
            image = image.convert("L" if channels == 1 else "RGB")
    except DECODING_ERRORS as error:
        raise FerError(f"{name} is truncated or no picture ({error}); copy it again or remove it") from error
    if detectors is not None:
        try:
            pixels, found = alignment.align_image(np.asarray(image), image_size=image_size, detectors=detectors)
        except cv2.error as error:  # a picture of a few pixels' width
            raise FerError(f"{name} is too narrow to look for a face in ({image.width} x {image.height}); "
                           "remove it") from error
    else:
        pixels, found = np.asarray(alignment.centre_square(image, image_size)), ""
    pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return pixels, found


def gather(source, rows, *, image_size, channels, align=False, notes=None):
    """Decode the pictures of `rows` into `Faces` of origin "real".

    rows : dicts as in the module's head; those whose expression is one of
        `labels.LEFT_OUT` are left out and counted. align : find and align the faces.
    notes : counts of what the reader left out so far.
    Returns (Faces, notes dict[str, int]): images uint8 [n, C, S, S].
    Raises FerError for a class without a picture, a picture that cannot be read, or a
    wrong size or number of channels.
    """
    notes = dict(notes or {})
    others = sum(not name.lower().endswith(IMAGE_ENDINGS + LIST_ENDINGS) for name in source.names)
    if others:
        notes["files that are no pictures, left out"] = others
    rows = keep_studied(rows, notes=notes, root=source.root)
    pixels, found = _decode_all(
        source, [row["file"] for row in rows], image_size=image_size, channels=channels, align=align
    )
    if align:
        notes["no face found, centre square kept"] = sum(status == "none" for status in found)
        notes["face found without eyes"] = sum(status == "face" for status in found)
    return make_faces(pixels, rows, notes=notes)


def keep_studied(rows, *, notes, root):
    """The rows of the seven expressions; others are counted in `notes`, a missing class is an error."""
    others = Counter(row["expression"] for row in rows if row["expression"] in labels.LEFT_OUT)
    notes |= {f"{name} left out": count for name, count in sorted(others.items())}
    rows = [row for row in rows if row["expression"] not in labels.LEFT_OUT]
    present = {row["expression"] for row in rows}
    missing = [name for name in labels.EXPRESSIONS if name not in present]
    if missing:
        raise FerError(
            f"{root} has no picture of {', '.join(missing)}; "
            f"each of the six expressions needs one (found: {', '.join(sorted(present)) or 'none'})"
        )
    return rows


def make_faces(pixels, rows, *, notes):
    """(Faces, notes) from pixels uint8 [n, C, S, S] and n rows; logs what was left out."""
    table = pd.DataFrame(rows).rename(columns={"file": "id"})
    for what, count in notes.items():
        logger.info("%s: %d", what, count)
    return Faces(pixels, table, origin="real"), notes


def check_shape(image_size, channels):
    """Raise FerError unless the size and the number of channels can be made."""
    if channels not in (1, 3):
        raise FerError(f"channels is {channels!r}; choose 1 (grey) or 3 (RGB)")
    if not isinstance(image_size, int | np.integer) or image_size < 8:
        raise FerError(f"image_size is {image_size!r}; choose a whole number of pixels, at least 8")


def _decode_all(source, names, *, image_size, channels, align):
    """uint8 [n, C, S, S] and n states; threads suffice because Pillow and OpenCV release the lock."""
    check_shape(image_size, channels)
    pixels = np.empty((len(names), channels, image_size, image_size), np.uint8)
    found = [""] * len(names)

    def decode_chunk(start):
        detectors = alignment.load_detectors() if align else None  # a cascade is not safe across threads
        for index in range(start, min(start + CHUNK, len(names))):
            name = names[index]
            pixels[index], found[index] = decode(
                source.read(name),
                image_size=image_size,
                channels=channels,
                name=source.root / name,
                detectors=detectors,
            )

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        jobs = [threads.submit(decode_chunk, start) for start in range(0, len(names), CHUNK)]
        try:
            for done, job in enumerate(jobs, start=1):
                job.result()
                if done % 32 == 0:
                    logger.info("read %d of %d pictures of %s", done * CHUNK, len(names), source.root)
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return pixels, found


def _open_zip(path):
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise FerError(f"{path} is neither a folder nor a complete zip file: {error}") from error


def _is_hidden(name):
    parts = PurePosixPath(name).parts
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)
