"""Object detection and instance segmentation: COCO's average precision of boxes and masks."""

from typing import Any

import torch

from ...errors import UserError
from .average_precision import (
    MAX_DETECTIONS,
    ImageRecord,
    Kind,
    Record,
    average_precision,
    corners_to_coco,
    encode_masks,
)
from .metric import Annotation, Numbers, number
from .mistakes import BACKGROUND, MISSED, Confusion, match_objects


class DetectionMetric:
    """Every image's annotated and found boxes.

    Args:
        max_detections: the best scored ones of an image and class that count. Numbers of another limit than COCO's
            have it in their names, `box_ap_at_300` and `box_ar300`.
    """

    primary = "box_ap"
    kinds: dict[str, Kind] = {"box": "bbox"}

    def __init__(self, labels: list[str], max_detections: int = MAX_DETECTIONS) -> None:
        self.labels = labels
        self.max_detections = max_detections
        self.limit = "" if max_detections == MAX_DETECTIONS else f"_at_{max_detections}"
        self.primary += self.limit
        self.state: dict[int, ImageRecord] = {}

    def update(self, prediction: Annotation, targets: Annotation) -> None:
        """Keep the objects of one image.

        Args:
            prediction: `boxes` (N, 4) as x1, y1, x2, y2, `scores` (N,), `labels` (N,).
            targets: `boxes` (M, 4), `labels` (M,), `is_crowd` (M,), `areas` (M,), `image_id`, `original_size`.

        Raises:
            UserError: a score or a box is no number.
            ValueError: a label is no class, or an image comes a second time.
        """
        for name in ("scores", "boxes"):
            if not prediction[name].isfinite().all():
                raise UserError(
                    f"{targets['name']}: the model's {name} are no numbers (NaN or infinite): its weights have "
                    "diverged; train again with a lower optimization.learning_rate or with optimization.max_grad_norm "
                    "(and with overwrite=true)"
                )
        found = self._record(prediction) | {"score": prediction["scores"].double().tolist()}
        truth = self._record(targets) | {
            "area": targets["areas"].double().tolist(),
            "iscrowd": targets["is_crowd"].int().tolist(),
        }
        height, width = targets["original_size"]
        self.merge({int(targets["image_id"]): ImageRecord((int(height), int(width)), truth, found)})

    def merge(self, state: dict[int, ImageRecord]) -> None:
        if twice := self.state.keys() & state.keys():
            raise ValueError(f"the images with the ids {sorted(twice)[:5]} are measured twice")
        self.state |= state

    def compute(self) -> Numbers:
        # In the order of the ids, so that equal scores are ranked alike for every number of processes.
        images = [self.state[image_id] for image_id in sorted(self.state)]
        numbers: Numbers = {}
        for name, kind in self.kinds.items():
            measured = average_precision(images, len(self.labels), kind, self.max_detections)
            for key, value in measured.items():
                limit = "" if key.endswith(f"ar{self.max_detections}") else self.limit  # recall names it in any case
                if isinstance(value, list):
                    by_class = dict(zip(self.labels, map(number, value), strict=True))
                    numbers[f"class_{name}_{key.removeprefix('class_')}{limit}"] = by_class
                else:
                    numbers[f"{name}_{key}{limit}"] = number(value)
        return numbers

    def confusion(self) -> Confusion:
        """The first kind's objects, those of sufficient scores with those that lie where they do."""
        counts = match_objects(list(self.state.values()), len(self.labels), next(iter(self.kinds.values())))
        return Confusion("objects", [*self.labels, BACKGROUND], [*self.labels, MISSED], counts)

    def _record(self, annotation: Annotation) -> Record:
        labels = annotation["labels"].tolist()
        if not all(0 <= label < len(self.labels) for label in labels):
            raise ValueError(f"labels hold ids {min(labels)}..{max(labels)}, allowed are 0..{len(self.labels) - 1}")
        return {"category_id": labels, "bbox": corners_to_coco(annotation["boxes"])}


class InstanceMetric(DetectionMetric):
    """Every image's annotated and found boxes and masks, the masks as run-length encodings."""

    primary = "mask_ap"
    kinds: dict[str, Kind] = {"mask": "segm", "box": "bbox"}

    def _record(self, annotation: Annotation) -> Record:
        """Also takes `masks`, (N, H, W) bool."""
        masks: torch.Tensor = annotation["masks"]
        extra: dict[str, list[Any]] = {"segmentation": encode_masks(masks)}
        return super()._record(annotation) | extra
