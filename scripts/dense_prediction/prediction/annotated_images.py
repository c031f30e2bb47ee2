"""Pictures that a COCO JSON file lists: its ids for them, and the results that COCO's own tools read."""

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from ..data.annotations.instances import check_size
from ..data.deep_pictures import Range
from ..data.formats.coco_json import BAD, CocoImages
from ..data.images import AnnotatedSize, read_rgb
from ..errors import UserError


_logger = logging.getLogger(__name__)

Fields = dict[str, Any]

_RESULT_FIELDS = ("image_id", "category_id", "bbox", "segmentation", "score")
"""What COCO's results have of a prediction."""


class AnnotatedImages:
    """The pictures that a COCO JSON file lists, by their file names, and its categories by theirs.

    Args:
        paths: pictures; those that the file does not list are left out, which is logged.

    Attributes:
        entries: what the file says of each of the others.

    Raises:
        UserError: the file cannot be read, lists none of the pictures, or does not tell two of them apart.
    """

    def __init__(self, file: Path, paths: Iterable[Path]) -> None:
        self.file = file
        content = CocoImages(file, skip=True)
        self._category_ids = {category["name"]: category["id"] for category in content.content["categories"]}
        by_name: dict[str, list[Fields]] = defaultdict(list)
        for image in _with_their_ids(content):
            if isinstance(image["file_name"], str) and (parts := _parts(image["file_name"])):
                by_name[parts[-1]].append(image)
        given = {path: by_name.get(_parts(path.name)[-1]) for path in paths}
        found = {path: self._choose(path, entries) for path, entries in given.items() if entries}
        if not found:
            raise UserError(f"{file} lists none of the {len(given)} pictures, such as {next(iter(given))}")
        if len(found) < len(given):
            unknown = len(given) - len(found)
            _logger.warning("%d of %d pictures are left out: %s does not list them", unknown, len(given), file)
        _refuse_twins(found, file)
        self.entries = found

    def _choose(self, path: Path, entries: list[Fields]) -> Fields:
        """The entry whose file name the picture's path ends with, else the only one with the same last part."""
        parts = _parts(str(path.absolute()))
        names = [(_parts(entry["file_name"]), entry) for entry in entries]
        ending = [(len(name), entry) for name, entry in names if parts[-len(name) :] == name]
        if ending:  # a.jpg and b/a.jpg may both fit x/b/a.jpg: the longer one says more
            return max(ending, key=lambda pair: pair[0])[1]
        if len(entries) > 1:
            raise UserError(
                f"{self.file} has {len(entries)} images called {path.name}, and {path} may be any of them: give the "
                f"pictures in folders as in {entries[0]['file_name']}"
            )
        return entries[0]

    def read(self, path: Path, intensity: Range | None = None) -> Image.Image:
        """The RGB picture as it was annotated: EXIF data turn it if the file's height and width do not say otherwise.

        Args:
            intensity: which numbers of a picture of more than 8 bits are black and white.

        Raises:
            BadSample: it cannot be read.
        """
        return read_rgb(path, "auto", self._size(path), intensity)

    def check_labels(self, labels: Sequence[str]) -> None:
        """Refuse a model with a class that the file does not know.

        Raises:
            UserError: for it.
        """
        strangers = [label for label in labels if label not in self._category_ids]
        if strangers:
            raise UserError(
                f"the model's classes {', '.join(strangers[:5])} are no categories of {self.file}, which has "
                f"{', '.join(list(self._category_ids)[:20])}"
            )

    def identify(self, path: Path, described: Fields) -> Fields:
        """What `evaluation.coco_output.describe` says of a picture, with the file's ids of images and categories.

        Raises:
            BadSample: the picture is not as high and wide as the file says, so that nothing would be where it is.
        """
        entry, image = self.entries[path], described["image"]
        check_size((image["height"], image["width"]), self._size(path), path)
        ids, number = self._category_ids, entry["id"]
        return {
            "image": {"id": number} | image,
            "categories": [each | {"id": ids[each["name"]]} for each in described["categories"]],
            "annotations": [
                {"image_id": number} | each | {"category_id": ids[each["category"]]}
                for each in described["annotations"]
            ],
        }

    def _size(self, path: Path) -> AnnotatedSize:
        return self.entries[path].get("height"), self.entries[path].get("width")


def coco_results(identified: Fields) -> list[Fields]:
    """What `loadRes` of pycocotools reads: an entry for each prediction in a picture."""
    return [
        {field: annotation[field] for field in _RESULT_FIELDS if field in annotation}
        for annotation in identified["annotations"]
    ]


def _with_their_ids(content: CocoImages) -> Iterator[Fields]:
    """The images, checked, with their ids as the file writes them: COCO's own tools do not take "5" for 5."""
    for checked, entry in zip(content.images, content.content["images"], strict=True):
        if BAD not in checked:
            yield checked | {"id": entry["id"]}


def _parts(name: str) -> tuple[str, ...]:
    """Of a path as any system writes it, with accents as one letter together with theirs."""
    return PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/")).parts


def _refuse_twins(found: Mapping[Path, Fields], file: Path) -> None:
    owners: dict[Any, Path] = {}
    for path, entry in found.items():
        other = owners.setdefault(entry["id"], path)
        if other != path:
            raise UserError(f"{other} and {path} would both be {entry['file_name']} of {file}: give one of them")
