"""From a row of the `datasets` library to a sample."""

from io import BytesIO
from pathlib import PurePath
from typing import Any, Protocol, TypeAlias

import datasets
import numpy as np
from datasets.utils.file_utils import xopen
from PIL import Image

from ...errors import UserError
from ..annotations.file_names import can_be_written
from ..annotations.instances import Instance, ObjectsOptions, instance_fields, is_left_out, spellings
from ..annotations.numbers import whole_number
from ..annotations.semantic_maps import SemanticIds, SemanticOptions, count_ids
from ..bad_samples import BadSample
from ..deep_pictures import Picture
from ..images import NOT_SAID, AnnotatedSize, as_seen, open_picture, reason
from ..options import DataOptions, ExifOrientation, it_has
from ..samples import Glance, Sample, new_sample


Row = dict[str, Any]
Rows: TypeAlias = datasets.Dataset | datasets.IterableDataset


class RowReader(Protocol):
    """How rows become samples.

    Attributes:
        labels: class names in the order of their ids.
        things: ids of the countable classes.
        image_column: where the image is.
        annotation_column: where what is annotated is.
        category_ids: what the rows call each class; None where that is its id.
    """

    labels: list[str]
    things: frozenset[int]
    image_column: str
    annotation_column: str
    category_ids: list[int] | None

    def undecoded(self, rows: Rows) -> Rows:
        """The rows with the bytes of their pictures, so that one that cannot be decoded is caught with its name."""

    def read(self, row: Row, place: str, image_id: int) -> Sample:
        """The sample in an undecoded row; `place` says where the row stands."""

    def glance(self, row: Row, place: str) -> Glance:
        """What is annotated in an undecoded row, which may lack its image."""


class SemanticReader:
    """Rows with an image and a label, a picture of ids or nested lists of them.

    Args:
        columns: of the image and the label.
    """

    things: frozenset[int] = frozenset()

    def __init__(self, options: SemanticOptions, features: datasets.Features, columns: tuple[str, str]) -> None:
        self.image_column, self.annotation_column = columns
        self.orientation = options.exif_orientation
        check_columns(options, features, columns)
        label = features[self.annotation_column]
        self.label_is_image = is_picture(label)
        known = class_names(label)
        self.labels = options.class_names(known)
        if known and known != self.labels and set(self.labels) <= set(known):
            raise UserError(
                f"data.labels={self.labels}: a map has all its classes, in the order of their ids: {', '.join(known)}"
            )
        self.category_ids = options.category_ids(self.labels)
        self.ids = SemanticIds.of(options, self.labels)

    def undecoded(self, rows: Rows) -> Rows:
        rows = rows.cast_column(self.image_column, datasets.Image(decode=False))
        return rows.cast_column(self.annotation_column, datasets.Image(decode=False)) if self.label_is_image else rows

    def read(self, row: Row, place: str, image_id: int) -> Sample:
        name = row_name(row, place, self.image_column)
        ids = self._ids(row, name)
        image = decode_picture(row[self.image_column], self.orientation, f"{name}: image", ids.shape[:2])
        semantic_map = self.ids.to_map(ids, (image.height, image.width), name)
        return new_sample(image, name, image_id) | {"semantic_map": semantic_map}

    def glance(self, row: Row, place: str) -> Glance:
        return count_ids(self._ids(row, name := row_name(row, place, self.image_column)), name)

    def _ids(self, row: Row, name: str) -> np.ndarray:
        label = row[self.annotation_column]
        return self.ids.read(decode(label, f"{name}: label"), name) if self.label_is_image else to_array(label, name)


class ObjectsReader:
    """Rows with an image and its objects: bbox and category, and perhaps area and is_crowd or iscrowd, of each.

    Args:
        columns: of the image and the objects.
        box_format: of a bbox, xywh, xyxy or cxcywh.
    """

    category_ids: list[int] | None = None

    def __init__(
        self, options: ObjectsOptions, features: datasets.Features, columns: tuple[str, str], box_format: str
    ) -> None:
        self.image_column, self.annotation_column = columns
        self.box_format, self.orientation = box_format, options.exif_orientation
        check_columns(options, features, columns)
        fields = object_features(features[self.annotation_column])
        self.box_field, self.category_field = (_one_of(names, fields) for names in (BOX_FIELDS, CATEGORY_FIELDS))
        missing = [names[0] for names in (BOX_FIELDS, CATEGORY_FIELDS) if _one_of(names, fields) not in fields]
        if missing:
            raise UserError(
                f"{options.path}: column {self.annotation_column!r} has no {' and no '.join(missing)}{it_has(fields)}"
            )
        known = class_names(fields[self.category_field])
        self.labels = options.class_names(known)
        self.things = frozenset(range(len(self.labels)))
        # A recipe chooses among the names of the data, or names the ids of data whose names it does not use.
        self.names = dict(enumerate(known if known and set(self.labels) <= set(known) else self.labels))
        self.spellings, self.crowds = spellings(self.labels), options.crowds == "ignore"

    def undecoded(self, rows: Rows) -> Rows:
        return rows.cast_column(self.image_column, datasets.Image(decode=False))

    def read(self, row: Row, place: str, image_id: int) -> Sample:
        name = row_name(row, place, self.image_column)
        annotated = row.get("height"), row.get("width")
        image = decode_picture(row[self.image_column], self.orientation, f"{name}: image", annotated)
        found = as_list(row[self.annotation_column], name)
        objects = [self._instance(fields) for fields in found if not self._is_left_out(fields)]
        boxes = instance_fields(objects, (image.height, image.width), name, self.box_format)
        return new_sample(image, name, image_id) | boxes

    def glance(self, row: Row, place: str) -> Glance:
        objects = as_list(row[self.annotation_column], row_name(row, place, self.image_column))
        found = [self._category(fields) for fields in objects if self._crowd(fields) != 1]
        return Glance(found, crowds=len(objects) - len(found))

    def _category(self, fields: Row) -> str | None:
        """The name of an object's category, if it has one.

        Some datasets write the names themselves, some write numbers as text, and what has once had gaps is a float.
        """
        category = fields.get(self.category_field)
        if isinstance(category, str) and (category in self.labels or not category.strip().isdecimal()):
            return category
        try:
            return self.names.get(whole_number(category))
        except ValueError:
            return None

    def _is_left_out(self, fields: Row) -> bool:
        return (category := self._category(fields)) is not None and is_left_out(category, self.spellings)

    def _crowd(self, fields: Row) -> Any:
        return (fields.get("is_crowd") or fields.get("iscrowd")) if self.crowds else None

    def _instance(self, fields: Row) -> Instance:
        category = self._category(fields)
        label = self.labels.index(category) if category in self.labels else None
        box, named = fields.get(self.box_field), fields.get(self.category_field)
        return Instance(box, label, named, self._crowd(fields), fields.get("area"))


