"""Masks from COCO's three ways of writing them: polygons, and run lengths as numbers or as a string."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..bad_samples import BadSample


FEWEST_COORDINATES = 6


def decode_segmentation(segmentation: Any, image_size: tuple[int, int], name: str) -> np.ndarray:
    """(H, W) bool.

    Raises:
        BadSample: it is none of the three, or belongs to a picture of another size.
    """
    if isinstance(segmentation, list) and segmentation:
        return coco_mask.decode(coco_mask.merge(_polygons(segmentation, image_size, name))).astype(bool)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise BadSample(f"{name}: a segmentation is neither polygons nor run lengths: {str(segmentation)[:60]}")
    if tuple(segmentation["size"]) != image_size:
        raise BadSample(f"{name}: run lengths for height and width {segmentation['size']}, not {list(image_size)}")
    counts = segmentation["counts"]
    return _fill(run_lengths(counts) if isinstance(counts, str) else counts, image_size, name)


def run_lengths(text: str) -> list[int]:
    """The numbers in a compressed string, five bits a character; each but the first three adds to the one before last.

    pycocotools reads such strings too, but of one that is cut short it makes a mask out of whatever memory holds.
    """
    counts: list[int] = []
    value = shift = 0
    for bits in (ord(character) - ord("0") for character in text):
        value |= (bits & 0b11111) << shift
        shift += 5
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
    for polygon in polygons:
        # pycocotools takes four numbers for a box and drops the last of an odd number.
        if not isinstance(polygon, list) or len(polygon) < FEWEST_COORDINATES or len(polygon) % 2:
            raise BadSample(f"{name}: a polygon needs an even number of coordinates, at least 6: {str(polygon)[:60]}")
    return coco_mask.frPyObjects(polygons, *image_size)
