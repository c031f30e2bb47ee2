"""Drawn shapes as a dataset for every task, without a download."""

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from ...errors import UserError
from ..instances import Instance, instance_fields
from ..options import DataOptions
from ..samples import Sample, new_sample, to_mask
from ..source import Source, known
from . import drawn_shapes as shapes


SYNTHETIC = "synthetic_shapes"
SIZE = 64
SEEDS = {"train": 0, "validation": 1, "test": 2}
SAMPLES = {"train": 4000, "validation": 100, "test": 100}
BACKGROUND = 0


class ShapesSplit:
    """Drawn samples: see `shapes`. Detection and instance segmentation count the classes without the background."""

    def __init__(self, seed: int, length: int, task: str = "semantic_segmentation") -> None:
        self.seed = seed
        self.length = length
        self.task = task

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        image, drawn = shapes.draw_shapes(self.seed, index, SIZE)
        return new_sample(image, f"shapes {self.seed}/{index}", index) | self._truth(drawn)

    def _truth(self, drawn: list[tuple[int, np.ndarray]]) -> dict[str, torch.Tensor]:
        if self.task == "semantic_segmentation":
            return {"semantic_map": _paint([label for label, _ in drawn], [seen for _, seen in drawn])}
        if self.task == "panoptic_segmentation":
            return _segments(drawn)
        return _objects(drawn, masks=self.task == "instance_segmentation")


def open_shapes(recipe: DataOptions, task: str) -> Source:
    """Splits train, validation and test."""

    def open_split(key: str) -> ShapesSplit:
        name = getattr(recipe, key)
        if name not in SEEDS:
            raise UserError(f"data.{key}={name}: {SYNTHETIC} has no such split{known(SEEDS)}")
        return ShapesSplit(SEEDS[name], SAMPLES[name], task)

    if recipe.labels is not None:
        raise UserError(f"data.labels={recipe.labels}: {SYNTHETIC} brings its own classes; leave data.labels out")
    has_background = task in ("semantic_segmentation", "panoptic_segmentation")
    labels = list(shapes.LABELS if has_background else shapes.LABELS[1:])
    countable = frozenset() if task == "semantic_segmentation" else frozenset(range(has_background, len(labels)))
    return Source(labels, countable, open_split)


def _paint(values: list[int], masks: list[np.ndarray]) -> tv_tensors.Mask:
    """(H, W) int64: each value where its mask is, and 0 elsewhere."""
    canvas = np.full((SIZE, SIZE), BACKGROUND, dtype=np.int64)
    for value, mask in zip(values, masks):
        canvas[mask] = value
    return to_mask(canvas)


def _segments(drawn: list[tuple[int, np.ndarray]]) -> dict[str, torch.Tensor]:
    """The background is a segment as well, the first."""
    labels = [BACKGROUND, *(label for label, _ in drawn)]
    return {
        "segment_map": _paint(list(range(1, len(labels))), [seen for _, seen in drawn]),
        "labels": torch.tensor(labels),
        "is_crowd": torch.zeros(len(labels), dtype=torch.bool),
    }


def _objects(drawn: list[tuple[int, np.ndarray]], masks: bool) -> dict[str, torch.Tensor]:
    seen = torch.from_numpy(np.stack([mask for _, mask in drawn]))
    boxes = masks_to_boxes(seen) + torch.tensor([0, 0, 1, 1])  # the last pixel belongs to the box
    instances = [
        Instance(box, label - 1, shapes.LABELS[label], area=float(mask.sum()), mask=mask)
        for box, (label, mask) in zip(boxes.tolist(), drawn)
    ]
    return instance_fields(instances, (SIZE, SIZE), SYNTHETIC, "xyxy", masks)
