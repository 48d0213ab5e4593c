"""One parameter, several values: a profile once per value, and the tables joined.

    from fer_lib import sweep
    sweep.run("n_real", [60, 120, 360], profile="demo").tables["sweep_n_real"]

Steps that do not depend on the parameter belong to the profile itself and run once. Those that do run once
per value, each in runs/<profile>/sweeps/<name>=<value>, which has results and figures of its own, so that
the profile's own results stay as they are. Finished artifacts are shared by all.
"""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd

from fer_lib import batch, profiles, runs
from fer_lib import notebooks as nb
from fer_lib.errors import FerError
from fer_lib.intervals import trusted

MAIN_TABLE = "ratio_study"
"""The table whose joined rows become sweep_<name>.csv; others become sweep_<name>_<table>.csv."""


@dataclass(frozen=True)
class Sweep:
    """name, values : the parameter and what it takes. batch : the profile. shared : its steps that do not
    depend on the parameter. own : one list of steps per value."""

    name: str
    values: list
    batch: batch.Batch
    shared: list
    own: list


@dataclass(frozen=True)
class Swept:
    """outcomes : list of batch.Outcome. tables : {file's stem: DataFrame}, the value in the first column."""

    outcomes: list
    tables: dict


def select(name, values, profile="demo", **choice):
    """The steps of a sweep, with every value checked.

    name : of a parameter. values : its values. profile, choice : as in batch.select.
    Returns Sweep. Raises FerError when a value is not right, or no chosen step depends on the parameter.
    """
    chosen = batch.select(profile, **choice)
    parameter = profiles.find(chosen.parameters, name, where="--sweep")
    values = profiles.sweep_values(parameter, values)
    depend = dependent(chosen.every, name)
    touched = [step for step in chosen.chosen if step.name in depend]
    if not touched:
        raise FerError(f"--sweep {name}: none of the chosen steps depends on it, but {', '.join(sorted(depend))}: "
                       "choose them with --only, --from or --to.")
    waiting = [step.name for step in chosen.every[:chosen.every.index(touched[-1])]
               if step.name in depend and step not in touched]
    if waiting:
        raise FerError(f"--sweep {name}: what {', '.join(waiting)} makes depends on it too: choose that as well, as "
                       f"with --from {waiting[0][:2]}.")
    own = [[_for_value(step, name, value, chosen) for step in touched] for value in values]
    for value, steps in zip(values, own):
        batch.check_values(chosen.values | {name: value}, steps)
    return Sweep(name, values, chosen, [step for step in chosen.chosen if step.name not in depend], own)


def dependent(steps, name):
    """Names of the steps that declare the parameter `name` or may read what such a step publishes."""
    found, published = set(), set()
    for step in steps:
        if name in step.values or published & nb.texts(step.notebook):
            found.add(step.name)
            published |= nb.published_names(step.notebook)
    return found


def _for_value(step, name, value, chosen):
    """The step for one value of the parameter, with a folder of its own beside the shared artifacts."""
    values = {key: profiles.absolute(key, value, Path.cwd()) if key == name else old
              for key, old in step.values.items()}
    text = value if isinstance(value, str) else json.dumps(value)
    slug = text if re.fullmatch(r"[\w.+-]{1,40}", text) else hashlib.sha256(text.encode()).hexdigest()[:12]
    return replace(step, values=values, label=f"{name}={text}", store=chosen.root / "runs" / chosen.profile,
                   root=chosen.root / "runs" / chosen.profile / "sweeps" / f"{name}={slug}")


def plan(name, values, *, force=False, **choice):
    """What `run` would do with the same arguments, without doing it. Returns list of batch.Outlook."""
    found = select(name, values, **choice)
    outlooks = batch.plan_steps(found.shared, force=force)
    folder = found.batch.root / "runs" / found.batch.profile
    for steps in found.own:  # each may wait for what the shared steps make
        if steps[0].runs.is_dir():
            _share_published(folder, steps)
        outlooks += batch.plan_steps([*found.shared, *steps], force=force)[len(found.shared):]
    return outlooks


