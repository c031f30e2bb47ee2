"""Masks whose colours stand for classes."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from ...errors import UserError
from ..bad_samples import BadSample
from ..images import colours
from .numbers import whole_number


Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]
Colours = Mapping[int | str, Colour | list[Colour]]
"""What a recipe says: the name of a class, or an id as masks of ids have it, and its red, green and blue."""


PIXELS_AT_ONCE = 2**22
"""Masks of aerial pictures have a hundred million."""

_WEIGHTS = np.array([65536, 256, 1], dtype=np.uint32)


@dataclasses.dataclass(frozen=True)
class Palette:
    """Which id each colour stands for.

    Attributes:
        numbers: of the colours, red * 65536 + green * 256 + blue, (K,) uint32 and sorted.
        ids: the id of each, (K,) of the smallest type that has them all.
    """

    numbers: np.ndarray
    ids: np.ndarray

    @classmethod
    def of(cls, said: Colours, labels: list[str], first: int) -> "Palette":
        """As the recipe says.

        Args:
            first: the id of the first class in masks of ids.

        Raises:
            UserError: a class is unknown, or a colour stands for two.
        """
        ids: dict[int, int] = {}
        for key, given in said.items():
            number = _id_of(key, labels, first)
            for colour in _each(given):
                if ids.setdefault(_number(colour), number) != number:
                    raise UserError(f"data.palette: the colour {list(colour)} stands for two classes, one is {key!r}")
        if not ids:
            raise UserError("data.palette names no colour: write {CLASS: [red, green, blue], ...}, or leave it out")
        smallest = np.result_type(*map(np.min_scalar_type, ids.values()))
        return cls(np.array(sorted(ids), dtype=np.uint32), np.array([ids[key] for key in sorted(ids)], dtype=smallest))

    def read(self, mask: Image.Image, name: str) -> np.ndarray:
        """The ids (H, W) of a mask's colours, whatever its file keeps them as.

        Raises:
            BadSample: there are other colours in it.
        """
        levels = colours(mask, name)
        ids, unknown = np.empty(levels.shape[:2], dtype=self.ids.dtype), set[int]()
        rows = max(1, PIXELS_AT_ONCE // levels.shape[1])
        for start in range(0, len(levels), rows):
            numbers = levels[start : start + rows].astype(np.uint32) @ _WEIGHTS
            places = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
            unknown.update(np.unique(numbers[self.numbers[places] != numbers]).tolist())
            ids[start : start + rows] = self.ids[places]
        if unknown:
            listed = [[number >> 16, number >> 8 & 255, number & 255] for number in sorted(unknown)[:5]]
            raise BadSample(f"{name}: label has {len(unknown)} colours that data.palette does not name: {listed}")
        return ids


def _id_of(key: int | str, labels: list[str], first: int) -> int:
    if key in labels:
        return labels.index(str(key)) + first
    try:
        return whole_number(key)  # a word where the recipe was written down as JSON
    except ValueError as error:
        raise UserError(
            f"data.palette: {key!r} is no class of data.labels and no id; the classes are {', '.join(labels[:20])}"
        ) from error


def _each(given: Colour | list[Colour]) -> Iterator[Colour]:
    yield from [given] if isinstance(given, tuple) else given


def _number(colour: Colour) -> int:
    red, green, blue = colour
    return red * 65536 + green * 256 + blue
