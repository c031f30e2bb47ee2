"""RT-DETR and its successors: the padding is image to them, and they choose their queries among the maps' positions.

Of these a small image has few.
"""

import itertools
import math
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, RTDetrImageProcessor

from ..batches.geometry import Size
from ..errors import UserError
from .boxes import count_boxes, detection_head, of_padded_image


FIRST_STRIDE, PADDING = 8, 32


def refuse_small_images(model: PreTrainedModel) -> None:
    """Let a model say before each pass what would end in torch's `selected index k out of range`."""
    model.register_forward_pre_hook(_check_size, with_kwargs=True)


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


REAL_TIME = detection_head(RTDetrImageProcessor, of_padded_image) | {
    "prepare": refuse_small_images,
    "size_divisor": PADDING,  # they can take no other sizes
    "count": count_boxes,
    "may_leave_out": True,  # the embedding of the noisy labels that they learn from beside their queries
    "smallest_side": smallest_side,
}
"""What they have in common."""
