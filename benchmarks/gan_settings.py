"""What the two GANs learn best with, at equally many updates: short trainings that differ in one or two settings.

    python run_all.py --profile built_in --only 01
    python benchmarks/gan_settings.py identity [--steps 1500] [--seeds 0 1] [--gammas 0.3 1 3] [--targets 0.6]
                                               [--policies mirror mirror,light,shift]
    python benchmarks/gan_settings.py expression [--steps 300] [--warm-up 300] [--seeds 0 1] [--person-weights 0 1 10]

Both take `--profile` (default: built_in; `expression` needs rendered faces), whose other settings they keep, and
`--jobs` (2 trainings at once, of one thread each). Finished trainings are kept in runs/<profile>; written, in place of
an earlier table, is results/<profile>/<which>_settings.csv, a row for each training. Nothing looks at the test parts.

`identity` varies the weight of the penalties and the augmentation: each policy always, and the last of them as often as
keeps the discriminator as far from guessing as a target says (ADA; told as target, 0: always). Told are, of 1,000 draws
and by the features of the shipped judge: fid_pool and fid_unseen, Fréchet distances to the pool and to the faces of the
study's training and validation parts, of whom the GAN saw nobody; precision and recall of as many draws as there are
such faces; and of the last updates augmented, the chance of an augmentation, and the discriminator's loss. In a profile
with r1_final_gamma the penalties fall to that from each weight.

`expression` varies the weight of the identity term, which costs a pass of its embedder in every update. --warm-up is of
the discriminator; the generator's, from sequences, stays as many times as long as in the profile. Told are, of rendered
people of the study's training and validation parts: error_<region>, the error against the nearest of 16 true pictures /
that of the unchanged face (as quality.region_error_share); identity, likeness before and after / that of two pictures
of one person, in the eyes of the shipped embedder, another one than that which taught; fidelity, how often the shipped
judge sees what was asked for.
"""

import argparse
import sys

import joblib
import numpy as np
import pandas as pd
import torch

from fer_lib import (batch, data, embedding, engine, generation, metrics, quality, referee, runs, training, truth,
                     weights)
from fer_lib.errors import FerError
from fer_lib.faces import Faces, concatenate
from fer_lib.labels import EXPRESSIONS

N_DRAWS = 1_000
IDENTITY = {"batch_size": "identity_batch_size", "lr": "identity_lr", "final_gamma": "r1_final_gamma",
            "ema_kimg": "ema_kimg", "decay": "identity_decay", "optimiser": "identity_optimiser",
            "precision": "precision", "objective": "identity_objective", "critic": "identity_critic",
            "critic_lr": "critic_lr", "r1_interval": "r1_interval"}
IDENTITY_SIZES = {"channel_base": "identity_channel_base", "channel_max": "identity_channel_max",
                  "latent_size": "latent_size", "critic_width": "identity_critic_width"}
EXPRESSION = {"batch_size": "expression_batch_size", "lr": "expression_lr", "weight_class": "class_weight",
              "weight_partner": "partner_weight", "weight_smooth": "smooth_weight",
              "weight_residual": "residual_weight", "residual_power": "residual_power", "gamma": "expression_gamma",
              "weight_sequence": "sequence_weight", "optimiser": "expression_optimiser"}
EXPRESSION_SIZES = {"width": "expression_conv_dim", "n_blocks": "expression_blocks", "residual_scale": "residual_scale",
                    "flow_scale": "flow_scale", "critic_width": "expression_critic_width"}
"""Arguments of the trainings -> parameters of notebooks 2 and 3."""


def named(values, names):
    """{argument: value of the parameter} for a table as above."""
    return {argument: values[parameter] for argument, parameter in names.items()}


# ---- the identity GAN ------------------------------------------------------------------------------------

