"""Put a profile's generators, and the networks that judge them, into weights/, with a model card.

    python -m fer_lib.ship PROFILE DATASET

The card takes its numbers from what the profile's notebooks wrote; nothing in it is typed by hand.
"""

import argparse
import json
import shutil
import sys

import pandas as pd

from fer_lib import imports, paths, profiles, referee, runs, weights
from fer_lib.data import BUILT_IN
from fer_lib.errors import FerError
from fer_lib.readers import READERS

ROLES = {"identity": ("identity_gan", "draws the face of a person who does not exist"),
         "expression": ("expression_gan", "gives a face one of seven expressions")}
HISTORY_ROWS = 100  # as many rows of a training's history are shipped at most

CARD = ("""# Generators for {dataset} faces

Networks of this compendium, trained by `python run_all.py --profile {profile}` and put here
by `python -m fer_lib.ship {profile} {dataset}`.

{networks}

Networks that look at what these two draw, and had no part in it: {referees}. """
        """The judge measures, the selector says what a
filter keeps, the embedder, where there is one, tells people apart.

## Trained on

{n} {origin} faces of {subjects}: {data}. The files {told} of the pictures, so that the
notebooks refuse to train a classifier on them or to test one with them{unless}.

## How good they are

From `results/{profile}/generators.json`, on {unseen} that no network has seen; how each is measured is said in
notebook 4. For fidelity, coverage, identity and gan_train 1 is as good as {origin} faces; of errors, and of distance to
the paper's GAN, less is better; a nearest_distance_share well below 1 would be copies{truths}.

{measures}

## What they are for, and what not

For studying what generated faces can teach a classifier. Not for judging people, not for guessing what anybody feels,
not as evidence of how an expression looks on somebody, and not for passing off a generated face as a photograph.
They inherit the limits of what they were trained on: whoever is rare there is drawn badly or not at all.

## Licence

{licence}
""")
DATA = {"built-in": ("drawn by `fer_lib.rendering` from MakeHuman's CC0 assets",
                     "As this repository; the faces that taught them come from CC0 assets."),
        "fer2013": ("photographs of FER2013's training part (Goodfellow et al. 2013), without the faces of the "
                    "study's own parts",
                    "The code is under this repository's licence. FER2013 was published for research; use these "
                    "weights for research only. No photograph is part of them.")}


