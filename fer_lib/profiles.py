"""Parameters of the notebooks: what they are called, what they may hold, what a profile sets.

A notebook declares its parameters in one cell tagged `parameters`, as annotated
literals with a comment each. A profile (`params/<profile>.yaml`) is a flat
mapping of the values that differ from the notebooks' own defaults. Everything
is checked here, before any notebook starts: papermill only warns.
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import io
import json
import math
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from fer_lib import paths
from fer_lib.errors import FerError
from fer_lib.labels import ALL_EXPRESSIONS

TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "Literal": Literal}
"""The names a parameter's annotation may use (besides `None`, `|` and `[...]`)."""

PATHS = ("*_root", "*_folder", "*_path", "*_file", "*_weights")
"""Parameters that name a file or folder; a relative one starts at the user's working directory."""

NO_PATHS = ("", "shipped", "train")
"""Values of such parameters that name no file."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: `annotation` as written, `default` as a plain value, `help` from its comment."""

    name: str
    annotation: str
    default: Any
    help: str
    notebooks: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """Values that make sense: from `low` (`above`: low excluded) to `high`, or one of `choices`.
    `empty`: a list of them may be empty."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    choices: tuple = ()
    empty: bool = False

    def __contains__(self, value):
        if self.choices:
            return value in self.choices
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self):
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:g}"


COUNT = Range(low=1)
POSITIVE = Range(low=0, above=True)
NOT_NEGATIVE = Range(low=0)
FRACTION = Range(low=0, high=1)
AUGMENTATION = Range(choices=("light", "shift", "cutout", "mirror"), empty=True)
SEED = Range(low=0, high=2**32 - 1)
RANGES = {
    # The first match counts. A list is checked item by item.
    "image_size": Range(choices=(32, 48, 64, 96, 128, 192, 256)), "channels": Range(choices=(1, 3)),
    "device": Range(choices=("auto", "cpu", "cuda")),
    "identity_objective": Range(choices=("non-saturating", "relativistic")),
    "identity_critic": Range(choices=("pooling", "residual", "stylegan2")),
    "expression_method": Range(choices=("flow", "stargan")),
    "identity_optimiser": Range(choices=("adam", "muon")), "expression_optimiser": Range(choices=("adam", "muon")),
    "measures": Range(choices=("coverage", "truth", "selection", "gan_train", "identity_fid", "face_found")),
    "precision": Range(choices=("float32", "bfloat16")),
    "augmentation_target": FRACTION, "augmentation": AUGMENTATION, "expression_augmentation": AUGMENTATION,
    "expression": Range(choices=ALL_EXPRESSIONS), "keep_share": Range(low=0, high=1, above=True), "n_seeds": COUNT,
    "ratios": Range(low=0, high=1000), "*ratio": Range(low=0, high=1000),
    "seed": SEED, "*_seed": SEED, "*seeds": SEED,
    "lr": Range(low=0, high=1, above=True), "*_lr": Range(low=0, high=1, above=True),
    "*dropout": Range(low=0, high=0.95), "level": Range(low=0.5, high=0.9999),
    "intensity": Range(low=0, high=2), "*fraction": FRACTION, "*share": FRACTION, "*truncation": FRACTION,
    "gamma": NOT_NEGATIVE, "*_gamma": NOT_NEGATIVE, "weight_*": NOT_NEGATIVE, "*_weight": NOT_NEGATIVE,
    "*kimg": POSITIVE,
    "updates_per_epoch": NOT_NEGATIVE, "paper_steps": NOT_NEGATIVE, "sequence_warm_up_steps": NOT_NEGATIVE,
    "study_looks": COUNT, "n_blocks": NOT_NEGATIVE, "n_sequence_subjects": NOT_NEGATIVE,
    "residual_scale": Range(choices=(1, 2)), "flow_scale": Range(choices=(2, 4)), "bank_spare": Range(low=1, high=10),
    "n_*": COUNT, "*_per_*": COUNT, "*takes": COUNT, "*subjects": COUNT, "*images": COUNT, "*steps": COUNT,
    "*epochs": COUNT, "*updates": COUNT, "*batch_size": COUNT, "*_channels": COUNT, "*_dim": COUNT,
    "*_blocks": COUNT, "*_layers": COUNT, "*_every": COUNT, "*_interval": COUNT, "patience": COUNT,
    "resamples": COUNT, "latent_size": COUNT, "*_channel_base": COUNT, "*_channel_max": COUNT, "*_width": COUNT,
    "residual_power": Range(choices=(1, 2)),
}
"""Parameter name or pattern -> its range. Names that match nothing are checked for their type only."""
TRAINED_IN = {"identity_weights": ("02_identity_gan", ("compare_with_paper", "paper_steps")),
              "expression_weights": ("03_expression_gan", ("expression_mirrored", "expression_method"))}
"""Parameter that decides whether a GAN is trained -> the notebook that does it, and its parameters that matter anyway.
"""


def read_parameters(notebook):
    """Parameters that one notebook declares, in order.

    notebook : Path of an .ipynb file.
    Returns {name: Parameter}.
    Raises FerError when the notebook is not readable, has no or several cells tagged
    `parameters`, or that cell holds anything but annotated literals.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError) as error:
        raise FerError(f"{notebook.name} is no readable notebook ({error}): restore it from git.") from error
    tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise FerError(f"{notebook.name} has {len(tagged)} cells tagged `parameters`: tag exactly one.")
    try:
        declared = [_declaration(node, tagged[0], notebook) for node in ast.parse(tagged[0]).body]
    except SyntaxError as error:
        raise FerError(
            f"{notebook.name}: line {error.lineno} of the parameters cell is not valid Python.") from error
    return {parameter.name: parameter for parameter in declared}


