"""Multi-scale deformable self-attention over the token pyramid (paper, section 3.3; Deformable DETR, equation 3)."""

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .kernel_choice import deformable_attention_backend, kernel_for, loaded_kernels, use_deformable_attention_kernel
from .spatial_pyramid import NUM_LEVELS, PyramidShape
from .watchers import is_plain


__all__ = [
    "MultiScaleDeformableSelfAttention",
    "deformable_attention",
    "deformable_attention_backend",
    "deformable_attention_torch",
    "use_deformable_attention_kernel",
]


class SampledLevels(NamedTuple):
    """Constants of the levels for each of a head's `levels * points` samples, one value a sample.

    One flat last dimension without further broadcasting is what keeps the element-wise work below fast on CPU.
    """

    width: torch.Tensor
    height: torch.Tensor
    first_token: torch.Tensor

    @classmethod
    def build(cls, shape: PyramidShape, num_points: int, device: torch.device) -> "SampledLevels":
        (fine, middle, _), levels = shape.level_lengths, shape.levels
        constants = [[size[1] for size in levels], [size[0] for size in levels], [0, fine, fine + middle]]
        table = torch.tensor(constants, dtype=torch.int32, device=device)
        return cls(*table.repeat_interleave(num_points, dim=1).unbind(0))


def cell_centres(shape: PyramidShape, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre of each token's own cell, as a fraction of the image's width and height: x, y (num_tokens, 1, 1)."""
    x, y = [], []
    for height, width in shape.levels:
        rows = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
        columns = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
        x.append(columns.repeat(height))
        y.append(rows.repeat_interleave(width))
    return torch.cat(x)[:, None, None], torch.cat(y)[:, None, None]


def bilinear_neighbours(
    offsets: torch.Tensor, centres: torch.Tensor, size: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """The two pixels round each sampled location along one axis, and their weights.

    Args:
        offsets: (batch, num_tokens, heads, samples), in pixels of the sampled level.
        centres: (num_tokens, 1, 1), from 0 to 1.
        size: (samples,), pixels of the sampled level along this axis.

    Returns:
        Indices of the lower and the upper pixel, int32 and always inside the level; their weights, 0 outside it.
    """
    size = size.to(offsets.dtype)
    # Pixel 0 is the first cell's centre, hence the -0.5. Beyond one pixel outside all weights are zero: clamping there
    # keeps huge and infinite offsets inside the integers. NaN stays in the weights alone.
    locations = torch.clamp(offsets + (centres * size - 0.5), min=-torch.ones_like(size), max=size)
    low = locations.detach().floor().nan_to_num()
    high, high_weight = low + 1, locations - low
    first, last = torch.zeros_like(size), size - 1
    low_inside, high_inside = torch.clamp(low, first, last), torch.clamp(high, first, last)
    weights = (1 - high_weight) * (low_inside == low), high_weight * (high_inside == high)
    return (low_inside.int(), high_inside.int()), weights


def deformable_attention_torch(
    value: torch.Tensor, offsets: torch.Tensor, logits: torch.Tensor, shape: PyramidShape, num_heads: int
) -> torch.Tensor:
    """Deformable self-attention over the pyramid as one weighted gather of rows.

    Bilinear sampling times attention is a weighted sum of 4 * levels * points rows of the value table, which is what
    `embedding_bag` computes without ever writing the sampled values to memory. Arithmetic is in float32, or float64.

    Args:
        value: (batch, num_tokens, heads * head_dim).
        offsets: (batch, num_tokens, heads * levels * points * 2), (x, y) in pixels of the sampled level.
        logits: (batch, num_tokens, heads * levels * points), before the softmax.

    Returns:
        (batch, num_tokens, heads * head_dim) in the dtype of `value`. Samples outside a level count as zero.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    # (batch, num_tokens, heads * samples) -> (batch, num_tokens, heads, samples)
    attention = logits.to(dtype).unflatten(-1, (num_heads, -1)).softmax(-1)
    x_offsets, y_offsets = offsets.to(dtype).view(*attention.shape, 2).unbind(-1)
    levels = SampledLevels.build(shape, attention.shape[-1] // NUM_LEVELS, value.device)
    x_centres, y_centres = cell_centres(shape, dtype, value.device)
    columns, column_weights = bilinear_neighbours(x_offsets, x_centres, levels.width)
    lines, line_weights = bilinear_neighbours(y_offsets, y_centres, levels.height)
    table_rows = corner_rows(columns, lines, levels, shape.num_tokens)
    weighted_lines = [attention * weight for weight in line_weights]
    weights = torch.cat([line * column for line in weighted_lines for column in column_weights], dim=-1)
    output = F.embedding_bag(
        table_rows.flatten(0, 2),
        # (batch, num_tokens, heads * head_dim) -> (batch * num_tokens * heads, head_dim)
        value.to(dtype).unflatten(-1, (num_heads, -1)).flatten(0, 2),
        per_sample_weights=weights.flatten(0, 2),
        mode="sum",
    )
    # (batch * num_tokens * heads, head_dim) -> (batch, num_tokens, heads * head_dim)
    return output.view(value.shape).to(value.dtype)


def corner_rows(
    columns: tuple[torch.Tensor, torch.Tensor],
    lines: tuple[torch.Tensor, torch.Tensor],
    levels: SampledLevels,
    num_tokens: int,
) -> torch.Tensor:
    """Rows of the value table (batch * num_tokens * heads, head_dim) at the four corners of each sample.

    Args:
        columns, lines: pixel indices (batch, num_tokens, heads, samples), left and right, upper and lower.

    Returns:
        (batch, num_tokens, heads, 4 * samples), int32.
    """
    batch, _, num_heads, _ = columns[0].shape
    index: dict[str, Any] = {"dtype": torch.int32, "device": columns[0].device}
    image = torch.arange(batch, **index).view(-1, 1, 1, 1) * (num_tokens * num_heads)
    first_row = image + torch.arange(num_heads, **index)[:, None] + levels.first_token * num_heads
    rows = [line * (levels.width * num_heads) + first_row for line in lines]
    row_columns = [column * num_heads for column in columns]
    return torch.cat([row + column for row in rows for column in row_columns], dim=-1)


def deformable_attention(
    value: torch.Tensor, projection: torch.Tensor, shape: PyramidShape, num_heads: int, num_points: int
) -> torch.Tensor:
    """Deformable self-attention by the fastest implementation for the device and dtype of `value`.

    Args:
        value: (batch, num_tokens, heads * head_dim).
        projection: (batch, num_tokens, heads * levels * points * 3), the offsets and then the logits of
            `deformable_attention_torch`.

    Returns:
        (batch, num_tokens, heads * head_dim) in the dtype of `value`.
    """
    kernel = kernel_for(value.device, value.dtype)
    if kernel is None:
        num_samples = num_heads * NUM_LEVELS * num_points
        offsets, logits = projection.split([2 * num_samples, num_samples], dim=-1)
        return deformable_attention_torch(value, offsets, logits, shape, num_heads)
    level_sizes = [size for level in shape.levels for size in level]
    return kernel.comer_msda(value, projection, level_sizes, num_heads, num_points)


def is_plain_linear(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and layer.bias is not None and is_plain(layer)


class MultiScaleDeformableSelfAttention(nn.Module):
    """Every token of the pyramid attends to a few sampled points on all three levels.

    Args:
        hidden_size: channels in and out.
        num_heads: attention heads.
        num_points: sampled points for each head and level.
        value_ratio: channels of the values, as a fraction of `hidden_size` (`deform_ratio` of the config).
    """

    def __init__(self, hidden_size: int, num_heads: int, num_points: int, value_ratio: float) -> None:
        super().__init__()
        value_size = int(hidden_size * value_ratio)
        if value_size % num_heads:
            raise ValueError(
                f"The value size {value_size} (hidden size {hidden_size} * deform_ratio {value_ratio}) must be a "
                f"multiple of deform_num_heads, got {num_heads}."
            )
        loaded_kernels()
        self.num_heads, self.num_points = num_heads, num_points
        num_samples = num_heads * NUM_LEVELS * num_points
        self.sampling_offsets = nn.Linear(hidden_size, 2 * num_samples)
        self.attention_weights = nn.Linear(hidden_size, num_samples)
        self.value_proj = nn.Linear(hidden_size, value_size)
        self.output_proj = nn.Linear(value_size, hidden_size)

    def initial_offsets(self) -> torch.Tensor:
        """Bias of `sampling_offsets` at the start: point k of a head lies k + 1 pixels out, one direction a head."""
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2.0 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = directions[:, None, None] * distances[:, None]
        # (heads, 1, points, 2) -> (heads, levels, points, 2) -> flat
        return offsets.expand(-1, NUM_LEVELS, -1, -1).flatten()

    def forward(self, query: torch.Tensor, value: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        """`query` and `value` (batch, num_tokens, hidden_size) -> (batch, num_tokens, hidden_size)."""
        projection = self.sampling_projection(query)
        attended = deformable_attention(self.value_proj(value), projection, shape, self.num_heads, self.num_points)
        return self.output_proj(attended)

    def sampling_projection(self, query: torch.Tensor) -> torch.Tensor:
        """Offsets and logits: (batch, num_tokens, hidden_size) -> (batch, num_tokens, heads * levels * points * 3)."""
        layers = self.sampling_offsets, self.attention_weights
        if torch.compiler.is_compiling() or not all(is_plain_linear(layer) for layer in layers):
            return torch.cat([layer(query) for layer in layers], dim=-1)
        # One multiplication: two as narrow as these take a quarter longer, and then a copy.
        weight = torch.cat([layer.weight for layer in layers])
        return F.linear(query, weight, torch.cat([layer.bias for layer in layers]))