def run(name, values, *, jobs=None, force=False, watch=None, **choice):
    """Run a profile once per value of one parameter, and join the tables that the values' steps wrote.

    Arguments : see `select` and batch.run.
    Writes results/<profile>/sweep_<name>.csv (rows of ratio_study.csv), sweep_<name>_<table>.csv for other
    tables, and sweep_<name>_summary.csv (one row per value and test set: accuracy without generated faces,
    and the gain in points with its interval at the headline ratio); provenance.json names them.
    Returns Swept. Raises FerError as batch.run does; values that were finished before are kept.
    """
    found = select(name, values, **choice)
    batch.check_options(found.batch, jobs=jobs)
    options = {"jobs": jobs, "force": force, "watch": watch or batch.Watch()}
    folder = found.batch.root / "runs" / found.batch.profile
    with batch.exclusive(folder):
        outcomes = [batch.bring_up_to_date(step, found.batch.parameters, **options) for step in found.shared]
        for steps in found.own:
            _share_published(folder, steps)
            outcomes += [batch.bring_up_to_date(step, found.batch.parameters, **options) for step in steps]
        tables = joined(found)
        save(tables, found)
    return Swept(outcomes, tables)


def _share_published(folder, steps):
    """Give the steps of one value the names that the profile publishes, but for those they publish themselves."""
    batch.make_folders(steps[0].runs)
    own = set().union(*(nb.published_names(step.notebook) for step in steps))
    for note in folder.glob("*.json"):
        if note.stem not in own:
            shutil.copyfile(note, steps[0].runs / note.name)


def joined(found):
    """{stem: DataFrame} of what the values' steps wrote, with the value in a first column.

    The column has the parameter's name; `swept_` stands before it where a table has such a column of its own with other
    values in it, as where blocks of a study train other sizes.
    """
    parts = {}
    for value, steps in zip(found.values, found.own, strict=True):
        shown = value if isinstance(value, (int, float, str)) else json.dumps(value)
        for stem, table in _tables(steps, found.name).items():
            parts.setdefault(stem, []).append((shown, table))
    return {stem: _with_values(found.name, tables) for stem, tables in parts.items()}


def _with_values(name, parts):
    """One DataFrame of several, given as pairs (swept value, DataFrame)."""
    own = any(_differs(table, name, shown) for shown, table in parts)
    column, tables = f"swept_{name}" if own else name, []
    for shown, table in parts:
        table = table.drop(columns=column, errors="ignore")
        table.insert(0, column, shown)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _differs(table, name, shown):
    """Whether a table's own column holds other values than the swept one."""
    if name not in table:
        return False
    if name in ("weight", "intensity", "truncation"):  # which rows without generated faces do not have
        table = table[table["n_generated"] > 0]
    return bool((table[name] != shown).any())


def _tables(steps, name):
    tables = {}
    for step in steps:
        for written in batch.read_record(step)["writes"]:
            path = step.root / written
            if written.startswith("results") and path.suffix == ".csv":
                tables[f"sweep_{name}" + ("" if path.stem == MAIN_TABLE else f"_{path.stem}")] = pd.read_csv(path)
            elif written.startswith("results") and path.name == "summary.json":
                tables[f"sweep_{name}_summary"] = gains(json.loads(path.read_text(encoding="utf-8")))
    return tables


def gains(summary):
    """One row per test set of a summary.json: accuracy without generated faces, and the gain at the headline ratio.

    Its interval is the one to be trusted, see intervals.trusted.
    """
    rows = []
    for test_set, found in summary["test_sets"].items():
        gain = trusted(found["main_contrast"])
        rows.append({"test_set": test_set, "n_test": found["n_test"],
                     "accuracy_without": found["real_accuracy"]["estimate"], "ratio": summary["headline_ratio"],
                     "gain_points": gain["estimate"], "low": gain["low"], "high": gain["high"]})
    return pd.DataFrame(rows)


def save(tables, found):
    """Write the joined tables to the profile's results, and where they come from to provenance.json."""
    folder = found.batch.root / "results" / found.batch.profile
    folder.mkdir(parents=True, exist_ok=True)
    for stem, table in tables.items():
        partial = folder / f".{stem}.csv.partial"
        table.to_csv(partial, index=False)
        partial.replace(folder / f"{stem}.csv")
    path = folder / "provenance.json"
    notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    notes[f"sweep_{found.name}"] = {
        "profile": found.batch.profile, "files": sorted(f"{stem}.csv" for stem in tables), "values": found.values,
        **_origin(found), "versions": runs.versions(), **runs.commit(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    runs.write_json(path, dict(sorted(notes.items())))


def _origin(found):
    """Seeds and devices that the values' own steps noted."""
    seeds, devices = {}, set()
    for steps in found.own:
        path = steps[0].root / "results" / found.batch.profile / "provenance.json"
        for note in json.loads(path.read_text(encoding="utf-8")).values() if path.is_file() else ():
            seeds |= note["seeds"]
            devices.add(note["device"])
    return {"seeds": seeds, "device": ", ".join(sorted(devices))}
