"""The image processor that is saved beside a model and prepares an image as the evaluation does."""

import math
from typing import Any

from transformers.image_processing_utils import BaseImageProcessor

from ..batches.options import TransformOptions
from .heads import find_head
from .options import HeadOptions


PADDING = "padding_divisor"
"""Our own field of an image processor: height and width of the padded image are multiples of it."""


def build_processor(recipe: HeadOptions, transforms: TransformOptions) -> BaseImageProcessor:
    """The resize rule, the normalisation and the padding of `transforms`' evaluation, for the head's processor."""
    processor = find_head(recipe.name).processor_class(
        **_resize_fields(transforms),
        size_divisor=0,  # where a processor would resize to multiples of it and change the aspect
        do_normalize=True,  # which not every processor does by default
        image_mean=list(transforms.image_mean),
        image_std=list(transforms.image_std),
    )
    setattr(processor, PADDING, padding_divisor(recipe, transforms))
    return processor


def padding_divisor(recipe: HeadOptions, transforms: TransformOptions) -> int:
    """Height and width of every batch must be multiples of it, for the head's sake and the recipe's."""
    return math.lcm(find_head(recipe.name).size_divisor, transforms.size_divisor)


def _resize_fields(transforms: TransformOptions) -> dict[str, Any]:
    match transforms.evaluation_resize:
        case "none":
            return {"do_resize": False}
        case "shortest_edge":
            size = {"shortest_edge": max(transforms.shortest_edges), "longest_edge": transforms.longest_edge}
        case "fixed":
            size = dict(zip(("height", "width"), transforms.crop_size, strict=True))
    return {"do_resize": True, "size": size}
