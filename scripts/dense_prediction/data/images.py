"""Pictures from files and from bytes; one that cannot be read is a `BadSample`."""

from pathlib import Path
from typing import Any

import datasets
from PIL import Image, UnidentifiedImageError

from .bad_samples import BadSample


# What PIL reports damaged files by, depending on the format; a bomb is a picture of absurd size.
DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


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


def _reason(error: Exception) -> str:
    # PIL names the object that it read from, which is a memory address.
    return "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
