"""Fixtures that several test modules share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """The folder ../shared/data beside the repository; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    return folder


def command_line(*arguments, timeout=1200, **environment):
    """Run this interpreter on the repository, as a user would; returns the CompletedProcess with texts."""
    changed = {"PYTHONPATH": str(REPOSITORY)} | {name: str(value) for name, value in environment.items()}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=REPOSITORY, timeout=timeout,
                          env={**os.environ, **changed}, capture_output=True, text=True)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """Output folder of one `run_all.py --profile smoke`, made once for all tests; do not write into it."""
    if not list((REPOSITORY / "notebooks").glob("*.ipynb")):
        pytest.skip("needs the notebooks")
    folder = tmp_path_factory.mktemp("smoke")
    run = command_line("run_all.py", "--profile", "smoke", "--output", folder)
    assert run.returncode == 0, f"the smoke profile failed:\n{run.stdout}\n{run.stderr}"
    return folder
