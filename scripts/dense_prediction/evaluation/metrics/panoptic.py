"""Panoptic segmentation: panoptic, segmentation and recognition quality."""

from collections.abc import Set

import torch

from .metric import Annotation, Number, Numbers, number
from .panoptic_quality import Segments, class_qualities, count_segments


QUALITIES = ("panoptic_quality", "segmentation_quality", "recognition_quality")


class PanopticMetric:
    """Matches and mistakes of each class; `things` are the ids of the countable classes, the others are stuff."""

    primary = "panoptic_quality"

    def __init__(self, labels: list[str], things: Set[int]) -> None:
        self.labels = labels
        self.things = things
        self.state = torch.zeros(len(labels), 4, dtype=torch.float64)

    def update(self, prediction: Annotation, targets: Annotation) -> None:
        """Count the segments of one image: `segment_map` (H, W), `labels` (K,) and the targets' `is_crowd` (K,)."""
        found = Segments(prediction["segment_map"], prediction["labels"])
        truth = Segments(targets["segment_map"], targets["labels"], targets["is_crowd"])
        self.state += count_segments(found, truth, len(self.labels))

    def merge(self, state: torch.Tensor) -> None:
        self.state += state

    def compute(self) -> Numbers:
        qualities = class_qualities(self.state)
        is_thing = torch.tensor([label in self.things for label in range(len(self.labels))])
        numbers: Numbers = {}
        for prefix, chosen in (("", torch.ones_like(is_thing)), ("things_", is_thing), ("stuff_", ~is_thing)):
            means = qualities[chosen].nanmean(0).tolist()
            numbers |= {prefix + name: number(mean) for name, mean in zip(QUALITIES, means, strict=True)}
        numbers["class_panoptic_quality"] = self._by_label(qualities[:, 0])
        return numbers

    def _by_label(self, values: torch.Tensor) -> dict[str, Number]:
        return {label: number(value) for label, value in zip(self.labels, values.tolist(), strict=True)}
