"""Pictures from files and from bytes; one that cannot be read is a `BadSample`."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, UnidentifiedImageError

from .bad_samples import BadSample


# What PIL reports damaged files by, depending on the format; a bomb is a picture of absurd size.
DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

_TOO_DEEP = ("I", "F")
"""Modes of 32-bit numbers, of which nobody knows which one is white."""


def decode(value: dict[str, Any] | None, name: str) -> Image.Image:
    """The picture in an undecoded cell of a dataset, `{"bytes", "path"}`."""
    if value is None or not (value["bytes"] or value["path"]):
        raise BadSample(f"{name} is empty")
    try:
        return datasets.Image().decode_example(value)
    except DAMAGED as error:
        raise BadSample(f"{name} cannot be decoded: {_reason(error)}") from error


def read(path: Path) -> Image.Image:
    """The picture in a file, as it is stored.

    EXIF rotation is left alone: annotations are drawn on the stored pixels.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise BadSample(f"{path} does not exist") from error
    except DAMAGED as error:
        raise BadSample(f"{path} cannot be decoded: {_reason(error)}") from error


def read_rgb(path: Path) -> Image.Image:
    """As `read`, in RGB."""
    return _to_rgb(read(path), str(path))


def decode_rgb(value: dict[str, Any] | None, name: str) -> Image.Image:
    """As `decode`, in RGB."""
    return _to_rgb(decode(value, name), name)


def to_rgb(image: Image.Image) -> Image.Image:
    """The colours that a person sees: 16 bits made 8, of which PIL would make almost all white.

    Raises:
        ValueError: its numbers are no colours.
    """
    if image.mode in _TOO_DEEP:
        raise ValueError(f"its mode is {image.mode}, 32 bits a pixel: save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        return to_rgb(image)
    except ValueError as error:
        raise BadSample(f"{name} has no colours: {error}") from error


def _reason(error: Exception) -> str:
    # PIL names the object that it read from, which is a memory address.
    return "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
