"""A set of faces: images, labels, subjects and where they come from."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS

ORIGINS = ("real", "rendered", "generated")
COLUMNS = ("id", "expression", "subject", "domain")


@dataclass(frozen=True)
class Faces:
    """Face images with one table row each.

    images : uint8 [n, C, H, W], C 1 (grey) or 3 (RGB), H = W; an array or a memory map.
    table : DataFrame [n rows] with the columns id (str), expression (a name of
        labels.ALL_EXPRESSIONS), subject (str, "" when unknown), domain ("" when unknown), and any others.
    origin : "real", "rendered" or "generated", or a mixture such as "real + generated".
    Raises FerError when lengths, dtypes, columns or names do not fit.
    """

    images: np.ndarray
    table: pd.DataFrame
    origin: str

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise FerError(f"Face images must be uint8 [n, 1 or 3, H, W], not {self.images.dtype} "
                           f"{list(self.images.shape)}.")
        if self.images.shape[2] != self.images.shape[3]:
            raise FerError(f"Face images must be square, not {self.images.shape[2]} x {self.images.shape[3]}: crop or "
                           "pad them first.")
        missing = [column for column in COLUMNS if column not in self.table]
        if missing or len(self.table) != len(self.images):
            raise FerError(f"A table of faces needs one row per image ({len(self.images)} images, "
                           f"{len(self.table)} rows) and the columns {', '.join(COLUMNS)}.")
        for column in ("id", "subject"):
            if not all(isinstance(value, str) for value in self.table[column]):
                raise FerError(f'The column {column} of a table of faces holds text alone, "" where it is unknown: use '
                               f"table.fillna({{'{column}': ''}}).astype({{'{column}': str}}).")
        unknown = set(self.table["expression"]) - set(ALL_EXPRESSIONS)
        if unknown:
            raise FerError(f"Unknown expressions {sorted(unknown)}: known are {', '.join(ALL_EXPRESSIONS)}.")
        if not set(self.origin.split(" + ")) <= set(ORIGINS):
            raise FerError(f"The origin {self.origin!r} is unknown: use {', '.join(ORIGINS)}.")

    def __len__(self):
        return len(self.images)

    @property
    def codes(self):
        """Index of each image's expression in labels.ALL_EXPRESSIONS: int64 [n], 0..6 (6 is neutral)."""
        return self.table["expression"].map(ALL_EXPRESSIONS.index).to_numpy(np.int64, copy=True)

    @property
    def subjects(self):
        """Name of each image's subject: object [n] of str, "" when unknown."""
        return self.table["subject"].to_numpy(object)

    @property
    def image_size(self):
        """Height and width in pixels."""
        return self.images.shape[2]

    @property
    def channels(self):
        """1 for grey, 3 for RGB."""
        return self.images.shape[1]

    @cached_property
    def fingerprint(self):
        """SHA-256 of pixels, table and origin, as a hexadecimal string."""
        digest = hashlib.sha256(f"{self.origin} {self.images.shape}".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.table.to_csv(index=False).encode())
        return digest.hexdigest()

    def counts(self):
        """Images per expression: Series indexed by the names in labels.ALL_EXPRESSIONS."""
        return self.table["expression"].value_counts().reindex(ALL_EXPRESSIONS, fill_value=0)

    def select(self, index):
        """The faces at an integer index or where a boolean mask [n] is true, in that order."""
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return Faces(self.images[index], self.table.iloc[index].reset_index(drop=True), self.origin)

    def of(self, expressions):
        """Only the faces that show one of `expressions` (names)."""
        return self.select(self.table["expression"].isin(list(expressions)).to_numpy())

    def save(self, folder):
        """Write images.npy, table.csv and faces.json into `folder` (made if absent)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", self.images)
        self.table.to_csv(folder / "table.csv", index=False)
        note = {"origin": self.origin, "n": len(self), "fingerprint": self.fingerprint}
        (folder / "faces.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder):
        """The faces that `save` wrote, with images memory-mapped read-only.

        Raises FerError when a file is missing or truncated.
        """
        folder = Path(folder)
        try:
            note = json.loads((folder / "faces.json").read_text(encoding="utf-8"))
            images = np.load(folder / "images.npy", mmap_mode="r")
            table = pd.read_csv(folder / "table.csv", keep_default_na=False,
                                dtype={name: str for name in COLUMNS})
        except (OSError, ValueError) as error:
            raise FerError(f"The faces in {folder} cannot be read ({error}): delete that folder "
                           "and run the notebook that makes it again.") from error
        return cls(images, table, note["origin"])


def concatenate(parts):
    """One set of faces out of several, in order; origins are joined with " + "."""
    parts = list(parts)
    origins = dict.fromkeys(origin for part in parts for origin in part.origin.split(" + "))
    return Faces(np.concatenate([np.asarray(part.images) for part in parts]),
                 pd.concat([part.table for part in parts], ignore_index=True), " + ".join(origins))
