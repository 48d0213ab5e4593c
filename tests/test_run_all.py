"""Laws of run_all.py, on two throw-away notebooks: the second reads what the first publishes."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from rich.console import Console

import run_all
from fer_lib import batch, notebooks, profiles, sweep
from fer_lib.errors import FerError

REPOSITORY = Path(__file__).resolve().parents[1]
PARAMETERS = 'profile: str = "demo"   # which profile\nratio: float = 1.0   # generated / real\n'
MAKE = """
def write(folder):
    (folder / "value.txt").write_text(str(ratio))
value = runs.build(ws, "value", params={"ratio": ratio}, inputs=[], code=[], make=write)
ws.publish("value", value)
"""
FIRST = {"# What is made?": "from fer_lib import runs", "## Parameters": PARAMETERS,
         "## Make it": 'ws = runs.open_workspace(profile, step="01_first")\n' + MAKE,
         "## Save": 'ws.save_json({"ratio": ratio}, "first")\nws.finish()'}
SECOND = {"# What is read?": "from fer_lib import runs",
          "## Parameters": PARAMETERS.splitlines()[0] + "\ntext: str = 'a'   # any text",
          "## Read it": 'ws = runs.open_workspace(profile, step="02_second")\nvalue = ws.require("value")',
          "## Save": 'print("value", (value.path / "value.txt").read_text())\nws.finish()'}


def write_notebook(path, cells):
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {
        "name": "python3", "display_name": "Python 3", "language": "python"}})
    for heading, source in cells.items():
        tags = ["parameters"] if heading == "## Parameters" else []
        notebook.cells += [nbformat.v4.new_markdown_cell(heading),
                           nbformat.v4.new_code_cell(source, metadata={"tags": tags})]
    nbformat.write(notebook, path)


class Project:
    """A folder with notebooks/, params/ and an output folder, and run_all on it."""

    def __init__(self, folder, capsys):
        self.notebooks, self.params, self.output = folder / "notebooks", folder / "params", folder / "output"
        self.capsys = capsys
        for part in (self.notebooks, self.params):
            part.mkdir()
        (self.params / "demo.yaml").write_text("", encoding="utf-8")
        self.change("01_first", FIRST)
        self.change("02_second", SECOND)

    def change(self, step, cells):
        write_notebook(self.notebooks / f"{step}.ipynb", cells)

    def main(self, *arguments):
        """Exit code, standard output, standard error."""
        code = run_all.main(["--output", str(self.output), *arguments], notebooks=self.notebooks,
                            params=self.params)
        return code, *self.capsys.readouterr()

    def plan(self, *arguments):
        """{step: what a dry run says about it}."""
        code, out, _ = self.main("--dry-run", *arguments)
        assert code == 0
        return {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}


@pytest.fixture
def project(tmp_path, capsys):
    return Project(tmp_path, capsys)


@pytest.fixture
def finished(project):
    """A project whose two steps have run."""
    code, _, err = project.main()
    assert code == 0, err
    return project


def test_a_second_run_repeats_nothing_and_says_so(finished):
    executed = finished.output / "runs" / "demo" / "notebooks" / "01_first.ipynb"
    before, start = executed.stat().st_mtime_ns, time.perf_counter()
    code, out, err = finished.main()
    assert (code, err) == (0, "")
    assert "nothing was repeated" in out and out.count("is current\n") == 2
    assert executed.stat().st_mtime_ns == before
    assert time.perf_counter() - start < 3


def test_each_change_makes_the_steps_it_concerns_run(finished):
    assert set(finished.plan().values()) == {"is current"}
    assert "parameters changed: ratio" in finished.plan("--set", "ratio=2")["01_first"]
    assert "if 01_first" in finished.plan("--set", "ratio=2")["02_second"]
    assert finished.plan("--set", "text=b")["01_first"] == "is current"
    assert "parameters changed: text" in finished.plan("--set", "text=b")["02_second"]
    finished.change("02_second", SECOND | {"## Save": "ws.finish()"})
    assert "notebook changed" in finished.plan()["02_second"]
    (finished.output / "results" / "demo" / "first.json").unlink()
    assert "output missing: results/demo/first.json" in finished.plan()["01_first"]


def test_prose_and_stored_outputs_are_not_code(finished):
    path = finished.notebooks / "01_first.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "# What is made, again?"
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="stored")]
    nbformat.write(notebook, path)
    assert finished.plan()["01_first"] == "is current"


def test_a_changed_module_makes_the_steps_that_import_it_run(finished, monkeypatch):
    real = batch.runs.code_fingerprint
    monkeypatch.setattr(batch.runs, "code_fingerprint", lambda modules: real(modules) + "changed")
    assert "fer_lib changed" in finished.plan()["01_first"]


def test_downstream_runs_only_when_upstream_makes_something_new(finished):
    code, out, _ = finished.main("--force", "--only", "1")
    assert code == 0 and "forced" in out
    assert finished.plan()["02_second"] == "is current"
    code, out, _ = finished.main("--set", "ratio=3")
    assert code == 0 and "input changed: value" in out
    executed = finished.output / "runs" / "demo" / "notebooks" / "02_second.ipynb"
    assert "value 3.0" in executed.read_text(encoding="utf-8")


def test_a_lost_artifact_is_made_again(finished):
    folder = next((finished.output / "runs" / "demo" / "value").iterdir())
    (folder / "artifact.json").unlink()
    plan = finished.plan()
    assert "output missing: artifact value" in plan["01_first"]
    assert "input changed: value" in plan["02_second"]


def test_the_profile_and_the_command_line_reach_the_notebook(project):
    (project.params / "small.yaml").write_text("ratio: 0.5\n", encoding="utf-8")
    assert project.main("--profile", "small")[0] == 0
    results = project.output / "results" / "small" / "first.json"
    assert json.loads(results.read_text())["ratio"] == 0.5
    assert project.main("--profile", "small", "--set", "ratio=2", "--only", "first")[0] == 0
    assert json.loads(results.read_text())["ratio"] == 2


@pytest.mark.parametrize(("arguments", "words"), [
    (["--set", "ration=1"], ["ration", "did you mean `ratio`?"]),
    (["--set", "ratio=much"], ["ratio must be float", "much"]),
    (["--set", "ratio=2e-4"], ["ratio must be float", "2.0e-4"]),
    (["--set", "ratio=-1"], ["ratio must be at least 0", "-1"]),
    (["--set", "ratio"], ["lacks a value"]),
    (["--profile", "dmo"], ["dmo", "demo"]),
    (["--only", "9"], ["no step `9`", "01_first"]),
    (["--from", "2", "--to", "1"], ["range of steps is empty"]),
    (["--engine", "ray"], ["ray engine", "--engine local"]),
    (["--jobs", "0"], ["--jobs must be at least 1"]),
    (["--publish", "--set", "ratio=2"], ["--publish", "ratio"]),
])
def test_bad_input_is_one_sentence_and_nothing_starts(project, arguments, words):
    code, out, err = project.main(*arguments)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and all(word in err for word in words), err
    assert not project.output.exists()


@pytest.mark.parametrize("arguments, words", [
    (["--set", "arms=[real_long,mixd]"], "'mixd' is unknown"), (["--set", "n_real=600"], "holds 360 images"),
    (["--sweep", "n_real=60,600"], "holds 360 images"), (["--set", "dataset=built_in"], "did you mean `built-in`"),
    (["--sweep", "data_root=a,b"], "data_root is set")])
@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "run"])
def test_a_plan_that_cannot_work_is_refused_before_anything_starts(arguments, words, dry, tmp_path, capsys):
    assert run_all.main([*arguments, *dry, "--output", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("last", "refused"), [("03", False), ("04", True)])
def test_measures_are_asked_of_the_chosen_steps_alone(last, refused, tmp_path, capsys):
    """As with the GANs of a profile alone, whose measures nobody takes then."""
    code = run_all.main(["--profile", "built_in", "--to", last, "--set", "compare_with_paper=false", "--dry-run",
                         "--output", str(tmp_path)])
    assert (code == 1 and "identity_fid needs" in capsys.readouterr().err) if refused else code == 0


def test_a_run_with_nothing_to_do_does_not_check_the_plan_again(finished, monkeypatch):
    asked = []
    monkeypatch.setattr(profiles, "check_together", asked.append)
    assert finished.main()[0] == 0 and not asked
    assert finished.main("--dry-run", "--set", "ratio=3")[0] == 0 and asked[0]["ratio"] == 3


def test_listing_what_there_is_does_not_load_torch():
    code = "import run_all, sys; run_all.main(['--list']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True).returncode == 0


def test_wrong_usage_is_code_2(project):
    with pytest.raises(SystemExit) as stop:
        project.main("--no-such-option")
    assert stop.value.code == 2


def test_a_folder_that_cannot_be_written_is_one_sentence(project):
    project.output.write_text("a file, where a folder is wanted", encoding="utf-8")
    code, _, err = project.main()
    assert code == 1 and err.count("\n") == 1 and "cannot be written" in err and "--output" in err


@pytest.mark.parametrize(("cell", "cause"), [
    ("1 / 0", "ZeroDivisionError: division by zero"),
    ("from fer_lib.errors import FerError\nraise FerError('No face: add one.')", "No face: add one."),
    ("import os\nos._exit(9)", "its Python process died"),
])
def test_a_failing_cell_is_named_and_the_notebook_kept(project, cell, cause):
    project.change("01_first", FIRST | {"## Make it": "print('before')\n" + cell})
    code, _, err = project.main()
    folder = project.output / "runs" / "demo" / "notebooks"
    assert code == 1 and err.count("\n") == 1
    assert all(part in err for part in ("01_first", '"Make it"', cause, "01_first.failed.ipynb")), err
    assert [path.name for path in folder.iterdir()] == ["01_first.failed.ipynb"]
    kept = nbformat.read(folder / "01_first.failed.ipynb", as_version=4)
    nbformat.validate(kept)
    assert cause in kept.metadata.fer_failed.cause and "This run failed" in kept.cells[0].source
    assert "never ran" in project.plan()["01_first"]


def test_what_a_kernel_that_does_not_start_wrote_is_told(project, monkeypatch, tmp_path):
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho 'Assertion failed: here' >&2\nexit 1\n", encoding="utf-8")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    code, _, err = project.main()
    assert code == 1 and err.count("\n") == 1 and "did not start" in err and "Assertion failed: here" in err


def test_what_a_kernel_writes_when_it_is_told_to_end_is_not_told(project):
    project.change("01_first", FIRST | {"## Make it": "import atexit, os, sys\nleft = os.dup(sys.__stderr__.fileno())\n"
                                        "atexit.register(os.write, left, b'Assertion failed')\n" + FIRST["## Make it"]})
    ended = subprocess.run(own_process(project), cwd=REPOSITORY, text=True, capture_output=True, timeout=120)
    assert ended.returncode == 0 and "Assertion" not in ended.stdout + ended.stderr, ended.stderr


def own_process(project):
    """The command that runs the project's notebooks in a process of its own."""
    call = ("import run_all, sys, pathlib; output, notebooks, params = map(pathlib.Path, sys.argv[1:]); "
            "sys.exit(run_all.main(['--output', str(output)], notebooks=notebooks, params=params))")
    return [sys.executable, "-c", call, project.output, project.notebooks, project.params]


