"""Multi-scale deformable self-attention over the token pyramid (paper, section 3.3; Deformable DETR, equation 3)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .spatial_pyramid import NUM_LEVELS, PyramidShape


def sampling_origins(shape: PyramidShape, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Where each token looks before any offset: its own cell centre, in pixels (x, y) of each level.

    Returns:
        (num_tokens, 3, 2). Pixel 0 of a level is its first cell's centre, hence the -0.5.
    """
    centres = []
    for height, width in shape.levels:
        y = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
        centres.append(torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1))
    return torch.cat(centres)[:, None] * level_sizes(shape, dtype, device) - 0.5


def level_sizes(shape: PyramidShape, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(width, height) of each level: (3, 2)."""
    return torch.tensor([[width, height] for height, width in shape.levels], dtype=dtype, device=device)


def bilinear_corners(locations: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two pixels on each side of a location and their weights, for each axis by itself.

    Args:
        locations: (..., 3, points, 2), pixels of the level, any value.
        sizes: (3, 2), width and height of the levels, in the dtype of `locations`.

    Returns:
        Pixel indices (2, ..., 3, points, 2), int32 and inside the level; weights of the same shape, 0 outside it.
    """
    sizes = sizes[:, None]
    # Further out than one pixel everything is zero: clamping keeps huge and infinite offsets inside int32.
    locations = torch.clamp(locations, min=-torch.ones_like(sizes), max=sizes)
    low = locations.detach().floor()
    high_weight = locations - low
    low, limits = low.int(), sizes.int()
    pixels = torch.stack([low, low + 1])
    inside = (pixels >= 0) & (pixels < limits)
    weights = torch.stack([1 - high_weight, high_weight]) * inside
    return pixels.clamp(min=0).minimum(limits - 1), weights


def corner_rows(pixels: torch.Tensor, shape: PyramidShape, num_heads: int) -> torch.Tensor:
    """Row of each of the four corners in the value table (batch * num_tokens * heads, head_dim).

    Args:
        pixels: (2, batch, num_tokens, heads, 3, points, 2) from `bilinear_corners`.

    Returns:
        (batch, num_tokens, heads, 3, points, 4), int32.
    """
    batch, device = pixels.shape[1], pixels.device
    widths = torch.tensor([[width] for _, width in shape.levels], dtype=torch.int32, device=device)
    lengths = torch.tensor(shape.level_lengths, dtype=torch.int32, device=device)
    first_token = (lengths.cumsum(0, dtype=torch.int32) - lengths)[:, None]
    first_row = torch.arange(batch, dtype=torch.int32, device=device)[:, None] * (shape.num_tokens * num_heads)
    first_row = (first_row + torch.arange(num_heads, dtype=torch.int32, device=device)).view(batch, 1, num_heads, 1, 1)
    columns = pixels[..., 0] * num_heads
    rows = (pixels[..., 1] * widths + first_token) * num_heads + first_row
    return torch.stack([rows[i] + columns[j] for i in (0, 1) for j in (0, 1)], dim=-1)


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
    batch, num_tokens, channels = value.shape
    # (batch, tokens, heads * levels * points * 2) -> (batch, tokens, heads, levels, points, 2)
    offsets = offsets.to(dtype).unflatten(-1, (num_heads, NUM_LEVELS, -1, 2))
    attention = logits.to(dtype).unflatten(-1, (num_heads, -1)).softmax(-1).view(offsets.shape[:-1])
    origins = sampling_origins(shape, dtype, value.device)[:, None, :, None]
    pixels, weights = bilinear_corners(origins + offsets, level_sizes(shape, dtype, value.device))
    x, y = weights.unbind(-1)
    weights = torch.stack([attention * y[i] * x[j] for i in (0, 1) for j in (0, 1)], dim=-1)
    rows = corner_rows(pixels, shape, num_heads)
    output = F.embedding_bag(
        rows.view(batch * num_tokens * num_heads, -1),
        value.to(dtype).reshape(batch * num_tokens * num_heads, -1),
        per_sample_weights=weights.view(batch * num_tokens * num_heads, -1),
        mode="sum",
    )
    # (batch * tokens * heads, head_dim) -> (batch, tokens, heads * head_dim)
    return output.view(batch, num_tokens, channels).to(value.dtype)


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
        attended = deformable_attention_torch(
            self.value_proj(value), self.sampling_offsets(query), self.attention_weights(query), shape, self.num_heads
        )
        return self.output_proj(attended)
