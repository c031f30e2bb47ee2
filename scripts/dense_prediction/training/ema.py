"""The exponential moving average of the weights, which is what a run with one evaluates and saves."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..recipes.schema import OptimizationOptions


def build_average(model: nn.Module, recipe: OptimizationOptions) -> AveragedModel | None:
    """A copy of `model` that follows it, or None where the recipe asks for none.

    `update_parameters(model)` after each optimizer step makes it follow, `module` is the averaged model, in evaluation
    mode. Its state is weights and the number of updates: `Accelerator.register_for_checkpointing` takes it.

    Args:
        model: the bare model, on its device; not the wrapper of several processes.
    """
    if recipe.ema_decay is None:
        return None
    decay, warmup = recipe.ema_decay, recipe.ema_warmup_steps

    def follow(averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], updates: torch.Tensor | int) -> None:
        weight = 1 - ema_decay(int(updates), decay, warmup)
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)  # counters, for example of a batch norm's batches

    # With the buffers: running statistics must belong to the averaged weights, not to the last ones.
    average = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    average.requires_grad_(False)
    average.eval()
    return average


def ema_decay(updates: int, decay: float, warmup_steps: int) -> float:
    """Share that the average keeps at an update: it grows to `decay`, so that the random start is soon forgotten."""
    if warmup_steps == 0:
        return decay
    return decay * (1 - math.exp(-updates / warmup_steps))
