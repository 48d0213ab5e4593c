"""From a random identity to its expressions: the chain of the two GANs.

Source: Gholipour Picha, Al Chanti, Caplier (2023): the first GAN draws an identity, the second imposes
each expression on it.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from fer_lib import alignment, engine
from fer_lib.errors import FerError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import ALL_EXPRESSIONS, EXPRESSIONS
from fer_lib.networks import expression_flow
from fer_lib.weights import load_generator

log = logging.getLogger(__name__)
PART = 1024  # images that are compared, or made smaller, at once
RAREST, DRAWS = 1 / 20, 256  # if after so many identities fewer than this fraction show a face, the search ends


def latents(indices, *, seed, latent_size):
    """The latent of each identity, which depends on (seed, index) alone: float32 [n, latent_size].

    seed : int, or a list of ints.
    """
    draws = [np.random.default_rng([*np.atleast_1d(seed).tolist(), index]).standard_normal(latent_size)
             for index in indices]
    return torch.from_numpy(np.array(draws, np.float32).reshape(-1, latent_size))


@torch.inference_mode()
def identities(generator, indices, *, seed, truncation=1.0, batch_size=64):
    """Faces of random identities: float [n, C, H, W] in -1..1, on the generator's device.

    generator : stylegan2.Generator. indices : ints, which identities of this seed. truncation : >= 0.
    Raises FerError for a negative truncation.
    """
    if truncation < 0:
        raise FerError(f"The truncation {truncation} is below 0: use 1 for the full variety, less for typical faces.")
    device = next(generator.parameters()).device
    z = latents(indices, seed=seed, latent_size=generator.latent_size)
    parts = [generator(part.to(device), truncation=truncation, noise="fixed").clamp(-1, 1)
             for part in z.split(batch_size)]
    return torch.cat(parts)


def identities_with_a_face(generator, n, *, seed, truncation=1.0):
    """The first n identities of a seed in which a face detector that had no part in the training finds a face.

    generator, seed, truncation : as in `identities`. Returns (which identities these are: list of n ints, their faces
    as `identities` returns them). Raises FerError where hardly any shows a face.
    """
    indices, faces, drawn = [], [], 0
    while len(indices) < n:
        if drawn >= DRAWS and len(indices) < RAREST * drawn:
            raise FerError(f"A face was found in {len(indices)} of {drawn} identities alone: train the identity GAN "
                           "for longer, or set faces_only to false.")
        batch = range(drawn, drawn + 64)
        images = identities(generator, batch, seed=seed, truncation=truncation)
        found = alignment.shows_face(to_uint8(images))
        indices += [index for index, seen in zip(batch, found) if seen]
        faces.append(images[torch.from_numpy(found).to(images.device)])
        drawn += len(batch)
    log.info("seed %s: a face was found in %d of %d identities", seed, len(indices), drawn)
    return indices[:n], torch.cat(faces)[:n]


@torch.inference_mode()
def impose(generator, images, expression, *, intensity=1.0, seed=None, batch_size=64):
    """The faces `images`, float [n, C, H, W] in -1..1, with `expression` (a name) imposed.

    generator : stargan.Generator or expression_flow.Generator.
    intensity : 0 leaves the face as it is, 1 is full; only expression_flow knows others than 1.
    seed : int, draws how each face shows the expression; None shows it the typical way. StarGAN has one way.
    Raises FerError for a negative intensity, or another than 1 where the generator has none.
    """
    _checked(generator, intensity)
    code = ALL_EXPRESSIONS.index(expression)
    if not len(images):
        return images
    options = [{}] * len(images)
    if has_intensity(generator):
        ways = (torch.zeros(len(images), generator.latent_size) if seed is None else
                latents(range(len(images)), seed=[seed, code], latent_size=generator.latent_size)).to(images.device)
        options = [{"latent": part, "intensity": intensity} for part in ways.split(batch_size)]
    parts = [generator(part, torch.full([len(part)], code, device=part.device), **option)
             for part, option in zip(images.split(batch_size), options)]
    return torch.cat(parts).clamp(-1, 1)


@torch.inference_mode()
def impose_all(generator, person, *, intensity=1.0):
    """One face, float [1, C, H, W] in -1..1, in all seven expressions: float [7, C, H, W].

    As one batch, which on one core is a third faster than seven. Arguments and errors: see `impose`.
    """
    codes = torch.arange(len(ALL_EXPRESSIONS), device=person.device)
    _checked(generator, intensity)
    options = {"intensity": intensity} if has_intensity(generator) else {}
    return generator(person.expand(len(codes), -1, -1, -1), codes, **options).clamp(-1, 1)


def has_intensity(generator):
    """Whether an expression generator knows other intensities than 1."""
    return isinstance(generator, expression_flow.Generator)


def _checked(generator, intensity):
    if intensity < 0 or (intensity != 1 and not has_intensity(generator)):
        raise FerError(f"The intensity {intensity} is not possible: use 0 or more with the flow GAN, and 1 with "
                       "StarGAN.")
    return intensity


def generate(identity_gan, expression_gan, *, n_identities, seed, truncation=1.0, intensity=1.0,
             expressions=EXPRESSIONS, faces_only=False):
    """A balanced set of generated faces: every identity shows every expression once.

    identity_gan, expression_gan : the two generators, on one device.
    n_identities : int. seed : int; identity i of a seed is always the same person.
    truncation, intensity : see `identities` and `impose`. faces_only : leave out identities in which no face is found,
    see `identities_with_a_face`.
    Returns Faces [n_identities * len(expressions)], sorted by identity, with the columns generator_seed,
    truncation and intensity. Raises FerError for fewer than one identity.
    """
    if n_identities < 1:
        raise FerError(f"{n_identities} identities were asked for: ask for at least one.")
    if faces_only:
        indices, people = identities_with_a_face(identity_gan, n_identities, seed=seed, truncation=truncation)
    else:
        indices = range(n_identities)
        people = identities(identity_gan, indices, seed=seed, truncation=truncation)
    images = torch.stack([impose(expression_gan, people, name, intensity=intensity, seed=seed)
                          for name in expressions], 1)
    subjects = [f"g{seed}-{index:05d}" for index in indices]
    rows = [{"id": f"{subject}-{name}", "expression": name, "subject": subject, "domain": "",
             "generator_seed": seed, "truncation": truncation, "intensity": intensity}
            for subject in subjects for name in expressions]
    return Faces(to_uint8(images.flatten(0, 1)), pd.DataFrame(rows), "generated")


def to_uint8(images):
    """Pixels 0..255, uint8 [...], from float in -1..1."""
    return images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu().contiguous().numpy()


def nearest_faces(images, faces, *, coarse=12):
    """The most similar face of a set for each given image, and what distance is usual within the set.

    images : uint8 [n, C, H, W]. faces : Faces [m]. coarse : side in pixels to which all are averaged first. A face
    counts as its mirror image, too, as generators may have learned from either.
    Returns (uint8 [n, C, H, W], median distance of the images to their nearest face, median distance of the
    set's faces to the nearest face of another subject, or another image where subjects are unknown).
    Distances are root mean squared differences of pixels in 0..1.
    """
    known, n = with_mirrored(faces, coarse), len(faces)
    distances, near = nearest_of(images, known, coarse)
    some = np.linspace(0, len(faces) - 1, min(len(faces), 500)).astype(int)
    among = torch.cdist(known[some], known) / known.shape[1] ** 0.5
    among = torch.minimum(among[:, :n], among[:, n:])
    named = faces.subjects != ""
    same = (faces.subjects[some][:, None] == faces.subjects[None, :]) & named[None, :]
    same[np.arange(len(some)), some] = True
    among[torch.from_numpy(same.astype(bool))] = torch.inf
    return np.asarray(faces.images)[near], float(torch.from_numpy(distances).median()), float(among.amin(1).median())


def nearest_distances(images, faces, *, coarse=12):
    """Distance of each image to the most similar face of a set, as in `nearest_faces`: float32 [n]."""
    return nearest_of(images, with_mirrored(faces, coarse), coarse)[0]


def with_mirrored(faces, coarse=12):
    """Faces [n] and their mirror images behind them, as `reduced` has them: float32 [2 n, C * coarse * coarse]."""
    known = reduced(np.asarray(faces.images), coarse)
    return torch.cat([known, known.unflatten(1, (-1, coarse)).flip(2).flatten(1)])


def nearest_of(images, known, coarse=12):
    """Distance of each image, uint8 [n, C, H, W], to the nearest of `with_mirrored` faces, and which face that is:
    float32 [n], int64 [n]. Some images at a time: all distances at once may be more than memory holds."""
    distances, near = zip(*[(torch.cdist(part, known) / known.shape[1] ** 0.5).min(1)
                            for part in reduced(images, coarse).split(PART)])
    return torch.cat(distances).numpy(), torch.cat(near).numpy() % (len(known) // 2)


def reduced(images, size=12):
    """Images, uint8 [n, C, H, W], averaged to size x size pixels in 0..1: float32 [n, C * size * size]."""
    parts = [torch.from_numpy(np.array(images[first:first + PART])) for first in range(0, max(len(images), 1), PART)]
    return torch.cat([F.adaptive_avg_pool2d(part.float().div(255), size).flatten(1) for part in parts])


def make_bank(identity_folder, expression_folder, folder, *, wanted, faces_only=False, device="auto"):
    """Write into `folder` the faces that a study draws from.

    identity_folder, expression_folder : where the two generator.safetensors lie. wanted : list of dicts n_identities,
        seed, truncation and intensity, see `generate`; those to be judged first, see `standard`.
    faces_only : see `generate`.
    Raises FerError when none is wanted.
    """
    if not wanted:
        raise FerError("The plan of the study has no arm that is given generated faces: add mixed to arms.")
    device = engine.device(device)
    gans = [load_generator(Path(path) / "generator.safetensors", device=device)
            for path in (identity_folder, expression_folder)]
    for options in wanted:
        _checked(gans[1], options["intensity"])
    parts = []
    for options in wanted:
        parts.append(generate(*gans, faces_only=faces_only, **options))
        log.info("generated %d faces of seed %d", len(parts[-1]), options["seed"])
    concatenate(parts).save(folder)


def standard(bank):
    """Which faces of a bank have the intensity and truncation of its first one: bool [len(bank)]."""
    columns = bank.table[["intensity", "truncation"]]
    return np.array((columns == columns.iloc[0]).all(axis=1))
