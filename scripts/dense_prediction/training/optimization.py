"""AdamW with a learning rate for each depth of the trunk, and no weight decay where it does harm."""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..recipes.schema import OptimizationOptions


_EMBEDDING = re.compile(
    r"pos_embed|position_embed|level_embed|(cls|reg|dist|mask|distillation|register)_tokens?$"
    r"|relative_position_bias|shared_bias\.table$|\.rope\."
)
"""Names of the parameters with two dimensions and more that are tables of positions, levels and tokens."""


def build_optimizer(model: nn.Module, recipe: OptimizationOptions) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`.

    Raises:
        UserError: the recipe treats the trunk apart, but the backbone has none.
    """
    return torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.learning_rate)


def parameter_groups(model: nn.Module, recipe: OptimizationOptions) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by learning rate and weight decay; the highest learning rate comes first."""
    undecayed = _undecayed_names(model)
    multipliers = _trunk_multipliers(model, recipe)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = recipe.learning_rate * multipliers.get(parameter, 1.0)
            groups[rate, 0.0 if name in undecayed else recipe.weight_decay].append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]


def describe_groups(groups: list[dict[str, Any]]) -> str:
    """One line a group, for a log: how many parameters have which peak learning rate and weight decay."""
    return "\n".join(
        f"learning rate {group.get('initial_lr', group['lr']):.2e}, weight decay {group['weight_decay']:g}: "
        f"{sum(parameter.numel() for parameter in group['params']) / 1e6:.2f} M parameters"
        for group in groups
    )


def _trunk_multipliers(model: nn.Module, recipe: OptimizationOptions) -> dict[nn.Parameter, float]:
    """In the trunk `layer_decay` to the power of 1 for the last block, 2 for the one before, ...; the embeddings last.

    From the trunk itself and not from names, which each library's ViT has its own of.
    """
    trunk = next((module for name, module in model.named_modules() if name.split(".")[-1] == "trunk"), None)
    if trunk is None:
        if (recipe.trunk_lr_multiplier, recipe.layer_decay) != (1.0, 1.0):
            raise UserError(
                "optimization.trunk_lr_multiplier and layer_decay need a backbone with a ViT trunk; leave both at 1.0"
            )
        return {}
    depths = dict.fromkeys(trunk.parameters(), len(trunk.layers) + 1)
    for index, layer in enumerate(trunk.layers):
        depths |= dict.fromkeys(layer.parameters(), len(trunk.layers) - index)
    return {parameter: recipe.trunk_lr_multiplier * recipe.layer_decay**depth for parameter, depth in depths.items()}


def _undecayed_names(model: nn.Module) -> set[str]:
    """Vectors and scalars (biases, norms, gammas), `nn.Embedding`s, and tokens and position or level embeddings."""
    embeddings = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    return embeddings | {
        name for name, parameter in model.named_parameters() if parameter.ndim <= 1 or _EMBEDDING.search(name)
    }
