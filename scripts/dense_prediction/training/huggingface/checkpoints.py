"""The checkpoints of HF's Trainer: which one a run goes on from, and what `scripts/train.py` notes in its own."""

import json
from pathlib import Path
from typing import cast

from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import sort_checkpoints

from ...atomic_files import discard_folder
from ...errors import UserError
from ...recipes.schema import Recipe
from ..checkpoints import is_whole
from ..resuming import check_output, named_checkpoint
from ..run_folder import CARD, MADE_BY_TRAINER, TRAINER_CHECKPOINT, check_folder, made
from ..run_state import RunState


SPEED = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def find_checkpoint(recipe: Recipe, pushes: bool = False) -> Path | None:
    """The checkpoint that `resume` asks for, or None for a fresh start.

    Args:
        pushes: a card is written too.

    Raises:
        UserError: the folder is no whole checkpoint, or `output` holds what is not a run's own, or a run that neither
            `resume` nor `overwrite` names.
    """
    output, named = Path(recipe.output), named_checkpoint(recipe)
    check_folder(output, own_names(pushes))
    last = _last_checkpoint(output)
    if recipe.resume == "auto" and last is not None:
        return _resumable(last)
    checkpoint = None if named is None else _resumable(named)
    check_output(recipe, last)
    return checkpoint


def own_names(pushes: bool) -> tuple[str, ...]:
    """What a run of Trainer makes in its output folder, beside its checkpoints."""
    return (*MADE_BY_TRAINER, CARD) if pushes else MADE_BY_TRAINER


def check_checkpoints(arguments: TrainingArguments) -> None:
    """Refuse folders of others that have the name of a checkpoint that the run is going to write.

    Raises:
        UserError: there is one.
    """
    output = Path(cast(str, arguments.output_dir))
    own = made(output) or ()
    for folder in map(Path, sort_checkpoints(str(output))):
        if folder.name in own or not TRAINER_CHECKPOINT.fullmatch(folder.name):
            continue
        step = int(folder.name.rpartition("-")[2])
        # Shares of a run's length, below 1, are not resolved yet.
        at_times = any(step % max(int(every), 1) == 0 for every in (arguments.save_steps, arguments.eval_steps or 1))
        if step == arguments.max_steps or (step < arguments.max_steps and at_times):
            raise UserError(
                f"{folder} is not of a run, which would replace it: move it, or choose another folder with output=..."
            )


def own_checkpoints(output: Path, by_time: bool = False) -> list[Path]:
    """Those of Trainer that the manifest lists, the oldest first."""
    own = made(output) or ()
    found = map(Path, sort_checkpoints(str(output), use_mtime=by_time))
    return [folder for folder in found if folder.name in own and TRAINER_CHECKPOINT.fullmatch(folder.name)]


def remove_checkpoints(output: Path, most: int | None, kept: set[str]) -> None:
    """As Trainer does for `save_total_limit`, but folders that are not the run's own stay and do not count.

    Args:
        most: that are left; None for all.
        kept: names of some that have to stay.
    """
    found = own_checkpoints(output, by_time=True)
    others = [folder for folder in found if folder.name not in kept]
    surplus = 0 if not most else len(found) - max(most, len(kept))
    for folder in others[: max(surplus, 0)]:
        discard_folder(folder)


def run_state(state: TrainerState, begun: RunState, seconds: float) -> RunState:
    """What Trainer has noted of a run, as our results and checkpoints have it.

    Args:
        begun: as it was when the process started.
    """
    history = state.log_history
    return RunState(
        samples_per_step=begun.samples_per_step,
        is_one_batch=begun.is_one_batch,
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
    for folder in reversed(own_checkpoints(output)):
        if _is_complete(folder) and is_whole(folder):
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
