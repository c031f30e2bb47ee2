"""COCO's average precision and recall of boxes or masks, by faster-coco-eval's implementation of the official rules.

Imports nothing of this project: `scripts/metrics/box_ap` and `mask_ap` link to this file, and `evaluate` copies it
elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as coco_mask


MAX_DETECTIONS = 100
"""The best scored detections of an image and class that count, where COCO's own numbers are meant."""

Kind = Literal["bbox", "segm"]
RLE = dict[str, Any]
"""A compressed run-length encoding: `size` [H, W] and `counts`."""

Record = dict[str, list[Any]]
"""Columns `category_id`, `bbox` (x, y, width, height) or `segmentation` (RLE); the truth has `area` and `iscrowd`,
what is found has `score`."""


@dataclass(frozen=True)
class ImageRecord:
    """The annotated and the found objects of one image of `size` (H, W)."""

    size: tuple[int, int]
    truth: Record
    found: Record


def average_precision(
    images: Sequence[ImageRecord], num_labels: int, kind: Kind, max_detections: int = MAX_DETECTIONS
) -> dict[str, Any]:
    """Average precision at IoU 0.5 to 0.95, as COCO's own script measures it.

    Crowds are neither to be found nor counted against what lies in them. Where scores are equal, the detection of the
    earlier image comes first, and within an image the earlier one.

    Args:
        kind: `bbox` compares boxes, `segm` masks; the size classes of objects are those of the annotation's own area,
            the size of a detection is that of its box or its mask.
        max_detections: the best scored ones of an image and class that count.

    Returns:
        `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `ar100` (or `ar{max_detections}`), and of each class
        `class_ap`, `class_ap50` and `class_ar100`, lists; NaN where there is no object to be found.
    """
    evaluation = _evaluate(images, num_labels, kind, max_detections)
    # precision (IoU thresholds, recalls, classes, size classes, 1) and recall (IoU thresholds, classes, ..., 1)
    precision, recall = evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]
    thresholds = {round(100 * value): index for index, value in enumerate(evaluation.params.iouThrs)}
    numbers: dict[str, Any] = {
        "ap": _mean(precision[..., 0]),
        "ap50": _mean(precision[thresholds[50], ..., 0]),
        "ap75": _mean(precision[thresholds[75], ..., 0]),
    }
    for index, size in enumerate(evaluation.params.areaRngLbl[1:], start=1):
        numbers[f"ap_{size}"] = _mean(precision[..., index])
    numbers[f"ar{max_detections}"] = _mean(recall[..., 0])
    classes = range(num_labels)
    numbers["class_ap"] = [_mean(precision[:, :, label, 0]) for label in classes]
    numbers["class_ap50"] = [_mean(precision[thresholds[50], :, label, 0]) for label in classes]
    numbers[f"class_ar{max_detections}"] = [_mean(recall[:, label, 0]) for label in classes]
    return numbers


def plain_average_precision(images: Sequence[ImageRecord], num_labels: int, kind: Kind) -> dict[str, Any]:
    """The same numbers as JSON has them: None where there is no object to be found."""
    numbers = average_precision(images, num_labels, kind)
    return {
        name: [_plain(each) for each in value] if isinstance(value, list) else _plain(value)
        for name, value in numbers.items()
    }


def corners_to_coco(boxes: torch.Tensor) -> list[list[float]]:
    """(N, 4) boxes as x1, y1, x2, y2 -> x, y, width, height in double precision."""
    corners = boxes.detach().cpu().double().reshape(-1, 4)
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()


def encode_masks(masks: torch.Tensor) -> list[RLE]:
    """(N, H, W) bool -> N run-length encodings, a thousandth of the memory."""
    return [coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks.detach().cpu()]


def _evaluate(images: Sequence[ImageRecord], num_labels: int, kind: Kind, max_detections: int) -> COCOeval_faster:
    truth = COCO(
        {
            "images": [
                {"id": place, "height": image.size[0], "width": image.size[1]}
                for place, image in enumerate(images, start=1)
            ],
            "categories": [{"id": label} for label in range(num_labels)],
            "annotations": _annotations([image.truth for image in images], kind),
        }
    )
    found = truth.loadRes(_annotations([image.found for image in images], kind))
    evaluation = COCOeval_faster(truth, found, kind)
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _annotations(records: Sequence[Record], kind: Kind) -> list[dict[str, Any]]:
    """One dict for each object."""
    # Beside a box, a mask would be of the box's size.
    unused = "segmentation" if kind == "bbox" else "bbox"
    rows: list[dict[str, Any]] = []
    for place, record in enumerate(records, start=1):
        columns = {name: column for name, column in record.items() if name != unused}
        for values in zip(*columns.values(), strict=True):
            rows.append({"image_id": place, "id": len(rows) + 1, **dict(zip(columns, values))})
    return rows


def _mean(values: np.ndarray) -> float:
    """Mean of what could be measured; -1 stands for what could not."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else float("nan")


def _plain(value: float) -> float | None:
    return None if value != value else value
