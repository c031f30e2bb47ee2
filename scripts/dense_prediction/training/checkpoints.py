"""Checkpoints from which a run goes on exactly as if it had never stopped.

Accelerate keeps the weights (safetensors), optimizer, schedule and gradient scaler, and reads them back with
`weights_only=True`, so that no pickle can run code. `state.json` keeps the rest. The position in the data and all
random numbers follow from the step alone: see `batches.streams` and `TrainingRun`. So neither the number of processes
nor the way in which they share a step's samples has to stay the same.
"""

import logging
import re
import shutil
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import AveragedModel

from ..atomic_files import discard_folder, replace_folder
from ..errors import UserError
from ..recipes.runs import CHECKPOINTS as FOLDER
from ..recipes.schema import Recipe
from .run_state import RunState, read_state, write_state


_logger = logging.getLogger(__name__)

AVERAGE_FILE = "average.safetensors"
PARTIAL = "partial"
OWN_NAME = re.compile(rf"{PARTIAL}|step_\d{{8,}}(\.(previous|discarded))?")
"""Of what a run makes among its checkpoints; whatever else is there stays."""

_COMPLETE = re.compile(r"step_\d{8,}")


def save_checkpoint(
    accelerator: Accelerator, recipe: Recipe, state: RunState, average: AveragedModel | None = None
) -> Path:
    """Write `output/checkpoints/step_NNNNNNNN` and delete all other checkpoints.

    The folder gets its name when it is complete: what a killed run leaves behind is never taken for a checkpoint.
    """
    root = Path(recipe.output) / FOLDER
    partial, complete = root / PARTIAL, root / f"step_{state.step:08d}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if average is not None:
            save_model(average, str(partial / AVERAGE_FILE))
        write_state(partial, recipe, state)
        replace_folder(partial, complete)
        for other in root.iterdir():
            if other != complete and OWN_NAME.fullmatch(other.name):
                discard_folder(other)
    return complete


def restore(accelerator: Accelerator, checkpoint: Path, average: AveragedModel | None = None) -> None:
    """Put the prepared model, optimizer, schedule, scaler and average back into the checkpoint's state.

    Raises:
        UserError: a file is missing, damaged or does not fit.
    """
    try:
        accelerator.load_state(str(checkpoint))
        if average is not None:
            load_model(average, checkpoint / AVERAGE_FILE)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, UnpicklingError) as error:
        raise UserError(f"cannot restore {checkpoint}: {' '.join(str(error).split())}") from error
    accelerator.step = 0  # counts the forward passes of a step, of which there may be another number now


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint of a run; a warning names newer ones whose state a power cut has damaged."""
    for folder in reversed(named_checkpoints(output)):
        if is_whole(folder):
            return folder
    return None


def named_checkpoints(output: Path) -> list[Path]:
    """All that were complete once, the oldest first: not what a kill leaves of one that was being replaced."""
    return sorted(folder for folder in (output / FOLDER).glob("step_*") if _COMPLETE.fullmatch(folder.name))


def is_whole(checkpoint: Path) -> bool:
    """Whether its state can be read; a warning says if not."""
    try:
        read_state(checkpoint)
    except UserError as error:
        _logger.warning("%s: the checkpoint is passed over", error)
        return False
    return True
