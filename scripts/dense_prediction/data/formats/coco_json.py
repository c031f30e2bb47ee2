"""What COCO's JSON files have in common: images, categories, and annotations that belong to images."""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ..annotations.instances import ObjectsOptions
from ..bad_samples import HINT, BadSample
from ..options import SplitPlaces, some
from ..samples import Glance


_logger = logging.getLogger(__name__)

Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class CocoJsonOptions(SplitPlaces, ObjectsOptions):
    annotations: dict[str, str] = Field(default_factory=dict, description="COCO JSON of each split, below path")


class CocoFile:
    """One JSON file.

    Attributes:
        images: the fields of each image, in the order of the file.
        categories: sorted by their ids.

    Raises:
        UserError: the file cannot be read, lacks one of its parts or a field that every entry needs, or an id is
            given twice or is no number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _read(path)
        self.images = _entries(content, "images", ("id", "file_name"), path)
        categories = _entries(content, "categories", ("id", "name"), path)
        self.annotations = _entries(content, "annotations", ("image_id",), path)
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

    def left_out(self, labels: list[str]) -> frozenset[int]:
        """Ids of the categories of which there is no class: the recipe leaves them out, or another file has none."""
        return frozenset(category["id"] for category in self.categories if category["name"] not in labels)

    def objects(self, part: str | None, crowds: bool) -> "PackedObjects":
        """Of which categories the objects of each image are.

        Args:
            part: which list of an annotation holds them; None where each annotation is one.
            crowds: count those that are marked as crowds by themselves.
        """
        names = {category["id"]: category["name"] for category in self.categories}
        return PackedObjects(self.images, _object_fields(self.annotations, part), names, crowds)

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
        if not skip:
            raise UserError(f"{message}; {HINT}")
        _logger.warning("skipped: %s", message)


def image_path(folder: Path, fields: Fields) -> Path:
    """Where an image is.

    Raises:
        BadSample: its file name is no text.
    """
    name = fields["file_name"]
    if not isinstance(name, str):
        raise BadSample(f"the file name of image {fields['id']} is {name!r}")
    return folder / name


def is_left_out(fields: Fields, left_out: Collection[int]) -> bool:
    """Whether an object is of a category that is no class."""
    category = fields.get("category_id")
    return isinstance(category, int) and category in left_out


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


class PackedObjects:
    """The categories of each image's objects as a few numbers, which can be looked at in seconds."""

    def __init__(
        self, images: list[Fields], objects: Iterable[tuple[Any, Fields]], names: dict[int, str], crowds: bool
    ) -> None:
        places = {image["id"]: place for place, image in enumerate(images)}
        codes = {category: code for code, category in enumerate(names)}
        found = [
            (places[image], _CROWD if crowds and fields.get("iscrowd") == 1 else _code(fields, codes))
            for image, fields in objects
            if isinstance(image, int) and image in places
        ]
        table = np.array(found, dtype=np.int32).reshape(-1, 2)
        table = table[table[:, 0].argsort(kind="stable")]
        self._codes = table[:, 1]
        self._bounds = np.searchsorted(table[:, 0], np.arange(len(images) + 1))
        self._names = list(names.values())

    def __getitem__(self, index: int) -> Glance:
        start, end = self._bounds[index : index + 2]
        codes = self._codes[start:end].tolist()
        objects = [None if code == _UNKNOWN else self._names[code] for code in codes if code != _CROWD]
        return Glance(objects, crowds=len(codes) - len(objects))


_CROWD, _UNKNOWN = -1, -2


def _code(fields: Fields, codes: dict[int, int]) -> int:
    category = fields.get("category_id")
    return codes.get(category, _UNKNOWN) if isinstance(category, int) else _UNKNOWN


def _object_fields(annotations: list[Fields], part: str | None) -> Iterator[tuple[Any, Fields]]:
    """Each object with the id of its image; what is no object is left to the reader of the sample."""
    for annotation in annotations:
        objects = [annotation] if part is None else annotation.get(part)
        for fields in objects if isinstance(objects, list) else []:
            if isinstance(fields, dict):
                yield annotation["image_id"], fields


def coco_labels(options: CocoJsonOptions, file: CocoFile) -> list[str]:
    """The names of the file's categories, sorted by id, or the recipe's; categories are matched by name.

    Raises:
        UserError: the recipe names a class that is no category of the file.
    """
    names = [category["name"] for category in file.categories]
    labels = options.class_names(names)
    strangers = [label for label in labels if label not in names]
    if strangers:
        raise UserError(f"data.labels: {some(strangers, 5)} is no category of {file.path}, it has {some(names)}")
    return labels


def _read(path: Path) -> Fields:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path.resolve()}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold images, annotations and categories, got a {type(content).__name__}")
    return content


def _entries(content: Fields, part: str, needed: tuple[str, ...], path: Path) -> list[Fields]:
    entries = content.get(part)
    if not isinstance(entries, list):
        raise UserError(f"{path} has no list of {part}, it has {', '.join(content)}")
    for position, entry in enumerate(entries):
        for field in needed:
            if not isinstance(entry, dict) or field not in entry:
                raise UserError(f"{path}: {part}[{position}] has no {field}")
    return entries


def _check_ids(entries: list[Fields], part: str, path: Path) -> None:
    """Refuse what merged files have: annotations of one entry would be taken for those of the other."""
    strangers = [entry["id"] for entry in entries if not isinstance(entry["id"], int)]
    if strangers:
        raise UserError(f"{path}: ids of {part} must be whole numbers, but {len(strangers)} are not: {strangers[:5]}")
    twice = [number for number, count in Counter(entry["id"] for entry in entries).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} ids of {part} are given more than once, such as {twice[:5]}")
