"""The folder that a training wrote: the recipe that it learnt by, and where its best model is."""

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..options import Tree


RESULTS = "results.json"
RECIPE = "recipe.yaml"
"""Written before the first step, with the reason beside each value that was derived."""
CHECKPOINTS = "checkpoints"
"""Folder of what a run goes on from."""
BEST_MODEL = "best_model"

OF_ONE_START = ("resume", "overwrite")
"""What a recipe says of how a run was started; said again it might end a run that is there."""


def written_recipe(folder: Path) -> Tree:
    """What a run in a folder has written down of its recipe, with its name.

    Raises:
        UserError: the folder holds no run that has been measured.
    """
    path = folder / RESULTS
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        recipe = content["recipe"]
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is a folder without {RESULTS}, which a training writes at its first evaluation, and without "
            f"{RECIPE}: give a recipe, or the output folder of a run"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} says no recipe: give the one that the run was started with") from error
    return {key: value for key, value in recipe.items() if key not in OF_ONE_START}


def model_in(source: str | Path) -> str | Path:
    """The best model in the output folder of a run; what is no such folder stays as it is."""
    best = Path(source) / BEST_MODEL
    is_run = not (Path(source) / "config.json").exists() and (best / "config.json").is_file()
    return best if is_run else source