def test_a_mended_notebook_removes_the_failed_copy_and_runs_on(project):
    project.change("02_second", SECOND | {"## Read it": "1 / 0"})
    assert project.main()[0] == 1
    project.change("02_second", SECOND)
    code, out, _ = project.main()
    assert code == 0 and "01_first             is current" in out
    folder = project.output / "runs" / "demo" / "notebooks"
    assert sorted(path.name for path in folder.iterdir()) == ["01_first.ipynb", "02_second.ipynb"]


def test_a_step_that_fails_after_it_was_current_is_not_current_any_more(finished):
    finished.change("01_first", FIRST | {"## Save": "ws.save_json({}, 'first')\n1 / 0"})
    assert finished.main()[0] == 1
    finished.change("01_first", FIRST)
    assert "never ran" in finished.plan()["01_first"]


def test_a_missing_input_names_the_notebook_that_makes_it(project):
    code, _, err = project.main("--only", "02")
    assert code == 1 and "value" in err and "run notebooks/" in err


def test_a_notebook_that_records_nothing_is_an_error(project):
    project.change("02_second", SECOND | {"## Save": "pass"})
    code, _, err = project.main()
    assert code == 1 and "finish()" in err


def test_publish_stores_outputs_and_nothing_else(project):
    path = project.notebooks / "02_second.ipynb"
    before = nbformat.read(path, as_version=4)
    assert project.main("--publish")[0] == 0
    after = nbformat.read(path, as_version=4)
    code = [cell for cell in after.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    assert code[-1].outputs[0].text == "value 1.0\n"
    for old, new in zip(before.cells, after.cells, strict=True):
        assert (new.source, new.metadata, new.id) == (old.source, old.metadata, old.id)
    assert set(project.plan().values()) == {"is current"}


def test_publish_renews_the_pictures_that_prose_has_attached(project):
    path = project.notebooks / "02_second.ipynb"
    notebook = nbformat.read(path, as_version=4)
    prose = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    prose.attachments = {name: {"image/png": "b2xk"} for name in ("drawn.png", "other.png")}
    nbformat.write(notebook, path)
    drawn = project.output / "figures" / "demo" / "drawn.png"
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"new")
    assert project.main("--publish")[0] == 0
    after = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert after.attachments == {"drawn.png": {"image/png": "bmV3"}, "other.png": {"image/png": "b2xk"}}


