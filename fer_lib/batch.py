"""The notebooks in order, under one profile: what would run and why, and running it.

    from fer_lib import batch
    batch.plan(profile="smoke")                         # list of Outlook: what would run, why, how long
    batch.run(profile="smoke", set={"n_real": 12})      # list of Outcome: what ran, how long, what it wrote

A step is not repeated while its notebook, the fer_lib code it imports, its parameters, everything it read
and everything it wrote are unchanged.
"""

import contextlib
import difflib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fer_lib import notebooks as nb
from fer_lib import paths, profiles, runs
from fer_lib.errors import FerError


@dataclass(frozen=True)
class Step:
    """One notebook under one profile, and where its traces are.

    values : {name: value} of its own parameters. root : Path that holds runs/, results/ and figures/.
    store : Path of the artifacts, runs/<profile> unless the step belongs to a sweep. label : what tells the
    steps of a sweep apart, such as "n_real=60".
    """

    notebook: Path
    values: dict
    profile: str
    root: Path
    store: Path
    label: str = ""

    @property
    def name(self):
        return self.notebook.stem

    @property
    def title(self):
        return f"{self.label} {self.name}".lstrip()

    @property
    def runs(self):
        return self.root / "runs" / self.profile

    @property
    def record(self):
        return self.runs / "steps" / f"{self.name}.json"

    @property
    def executed(self):
        return self.runs / "notebooks" / f"{self.name}.ipynb"

    def key(self):
        """What decides the result besides the inputs: notebook code, library code, parameter values."""
        return {"notebook": nb.source_hash(self.notebook),
                "library": runs.code_fingerprint(nb.imported_modules(self.notebook)),
                "parameters": self.values}


@dataclass(frozen=True)
class Batch:
    """The steps of one profile: all of them, and those that were chosen.

    parameters : {name: profiles.Parameter}; values : {name: checked value}; root : Path of the output.
    """

    profile: str
    every: list
    chosen: list
    parameters: dict
    values: dict
    root: Path


class Reason(NamedTuple):
    """Why a step must run; `renews` when what it makes may be new, not only read and drawn again."""

    text: str
    renews: bool


