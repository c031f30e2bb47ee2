"""Pictures, read and turned to what a person sees; one that cannot be read is a `BadSample`."""

import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .annotations.file_names import near_it
from .bad_samples import BadSample
from .deep_pictures import (
    DeepPicture,
    Picture,
    Range,
    check_upper_bits,
    colours_of_png,
    has_deep_colours,
    is_grey,
)
from .options import ExifOrientation


DAMAGED = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What PIL meets damaged files with, depending on the format: AVIF with RuntimeError, QOI with IndexError, FTEX with
AssertionError, SPIDER with AttributeError, TIFF's tags with struct.error, ...; a bomb is a picture of absurd size."""

_NOT_DECODED = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
"""What PIL knows by its first bytes alone."""

TURNED = range(2, 9)
"""EXIF's orientations of pictures that are turned or mirrored; some cameras write 0, which says nothing."""

AnnotatedSize = Sequence[float | None]
"""Height and width; None or 0 for one that an annotation does not say."""

NOT_SAID: AnnotatedSize = (None, None)

_PREMULTIPLIED = ("La", "RGBa")
"""Modes that PIL makes no RGB of in one step."""


def _as_stored(image: Image.Image) -> Image.Image:
    return image


_ALL_BITS = "all_bits"
"""In the info of a picture whose file holds colours of 16 bits, of which Pillow keeps 8: (H, W, 3) uint16, or None
where no more can be read."""


def read(path: Path) -> Image.Image:
    """The picture in a file, as it is stored."""
    return open_picture(path, str(path))


def read_picture(path: Path, orientation: ExifOrientation, annotated: AnnotatedSize = NOT_SAID) -> Picture:
    """As `read`, turned as `orientation` says: in RGB, or with all its bits where it has more than 8."""
    return as_seen(read(path), orientation, str(path), annotated)


def read_rgb(
    path: Path,
    orientation: ExifOrientation,
    annotated: AnnotatedSize = NOT_SAID,
    intensity: Range | None = None,
) -> Image.Image:
    """As `read_picture`, in RGB.

    Args:
        intensity: which numbers of a picture of more than 8 bits are black and white, see `DeepPicture.to_rgb`.
    """
    return shown(read_picture(path, orientation, annotated), intensity, str(path))


def shown(picture: Picture, intensity: Range | None, name: str) -> Image.Image:
    """A picture in RGB.

    Raises:
        BadSample: it would be black, or there is no telling what is white.
    """
    try:
        return picture.to_rgb(intensity) if isinstance(picture, DeepPicture) else picture
    except ValueError as error:
        raise BadSample(f"{name} has no colours: {reason(error)}") from error


def to_picture(image: Image.Image, turned: Callable[[Image.Image], Image.Image] = _as_stored) -> Picture:
    """The colours that a person sees, or all the bits of what has more than 8.

    Args:
        turned: what is done with a picture that EXIF turns.

    Raises:
        ValueError: its numbers are no colours.
    """
    if (all_bits := image.info.get(_ALL_BITS)) is not None:
        layers = [Image.fromarray(all_bits[..., colour]) for colour in range(3)]
        for layer in layers:
            layer.getexif().update(image.getexif())
        return DeepPicture(np.stack([np.asarray(turned(layer)) for layer in layers], axis=-1))
    if _ALL_BITS in image.info:
        check_upper_bits(image)
    image = turned(image)
    if image.mode.startswith("I;16"):
        return DeepPicture(np.asarray(image).astype(np.uint16))  # whichever byte comes first
    return DeepPicture(np.asarray(image)) if is_grey(image) else _colours_in_rgb(image)


def to_rgb(
    image: Image.Image,
    intensity: Range | None = None,
    turned: Callable[[Image.Image], Image.Image] = _as_stored,
) -> Image.Image:
    """As `to_picture`, in RGB.

    Args:
        intensity: as of `read_rgb`.
    """
    picture = to_picture(image, turned)
    return picture.to_rgb(intensity) if isinstance(picture, DeepPicture) else picture


def _colours_in_rgb(image: Image.Image) -> Image.Image:
    if "transparency" in image.info or image.mode in _PREMULTIPLIED:
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return image.convert("RGB")


def colours(image: Image.Image, name: str) -> np.ndarray:
    """(H, W, 3) uint8: the red, green and blue of a picture whose colours are numbers, as they are stored.

    Raises:
        BadSample: it has no such colours.
    """
    try:
        return np.array(image.convert("RGB"))
    except DAMAGED as error:
        raise BadSample(f"{name} has no colours: {reason(error)}") from error


def open_picture(source: Path | BytesIO, name: str) -> Image.Image:
    """The picture in a file, or in what a file holds, as it is stored; `name` is what a message calls it."""
    try:
        return load(source)
    except FileNotFoundError as error:
        raise BadSample(f"{name} does not exist{near_it(source) if isinstance(source, Path) else ''}") from error
    except DAMAGED as error:
        raise BadSample(f"{name} cannot be decoded: {reason(error)}") from error


def load(source: Path | BytesIO) -> Image.Image:
    """The picture in a file as it is stored, the first frame of several.

    Raises:
        Exception: one of `DAMAGED`, if it is.
    """
    if isinstance(source, Path) and source.stat().st_size == 0:
        raise ValueError("it is empty")
    with warnings.catch_warnings():
        # Of pictures of which twice as large ones are refused, and of metadata that nobody looks at.
        warnings.simplefilter("ignore")
        with Image.open(source) as image:
            deep = has_deep_colours(image)
            image.load()
            _keep_orientation_alone(image)
            if deep:
                image.info[_ALL_BITS] = colours_of_png(_content(source)) if image.format == "PNG" else None
            return image


def _content(source: Path | BytesIO) -> bytes:
    return source.getvalue() if isinstance(source, BytesIO) else source.read_bytes()


def _keep_orientation_alone(image: Image.Image) -> None:
    """Forget all other EXIF data, which may be damaged without the picture being so, and it too if it is damaged."""
    try:
        exif = image.getexif()
    except DAMAGED:
        exif = image.getexif()  # it is read once, and is now what could be read
    for tag in list(exif):
        if tag != ExifTags.Base.Orientation or not _is_readable(exif, tag):
            del exif[tag]
    for raw in ("exif", "Raw profile type exif"):  # what PIL reads them from again when it turns the picture
        image.info.pop(raw, None)


def _is_readable(exif: Image.Exif, tag: int) -> bool:
    try:
        return isinstance(exif[tag], int)
    except DAMAGED:
        return False


def is_picture_name(name: str) -> bool:
    """Whether a file is called as pictures are that can be read."""
    known = Image.registered_extensions()
    form = known.get(Path(name).suffix.lower())
    return form in Image.OPEN and form not in _NOT_DECODED


def as_seen(
    image: Image.Image, orientation: ExifOrientation, name: str, annotated: AnnotatedSize = NOT_SAID
) -> Picture:
    """A stored picture as `orientation` says: in RGB, or with all its bits where it has more than 8.

    Args:
        annotated: what the annotation says of the picture's height and width.
    """
    try:
        return to_picture(image, lambda each: _oriented(each, orientation, annotated))
    except DAMAGED as error:
        raise BadSample(f"{name} has no colours: {reason(error)}") from error


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
    if isinstance(error, UnidentifiedImageError):
        # PIL names the object that it read from, which is a memory address.
        return "no known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # the file is named already
    return str(error) or type(error).__name__
