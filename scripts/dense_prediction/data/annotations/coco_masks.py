"""Masks from COCO's three ways of writing them: polygons, and run lengths as numbers or as a string."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..bad_samples import BadSample
from .numbers import is_number, short, whole_number


FEWEST_COORDINATES = 6

FARTHEST = 10
"""How many times a picture's longer side a corner may lie outside; pycocotools takes memory for the way there."""

LONGEST_OUTLINE = 2**21
"""In pixels, for the same reason."""

LONGEST_RUN_BITS = 35
"""Of a number in a compressed string, seven characters: what comes after takes no more memory than it has."""


def decode_segmentation(segmentation: Any, image_size: tuple[int, int], name: str) -> np.ndarray:
    """(H, W) bool.

    Raises:
        BadSample: it is none of the three, or belongs to a picture of another size.
    """
    if not isinstance(segmentation, list | dict) or not segmentation:
        raise BadSample(f"{name}: a segmentation is neither polygons nor run lengths: {short(segmentation)}")
    if isinstance(segmentation, list):
        return coco_mask.decode(coco_mask.merge(_polygons(segmentation, image_size, name))).astype(bool)
    if segmentation.get("size") != list(image_size):
        size = short(segmentation.get("size"))
        raise BadSample(f"{name}: run lengths for height and width {size}, not {list(image_size)}")
    return _fill(_counts(segmentation.get("counts"), name), image_size, name)


def _counts(counts: Any, name: str) -> list[int]:
    try:
        if isinstance(counts, str):
            return run_lengths(counts)
        if isinstance(counts, list):
            return [whole_number(count) for count in counts]
    except ValueError as error:
        raise BadSample(f"{name}: run lengths {short(counts)}: {error}") from error
    raise BadSample(f"{name}: run lengths are {short(counts)}, expected a list of numbers or a string")


def run_lengths(text: str) -> list[int]:
    """The numbers in a compressed string, five bits a character; each but the first three adds to the one before last.

    pycocotools reads such strings too, but of one that is cut short it makes a mask out of whatever memory holds.

    Raises:
        ValueError: a number does not end.
    """
    counts: list[int] = []
    value = shift = 0
    for bits in (ord(character) - ord("0") for character in text):
        value |= (bits & 0b11111) << shift
        shift += 5
        if shift > LONGEST_RUN_BITS:
            raise ValueError(f"a number has more than {LONGEST_RUN_BITS} bits")
        if not bits & 0b100000:  # the number ends, and the highest of its bits is its sign
            value -= (bits >> 4 & 1) << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _fill(counts: list[int], image_size: tuple[int, int], name: str) -> np.ndarray:
    height, width = image_size
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise BadSample(f"{name}: run lengths add up to {sum(counts)} of {height * width} pixels")
    rle = {"size": [height, width], "counts": counts}
    encoded = coco_mask.frPyObjects(rle, height, width)  # type: ignore[call-overload]  # stubs: compressed counts only
    return coco_mask.decode(encoded).astype(bool)


def _polygons(polygons: list[Any], image_size: tuple[int, int], name: str) -> list[Any]:
    """Encoded; what pycocotools is not told is checked before, as it crashes on what it cannot make a mask of."""
    farthest = FARTHEST * max(image_size)
    for polygon in polygons:
        # pycocotools takes four numbers for a box and drops the last of an odd number.
        if not isinstance(polygon, list) or len(polygon) < FEWEST_COORDINATES or len(polygon) % 2:
            raise BadSample(f"{name}: a polygon needs an even number of coordinates, at least 6: {short(polygon)}")
        if strangers := [number for number in polygon if not is_number(number, farthest)]:
            raise BadSample(
                f"{name}: a coordinate of a polygon is {short(strangers[0])}, expected a number of pixels, at most "
                f"{farthest} in this picture"
            )
        if _length(polygon) > LONGEST_OUTLINE:
            raise BadSample(f"{name}: the outline of a polygon is longer than {LONGEST_OUTLINE} pixels")
    return coco_mask.frPyObjects(polygons, *image_size)


def _length(polygon: list[float]) -> float:
    """Of the outline as pycocotools walks along it: the longer of the two distances from corner to corner."""
    corners = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(1).sum())
