"""`results.json`: what a run measured and on what, numbers only."""

import dataclasses
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .checkpointing import RunState
from .recipes import Recipe


LIBRARIES = ("torch", "torchvision", "transformers", "timm", "accelerate", "datasets", "numpy")


def write_results(recipe: Recipe, state: RunState, device: torch.device) -> Path:
    """Write the file into the output folder and return its path."""
    path = Path(recipe.output) / "results.json"
    content: dict[str, Any] = {"name": recipe.name, "seed": recipe.seed, **dataclasses.asdict(state)}
    content["device"] = device_name(device)
    content["versions"] = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def device_name(device: torch.device) -> str:
    """For example `NVIDIA A100-SXM4-40GB`, or `cpu x86_64, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}, {torch.get_num_threads()} threads"