def test_publish_runs_a_notebook_with_new_code_but_refuses_one_with_new_prose(finished):
    finished.change("02_second", {"# Other prose": SECOND["# What is read?"]}
                    | {key: value for key, value in SECOND.items() if key != "# What is read?"})
    code, _, err = finished.main("--publish")
    assert code == 1 and "02_second" in err and "run it again" in err
    first = nbformat.read(finished.notebooks / "01_first.ipynb", as_version=4)
    assert all(cell.get("execution_count") is None for cell in first.cells)  # one differs: none is written


def test_list_shows_parameters_with_default_and_help(project):
    code, out, _ = project.main("--list", "--set", "ratio=2")
    assert code == 0 and "01_first: What is made?" in out
    assert "ratio: float = 2.0 (default 1.0)" in out and "generated / real" in out


def test_an_interrupted_run_says_so_and_can_go_on(project):
    project.change("02_second", SECOND | {"## Read it": "import time\ntime.sleep(60)"})
    # A test run in the background may have been told to ignore interrupts; this run must hear them.
    process = subprocess.Popen(own_process(project), cwd=REPOSITORY, text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    running = project.output / "runs" / "demo" / "notebooks" / "02_second.running.ipynb"
    deadline = time.monotonic() + 60
    while not running.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err.startswith("Interrupted") and err.count("\n") == 1, err
    assert "01_first             ran" in out and not running.exists()
    assert project.plan()["01_first"] == "is current"


TABLE = ("import pandas as pd\nmade = float((value.path / 'value.txt').read_text())\n"
         "ws.save_table(pd.DataFrame({'made': [made], 'text': [text]}), 'numbers')\nws.finish()")


def test_a_dry_run_tells_the_change_and_how_long_it_took(finished):
    assert re.search(r"would run, up to \d.*parameters changed: ratio 1.0 -> 2.0",
                     finished.plan("--set", "ratio=2")["01_first"])
    assert re.match(r"would run, about \d", finished.plan("--force")["01_first"])
    assert "up to" in finished.plan("--set", "ratio=2")["together"]
    (finished.output / "runs" / "demo" / "steps" / "seconds.json").unlink()
    assert finished.plan("--set", "ratio=2")["01_first"].startswith("would run, time unknown: ")


def test_the_changed_module_is_named(finished, monkeypatch):
    real = batch.runs.code_parts
    monkeypatch.setattr(batch.runs, "code_parts", lambda modules: real(modules) | {"fer_lib.new": "1"})
    monkeypatch.setattr(batch.runs, "code_fingerprint", lambda modules: "changed")
    assert "fer_lib changed: new" in finished.plan()["01_first"]


def test_the_closing_table_says_what_ran_and_what_it_wrote(finished):
    _, out, _ = finished.main("--set", "text=b")
    rows = {line.split()[0]: line.split() for line in out.split(" step ")[1].splitlines()[1:]}
    assert rows["01_first"] == ["01_first", "–", "cached", "value,", "first.json"]
    assert rows["02_second"][3] == "ran"


def test_the_closing_table_names_the_cell_that_failed(project):
    project.change("01_first", FIRST | {"## Make it": "1 / 0"})
    _, out, _ = project.main()
    assert re.search(r'01_first +[\d.]+ s +failed +at "Make it"', out) and "02_second" not in out


def test_python_users_get_the_same(finished):
    where = {"output": finished.output, "notebooks": finished.notebooks, "params": finished.params}
    assert [outcome.state for outcome in batch.run(**where)] == ["current", "current"]
    (planned,) = batch.plan(set={"text": "b"}, only=[2], **where)
    assert planned.step.name == "02_second" and [reason.renews for reason in planned.why] == [True]
    with pytest.raises(FerError, match="did you mean `ratio`"):
        batch.run(set={"rato": 2}, **where)
    with pytest.raises(FerError, match="ratio must be float"):
        batch.run(set={"ratio": "2"}, **where)


@pytest.fixture
def sweeping(project):
    """A project whose second notebook writes a table, and whose first has run."""
    project.change("02_second", SECOND | {"## Save": TABLE})
    assert project.main()[0] == 0
    return project


def test_a_sweep_joins_the_tables_and_leaves_the_profile_as_it_was(sweeping):
    results = sweeping.output / "results" / "demo"
    before = (results / "numbers.csv").read_bytes(), (results / "first.json").read_bytes()
    code, out, err = sweeping.main("--sweep", "ratio=2,3")
    assert code == 0 and "sweep_ratio_numbers.csv" in out, err
    joined = pd.read_csv(results / "sweep_ratio_numbers.csv")
    assert list(joined.columns) == ["ratio", "made", "text"]
    assert (joined["ratio"] == joined["made"]).all() and list(joined["made"]) == [2, 3]
    assert ((results / "numbers.csv").read_bytes(), (results / "first.json").read_bytes()) == before
    assert set(sweeping.plan().values()) == {"is current"}
    note = json.loads((results / "provenance.json").read_text())["sweep_ratio"]
    assert note["files"] == ["sweep_ratio_numbers.csv"] and note["values"] == [2.0, 3.0] and note["versions"]
    code, out, _ = sweeping.main("--sweep", "ratio=2,3")
    assert code == 0 and "nothing was repeated" in out


def test_the_gains_of_a_sweep_have_the_interval_to_be_trusted():
    main = {"seeds": 3, "gain_points": {"estimate": 6.0, "low": 2.0, "high": 11.0},
            "gain_points_anova": {"estimate": 6.0, "low": -1.0, "high": 13.0, "p": 0.08}}
    found = {"n_test": 60, "real_accuracy": {"estimate": 0.6}, "main_contrast": main}
    for seeds, low in ((3, -1.0), (8, 2.0)):
        tests = {"lab": found | {"main_contrast": main | {"seeds": seeds}}}
        assert sweep.gains({"headline_ratio": 5, "test_sets": tests})["low"].tolist() == [low]


def test_a_swept_value_does_not_hide_what_a_table_says_of_its_rows(sweeping):
    table = TABLE.replace("'text': [text]", "'text': [text, 'other']").replace("[made]", "[made, 0]")
    sweeping.change("02_second", SECOND | {"## Save": table})
    code, _, err = sweeping.main("--sweep", "text=b,c")
    assert code == 0, err
    joined = pd.read_csv(sweeping.output / "results" / "demo" / "sweep_text_numbers.csv")
    assert list(joined["swept_text"]) == ["b", "b", "c", "c"] and list(joined["text"]) == ["b", "other", "c", "other"]


def test_rows_without_generated_faces_do_not_contradict_a_swept_truncation():
    table = pd.DataFrame({"truncation": [1.0, 0.5], "n_generated": [0, 60]})
    assert list(sweep._with_values("truncation", [(0.5, table)])) == ["truncation", "n_generated"]
    assert "swept_truncation" in sweep._with_values("truncation", [(0.7, table)])


def test_a_sweep_runs_once_what_does_not_depend_on_it(sweeping):
    code, out, err = sweeping.main("--sweep", "text=b,c", "--set", "ratio=4")
    assert code == 0, err
    assert len(re.findall(r"01_first +ran in", out)) == 1 and len(re.findall(r"text=[bc] 02_second +ran in", out)) == 2
    joined = pd.read_csv(sweeping.output / "results" / "demo" / "sweep_text_numbers.csv")
    assert list(joined["text"]) == ["b", "c"] and set(joined["made"]) == {4}


def test_a_value_that_fails_is_named_and_those_before_are_kept(sweeping):
    sweeping.change("02_second", SECOND | {"## Save": "assert text != 'c'\n" + TABLE})
    code, _, err = sweeping.main("--sweep", "text=b,c")
    assert code == 1 and "text=c 02_second failed" in err and err.count("\n") == 1
    plan = sweeping.main("--sweep", "text=b,c", "--dry-run")[1]
    assert re.search(r"text=b 02_second +is current", plan) and re.search(r"text=c 02_second +would run", plan)


def test_a_sweep_without_the_step_that_makes_the_difference_is_refused(sweeping):
    assert sweeping.main("--sweep", "ratio=2,3")[0] == 0
    table = sweeping.output / "results" / "demo" / "sweep_ratio_numbers.csv"
    before = table.read_bytes()
    code, out, err = sweeping.main("--sweep", "ratio=2,3", "--only", "02")
    assert code == 1 and "what 01_first makes depends on it too" in err and "--from 01" in err and err.count("\n") == 1
    assert table.read_bytes() == before


def test_a_setting_of_steps_that_were_not_chosen_is_named(finished):
    _, out, _ = finished.main("--set", "ratio=7", "--only", "02")
    assert "ratio changes nothing in the chosen steps: it is a parameter of 01_first." in out
    assert "changes nothing" not in finished.main("--set", "text=b", "--only", "02")[1]


def test_the_plan_of_a_sweep_knows_what_the_profile_made_since(sweeping):
    assert sweeping.main("--sweep", "text=b,c")[0] == 0
    assert sweeping.main("--set", "ratio=7")[0] == 0
    plan = sweeping.main("--sweep", "text=b,c", "--set", "ratio=7", "--dry-run")[1]
    assert len(re.findall(r"text=[bc] 02_second +would run.*input changed", plan)) == 2


@pytest.mark.parametrize(("arguments", "words"), [
    (["--sweep", "rati=1,2"], ["rati", "did you mean `ratio`?"]),
    (["--sweep", "ratio=1,much"], ["ratio must be float", "much"]),
    (["--sweep", "ratio=1,1.0"], ["each of them once"]),
    (["--sweep", "ratio"], ["--sweep n_real=60,120"]),
    (["--sweep", "profile=a,b"], ["--sweep"]),
    (["--sweep", "text=b", "--only", "1"], ["none of the chosen steps depends", "02_second"]),
    (["--sweep", "ratio=1", "--publish"], ["--publish", "--sweep"]),
    (["--set", "ratio"], ["--set ratio=1.0"]),
])
def test_a_bad_sweep_is_one_sentence_and_nothing_starts(project, arguments, words):
    test_bad_input_is_one_sentence_and_nothing_starts(project, arguments, words)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_live_line_is_one_line_however_wide_the_terminal(project, width):
    step = batch.select(output=project.output, notebooks=project.notebooks, params=project.params).chosen[0]
    progress = notebooks.Progress()
    progress.enter("Train " * 20, 3, 10)
    progress.write("step 50 of 200, 61 images/s, 2.5 min left: loss 1\n")
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    console.print(run_all.live_line(batch.Outlook(step, [], seconds=10.0), progress, 30.0))
    (line,) = console.file.getvalue().splitlines()
    assert len(line) <= width and "01_first" in line and "2.5 min left" in line


def test_progress_is_the_share_of_cells_and_of_what_the_cell_counts():
    progress, shares = notebooks.Progress(), []
    for cell in range(4):
        progress.enter("Train", cell, 4)
        shares.append(progress.share())
        for n in (1, 5, 10):
            progress.write(f"epoch {n} of 10, loss 0.3\n")
            shares.append(progress.share())
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert progress.seconds_left() is None
    progress.write("cell 3 of 15 (26 s; about 2 min left)\n")
    assert 119 < progress.seconds_left() <= 120


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (12, "12 s"), (210, "3.5 min"), (7200, "2.0 h")])
def test_times_are_told_in_the_unit_that_people_use(seconds, text):
    assert run_all.duration(seconds) == text


def test_completion_offers_the_names_that_begin_so():
    assert "n_real=" in run_all.complete_setting("n_r") and "profile=" not in run_all.complete_setting("p")
