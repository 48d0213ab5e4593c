"""Data sets of facial expressions, read as they are published.

    faces, notes = readers.read("fer2013", data_root, image_size=48, channels=1)

Every reader takes the folder, zip or list it is published in and returns
(`Faces` of origin "real", notes); `notes` counts what was left out (contempt,
other angles). What each one expects is in the docstring of its function.
"""

from __future__ import annotations

from fer_lib.errors import FerError
from fer_lib.readers.posed import read_ck_plus, read_jaffe, read_kdef, read_oulu_casia, read_rafd
from fer_lib.readers.wild import csv_sources, read_affectnet, read_csv, read_fer2013, read_raf_db

READERS = {
    "fer2013": read_fer2013,
    "raf_db": read_raf_db,
    "affectnet": read_affectnet,
    "csv": read_csv,
    "ck_plus": read_ck_plus,
    "jaffe": read_jaffe,
    "kdef": read_kdef,
    "rafd": read_rafd,
    "oulu_casia": read_oulu_casia,
}


SOURCES = {"csv": csv_sources}
"""Data sets whose pictures lie elsewhere than in what is read: name -> function of that."""


def sources(name, root):
    """The files and folders whose content is the data set `name` at `root`: list of paths; none without a root."""
    return SOURCES.get(name, lambda root: [root])(root) if root else []


def read(name, root, *, image_size, channels, align=False, **options):
    """Read the data set `name` at `root`.

    name : key of `READERS`; root : folder, zip or list as published; image_size : side
        in pixels; channels : 1 (grey) or 3 (RGB); align : find each face and align it by
        its eyes (for uncropped pictures; see `alignment`); options : the reader's own.
    Returns (Faces, notes): images uint8 [n, channels, image_size, image_size], and
        dict[str, int] of what was left out.
    Raises FerError for an unknown name and for every fault of the data, naming the file.
    """
    if name not in READERS:
        raise FerError(f"unknown data set {name!r}; known: {', '.join(READERS)}")
    return READERS[name](root, image_size=image_size, channels=channels, align=align, **options)