def ship(profile, dataset, *, target=paths.REPOSITORY / "weights"):
    """Copy the generators and the referee of a finished profile to `target`/<dataset>/, and write the model card.

    Returns the folder. Raises FerError when the profile lacks one of them or their measures.
    """
    if dataset not in (BUILT_IN, *READERS):
        raise FerError(f"There is no data set {dataset!r}: choose one of {', '.join((BUILT_IN, *READERS))}.")
    workspace = runs.open_workspace(profile, step="ship")
    quality = workspace.results / "generators.json"
    if not quality.is_file():
        raise FerError(f"Profile {profile} has no results/{profile}/generators.json: run its notebooks 01 to 04 first.")
    _check_measured(workspace)
    folder, origin = target / dataset, "rendered" if dataset == BUILT_IN else "real"
    artifacts = {role: workspace.require(name).path for role, (name, _) in ROLES.items()}
    for role, path in artifacts.items():
        learned = (weights.read_metadata(path / "generator.safetensors")["trained_on"] or {}).get("origin")
        if learned != origin:
            raise FerError(f"The {role} GAN of profile {profile} learned from {learned or 'unknown'} faces, and those "
                           f"of {dataset} are {origin}: name the data set that it learned from.")
    networks = [_line(role, path, folder) for role, path in artifacts.items()]  # before anything is overwritten
    networks += _others(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for role, path in artifacts.items():
        shutil.copyfile(path / "generator.safetensors", folder / f"{role}.safetensors")
        history = pd.read_csv(path / "history.csv")
        history.iloc[:: -(-len(history) // HISTORY_ROWS)].to_csv(folder / f"{role}.csv", index=False)
    looking = _ship_referee(workspace.require("referee").path, workspace.require("quality").path, folder)
    trained_on = weights.read_metadata(folder / "identity.safetensors")["trained_on"]
    named = bool(trained_on["subjects"])
    subjects = f"{len(trained_on['subjects'])} people" if named else "unnamed people"
    n_frames = weights.read_metadata(folder / "expression.safetensors")["trained_on"].get("n_sequences", 0)
    subjects += f", and the expression GAN on {n_frames} frames of sequences of others" if n_frames else ""
    data, licence = DATA.get(dataset, (f"the data set {dataset}", "As the data set's."))
    card = CARD.format(dataset=dataset, profile=profile, networks="\n".join(networks), referees=looking,
                       n=trained_on["n"], origin=trained_on["origin"], subjects=subjects, data=data, licence=licence,
                       told="name the people and carry hashes" if named else "carry hashes",
                       unseen="people" if named else "pictures",
                       unless="" if named else ", unless they were saved anew",
                       truths="; what ends in `_of_truth` is what true pictures get" if named else "",
                       measures=_measures(json.loads(quality.read_text(encoding="utf-8"))))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def _check_measured(workspace):
    """Raise FerError when the measures are of other networks than those that would be shipped."""
    inputs = _facts(workspace.require("quality").path)["inputs"]
    for name in ("identity_gan", "expression_gan", "referee"):
        if workspace.require(name).key not in inputs:
            raise FerError(f"The measures of profile {workspace.profile} are not of its present {name}: "
                           "run notebook 04 again.")


def _ship_referee(source, quality, folder):
    """Copy the networks that look at generated faces, and the selector's thresholds;
    returns their names and sizes in a line."""
    told = []
    for name in referee.KINDS:
        path = source / f"{name}.safetensors"
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
            told.append(f"`{path.name}` ({path.stat().st_size / 1e6:.1f} MB)")
    thresholds = {"selector_thresholds": referee.read_thresholds(quality / "quality.json")}
    (folder / referee.THRESHOLDS).write_text(json.dumps(thresholds, indent=1) + "\n", encoding="utf-8")
    return ", ".join(told)


def _line(role, made, folder):
    """What the card says of a network. made : folder of the artifact. folder : where it is to be put.

    Raises FerError when it is not known how, or on what, it was trained.
    """
    path, shipped = made / "generator.safetensors", folder / f"{role}.safetensors"
    facts = _facts(made)
    same = shipped.is_file() and runs.fingerprint(shipped) == runs.fingerprint(path)
    told = _told_before(role, folder) if "weights" in facts["params"] and same else None
    if told:
        return told
    if ("weights" in facts["params"] or weights.read_metadata(path)["trained_on"] is None
            or not (made / "history.csv").is_file()):
        raise FerError(f"How the {role} GAN of this profile was trained is not known here: run the profile with "
                       f"{role}_weights=train, or with the generator.safetensors of a run that trained it.")
    return _described(role, ROLES[role][1], path, facts)


def _facts(folder):
    """What was written of a network's training, by the profile or by the run that it took the network from."""
    files = [folder / name for name in (imports.TRAINING, "artifact.json")]
    return json.loads(next(file for file in files if file.is_file()).read_text(encoding="utf-8"))


def _described(role, what, path, facts):
    size, found = path.stat().st_size / 1e6, weights.read_metadata(path)
    settings = ", ".join(f"{name} {value}" for name, value in facts["params"].items() if name != "image_options")
    widths = facts["params"]["image_options"]
    widths |= {name: value for name, value in found["options"].items() if name in ("mirrored",)}
    return (f"- `{role}.safetensors` ({size:.1f} MB) {what}. Kind {found['kind']}; "
            f"{settings}; widths {widths}. Trained in {facts['seconds'] / 60:.0f} minutes at "
            f"commit `{facts['commit'][:12]}`{' with uncommitted changes' if facts.get('code_changed') else ''}.")


def _told_before(role, folder):
    """What the card says of a network that is there already, or None."""
    return next((line for line in _lines(folder) if line.startswith(f"- `{role}.safetensors`")), None)


def _others(folder):
    """What the card says of further generators that stay in the folder: list of lines."""
    others = {path.name for path in folder.glob("*.safetensors")} - {f"{role}.safetensors" for role in ROLES}
    return [line for line in _lines(folder) if any(line.startswith(f"- `{name}`") for name in others)]


def _lines(folder):
    card = folder / "README.md"
    return card.read_text(encoding="utf-8").splitlines() if card.is_file() else []


def _measures(quality):
    rows = ["| measure | value | 95 % interval |", "|---|---|---|"]
    flat = pd.json_normalize({name: value for name, value in quality.items() if "_share" in name or "_ratio" in name},
                             sep=" ").iloc[0]
    for name in dict.fromkeys(key.rsplit(" ", 1)[0] for key in flat.index):
        rows.append(f"| {name} | {flat[name + ' estimate']:.2f} | "
                    f"{flat[name + ' low']:.2f} to {flat[name + ' high']:.2f} |")
    return "\n".join(rows)


def main(arguments=None):
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="a profile whose notebooks 01 to 04 are finished")
    parser.add_argument("dataset", help="the name that data sets have in notebook 1, such as built-in")
    options = parser.parse_args(arguments)
    try:
        profiles.read_profile(options.profile, folder=paths.PARAMS)  # before folders are made for one that is not there
        print(f"Wrote {ship(options.profile, options.dataset).relative_to(paths.REPOSITORY).as_posix()}.")
    except FerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
