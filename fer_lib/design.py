"""How many seeds a study needs, and those of a small one that tells the sources of chance apart."""

from itertools import product

from fer_lib.errors import FerError

FEW_SEEDS = 8  # below, intervals by resampling hold their promise less well, see docs/RESULTS.md, "Intervals"


def variance_design(levels=3):
    """The seed triples of a small study that tells the sources of chance apart.

    Every split seed meets every generator seed once, each time with a train seed of its own, so that what split
    and generator leave over is initialisation and order.
    levels : int, at least 2; levels**2 classifiers.
    Returns a list of (split_seed, generator_seed, train_seed).
    """
    if levels < 2:
        raise FerError(f"A variance split needs at least 2 seeds of each kind, not {levels}.")
    return [(split, generator, number) for number, (split, generator) in enumerate(product(range(levels), repeat=2))]
