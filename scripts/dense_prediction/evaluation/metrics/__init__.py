"""How good predictions are: one metric for each task, all of which add up over images and processes."""

from collections.abc import Set

from .average_precision import encode_masks
from .confusion import (
    class_accuracy,
    class_iou,
    confusion_matrix,
    constant_mean_iou,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
)
from .detection import DetectionMetric, InstanceMetric
from .metric import Annotation, Metric, Number, Numbers
from .panoptic import PanopticMetric
from .semantic import SemanticMetric


__all__ = [
    "Annotation",
    "Metric",
    "Number",
    "Numbers",
    "build_metric",
    "class_accuracy",
    "class_iou",
    "confusion_matrix",
    "constant_mean_iou",
    "encode_masks",
    "mean_class_accuracy",
    "mean_iou",
    "pixel_accuracy",
]


def build_metric(task: str, labels: list[str], things: Set[int] = frozenset()) -> Metric:
    """The metric of a recipe's task, with nothing counted yet.

    Args:
        labels: class names in the order of their ids.
        things: ids of the countable classes, for panoptic segmentation.
    """
    match task:
        case "semantic_segmentation":
            return SemanticMetric(labels)
        case "object_detection":
            return DetectionMetric(labels)
        case "instance_segmentation":
            return InstanceMetric(labels)
        case "panoptic_segmentation":
            return PanopticMetric(labels, things)
    raise ValueError(f"{task!r} is no task")
