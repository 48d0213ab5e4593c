#!/usr/bin/env python
"""Run the compendium's notebooks in order, with papermill, under one profile.

    python run_all.py                                   the demo profile, what is not current yet
    python run_all.py --dry-run                         what would run, why, and for how long
    python run_all.py --list                            notebooks, parameters, types, defaults
    python run_all.py --set ratios='[1, 5, 10]' --from 04
    python run_all.py --sweep n_real=60,120,360         once per value, tables joined
    python run_all.py --report                          one HTML page of what a profile found

A step is not repeated while its notebook, the fer_lib code it imports, its parameters, everything it read
and everything it wrote are unchanged. Exit 0: every chosen notebook has run to its end. 1: one message says
what to do. 2: wrong usage. 130: interrupted. The same from Python: fer_lib.batch, fer_lib.sweep, fer_lib.report.
"""
# PYTHON_ARGCOMPLETE_OK

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from fer_lib import batch, paths, profiles, report, sweep
from fer_lib import notebooks as nb
from fer_lib.errors import FerError


def parser():
    """The command line's argparse.ArgumentParser."""
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                   epilog="A STEP is a number or a name, such as 06 or 06_ratio_study.")
    add = made.add_argument
    add("--profile", default="demo", help="which params/<profile>.yaml to use (default: demo)")
    add("--only", action="append", metavar="STEP", help="run this step only; may be repeated")
    add("--from", dest="first", metavar="STEP", help="start at this step")
    add("--to", dest="last", metavar="STEP", help="end with this step")
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="set a parameter, written as in YAML").completer = complete_setting
    add("--sweep", metavar="KEY=VALUE,VALUE,...",
        help="run once per value of a parameter and join the tables").completer = complete_setting
    add("--jobs", type=int, metavar="N", help="worker processes (default: one per core)")
    add("--engine", default="local", choices=("local", "ray"), help="where work runs (default: local)")
    add("--output", type=Path, metavar="DIR", help="folder for runs/, results/ and figures/ (default: here)")
    add("--force", action="store_true", help="run current steps, too; finished artifacts are still reused")
    add("--publish", action="store_true", help="after success, store outputs in the notebooks themselves")
    add("--list", action="store_true", help="show notebooks and parameters, and stop")
    add("--dry-run", action="store_true", help="show which steps would run, why and for how long, and stop")
    add("--report", action="store_true", help="write runs/<profile>/report.html from the results, and stop")
    return made


