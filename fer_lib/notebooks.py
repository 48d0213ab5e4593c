"""One notebook: read it, run it with papermill under this interpreter, publish its outputs.

A finished notebook appears under its final name only when every cell has run;
one that failed is kept beside it as `<name>.failed.ipynb`, marked as failed.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import logging
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fer_lib.errors import FerError

LEFT_OUT = ("parameters", "injected-parameters")
"""Tags of the cells that hold parameter values, which count as values, not as code."""


class NotebookFailed(Exception):
    """A notebook did not run to its end: which cell, why, and where the marked copy is kept."""

    def __init__(self, *, title, cause, kept):
        super().__init__(f"cell \"{title}\": {cause}")
        self.title, self.cause, self.kept = title, cause, kept


@dataclass
class Progress:
    """Where a running notebook is; the kernel's thread writes it, whoever shows progress reads it."""

    title: str = "starting"
    line: str = ""
    cell: int = 0
    cells: int = 0
    at: float = 0.0

    def enter(self, title, cell, cells):
        """Cell number `cell` of `cells`, counted from 0, starts under the heading `title`."""
        self.title, self.line, self.cell, self.cells = title, "", cell, cells

    def write(self, text):
        """Take what a cell prints; keeps the last line that is not blank."""
        lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
        if lines:
            self.line, self.at = lines[-1], time.monotonic()

    def flush(self):
        """Part of the file interface that papermill writes to."""

    def share(self):
        """Share of the notebook that has run, in [0, 1], by its cells and by what the running one counts."""
        counted = re.search(r"\b(\d+) of (\d+)\b", self.line)
        within = int(counted[1]) / max(int(counted[2]), 1) if counted else 0.0
        return min((self.cell + min(within, 1.0)) / self.cells, 1.0) if self.cells else 0.0

    def seconds_left(self):
        """Seconds that the running cell still needs by its own word (`2.5 min left`), or None."""
        said = re.search(r"([\d.]+) min left", self.line)
        return max(float(said[1]) * 60 - (time.monotonic() - self.at), 0.0) if said else None


def read_cells(notebook):
    """Cells of an .ipynb file as plain dicts whose `source` is one string."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def _code(notebook):
    """Sources of the code cells that are not about parameters."""
    return [cell["source"] for cell in read_cells(notebook)
            if cell["cell_type"] == "code" and not set(LEFT_OUT) & set(cell["metadata"].get("tags", ()))]


def source_hash(notebook):
    """sha256 hex of what the notebook computes: its code cells, without outputs, prose and parameters."""
    return hashlib.sha256("\n\0".join(_code(notebook)).encode()).hexdigest()


def imported_modules(notebook, *, package="fer_lib"):
    """Sorted names of the package's modules that the notebook's code cells import, such as `fer_lib.runs`."""
    found = set()
    for node in _nodes(notebook):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return sorted(name for name in found if name == package or name.startswith(package + "."))


def published_names(notebook):
    """Names that the notebook publishes for those after it, such as {"faces"}."""
    calls = [node for node in _nodes(notebook) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return {call.args[0].value for call in calls
            if call.func.attr == "publish" and call.args and isinstance(call.args[0], ast.Constant)}


def texts(notebook):
    """Text constants in the code of a notebook; the published names that it reads are among them."""
    return {node.value for node in _nodes(notebook) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _nodes(notebook):
    for source in _code(notebook):
        python = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
        yield from ast.walk(ast.parse("\n".join(python)))


def cell_title(cells, index):
    """The nearest markdown heading at or above cell `index`, or `cell <number>` when there is none."""
    for cell in reversed(cells[:index + 1]):
        headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", cell["source"], re.MULTILINE)
        if cell["cell_type"] == "markdown" and headings:
            return headings[-1]
    return f"cell {index + 1}"


def execute(notebook, target, *, parameters, environment, progress=None, timeout=None):
    """Run a notebook to its end, or keep it marked as failed.

    notebook : Path of the source, which is never written to; its folder is the working directory.
    target : Path of the executed notebook, replaced only on success.
    parameters : {name: value} to inject, literals only.
    environment : {name: text} added to the kernel's environment.
    progress : Progress to keep up to date while cells run.
    timeout : seconds that one cell may take; None for no limit.
    Raises NotebookFailed when a cell raises, the kernel dies, or a cell takes too long.
    KeyboardInterrupt passes through, and the notebook so far is kept as failed.
    """
    import papermill  # here, because it takes seconds and a run that is current does not need it
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs, NotebookFailed says in one line
    progress = progress or Progress()
    cells = read_cells(notebook)
    if parameters:  # papermill puts its cell behind the tagged one, which shifts those below
        tagged = next(i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", ()))
        cells.insert(tagged + 1, {"cell_type": "code", "source": "", "metadata": {}})

    def at_cell(cell, cell_index):
        progress.enter(cell_title(cells, cell_index), cell_index, len(cells))

    failed = target.with_name(f"{target.stem}.failed.ipynb")
    running = target.with_name(f"{target.stem}.running.ipynb")
    cause, said = "interrupted", tempfile.TemporaryFile()
    try:
        papermill.execute_notebook(
            notebook, running, parameters, kernel_name="python3", language="python", progress_bar=False,
            stdout_file=progress, stderr_file=progress, execution_timeout=timeout, on_cell_start=at_cell,
            kernel_manager_class=_kernel_manager(environment, notebook.parent, said), coalesce_streams=True)
        os.replace(running, target)
        failed.unlink(missing_ok=True)
        cause = None
        return
    except papermill.PapermillExecutionError as error:
        cause = error.evalue if error.ename == "FerError" else f"{error.ename}: {error.evalue}".rstrip(": ")
    except CellTimeoutError:
        cause = f"it took longer than the {timeout} s that a cell may take"
    except DeadKernelError:
        cause = ("its Python process died without a Python error, most often for lack of memory: close other "
                 "programs or give --jobs a smaller number" + _last_words(said))
    except RuntimeError as error:
        cause = f"its Python process did not start ({str(error).strip().splitlines()[-1]})" + _last_words(said)
    finally:
        said.close()
        if cause is not None and running.exists():
            _mark_failed(running, failed, title=progress.title, cause=cause)
    kept = failed if failed.exists() else None
    raise NotebookFailed(title=progress.title, cause=" ".join(cause.split()), kept=kept)


def _last_words(said):
    """The last line that is not blank of a process that died, from the file with what it wrote,
    as an addition to a cause."""
    said.seek(0)
    lines = [line for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f"; the last it wrote is: {lines[-1].strip()}" if lines else ""


def _kernel_manager(environment, folder, said):
    """A kernel manager class that starts this very interpreter, and writes its standard error to the open file `said`.

    A kernelspec called `python3` may belong to another installation; this does not look one up. What cells write to
    standard error is in the notebook; what is left is of interest when the kernel dies of itself, and misleads
    when it was told to end (libzmq may then fail an assertion on its way out).
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    # Level 50: ipykernel 7.4 warns about unencrypted local sockets on every start, and logs a traceback when
    # it is stopped in the middle of a cell. What cells raise is not logged but reported.
    command = [sys.executable, "-m", "ipykernel_launcher", "--IPKernelApp.log_level=50",
               "-f", "{connection_file}"]

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **options):
            super().__init__(**options)
            self._kernel_spec = KernelSpec(argv=command, display_name="Python 3", language="python")

        def start_kernel(self, **options):
            return super().start_kernel(env={**os.environ, **environment}, cwd=str(folder), stderr=said, **options)

    return ThisInterpreter


