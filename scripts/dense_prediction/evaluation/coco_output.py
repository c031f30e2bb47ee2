"""A prediction as JSON in the words of COCO: its results format, with names for the classes beside their ids."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..batches.types import Prediction
from ..tasks import Task
from .metrics.average_precision import corners_to_coco, encode_masks


Annotation = dict[str, Any]


def describe(
    image: Path,
    prediction: Prediction,
    task: Task,
    labels: Sequence[str],
    size: tuple[int, int],
    category_ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """What was found in an image, of plain values that JSON can hold.

    Args:
        labels: class names in the order of their ids.
        size: height and width of the image as it was seen, turned as its EXIF data say.
        category_ids: what the classes are called in the data, in the same order, if not by their ids.

    Returns:
        `image`, `categories` and `annotations`, one for each object, segment or, of semantic segmentation, class.
        Each has `category_id` and `category`; where the task has them `score` and `bbox` (x, y, width, height);
        and, of segmentations, `segmentation` (a compressed RLE that pycocotools decodes) and `area` in pixels.
    """
    ids = range(len(labels)) if category_ids is None else category_ids
    return {
        "image": {"file_name": image.name, "height": size[0], "width": size[1]},
        "categories": [{"id": number, "name": label} for number, label in zip(ids, labels, strict=True)],
        "annotations": [
            found | {"category_id": ids[found["category_id"]], "category": labels[found["category_id"]]}
            for found in task.to_json(prediction)
        ],
    }


def describe_classes(prediction: Mapping[str, torch.Tensor]) -> Iterator[Annotation]:
    """One for each class that a semantic map shows."""
    semantic_map = prediction["semantic_map"]
    for label in semantic_map.unique().tolist():
        yield {"category_id": label} | _area(semantic_map == label)


def describe_objects(prediction: Mapping[str, torch.Tensor]) -> Iterator[Annotation]:
    """One for each object or segment. One mask at a time: all those of a large image are larger than the image."""
    labels, scores = prediction["labels"].tolist(), prediction["scores"].tolist()
    boxes = corners_to_coco(prediction["boxes"]) if "boxes" in prediction else None
    for index, (label, score) in enumerate(zip(labels, scores, strict=True)):
        annotation: Annotation = {"category_id": label, "score": round(score, 4)}
        if boxes is not None:
            annotation["bbox"] = [round(value, 2) for value in boxes[index]]
        if "masks" in prediction:
            annotation |= _area(prediction["masks"][index])
        if "segment_map" in prediction:
            annotation |= _area(prediction["segment_map"] == index)
        yield annotation


def _area(mask: torch.Tensor) -> Annotation:
    (encoded,) = encode_masks(mask[None])
    rle = {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
    return {"area": int(mask.sum()), "segmentation": rle}
