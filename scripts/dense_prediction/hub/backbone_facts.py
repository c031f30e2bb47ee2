"""What a backbone's config says of its size and cost, measured without its weights (on torch's meta device)."""

import math
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig

from ..models.heads import known_head


SIZE = 512
"""Height and width of the image that the multiply-accumulates are counted for."""

COUNTED = (
    "gmacs: 1e9 multiply-accumulates of the convolutions, linear layers and attention matrices of one forward pass; "
    "sampling_gmacs: those of the deformable attention's weighted sums, four corners a sample, which come on top; "
    "activations, norms, softmax and resizing are not counted"
)

_SAMPLING = torch.ops.aten._embedding_bag_forward_only
"""The operator in which the torch formulation of the deformable attention sums what it samples."""

Facts = dict[str, Any]


def measure_backbone(config: ViTCoMerConfig) -> Facts:
    """Parameters, multiply-accumulates of one forward pass of one image, feature maps, and what the config says.

    The deformable attention is the torch formulation's, the only one for the meta device.
    """
    with torch.device("meta"):
        backbone = ViTCoMerBackbone(config).eval()
        image = torch.empty(1, config.num_channels, SIZE, SIZE)
    with FlopCounterMode(display=False, custom_mapping={_SAMPLING: _sampling_flops}) as counter, torch.no_grad():
        backbone(image)
    counted = dict(counter.get_flop_counts()["Global"])
    sampling = counted.pop(_SAMPLING, 0)
    return {
        "image": list(image.shape),
        "parameters": backbone.num_parameters(),
        "trunk_parameters": sum(parameter.numel() for parameter in backbone.trunk.parameters()),
        "gmacs": round(sum(counted.values()) / 2e9, 2),
        "sampling_gmacs": round(sampling / 2e9, 2),
        "strides": backbone.strides,
        "channels": dict(zip(backbone.out_features, backbone.channels, strict=True)),
    } | _config_facts(config)


def measure_model(model: PreTrainedModel) -> Facts:
    """Of a backbone or a head's model: its class and parameters, its backbone, and a limit of the head's own."""
    config, head = getattr(model.config, "backbone_config", model.config), known_head(model)
    facts = {
        "model": type(model).__name__,
        "parameters": model.num_parameters(),
        "backbone": measure_backbone(cast(ViTCoMerConfig, config)),
    }
    if head is None or head.smallest_side is None:
        return facts
    return facts | {"smallest_side": head.smallest_side(model.config)}


def _sampling_flops(table: torch.Size, rows: torch.Size, *_: Any, **__: Any) -> int:
    """Of a sum of `rows` of a table, each times its weight: a multiplication and an addition a number."""
    return 2 * math.prod(rows) * table[1]


def _config_facts(config: ViTCoMerConfig) -> Facts:
    windows = [size for size in config.window_sizes or [] if size]
    return {
        "trunk_blocks": sum(config.depths),
        "interaction_stages": len(config.depths),
        "extra_interactions": config.num_extra_cti,
        "windowed_blocks": len(windows),
        "window_sizes": sorted(set(windows)),
    }
