"""Where Pascal VOC keeps what it says of a picture, and how its lists and XML files are read."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..annotations.file_names import locate, near_it, with_stem
from ..annotations.text_files import decode, read_lines
from ..bad_samples import BadSample
from ..images import is_picture_name


_logger = logging.getLogger(__name__)

IMAGES, BOXES, MASKS, LISTS = "JPEGImages", "Annotations", "SegmentationClass", "ImageSets"

FLAGS = {"-1", "0", "1"}
"""What a list of one class, such as cat_train.txt, says of each picture after its name: -1 if it does not show it."""


class MaskPairs(Sequence[tuple[Path, Path]]):
    """The image and the mask of each name, looked for when they are read."""

    def __init__(self, root: Path, stems: Sequence[str]) -> None:
        self.root = root
        self.stems = stems

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # no slices, which the type of a Sequence has
        stem = self.stems[index]
        return image_file(self.root / IMAGES, stem), locate(self.root / MASKS, f"{stem}.png", f"the mask of {stem!r}")


def read_stems(path: Path, root: Path) -> list[str]:
    """The names of a list's pictures, without folder and suffix; a name may have spaces.

    Of a list of one class, those that show it.
    """

    def is_known(name: str) -> bool:
        places = root / BOXES / f"{name}.xml", root / MASKS / f"{name}.png"
        return any(os.path.exists(place) for place in places)

    lines = read_lines(path)
    flagged = [line.rsplit(maxsplit=1) for line in lines]
    if lines and all(len(parts) == 2 and parts[1] in FLAGS for parts in flagged) and not is_known(lines[0]):
        kept = [name for name, flag in flagged if flag != "-1"]
        _logger.warning("%s: the %d of %d pictures that show its class are taken", path, len(kept), len(lines))
        lines = kept
    return [Path(line).stem if is_picture_name(line) and not is_known(line) else line for line in lines]


def image_file(folder: Path, stem: str, file_name: str | None = None) -> Path:
    """The picture of a name: NAME.jpg, or with another suffix, or what its XML file calls it.

    Raises:
        BadSample: a name leads out of the folder.
    """
    usual = locate(folder, f"{stem}.jpg", f"picture {stem!r}")
    if os.path.exists(usual):
        return usual
    others = [path for path in with_stem(usual.with_suffix("")) if is_picture_name(path.name)]
    if others or not file_name:
        return others[0] if others else usual
    named = locate(folder, file_name, f"picture {stem!r}")
    return named if os.path.exists(named) else usual


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file, also where its encoding is not what it says.

    Raises:
        BadSample: it does not exist, or is no XML.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadSample(f"{path} does not exist{near_it(path)}") from error
    except OSError as error:
        raise BadSample(f"{path} cannot be read: {error.strerror}") from error
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return _parse_again(data, path, error)


def _parse_again(data: bytes, path: Path, first: Exception) -> ElementTree.Element:
    """As text in the encoding that it seems to be in."""
    try:
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", decode(data, path)))
    except (ElementTree.ParseError, ValueError):
        raise BadSample(f"{path} is not XML: {first}") from first