def identity_plan(values, given):
    """Arguments of training.train_identity_gan, one dict for each training."""
    policies = [tuple(policy.split(",")) for policy in given.policies]
    ways = [(policy, 0.0) for policy in policies] + [(policies[-1], target) for target in given.targets]
    return [named(values, IDENTITY) | {"steps": given.steps, "image_options": named(values, IDENTITY_SIZES),
                                       "gamma": gamma, "augmentation": policy, "augmentation_target": target,
                                       "seed": seed}
            for seed in given.seeds for gamma in given.gammas for policy, target in ways]


def train_identity(profile, options):
    """The artifact of one training; one thread, so that several can go at once."""
    torch.set_num_threads(1)
    workspace = runs.open_workspace(profile, step="identity_settings")
    pool = data.load(workspace.require("faces").path)["pool"]
    return runs.build(workspace, "identity_gan", params=options, inputs=[pool.fingerprint], code=["fer_lib.training"],
                      make=lambda folder: training.train_identity_gan(pool, folder, **options))


def identity_rows(plan, artifacts, parts, networks):
    """How far the draws of each GAN are from real or rendered faces: list of dicts."""
    unseen = concatenate([parts["train"], parts["validation"]])
    known = {name: metrics.judge_features(networks.judge, faces) for name, faces in
             (("pool", parts["pool"]), ("unseen", unseen))}
    rows = []
    for options, artifact in zip(plan, artifacts, strict=True):
        generator = weights.load_generator(artifact.path / "generator.safetensors", device=engine.device("auto"))
        images = generation.to_uint8(generation.identities(generator, range(N_DRAWS), seed=1))
        drawn = metrics.judge_features(networks.judge, Faces(images, nobodies(N_DRAWS), "generated"))
        near = metrics.coverage(known["unseen"][:N_DRAWS], drawn[:len(unseen)])
        end = training.load_history(artifact.path).iloc[-1]
        rows.append({"gamma": options["gamma"], "augmentation": " ".join(options["augmentation"]),
                     "target": options["augmentation_target"], "seed": options["seed"], "steps": options["steps"],
                     **{f"fid_{name}": metrics.frechet_distance(features, drawn) for name, features in known.items()},
                     "precision": near["precision"], "recall": near["recall"], "augmented": end.get("augmented", 1.0),
                     "discriminator": end["discriminator"]})
    return rows


def nobodies(n):
    """A table for n generated faces without expression."""
    return pd.DataFrame({"id": [f"draw-{index}" for index in range(n)], "expression": "neutral", "subject": "",
                         "domain": ""})


# ---- the expression GAN ----------------------------------------------------------------------------------

def expression_plan(values, given):
    """Arguments of training.train_flow_gan, one dict for each training."""
    if values["expression_method"] != "flow":
        raise FerError("StarGAN has no identity term: choose a profile whose expression_method is flow.")
    sizes = named(values, EXPRESSION_SIZES) | {"mirrored": bool(values["expression_mirrored"])}
    from_sequences = round(given.warm_up * values["sequence_warm_up_steps"] / values["warm_up_steps"])
    return [named(values, EXPRESSION) | {"steps": given.steps, "image_options": sizes, "warm_up": given.warm_up,
                                         "sequence_warm_up": from_sequences, "weight_identity": weight, "seed": seed,
                                         "augmentation": tuple(values["expression_augmentation"])}
            for seed in given.seeds for weight in given.person_weights]


def train_expression(profile, options):
    """The artifact of one training; one thread, so that several can go at once."""
    torch.set_num_threads(1)
    workspace = runs.open_workspace(profile, step="expression_settings")
    parts = data.load(workspace.require("faces").path)
    pool, more = parts["pool"], {name: parts[name] for name in ("sequences",) if name in parts}

    def make(folder):
        guide = embedding.train_embedder(pool, seed=10_000 + options["seed"]) if options["weight_identity"] else None
        training.train_flow_gan(pool, folder, guide=guide, **options, **more)

    return runs.build(workspace, "expression_gan", params=options, make=make,
                      code=["fer_lib.training", "fer_lib.embedding"],
                      inputs=[pool.fingerprint, *(part.fingerprint for part in more.values())])


