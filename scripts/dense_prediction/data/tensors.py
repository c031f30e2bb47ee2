"""From what the formats read, images of PIL and arrays, to the tensors that transforms move and models learn from."""

from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from .samples import Sample


MASKS = ("semantic_map", "segment_map", "masks")
"""The columns whose last dimensions are the image's own."""


def to_tensors(sample: Sample) -> Sample:
    """The sample with tensors in place of its image and its arrays; see `Sample` for their types."""
    return {column: _to_tensor(column, value, sample) for column, value in sample.items()}


def _to_tensor(column: str, value: Any, sample: Sample) -> Any:
    if column == "image":
        return tv_tensors.Image(functional.pil_to_tensor(value))
    if not isinstance(value, np.ndarray):
        return value
    # Of its own memory: some arrays are views of files and pictures that must not be written to.
    tensor = torch.from_numpy(np.array(value))
    if column == "boxes":
        image = sample["image"]
        return tv_tensors.BoundingBoxes(tensor, format="XYXY", canvas_size=(image.height, image.width))
    return tv_tensors.Mask(tensor) if column in MASKS else tensor
