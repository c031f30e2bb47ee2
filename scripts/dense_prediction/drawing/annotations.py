"""Annotations and predictions as arrays that follow a picture when it is resized."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image


Arrays = dict[str, np.ndarray]
"""What is drawn of a prediction or of a sample's targets: the arrays of one task, at the size of the picture."""

MIN_SCORE = 0.3
"""Of what is shown beside the truth: average precision wants objects of lower scores, a person does not."""

_MAPS = ("semantic_map", "segment_map", "masks")
_OBJECTS = ("boxes", "masks", "scores", "labels", "is_crowd")


def to_arrays(annotation: Mapping[str, Any]) -> Arrays:
    """The parts of a prediction or of targets that can be drawn."""
    return {key: np.asarray(annotation[key]) for key in (*_MAPS, *_OBJECTS) if key in annotation}


def confident(arrays: Arrays) -> Arrays:
    """Without boxes and instances of scores below `MIN_SCORE`."""
    if "boxes" not in arrays or "scores" not in arrays:
        return arrays
    kept = arrays["scores"] >= MIN_SCORE
    return arrays | {key: arrays[key][kept] for key in _OBJECTS if key in arrays}


def resize(image: Image.Image, arrays: Arrays, factor: float) -> tuple[Image.Image, Arrays]:
    """Picture and arrays, `factor` times as large; an enlarged picture keeps sharp pixels."""
    width, height = (max(1, round(factor * side)) for side in image.size)
    rows = (np.arange(height) + 0.5) * image.height // height
    columns = (np.arange(width) + 0.5) * image.width // width
    grid = np.ix_(rows.astype(int), columns.astype(int))
    resized = {key: value[..., grid[0], grid[1]] if key in _MAPS else value for key, value in arrays.items()}
    if "boxes" in arrays:
        resized["boxes"] = arrays["boxes"] * np.tile([width / image.width, height / image.height], 2)
    return image.resize((width, height), Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX), resized