@dataclass(frozen=True)
class Outlook:
    """What would become of a step.

    why : list of Reason, empty when the step is current. waits_for : names of steps that would make it run
    if they make something new. seconds : float, at most (`renews`) or about what it will take by the time
    it took before; None when that is unknown.
    """

    step: Step
    why: list
    waits_for: list = field(default_factory=list)
    seconds: float | None = None

    @property
    def renews(self):
        return any(reason.renews for reason in self.why)


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    state : "ran", "current", "failed" or "interrupted". seconds : float that it took this time. why : list of Reason.
    result : str, what it wrote, or the cell that failed.
    """

    step: Step
    state: str
    seconds: float
    why: list
    result: str


class Watch:
    """Whoever follows a run: override what is of interest."""

    def starts(self, outlook, progress):
        """A step starts; `progress` is a notebooks.Progress that its kernel keeps up to date."""

    def ends(self, outcome):
        """A step has ended, or was current and never started."""


def select(profile="demo", *, only=(), first=None, last=None, set=(), output=None, notebooks=paths.NOTEBOOKS,
           params=paths.PARAMS):
    """The steps of a profile, with every parameter checked.

    profile : name of a file in the folder `params`. only : numbers or names of steps (all). first, last :
    number or name of a step. set : {name: value}, or texts "name=value" with the value as in YAML.
    output : folder for runs/, results/ and figures/ (FER_OUTPUT, or the repository). notebooks, params :
    folders that are read.
    Returns Batch. Raises FerError, one sentence, for the first thing that is not right.
    """
    found = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise FerError(f"There are no notebooks in {notebooks}: run run_all.py of a complete clone.")
    parameters = profiles.union(found)
    values = profiles.resolve(parameters, profile=profile, folder=params, settings=set)
    root = Path(output or paths.output_root()).resolve()
    every = [Step(notebook, own_values(notebook, values, parameters), profile, root, root / "runs" / profile)
             for notebook in found]
    names = choose([step.name for step in every], only=only, first=first, last=last)
    return Batch(profile, every, [step for step in every if step.name in names], parameters, values, root)


def run(profile="demo", *, jobs=None, force=False, publish=False, watch=None, **choice):
    """Bring the chosen steps up to date, in order; what is current is not repeated.

    jobs : worker processes (one per core). force : run current steps, too; finished artifacts are still
    loaded. publish : store the outputs in the notebooks themselves in the end. watch : Watch.
    choice : see `select`.
    Returns list of Outcome. Raises FerError when something is not right, or a notebook fails; what was
    finished before is kept.
    """
    batch = select(profile, **choice)
    check_options(batch, jobs=jobs, publish=publish)
    check_values(batch.values, batch.chosen)
    with exclusive(batch.chosen[0].runs):
        outcomes = [bring_up_to_date(step, batch.parameters, jobs=jobs, force=force, watch=watch or Watch())
                    for step in batch.chosen]
    if publish:
        publish_outputs(batch.chosen)
    return outcomes


def plan(profile="demo", *, force=False, **choice):
    """What `run` would do with the same arguments, without doing it. Returns list of Outlook."""
    batch = select(profile, **choice)
    check_values(batch.values, batch.chosen)
    return plan_steps(batch.chosen, force=force)


def plan_steps(steps, *, force=False):
    """Outlook of each step, in order; a step may wait for what those before it make."""
    renewed, outlooks = {}, []
    for step in steps:
        outlook = look_at(step, force=force)
        record = read_record(step) or {}
        waits_for = sorted({renewed[name] for name in record.get("reads", {}) if name in renewed})
        outlooks.append(Outlook(step, outlook.why, [] if outlook.why else waits_for,
                                outlook.seconds if outlook.why else expected_seconds(step, renews=True)))
        if outlook.why or waits_for:
            renewed |= {name: step.name for name in published_by(record, step)}
    return outlooks


def check_values(values, steps):
    """Raise FerError where the values of a profile do not go together (see profiles.check_together).

    What all the steps have run with to their end is not asked again, so that a run with nothing to do takes no time.
    """
    if any((read_record(step) or {}).get("run_all", {}).get("parameters") != step.values for step in steps):
        profiles.check_together(values)
        profiles.check_measures(values, [step.name for step in steps])


def check_options(batch, *, jobs=None, publish=False):
    """Raises FerError for options that cannot be met, before anything starts."""
    if jobs is not None and jobs < 1:
        raise FerError(f"--jobs must be at least 1, not {jobs}.")
    changed = sorted(injected(batch.values, batch.parameters))
    if publish and changed:
        raise FerError(f"--publish stores what the notebooks' own defaults give, but {', '.join(changed)} "
                       "would differ from them: leave out the profile or the --set that changes them.")


def choose(names, *, only=(), first=None, last=None):
    """The names of the steps to run, in order. Raises FerError for an unknown step and when none remains."""
    begin = names.index(step_named(first, names)) if first else 0
    end = names.index(step_named(last, names)) if last else len(names) - 1
    wanted = {step_named(name, names) for name in only} if only else set(names)
    chosen = [name for name in names[begin:end + 1] if name in wanted]
    if not chosen:
        raise FerError("The chosen range of steps is empty: check --only, --from and --to.")
    return chosen


def step_named(text, names):
    """The step that `text` means: its number (6, 06), its name, or its name without the number."""
    text = str(text)
    for name in names:
        number, _, rest = name.partition("_")
        if text in (name, rest) or (text.isdecimal() and int(text) == int(number)):
            return name
    close = difflib.get_close_matches(text, names, n=1, cutoff=0.3)
    raise FerError(f"There is no step `{text}`" + (f" (did you mean {close[0]}?)" if close else "")
                   + f": the steps are {', '.join(names)}.")


def own_values(notebook, values, parameters):
    """The values of the parameters that this notebook declares."""
    return {name: values[name] for name in sorted(values) if notebook.stem in parameters[name].notebooks}


def injected(values, parameters):
    """The values that papermill must inject: those that differ from the notebooks' defaults."""
    return {name: value for name, value in values.items() if value != parameters[name].default}


