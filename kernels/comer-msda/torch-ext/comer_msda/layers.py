"""Layers for `kernels.kernelize`: they stand in for the forward of a layer of the same signature."""

from typing import Any

import torch
from torch import nn

from ._ops import ops


class MultiScaleDeformableAttention(nn.Module):
    """For the class of that name in transformers' Deformable DETR, RT-DETR, Grounding DINO and others."""

    has_backward = True
    can_torch_compile = True

    def forward(
        self,
        value: torch.Tensor,
        value_spatial_shapes: torch.Tensor,
        value_spatial_shapes_list: list[tuple],
        level_start_index: torch.Tensor,
        sampling_locations: torch.Tensor,
        attention_weights: torch.Tensor,
        im2col_step: int,
    ) -> torch.Tensor:
        """Shapes as in `comer_msda.multi_scale_deformable_attention`; the sizes are read from the list."""
        arithmetic = torch.promote_types(value.dtype, torch.float32)
        return ops.multi_scale_deformable_attention(
            value,
            sampling_locations.to(arithmetic),
            attention_weights.to(arithmetic),
            [size for level in value_spatial_shapes_list for size in level],
        )


class MultiScaleDeformableSelfAttention(nn.Module):
    """For the class of that name in ViT-CoMer, with its four linear layers."""

    has_backward = True
    can_torch_compile = True

    def forward(self, query: torch.Tensor, value: torch.Tensor, shape: Any) -> torch.Tensor:
        """`query` and `value` (batch, tokens, channels), `shape` with `levels`: ((height, width), ...)."""
        projection = torch.cat([self.sampling_offsets(query), self.attention_weights(query)], dim=-1)
        level_sizes = [size for level in shape.levels for size in level]
        attended = ops.comer_msda(self.value_proj(value), projection, level_sizes, self.num_heads, self.num_points)
        return self.output_proj(attended)
