"""How often the intervals of a gain hold the truth, by simulation.

    python benchmarks/interval_coverage.py [--trials 300] [--images 600] [--seeds 3 5 8] [--spread 0 3 5.5]
                                           [--subjects N ... --subject-spread 15]

An arm has an accuracy of .35 and another one of .40; the second differs between training seeds by a standard deviation
of --spread points, and both are tested on the same images, some of which are easier than others. Printed for every
number of seeds and spread: how often the intervals of intervals.paired_gain (by resampling, and by analysis of
variance) and of intervals.seed_interval hold the true gain (they claim .95), and half their width in points. The last
speaks of the very images that it was tested on. With --subjects the images are of as many people, in turn, between
whom the second arm's accuracy differs by a standard deviation of --subject-spread points.
"""

import argparse

import numpy as np
import pandas as pd
from scipy import stats

from fer_lib.intervals import POINTS, paired_gain, seed_interval

ACCURACIES = .35, .40


def world(rng, n_images, n_seeds, spread, people=None, subject_spread=0):
    """Two arms as bool [seeds, images], and the true gain in points.

    people : int [n_images], from 0, or None. Ease of an image and luck of a run have variance 1.
    """
    low, high = (stats.norm.ppf(accuracy) * 2**0.5 for accuracy in ACCURACIES)
    unit = stats.norm.pdf(high / 2**0.5) / 2**0.5 * POINTS  # points for a unit of ease
    shift, of_people = spread / unit, 0.0 if people is None else subject_spread / unit
    truth = stats.norm.cdf(high / (2 + shift**2 + of_people**2) ** 0.5) - ACCURACIES[0]
    ease, luck = rng.normal(size=n_images), rng.normal(size=(2, n_seeds, n_images))
    gained = ease + high + shift * rng.normal(size=(n_seeds, 1))
    if people is not None:
        gained = gained + of_people * rng.normal(size=people.max() + 1)[people]
    return ease + low + luck[0] > 0, gained + luck[1] > 0, POINTS * truth


def coverage(n_seeds, spread, *, trials, n_images, n_subjects=None, subject_spread=0, resamples=1_000):
    """One row of the table: dict."""
    rng, found = np.random.default_rng([n_seeds, round(10 * spread), *([n_subjects] if n_subjects else [])]), []
    people = None if n_subjects is None else np.arange(n_images) % n_subjects
    clusters = None if people is None else [f"person {number}" for number in people]
    for trial in range(trials):
        a, b, truth = world(rng, n_images, n_seeds, spread, people, subject_spread)
        gain = paired_gain(a, b, clusters=clusters, resamples=resamples, seed=trial)
        three = gain["points"], gain["anova"], seed_interval(POINTS * (b.mean(1) - a.mean(1)))
        found.append([value for each in three
                      for value in (each["low"] <= truth <= each["high"], (each["high"] - each["low"]) / 2)])
    names = [f"{name} {what}" for name in ("bootstrap", "anova", "seeds") for what in ("holds", "+-")]
    row = {} if n_subjects is None else {"subjects": n_subjects}
    means = np.mean(np.array(found, float), 0)
    return {"seeds": n_seeds, "spread": spread, **row, **dict(zip(names, means, strict=True))}


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 8])
    parser.add_argument("--spread", type=float, nargs="+", default=[0, 3, 5.5])
    parser.add_argument("--subjects", type=int, nargs="+", default=[None])
    parser.add_argument("--subject-spread", type=float, default=15)
    options = parser.parse_args(arguments)
    rows = [coverage(n, spread, trials=options.trials, n_images=options.images, n_subjects=subjects,
                     subject_spread=options.subject_spread)
            for n in options.seeds for spread in options.spread for subjects in options.subjects]
    print(pd.DataFrame(rows).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
