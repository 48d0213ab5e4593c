"""Images per second of the paper's CNN in training: one single-threaded process, and one per core.

Run from the repository root: python benchmarks/classifier.py [--size 64] [--images 320] [--jobs N]
"""

import argparse
import time

import numpy as np
import pandas as pd

from fer_lib import classifier, engine
from fer_lib.faces import Faces
from fer_lib.labels import EXPRESSIONS


def random_faces(n, *, size, seed=0):
    """Noise with the six labels in turn: what is in the pictures does not change the time."""
    images = np.random.default_rng(seed).integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    table = pd.DataFrame({"id": np.arange(n).astype(str), "subject": "", "domain": "",
                          "expression": [EXPRESSIONS[index % 6] for index in range(n)]})
    return Faces(images, table, "real")


def train_one_epoch(task):
    """Images per second of one epoch, after a short one that is not counted. task : (n, size, seed)."""
    n, size, seed = task
    validation = random_faces(12, size=size)
    classifier.train(random_faces(48, size=size), validation, seed=seed, max_epochs=1, device="cpu")
    trained = classifier.train(random_faces(n, size=size), validation, seed=seed, max_epochs=1, device="cpu")
    return n / trained.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--images", type=int, default=320, help="images per process")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one per core)")
    options = parser.parse_args()
    for jobs in dict.fromkeys((1, engine.job_count(options.jobs))):
        tasks = [(options.images, options.size, seed) for seed in range(jobs)]
        start = time.perf_counter()
        rates = [rate for _, rate in engine.map(train_one_epoch, tasks, jobs=jobs)]
        print(f"{options.size} px, batch 16, {jobs} process(es): {sum(rates):.0f} images/s in all, "
              f"{min(rates):.0f} in the slowest (with start-up {time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
