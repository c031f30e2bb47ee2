"""What goes into a head and what comes out."""

from dataclasses import dataclass
from typing import Any

import torch


Batch = dict[str, Any]
"""`pixel_values` (B, 3, h, w) float32, padded at the right and bottom; `pixel_mask` (B, h, w) int64, 1 on the image;
`targets`, a dict of everything else for each image, of which a prediction needs `original_size` (H, W) only."""

Tensors = dict[str, Any]
"""Keyword arguments of a model: tensors, and lists of tensors or of dicts of them."""

Prediction = dict[str, torch.Tensor]
"""What was found in one image, on the CPU, at the image's original size (H, W):

- semantic segmentation: `semantic_map` (H, W) int64 of class ids;
- object detection: `boxes` (N, 4) float32, x and y of two corners, `scores` (N,) float32, `labels` (N,) int64, the
  best first;
- instance segmentation: the same and `masks` (N, H, W) bool;
- panoptic segmentation: `segment_map` (H, W) int64, the position of a pixel's segment in `labels` and -1 for none,
  `labels` (K,) int64, `scores` (K,) float32.
"""


@dataclass(frozen=True)
class PredictionOptions:
    """How much of what a model sees becomes a prediction. The defaults are those of the official evaluations.

    Attributes:
        score_threshold: keep boxes and instances whose score is higher; 0 keeps all, as average precision wants it.
        max_detections: keep at most this many boxes or instances of an image.
        object_threshold: panoptic: a query whose best class is less probable is no segment.
        overlap_threshold: panoptic: a segment that keeps a smaller share of its mask, the rest being nearer to other
            segments, is dropped.
        things: panoptic: ids of the countable classes; segments of any other class become one.
    """

    score_threshold: float = 0.0
    max_detections: int = 100
    object_threshold: float = 0.8
    overlap_threshold: float = 0.8
    things: frozenset[int] = frozenset()


def names_of(batch: Batch) -> list[str]:
    """Of its samples, where they have one."""
    return [str(target["name"]) for target in batch["targets"] if "name" in target]
