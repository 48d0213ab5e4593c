"""Run the compendium's notebooks in order, with papermill, under one profile.

    python run_all.py                                   the demo profile, what is not current yet
    python run_all.py --profile smoke --output FOLDER   everything tiny, somewhere else
    python run_all.py --list                            notebooks, parameters, defaults
    python run_all.py --set ratios='[0, 1, 2]' --from 06

A step is not repeated while its notebook, the fer_lib code it imports, its parameters, everything it read
and everything it wrote are unchanged. Exit 0: every chosen notebook has run to its end. 1: one message says
what to do. 2: wrong usage. 130: interrupted.
"""

import argparse
import contextlib
import difflib
import json
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fer_lib import notebooks as nb
from fer_lib import paths, profiles, runs
from fer_lib.errors import FerError


@dataclass(frozen=True)
class Step:
    """One notebook under one profile, and where its traces are; `values` are its own parameters' values."""

    notebook: Path
    values: dict
    profile: str
    root: Path

    @property
    def name(self):
        return self.notebook.stem

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


def parse(argv):
    """Command line -> argparse.Namespace; ends the program with code 2 on wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     epilog="A STEP is a number or a name, such as 06 or 06_ratio_study.")
    add = parser.add_argument
    add("--profile", default="demo", help="which params/<profile>.yaml to use (default: demo)")
    add("--only", action="append", metavar="STEP", help="run this step only; may be repeated")
    add("--from", dest="first", metavar="STEP", help="start at this step")
    add("--to", dest="last", metavar="STEP", help="end with this step")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="set a parameter, written as in YAML")
    add("--jobs", type=int, metavar="N", help="worker processes (default: one per core)")
    add("--engine", default="local", choices=("local", "ray"), help="where work runs (default: local)")
    add("--output", type=Path, metavar="DIR", help="folder for runs/, results/ and figures/ (default: here)")
    add("--force", action="store_true", help="run current steps, too; finished artifacts are still reused")
    add("--publish", action="store_true", help="after success, store outputs in the notebooks themselves")
    add("--list", action="store_true", help="show notebooks and parameters, and stop")
    add("--dry-run", action="store_true", help="show which steps would run and why, and stop")
    return parser.parse_args(argv)


def main(argv=None, *, notebooks=paths.NOTEBOOKS, params=paths.PARAMS):
    """The program; notebooks and params are the folders it reads. Returns the exit code."""
    arguments = parse(argv)
    try:
        return run(arguments, notebooks, params)
    except FerError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'A file'} cannot be used ({error.strerror}): free it, or choose another "
              "folder with --output.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: finished steps and artifacts are kept, and the same command goes on from there.",
              file=sys.stderr)
        return 130


def run(arguments, notebooks, params):
    """Check everything, then list, show or run the chosen steps. Raises FerError on bad input."""
    start = time.perf_counter()
    found = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise FerError(f"There are no notebooks in {notebooks}: run run_all.py of a complete clone.")
    parameters = profiles.union(found)
    values = profiles.resolve(parameters, profile=arguments.profile, folder=params, settings=arguments.set)
    root = (arguments.output or paths.output_root()).resolve()
    chosen = choose(found, only=arguments.only, first=arguments.first, last=arguments.last)
    steps = [Step(notebook, own_values(notebook, values, parameters), arguments.profile, root)
             for notebook in chosen]
    if arguments.list:
        return show_list(steps, parameters)
    check_options(arguments, parameters, values)
    if arguments.dry_run:
        return show_plan(steps, force=arguments.force)
    environment = kernel_environment(root, jobs=arguments.jobs)
    with exclusive(steps[0].runs):
        ran = sum(bring_up_to_date(step, parameters, environment, force=arguments.force) for step in steps)
    if arguments.publish:
        publish(steps)
    summary = f"{ran} of {len(steps)} steps ran" if ran else "Every step is current, nothing was repeated"
    print(f"{summary} (profile {arguments.profile}, {time.perf_counter() - start:.1f} s).")
    return 0


def check_options(arguments, parameters, values):
    """Raises FerError for options that cannot be met, before anything starts."""
    if arguments.engine == "ray":
        raise FerError("The ray engine is not part of this version: use --engine local.")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise FerError(f"--jobs must be at least 1, not {arguments.jobs}.")
    changed = sorted(injected(values, parameters))
    if arguments.publish and changed:
        raise FerError(f"--publish stores what the notebooks' own defaults give, but {', '.join(changed)} "
                       "would differ from them: leave out the profile or the --set that changes them.")


def choose(found, *, only, first, last):
    """The notebooks to run, in order. Raises FerError for an unknown step and when none remains."""
    names = [notebook.stem for notebook in found]
    begin = names.index(step_named(first, names)) if first else 0
    end = names.index(step_named(last, names)) if last else len(names) - 1
    wanted = {step_named(name, names) for name in only} if only else set(names)
    chosen = [notebook for notebook in found[begin:end + 1] if notebook.stem in wanted]
    if not chosen:
        raise FerError("The chosen range of steps is empty: check --only, --from and --to.")
    return chosen


def step_named(text, names):
    """The step that `text` means: its number (6, 06), its name, or its name without the number."""
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


def kernel_environment(root, *, jobs):
    """Environment of every kernel: this clone's fer_lib, where to write, repeatable hashing."""
    library = os.pathsep.join(filter(None, (str(paths.REPOSITORY), os.environ.get("PYTHONPATH"))))
    environment = {"FER_OUTPUT": str(root), "PYTHONPATH": library, "PYTHONHASHSEED": "0"}
    return environment | ({"FER_JOBS": str(jobs)} if jobs else {})


