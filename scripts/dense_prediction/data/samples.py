"""What a sample is, whatever it was read from."""

from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional


IGNORE_INDEX = 255
"""The id of unlabelled pixels in every semantic map that leaves this package, whatever it was in the files."""

VOID = -1
"""The same in segment maps."""

Sample = dict[str, Any]
"""`image`, tv_tensors.Image (3, H, W) uint8; `name`, str; `image_id`, int; and what the task needs:

- semantic segmentation: `semantic_map`, Mask (H, W) int64 of class ids and `IGNORE_INDEX`;
- detection: `boxes`, BoundingBoxes (N, 4) float32 XYXY; `labels`, (N,) int64; `is_crowd`, (N,) bool; `areas`, (N,)
  float32; instance segmentation also `masks`, Mask (N, H, W) bool;
- panoptic segmentation: `segment_map`, Mask (H, W) int64 of positions in `labels` and `VOID`; `labels`, (K,) int64;
  `is_crowd`, (K,) bool.
"""


class Split(Protocol):
    """A finite set of samples that can be read in any order; None is a bad sample that is to be skipped."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample | None: ...


class FirstSamples:
    """The first `length` samples of a split."""

    def __init__(self, split: Split, length: int) -> None:
        self.split = split
        self.length = min(length, len(split))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample | None:
        return self.split[index]

    @property
    def num_skipped(self) -> int:
        """As of the whole split."""
        return self.split.num_skipped


def new_sample(image: Image.Image, name: str, image_id: int) -> Sample:
    """The part of a sample that every task has, from an RGB image."""
    return {"image": tv_tensors.Image(functional.pil_to_tensor(image)), "name": name, "image_id": image_id}


def to_mask(array: np.ndarray) -> tv_tensors.Mask:
    """A Mask of its own memory: some arrays are views of files and pictures that must not be written to."""
    return tv_tensors.Mask(torch.from_numpy(np.array(array)))
