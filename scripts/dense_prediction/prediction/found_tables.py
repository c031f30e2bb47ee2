"""What was found in pictures, counted and measured: rows for a spreadsheet, and images of ids for other programs."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from PIL import Image


if TYPE_CHECKING:
    from ..batches.types import Prediction

OBJECTS_CSV, CLASSES_CSV = "predicted_objects.csv", "predicted_classes.csv"

OBJECT_COLUMNS = ("picture", "id", "class", "score", "x", "y", "width", "height", "area")
CLASS_COLUMNS = ("picture", "class", "count", "area", "share")

LARGEST_ID = 2**16 - 1

Row = list[Any]
Described = Mapping[str, Any]
"""A prediction as `evaluation.coco_output.describe` says it."""


def object_rows(path: Path, described: Described) -> list[Row]:
    """One for each object or segment: its number in the label image, its class, score, box and area in pixels."""
    rows = []
    for number, found in enumerate(described["annotations"], start=1):
        box = box_of(found) or [""] * 4
        rows.append([path, number, found["category"], found.get("score"), *box, area_of(found)])
    return rows


def class_rows(path: Path, described: Described, counts_objects: bool) -> list[Row]:
    """One for each class that the model knows, found or not: how many objects, their area, its share of the picture.

    Args:
        counts_objects: False where a class has pixels and no objects; then there is no count.
    """
    pixels = described["image"]["height"] * described["image"]["width"]
    rows = []
    for category in described["categories"]:
        found = [each for each in described["annotations"] if each["category_id"] == category["id"]]
        areas = [area for each in found if (area := area_of(each)) is not None]
        area = sum(areas) if len(areas) == len(found) else None
        share = None if area is None else f"{area / pixels:.6f}"
        rows.append([path, category["name"], len(found) if counts_objects else None, area, share])
    return rows


def area_of(found: Mapping[str, Any]) -> float | None:
    """Pixels of a mask or, where there is none, of a box; None of what has neither."""
    if "area" in found:
        return found["area"]
    return round(found["bbox"][2] * found["bbox"][3], 2) if "bbox" in found else None


def box_of(found: Mapping[str, Any]) -> Row | None:
    """x, y, width and height; of a segment those of its mask."""
    if "bbox" in found:
        return found["bbox"]
    if "segmentation" not in found:
        return None
    mask = found["segmentation"]
    return np.asarray(coco_mask.toBbox([mask | {"counts": mask["counts"].encode()}])[0]).tolist()


def to_csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """The text of a table, whose empty cells stand for what there is not."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def label_image(prediction: "Prediction", category_ids: Sequence[int]) -> Image.Image | None:
    """8 or, where ids are larger than 255, 16 bits a pixel; None of what has no masks.

    Of semantic segmentation the ids of classes as the data have them (`category_id` in the JSON), unless they are too
    large for 16 bits: then their places in the model. Of objects and segments their numbers, from 1 on, as in the
    table of objects; 0 is none. Where objects overlap, the one of the higher score is seen.
    """
    if "semantic_map" in prediction:
        ids = np.array(category_ids if max(category_ids) <= LARGEST_ID else range(len(category_ids)))
        return _to_image(ids[prediction["semantic_map"].numpy()])
    if "segment_map" in prediction:
        return _to_image(prediction["segment_map"].numpy() + 1)
    if "masks" not in prediction:
        return None
    masks = prediction["masks"].numpy()
    numbers = np.zeros(masks.shape[1:], dtype=np.int64)
    for place in reversed(range(len(masks))):
        numbers[masks[place]] = place + 1
    return _to_image(numbers)


def _to_image(ids: np.ndarray) -> Image.Image:
    return Image.fromarray(ids.astype(np.uint8 if ids.max(initial=0) <= 255 else np.uint16))
