"""How long a run is, and the learning rate over it."""

import math
from typing import cast

import torch
from torch.optim.lr_scheduler import LambdaLR

from ..errors import UserError
from ..recipes.schema import OptimizationOptions, Recipe, TrainingOptions
from .processes.step_size import samples_per_step


def training_steps(training: TrainingOptions, num_samples: int | None, num_processes: int) -> int:
    """Optimizer steps of a run: as many as the recipe says, or as few as show every sample `epochs` times.

    The stream of samples goes over the end of an epoch without a short batch; only the last step may go on, by less
    than one step, into the epoch after the last.

    Args:
        num_samples: of the training split, None where it is not known, as when it is streamed.

    Raises:
        UserError: the recipe counts epochs of a split of unknown length.
    """
    if training.steps is not None:
        return training.steps
    if num_samples is None:
        raise UserError("training.epochs needs training data of a known length: set training.steps=... instead")
    epochs = cast(int, training.epochs)  # one of the two is set
    return math.ceil(epochs * num_samples / samples_per_step(training, num_processes))


def build_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LambdaLR:
    """Linear warm-up, then the recipe's schedule until `steps`; every group keeps its share of the rate.

    Raises:
        UserError: the warm-up is as long as the run.
    """
    optimization = recipe.optimization
    if optimization.warmup_steps >= steps:
        raise UserError(f"optimization.warmup_steps={optimization.warmup_steps} must be below the run's {steps} steps")

    def share(step: int) -> float:
        return rate_share(optimization, step, steps)

    return LambdaLR(optimizer, share)


def rate_share(recipe: OptimizationOptions, step: int, steps: int) -> float:
    """The learning rate of a step, 0 the first, as a share of its peak."""
    warmup = recipe.warmup_steps
    if step < warmup:
        return recipe.warmup_start_factor + (1 - recipe.warmup_start_factor) * step / warmup
    progress = min(1.0, (step - warmup) / (steps - warmup))
    match recipe.schedule:
        case "poly":
            return 1 - progress
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        case "multi_step":
            # The nearest step: of 8/12 of 88716 steps exactly the first of epoch 9, whatever a float makes of 8/12.
            return recipe.milestone_factor ** sum(step >= round(share * steps) for share in recipe.milestones)
        case "constant":
            return 1.0
