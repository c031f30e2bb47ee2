"""Checkpoints from which a run goes on exactly as if it had never stopped.

Accelerate keeps the weights (safetensors), optimizer, schedule and gradient scaler, and reads them back with
`weights_only=True`, so that no pickle can run code. `state.json` keeps the rest. The position in the data and all
random numbers follow from the step alone: see `loading` and `TrainingRun`. So neither the number of processes nor the
way in which they share a step's samples has to stay the same.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import AveragedModel

from ..atomic_files import replace_folder, write_text
from ..errors import UserError
from ..recipes.loading import resolve
from ..recipes.schema import Recipe


STATE_FILE = "state.json"
AVERAGE_FILE = "average.safetensors"
FOLDER = "checkpoints"
PARTIAL = "partial"

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


@dataclass
class RunState:
    """How far a run is and what it has measured so far.

    Attributes:
        samples_per_step: of all processes together.
        best_score: the metric's primary number of the evaluation at `best_step`.
        curve: `step`, mean `loss` since the point before, and `learning_rate` at the step.
        evaluations: `step` and all numbers of the metric.
    """

    samples_per_step: int
    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_score: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_evaluated(self) -> bool:
        """Whether the weights as they are now have been measured."""
        return bool(self.evaluations) and self.evaluations[-1]["step"] == self.step

    @property
    def evaluations_since_best(self) -> int:
        return sum(numbers["step"] > (self.best_step or 0) for numbers in self.evaluations)


def save_checkpoint(
    accelerator: Accelerator, recipe: Recipe, state: RunState, average: AveragedModel | None = None
) -> Path:
    """Write `output/checkpoints/step_NNNNNNNN` and delete all others.

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
            if other != complete:
                shutil.rmtree(other)
    return complete


def write_state(checkpoint: Path, recipe: Recipe, state: RunState) -> None:
    """Write, or replace at once, the part of a checkpoint that an evaluation adds to."""
    content = {"recipe": dataclasses.asdict(recipe), "state": dataclasses.asdict(state)}
    write_text(checkpoint / STATE_FILE, json.dumps(content))


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    found = sorted(folder for folder in (output / FOLDER).glob("step_*") if (folder / STATE_FILE).is_file())
    return found[-1] if found else None


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


def read_state(checkpoint: Path, recipe: Recipe, samples_per_step: int) -> RunState:
    """The state in a checkpoint, after checking that `recipe` would go on as the checkpoint's own recipe.

    Raises:
        UserError: the file is damaged, or a value that shapes the training has changed.
    """
    try:
        content = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        before, state = resolve(content["recipe"]), RunState(**content["state"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{checkpoint / STATE_FILE} is damaged: {error}") from error
    before, now = (_flat(dataclasses.asdict(each)) for each in (before, recipe))
    free = _FREE_TO_CHANGE + (_FREE_IN_PRODUCT if samples_per_step == state.samples_per_step else ())
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in free]
    if changed:
        differences = ", ".join(f"{key}={now.get(key)!r} (was {before.get(key)!r})" for key in changed)
        raise UserError(f"cannot resume {checkpoint} with another recipe: {differences}")
    if samples_per_step != state.samples_per_step:
        raise UserError(
            f"cannot resume {checkpoint} with {samples_per_step} samples a step (was {state.samples_per_step}): "
            "choose training.batch_size and training.gradient_accumulation for this number of processes"
        )
    return state


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """`flatten`, with the values as JSON gives them back."""
    return flatten(json.loads(json.dumps(tree)))


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


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
