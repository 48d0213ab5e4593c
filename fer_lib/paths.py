"""Where things are: the repository, and the folders that a run writes to."""

import os
from pathlib import Path

from fer_lib.errors import FerError

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = REPOSITORY / "notebooks"
PARAMS = REPOSITORY / "params"


def output_root():
    """Folder that holds runs/, results/ and figures/: FER_OUTPUT, or else the repository.

    A relative one starts at the repository, wherever the process runs: notebooks run in their own folder.
    """
    return (REPOSITORY / os.environ.get("FER_OUTPUT", "")).resolve()


def runs_folder(profile):
    """Prepared data, checkpoints, generated faces and executed notebooks of a profile (not committed)."""
    return output_root() / "runs" / profile


def results_folder(profile):
    """Small CSV and JSON files with the numbers that are claimed (committed)."""
    return output_root() / "results" / profile


def figures_folder(profile):
    """Figures of a profile (committed); each is written by exactly one notebook."""
    return output_root() / "figures" / profile


def files_below(folder):
    """Every file below a folder, sorted; links to folders are followed unless they lead back: list of Path.

    Raises FerError for a name that is not UTF-8, as no table can hold it.
    """
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        above = {os.path.realpath(place), *map(os.path.realpath, Path(place).parents)}
        folders[:] = [name for name in folders if os.path.realpath(Path(place) / name) not in above]
        found += [Path(place) / file for file in files]
    for path in found:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise FerError(f"The name of the file {ascii(path.name)} is not UTF-8: rename it.") from error
    return sorted(path for path in found if path.is_file())
