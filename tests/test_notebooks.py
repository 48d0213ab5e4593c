"""House rules of the committed notebooks, and nbval on their smoke-sized runs."""

import ast
import base64
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest

from conftest import command_line
from fer_lib import notebooks, profiles

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
MAX_LINES, MAX_CODE_CELLS, MAX_DEF_LINES = 18, 20, 5
ABSOLUTE = re.compile(
    r"(?<![\w.:/])/(?:work|root|home|tmp|farm|Users|mnt|opt|usr|var|content)/\w|\b[A-Z]:\\\w")
FORBIDDEN = re.compile(r"^\s*[!%]\s*(?:pip|conda)|warnings\.(?:filterwarnings|simplefilter)", re.MULTILINE)


def code_cells(cells):
    return [cell for cell in cells if cell["cell_type"] == "code" and cell["source"].strip()]


def tree(cell):
    lines = [line for line in cell["source"].splitlines() if not line.lstrip().startswith(("%", "!"))]
    return ast.walk(ast.parse("\n".join(lines)))


def texts(cell):
    """The source and every textual output of a cell, not its images."""
    yield cell["source"]
    for output in cell.get("outputs", ()):
        yield "".join(output.get("text", ""))
        yield from ("".join(data) for kind, data in output.get("data", {}).items()
                    if kind.startswith("text/") and kind != "text/latex")


def opens_with_a_question(cells):
    first = cells[0]["source"].splitlines()[0] if cells and cells[0]["cell_type"] == "markdown" else ""
    return [] if re.fullmatch(r"# .+\?\s*", first) else [f"the first line is {first!r}, not `# ...?`"]


def has_one_parameters_cell(cells):
    n = sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells)
    injected = any("injected-parameters" in cell["metadata"].get("tags", ()) for cell in cells)
    return [f"{n} cells tagged parameters"] * (n != 1) + ["an injected-parameters cell"] * injected


def has_short_cells(cells):
    code = code_cells(cells)
    # One parameter a line, as many as there are.
    long = [cell["source"].splitlines()[0] for cell in code if len(cell["source"].splitlines()) > MAX_LINES
            and "parameters" not in cell["metadata"].get("tags", ())]
    return [f"over {MAX_LINES} lines: {line}" for line in long] + [
        f"{len(code)} code cells"] * (len(code) > MAX_CODE_CELLS)


def defines_next_to_nothing(cells):
    nodes = [node for cell in code_cells(cells) for node in tree(cell)]
    functions = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return ([f"class {node.name}" for node in nodes if isinstance(node, ast.ClassDef)]
            + [f"def {node.name}" for node in functions if node.end_lineno - node.lineno >= MAX_DEF_LINES])


def has_prose_between_code(cells):
    pairs = zip(cells, cells[1:], strict=False)
    return [f"no prose above: {cell['source'].splitlines()[0]}" for before, cell in pairs
            if before["cell_type"] == cell["cell_type"] == "code" and cell["source"].strip()]


def installs_and_silences_nothing(cells):
    return [match.group() for cell in code_cells(cells) for match in FORBIDDEN.finditer(cell["source"])]


def names_no_absolute_path(cells):
    return [text[max(match.start() - 20, 0):match.end() + 30] for cell in cells for text in texts(cell)
            for match in ABSOLUTE.finditer(text)]


def carries_its_outputs(cells):
    code = code_cells(cells)
    counts = [cell["execution_count"] for cell in code]
    outputs = [output for cell in code for output in cell["outputs"]]
    bad = [output.get("ename") or output.get("name") for output in outputs
           if output["output_type"] == "error" or output.get("name") == "stderr"]
    return ([] if counts == list(range(1, len(code) + 1)) else [f"execution counts {counts}"]) + (
        [] if outputs else ["no outputs"]) + [f"an output of {what}" for what in bad]


def has_checked_outputs(cells):
    checked = [cell for cell in code_cells(cells) if "nbval-check-output" in cell["metadata"].get("tags", ())]
    return [f"only {len(checked)} cells tagged nbval-check-output"] * (len(checked) < 2) + [
        f"checked, but without output: {cell['source']}" for cell in checked if not cell["outputs"]]


RULES = (opens_with_a_question, has_one_parameters_cell, has_short_cells, defines_next_to_nothing,
         has_prose_between_code, installs_and_silences_nothing, names_no_absolute_path, carries_its_outputs,
         has_checked_outputs)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook, rule):
    assert rule(notebooks.read_cells(notebook)) == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_has_a_comment(notebook):
    parameters = profiles.read_parameters(notebook).values()
    assert [parameter.name for parameter in parameters if not parameter.help] == []


