"""What COCO's JSON files have in common: images, categories, and annotations that belong to images."""

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ..annotations.coco_annotated import Annotated, has_ids
from ..annotations.coco_schema import category_entry, image_entry
from ..annotations.file_names import locate
from ..annotations.instances import ObjectsOptions
from ..annotations.json_entries import Entries, PackedRecords, read_entries
from ..annotations.numbers import short, whole_number
from ..annotations.text_files import read_json
from ..bad_samples import HINT, BadSample, refuse_unless
from ..options import SplitPlaces, some
from ..samples import Glance


_logger = logging.getLogger(__name__)

Fields = dict[str, Any]

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio writes before the name of a file that was uploaded."""

BAD = "bad"
"""The field of an image whose entry is a bad one, which says why."""


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class CocoJsonOptions(SplitPlaces, ObjectsOptions):
    annotations: dict[str, str] = Field(default_factory=dict, description="COCO JSON of each split, below path")
    file_names: Literal["paths", "last_parts"] = Field(
        default="paths",
        description="how the JSON names images: by paths below their folder, or the last parts of paths count alone",
    )


class CocoImages:
    """What one JSON file says but for its annotations, which that of a test split lacks.

    Args:
        skip: as `data.bad_samples` says: an entry for which there is no place is passed over or refused.

    Attributes:
        images: the fields of each image, in the order of the file; those of a bad one are `bad`, which says why.
        categories: sorted by their ids.

    Raises:
        UserError: the file cannot be read, lacks one of its parts or a field that every entry needs, or an id is
            given twice or is no number.
    """

    def __init__(self, path: Path, skip: bool) -> None:
        self._take(path, read_json(path), skip)

    def _take(self, path: Path, content: Any, skip: bool) -> None:
        self.path = path
        self.content = _checked(content, path)
        self.images = _images(_entries(self.content, "images", path), path, skip)
        categories = _categories(_entries(self.content, "categories", path), path)
        _check_ids(self.images, "images", path)
        _check_ids(categories, "categories", path)
        self.categories = sorted(categories, key=lambda category: category["id"])

    @property
    def category_ids(self) -> dict[str, int]:
        """The id of each category by its name."""
        return {category["name"]: category["id"] for category in self.categories}


class CocoFile(CocoImages):
    """One JSON file with its annotations, which stay where they are.

    Args:
        part: which list of an annotation holds its objects; None where each annotation is one.

    Raises:
        UserError: as `CocoImages`, or it has no list of annotations, or one of them does not say which image it
            belongs to and is not to be skipped.
    """

    def __init__(self, path: Path, skip: bool, part: str | None = None) -> None:
        content, found, self._entries = read_entries(path, "annotations", partial(Annotated, part=part))
        self._take(path, content, skip)
        if found is None or self._entries is None:
            raise _lacks("annotations", self.content, path)
        self._found = found
        if strangers := found.settle(self._entries):
            (entry,) = self._entries.read(strangers[:1])
            called = f"{_called('annotations', strangers[0], entry)} {_why_strange(entry)}"
            _pass_over(f"{path}: {called}; so {len(strangers)} annotations belong to no image", skip)

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

    def objects(self, crowds: bool) -> "PackedObjects":
        """Of which categories the objects of each image are.

        Args:
            crowds: count those that are marked as crowds by themselves.
        """
        names = {category["id"]: category["name"] for category in self.categories}
        return PackedObjects([image["id"] for image in self.images], self._found, names, crowds)

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
        return self._found.used

    def records(self, skip: bool) -> "ImageRecords":
        """For each image the pair of its fields and its annotations.

        Args:
            skip: leave out annotations of images that the file does not list, instead of raising `UserError`.
        """
        ids = [image["id"] for image in self.images]
        known = {*ids, None}
        unknown = Counter(image for image in self._found.images if image not in known)
        if unknown:
            self._report_unknown(sorted(unknown, key=str), unknown.total(), skip)
        assert self._entries is not None  # or the file would have been refused
        return ImageRecords(PackedRecords(self.images), self._entries, _owners(ids, self._found))

    def _report_unknown(self, images: list[Any], count: int, skip: bool) -> None:
        message = f"{self.path}: {count} annotations belong to images that it does not list, such as {images[:5]}"
        _pass_over(message, skip)


def image_path(folder: Path, fields: Fields, file_names: str = "paths") -> Path:
    """Where an image is, by its name as `data.file_names` says.

    Raises:
        BadSample: its entry is bad, or its file name is none.
    """
    if BAD in fields:
        raise BadSample(fields[BAD])
    name, what = fields["file_name"], f"image {fields['id']}"
    if file_names == "paths" or not isinstance(name, str):
        return locate(folder, name, what)
    last = re.split(r"[/\\]", name)[-1]
    path, uploaded = locate(folder, last, what), _UPLOADED.sub("", last)
    return path if uploaded == last or os.path.exists(path) else locate(folder, uploaded, what)


def is_left_out(fields: Fields, left_out: Collection[int]) -> bool:
    """Whether an object is of a category that is no class."""
    category = fields.get("category_id")
    return isinstance(category, int) and category in left_out


_NOBODY = -1


class ImageRecords:
    """The fields of each image with its annotations, which are read when they are asked for.

    Args:
        owners: (N,) the place of the image of each annotation; less than 0 for none.
    """

    def __init__(self, images: PackedRecords, annotations: Entries, owners: np.ndarray) -> None:
        self.images, self.annotations = images, annotations
        self._order, self._bounds = _grouped(owners, len(images))

    def __len__(self) -> int:
        return len(self.images)

    def names(self) -> list[str]:
        """The file names of all images."""
        return [str(self.images[index]["file_name"]) for index in range(len(self))]

    def __getitem__(self, index: int) -> tuple[Fields, list[Fields]]:
        start, end = self._bounds[index : index + 2]
        annotations = self.annotations.read(self._order[start:end].tolist())
        for annotation in annotations:
            has_ids(annotation)
        return self.images[index], annotations


class PackedObjects:
    """The categories of each image's objects as a few numbers, which can be looked at in seconds."""

    def __init__(self, ids: Sequence[Any], found: Annotated, names: Mapping[int, str], crowds: bool) -> None:
        numbers: dict[int | None, int] = {category: code for code, category in enumerate(names)}
        kinds = [numbers.get(category, _UNKNOWN) for category in found.categories]
        codes = np.where(np.array(found.crowds, dtype=bool) & crowds, _CROWD, np.array(kinds, dtype=np.int32))
        order, self._bounds = _grouped(_owners(ids, found)[found.owners], len(ids))
        self._codes = codes[order]
        self._names = list(names.values())

    def __getitem__(self, index: int) -> Glance:
        start, end = self._bounds[index : index + 2]
        codes = self._codes[start:end].tolist()
        objects = [None if code == _UNKNOWN else self._names[code] for code in codes if code != _CROWD]
        return Glance(objects, crowds=len(codes) - len(objects))


_CROWD, _UNKNOWN = -1, -2


def _owners(ids: Sequence[Any], found: Annotated) -> np.ndarray:
    """(N,) the place of the image of each annotation."""
    places = {number: place for place, number in enumerate(ids) if number is not None}
    return np.array([places.get(image, _NOBODY) for image in found.images], dtype=np.int32)


def _grouped(owners: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) the order in which the things of the first owner come first, and (count + 1,) where those of each begin."""
    order = owners.argsort(kind="stable").astype(np.int32)
    return order, np.searchsorted(owners[order], np.arange(count + 1))


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
        raise UserError(f"data.labels: {some(strangers, 5)} is no category of {file.path}, it has {some(names)}")
    return labels


def _checked(content: Any, path: Path) -> Fields:
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold images, annotations and categories, got a {type(content).__name__}")
    return content


def _entries(content: Fields, part: str, path: Path) -> list[Any]:
    entries = content.get(part)
    if not isinstance(entries, list):
        raise _lacks(part, content, path)
    return entries


def _lacks(part: str, content: Fields, path: Path) -> UserError:
    return UserError(f"{path} has no list of {part}, it has {', '.join(content)}")


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
