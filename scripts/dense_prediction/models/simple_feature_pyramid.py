"""The plain ViT as a baseline: ViTDet's simple feature pyramid (Li et al. 2022, arXiv 2203.16527), no interaction."""

from collections.abc import Iterable
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoBackbone, AutoConfig
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.vitdet.modeling_vitdet import VitDetLayerNorm
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from modeling_vit_comer import ViTCoMerConfig, ViTCoMerPreTrainedModel
from modeling_vit_comer.modeling_vit_comer import SIZE_MULTIPLE, crop_to_stride, pad_to_multiple
from modeling_vit_comer.spatial_pyramid import to_map
from modeling_vit_comer.trunk import NO_SPLIT_MODULES, Trunk, build_trunk

from ..batches.geometry import size_of


NORM_GROUPS = 32
STRIDES = {"stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}


class SimpleFeaturePyramid(nn.Module):
    """Maps at strides 4, 8, 16 and 32 from the trunk's last tokens alone: what the official code calls ViTBaseline.

    Args:
        trunk: of a ViTCoMerConfig; `backbone.trunk` shares a backbone's own, with its weights.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.levels = pyramid_levels(trunk.hidden_size)

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """(batch, channels, H, W) -> the four maps, (batch, hidden_size, ceil(H / stride), ceil(W / stride))."""
        return list(pyramid_maps(self.trunk, self.levels, pixel_values, STRIDES).values())


@strict
class SimpleFeaturePyramidConfig(ViTCoMerConfig):
    """The fields of the ViT-CoMer that is compared with this baseline, of which all that are no trunk's do nothing.

    So the same file describes both: `backbone.overrides.model_type=simple_feature_pyramid` makes it this one.
    """

    model_type = "simple_feature_pyramid"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if "stem" in self.out_features:
            raise ValueError(f"a simple feature pyramid has no stem, it has {', '.join(STRIDES)}.")


class SimpleFeaturePyramidBackbone(BackboneMixin, ViTCoMerPreTrainedModel):
    """The pyramid for the heads of transformers, each map with a layer norm as in ViTDet."""

    config: SimpleFeaturePyramidConfig
    base_model_prefix = "simple_feature_pyramid"
    _no_split_modules = [*NO_SPLIT_MODULES]

    def __init__(self, config: SimpleFeaturePyramidConfig) -> None:
        super().__init__(config)
        self.num_features = [config.hidden_size] * len(self.stage_names)
        self.trunk = build_trunk(config)
        self.levels = pyramid_levels(config.hidden_size)
        self.norm = nn.ModuleDict({name: VitDetLayerNorm(config.hidden_size) for name in STRIDES})
        self.post_init()
        self.train()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)

    def train(self, mode: bool = True) -> "SimpleFeaturePyramidBackbone":
        super().train(mode)
        if self.config.freeze_trunk:
            # Here, because `from_pretrained` makes new parameters after the constructor, and then calls `eval`.
            self.trunk.requires_grad_(False).eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.trunk.input_embeddings

    @can_return_tuple
    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """(batch, channels, H, W) -> `feature_maps`, as `SimpleFeaturePyramid` makes them, of `out_features`."""
        self.trunk.set_attn_implementation(self.config._attn_implementation)
        maps = pyramid_maps(self.trunk, self.levels, pixel_values, self.out_features)
        return BackboneOutput(feature_maps=tuple(self.norm[name](maps[name]) for name in self.out_features))


def pyramid_levels(size: int) -> nn.ModuleList:
    """From the trunk's map, at stride 16, to strides 4, 8, 16 and 32."""
    return nn.ModuleList(
        [
            nn.Sequential(upsampling(size), nn.GroupNorm(NORM_GROUPS, size), nn.GELU(), upsampling(size)),
            upsampling(size),
            nn.Identity(),
            nn.MaxPool2d(kernel_size=2, stride=2),
        ]
    )


def pyramid_maps(
    trunk: Trunk, levels: nn.ModuleList, pixel_values: torch.Tensor, names: Iterable[str]
) -> dict[str, torch.Tensor]:
    """The maps `names` of `STRIDES`, (batch, hidden_size, ceil(H / stride), ceil(W / stride))."""
    tokens, context = trunk(pad_to_multiple(pixel_values, SIZE_MULTIPLE))
    tokens, _ = trunk(tokens, context, 0, trunk.num_layers)
    # (batch, prefix + height * width, hidden_size) -> (batch, hidden_size, height, width)
    feature_map = to_map(tokens[:, trunk.num_prefix_tokens :], context.height, context.width)
    image_size, by_name = size_of(pixel_values), dict(zip(STRIDES, levels, strict=True))
    return {name: crop_to_stride(by_name[name](feature_map), image_size, STRIDES[name]) for name in names}


def upsampling(size: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(size, size, kernel_size=2, stride=2)


if SimpleFeaturePyramidConfig.model_type not in CONFIG_MAPPING:
    AutoConfig.register(SimpleFeaturePyramidConfig.model_type, SimpleFeaturePyramidConfig)
    AutoBackbone.register(SimpleFeaturePyramidConfig, SimpleFeaturePyramidBackbone)