LISTS = datasets.List, datasets.LargeList

BOX_FIELDS = ("bbox", "bboxes", "box", "boxes")
CATEGORY_FIELDS = ("category", "categories", "label", "labels")
"""What data sets call the two things that every object has; the first that there is is read."""

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    datasets.exceptions.DatasetsError,
)
"""What `datasets` raises depends on the builder, the files, the network and the Hub; all of it means this."""


def check_columns(options: DataOptions, features: datasets.Features, columns: tuple[str, ...]) -> None:
    """The first one is that of the image."""
    for column in columns:
        if column not in features:
            raise UserError(
                f"{options.path} has no column {column!r}, it has {', '.join(features)}; set data.image_column, "
                "data.label_column or data.objects_column"
            )
    image = features[columns[0]]
    if not is_picture(image) and getattr(image, "dtype", None) not in ("string", "large_string"):
        raise UserError(f"{options.path}: column {columns[0]!r} holds no pictures, set data.image_column: {image}")


def _one_of(names: tuple[str, ...], fields: dict[str, Any]) -> str:
    """The first that there is, else the usual one."""
    return next((name for name in names if name in fields), names[0])


def decode(value: dict[str, Any] | None, name: str) -> Image.Image:
    """The picture in an undecoded cell of a dataset, `{"bytes", "path"}`, as it is stored."""
    if value is None or not (value["bytes"] or value["path"]):
        raise BadSample(f"{name} is empty")
    return open_picture(BytesIO(value["bytes"] or _content(value["path"], name)), name)


def decode_picture(
    value: dict[str, Any] | None, orientation: ExifOrientation, name: str, annotated: AnnotatedSize = NOT_SAID
) -> Picture:
    """As `decode`, turned as `orientation` says: in RGB, or with all its bits where it has more than 8."""
    return as_seen(decode(value, name), orientation, name, annotated)


def _content(path: str, name: str) -> bytes:
    """What a file holds, which may be on the Hub or in an archive."""
    if not can_be_written(path) or "\0" in path or ".." in PurePath(path).parts:
        raise BadSample(f"{name}: its file is {path!r}: expected a path without ..")
    try:
        with xopen(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise BadSample(f"{name}: {path} does not exist") from error
    except OSError as error:
        text = f"{name}: cannot read {path}: {reason(error)}"
        # The network, say, is no fault of the sample.
        raise (UserError if "://" in path else BadSample)(text) from error


def is_picture(feature: Any) -> bool:
    """Whether a column holds pictures: as such, or as bytes in a parquet file that `datasets` has not written."""
    if isinstance(feature, dict):
        return feature.keys() == {"bytes", "path"}
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in ("binary", "large_binary")


def to_array(numbers: Any, name: str) -> np.ndarray:
    """Nested lists as an array.

    Raises:
        BadSample: they are no rectangle.
    """
    try:
        return np.array(numbers)
    except ValueError as error:
        raise BadSample(f"{name}: the rows of the label have different lengths") from error


def class_names(feature: Any) -> list[str] | None:
    """Names in a column of `ClassLabel`s, or of lists of them; a column of images or numbers holds no names."""
    while isinstance(feature, LISTS):
        feature = feature.feature
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def object_features(feature: Any) -> dict[str, Any]:
    """The fields of a column of objects, a list of structures or a structure of lists."""
    while isinstance(feature, LISTS):
        feature = feature.feature
    return feature if isinstance(feature, dict) else {}


def as_list(objects: Any, name: str) -> list[Row]:
    """One dictionary for each object, from either way of keeping them.

    Raises:
        BadSample: the lists differ in length.
    """
    if not isinstance(objects, dict):
        if not all(isinstance(fields, dict) for fields in objects or []):
            raise BadSample(f"{name}: an object is empty")
        return objects or []
    columns = {key: values for key, values in objects.items() if values is not None}
    if single := [key for key, values in columns.items() if not isinstance(values, list)]:
        raise BadSample(f"{name}: {single[0]} of its objects is no list")
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadSample(f"{name}: the lists of its objects have different lengths: {lengths}")
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def row_file(row: Row, image_column: str) -> str | None:
    """The file that the row's image was read from, or what the row itself is called, if it says."""
    return (row.get(image_column) or {}).get("path") or row.get("name")


def row_name(row: Row, place: str, image_column: str) -> str:
    """What a person finds the sample by: its file if it has one, and its place in the split."""
    file = row_file(row, image_column)
    return f"{place} ({file})" if file else place
