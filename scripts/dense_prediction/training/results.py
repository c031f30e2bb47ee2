"""`results.json`: what a run measured, with which recipe and on what."""

import dataclasses
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from modeling_vit_comer import __version__
from modeling_vit_comer.deformable_attention import deformable_attention_backend

from ..atomic_files import write_text
from ..command_line import command
from ..recipes.schema import Recipe
from .run_folder import RESULTS
from .run_state import RunState


CHECKOUT = Path(__file__).parents[3]
"""The repository, where this is no installed package."""

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
    content |= origin()
    content["recipe"] = dataclasses.asdict(recipe)
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def origin() -> dict[str, Any]:
    """What a number depends on beside the recipe: this project's code, the libraries, and how they were called.

    The `commit` is None where this is no checkout, and the `command` is where Python called the library.
    """
    return {
        "project": {"version": __version__} | checkout(),
        "versions": library_versions(),
        "deformable_attention": deformable_attention_backend(),
        "command": command(),
    }


def library_versions() -> dict[str, str]:
    """What a number depends on beside the code of this repository."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def checkout(folder: Path = CHECKOUT) -> dict[str, Any]:
    """The `commit` of a checkout, and whether files were `modified` since; None of an installed package."""
    nothing = {"commit": None, "modified": None}
    if not (folder / ".git").exists():
        return nothing
    try:
        # Both with one command: no tag has a name that is excluded by `*`.
        words = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        told = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # git is not installed
        return nothing
    return {"commit": told.removesuffix("-dirty"), "modified": told.endswith("-dirty")} if told else nothing


def device_name(device: torch.device) -> str:
    """For example `NVIDIA A100-SXM4-40GB`, or `cpu x86_64, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}, {torch.get_num_threads()} threads"
