"""What COCO's JSON files have in common: images, categories, and annotations that belong to images."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ..annotations.coco_schema import category_entry, image_entry
from ..annotations.numbers import short, whole_number
from ..annotations.text_files import read_json
from ..bad_samples import HINT, BadSample, refuse_unless
from ..file_names import locate
from ..options import SplitPlaces


_logger = logging.getLogger(__name__)

Fields = dict[str, Any]

BAD = "bad"
"""The field of an image whose entry is a bad one, which says why."""


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class CocoJsonOptions(SplitPlaces):
    annotations: dict[str, str] = Field(default_factory=dict, description="COCO JSON of each split, below path")


class CocoFile:
    """One JSON file. An entry for which there is no place is passed over or refused.

    Args:
        skip: as `data.bad_samples` says.

    Attributes:
        images: the fields of each image, in the order of the file; those of a bad one are `bad`, which says why.
        categories: sorted by their ids.
        annotations: those that say which image they belong to, as they are but for ids of images and categories.

    Raises:
        UserError: the file cannot be read, lacks one of its parts or a field that every entry needs, or an id is
            given twice or is no number.
    """

    def __init__(self, path: Path, skip: bool) -> None:
        self.path = path
        content = _read(path)
        self.images = _images(_entries(content, "images", path), path, skip)
        categories = _categories(_entries(content, "categories", path), path)
        self.annotations = _annotations(_entries(content, "annotations", path), path, skip)
        _check_ids(self.images, "images", path)
        _check_ids(categories, "categories", path)
        self.categories = sorted(categories, key=lambda category: category["id"])

    def category_labels(self, labels: list[str]) -> dict[int, int]:
        """Category id -> the class id of its name; categories that `labels` does not name have none."""
        positions = {name: position for position, name in enumerate(labels)}
        return {
            category["id"]: positions[category["name"]]
            for category in self.categories
            if category["name"] in positions
        }

    def unused_root(self) -> Fields | None:
        """The category that all others are a kind of and no annotation is of, as Roboflow writes one."""
        roots = [category for category in self.categories if category.get("supercategory") == "none"]
        if len(roots) != 1 or len(self.categories) == 1:
            return None
        kinds = [category.get("supercategory") for category in self.categories if category is not roots[0]]
        if any(kind != roots[0]["name"] for kind in kinds) or roots[0]["id"] in self._used():
            return None
        return roots[0]

    def _used(self) -> set[int]:
        """The ids of categories that there are annotations or segments of."""
        segments = [annotation.get("segments_info") for annotation in self.annotations]
        listed = [segment for some in segments if isinstance(some, list) for segment in some]
        numbers = [entry.get("category_id") for entry in [*self.annotations, *listed] if isinstance(entry, dict)]
        return {number for number in numbers if isinstance(number, int)}

    def records(self, skip: bool) -> "PackedRecords":
        """For each image the pair of its fields and its annotations.

        Args:
            skip: leave out annotations of images that the file does not list, instead of raising `UserError`.
        """
        by_image: dict[Any, list[Fields]] = defaultdict(list)
        for annotation in self.annotations:
            by_image[annotation["image_id"]].append(annotation)
        unknown = by_image.keys() - {image["id"] for image in self.images}
        if unknown:
            self._report_unknown(sorted(unknown, key=str), sum(len(by_image[image]) for image in unknown), skip)
        return PackedRecords([(image, by_image.get(image["id"], [])) for image in self.images])

    def _report_unknown(self, images: list[Any], count: int, skip: bool) -> None:
        message = f"{self.path}: {count} annotations belong to images that it does not list, such as {images[:5]}"
        _pass_over(message, skip)


def image_path(folder: Path, fields: Fields) -> Path:
    """Where an image is.

    Raises:
        BadSample: its entry is bad, or its file name is none.
    """
    if BAD in fields:
        raise BadSample(fields[BAD])
    return locate(folder, fields["file_name"], f"image {fields['id']}")


class PackedRecords:
    """A list of JSON values in one block of memory, which forked loading processes share.

    As Python objects COCO's annotations take gigabytes, and every process that only reads them comes to own a copy.
    """

    def __init__(self, records: Sequence[Any]) -> None:
        texts = [json.dumps(record).encode() for record in records]
        self._bounds = np.cumsum([0, *(len(text) for text in texts)])
        self._text = np.frombuffer(b"".join(texts), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> Any:
        start, end = self._bounds[index : index + 2]
        return json.loads(self._text[start:end].tobytes())


def coco_labels(options: CocoJsonOptions, file: CocoFile) -> list[str]:
    """The names of the file's categories, sorted by id, or the recipe's; categories are matched by name.

    Raises:
        UserError: the recipe names a class that is no category of the file.
    """
    names = [category["name"] for category in file.categories]
    root = file.unused_root() if options.labels is None else None
    if root is not None:
        _logger.warning("%s: %r stands for all its categories and is no class: left out", file.path, root["name"])
    labels = options.class_names([category["name"] for category in file.categories if category is not root])
    strangers = [label for label in labels if label not in names]
    if strangers:
        raise UserError(
            f"data.labels: {', '.join(strangers[:5])} is no category of {file.path}, it has {', '.join(names[:20])}"
        )
    return labels


def _read(path: Path) -> Fields:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold images, annotations and categories, got a {type(content).__name__}")
    return content


def _entries(content: Fields, part: str, path: Path) -> list[Any]:
    entries = content.get(part)
    if not isinstance(entries, list):
        raise UserError(f"{path} has no list of {part}, it has {', '.join(content)}")
    return entries


def _images(entries: list[Any], path: Path, skip: bool) -> list[Fields]:
    """The fields of each, checked; a bad one keeps its place, in which its sample is passed over with its reason."""
    _check_numbers(entries, "images", path, some_may_be_bad=skip)
    images = []
    for position, entry in enumerate(entries):
        try:
            images.append(entry | image_entry(entry, f"{path}: images[{position}]"))
        except BadSample as error:
            refuse_unless(skip, error)
            images.append({"id": None, "file_name": None, BAD: str(error)})
    return images


def _categories(entries: list[Any], path: Path) -> list[Fields]:
    _check_numbers(entries, "categories", path)
    try:
        return [
            entry | category_entry(entry, f"{path}: categories[{position}]") for position, entry in enumerate(entries)
        ]
    except BadSample as error:
        raise UserError(str(error)) from error


def _annotations(entries: list[Any], path: Path, skip: bool) -> list[Fields]:
    """Those whose image is known; all else is checked when their sample is read."""
    kept, strangers = [], []
    for position, entry in enumerate(entries):
        if isinstance(entry, dict) and _has_ids(entry):
            kept.append(entry)
        else:
            strangers.append(f"{_called('annotations', position, entry)} {_why_strange(entry)}")
    if strangers:
        _pass_over(f"{path}: {strangers[0]}; so {len(strangers)} annotations belong to no image", skip)
    return kept


def _has_ids(annotation: Fields) -> bool:
    """Whether it says which image it belongs to. What stands for an id of it or of its category becomes an int."""
    for field in ("image_id", "category_id"):
        if type(annotation.get(field)) is not int:
            with suppress(ValueError):
                annotation[field] = whole_number(annotation.get(field))
    return type(annotation.get("image_id")) is int


def _why_strange(entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"is {short(entry)}, expected an object of JSON"
    return f"has the image_id {short(entry['image_id'])}" if "image_id" in entry else "has no image_id"


def _called(part: str, position: int, entry: Any) -> str:
    """`images[3] (id 42)`."""
    number = entry.get("id") if isinstance(entry, dict) else None
    return f"{part}[{position}]" + (f" (id {short(number)})" if number is not None else "")


def _pass_over(message: str, skip: bool) -> None:
    if not skip:
        raise UserError(f"{message}; {HINT}")
    _logger.warning("skipped: %s", message)


def _check_numbers(entries: list[Any], part: str, path: Path, some_may_be_bad: bool = False) -> None:
    strangers = [entry["id"] for entry in entries if isinstance(entry, dict) and "id" in entry and not _is_id(entry)]
    if strangers and not (some_may_be_bad and len(strangers) < len(entries)):
        raise UserError(
            f"{path}: ids of {part} must be whole numbers, but {len(strangers)} are not: {short(strangers[:5])}; "
            "number them from 1, and name the same numbers in the annotations"
        )


def _is_id(entry: Fields) -> bool:
    try:
        whole_number(entry["id"])
    except ValueError:
        return False
    return True


def _check_ids(entries: list[Fields], part: str, path: Path) -> None:
    """Refuse what merged files have: annotations of one entry would be taken for those of the other."""
    counts = Counter(entry["id"] for entry in entries if entry["id"] is not None)
    twice = [number for number, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} ids of {part} are given more than once, such as {twice[:5]}")
