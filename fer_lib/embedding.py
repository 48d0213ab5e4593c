"""Who is on a picture: an embedder of identities, and how alike two sets of faces are in its eyes."""

import numpy as np
import torch
from torch.nn import functional as F

from fer_lib import engine, metrics
from fer_lib.classifier import seeded
from fer_lib.errors import FerError
from fer_lib.networks.judge import Judge


def train_embedder(faces, *, seed, epochs=12, lr=3e-3, batch_size=32, width=16, device="auto"):
    """A network that tells the subjects of `faces` apart; what it learned is used on other people.

    faces : Faces, real or rendered, with subjects, none of whom is in a test set.
    Other arguments as in metrics.train_judge. Returns Judge in evaluation mode, one class per subject.
    Raises FerError when faces are generated, or fewer than two subjects are known.
    """
    if "generated" in faces.origin:
        raise FerError("The embedder must not learn from generated faces: give it real or rendered ones.")
    check_named(faces)
    subjects, codes = np.unique(faces.subjects.astype(str), return_inverse=True)
    device = engine.device(device)
    engine.keep_memory()
    with seeded(seed, device):
        network = Judge(channels=faces.channels, n_classes=len(subjects), width=width)
        network = network.to(device, memory_format=torch.channels_last)
        metrics.fit_judge(network, faces, codes, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed)
    return network.eval()


def check_named(faces, *, remedy="choose a data set with subjects"):
    """Raise FerError unless faces are of at least two subjects, each named. remedy : for the message."""
    if len(set(faces.subjects)) < 2 or "" in set(faces.subjects):
        raise FerError("An embedder of identities needs faces of at least two subjects, each named, and this data set "
                       f"does not say who is who: {remedy}.")


def embed(embedder, faces):
    """Embeddings of length 1: float32 [len(faces), embedder.n_features]."""
    return F.normalize(torch.from_numpy(metrics.judge_features(embedder, faces)), dim=1).numpy()


def similarity(embedder, faces, others):
    """Cosine similarity of each face to the face in the same row of another set: float32 [n], -1 to 1."""
    return (embed(embedder, faces) * embed(embedder, others)).sum(1)


def pair_similarities(embedder, faces, *, seed=0, n_pairs=20_000):
    """Cosine similarities of random pairs of one subject with two expressions, and of two subjects.

    faces : Faces with subjects. n_pairs : pairs drawn of each kind, at most.
    Returns (same, different, rows): float32 [m] each, and int64 [m, 2], the faces of the pairs in `same`.
    Raises FerError when there is no pair of a kind.
    """
    rng = np.random.default_rng(seed)
    vectors, subjects, codes = embed(embedder, faces), faces.subjects.astype(str), faces.codes
    a, b = np.triu_indices(len(faces), 1)
    alike = subjects[a] == subjects[b]
    kinds = alike & (codes[a] != codes[b]), ~alike
    if not all(kind.any() for kind in kinds):
        raise FerError("Pairs of faces need two subjects, and one of them with two expressions.")
    rows = []
    for kind in kinds:
        index = np.flatnonzero(kind)
        index = rng.permutation(index)[:n_pairs]
        rows.append(np.stack([a[index], b[index]], 1))
    same, different = ((vectors[row[:, 0]] * vectors[row[:, 1]]).sum(1) for row in rows)
    return same, different, rows[0]
