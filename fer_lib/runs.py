"""What a run keeps: artifacts known by content, and a record of what each step read and wrote.

An artifact is a folder `runs/<profile>/<kind>/<key>`; its key is the hash of its parameters, of the code
that makes it and of the fingerprints of what it reads. It is built under a working name and renamed when
complete, so that a folder with a final name is always whole.
"""

import ast
import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np

from fer_lib import paths
from fer_lib.errors import FerError

MAKERS = {"faces": "01_data_prep", "identity_gan": "02_identity_gan",
          "identity_gan_paper": "02_identity_gan", "expression_gan": "03_expression_gan",
          "generated": "04_generation", "referee": "04_generation", "quality": "04_generation",
          "study": "06_ratio_study"}
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pandas")


@dataclass(frozen=True)
class Artifact:
    """A finished piece of work: its folder, its key, and whether it was there already."""

    path: Path
    key: str
    cached: bool
    seconds: float


@dataclass
class Workspace:
    """The folders of one profile, and the record of what the current step reads, makes and writes.

    runs : Path of published names and step records; store : Path of the artifacts, the same folder unless
    several runs share them. artifacts : what `build` made or loaded, with its seconds.
    """

    profile: str
    step: str
    runs: Path
    results: Path
    figures: Path
    store: Path
    reads: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    writes: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)

    def publish(self, name, artifact):
        """Make `artifact` the profile's current `name`, for the notebooks that need it."""
        note = {"kind": artifact.path.parent.name, "key": artifact.key}
        write_json(self.runs / f"{name}.json", note)
        self.writes[str((self.runs / f"{name}.json").relative_to(paths.output_root()))] = None
        return artifact

    def withdraw(self, name):
        """Take back an artifact that an earlier run of this step published, and this one does not."""
        (self.runs / f"{name}.json").unlink(missing_ok=True)

    def require(self, name):
        """The profile's current artifact called `name`; FerError names the notebook that makes it."""
        try:
            note = json.loads((self.runs / f"{name}.json").read_text(encoding="utf-8"))
            folder = self.store / note["kind"] / note["key"]
            if not (folder / "artifact.json").is_file():
                raise FileNotFoundError(folder)
        except (OSError, ValueError, KeyError) as error:
            raise FerError(f"{name} of profile {self.profile} is missing in {self.runs}: "
                           f"run notebooks/{MAKERS.get(name, name)}.ipynb with this profile"
                           f"{' and compare_with_paper=true' if name == 'identity_gan_paper' else ''} "
                           "first.") from error
        self.reads[name] = note["key"]
        return Artifact(folder, note["key"], True, 0.0)

    def read_external(self, path):
        """Record a file or folder outside the project as input; returns its content fingerprint."""
        path = Path(path)
        self.files[str(path)] = fingerprint(path)
        return self.files[str(path)]

    def save_figure(self, figure, name, *, alt=None):
        """Write `figure` to figures/<profile>/<name>.png (200 dpi) and .svg; returns the PNG's path.

        alt : str, what the figure shows, for those who do not see it; kept inside both files. None takes what the
        figure says of itself (`alt`, see plots.Drawn), if it does.
        """
        _make_folder(self.figures)
        alt = alt or getattr(figure, "alt", "")
        told = {"Description": " ".join(alt.split())} if alt else {}
        for suffix, options in ((".png", {"dpi": 200, "metadata": told}),
                                (".svg", {"metadata": {"Date": None} | told})):
            self._write(self.figures / (name + suffix),
                        lambda path, o=options, s=suffix: figure.savefig(path, format=s[1:], bbox_inches="tight", **o))
        return self.figures / f"{name}.png"

    def save_table(self, table, name):
        """Write a DataFrame to results/<profile>/<name>.csv; returns its path."""
        _make_folder(self.results)
        return self._write(self.results / f"{name}.csv", lambda path: table.to_csv(path, index=False))

    def save_json(self, values, name):
        """Write plain values to results/<profile>/<name>.json; returns its path."""
        _make_folder(self.results)
        return self._write(self.results / f"{name}.json", lambda path: write_json(path, values))

    def save_arrays(self, arrays, name):
        """Write a dict of arrays to results/<profile>/<name>.npz, compressed; returns its path."""
        def write(path):
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)

        _make_folder(self.results)
        return self._write(self.results / f"{name}.npz", write)

    def _write(self, path, write):
        partial = path.with_name(f".{path.name}.partial")
        write(partial)
        os.replace(partial, path)
        self.writes[str(path.relative_to(paths.output_root()))] = fingerprint(path)
        return path

    def finish(self, *, device="cpu", seeds=None):
        """Record this step's reads and writes, and add it to the results' provenance.json."""
        self.writes = {name: mark or fingerprint(paths.output_root() / name) for name, mark in self.writes.items()}
        result_files = [Path(name).name for name in self.writes if name.startswith("results")]
        if result_files:
            self._add_provenance(result_files, str(device), seeds or {})
        record = {"step": self.step, "finished": _now(), "reads": self.reads, "files": self.files,
                  "writes": self.writes, "artifacts": self.artifacts}
        write_json(self.runs / "steps" / f"{self.step}.json", record)

    def _add_provenance(self, result_files, device, seeds):
        path = self.results / "provenance.json"
        notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        notes[self.step] = {"profile": self.profile, "files": sorted(result_files), "seeds": seeds,
                            "device": device, "inputs": self.reads, "versions": versions(),
                            **commit(), "finished": _now()}
        write_json(path, dict(sorted(notes.items())))


