"""Readers of expressions posed in a laboratory: CK+, JAFFE, KDEF, RaFD, Oulu-CASIA. Subjects are known."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from pathlib import PurePosixPath

from fer_lib import labels
from fer_lib.errors import FerError
from fer_lib.readers import images
from fer_lib.readers.wild import folder_label, is_numbered

logger = logging.getLogger(__name__)

CK_PLUS_NAME = re.compile(r"(?P<subject>S\d{3})_(?P<sequence>\d{3})_(?P<frame>\d{8})")
JAFFE_NAME = re.compile(r"(?P<subject>[A-Z]{2})\.(?P<label>[A-Z]{2})(?P<take>\d)\.\d+ ?")
KDEF_NAME = re.compile(r"(?P<session>[AB])(?P<subject>[FM]\d{2})(?P<label>[A-Z]{2})(?P<angle>FL|HL|S|HR|FR)")
RAFD_NAME = re.compile(
    r"Rafd(?P<angle>\d{3})_(?P<subject>\d{2})_[A-Za-z]+_[a-z]+_(?P<label>[a-z]+)_(?P<gaze>[a-z]+)"
)
OULU_PATH = re.compile(
    r"(?:.*?/)??(?:(?P<band>NI|VL)/)?(?P<light>[^/]+)/(?P<subject>P\d{3})/(?P<label>[^/]+)/(?P<frame>\d+)\.\w+"
)


def read_ck_plus(root, *, image_size, channels, align=False):
    """CK+ as 48-pixel crops: `<expression>/S010_004_00000017.png`.

    The subject is the name's first part. The copy holds the last three frames of each
    sequence; contempt is left out and counted; there is no neutral class.
    Returns (Faces, notes), columns `sequence`, `frame`.
    Raises FerError for a folder that is no expression, or a number; names that do not fit are counted.
    Source: Lucey et al. (2010), "The extended Cohn-Kanade dataset (CK+)".
    """
    source = images.open_source(root)
    rows, notes = _named_rows(source, CK_PLUS_NAME, "S010_004_00000017.png")
    for row in rows:
        if is_numbered(row["file"]):
            raise FerError(
                f"{source.root / row['file']}: its folder has a number, as sequences have in CK+ as it is published, "
                "where the labels lie elsewhere; give the copy of 48-pixel crops, one folder an expression, or a list "
                "(dataset=csv)"
            )
        row["expression"] = folder_label(source, row["file"])
    return images.gather(source, rows, image_size=image_size, channels=channels, align=align, notes=notes)


def read_jaffe(root, *, image_size, channels, align=False):
    """JAFFE: `KA.AN1.39.tiff` is subject KA, anger, take 1.

    Returns (Faces, notes), column `take`.
    Raises FerError for an unknown code of expression; names that do not fit are counted.
    Source: Lyons et al. (1998), "Coding facial expressions with Gabor wavelets".
    """
    source = images.open_source(root)
    rows, notes = _named_rows(source, JAFFE_NAME, "KA.AN1.39.tiff")
    return images.gather(source, rows, image_size=image_size, channels=channels, align=align, notes=notes)


def read_kdef(root, *, image_size, channels, align=False, angles=("S",)):
    """KDEF: `AF01ANS.JPG` is session A, subject F01, angry, seen straight.

    angles : those kept, of FL, HL, S (straight), HR, FR; the others are counted.
    Returns (Faces, notes), columns `session`, `angle`.
    Raises FerError for an unknown code of expression; names that do not fit are counted
    (the published set has a few cut ones, as AF31V.JPG).
    Source: Lundqvist, Flykt, Öhman (1998), "The Karolinska Directed Emotional Faces".
    """
    source = images.open_source(root)
    rows, notes = _named_rows(source, KDEF_NAME, "AF01ANS.JPG")
    rows = _keep(rows, "angle", angles, what="other angles left out", notes=notes, root=root)
    return images.gather(source, rows, image_size=image_size, channels=channels, align=align, notes=notes)


def read_rafd(
    root, *, image_size, channels, align=False, angles=("090",), gazes=("frontal", "left", "right")
):
    """RaFD: `Rafd090_01_Caucasian_female_angry_frontal.jpg` is subject 01, angry, seen from the front.

    angles : camera angles kept, of 000, 045, 090 (front), 135, 180; gazes : directions of
        gaze kept; the others are counted. Contemptuous is left out and counted.
    Returns (Faces, notes), columns `angle`, `gaze`; subjects are like "rafd_01".
    Raises FerError for an unknown expression; names that do not fit are counted.
    Source: Langner et al. (2010), "Presentation and validation of the Radboud Faces Database".
    """
    source = images.open_source(root)
    rows, notes = _named_rows(source, RAFD_NAME, "Rafd090_01_Caucasian_female_angry_frontal.jpg")
    rows = _keep(rows, "angle", angles, what="other angles left out", notes=notes, root=root)
    rows = _keep(rows, "gaze", gazes, what="other gazes left out", notes=notes, root=root)
    for row in rows:
        row["subject"] = f"rafd_{row['subject']}"  # a bare number could be another set's subject too
    return images.gather(source, rows, image_size=image_size, channels=channels, align=align, notes=notes)


def read_oulu_casia(root, *, image_size, channels, align=False, lights=("Strong",), bands=("VL",), last=3,
                    first=1):
    """Oulu-CASIA: `<band>/<light>/P001/<Expression>/000.jpeg`, sequences from neutral to the peak.

    lights : those kept, of Strong, Weak, Dark; bands : of VL (visible light) and NI (near infrared), where
        both are there; last : frames kept from each sequence's
        end (the peak); first : frames kept from its start, as neutral (0 for none).
    Returns (Faces, notes), columns `band` ("" where no folder tells), `light`, `frame`.
    Raises FerError for a folder that is no expression and for files laid out otherwise.
    Source: Zhao et al. (2011), "Facial expression recognition from near-infrared videos".
    """
    source = images.open_source(root)
    sequences, notes = _oulu_sequences(source), {}
    rows = []
    for frames in sequences.values():
        neutral, peak = frames[:first], frames[max(first, len(frames) - last) :]
        rows += [row | {"expression": "neutral"} for row in neutral] + peak
        notes["other frames left out"] = (
            notes.get("other frames left out", 0) + len(frames) - len(neutral) - len(peak)
        )
    if len({row["band"] for row in rows}) > 1:
        rows = _keep(rows, "band", bands, what="other bands left out", notes=notes, root=root)
    rows = _keep(rows, "light", lights, what="other lights left out", notes=notes, root=root)
    return images.gather(source, rows, image_size=image_size, channels=channels, align=align, notes=notes)


def _named_rows(source, pattern, example):
    """(rows, notes) of the pictures whose names fit; the rest is counted, none at all is an error."""
    rows, strange = [], []
    for name in source.images():
        match = pattern.fullmatch(PurePosixPath(name).stem)
        if match is None:
            strange.append(name)
        else:
            rows.append(_row(source, name, match.groupdict()))
    if not rows:
        raise FerError(
            f"{source.root / strange[0]} is not named as expected, {example}; no picture in {source.root} is"
        )
    if strange:
        logger.warning(
            "%d names do not fit %s, the first is %s", len(strange), example, source.root / strange[0]
        )
    return rows, ({"names not understood, left out": len(strange)} if strange else {})


def _row(source, name, parts):
    row = {"file": name, "subject": parts.pop("subject"), "domain": "lab"}
    if "label" in parts:
        try:
            row["expression"] = labels.expression(parts.pop("label"))
        except FerError as error:
            raise FerError(f"{source.root / name}: {error}") from error
    return row | parts


def _keep(rows, column, wanted, *, what, notes, root):
    """The rows whose `column` is wanted; counts the others; FerError when none is."""
    kept = [row for row in rows if row[column] in wanted]
    if not kept:
        found = sorted({row[column] for row in rows})
        raise FerError(f"{root} has no picture with {column} {', '.join(wanted)}; found: {', '.join(found)}")
    if len(kept) < len(rows):
        notes[what] = len(rows) - len(kept)
    return kept


def _oulu_sequences(source):
    """{folder of a sequence: its rows in order of frames}."""
    sequences = defaultdict(list)
    for name in source.images():
        match = OULU_PATH.fullmatch(f"{source.root.name}/{name}")  # root may be the light's folder itself
        if match is None:
            raise FerError(f"{source.root / name} is not laid out as expected, Strong/P001/Anger/000.jpeg")
        sequences[PurePosixPath(name).parent].append(_row(source, name, match.groupdict(default="")))
    return {folder: sorted(rows, key=lambda row: int(row["frame"])) for folder, rows in sequences.items()}
