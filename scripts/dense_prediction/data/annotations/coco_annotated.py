"""Which image each of COCO's annotations belongs to, and what it shows: all that is kept of them in memory."""

from array import array
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from .json_entries import Entries
from .numbers import whole_number


Fields = dict[str, Any]


class Annotated:
    """What annotations say of images and categories.

    Args:
        entries: annotations, of which some may be none.
        part: which list of an annotation holds its objects; None where each annotation is one.

    Attributes:
        images: the id of each one's image; None of what is no annotation, and until `settle` of what is in doubt.
        owners: of each object, the place of its annotation.
        categories: of each object, the number of its category; None where it says none.
        crowds: of each object, 1 if it is marked as a crowd.
        used: numbers of categories that there are annotations or segments of.
    """

    def __init__(self, entries: Iterator[Any], part: str | None = None) -> None:
        self.part = part
        self.images: list[int | None] = []
        self.owners, self.crowds = array("i"), array("b")
        self.categories: list[int | None] = []
        self.used: set[int] = set()
        self._doubtful: list[int] = []
        for position, entry in enumerate(entries):
            is_plain = type(entry) is dict and type(entry.get("image_id")) is int
            self.images.append(entry["image_id"] if is_plain else None)
            if is_plain:
                self._add(position, entry)
            else:
                self._doubtful.append(position)

    def settle(self, entries: Entries) -> list[int]:
        """Look closely at those that do not say their image as a plain number, and return the places of strangers."""
        strangers = []
        for position, entry in zip(self._doubtful, entries.read(self._doubtful)):
            if isinstance(entry, dict) and has_ids(entry):
                self.images[position] = entry["image_id"]
                self._add(position, entry)
            else:
                strangers.append(position)
        self._doubtful = []
        return strangers

    def _add(self, position: int, entry: Fields) -> None:
        category = _category(entry)
        if category is not None:
            self.used.add(category)
        if self.part is None:
            self._add_object(position, entry, category)
            return
        listed = entry.get(self.part)
        for fields in listed if isinstance(listed, list) else []:
            if isinstance(fields, dict):  # what is no object is left to the reader of the sample
                number = _category(fields)
                self._add_object(position, fields, number)
                if isinstance(fields.get("category_id"), int) and number is not None:
                    self.used.add(number)

    def _add_object(self, position: int, fields: Fields, category: int | None) -> None:
        self.owners.append(position)
        self.categories.append(category)
        self.crowds.append(fields.get("iscrowd") == 1)


def has_ids(annotation: Fields) -> bool:
    """Whether it says which image it belongs to. What stands for an id of it or of its category becomes an int."""
    for field in ("image_id", "category_id"):
        if type(annotation.get(field)) is not int:
            with suppress(ValueError):
                annotation[field] = whole_number(annotation.get(field))
    return type(annotation.get("image_id")) is int


def _category(fields: Fields) -> int | None:
    number = fields.get("category_id")
    if type(number) is int:
        return number
    try:
        return whole_number(number)
    except ValueError:
        return None
