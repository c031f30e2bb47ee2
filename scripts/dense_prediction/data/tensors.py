"""From what the formats read, images of PIL and arrays, to the tensors that transforms move and models learn from."""

from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from .deep_pictures import Range
from .images import shown
from .samples import Sample


MASKS = ("semantic_map", "segment_map", "masks")
"""The columns whose last dimensions are the image's own."""


def to_tensors(sample: Sample, intensity: Range | None = None) -> Sample:
    """The sample with tensors in place of its image and its arrays; see `Sample` for their types.

    Args:
        intensity: which numbers of a picture of more than 8 bits are black and white, see `DeepPicture.to_rgb`.

    Raises:
        BadSample: such a picture would be black, or there is no telling what is white.
    """
    return {column: _to_tensor(column, value, sample, intensity) for column, value in sample.items()}


def _to_tensor(column: str, value: Any, sample: Sample, intensity: Range | None) -> Any:
    if column == "image":
        return tv_tensors.Image(functional.pil_to_tensor(shown(value, intensity, sample["name"])))
    if not isinstance(value, np.ndarray):
        return value
    # Of its own memory: some arrays are views of files and pictures that must not be written to.
    tensor = torch.from_numpy(np.array(value))
    if column == "boxes":
        image = sample["image"]
        return tv_tensors.BoundingBoxes(tensor, format="XYXY", canvas_size=(image.height, image.width))
    return tv_tensors.Mask(tensor) if column in MASKS else tensor