def kernel_environment(step, *, jobs=None):
    """Environment of a step's kernel: this clone's fer_lib, where to write, repeatable hashing."""
    library = os.pathsep.join(filter(None, (str(paths.REPOSITORY), os.environ.get("PYTHONPATH"))))
    environment = {"FER_OUTPUT": str(step.root), "FER_ARTIFACTS": str(step.store), "PYTHONPATH": library,
                   "PYTHONHASHSEED": "0"}
    return environment | ({"FER_JOBS": str(jobs)} if jobs else {})


@contextlib.contextmanager
def exclusive(folder):
    """Hold a profile's runs folder for this process alone, creating it. Raises FerError when that fails."""
    try:
        make_folders(folder)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise FerError(f"The folder {folder} cannot be written ({error.strerror}): free it, or choose "
                       "another with --output.") from error
    with lock:
        try:
            import fcntl  # not on Windows, where two runs at once stay the user's care
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FerError(f"Another run_all.py is working in {folder}: wait for it, or choose another "
                           "folder with --output.") from error
        except ImportError:
            pass
        yield


def make_folders(folder):
    """The folders of a profile that running a step needs."""
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    (folder / "notebooks").mkdir(exist_ok=True)


def read_record(step):
    """What the step's last complete run recorded, or None."""
    return _read_json(step.record)


def look_at(step, *, force=False):
    """Outlook of one step, seen alone."""
    why = reasons(step) or ([Reason("forced", False)] if force else [])
    return Outlook(step, why, seconds=expected_seconds(step, renews=any(reason.renews for reason in why)))


def reasons(step):
    """Why the step must run, as a list of Reason; empty when it is current."""
    record = read_record(step)
    if record is None:
        return [Reason("first run: never ran to its end", True)]
    if "run_all" not in record:
        return [Reason("ran by hand since, with parameters that are not known here", True)]
    return [*changes_of_key(step, record), *changed_inputs(step, record), *missing_outputs(step, record)]


def changes_of_key(step, record):
    """What differs between the recorded and the present key of a step."""
    old, new = record["run_all"], step.key()
    before, after = old["parameters"], new["parameters"]
    changed = ", ".join(f"{name} {_short(before.get(name))} -> {_short(after.get(name))}"
                        for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name))
    return (([Reason(f"parameters changed: {changed}", True)] if changed else [])
            + ([Reason("notebook changed", True)] if old["notebook"] != new["notebook"] else [])
            + ([Reason(changed_code(step, record), True)] if old["library"] != new["library"] else []))


def changed_code(step, record):
    """Which modules of fer_lib changed since the record, as far as it tells."""
    before, after = record.get("modules", {}), runs.code_parts(nb.imported_modules(step.notebook))
    names = sorted(name.removeprefix("fer_lib.") for name in before.keys() | after.keys()
                   if before.get(name) != after.get(name))
    return f"fer_lib changed: {', '.join(names)}" if before and names else "fer_lib changed"


def changed_inputs(step, record):
    """Inputs of the step that are not what it read: published artifacts, and files from outside."""
    changed = [name for name, key in record["reads"].items() if published_key(step, name) != key]
    for path, mark in record["files"].items():
        if not Path(path).exists() or runs.fingerprint(path) != mark:
            changed.append(path)
    return [Reason(f"input changed: {name}", True) for name in changed]


def published_key(step, name):
    """Key of the artifact that is published as `name` to this step and whole, or None."""
    note = _read_json(step.runs / f"{name}.json")
    try:
        return note["key"] if (step.store / note["kind"] / note["key"] / "artifact.json").is_file() else None
    except (KeyError, TypeError):
        return None


def published_by(record, step):
    """Names that a recorded run of the step published."""
    return [Path(name).stem for name in record.get("writes", {}) if (step.root / name).parent == step.runs]