@contextlib.contextmanager
def exclusive(folder):
    """Hold a profile's runs folder for this process alone, creating it. Raises FerError when that fails."""
    try:
        (folder / "steps").mkdir(parents=True, exist_ok=True)
        (folder / "notebooks").mkdir(exist_ok=True)
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


def read_record(step):
    """What the step's last complete run recorded, or None."""
    try:
        return json.loads(step.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def reasons(step):
    """Why the step must run, as short texts; none when it is current."""
    record = read_record(step)
    if record is None:
        return ["never ran to its end"]
    if "run_all" not in record:
        return ["ran by hand since, with parameters that are not known here"]
    return [*changes_of_key(record["run_all"], step.key()), *changed_inputs(step, record),
            *missing_outputs(step, record)]


def changes_of_key(old, new):
    """What differs between the recorded and the present key of a step."""
    before, after = old["parameters"], new["parameters"]
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return (([f"parameters changed: {', '.join(names)}"] if names else [])
            + (["notebook changed"] if old["notebook"] != new["notebook"] else [])
            + (["fer_lib changed"] if old["library"] != new["library"] else []))


def changed_inputs(step, record):
    """Inputs of the step that are not what it read: published artifacts, and files from outside."""
    changed = [name for name, key in record["reads"].items() if published_key(step.runs, name) != key]
    for path, mark in record["files"].items():
        if not Path(path).exists() or runs.fingerprint(path) != mark:
            changed.append(path)
    return [f"input changed: {name}" for name in changed]


def published_key(folder, name):
    """Key of the artifact that is published as `name` and whole, or None."""
    try:
        note = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return note["key"] if (folder / note["kind"] / note["key"] / "artifact.json").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def missing_outputs(step, record):
    """Outputs of the step that are gone or not as it wrote them."""
    texts = [] if step.executed.is_file() else [f"output missing: {step.executed.relative_to(step.root)}"]
    for name, mark in record["writes"].items():
        path = step.root / name
        if not path.is_file():
            texts.append(f"output missing: {name}")
        elif runs.fingerprint(path) != mark:
            texts.append(f"output changed: {name}")
        elif path.parent == step.runs and published_key(step.runs, path.stem) is None:
            texts.append(f"output missing: artifact {path.stem}")
    return texts


def bring_up_to_date(step, parameters, environment, *, force):
    """Run the step unless it is current. Returns whether it ran; raises FerError when it failed."""
    why = reasons(step) or (["forced"] if force else [])
    if not why:
        print(f"{step.name:<20} is current", flush=True)
        return False
    key = step.key()
    step.record.unlink(missing_ok=True)  # from here on, what it wrote before may be replaced
    start = time.perf_counter()
    try:
        with shown(step.name) as progress:
            nb.execute(step.notebook, step.executed, parameters=injected(step.values, parameters),
                       environment=environment, progress=progress)
    except nb.NotebookFailed as failure:
        raise FerError(failure_message(step, failure)) from failure
    record = read_record(step)
    if record is None:
        raise FerError(f"{step.name} ended without recording what it read and wrote: its last cell must call "
                       f"finish() of a workspace opened with step=\"{step.name}\".")
    runs.write_json(step.record, record | {"run_all": key})
    print(f"{step.name:<20} ran in {time.perf_counter() - start:.0f} s ({'; '.join(why)})", flush=True)
    return True


def failure_message(step, failure):
    """One plain message: notebook, cell, cause, what to do."""
    kept = f"the notebook with the error is {failure.kept}" if failure.kept else "no cell had run"
    cause = failure.cause if failure.cause.endswith((".", "!", "?")) else failure.cause + "."
    return (f"{step.name} failed at \"{failure.title}\": {cause} Mend this and run the same command again: "
            f"finished steps are not repeated, and {kept}.")


@contextlib.contextmanager
def shown(name):
    """Show where a notebook is while it runs: one changing line on a terminal, a line a minute elsewhere."""
    progress, finished, terminal = nb.Progress(), threading.Event(), sys.stdout.isatty()

    def show():
        start = time.perf_counter()
        while not finished.wait(0.5 if terminal else 60):
            line = f"{name:<20} {time.perf_counter() - start:4.0f} s  {progress.title}"
            line += f" · {progress.line}" if progress.line else ""
            line = line[:shutil.get_terminal_size(fallback=(200, 24)).columns - 1]
            print(f"\r\033[K{line}" if terminal else line, end="" if terminal else "\n", flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        finished.set()
        thread.join()
        print("\r\033[K" if terminal else "", end="", flush=True)


def publish(steps):
    """Store the executed notebooks' outputs in their sources; all are checked before one is written."""
    for step in steps:
        nb.check_same_sources(step.executed, step.notebook)
    for step in steps:
        nb.publish(step.executed, step.notebook)
    print(f"Stored the outputs of {len(steps)} notebooks.")


def show_list(steps, parameters):
    """Print each notebook, its question, and its parameters under the profile. Returns 0."""
    for step in steps:
        cells = nb.read_cells(step.notebook)
        print(f"{step.name}: {nb.cell_title(cells[:1], 0)}")
        for name in parameters:
            if name in step.values:
                parameter, value = parameters[name], step.values[name]
                default = "" if value == parameter.default else f" (default {parameter.default!r})"
                print(f"    {f'{name}: {parameter.annotation} = {value!r}{default}':<60}  {parameter.help}")
    return 0


def show_plan(steps, *, force):
    """Print which steps would run and why, without running any. Returns 0."""
    renewed = {}
    for step in steps:
        why, record = reasons(step) or (["forced"] if force else []), read_record(step) or {}
        sources = sorted({renewed[name] for name in record.get("reads", {}) if name in renewed})
        if why:
            print(f"{step.name:<20} would run: {'; '.join(why)}")
        elif sources:
            print(f"{step.name:<20} would run if {' or '.join(sources)} makes something new")
        else:
            print(f"{step.name:<20} is current")
        if why or sources:
            renewed |= {Path(name).stem: step.name for name in record.get("writes", {})
                        if (step.root / name).parent == step.runs}
    return 0


if __name__ == "__main__":
    sys.exit(main())