def _declaration(node, source, notebook):
    """The Parameter that one statement `name: type = literal  # help` declares."""
    try:
        name, annotation, default = node.target.id, ast.unparse(node.annotation), ast.literal_eval(node.value)
        parameter = Parameter(name, annotation, default, _comment(source, node), (notebook.stem,))
        _adapter(parameter)
    except (AttributeError, ValueError, NameError, TypeError) as error:
        raise FerError(
            f"{notebook.name}: `{ast.get_source_segment(source, node)}` in the parameters cell is not an "
            "annotated literal: write it as `seed: int = 0  # what it is`.") from error
    check(parameter, default, where=notebook.name)
    return parameter


def _comment(source, node):
    """The comment behind a statement, or else the comment lines directly above it."""
    comments = {token.start[0]: token.string.lstrip("# ").strip()
                for token in tokenize.generate_tokens(io.StringIO(source).readline)
                if token.type == tokenize.COMMENT}
    if node.end_lineno in comments:
        return comments[node.end_lineno]
    lines, above = source.splitlines(), node.lineno - 1
    found = []
    while above in comments and lines[above - 1].lstrip().startswith("#"):
        found.insert(0, comments[above])
        above -= 1
    return " ".join(found)


def union(notebooks):
    """Parameters of several notebooks together; one name means one thing.

    notebooks : list of Path.
    Returns {name: Parameter}, `Parameter.notebooks` naming all that declare it.
    Raises FerError when two notebooks give a name different types or defaults.
    """
    together = {}
    for notebook in notebooks:
        for name, new in read_parameters(notebook).items():
            old = together.get(name, new)
            if (old.annotation, old.default) != (new.annotation, new.default):
                raise FerError(
                    f"{old.notebooks[0]} declares `{name}: {old.annotation} = {old.default!r}` but "
                    f"{notebook.stem} `{name}: {new.annotation} = {new.default!r}`: make them the same.")
            before = old.notebooks if name in together else ()
            together[name] = Parameter(name, old.annotation, old.default, old.help, before + new.notebooks)
    return together