def missing_outputs(step, record):
    """Outputs of the step that are gone or not as it wrote them."""
    found = []
    if not step.executed.is_file():
        found.append(Reason(f"output missing: {step.executed.relative_to(step.root)}", False))
    for name, mark in record["writes"].items():
        path = step.root / name
        if not path.is_file():
            found.append(Reason(f"output missing: {name}", False))
        elif runs.fingerprint(path) != mark:
            found.append(Reason(f"output changed: {name}", False))
        elif path.parent == step.runs and published_key(step, path.stem) is None:
            found.append(Reason(f"output missing: artifact {path.stem}", True))
    return found


def bring_up_to_date(step, parameters, *, jobs=None, force=False, watch):
    """Run the step unless it is current. Returns Outcome; raises FerError when it failed."""
    outlook = look_at(step, force=force)
    if not outlook.why:
        return _ended(watch, Outcome(step, "current", 0.0, [], written_by(read_record(step), step)))
    key, modules = step.key(), runs.code_parts(nb.imported_modules(step.notebook))
    step.record.unlink(missing_ok=True)  # from here on, what it wrote before may be replaced
    start, progress = time.perf_counter(), nb.Progress()
    watch.starts(outlook, progress)
    try:
        nb.execute(step.notebook, step.executed, parameters=injected(step.values, parameters),
                   environment=kernel_environment(step, jobs=jobs), progress=progress)
        record = read_record(step)
        if record is None:
            raise FerError(f"{step.title} ended without recording what it read and wrote: its last cell must call "
                           f"finish() of a workspace opened with step=\"{step.name}\".")
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        _ended(watch, Outcome(step, state, time.perf_counter() - start, outlook.why, f"at \"{progress.title}\""))
        if isinstance(error, nb.NotebookFailed):
            raise FerError(failure_message(step, error)) from error
        raise
    seconds = time.perf_counter() - start
    runs.write_json(step.record, record | {"run_all": key, "modules": modules})
    keep_seconds(step, record, seconds)
    return _ended(watch, Outcome(step, "ran", seconds, outlook.why, written_by(record, step)))


def _ended(watch, outcome):
    watch.ends(outcome)
    return outcome


def written_by(record, step):
    """What a run published and wrote, in a few words."""
    names = [Path(name).name for name in record["writes"] if name.startswith("results")]
    figures = sum(name.startswith("figures") and name.endswith(".png") for name in record["writes"])
    shown = [*published_by(record, step), *names, *([f"{figures} figure{'s' * (figures > 1)}"] if figures else [])]
    return ", ".join(shown)


def keep_seconds(step, record, seconds):
    """Keep what the step took beside its record: its artifacts, made now or before, and the rest."""
    artifacts = record.get("artifacts", {}).values()
    own = seconds - sum(artifact["spent_now"] for artifact in artifacts)
    note = {"own": round(max(own, 0.0), 1), "artifacts": round(sum(item["seconds"] for item in artifacts), 1)}
    path = step.runs / "steps" / "seconds.json"
    runs.write_json(path, (_read_json(path) or {}) | {step.name: note})


def expected_seconds(step, *, renews):
    """Seconds that the step took last, with its artifacts when `renews`; None when it never ran."""
    for folder in (step.runs, step.store):  # a step of a sweep that never ran is like that of the profile
        note = (_read_json(folder / "steps" / "seconds.json") or {}).get(step.name)
        if note:
            return note["own"] + (note["artifacts"] if renews else 0.0)
    return None


def failure_message(step, failure):
    """One plain message: notebook, cell, cause, what to do."""
    kept = f"the notebook with the error is {failure.kept}" if failure.kept else "no cell had run"
    cause = failure.cause if failure.cause.endswith((".", "!", "?")) else failure.cause + "."
    return (f"{step.title} failed at \"{failure.title}\": {cause} Mend this and run the same command again: "
            f"finished steps are not repeated, and {kept}.")


def publish_outputs(steps):
    """Store the executed notebooks' outputs in their sources; all are checked before one is written."""
    for step in steps:
        nb.check_same_sources(step.executed, step.notebook)
    for step in steps:
        nb.publish(step.executed, step.notebook, figures=step.root / "figures" / step.profile)


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:36] + " ..."
