"""Semantic segmentation: mean IoU, and accuracies."""

import torch

from .confusion import (
    class_accuracy,
    class_iou,
    confusion_matrix,
    constant_mean_iou,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
)
from .metric import Annotation, Number, Numbers, number
from .mistakes import Confusion


class SemanticMetric:
    """A confusion matrix over all labelled pixels."""

    primary = "mean_iou"

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels
        self.state = torch.zeros(len(labels), len(labels), dtype=torch.int64)

    def update(self, prediction: Annotation, targets: Annotation) -> None:
        """Count the pixels of two `semantic_map`s (H, W), in the target's with `IGNORE_INDEX` for void."""
        self.state += confusion_matrix(prediction["semantic_map"], targets["semantic_map"], len(self.labels))

    def merge(self, state: torch.Tensor) -> None:
        self.state += state

    def compute(self) -> Numbers:
        confusion = self.state
        return {
            "mean_iou": number(mean_iou(confusion)),
            "chance_mean_iou": number(constant_mean_iou(confusion)),
            "pixel_accuracy": number(pixel_accuracy(confusion)),
            "mean_class_accuracy": number(mean_class_accuracy(confusion)),
            "class_iou": self._by_label(class_iou(confusion)),
            "class_accuracy": self._by_label(class_accuracy(confusion)),
        }

    def confusion(self) -> Confusion:
        return Confusion("pixels", self.labels, self.labels, self.state.numpy())

    def _by_label(self, values: torch.Tensor) -> dict[str, Number]:
        return {label: number(value) for label, value in zip(self.labels, values.tolist(), strict=True)}