def open_workspace(profile, *, step):
    """The workspace of `profile` for the notebook `step`; progress lines go to standard output.

    Raises FerError when its folder cannot be written.
    """
    _log_to_stdout()
    folder = paths.runs_folder(profile)
    _make_folder(folder / "steps")
    store = Path(os.environ.get("FER_ARTIFACTS") or folder)
    return Workspace(profile, step, folder, paths.results_folder(profile), paths.figures_folder(profile), store)


def build(workspace, kind, *, params, inputs, code, make):
    """The artifact with these parameters, inputs and code: loaded if finished, or else made now.

    kind : str, folder name below runs/<profile>.
    params : dict of plain values.
    inputs : list of Artifact or fingerprint strings.
    code : list of module names; what they import from fer_lib counts too.
    make : called as make(folder); the folder is kept when the work is interrupted, so `make` may resume
        from what it finds there, and is renamed when `make` returns.
    Returns Artifact. Raises FerError when the folder cannot be written.
    """
    inputs = [item.key if isinstance(item, Artifact) else str(item) for item in inputs]
    facts = {"kind": kind, "params": params, "inputs": inputs, "code": code_fingerprint(code)}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = workspace.store / kind / key
    if (folder / "artifact.json").is_file():
        note = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
        workspace.artifacts[f"{kind}/{key}"] = {"seconds": note["seconds"], "spent_now": 0.0}
        return Artifact(folder, key, True, note["seconds"])
    partial = folder.with_name(f"{key}.partial")
    _make_folder(partial)
    spent = _read_number(partial / "seconds")
    start = time.perf_counter()
    try:
        make(partial)
    finally:
        seconds = spent + time.perf_counter() - start
        with contextlib.suppress(OSError):  # a full disk must not hide why the work ended
            write_json(partial / "seconds", round(seconds, 1))
    write_json(partial / "artifact.json", {**facts, "key": key, "seconds": round(seconds, 1),
                                           "finished": _now(), **commit()})
    os.replace(partial, folder)
    workspace.artifacts[f"{kind}/{key}"] = {"seconds": round(seconds, 1), "spent_now": round(seconds - spent, 1)}
    return Artifact(folder, key, False, seconds)


def code_fingerprint(modules):
    """SHA-256 over the code of `modules` and of everything they import from fer_lib.

    Comments, docstrings and layout do not count: only what is executed does, and the files in a module's
    folder assets/.
    """
    return hashlib.sha256(json.dumps(_code_parts(modules), sort_keys=True).encode()).hexdigest()


def code_parts(modules):
    """{module: SHA-256 of its code} of what `code_fingerprint` covers, to tell which module changed."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(_code_parts(modules).items())}


def _code_parts(modules):
    found, waiting = {}, list(modules)
    while waiting:
        name = waiting.pop()
        path = _module_file(name)
        if name in found or path is None:
            continue
        tree = _without_docstrings(ast.parse(path.read_text(encoding="utf-8")))
        found[name] = ast.dump(tree)
        if (path.parent / "assets").is_dir():
            found[f"{name} assets"] = fingerprint(path.parent / "assets")
        waiting += _imports(tree)
    return found


def _module_file(name):
    if name.split(".")[0] != "fer_lib":
        return None
    base = paths.REPOSITORY.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _without_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                    and isinstance(first.value.value, str)):
                node.body = node.body[1:]
    return tree


def fingerprint(path):
    """SHA-256 of a file, or of the names and contents of every file below a folder.

    Raises FerError when `path` does not exist.
    """
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise FerError(f"{path} does not exist: check the path, or give another one.")
    digest = hashlib.sha256()
    for file in paths.files_below(path):
        digest.update(f"{file.relative_to(path).as_posix()} {fingerprint(file)}\n".encode())
    return digest.hexdigest()


def versions():
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": sys.version.split()[0]} | {name: metadata.version(name) for name in PACKAGES}


def commit():
    """The commit of the code, and whether the code differs from it: {"commit", "code_changed"}."""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", "fer_lib", "params", "notebooks", "run_all.py")
        return {"commit": head, "code_changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "code_changed": None}


def write_json(path, values):
    """Write plain values as indented JSON, under a temporary name first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _git(*arguments):
    return subprocess.run(["git", *arguments], cwd=paths.REPOSITORY, check=True, capture_output=True,
                          text=True).stdout.strip()


def _make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FerError(f"The folder {folder} cannot be written ({error.strerror}): "
                       "free it, or choose another with --output.") from error


def _read_number(path):
    """The number in a file; 0 where there is none, or half of one."""
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def _now():
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _log_to_stdout():
    logger = logging.getLogger("fer_lib")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