def read_profile(profile, *, folder):
    """What params/<profile>.yaml sets, unchecked.

    profile : name of a profile; folder : Path of the folder with the YAML files.
    Returns dict, empty for an empty file.
    Raises FerError for an unknown profile and for a file that is not a flat mapping.
    """
    path = folder / f"{profile}.yaml"
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if profile not in known:
        raise FerError(
            f"There is no profile `{profile}`{_close(profile, known)}: choose one of {', '.join(known)}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = f" near line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise FerError(
            f"{folder.name}/{path.name} is not valid YAML{line}: write one `name: value` a line.") from error
    if values is not None and not isinstance(values, dict):
        raise FerError(f"{folder.name}/{path.name} is not a mapping: write one `name: value` a line.")
    return values or {}


def resolve(parameters, *, profile, folder, settings=(), working_directory=None):
    """The checked value of every parameter under one profile.

    parameters : {name: Parameter}, from `union`.
    profile, folder : see `read_profile`.
    settings : texts `KEY=VALUE` from the command line, where VALUE is read as YAML, or {name: value}; they
        win over the profile.
    working_directory : where relative paths in `settings` start; those in a profile start at the
        folder that holds `folder`, the repository.
    Returns {name: value} for all parameters; a parameter called `profile` gets the profile's name.
    Raises FerError, one sentence, for the first unknown name, wrong type or value out of range, and for a data_root
    that the built-in faces would not read.
    """
    values = {name: check(parameter, parameter.default, where=parameter.notebooks[0])
              for name, parameter in parameters.items()}
    for name, value in read_profile(profile, folder=folder).items():
        where = f"{folder.name}/{profile}.yaml"
        parameter = find(parameters, name, where=where)
        values[name] = absolute(name, check(parameter, value, where=where), folder.resolve().parent)
    given = settings.items() if isinstance(settings, dict) else (read_setting(text, parameters) for text in settings)
    for name, value in given:
        value = check(find(parameters, name, where="set"), value, where="set") if isinstance(settings, dict) else value
        values[name] = absolute(name, value, Path(working_directory or Path.cwd()))
    _check_root(values)
    if "profile" in parameters:
        values["profile"] = profile
    return values


def _check_root(values):
    if values.get("dataset") == "built-in" and values.get("data_root"):
        raise FerError("data_root is set, but the data set is built-in, which reads nothing: add --set dataset=NAME, "
                       "such as csv or affectnet.")
    if values.get("pool_root") and not values.get("pool_dataset"):
        raise FerError("pool_root is set, but no data set of the GANs' own that lies there: add --set "
                       "pool_dataset=NAME, such as csv or affectnet.")


def check_together(values):
    """Raise FerError where values that are right one by one do not go together, or plan a study that would fail.

    values : {name: value} of all parameters; those of notebooks that are not there may be missing. It takes seconds, as
    it loads torch.
    """
    from fer_lib import answer, readers
    _check_root(values)
    for name, known in (("dataset", ("built-in", *readers.READERS)), ("pool_dataset", ("", *readers.READERS))):
        if values.get(name, known[0]) not in known:
            raise FerError(f"{name} is {values[name]!r}{_close(str(values[name]), known)}: choose one of "
                           f"{', '.join(filter(None, known))}.")
    answer.check_profile(values)


def check_measures(values, steps):
    """Raise FerError where a chosen step would lack what notebooks 2 or 4 make only when they are told to.

    values : see check_together. steps : names of the chosen steps.
    """
    measures = values.get("measures", ())
    if "04_generation" in steps and "identity_fid" in measures and not values["compare_with_paper"]:
        raise FerError("The measure identity_fid needs the paper's identity GAN beside ours: set "
                       "compare_with_paper=true, or leave identity_fid out of the measures.")
    if "06_ratio_study" in steps and "selection" not in measures:
        blocks = values["blocks"][:values["n_blocks"]]
        if "mixed_filtered" in [*values["arms"], *(arm for block in blocks for arm in block.get("arms", ()))]:
            raise FerError("The arm mixed_filtered needs the faces that notebook 4 selects: add selection to the "
                           "measures, or leave mixed_filtered out of arms and blocks.")


def idle(names, values, parameters):
    """Those of the named parameters that only train a GAN which is not trained, as weights are given or shipped.

    names : names of parameters that somebody has set. values : {name: value} of all. parameters : as from `union`.
    Returns {name: the parameter that would have the GAN trained}, such as {"identity_steps": "identity_weights"}.
    Where shipped weights do not suit the very faces, a GAN is trained after all; that is known once these are read.
    """
    found = {}
    for weights, (notebook, others) in TRAINED_IN.items():
        if not _may_train(weights, values):
            found |= {name: weights for name in names
                      if parameters[name].notebooks == (notebook,) and name not in (weights, *others)}
    return found


def _may_train(weights, values):
    """Whether a GAN is trained by these values, or the paper's beside, as far as can be told without faces."""
    given, dataset = values.get(weights, "train"), values.get("pool_dataset") or values.get("dataset", "")
    if weights == "identity_weights" and values.get("compare_with_paper"):
        return True
    shipped = paths.REPOSITORY / "weights" / dataset / f"{weights.removesuffix('_weights')}.safetensors"
    suits = shipped.is_file() and (weights == "identity_weights" or values.get("expression_method") == "flow")
    return given == "train" or given == "shipped" and not suits


def read_setting(setting, parameters):
    """(name, checked value) of one `KEY=VALUE` from the command line; raises FerError when it is not right."""
    name, equals, text = setting.partition("=")
    if name == "profile":
        raise FerError(f"--set {setting} does not choose the profile: write --profile {text or 'NAME'}.")
    parameter = find(parameters, name, where="--set")
    if not equals:
        raise FerError(f"--set {setting} lacks a value: write --set {name}=VALUE, as in "
                       f"--set {name}={json.dumps(parameter.default)}.")
    if parameter.annotation == "str":
        return name, check(parameter, text, where="--set")  # `data_root=2013` is a folder, not a number
    return name, check(parameter, _read_yaml(text, f"--set {setting}"), where="--set")


def read_sweep(text, parameters):
    """(name, list of checked values, not two the same) of one `KEY=VALUE,VALUE,...`; lists in brackets.

    Raises FerError when it is not right.
    """
    name, equals, listed = text.partition("=")
    parameter = find(parameters, name, where="--sweep")
    if name == "profile" or not equals or not listed:
        raise FerError(f"--sweep {text} names no values of a parameter: write it as --sweep n_real=60,120.")
    values = _read_yaml(f"[{listed}]", f"--sweep {text}")
    values = [str(value) for value in values] if parameter.annotation == "str" else values
    return name, sweep_values(parameter, values)


def sweep_values(parameter, values):
    """The checked values of one parameter; raises FerError for a wrong one, and when one comes twice."""
    values = [check(parameter, value, where="--sweep") for value in values]
    if not values or len({json.dumps(value) for value in values}) < len(values):
        raise FerError(f"--sweep: {parameter.name} needs at least one value, and each of them once.")
    return values


def _read_yaml(text, where):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FerError(f"{where}: `{text}` is not a valid value: write it as in YAML, "
                       "lists in quotes as '[0, 1, 2]'.") from error


def find(parameters, name, *, where):
    """The Parameter called `name`; raises FerError with the closest names when there is none."""
    if name not in parameters:
        raise FerError(f"{where}: no notebook has a parameter `{name}`{_close(str(name), parameters)}; "
                       "`python run_all.py --list` shows them all.")
    return parameters[name]


def _close(name, known):
    close = difflib.get_close_matches(name, list(known), n=3)
    return f" (did you mean {' or '.join(f'`{match}`' for match in close)}?)" if close else ""


def _adapter(parameter):
    """pydantic's strict checker for the parameter's annotation."""
    kind = eval(parameter.annotation, {"__builtins__": {}}, TYPES)  # names from TYPES only
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def check(parameter, value, *, where):
    """The value, converted (1 -> 1.0 for a float), when its type and range are right.

    where : what the message begins with, such as "params/smoke.yaml" or "--set".
    Raises FerError, one sentence that names the parameter, what it may be, and what it got.
    """
    try:
        value = _adapter(parameter).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        item = "".join(f"[{step}]" for step in first["loc"] if isinstance(step, int))
        raise FerError(f"{where}: {parameter.name} must be {parameter.annotation}, but "
                       f"{parameter.name}{item} is {_shown(first['input'])}.") from error
    allowed = next((rule for name, rule in RANGES.items() if fnmatch.fnmatchcase(parameter.name, name)), None)
    items = value if isinstance(value, list) else [value]
    if allowed is not None and not items and not allowed.empty:
        raise FerError(f"{where}: {parameter.name} is empty: give at least one value.")
    for item in items:
        if allowed is not None and not isinstance(item, (bool, type(None))) and item not in allowed:
            raise FerError(f"{where}: {parameter.name} must be {allowed}, not {item!r}.")
    return value


def _shown(value):
    """The value for an error message, with the remedy for a number that YAML reads as text."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        mantissa, exponent = re.split("[eE]", value)
        mantissa += "" if "." in mantissa else ".0"
        sign = "" if exponent[0] in "+-" else "+"
        return f"the text {value!r} (YAML needs the point and the sign: write {mantissa}e{sign}{exponent})"
    return f"{type(value).__name__} {value!r}" if value is not None else "empty"


def absolute(name, value, base):
    """The value, made absolute from `base` when `name` is a path parameter and the value is none of NO_PATHS."""
    is_path = any(fnmatch.fnmatchcase(name, pattern) for pattern in PATHS)
    return str((Path(base) / Path(value).expanduser()).resolve()) if is_path and value not in NO_PATHS else value
