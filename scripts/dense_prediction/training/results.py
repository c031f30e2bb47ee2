"""`results.json`: what a run measured, with which recipe and on what."""

import dataclasses
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..atomic_files import write_text
from ..recipes.schema import Recipe
from .run_folder import RESULTS
from .run_state import RunState


LIBRARIES = ("torch", "torchvision", "transformers", "timm", "accelerate", "datasets", "numpy")


def write_results(
    recipe: Recipe,
    state: RunState,
    device: torch.device,
    *,
    metric: str,
    data: dict[str, Any],
    processes: int = 1,
    finished: bool = True,
) -> Path:
    """Write the file into the output folder and return its path.

    Args:
        data: what the splits hold, see `Experiment.data_record`.
        metric: key of the number that chose the best model.
        finished: whether the run has come to its end.
    """
    path = Path(recipe.output) / RESULTS
    best = {"step": state.best_step, "metric": metric, metric: state.best_score}
    content: dict[str, Any] = {"name": recipe.name, "task": recipe.task, "seed": recipe.seed, "finished": finished}
    content |= {"best": best, **dataclasses.asdict(state)}
    content |= {"device": device_name(device), "processes": processes}
    content["data"] = data
    content["versions"] = library_versions()
    content["recipe"] = dataclasses.asdict(recipe)
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def library_versions() -> dict[str, str]:
    """What a number depends on beside the code of this repository."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def device_name(device: torch.device) -> str:
    """For example `NVIDIA A100-SXM4-40GB`, or `cpu x86_64, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}, {torch.get_num_threads()} threads"
