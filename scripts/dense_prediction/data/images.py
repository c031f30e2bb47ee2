"""Pictures, read and turned to what a person sees; one that cannot be read is a `BadSample`."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .bad_samples import BadSample
from .options import ExifOrientation


# What PIL reports damaged files by, depending on the format; a bomb is a picture of absurd size.
DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

TURNED = range(2, 9)
"""EXIF's orientations of pictures that are turned or mirrored; some cameras write 0, which says nothing."""

AnnotatedSize = Sequence[float | None]
"""Height and width; None or 0 for one that an annotation does not say."""

NOT_SAID: AnnotatedSize = (None, None)

_TOO_DEEP = ("I", "F")
"""Modes of 32-bit numbers, of which nobody knows which one is white."""


def read(path: Path) -> Image.Image:
    """The picture in a file, as it is stored."""
    return open_picture(path, str(path))


def read_rgb(path: Path, orientation: ExifOrientation, annotated: AnnotatedSize = NOT_SAID) -> Image.Image:
    """As `read`, in RGB and as `orientation` says."""
    return as_seen(read(path), orientation, str(path), annotated)


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


def open_picture(source: Path | BytesIO, name: str) -> Image.Image:
    """The picture in a file, or in what a file holds, as it is stored; `name` is what a message calls it."""
    try:
        with Image.open(source) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise BadSample(f"{name} does not exist") from error
    except DAMAGED as error:
        raise BadSample(f"{name} cannot be decoded: {reason(error)}") from error


def as_seen(
    image: Image.Image, orientation: ExifOrientation, name: str, annotated: AnnotatedSize = NOT_SAID
) -> Image.Image:
    """A stored picture in RGB, and as `orientation` says.

    Args:
        annotated: what the annotation says of the picture's height and width.
    """
    image = _oriented(image, orientation, annotated)
    try:
        return to_rgb(image)
    except ValueError as error:
        raise BadSample(f"{name} has no colours: {error}") from error


def fits(size: Sequence[float], annotated: AnnotatedSize) -> bool:
    """Whether a picture may be the one that was annotated, by its height and width."""
    return all(not side or side == found for side, found in zip(annotated, size))


def _oriented(image: Image.Image, orientation: ExifOrientation, annotated: AnnotatedSize) -> Image.Image:
    """The picture that its annotations were drawn on: that of their size, and upright where nothing tells."""
    if image.getexif().get(ExifTags.Base.Orientation) not in TURNED or orientation == "stored":
        return image
    upright = ImageOps.exif_transpose(image)
    if orientation == "auto" and not fits((upright.height, upright.width), annotated):
        return image
    return upright


def reason(error: Exception) -> str:
    """Why a picture cannot be read."""
    # PIL names the object that it read from, which is a memory address.
    return "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
