"""How near expression GANs come to the true picture, region by region, on rendered people whom none of them saw.

    python benchmarks/expression_error.py [--people 20] [GENERATOR ...]

GENERATOR: paths of generator.safetensors of 64 pixels (default: the shipped one for built-in faces). The people are of
the study's training and validation parts; by their errors, not by those of the test's people, generators may be
chosen. Printed for every generator: error / that of the unchanged face against the nearest of 16 true pictures, all
expressions together and each alone (see quality.region_error_share). Rendering takes about three minutes.
"""

import argparse

import numpy as np
import pandas as pd

from fer_lib import engine, generation, paths, quality, training, truth, weights
from fer_lib.labels import EXPRESSIONS


def errors(generator, given, true, masks):
    """DataFrame, a row for all expressions and one for each, a column for each region: shares."""
    images = training.to_device(given.images, next(generator.parameters()).device)
    made = np.stack([generation.to_uint8(generation.impose(generator, images, name)) for name in EXPRESSIONS], 1)
    chosen = {"all": range(len(EXPRESSIONS))} | {name: [code] for code, name in enumerate(EXPRESSIONS)}
    return pd.DataFrame({name: {region: share["estimate"] for region, share in quality.region_error_share(
        given, made[:, codes], true[:, codes], masks, 2, np.random.default_rng(0)).items()}
        for name, codes in chosen.items()}).T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("generators", nargs="*", metavar="GENERATOR",
                        default=[paths.REPOSITORY / "weights" / "built-in" / "expression.safetensors"])
    parser.add_argument("--people", type=int, default=20)
    options = parser.parse_args()
    given, true, masks = truth.render_truth(range(options.people), takes=16, seed=0)
    for path in options.generators:
        generator = weights.load_generator(path, device=engine.device("auto"))
        print(f"{path}\n{errors(generator, given, true, masks).round(2).to_string()}")


if __name__ == "__main__":
    main()