def test_notebooks_are_numbered_without_gaps():
    assert [int(path.stem[:2]) for path in NOTEBOOKS] == list(range(1, len(NOTEBOOKS) + 1))


def markdown(source):
    return {"cell_type": "markdown", "source": source, "metadata": {}}


def code(source, *, outputs=(), count=1, tags=()):
    return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}, "outputs": list(outputs),
            "execution_count": count}


SAID = {"output_type": "stream", "name": "stdout", "text": "in /home/me/x"}
WARNED = {"output_type": "stream", "name": "stderr", "text": "careful"}


@pytest.mark.parametrize(("rule", "cells"), [
    (opens_with_a_question, [markdown("# A statement")]),
    (opens_with_a_question, [code("1")]),
    (has_one_parameters_cell, [code("a = 1")]),
    (has_one_parameters_cell, [code("a", tags=["parameters"]), code("a", tags=["injected-parameters"])]),
    (has_short_cells, [code("a\n" * (MAX_LINES + 1))]),
    (defines_next_to_nothing, [code("class A: pass")]),
    (defines_next_to_nothing, [code("def f():\n" + "    1\n" * MAX_DEF_LINES)]),
    (has_prose_between_code, [code("1"), code("2")]),
    (installs_and_silences_nothing, [code("!pip install x")]),
    (installs_and_silences_nothing, [code("import warnings\nwarnings.filterwarnings('ignore')")]),
    (names_no_absolute_path, [code("open('/tmp/x')")]),
    (names_no_absolute_path, [code("1", outputs=[SAID])]),
    (carries_its_outputs, [code("1", count=None)]),
    (carries_its_outputs, [code("1", outputs=[SAID, WARNED])]),
    (has_checked_outputs, [code("1", tags=["nbval-check-output"]), code("2", tags=["nbval-check-output"])]),
])
def test_each_rule_finds_its_offence(rule, cells):
    assert rule(cells)


def test_the_smoke_run_ends_in_the_promised_files(smoke_run):
    results = smoke_run / "results" / "smoke"
    for name in ("ratio_study.csv", "summary.json", "generators.json", "provenance.json"):
        assert (results / name).is_file(), name
    assert json.loads((results / "summary.json").read_text())["headline_ratio"] >= 0
    assert [path.stem for path in sorted((smoke_run / "runs" / "smoke" / "notebooks").glob("*.ipynb"))] == [
        path.stem for path in NOTEBOOKS]


def test_a_second_smoke_run_repeats_nothing(smoke_run):
    run = command_line("run_all.py", "--profile", "smoke", "--output", smoke_run, timeout=120)
    assert run.returncode == 0 and "nothing was repeated" in run.stdout, run.stdout + run.stderr


def test_the_same_seeds_give_the_same_study(smoke_run, tmp_path):
    """Every classifier is trained anew; only the seconds may differ."""
    copy = tmp_path / "copy"
    shutil.copytree(smoke_run, copy)
    shutil.rmtree(copy / "runs" / "smoke" / "study")
    run = command_line("run_all.py", "--profile", "smoke", "--only", "06", "--output", copy)
    assert run.returncode == 0, run.stdout + run.stderr
    first, second = (pd.read_csv(folder / "results" / "smoke" / "ratio_study.csv") for folder in (smoke_run, copy))
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"), check_exact=True)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbval_reproduces_the_smoke_run(notebook, smoke_run, tmp_path):
    """Each notebook runs once more, alone, on a copy of the artifacts, and its checked outputs agree."""
    shutil.copytree(smoke_run, tmp_path / "copy")
    executed = tmp_path / "copy" / "runs" / "smoke" / "notebooks" / notebook.name
    report = tmp_path / "report.xml"
    run = command_line("-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300",
                       "-p", "no:cacheprovider", f"--junitxml={report}", "-c", "pyproject.toml", executed,
                       FER_OUTPUT=tmp_path / "copy", PYTHONHASHSEED=0)
    assert report.is_file(), run.stdout + run.stderr
    suite = ElementTree.parse(report).getroot().find("testsuite")
    counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    n_code = sum(cell["cell_type"] == "code" for cell in notebooks.read_cells(executed))
    assert counts == {"tests": n_code, "failures": 0, "errors": 0, "skipped": 0}, run.stdout[-4000:]


def test_the_answer_at_the_top_of_notebook_6_is_the_committed_figure():
    path = next(path for path in NOTEBOOKS if path.stem == "06_ratio_study")
    cell = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    picture = base64.b64decode(cell["attachments"]["study_curve.png"]["image/png"])
    assert picture == (path.parents[1] / "figures" / "demo" / "study_curve.png").read_bytes()
    assert "](attachment:study_curve.png)" in "".join(cell["source"])
