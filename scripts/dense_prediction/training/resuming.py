"""From which checkpoint a run goes on, and whether it would go on as the run that wrote it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..options import flatten
from ..recipes.loading import resolve
from ..recipes.schema import Recipe
from .checkpoints import last_checkpoint
from .run_state import STATE_FILE, RunState, read_state


_FREE_TO_CHANGE = (
    "output",
    "overwrite",
    "resume",
    "data.path",
    "data.workers",
    "training.checkpoint_every",
    "training.early_stopping",
    "training.gradient_checkpointing",
    "training.samples_per_step",
    "training.trackers",
)
_FREE_IN_PRODUCT = ("training.batch_size", "training.gradient_accumulation")
"""May change as long as a step still sees as many samples, `RunState.samples_per_step`."""


def find_checkpoint(recipe: Recipe) -> Path | None:
    """The checkpoint that `resume` asks for, or None for a fresh start.

    Raises:
        UserError: the folder is no checkpoint, or `output` holds a run that neither `resume` nor `overwrite` names.
    """
    last = last_checkpoint(Path(recipe.output))
    if recipe.resume == "auto":
        return last
    if recipe.resume is not None and not (Path(recipe.resume) / STATE_FILE).is_file():
        raise UserError(f"resume={recipe.resume} is no checkpoint of this script: it has no {STATE_FILE}")
    check_output(recipe, last)
    return None if recipe.resume is None else Path(recipe.resume)


def check_output(recipe: Recipe, last: Path | None) -> None:
    """Refuse an output folder in which two runs would get mixed up.

    Args:
        last: the newest checkpoint in it.

    Raises:
        UserError: it holds a run, `resume` names no checkpoint of it, and `overwrite` does not give it up.
    """
    checkpoint = None if recipe.resume is None else Path(recipe.resume)
    if last is None or recipe.overwrite or is_inside(checkpoint, Path(recipe.output)):
        return
    other = "" if checkpoint is None else f", and resume={checkpoint} is not in it"
    raise UserError(
        f"{recipe.output} holds a run ({last.name}){other}: continue it with resume=auto, replace it with "
        "overwrite=true, or choose another folder with output=..."
    )


def is_inside(checkpoint: Path | None, folder: Path) -> bool:
    """Whether a run goes on from something in a folder, and so with what else is there."""
    return checkpoint is not None and checkpoint.resolve().is_relative_to(folder.resolve())


def resumed_state(checkpoint: Path, recipe: Recipe, samples_per_step: int) -> RunState:
    """The state in a checkpoint, after checking that `recipe` would go on as the checkpoint's own recipe.

    Raises:
        UserError: the file is damaged, or a value that shapes the training has changed.
    """
    before, state = read_state(checkpoint)
    same_size = samples_per_step == state.samples_per_step
    if changed := changes(before, recipe, _FREE_TO_CHANGE + (_FREE_IN_PRODUCT if same_size else ())):
        raise UserError(f"cannot resume {checkpoint} with another recipe: {', '.join(changed)}")
    if not same_size:
        raise UserError(
            f"cannot resume {checkpoint} with {samples_per_step} samples a step (was {state.samples_per_step}): "
            "choose training.batch_size and training.gradient_accumulation for this number of processes"
        )
    return state


def changes(tree: dict[str, Any], recipe: Recipe, free: tuple[str, ...]) -> list[str]:
    """What a recipe says otherwise than the tree of another one, but for the keys that are free to change."""
    before, now = (_flat(dataclasses.asdict(each)) for each in (resolve(tree), recipe))
    differing = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in free]
    return [f"{key}={now.get(key)!r} (was {before.get(key)!r})" for key in differing]


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """`flatten`, with the values as JSON gives them back."""
    return flatten(json.loads(json.dumps(tree)))
