"""The official initialisation of all that is not the trunk, and of the trunk's linear layers and norms."""

from torch import nn
from transformers import initialization as init
from transformers.models.vitdet.modeling_vitdet import VitDetLayerNorm

from .configuration_vit_comer import ViTCoMerConfig
from .deformable_attention import MultiScaleDeformableSelfAttention
from .interaction import CTIToViT
from .spatial_pyramid import PyramidBatchNorm, SpatialPyramid


def initialize(module: nn.Module, config: ViTCoMerConfig) -> None:
    """Give one module its first weights, unless a checkpoint has filled them."""
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        initialize_layer(module)
    elif isinstance(module, (nn.LayerNorm, VitDetLayerNorm, PyramidBatchNorm)):
        initialize_norm(module)
    elif isinstance(module, MultiScaleDeformableSelfAttention):
        initialize_deformable_attention(module)
    elif isinstance(module, CTIToViT):
        init.constant_(module.gamma, config.layer_scale_init_value)
    elif isinstance(module, SpatialPyramid):
        init.normal_(module.level_embed)


def initialize_layer(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    if isinstance(layer, nn.Linear):
        init.trunc_normal_(layer.weight, std=0.02)
    else:
        fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
        init.normal_(layer.weight, std=(2.0 / fan_out) ** 0.5)
    if layer.bias is not None:
        init.zeros_(layer.bias)


def initialize_norm(norm: nn.LayerNorm | VitDetLayerNorm | PyramidBatchNorm) -> None:
    init.ones_(norm.weight)
    if norm.bias is not None:
        init.zeros_(norm.bias)
    if isinstance(norm, PyramidBatchNorm):
        init.zeros_(norm.get_buffer("running_mean"))
        init.ones_(norm.get_buffer("running_var"))
        init.zeros_(norm.get_buffer("num_batches_tracked"))


def initialize_deformable_attention(attention: MultiScaleDeformableSelfAttention) -> None:
    for projection in (attention.sampling_offsets, attention.attention_weights):
        init.zeros_(projection.weight)
    init.copy_(attention.sampling_offsets.bias, attention.initial_offsets())
    init.zeros_(attention.attention_weights.bias)
    for projection in (attention.value_proj, attention.output_proj):
        init.xavier_uniform_(projection.weight)
        init.zeros_(projection.bias)
