"""Laws of artifacts, records and sets of faces."""

import json

import numpy as np
import pandas as pd
import pytest

from fer_lib import engine, faces, paths, runs
from fer_lib.errors import FerError
from fer_lib.faces import Faces


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    return runs.open_workspace("test", step="01_data_prep")


def build(workspace, *, calls, params=None, inputs=()):
    def make(folder):
        calls.append(folder)
        (folder / "result.txt").write_text("done")
    return runs.build(workspace, "thing", params=params or {"a": 1}, inputs=list(inputs), code=["fer_lib.labels"],
                      make=make)


def test_finished_work_is_not_repeated(workspace):
    calls = []
    first, second = build(workspace, calls=calls), build(workspace, calls=calls)
    assert len(calls) == 1 and second.cached and not first.cached and first.path == second.path
    assert (first.path / "result.txt").read_text() == "done"


@pytest.mark.parametrize("change", [{"params": {"a": 2}}, {"inputs": ["other"]}])
def test_another_parameter_or_input_is_another_artifact(workspace, change):
    calls = []
    assert build(workspace, calls=calls).key != build(workspace, calls=calls, **change).key


def test_interrupted_work_leaves_nothing_under_a_final_name_and_is_resumed(workspace):
    def fail(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    options = dict(params={"a": 1}, inputs=[], code=["fer_lib.labels"])
    with pytest.raises(KeyboardInterrupt):
        runs.build(workspace, "thing", make=fail, **options)
    assert [path.name for path in (workspace.runs / "thing").iterdir() if not path.name.endswith(".partial")] == []
    whole = runs.build(workspace, "thing", make=lambda folder: None, **options)
    assert (whole.path / "half").read_text() == "half"


def test_a_missing_input_names_the_notebook_that_makes_it(workspace):
    with pytest.raises(FerError, match="notebooks/02_identity_gan.ipynb"):
        workspace.require("identity_gan")


def test_the_record_holds_what_was_read_and_written(workspace):
    thing = workspace.publish("faces", build(workspace, calls=[]))
    assert workspace.require("faces").path == thing.path
    workspace.save_table(pd.DataFrame({"x": [1]}), "table")
    workspace.finish(seeds={"data_seed": 3})
    record = json.loads((workspace.runs / "steps" / "01_data_prep.json").read_text())
    assert record["reads"] == {"faces": thing.key}
    assert set(record["writes"]) == {"runs/test/faces.json", "results/test/table.csv"}
    provenance = json.loads((workspace.results / "provenance.json").read_text())["01_data_prep"]
    assert provenance["files"] == ["table.csv"] and provenance["seeds"] == {"data_seed": 3}
    assert provenance["versions"]["torch"] and provenance["commit"]


def test_an_unwritable_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("a file where a folder should be")
    monkeypatch.setenv("FER_OUTPUT", str(tmp_path))
    with pytest.raises(FerError, match="cannot be written"):
        runs.open_workspace("test", step="01_data_prep")


def test_code_fingerprint_follows_imports_and_ignores_comments(tmp_path, monkeypatch):
    package = tmp_path / "fer_lib"
    package.mkdir()
    monkeypatch.setattr(runs.paths, "REPOSITORY", tmp_path)

    def write(**sources):
        for name, source in sources.items():
            (package / f"{name}.py").write_text(source)
        return runs.code_fingerprint(["fer_lib.top"])

    first = write(top="from fer_lib import below\n", below="x = 1\n", other="y = 1\n")
    assert write(below='"""Docs."""\n# why\nx = 1\n') == first
    assert write(other="y = 2\n") == first
    assert write(below="x = 2\n") != first


def make_faces(n=6, *, value=0):
    table = pd.DataFrame({"id": [f"{value}-{i}" for i in range(n)], "expression": ["anger", "neutral"] * (n // 2),
                          "subject": "", "domain": "lab"})
    return faces.Faces(np.full((n, 1, 4, 4), value, np.uint8), table, "rendered")


def test_saved_faces_come_back_the_same(tmp_path):
    one = make_faces()
    one.save(tmp_path / "faces")
    back = faces.Faces.load(tmp_path / "faces")
    assert back.fingerprint == one.fingerprint and back.origin == "rendered"
    assert (back.codes == one.codes).all() and set(back.subjects) == {""}


def test_a_fingerprint_follows_pixels_and_labels():
    one = make_faces()
    relabelled = faces.Faces(one.images, one.table.assign(expression="fear"), one.origin)
    assert len({one.fingerprint, make_faces(value=1).fingerprint, relabelled.fingerprint}) == 3


def test_joined_faces_keep_both_origins():
    one = make_faces()
    other = faces.Faces(one.images, one.table, "generated")
    both = faces.concatenate([one, other])
    assert both.origin == "rendered + generated" and len(both) == 12


def test_a_truncated_file_of_faces_is_named(tmp_path):
    make_faces().save(tmp_path)
    (tmp_path / "images.npy").write_bytes((tmp_path / "images.npy").read_bytes()[:100])
    with pytest.raises(FerError, match=str(tmp_path)):
        faces.Faces.load(tmp_path)


@pytest.mark.parametrize("images, expression", [(np.zeros((1, 4, 4), np.uint8), "anger"),
                                                (np.zeros((1, 1, 4, 4)), "anger"),
                                                (np.zeros((1, 1, 4, 4), np.uint8), "smug")])
def test_what_is_not_a_set_of_faces_is_refused(images, expression):
    table = pd.DataFrame({"id": ["0"], "expression": [expression], "subject": [""], "domain": [""]})
    with pytest.raises(FerError):
        faces.Faces(images, table, "real")


@pytest.mark.parametrize("jobs", [1, 2])
def test_parallel_work_returns_every_result_with_its_index(jobs):
    assert dict(engine.map(abs, [-3, 2, -1], jobs=jobs)) == {0: 3, 1: 2, 2: 1}


def test_an_unknown_device_is_refused():
    with pytest.raises(FerError, match="auto, cpu or cuda"):
        engine.device("tpu")


def test_half_a_note_of_seconds_does_not_stop_an_interrupted_artifact(workspace):
    def fail(folder):
        raise RuntimeError("stopped")

    def build(make):
        return runs.build(workspace, "thing", params={}, inputs=[], code=[], make=make)

    with pytest.raises(RuntimeError):
        build(fail)
    (note,) = (workspace.store / "thing").glob("*.partial/seconds")
    note.write_text("")
    assert build(lambda folder: None).seconds < 60


def test_what_was_withdrawn_is_missing(workspace):
    made = runs.build(workspace, "thing", params={}, inputs=[], code=[], make=lambda folder: None)
    workspace.publish("thing", made)
    assert workspace.require("thing").key == made.key
    workspace.withdraw("thing")
    with pytest.raises(FerError, match="thing of profile .* is missing"):
        workspace.require("thing")
    workspace.withdraw("thing")


@pytest.mark.parametrize("column, values", [("subject", [None, None]), ("subject", [1, 2]), ("id", [0, 1])])
def test_names_that_are_no_text_are_refused(column, values):
    table = pd.DataFrame({"id": ["a", "b"], "expression": "fear", "subject": "", "domain": ""})
    table[column] = values
    with pytest.raises(FerError, match=f"The column {column} of a table of faces holds text alone"):
        Faces(np.zeros((2, 1, 8, 8), np.uint8), table, "real")


def test_a_relative_output_is_the_same_folder_wherever_a_process_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_OUTPUT", "../mine")
    monkeypatch.chdir(tmp_path)
    assert paths.output_root() == paths.REPOSITORY.parent / "mine"
    monkeypatch.delenv("FER_OUTPUT")
    assert paths.output_root() == paths.REPOSITORY
