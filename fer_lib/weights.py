"""Files of trained networks: written, read, and asked which faces they were trained on.

A file is safetensors, so that loading it runs no code. Its metadata say how the network is built and which people
and pictures it has seen; whoever uses it can check that none of them is tested on.
"""

import base64
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fer_lib.errors import FerError, LeakError
from fer_lib.faces import concatenate
from fer_lib.networks import expression_flow, stargan, stylegan2

KINDS = {"stylegan2": stylegan2.Generator, "stargan": stargan.Generator, "expression_flow": expression_flow.Generator}
IDENTITY_KINDS, EXPRESSION_KINDS = ("stylegan2",), ("stargan", "expression_flow")


def save_weights(network, folder, *, name, options, kind, faces=None, sequences=None):
    """Write a network as <name>.safetensors, with its kind, options and what it was trained on in the metadata.

    options : dict of ints, arguments of the network's class. faces : Faces that it was trained on, or None if unknown.
    sequences : Faces beside those, or None.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    metadata = {"kind": kind, "options": json.dumps(options, sort_keys=True)}
    if faces is not None:
        metadata["trained_on"] = json.dumps(trace(faces, sequences))
    _write(tensors, Path(folder) / f"{name}.safetensors", metadata)


def _write(tensors, path, metadata):
    """Write all of a file or nothing, so that one that was cut short is not taken for whole."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(tensors, partial, metadata=metadata)
    os.replace(partial, path)


def set_options(path, **options):
    """Give other options, which leave the shapes of tensors as they are, to the network in a file of `save_weights`."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    metadata["options"] = json.dumps(json.loads(metadata["options"]) | options, sort_keys=True)
    _write(load_file(path), Path(path), metadata)


def load_generator(path, *, device="cpu"):
    """The generator that `save_weights` wrote, in evaluation mode. Loading runs no code from the file.

    Raises FerError when the file is missing, damaged or of another kind.
    """
    return load_network(path, kinds=KINDS, device=device, remedy="train one with notebooks 02 and 03, or give the path "
                        "of a generator.safetensors")


def load_network(path, *, kinds, device="cpu", what="generator", remedy="run notebooks/04_generation.ipynb"):
    """The network that `save_weights` wrote, in evaluation mode, of one of `kinds`, a dict name -> class.

    what, remedy : for the message. Raises FerError when the file is missing, damaged or of another kind.
    """
    path = Path(path)
    try:
        metadata = read_metadata(path)
        network = kinds[metadata["kind"]](**metadata["options"])
        network.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and torch raise many types for a damaged file
        raise FerError(f"{path} is not a {what} of this compendium ({type(error).__name__}): {remedy}.") from error
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def read_metadata(path):
    """{"kind": str, "options": dict of int, "trained_on": dict as `trace` gives it, or None}.

    Raises FerError for a file that `save_weights` has not written.
    """
    try:
        with safe_open(path, "pt") as file:
            found = dict(file.metadata())
        return {"kind": found["kind"], "options": json.loads(found["options"]),
                "trained_on": json.loads(found["trained_on"]) if "trained_on" in found else None}
    except Exception as error:  # safetensors raises many types for a damaged file
        raise FerError(f"{path} is damaged, or no network of this compendium ({type(error).__name__}): give the path "
                       "of another file of weights.") from error


# ---- what a generator has seen ----------------------------------------------------------------------------

def trace(faces, sequences=None):
    """Which people and pictures a set of faces holds, in a form that fits into a file's metadata.

    sequences : Faces beside those, or None; they count in all but n and fingerprint, which are those of `faces`.
    Returns a dict: origin, n, image_size, channels, fingerprint, subjects (list of names, empty where unknown),
    pictures (base64 of 8-byte hashes of the pixels, sorted) and, with sequences, n_sequences, their number of pictures.
    """
    every, extra = (faces, {}) if sequences is None else (
        concatenate([faces, sequences]), {"n_sequences": len(sequences)})
    return {"origin": every.origin, "n": len(faces), "image_size": faces.image_size, "channels": faces.channels,
            "fingerprint": faces.fingerprint, "subjects": sorted(set(every.subjects) - {""}),
            "pictures": base64.b64encode(_hashes(every).tobytes()).decode(), **extra}


def has_seen(path, faces):
    """Whether the network in a file of `save_weights` was trained on these faces: on all of their people, or, where
    nobody is named, on nearly all of the pictures. Faces rendered anew elsewhere are of the same people."""
    trained_on = read_metadata(path)["trained_on"]
    if trained_on is None:
        return False
    if trained_on["fingerprint"] == faces.fingerprint:
        return True
    people = set(faces.subjects) - {""}
    if people or faces.image_size != trained_on["image_size"]:
        return bool(people) and people <= set(trained_on["subjects"])
    return bool(np.isin(_hashes(faces), _pictures(trained_on)).mean() > 0.9)


def check_seen(paths, faces):
    """Raise FerError unless the generators in some files of `save_weights` were trained on these faces."""
    for path in paths:
        if not has_seen(path, faces):
            raise FerError(f"The arm external needs the faces that both GANs learned from, but {path} learned from "
                           "others than this pool: leave external out of the arms, or train both GANs on this pool "
                           "(identity_weights=train, expression_weights=train).")


def _pictures(trained_on):
    return np.frombuffer(base64.b64decode(trained_on["pictures"]), "<u8")


def describe(trained_on):
    """What a generator has seen, in words: "3360 rendered faces" and, with sequences, " and 6720 frames of sequences".

    trained_on : dict of `trace`, or None.
    """
    if trained_on is None:
        return "faces that its file does not name"
    frames = trained_on.get("n_sequences", 0)
    return f"{trained_on['n']} {trained_on['origin']} faces" + (f" and {frames} frames of sequences" if frames else "")


def _hashes(faces):
    """Sorted hashes of the pictures' pixels: uint64 [n]."""
    digests = [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).digest() for image in faces.images]
    return np.unique(np.frombuffer(b"".join(digests), "<u8"))


def check_unseen(trained_on, parts, *, name):
    """Raise LeakError when a generator was trained on a person or a picture of a part that others learn from or test.

    trained_on : dict of `trace`, or None, of which nothing can be said. parts : dict part -> Faces; pool and sequences
    are the GANs' own. name : of the generator, for the message.
    """
    if trained_on is None:
        return
    pictures = _pictures(trained_on)
    for part, faces in parts.items():
        people = sorted(set(trained_on["subjects"]) & set(faces.subjects))
        known = np.isin(_hashes(faces), pictures).sum() if faces.image_size == trained_on["image_size"] else 0
        if part not in ("pool", "sequences") and (people or known):
            what = f"{len(people)} people ({people[0]} …)" if people else f"{known} pictures"
            raise LeakError(f"{name} was trained on {what} of the part {part}: train a generator of your own with the "
                            "value `train`.")
