"""The checkpoints of HF's Trainer: which one a run goes on from, and what `scripts/train.py` notes in its own."""

import json
import re
import shutil
from pathlib import Path

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from ...errors import UserError
from ...recipes.schema import Recipe
from ..checkpoints import is_whole, last_checkpoint
from ..resuming import check_output
from ..run_folder import clear_output
from ..run_state import RunState


SPEED = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")

_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-\d+")


def find_checkpoint(recipe: Recipe) -> Path | None:
    """The checkpoint that `resume` asks for, or None for a fresh start.

    Raises:
        UserError: the folder is no whole checkpoint, or `output` holds a run that neither `resume` nor `overwrite`
            names.
    """
    output = Path(recipe.output)
    last = _last_checkpoint(output)
    if recipe.resume == "auto":
        return None if last is None else _resumable(last)
    checkpoint = None if recipe.resume is None else _resumable(Path(recipe.resume))
    check_output(recipe, last or last_checkpoint(output))
    return checkpoint


def clear_run(output: Path) -> None:
    """Remove what earlier runs of both trainers left in the folder, among it all checkpoints."""
    clear_output(output)
    for folder in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(folder)


def run_state(state: TrainerState, samples_per_step: int, seconds: float) -> RunState:
    """What Trainer has noted of a run, as our results and checkpoints have it."""
    history = state.log_history
    return RunState(
        samples_per_step=samples_per_step,
        step=state.global_step,
        seconds=seconds,
        best_step=state.best_global_step,
        best_score=state.best_metric,
        curve=[{key: entry[key] for key in ("step", "loss", "learning_rate")} for entry in history if "loss" in entry],
        evaluations=[_evaluation(entry) for entry in history if "eval_runtime" in entry],
    )


def _evaluation(entry: dict[str, float]) -> dict[str, float]:
    """The step and the metric's numbers."""
    measured = {name: value for name, value in entry.items() if name.startswith("eval_") and name not in SPEED}
    return {"step": entry["step"]} | {name.removeprefix("eval_"): value for name, value in measured.items()}


def _last_checkpoint(output: Path) -> Path | None:
    """The newest whole checkpoint of Trainer; a warning names newer ones whose state a power cut has damaged."""
    for folder in map(Path, reversed(sort_checkpoints(str(output)))):
        if _NAME.fullmatch(folder.name) and _is_complete(folder) and is_whole(folder):
            return folder
    return None


def _resumable(checkpoint: Path) -> Path:
    if not _is_complete(checkpoint):
        raise UserError(f"resume={checkpoint} is no whole checkpoint of this script: see {TRAINER_STATE_NAME} in it")
    if not (checkpoint / "scheduler.pt").is_file():
        raise UserError(f"resume={checkpoint} has weights only: it was written with --save_only_model")
    return checkpoint


def _is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint's last file was written to its end."""
    try:
        return "global_step" in json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
