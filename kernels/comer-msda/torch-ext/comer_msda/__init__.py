"""Multi-scale deformable attention for CPU and CUDA: the fused self-attention of ViT-CoMer and the classic operator.

Arithmetic is in float32 whatever the dtype of the values (float64 for float64). A sample outside its level counts as
zero, so do infinite offsets, as long as the values are finite (else zero times infinity may be NaN); a NaN offset or
location makes its own query's head NaN and nothing else. Inputs need not be contiguous; wrong sizes, dtypes and
devices raise a RuntimeError. Gradients cannot be differentiated again. The backward pass is deterministic on CPU, and
on CUDA under `torch.use_deterministic_algorithms(True)`.
"""

from collections.abc import Sequence

import torch

from . import layers
from ._ops import ops
from .registration import has_cuda, register


register()

# The CUDA variant has the CPU code too.
DEVICE_TYPES = ("cpu", "cuda") if has_cuda() else ("cpu",)


def comer_msda(
    value: torch.Tensor, projection: torch.Tensor, level_sizes: Sequence[int], heads: int, points: int
) -> torch.Tensor:
    """Every token of a pyramid samples a few points on all levels round the centre of its own cell.

    Args:
        value: (batch, tokens, heads * head_dim), the levels one after the other; float32, float16, bfloat16, float64.
        projection: (batch, tokens, heads * levels * points * 3) in the dtype of `value`: all offsets first, as
            (heads, levels, points, xy) in pixels of the sampled level, then all attention logits, as
            (heads, levels * points); the softmax over a head's samples is part of the operator.
        level_sizes: height and width of each level, flat: h0, w0, h1, w1, ... At most 8 levels.
        heads: attention heads, a divisor of the channels of `value`.
        points: sampled points for each head and level; levels * points at most 256.

    Returns:
        (batch, tokens, heads * head_dim) in the dtype of `value`.
    """
    return ops.comer_msda(value, projection, level_sizes, heads, points)


def multi_scale_deformable_attention(
    value: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    level_sizes: Sequence[int],
) -> torch.Tensor:
    """The weighted sum of each query's samples (Deformable DETR, equation 3).

    Args:
        value: (batch, tokens, heads, head_dim), the levels one after the other; float32, float16, bfloat16, float64.
        sampling_locations: (batch, queries, heads, levels, points, 2), x and y from 0 to 1; float32, or float64 with a
            float64 `value`. Half precision would misplace the samples by pixels.
        attention_weights: (batch, queries, heads, levels, points), after the softmax; dtype as `sampling_locations`.
        level_sizes: height and width of each level, flat: h0, w0, h1, w1, ... At most 8 levels.

    Returns:
        (batch, queries, heads * head_dim) in the dtype of `value`.
    """
    return ops.multi_scale_deformable_attention(value, sampling_locations, attention_weights, level_sizes)


__all__ = ["DEVICE_TYPES", "comer_msda", "layers", "multi_scale_deformable_attention"]
