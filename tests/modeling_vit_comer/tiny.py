"""Small models that the tests share."""

from typing import Any

import torch
from torch import nn

from modeling_vit_comer import ViTCoMerConfig
from modeling_vit_comer.deformable_attention import MultiScaleDeformableSelfAttention


TRUNK_ARGS = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}


def tiny_trunk(**model_args: Any) -> dict[str, Any]:
    """A `trunk_config` of two blocks of 32 channels, for images of 64 x 64."""
    return {
        "model_type": "timm_wrapper",
        "architecture": "vit_tiny_patch16_224",
        "model_args": TRUNK_ARGS | model_args,
    }


def tiny_fields(**fields: Any) -> dict[str, Any]:
    """Fields of a `ViTCoMerConfig` that has every module of the architecture."""
    defaults = {
        "trunk_config": tiny_trunk(),
        "depths": [1, 0, 1, 0],
        "conv_stem_channels": 8,
        "num_extra_cti": 1,
        "deform_num_heads": 2,
        "deform_num_points": 2,
    }
    return defaults | fields


def tiny_config(**fields: Any) -> ViTCoMerConfig:
    return ViTCoMerConfig(**tiny_fields(**fields))


def wake_up(model: nn.Module) -> None:
    """Make the deformable attentions depend on their queries, which they do not at the start: their weights are 0."""
    for module in model.modules():
        if isinstance(module, MultiScaleDeformableSelfAttention):
            torch.nn.init.normal_(module.sampling_offsets.weight, std=0.1)
            torch.nn.init.normal_(module.attention_weights.weight, std=0.1)