def _mark_failed(running, failed, *, title, cause):
    """Move a half-run notebook to its failed name, with the reason on top and in its metadata."""
    notebook = json.loads(running.read_text(encoding="utf-8"))
    notebook["metadata"]["fer_failed"] = {"cell": title, "cause": cause}
    first = {"cell_type": "markdown", "id": "failed", "metadata": {"tags": ["failed"]},
             "source": f"**This run failed** at \"{title}\": {cause}"}
    notebook["cells"].insert(0, first)
    running.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(running, failed)


def check_same_sources(executed, source):
    """Raises FerError unless both notebooks have the same cells, injected parameters aside."""
    if [_identity(cell) for cell in _own_cells(executed)] != [_identity(cell) for cell in _own_cells(source)]:
        raise FerError(f"{source.name} has changed since it ran, so no outputs were published: run it again.")


def publish(executed, source, *, figures=None):
    """Copy outputs and execution counts of an executed notebook into its source notebook.

    executed, source : Path. figures : folder of the figures that it has drawn, or None; a picture that a cell of prose
    has as an attachment is taken anew from there. The cell with injected parameters is left out, and the counts run
    from 1.
    Raises FerError when the cells' sources differ, in which case nothing is written.
    """
    check_same_sources(executed, source)
    ours, count = json.loads(source.read_text(encoding="utf-8")), 0
    for cell, ran in zip(ours["cells"], _own_cells(executed), strict=True):
        if cell["cell_type"] == "code":
            count += ran["execution_count"] is not None
            cell["execution_count"] = count if ran["execution_count"] is not None else None
            cell["outputs"] = [{**output, "execution_count": count} if "execution_count" in output else output
                               for output in ran["outputs"]]
        for name in cell.get("attachments", {}) if figures else ():
            if (figures / name).is_file():
                picture = base64.b64encode((figures / name).read_bytes()).decode()
                cell["attachments"][name] = {"image/png": picture}
    widgets = json.loads(executed.read_text(encoding="utf-8"))["metadata"].get("widgets")
    ours["metadata"] = {**ours["metadata"], "widgets": widgets} if widgets else ours["metadata"]
    temporary = source.with_suffix(".publishing")
    temporary.write_text(json.dumps(ours, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, source)


def _own_cells(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", ())]


def _identity(cell):
    return cell["cell_type"], "".join(cell["source"]).strip()
