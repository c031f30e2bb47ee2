"""Pictures that a person names: files and folders of them, and what is written for each."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from ..data.deep_pictures import DeepPicture, Range, has_deep_colours
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


def read_image(path: Path, intensity: Range | None = None) -> Image.Image:
    """The RGB image that a person sees: turned as its EXIF data say, the first frame of several, in 8 bits.

    Args:
        intensity: which numbers of a picture of more than 8 bits are black and white, see `DeepPicture.to_rgb`.

    Raises:
        UserError: the file is damaged, no image, or its numbers are no colours.
    """
    try:
        return to_rgb(load(path), intensity, ImageOps.exif_transpose)
    except DAMAGED as error:
        raise UserError(f"cannot read {path} as an image: {reason(error)}") from error


def to_image(picture: Image.Image | np.ndarray, intensity: Range | None = None) -> Image.Image:
    """A picture in RGB.

    Args:
        picture: of PIL, or an array (height, width, 3) or (height, width) of 8 bits, or of more with an intensity.
        intensity: as of `read_image`.

    Raises:
        UserError: it is neither, or its numbers are no colours.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture, intensity)
    if not isinstance(picture, Image.Image):
        raise UserError(f"expected a file, a picture of PIL or an array of numpy, got a {type(picture).__name__}")
    if isinstance(picture, ImageFile.ImageFile) and has_deep_colours(picture):
        raise UserError("the picture has colours of 16 bits, of which PIL keeps 8: give its file, or an array")
    try:
        return to_rgb(picture, intensity)
    except DAMAGED as error:
        raise UserError(f"the picture has no colours: {reason(error)}") from error


def _from_array(pixels: np.ndarray, intensity: Range | None) -> Image.Image:
    is_deep = intensity is not None and pixels.dtype.kind in "iuf"
    if (pixels.dtype != np.uint8 and not is_deep) or pixels.shape[2:] not in ((), (3,)) or pixels.ndim < 2:
        raise UserError(
            f"an array of shape {pixels.shape} and type {pixels.dtype} is no picture: give one of 8 bits "
            "(uint8) and shape (height, width, 3), in the order red, green, blue"
        )
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels).convert("RGB")
    return DeepPicture(pixels).to_rgb(intensity)


def _images_in(folder: Path) -> list[Path]:
    files = (path for path in images_below(folder) if path.is_file())
    return sorted((path for path in files if not path.name.endswith(_WRITTEN)), key=natural_order)
