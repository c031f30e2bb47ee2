"""Pictures that a person names: files and folders of them, and what is written for each."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..data.formats.folders import images_below
from ..data.images import DAMAGED, load, reason, to_rgb
from ..errors import UserError


OVERLAY_SUFFIX = ".overlay.png"
FEATURES_SUFFIX = ".features.png"
LABELS_SUFFIX = ".labels.png"

_WRITTEN = (OVERLAY_SUFFIX, FEATURES_SUFFIX, LABELS_SUFFIX)


def find_images(paths: Iterable[Path]) -> dict[Path, Path]:
    """The given files, and the images in the given folders and their folders in natural order, each once.

    What these scripts have written before is left out of folders.

    Returns:
        For each image its path below the given folder; of a file that was given, its name.

    Raises:
        UserError: a path does not exist, or there is nothing to do.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no image or folder {path}")
        images, root = (_images_in(path), path) if path.is_dir() else ([path], path.parent)
        found |= {image: image.relative_to(root) for image in images if image not in found}
    if not found:
        raise UserError(f"no image in {', '.join(str(path) for path in paths)}")
    return found


def natural_order(path: Path) -> tuple[list[list[str | int]], str]:
    """Sorts frame_2 before frame_10: digits count as numbers."""
    pieces = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    return [[int(piece) if piece.isdecimal() else piece for piece in part] for part in pieces], str(path)


def output_stems(images: Mapping[Path, Path], folder: Path | None) -> dict[Path, Path]:
    """Where what is written for each image goes, to be completed by a suffix: beside it, or in `folder`.

    `a.png` and `a.jpg` in one folder keep their suffixes, so that neither overwrites what belongs to the other.

    Args:
        images: each with its place below `folder`, see `find_images`.

    Raises:
        UserError: two images would still be written to one place.
    """
    short = {image: (folder / place if folder else image).with_suffix("") for image, place in images.items()}
    taken = Counter(short.values())
    stems = {image: stem if taken[stem] == 1 else stem.with_name(image.name) for image, stem in short.items()}
    places: dict[Path, Path] = {}
    for image, stem in stems.items():
        if stem in places:
            raise UserError(f"{places[stem]} and {image} would both be written to {stem}.*: give them one by one")
        places[stem] = image
    return stems


def make_folder(folder: Path | None) -> None:
    """Make the folder that was asked for, if one was."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error


def read_image(path: Path) -> Image.Image:
    """The RGB image that a person sees: turned as its EXIF data say, the first frame of several, 16 bits made 8.

    Raises:
        UserError: the file is damaged, no image, or its numbers are no colours.
    """
    try:
        return to_rgb(ImageOps.exif_transpose(load(path)))
    except DAMAGED as error:
        raise UserError(f"cannot read {path} as an image: {reason(error)}") from error


def to_image(picture: Image.Image | np.ndarray) -> Image.Image:
    """A picture in RGB.

    Args:
        picture: of PIL, or an array (height, width, 3) or (height, width) of 8 bits.

    Raises:
        UserError: it is neither, or its numbers are no colours.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] not in ((), (3,)) or picture.ndim < 2:
            raise UserError(
                f"an array of shape {picture.shape} and type {picture.dtype} is no picture: give one of 8 bits "
                "(uint8) and shape (height, width, 3), in the order red, green, blue"
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise UserError(f"expected a file, a picture of PIL or an array of numpy, got a {type(picture).__name__}")
    try:
        return to_rgb(picture)
    except DAMAGED as error:
        raise UserError(f"the picture has no colours: {reason(error)}") from error


def _images_in(folder: Path) -> list[Path]:
    files = (path for path in images_below(folder) if path.is_file())
    return sorted((path for path in files if not path.name.endswith(_WRITTEN)), key=natural_order)
