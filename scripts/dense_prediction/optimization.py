"""AdamW with a learning rate for each depth of the trunk, no weight decay where it does harm, and the schedule."""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from .errors import UserError
from .recipes import OptimizationRecipe


_TRUNK = re.compile(r"(^|\.)trunk\.")
_TRUNK_BLOCK = re.compile(r"(?:^|\.)trunk\.(?:layers|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"pos_embed|position_embed|level_embed|cls_token|reg_token|mask_token|relative_position_bias")
_SCHEDULES = {"poly": "polynomial", "cosine": "cosine", "constant": "constant_with_warmup"}
_SCHEDULE_ARGUMENTS = {"poly": {"power": 1.0, "lr_end": 0.0}}


def build_optimizer(model: nn.Module, recipe: OptimizationRecipe) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`.

    Raises:
        UserError: the recipe treats the trunk apart, but the backbone has none.
    """
    return torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.learning_rate)


def build_scheduler(optimizer: torch.optim.Optimizer, recipe: OptimizationRecipe, steps: int) -> LRScheduler:
    """Linear warm-up, then the recipe's schedule down to 0 at `steps`; every group keeps its share of the rate."""
    return get_scheduler(
        _SCHEDULES[recipe.schedule],
        optimizer,
        num_warmup_steps=recipe.warmup_steps,
        num_training_steps=steps,
        scheduler_specific_kwargs=_SCHEDULE_ARGUMENTS.get(recipe.schedule),
    )


def parameter_groups(model: nn.Module, recipe: OptimizationRecipe) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by learning rate and weight decay; the highest learning rate comes first."""
    undecayed = _undecayed_names(model)
    num_blocks = _count_trunk_blocks(model)
    if num_blocks == 0 and (recipe.trunk_lr_multiplier, recipe.layer_decay) != (1.0, 1.0):
        raise UserError(
            "optimization.trunk_lr_multiplier and layer_decay need a backbone with a ViT trunk; leave both at 1.0"
        )
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = recipe.learning_rate * _rate_multiplier(name, num_blocks, recipe)
            groups[rate, 0.0 if name in undecayed else recipe.weight_decay].append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]


def _rate_multiplier(name: str, num_blocks: int, recipe: OptimizationRecipe) -> float:
    """1 outside the trunk; in it `layer_decay` to the power of 1 for the last block, 2 for the one before, ..."""
    if not _TRUNK.search(name):
        return 1.0
    block = _TRUNK_BLOCK.search(name)
    depth = num_blocks - int(block[1]) if block else num_blocks + 1
    return recipe.trunk_lr_multiplier * recipe.layer_decay**depth


def _count_trunk_blocks(model: nn.Module) -> int:
    matches = (_TRUNK_BLOCK.search(name) for name, _ in model.named_parameters())
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _undecayed_names(model: nn.Module) -> set[str]:
    """Vectors and scalars (biases, norms, gammas), `nn.Embedding`s, and tokens and position or level embeddings."""
    embeddings = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    return embeddings | {
        name for name, parameter in model.named_parameters() if parameter.ndim <= 1 or _EMBEDDING.search(name)
    }
