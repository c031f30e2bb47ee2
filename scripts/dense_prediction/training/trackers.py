"""Experiment trackers: TensorBoard, trackio and whatever else Accelerate knows."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from ..errors import UserError
from ..options import flatten
from ..recipes.schema import Recipe


PROJECT = "vit-comer"


def check_trackers(names: list[str]) -> None:
    """Refuse trackers that Accelerate does not know or that are not installed, which it would silently leave out.

    Raises:
        UserError: for these.
    """
    available = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"training.trackers: there is no {name!r}; there are {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in available:
            raise UserError(f"training.trackers: {name} is not installed; pip install {name}")


def start_trackers(accelerator: Accelerator, recipe: Recipe, step: int) -> None:
    """Open the accelerator's trackers for a run that is at `step`, and log its recipe."""
    plain = (bool, int, float, str)
    config = {
        key: value if isinstance(value, plain) else str(value)
        for key, value in flatten(dataclasses.asdict(recipe)).items()
    }
    settings = {
        "tensorboard": {"purge_step": step + 1},  # points of a part that is done again
        "trackio": {"name": recipe.name, "resume": "allow"},
        "wandb": {"name": recipe.name},
    }
    accelerator.init_trackers(PROJECT, config, settings)


def flat_numbers(numbers: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """`prefix/name`, and `prefix/name/class` of nested ones; what could not be measured is left out."""
    flat: dict[str, float] = {}
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            flat |= flat_numbers(value, f"{prefix}/{name}")
        elif value is not None:
            flat[f"{prefix}/{name}"] = value
    return flat
