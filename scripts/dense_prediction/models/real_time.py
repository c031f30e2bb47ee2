"""RT-DETR and its successors: the padding is image to them, and they choose their queries among the maps' positions.

Of these a small image has few.
"""

import itertools
import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, RTDetrImageProcessor

from ..batches.geometry import Size
from ..errors import UserError
from .boxes import detection_head, of_padded_image


FIRST_STRIDE, PADDING = 8, 32


def prepare(model: PreTrainedModel) -> None:
    """Let a model say before each pass what would end in torch's `selected index k out of range`.

    And keep the gradients of its batch norms right: of a single picture, torch's on a CPU misreads a gradient in
    channels-last order whose first stride is not that of a whole picture, which flattened maps give it.
    """
    model.register_forward_pre_hook(_check_size, with_kwargs=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(_straighten)


def smallest_side(config: PreTrainedConfig) -> int:
    """Of square images that have a position for each query."""
    sides = itertools.count(PADDING, PADDING)
    return next(side for side in sides if count_positions(config, (side, side)) >= config.num_queries)


def count_positions(config: PreTrainedConfig, size: Size) -> int:
    """In all maps of an image of a height and width."""
    strides = [FIRST_STRIDE * 2**level for level in range(config.num_feature_levels)]
    return sum(math.prod(math.ceil(side / stride) for side in size) for stride in strides)


def _check_size(model: PreTrainedModel, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
    height, width = inputs["pixel_values"].shape[-2:]
    positions, queries = count_positions(model.config, (height, width)), model.config.num_queries
    if positions < queries:
        side = smallest_side(model.config)
        raise UserError(
            f"an image of {height} x {width} pixels, padding included, has {positions} positions for the head's "
            f"{queries} queries: make images larger, {side} x {side} is enough (transforms.crop_size or "
            f"shortest_edges), or set head.config.num_queries={positions}"
        )


def _straighten(norm: nn.Module, args: tuple[torch.Tensor, ...], maps: torch.Tensor) -> None:
    if len(maps) == 1 and maps.requires_grad:
        maps.register_hook(lambda gradient: gradient.clone(memory_format=torch.contiguous_format))


REAL_TIME = detection_head(RTDetrImageProcessor, of_padded_image) | {
    "prepare": prepare,
    "size_divisor": PADDING,  # they can take no other sizes
    "may_leave_out": True,  # the embedding of the noisy labels that they learn from beside their queries
    "smallest_side": smallest_side,
}
"""What they have in common."""
