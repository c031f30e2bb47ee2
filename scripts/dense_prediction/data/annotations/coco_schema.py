"""What an entry of COCO's JSON files must look like: one schema for images, categories, annotations and segments.

Each function takes what the file says and gives the fields that are read, checked and with ids as ints. It takes some
microseconds, and a file may hold a million annotations: theirs are checked when their sample is read.
"""

from collections.abc import Callable
from typing import Annotated, Any, NotRequired

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict

from ..bad_samples import BadSample
from .file_names import can_be_written
from .instances import area_of, box_of, crowd_of
from .numbers import Fault, flag, short, whole_number


Fields = dict[str, Any]


def _side(value: Any) -> int | None:
    """Of a picture in pixels; 0 and nothing stand for unknown."""
    return (whole_number(value) or None) if value or isinstance(value, bool) else None


def _class_name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not can_be_written(value):
        raise ValueError("expected text, in quotes")
    return value


def _box(value: Any) -> Any:
    """None where only a mask is given."""
    return None if value is None or value == [] else box_of(value)


Id = Annotated[int, BeforeValidator(whole_number)]
Side = Annotated[int | None, BeforeValidator(_side)]
Flag = Annotated[bool, BeforeValidator(flag)]
ClassName = Annotated[str, BeforeValidator(_class_name)]


class ImageEntry(TypedDict):
    """`file_name` is checked by `locate`, which is told the folder."""

    id: Id
    file_name: Any
    height: NotRequired[Side]
    width: NotRequired[Side]


class CategoryEntry(TypedDict):
    id: Id
    name: ClassName
    isthing: NotRequired[Flag]


class AnnotationEntry(TypedDict):
    """`segmentation` is checked by `decode_segmentation`, which is told the picture's size."""

    id: NotRequired[Any]
    category_id: Id
    bbox: NotRequired[Annotated[Any, BeforeValidator(_box)]]
    area: NotRequired[Annotated[Any, BeforeValidator(area_of)]]
    iscrowd: NotRequired[Annotated[bool, BeforeValidator(crowd_of)]]
    segmentation: NotRequired[Any]


class SegmentEntry(TypedDict):
    id: NotRequired[Id]
    category_id: NotRequired[Id]
    iscrowd: NotRequired[Annotated[bool, BeforeValidator(crowd_of)]]


class PanopticEntry(TypedDict):
    """`file_name` is checked by `locate`."""

    file_name: NotRequired[Any]
    segments_info: NotRequired[list[SegmentEntry]]


def _checked_by(schema: type[Any]) -> Callable[[Any, str], Any]:
    adapter = TypeAdapter(schema)

    def check(fields: Any, name: str) -> Any:
        try:
            return adapter.validate_python(fields)
        except ValidationError as error:
            text = _explain(error.errors(include_url=False)[0])
            raise BadSample(f"{name}{' ' if text.startswith('has no ') else ': '}{text}") from error

    return check


image_entry = _checked_by(ImageEntry)
category_entry = _checked_by(CategoryEntry)
annotation_entry = _checked_by(AnnotationEntry)
panoptic_entry = _checked_by(PanopticEntry)


def _explain(details: ErrorDetails) -> str:
    """The first fault that was found, in words."""
    field = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "missing":
            return f"has no {field}"
        case "value_error" if isinstance(details["ctx"]["error"], Fault):
            return str(details["ctx"]["error"])
        case "value_error":
            return f"{field} is {short(details['input'])}, {details['ctx']['error']}"
        case kind:
            expected = "a list" if kind == "list_type" else "an object of JSON"
            return f"{field or 'it'} is {short(details['input'])}, expected {expected}"
