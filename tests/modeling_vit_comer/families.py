"""A model of each family of trunks, tiny and of random weights, as its own library makes it; backbones on them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.trunk import Trunk
from tiny import tiny_config, wake_up


SIZES = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
"""Of timm's models in these tests; every architecture keeps all else."""

TIMM = {
    "augreg": ("vit_tiny_patch16_224", {}),
    "dinov2 with registers": ("vit_small_patch14_reg4_dinov2", {}),
    "clip, norm before the blocks": ("vit_base_patch16_clip_224", {}),
    "siglip, attention pooling": ("vit_base_patch16_siglip_224", {}),
    "deit 3, class token without position": ("deit3_small_patch16_224", {}),
    "deit, two class tokens": ("deit_tiny_distilled_patch16_224", {}),
    "norm after the branches": ("vit_base_patch16_rpn_224", {}),
    "parallel branches": ("vit_pwee_patch16_reg1_gap_256", {}),
    "aimv2, gated and no class token": ("aimv2_large_patch14_224", {}),
    "eva": ("eva_giant_patch14_224", {}),
    "eva 02": ("eva02_tiny_patch14_224", {}),
    "eva 02, norm after the branches": ("eva02_enormous_patch14_clip_224", {}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "dinov3, bias of qkv": ("vit_small_patch16_dinov3_qkvb", {}),
    "perception encoder": ("vit_pe_core_base_patch16_224", {}),
    "perception encoder, spatial": ("vit_pe_spatial_base_patch16_512", {}),
    "rotary": ("vit_small_patch16_rope_224", {}),
    "rotary, one a block": ("vit_small_patch16_rope_mixed_ape_224", {}),
    "beit": ("beit_base_patch16_224", {}),
    "beit, shared bias": (
        "beit_base_patch16_224",
        {"use_shared_rel_pos_bias": True, "use_abs_pos_emb": True, "init_values": None},
    ),
}

TRANSFORMERS = {
    "vit": {},
    "deit": {},
    "beit": {"use_relative_position_bias": True, "use_absolute_position_embeddings": True, "use_mask_token": True},
    "beit, shared bias": {"model_type": "beit", "use_shared_relative_position_bias": True},
    "dinov2": {"layerscale_value": 0.5},
    "dinov2, gated": {"model_type": "dinov2", "use_swiglu_ffn": True},
    "dinov2_with_registers": {},
    "dinov3_vit": {"num_register_tokens": 3, "layerscale_value": 0.5},
    "dinov3_vit, gated": {"model_type": "dinov3_vit", "use_gated_mlp": True, "key_bias": True},
}

REPRESENTATIVES = ["augreg", "dinov3", "rotary, one a block", "beit", "vit", "deit", "hf beit", "dinov2"]
REPRESENTATIVES += ["dinov2_with_registers", "dinov3_vit"]
"""One of each class of trunks, and of each way to give positions to blocks."""


class Family(NamedTuple):
    """A library's model of random weights, without its final norm, and the trunk_config that describes it."""

    trunk_config: dict[str, Any]
    model: nn.Module
    tokens: Callable[[torch.Tensor], torch.Tensor]


def randomize(model: nn.Module) -> nn.Module:
    """Weights of which every one has an effect."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()


def timm_family(name: str, **model_args: Any) -> Family:
    architecture, specific = TIMM[name]
    if not timm.is_model(architecture):
        pytest.skip(f"timm {timm.__version__} has no {architecture}")
    arguments = SIZES | specific | model_args
    model = randomize(timm.create_model(architecture, num_classes=0, **arguments))
    model.norm = nn.Identity()
    trunk_config = {"model_type": "timm_wrapper", "architecture": architecture, "model_args": arguments}
    return Family(trunk_config, model, model.forward_features)


def transformers_family(name: str, **fields: Any) -> Family:
    defaults = {"model_type": name, "image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 2}
    defaults |= {"num_attention_heads": 2, "intermediate_size": 64}
    trunk_config = defaults | TRANSFORMERS[name] | fields
    model = randomize(AutoModel.from_config(AutoConfig.for_model(**trunk_config)))
    for norm in ("layernorm", "norm"):
        if hasattr(model, norm):
            setattr(model, norm, nn.Identity())
    return Family(trunk_config, model, lambda images: model(images).last_hidden_state)


def family_of(name: str, **sizes: Any) -> Family:
    if name in TIMM:
        return timm_family(name, **sizes)
    return transformers_family(name.removeprefix("hf "), **sizes)


def images(height: int = 64, width: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def tokens_of(trunk: Trunk, pixel_values: torch.Tensor) -> torch.Tensor:
    tokens, context = trunk.embed(pixel_values)
    assert tokens.is_contiguous()
    assert tokens.shape[1] == trunk.num_prefix_tokens + context.height * context.width
    half = trunk.num_layers // 2
    return trunk.run(trunk.run(tokens, context, 0, half), context, half, trunk.num_layers)


def build(name: str = "augreg", **fields: Any) -> ViTCoMerBackbone:
    """A tiny model in which every part has an effect on the outputs, in eval mode."""
    torch.manual_seed(0)
    small = {"trunk_config": family_of(name).trunk_config, "depths": [1, 1], "layer_scale_init_value": 0.1}
    model = ViTCoMerBackbone(tiny_config(**small | fields))
    wake_up(model)
    return model.eval()


def maps(model: nn.Module) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return model(images(64, 96)).feature_maps


def loss_of(model: nn.Module) -> torch.Tensor:
    return sum(feature_map.square().mean() for feature_map in model(images(64, 96)).feature_maps)