def expression_rows(plan, artifacts, parts, networks):
    """How near what each GAN makes is to the truth, to the person and to the expression: list of dicts."""
    known = concatenate([parts["train"], parts["validation"]])
    given, true, masks = truth.render_truth_of(known, takes=quality.TRUE_TAKES)
    images, rows = training.to_device(given.images, engine.device("auto")), []
    for options, artifact in zip(plan, artifacts, strict=True):
        generator = weights.load_generator(artifact.path / "generator.safetensors", device=engine.device("auto"))
        made = np.stack([generation.to_uint8(generation.impose(generator, images, name)) for name in EXPRESSIONS], 1)
        rng = np.random.default_rng(0)
        errors = quality.region_error_share(given, made, true, masks, 2, rng)
        alike = quality.identity_shares(networks.embedder, given, made, known, 2, rng)
        faces = Faces(made.reshape(-1, *made.shape[2:]), nobodies(made.shape[0] * made.shape[1]), "generated")
        wanted = np.tile(np.arange(len(EXPRESSIONS)), len(given))
        rows.append({"person_weight": options["weight_identity"], "seed": options["seed"], "steps": options["steps"],
                     "warm_up": options["warm_up"], "sequence_warm_up": options["sequence_warm_up"],
                     **{f"error_{region}": share["estimate"] for region, share in errors.items()},
                     "identity": alike["identity_similarity_share"]["estimate"],
                     "fidelity": float((metrics.judged_codes(networks.judge, faces) == wanted).mean())})
    return rows


GANS = {"identity": (identity_plan, train_identity, identity_rows, ["gamma", "augmentation", "target"]),
        "expression": (expression_plan, train_expression, expression_rows, ["person_weight"])}


def command_line():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="gan", required=True)
    identity, expression = (commands.add_parser(name) for name in GANS)
    identity.add_argument("--steps", type=int, default=1500)
    identity.add_argument("--gammas", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    identity.add_argument("--targets", type=float, nargs="*", default=[0.6])
    identity.add_argument("--policies", nargs="+", default=["mirror", "mirror,light,shift"])
    expression.add_argument("--steps", type=int, default=300)
    expression.add_argument("--warm-up", type=int, default=300)
    expression.add_argument("--person-weights", type=float, nargs="+", default=[0.0, 1.0, 10.0])
    for command in (identity, expression):
        command.add_argument("--profile", default="built_in")
        command.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
        command.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


def shipped_referee(values, pool, *, embedder):
    """The shipped networks that look at what is made, before anything is trained; FerError where one is missing."""
    dataset = values["pool_dataset"] or values["dataset"]
    given = referee.shipped("shipped", dataset=dataset, faces=pool)
    if "judge" not in given or (embedder and (pool.origin != "rendered" or "embedder" not in given)):
        raise FerError("No shipped network fits these faces: choose profile built_in, or, for identity, fer2013.")
    return referee.load(given["judge"].parent)


def main():
    given = command_line()
    planned, train, measured, varied = GANS[given.gan]
    values = batch.select(given.profile).values
    workspace = runs.open_workspace(given.profile, step=f"{given.gan}_settings")
    parts = data.load(workspace.require("faces").path)
    networks = shipped_referee(values, parts["pool"], embedder=given.gan == "expression")
    found = planned(values, given)
    plan = [options for number, options in enumerate(found) if options not in found[:number]]  # none twice at once
    artifacts = joblib.Parallel(n_jobs=given.jobs)(joblib.delayed(train)(given.profile, options) for options in plan)
    table = pd.DataFrame(measured(plan, artifacts, parts, networks)).round(4)
    workspace.save_table(table, f"{given.gan}_settings")
    workspace.finish(device=engine.device("auto"), seeds={f"{given.gan}_seeds": given.seeds})
    print(table.drop(columns="seed").groupby(varied).mean().round(3).to_string())


if __name__ == "__main__":
    try:
        main()
    except FerError as error:
        sys.exit(str(error))
