"""AdamW with a learning rate for each depth of the trunk, and no weight decay where it does harm."""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from modeling_vit_comer import ViTCoMerPreTrainedModel

from ..errors import UserError
from ..recipes.schema import OptimizationOptions


_EMBEDDING = re.compile(r"pos_embed|position_embed|level_embed|(cls|mask)_tokens?$")
"""Parameters of heads, and of backbones that are not ours, that are tables of positions, levels and tokens."""


def build_optimizer(model: nn.Module, options: OptimizationOptions) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`.

    Raises:
        UserError: the recipe treats the trunk apart, but the backbone has none.
    """
    return torch.optim.AdamW(parameter_groups(model, options), lr=options.learning_rate)


def parameter_groups(model: nn.Module, options: OptimizationOptions) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by learning rate and weight decay; the highest learning rate comes first."""
    undecayed = _undecayed_names(model)
    multipliers = _trunk_multipliers(model, options)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = options.learning_rate * multipliers.get(name, 1.0)
            groups[rate, 0.0 if name in undecayed else options.weight_decay].append(parameter)
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


def _trunk_multipliers(model: nn.Module, options: OptimizationOptions) -> dict[str, float]:
    """By name: in the trunk `layer_decay` to the power of 1 for the last block, 2 for the one before, ..."""
    prefix, backbone = _backbone_with_trunk(model)
    if backbone is None:
        if (options.trunk_lr_multiplier, options.layer_decay) != (1.0, 1.0):
            raise UserError(
                "optimization.trunk_lr_multiplier and layer_decay need a backbone with a ViT trunk; leave both at 1.0"
            )
        return {}
    matcher, num_layers = backbone.group_matcher(), backbone.trunk.num_layers
    multipliers = {}
    for name, _ in backbone.named_parameters():
        block = re.match(matcher["blocks"], name)
        if block or re.match(matcher["embeddings"], name):
            depth = num_layers - int(block[1]) if block else num_layers + 1
            multipliers[prefix + name] = options.trunk_lr_multiplier * options.layer_decay**depth
    return multipliers


def _backbone_with_trunk(model: nn.Module) -> tuple[str, ViTCoMerPreTrainedModel | None]:
    """The backbone of ours in a model, or that it is itself, and its path with the last dot; None if it has none."""
    for path, module in model.named_modules():
        if isinstance(module, ViTCoMerPreTrainedModel):
            return f"{path}." if path else "", module
    return "", None


def _undecayed_names(model: nn.Module) -> set[str]:
    """Vectors and scalars (biases, norms, gammas), `nn.Embedding`s, and tokens and position or level embeddings."""
    prefix, backbone = _backbone_with_trunk(model)
    names = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    names |= {prefix + name for name in backbone.no_weight_decay()} if backbone is not None else set()
    return names | {name for name, value in model.named_parameters() if value.ndim <= 1 or _EMBEDDING.search(name)}
