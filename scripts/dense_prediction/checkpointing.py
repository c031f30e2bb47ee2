"""Checkpoints from which a run goes on exactly as if it had never stopped.

Accelerate keeps the weights (safetensors), optimizer, schedule, gradient scaler and random states, and reads them back
with `weights_only=True`, so that no pickle can run code. `state.json` keeps the rest. The position in the data is the
step alone: see `loading`.
"""

import dataclasses
import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.other import load as load_without_code
from safetensors import SafetensorError

from .errors import UserError
from .recipes import Recipe


STATE_FILE = "state.json"
FOLDER = "checkpoints"
PARTIAL = "partial"

_FREE_TO_CHANGE = ("output", "overwrite", "resume", "data.path", "data.workers", "training.checkpoint_every")


@dataclass
class RunState:
    """How far a run is and what it has measured so far."""

    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_mean_iou: float = -1.0
    curve: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(accelerator: Accelerator, recipe: Recipe, state: RunState) -> Path:
    """Write `output/checkpoints/step_NNNNNNNN` and delete the older ones.

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
        content = {"recipe": dataclasses.asdict(recipe), "state": dataclasses.asdict(state)}
        (partial / STATE_FILE).write_text(json.dumps(content), encoding="utf-8")
        shutil.rmtree(complete, ignore_errors=True)
        partial.rename(complete)
        for older in _checkpoints(root)[:-1]:
            shutil.rmtree(older)
    return complete


def find_checkpoint(recipe: Recipe) -> Path | None:
    """The checkpoint that `resume` asks for, or None for a fresh start.

    Raises:
        UserError: the folder is no checkpoint, or `output` holds a run that neither `resume` nor `overwrite` names.
    """
    last = next(reversed(_checkpoints(Path(recipe.output) / FOLDER)), None)
    if recipe.resume == "auto":
        return last
    if recipe.resume is not None:
        if not (Path(recipe.resume) / STATE_FILE).is_file():
            raise UserError(f"resume={recipe.resume} is no checkpoint of this script: it has no {STATE_FILE}")
        return Path(recipe.resume)
    if last is not None and not recipe.overwrite:
        raise UserError(
            f"{recipe.output} holds a run ({last.name}): continue it with resume=auto, start it again with "
            "overwrite=true, or choose another folder with output=..."
        )
    return None


def read_state(checkpoint: Path, recipe: Recipe) -> RunState:
    """The state in a checkpoint, after checking that `recipe` would go on as the checkpoint's own recipe.

    Raises:
        UserError: the file is damaged, or a value that shapes the training has changed.
    """
    try:
        content = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        before, state = _flatten(content["recipe"]), RunState(**content["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{checkpoint / STATE_FILE} is damaged: {error}") from error
    now = _flatten(json.loads(json.dumps(dataclasses.asdict(recipe))))
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in _FREE_TO_CHANGE]
    if changed:
        differences = ", ".join(f"{key}={now.get(key)!r} (was {before.get(key)!r})" for key in changed)
        raise UserError(f"cannot resume {checkpoint} with another recipe: {differences}")
    return state


def restore(accelerator: Accelerator, checkpoint: Path) -> None:
    """Put the prepared model, optimizer, schedule and random generators back into the checkpoint's state.

    Raises:
        UserError: a file is missing, damaged or does not fit, or the random states could not be restored.
    """
    try:
        accelerator.load_state(str(checkpoint))
        saved = load_without_code(checkpoint / f"random_states_{accelerator.process_index}.pkl")
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, UnpicklingError) as error:
        raise UserError(f"cannot restore {checkpoint}: {' '.join(str(error).split())}") from error
    # Accelerate only logs a failure to restore the random states; the run would go on, but not exactly.
    same_torch = torch.equal(torch.get_rng_state(), saved["torch_manual_seed"])
    if not same_torch or random.getstate() != saved["random_state"]:
        raise UserError(f"the random states in {checkpoint} could not be restored with these library versions")


def _checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints, the oldest first."""
    return sorted(folder for folder in root.glob("step_*") if (folder / STATE_FILE).is_file())


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
