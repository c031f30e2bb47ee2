"""The objects of a picture: boxes, labels and masks, checked against the picture and against each other."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...options import FORBID_UNKNOWN
from ..bad_samples import BadSample
from ..images import AnnotatedSize, fits
from ..options import DataOptions
from .numbers import Fault, flag, is_number, short


Size = tuple[int, int]
"""Height and width."""

LARGEST_AREA = 1e12


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class ObjectsOptions(DataOptions):
    """Of formats with single objects."""

    crowds: Literal["ignore", "objects"] = Field(
        default="ignore",
        description="objects that are marked as crowds (iscrowd, VOC's difficult) are neither learnt nor missed, or "
        "objects like all others",
    )


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class OutlinesOptions(ObjectsOptions):
    """Of formats in which an object has a box, an outline or both."""

    boxes_as_outlines: bool = Field(
        default=False,
        description="for instances, an object that has a box and no outline fills its box; otherwise its sample is a "
        "bad one",
    )


@dataclasses.dataclass(frozen=True)
class Instance:
    """One object as it is annotated.

    Attributes:
        box: four numbers in pixels, in the annotation's own format, if it is a good one.
        label: its class id, or None when the annotation's category is no class.
        category: what the annotation calls it.
        area: of its pixels; None for that of its mask, or else its box.
        mask: (H, W) bool, where the task wants one.
    """

    box: Any
    label: int | None
    category: Any
    is_crowd: bool | int | None = False
    area: float | None = None
    mask: np.ndarray | None = None


def check_size(size: Size, annotated: AnnotatedSize, path: Path) -> None:
    """Compare a picture with the height and width that its annotation gives.

    Raises:
        BadSample: they differ, so that the boxes are those of another picture.
    """
    if not fits(size, annotated):
        raise BadSample(f"{path} has height and width {size}, but was annotated as {annotated}")


def spellings(labels: Sequence[str]) -> frozenset[str]:
    """The names of classes by which `is_left_out` knows them."""
    return frozenset(label.strip().casefold() for label in labels)


def is_left_out(category: str, known: frozenset[str]) -> bool:
    """Whether a category is none of the `spellings` of classes: the recipe leaves it out, and has not misspelt it.

    No name at all is a fault of the file, and not left out.
    """
    return category.strip() != "" and category.strip().casefold() not in known


def instance_fields(
    instances: Sequence[Instance],
    image_size: Size,
    name: str,
    box_format: str = "xywh",
    masks: bool = False,
) -> dict[str, np.ndarray]:
    """The fields of a detection sample, or with `masks` of an instance segmentation sample.

    A box that lies partly outside the picture is clipped.

    Raises:
        BadSample: a category is unknown, a box has no area in the picture, a mask no pixel, a field is of a wrong
            type, or the boxes are no pixels.
    """
    for instance in instances:
        _check(instance, name, masks)
    boxes = _boxes([list(instance.box) for instance in instances], box_format, image_size, name)
    fields = {
        "boxes": boxes,
        "labels": np.array([instance.label for instance in instances], dtype=np.int64),
        "is_crowd": np.array([bool(instance.is_crowd) for instance in instances], dtype=bool),
    }
    measured = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if masks:
        stack = np.zeros((len(instances), *image_size), dtype=bool)
        for place, instance in zip(stack, instances):
            place[:] = instance.mask
        fields["masks"] = stack
        measured = stack.sum((1, 2))
    areas = [area if instance.area is None else instance.area for instance, area in zip(instances, measured.tolist())]
    return fields | {"areas": np.array(areas, dtype=np.float32)}


def _check(instance: Instance, name: str, masks: bool) -> None:
    if instance.label is None:
        raise BadSample(f"{name}: an object is of the unknown category {instance.category!r}")
    try:
        box_of(instance.box)
        area_of(instance.area)
        crowd_of(instance.is_crowd)
    except Fault as error:
        raise BadSample(f"{name}: {error}") from error
    if masks and (instance.mask is None or not instance.mask.any()):
        raise BadSample(f"{name}: an object of category {instance.category!r} has an empty mask")


def box_of(value: Any) -> Any:
    """What a file says of an object's box: four numbers, of which NaN is left to the comparison with the picture.

    Raises:
        Fault: it is something else.
    """
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(is_number(n) or n != n for n in value):
        raise Fault(f"the box of an object is {short(value)}, expected four numbers")
    return value


def area_of(value: Any) -> float | None:
    """What a file says of an object's area; None for nothing.

    Raises:
        Fault: it is no area.
    """
    if value is not None and not (is_number(value, LARGEST_AREA) and value >= 0):
        raise Fault(f"the area of an object is {short(value)}, expected a number of pixels")
    return value


def crowd_of(value: Any) -> bool:
    """Whether a file says that an object is a crowd.

    Raises:
        Fault: it says neither.
    """
    try:
        return flag(value)
    except ValueError as error:
        raise Fault(f"an object is a crowd {short(value)}, {error}") from error


def _boxes(rows: list[list[float]], box_format: str, image_size: Size, name: str) -> np.ndarray:
    """(N, 4) float32 XYXY, clipped to the picture."""
    # In float64, so that the far corner of an x, y, w, h box does not round past the near one.
    given = np.array(rows, dtype=np.float64).reshape(-1, 4)
    if rows and (given >= 0).all() and (given <= 1).all():
        raise BadSample(f"{name}: the boxes, such as {rows[0]}, all lie in 0..1: they must be in pixels")
    height, width = image_size
    boxes = to_corners(given, box_format).clip(0, [width, height, width, height])
    for row, (left, top, right, bottom) in zip(rows, boxes.tolist()):
        if not (right > left and bottom > top):  # also when a number is NaN
            raise BadSample(
                f"{name}: box {row} ({box_format}) has no area in the picture of {width} x {height} pixels"
            )
    return boxes.astype(np.float32)


def box_round(mask: np.ndarray) -> list[int]:
    """The corners, xyxy, of the box round a mask (H, W) that is not empty; its last pixel belongs to the box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def to_corners(boxes: np.ndarray, box_format: str) -> np.ndarray:
    """(N, 4) in xywh, cxcywh or xyxy -> xyxy, with the arithmetic of `torchvision.ops.box_convert`."""
    if box_format == "xyxy":
        return boxes
    x, y, width, height = boxes.T
    if box_format == "cxcywh":
        return np.stack([x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height], axis=1)
    return np.stack([x, y, x + width, y + height], axis=1)
