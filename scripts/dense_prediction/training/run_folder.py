"""What a run writes into its output folder, beside its checkpoints."""

import shutil
from pathlib import Path

from ..atomic_files import discard_folder
from .checkpoints import FOLDER


RESULTS = "results.json"
BEST_MODEL = "best_model"
LAST_MODEL = "last_model"
PICTURE = "predictions.png"
"""Of the best model."""
PICTURES = "predictions"
"""Folder with the picture of every evaluation."""
LOGS = "logs"
"""Folder for trackers that write files."""


def clear_output(output: Path) -> None:
    """Remove what an earlier run left in the folder, and nothing else."""
    for name in (FOLDER, BEST_MODEL, LAST_MODEL, PICTURES, LOGS):
        discard_folder(output / name)
    for name in (PICTURE, RESULTS):
        (output / name).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)


def carry_best(checkpoint: Path, output: Path) -> None:
    """Copy a run's best model so far and its picture, which are beside its checkpoints, into another folder."""
    folder = checkpoint.resolve().parent
    if folder.name != FOLDER:
        return
    if (folder.parent / BEST_MODEL).is_dir():
        shutil.copytree(folder.parent / BEST_MODEL, output / BEST_MODEL)
    if (folder.parent / PICTURE).is_file():
        shutil.copy(folder.parent / PICTURE, output / PICTURE)
