"""The one way to start Accelerate: what it would silently do otherwise than it was asked is refused."""

import os
from typing import Any

import torch
from accelerate import Accelerator

from ...errors import UserError


def start_accelerator(precision: str, **settings: Any) -> Accelerator:
    """Accelerate with a recipe's `training.mixed_precision`, on all processes that were started.

    Raises:
        UserError: this machine cannot do it.
    """
    try:
        accelerator = Accelerator(mixed_precision=precision, **settings)
    except ValueError as error:
        raise UserError(f"training.mixed_precision={precision} cannot be used here: {error}") from error
    check_machine(precision, accelerator.device, accelerator.num_processes)
    return accelerator


def check_machine(precision: str, device: torch.device, num_processes: int) -> None:
    """Refuse what Accelerate takes for less: fp16 on a CPU for float32, several processes for several runs.

    Raises:
        UserError: for these.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("training.mixed_precision=fp16 cannot be used here: it needs a GPU; choose bf16 or no")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != num_processes:
        raise UserError(
            f"{launched} processes were started, and each would run alone: set ACCELERATE_USE_CPU=true and use "
            "`accelerate launch --multi_gpu` on a CPU too"
        )
