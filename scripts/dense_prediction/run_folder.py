"""What a run writes into its output folder, beside its checkpoints."""

from pathlib import Path

from .checkpointing import FOLDER
from .replacing import discard_folder


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
    for name in (PICTURE, "results.json"):
        (output / name).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
