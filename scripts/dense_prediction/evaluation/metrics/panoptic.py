"""Panoptic segmentation: panoptic, segmentation and recognition quality."""

from collections.abc import Set

import torch

from .metric import Annotation, Number, Numbers, number
from .mistakes import MISSED, Confusion
from .panoptic_quality import VOID, Segments, class_qualities, count_segments


COUNTS = 4
"""Columns of `count_segments`."""

QUALITIES = ("panoptic_quality", "segmentation_quality", "recognition_quality")


class PanopticMetric:
    """Matches and mistakes of each class; `things` are the ids of the countable classes, the others are stuff.

    Its state holds for each class the four numbers of `count_segments`, and after them how many of its pixels were
    found as each class, and as none.
    """

    primary = "panoptic_quality"

    def __init__(self, labels: list[str], things: Set[int]) -> None:
        self.labels = labels
        self.things = things
        self.state = torch.zeros(len(labels), COUNTS + len(labels) + 1, dtype=torch.float64)

    def update(self, prediction: Annotation, targets: Annotation) -> None:
        """Count the segments of one image: `segment_map` (H, W), `labels` (K,) and the targets' `is_crowd` (K,)."""
        found = Segments(prediction["segment_map"], prediction["labels"])
        truth = Segments(targets["segment_map"], targets["labels"], targets["is_crowd"])
        self.state[:, :COUNTS] += count_segments(found, truth, len(self.labels))
        self.state[:, COUNTS:] += _pixels(found, truth, len(self.labels))

    def merge(self, state: torch.Tensor) -> None:
        self.state += state

    def compute(self) -> Numbers:
        qualities = class_qualities(self.state[:, :COUNTS])
        is_thing = torch.tensor([label in self.things for label in range(len(self.labels))])
        numbers: Numbers = {}
        for prefix, chosen in (("", torch.ones_like(is_thing)), ("things_", is_thing), ("stuff_", ~is_thing)):
            means = qualities[chosen].nanmean(0).tolist()
            numbers |= {prefix + name: number(mean) for name, mean in zip(QUALITIES, means, strict=True)}
        for place, name in enumerate(QUALITIES):
            numbers[f"class_{name}"] = self._by_label(qualities[:, place])
        return numbers

    def confusion(self) -> Confusion:
        counts = self.state[:, COUNTS:].long().numpy()
        return Confusion("pixels", self.labels, [*self.labels, MISSED], counts)

    def _by_label(self, values: torch.Tensor) -> dict[str, Number]:
        return {label: number(value) for label, value in zip(self.labels, values.tolist(), strict=True)}


def _pixels(found: Segments, truth: Segments, num_labels: int) -> torch.Tensor:
    """(num_labels, num_labels + 1) pixels of each true class that were found as each class and, the last, as none.

    Void and crowds of the truth are left out.
    """
    crowd = torch.zeros_like(truth.labels, dtype=torch.bool) if truth.is_crowd is None else truth.is_crowd.bool()
    # A segment map's void, -1, is the last of the classes of its segments.
    true = torch.cat([truth.labels.masked_fill(crowd, VOID), truth.labels.new_tensor([VOID])])[truth.segment_map]
    seen = torch.cat([found.labels, found.labels.new_tensor([num_labels])])[found.segment_map]
    pairs = (true * (num_labels + 1) + seen)[true != VOID]
    return torch.bincount(pairs, minlength=num_labels * (num_labels + 1)).view(num_labels, num_labels + 1)