def complete_setting(prefix, **_):
    """Names of parameters for the shell's completion, through argcomplete where it is installed."""
    parameters = profiles.union(sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")))
    return [f"{name}=" for name in parameters if name.startswith(prefix) and name != "profile"]


def main(argv=None, *, notebooks=paths.NOTEBOOKS, params=paths.PARAMS):
    """The program; notebooks and params are the folders it reads. Returns the exit code."""
    arguments = parser()
    complete(arguments)
    arguments = arguments.parse_args(argv)
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


def complete(arguments):
    """Answer the shell when it asks for completions; does nothing without the package argcomplete."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(arguments)


def run(arguments, notebooks, params):
    """Check everything, then list, report, show or run the chosen steps. Raises FerError on bad input."""
    choice = {"profile": arguments.profile, "only": arguments.only or (), "first": arguments.first,
              "last": arguments.last, "set": arguments.set, "output": arguments.output, "notebooks": notebooks,
              "params": params}
    chosen = batch.select(**choice)
    if arguments.list:
        return show_list(chosen)
    if arguments.report:
        print(f"Wrote {report.write(arguments.profile, root=chosen.root, notebooks=notebooks)}")
        return 0
    check(arguments, chosen)
    tell_idle(arguments, chosen)
    swept = profiles.read_sweep(arguments.sweep, chosen.parameters) if arguments.sweep else None
    if arguments.dry_run:
        return show_plan(sweep.plan(*swept, force=arguments.force, **choice) if swept
                         else batch.plan(force=arguments.force, **choice))
    start, console = time.perf_counter(), Console(highlight=False)
    watch = Screen(console) if console.is_terminal and not console.is_dumb_terminal else Lines()
    options = {"jobs": arguments.jobs, "force": arguments.force, "watch": watch}
    try:
        if swept:
            tables = sweep.run(*swept, **options, **choice).tables
        else:
            batch.run(**options, publish=arguments.publish, **choice)
    finally:
        show_table(watch.outcomes)
    if swept:
        show_sweep(tables, arguments.profile)
    if arguments.publish:
        print(f"Stored the outputs of {len(chosen.chosen)} notebooks.")
    ran = sum(outcome.state == "ran" for outcome in watch.outcomes)
    summary = f"{ran} of {len(watch.outcomes)} steps ran" if ran else "Every step is current, nothing was repeated"
    print(f"{summary} (profile {arguments.profile}, {time.perf_counter() - start:.1f} s).")
    return 0


def check(arguments, chosen):
    """Raises FerError for options that cannot be met, before anything starts."""
    if arguments.engine == "ray":
        raise FerError("The ray engine is not part of this version: use --engine local.")
    if arguments.sweep and arguments.publish:
        raise FerError("--publish stores the outputs of one run, and --sweep makes several: leave one of them out.")
    batch.check_options(chosen, jobs=arguments.jobs, publish=arguments.publish)


def tell_idle(arguments, chosen):
    """Say which of the parameters that were set change nothing: those of steps that were not chosen, and those that
    only train a GAN, where none is trained."""
    names = [text.partition("=")[0] for text in (*arguments.set, *filter(None, [arguments.sweep]))]
    steps = {step.name for step in chosen.chosen}
    for name in (text.partition("=")[0] for text in arguments.set):
        users = chosen.parameters[name].notebooks if name in chosen.parameters else ()
        if users and not steps & set(users):
            print(f"{name} changes nothing in the chosen steps: it is a parameter of {', '.join(users)}.", flush=True)
    idle = profiles.idle([name for name in names if name in chosen.parameters], chosen.values, chosen.parameters)
    for name, weights in idle.items():
        print(f"{name} changes nothing where a GAN is not trained, and {weights} is "
              f"{chosen.values[weights]}: add --set {weights}=train to train it.", flush=True)


class Lines(batch.Watch):
    """Tells of a run in plain lines: one when a step ends, and one a minute while it runs."""

    interval = 60

    def __init__(self):
        self.outcomes, self.finished, self.thread = [], threading.Event(), None

    def starts(self, outlook, progress):
        start = time.perf_counter()

        def show():
            while not self.finished.wait(self.interval):
                told = f"{outlook.step.title:<20} {time.perf_counter() - start:4.0f} s  {progress.title}"
                print(f"{told} · {progress.line}" if progress.line else told, flush=True)

        self.finished.clear()
        self.thread = threading.Thread(target=show, daemon=True)
        self.thread.start()

    def ends(self, outcome):
        if self.thread:
            self.finished.set()
            self.thread.join()
            self.thread = None
        self.outcomes.append(outcome)
        tell_end(outcome)


class Screen(batch.Watch):
    """Shows a run on a terminal: one live line for the step that runs, with progress and time left."""

    def __init__(self, console):
        self.console, self.outcomes, self.live = console, [], None

    def starts(self, outlook, progress):
        start = time.perf_counter()
        self.live = Live(get_renderable=lambda: live_line(outlook, progress, time.perf_counter() - start),
                         console=self.console, refresh_per_second=4, transient=True, redirect_stdout=False,
                         redirect_stderr=False)
        self.live.start()

    def ends(self, outcome):
        if self.live:
            self.live.stop()
            self.live = None
        self.outcomes.append(outcome)
        tell_end(outcome)


def live_line(outlook, progress, elapsed):
    """Name, bar, time, time left and what the running cell says, on one line as wide as the terminal."""
    left, sign = progress.seconds_left(), ""
    if left is None and outlook.seconds and outlook.seconds > elapsed:
        left, sign = outlook.seconds - elapsed, "≤ " if outlook.renews else ""
    share = progress.share() if left is None else elapsed / (elapsed + left)
    told = f"{progress.title} · {progress.line}" if progress.line else progress.title
    line = Table.grid(Column(no_wrap=True, min_width=20), Column(width=14), Column(no_wrap=True, min_width=20),
                      Column(no_wrap=True, ratio=1, overflow="ellipsis"), padding=(0, 2, 0, 0), expand=True)
    line.add_row(outlook.step.title, ProgressBar(total=1, completed=share, width=14),
                 duration(elapsed) + (f", {sign}{duration(left)} left" if left is not None else ""), told)
    return line


def tell_end(outcome):
    """One line when a step has ended."""
    if outcome.state == "current":
        print(f"{outcome.step.title:<20} is current", flush=True)
    elif outcome.state == "ran":
        why = "; ".join(reason.text for reason in outcome.why)
        print(f"{outcome.step.title:<20} ran in {outcome.seconds:.0f} s ({why})", flush=True)


def show_table(outcomes):
    """The closing table: step, time, run or current, result."""
    table = Table("step", Column("time", justify="right"), "run?", Column("result", overflow="fold"), box=box.SIMPLE)
    for outcome in outcomes:
        table.add_row(outcome.step.title, duration(outcome.seconds) if outcome.state != "current" else "–",
                      {"current": "cached"}.get(outcome.state, outcome.state), outcome.result)
    if outcomes:
        show(table)


def show_sweep(tables, profile):
    """The gain for each value, and where the joined tables are."""
    for stem, table in tables.items():
        if stem.endswith("_summary"):
            shown = Table(*(name.replace("_", " ") for name in table.columns), box=box.SIMPLE)
            for row in table.itertuples(index=False):
                shown.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
            show(shown)
    names = ", ".join(f"{stem}.csv" for stem in sorted(tables))
    print(f"Joined into results/{profile}/: {names}" if names else
          "Nothing was joined: the chosen steps write no table.")


def show(table):
    """Print a table: as wide as the terminal, or as it needs where there is none; plain when it is piped."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
        table.box = None
    console.print(table, soft_wrap=False)


def duration(seconds):
    """A time for people: `0.4 s`, `12 s`, `3.5 min`, `1.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_list(chosen):
    """Print each notebook, its question, and its parameters under the profile. Returns 0."""
    for step in chosen.chosen:
        cells = nb.read_cells(step.notebook)
        print(f"{step.name}: {nb.cell_title(cells[:1], 0)}")
        for name, parameter in chosen.parameters.items():
            if name in step.values:
                value = step.values[name]
                default = "" if value == parameter.default else f" (default {json.dumps(parameter.default)})"
                print(f"    {f'{name}: {parameter.annotation} = {json.dumps(value)}{default}':<60}  {parameter.help}")
    return 0


def show_plan(outlooks):
    """Print what would become of each step, why, and for how long. Returns 0."""
    width = max(20, *(len(outlook.step.title) for outlook in outlooks))
    for outlook in outlooks:
        print(f"{outlook.step.title:<{width}} {told_outlook(outlook)}")
    needed = [outlook for outlook in outlooks if outlook.why or outlook.waits_for]
    known = [outlook.seconds for outlook in needed if outlook.seconds is not None]
    if known and len(needed) > 1:
        unknown = len(needed) - len(known)
        print(f"{'together':<{width}} up to {duration(sum(known))}"
              + (f" and {unknown} of unknown time" if unknown else ""))
    return 0


def told_outlook(outlook):
    """One Outlook in words."""
    time_needed = ("time unknown" if outlook.seconds is None else
                   f"{'up to' if outlook.renews or outlook.waits_for else 'about'} {duration(outlook.seconds)}")
    if outlook.why:
        return f"would run, {time_needed}: {'; '.join(reason.text for reason in outlook.why)}"
    if outlook.waits_for:
        return f"would run, {time_needed}, if {' or '.join(outlook.waits_for)} makes something new"
    return "is current"


if __name__ == "__main__":
    sys.exit(main())
