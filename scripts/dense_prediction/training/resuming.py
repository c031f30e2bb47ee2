"""From which checkpoint a run goes on, and whether it would go on as the run that wrote it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from ..errors import UserError
from ..options import flatten
from ..recipes.loading import resolve
from ..recipes.schema import Recipe
from .checkpoints import FOLDER, last_checkpoint, named_checkpoints
from .run_folder import (
    BEST_MODEL,
    LAST_MODEL,
    LOGS,
    MADE,
    RESULTS,
    TRAINER_CHECKPOINT,
    check_folder,
    made,
    says,
)
from .run_state import STATE_FILE, RunState, read_state


_FREE_TO_CHANGE = (
    "output",
    "overwrite",
    "resume",
    # What the messages about a bad sample advise, which may come late in a run.
    "data.bad_samples",
    "data.exif_orientation",
    "data.path",
    "data.workers",
    # And those about memory that is too small for an evaluation.
    "evaluation.stride",
    "evaluation.window",
    "training.checkpoint_every",
    "training.early_stopping",
    "training.gradient_checkpointing",
    "training.samples_per_step",
    "training.trackers",
    "transforms.evaluation_resize",
)
_FREE_IN_PRODUCT = ("training.batch_size", "training.gradient_accumulation")
"""May change as long as a step still sees as many samples, `RunState.samples_per_step`."""


def find_checkpoint(recipe: Recipe) -> Path | None:
    """The checkpoint that `resume` asks for, or None for a fresh start.

    Raises:
        UserError: the folder is no checkpoint, or `output` holds what is not a run's own, or a run that neither
            `resume` nor `overwrite` names.
    """
    output = Path(recipe.output)
    check_folder(output, own_names(recipe))
    last = last_checkpoint(output)
    if recipe.resume == "auto" and last is not None:
        return last
    if recipe.resume not in (None, "auto") and not (Path(recipe.resume) / STATE_FILE).is_file():
        raise UserError(f"resume={recipe.resume} is no checkpoint of this script: it has no {STATE_FILE}")
    check_output(recipe, last)
    return named_checkpoint(recipe)


def own_names(recipe: Recipe) -> tuple[str, ...]:
    """What a run of `scripts/train.py` makes in its output folder."""
    return (*MADE, LOGS) if recipe.training.trackers else MADE


def named_checkpoint(recipe: Recipe) -> Path | None:
    """The one that `resume` is the path of."""
    return None if recipe.resume in (None, "auto") else Path(recipe.resume)


def check_output(recipe: Recipe, last: Path | None) -> None:
    """Refuse an output folder in which two runs would get mixed up.

    Args:
        last: the newest checkpoint in it.

    Raises:
        UserError: it holds a run, `resume` names no checkpoint of it, and `overwrite` does not give it up.
    """
    output, checkpoint = Path(recipe.output), named_checkpoint(recipe)
    if recipe.overwrite or is_inside(checkpoint, output):
        return
    if last is not None:
        other = "" if checkpoint is None else f", and resume={checkpoint} is not in it"
        raise UserError(
            f"{output} holds a run ({last.name}){other}: continue it with resume=auto, replace it with "
            "overwrite=true, or choose another folder with output=..."
        )
    if kept := _kept(output, checkpoint is not None):
        raise UserError(
            f"{output} holds a run ({kept}) and no checkpoint that this script goes on from: replace it with "
            "overwrite=true, or choose another folder with output=..."
        )


def _kept(output: Path, is_carried: bool) -> str | None:
    """What a run has left in a folder that is worth keeping.

    Args:
        is_carried: the best model may have been copied from elsewhere, by a run that was killed right after that.
    """
    own = made(output) or set()
    results = [RESULTS, LAST_MODEL, "model.safetensors", *([] if is_carried else [BEST_MODEL])]
    found = [name for name in results if name in own and (output / name).exists()]
    found += [
        name
        for name in own
        if TRAINER_CHECKPOINT.fullmatch(name) and says(output / name / TRAINER_STATE_NAME, "global_step")
    ]
    found += [f"{FOLDER}/{folder.name}" for folder in named_checkpoints(output)]
    return found[0] if found else None


def is_inside(checkpoint: Path | None, folder: Path) -> bool:
    """Whether a run goes on from something in a folder, and so with what else is there."""
    return checkpoint is not None and checkpoint.resolve().is_relative_to(folder.resolve())


def resumed_state(checkpoint: Path, recipe: Recipe, samples_per_step: int) -> RunState:
    """The state in a checkpoint, after checking that `recipe` would go on as the checkpoint's own recipe.

    Raises:
        UserError: the file is damaged, or a value that shapes the training has changed.
    """
    tree, state = read_state(checkpoint)
    try:
        before = resolve(tree)
    except UserError as error:
        raise UserError(f"{checkpoint / STATE_FILE} is damaged: {error}") from error
    same_size = samples_per_step == state.samples_per_step
    if changed := changes(before, recipe, _FREE_TO_CHANGE + (_FREE_IN_PRODUCT if same_size else ())):
        raise UserError(f"cannot resume {checkpoint} with another recipe: {', '.join(changed)}")
    if not same_size:
        raise UserError(
            f"cannot resume {checkpoint} with {samples_per_step} samples a step (was {state.samples_per_step}): "
            "choose training.batch_size and training.gradient_accumulation for this number of processes"
        )
    state.is_one_batch |= before.training.gradient_accumulation == 1
    return state


def changes(before: Recipe, now: Recipe, free: tuple[str, ...]) -> list[str]:
    """What a recipe says otherwise than another one, but for the keys that are free to change."""
    old, new = (_flat(dataclasses.asdict(each)) for each in (before, now))
    differing = [key for key in sorted(old | new) if old.get(key) != new.get(key) and key not in free]
    return [f"{key}={new.get(key)!r} (was {old.get(key)!r})" for key in differing]


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """`flatten`, with the values as JSON gives them back."""
    return flatten(json.loads(json.dumps(tree)))
