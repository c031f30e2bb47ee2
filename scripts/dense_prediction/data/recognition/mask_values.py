"""What the values in masks stand for: classes, with names from a file where there is one, or objects."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from ...options import Tree
from ..annotations.semantic_maps import WHITE
from ..bad_samples import BadSample
from ..images import colours, read
from ..options import some
from .candidates import Candidate, classes_in_words
from .class_files import ClassFile, find_class_file
from .survey import Survey


MOST_MASKS, SECONDS = 300, 20.0
"""That are looked at, from all over the split."""

MOST_COLOURS = 64
"""That can stand for classes; pictures and masks in JPEG have more."""

FAR_APART = 3
"""How many times more ids than classes there may be, for ids to be numbers and no shades of grey."""

FEWEST_OBJECTS = 5
"""Numbers in one mask, for them to be objects and not classes where nothing says what they are."""

SINGLE = 0.9
"""The share of objects that are in one piece, where they are objects."""

SMALLEST_OBJECT = 4
"""In pixels, on the average; noise has smaller pieces."""

MOST_EXAMINED, MOST_OBJECTS = 20, 50
"""Masks, and numbers of each, whose pieces are looked at."""

LARGEST_CLASS = 255


@dataclass(frozen=True)
class Look:
    """What some masks hold.

    Attributes:
        ids: in maps of one number a pixel.
        colours: red, green and blue in all others.
        grey: whether the numbers are shades of grey, which a palette can name.
        most: numbers beside 0 in one mask.
        single: the share of numbers that are in one piece in a mask.
        counted: the share of masks whose numbers go up from 1, or are too large for classes.
        varied: whether they differ in how many numbers they have.
        lossy: whether the files are JPEGs.
    """

    ids: frozenset[int]
    colours: frozenset[tuple[int, int, int]]
    grey: bool
    most: int
    single: float
    counted: float
    varied: bool
    lossy: bool

    @property
    def are_objects(self) -> bool:
        """Whether the numbers tell objects apart, and no classes."""
        return self.may_be_objects and self.most >= FEWEST_OBJECTS and min(self.single, self.counted) >= SINGLE

    @property
    def may_be_objects(self) -> bool:
        """Whether masks have several numbers beside 0, not the same in all of them, and most are in one piece."""
        has_background = 0 in self.ids or (0, 0, 0) in self.colours
        is_many = self.most > 1 and (self.varied or self.most >= FEWEST_OBJECTS)
        return is_many and has_background and not self.lossy and self.single > 0.5


def read_some(paths: Sequence[Path]) -> Iterator[Image.Image]:
    """Masks from all over; those that cannot be read are met when their sample is."""
    for path in paths[:: max(1, -(-len(paths) // MOST_MASKS))]:
        with suppress(BadSample):
            yield read(path)


def look_at(masks: Iterable[Image.Image], lossy: bool = False) -> Look:
    """What masks hold.

    Args:
        lossy: their files are JPEGs.
    """
    end = time.monotonic() + SECONDS
    ids, found, grey = set[int](), set[tuple[int, int, int]](), True
    single, counted, counts = list[bool](), list[bool](), set[int]()
    for mask in masks:
        numbers = np.array(mask)
        if numbers.ndim == 3:
            levels = colours(mask, "a mask").reshape(-1, 3)
            numbers = levels.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
            numbers = numbers.reshape(mask.height, mask.width)
            present = np.unique(numbers).tolist()
            found.update((number >> 16, number >> 8 & 255, number & 255) for number in present)
        elif numbers.dtype.kind in "biu":
            present = np.unique(numbers).astype(np.int64).tolist()
            ids.update(present)
            grey &= mask.mode in ("L", "1")
        else:
            continue
        counts.add(len([number for number in present if number]))
        if len(counted) < MOST_EXAMINED:
            single += _are_single(numbers, present)
            counted.append(max(present) > LARGEST_CLASS or max(present) < 2 * len(present) + 2)
        if time.monotonic() > end:
            break
    return Look(
        frozenset(ids),
        frozenset(found),
        grey,
        max(counts, default=0),
        _share(single),
        _share(counted),
        len(counts) > 1,
        lossy,
    )


def are_lossy(paths: Iterable[Path]) -> bool:
    """Whether one is a JPEG."""
    return any(path.suffix.casefold() in (".jpg", ".jpeg") for path in paths)


def _are_single(numbers: np.ndarray, present: Sequence[int]) -> list[bool]:
    """Of numbers (H, W) beside 0, whether each is in one piece; none is where they are as small as noise."""
    objects = [number for number in present if number]
    if objects and np.count_nonzero(numbers) < SMALLEST_OBJECT * len(objects):
        return [False] * len(objects)
    neighbours = np.ones((3, 3), dtype=int)
    return [bool(ndimage.label(numbers == number, neighbours)[1] == 1) for number in objects[:MOST_OBJECTS]]


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(1, len(flags))


@dataclass(frozen=True)
class Classes:
    """What a recipe says of the classes of masks.

    Attributes:
        fields: the keys of `data`.
        words: where the names come from.
        missing: why they cannot be told.
    """

    labels: list[str]
    fields: Tree = field(default_factory=dict)
    words: str = ""
    missing: str = ""

    def candidate(self, format: str, title: str, data: dict[str, Any], words: str) -> Candidate:
        """Maps of these classes."""
        if self.missing:
            return Candidate(format, title, words=words, missing=self.missing)
        data = {"format": format, "labels": self.labels} | data | self.fields
        words = f"{words}, {classes_in_words(self.labels)}{self.words}"
        return Candidate(format, title, ("semantic_segmentation",), data, words)


def classes_of(survey: Survey, paths: Sequence[Path]) -> Classes:
    """The classes that the masks in some files show."""
    return classes_of_look(look_at(read_some(paths), are_lossy(paths)), find_class_file(survey))


def classes_of_look(look: Look, file: ClassFile | None) -> Classes:
    """The classes that masks show, by a file with their names or by their values."""
    if look.colours and look.ids:
        return Classes([], missing="some masks are in colours and others are not: write all in one way")
    is_blurred = look.lossy and len(look.ids | look.colours) > 2
    if is_blurred or len(look.colours) > MOST_COLOURS or look.most > MOST_COLOURS:
        return Classes([], missing=_why_too_many(look))
    if look.colours:
        return _of_colours(look, file)
    return _of_ids(look, file) if look.ids else Classes([], missing="no mask could be read")


def _why_too_many(look: Look) -> str:
    what = f"{len(look.ids | look.colours)} different values"
    if look.lossy:
        return f"its masks have {what}, as JPEG blurs them: save them as PNG, with one value for each class"
    return f"its masks have {what}: save one number for each class, or name the colours in data.palette of a recipe"


def _of_colours(look: Look, file: ClassFile | None) -> Classes:
    if file is not None and file.colours:
        return _named_colours(file)
    if all(red == green == blue for red, green, blue in look.colours):
        return _of_shades(sorted(red for red, _, _ in look.colours))
    listed = sorted(look.colours)
    labels = ["background" if colour == (0, 0, 0) else f"class {place}" for place, colour in enumerate(listed, 1)]
    if listed[0] == (0, 0, 0):
        labels = ["background", *(f"class {place}" for place in range(1, len(listed)))]
    palette = {label: list(colour) for label, colour in zip(labels, listed)}
    return _enough(Classes(labels, {"palette": palette}, " by their colours, which no file names"))


def _named_colours(file: ClassFile) -> Classes:
    """A palette of the file; classes that two colours stand for keep both."""
    palette: dict[str, Any] = {}
    for name, colour in zip(file.names, file.colours):
        palette.setdefault(name, []).append(list(colour))
    return _enough(Classes(list(palette), {"palette": palette}, f" of {file.path}"))


def _of_shades(shades: list[int]) -> Classes:
    """Of grey in three channels, or of values that are far apart."""
    if len(shades) == 2:
        labels = ["background", "foreground"]
    else:
        labels = ["background" if shade == 0 else f"class {shade}" for shade in shades]
    palette = {label: [shade] * 3 for label, shade in zip(labels, shades)}
    return _enough(Classes(labels, {"palette": palette}, " by their shades, which no file names"))


def _of_ids(look: Look, file: ClassFile | None) -> Classes:
    present = set(look.ids)
    if file is not None and file.ids:
        return _numbered(file)
    if file is not None and file.colours and not look.grey:
        return _named_colours(file)
    if file is not None and (fitting := _fitting(file.names, present)):
        return _enough(replace(fitting, words=f" of {file.path}"))
    nothing = ", which no file names"
    if present and 0 not in present and min(present) == 1 and max(present) <= LARGEST_CLASS - 2:
        labels = [f"class {number}" for number in range(1, max(present) + 1)]
        return _enough(Classes(labels, {"reduce_labels": True}, f" by the ids from 1 to {max(present)}{nothing}"))
    if present == {0, WHITE}:
        return Classes(["background", "foreground"], {"foreground_255": True}, f" for 0 and 255{nothing}")
    if present - {WHITE} <= {0, 1} and 1 in present:
        return _enough(Classes(["background", "foreground"], words=f" for 0 and 1{nothing}"))
    known = sorted(present - {WHITE})
    if look.grey and known and (len(known) == 1 or known[-1] >= FAR_APART * len(known) + 5):
        return _of_shades(sorted(present))
    if not known or known[-1] > LARGEST_CLASS - 2 or known[0] < 0:
        return Classes([], missing=f"its masks hold the ids {some(sorted(present))}, and 0 to 253 can be classes")
    labels = ["background", *(f"class {number}" for number in range(1, known[-1] + 1))]
    return _enough(Classes(labels, words=f" by the ids up to {known[-1]}{nothing}"))


def _numbered(file: ClassFile) -> Classes:
    """Names that a file gives to ids."""
    names = {0: "background"} | dict(zip(file.ids, file.names))
    labels = [names.get(number, f"class {number}") for number in range(max(names) + 1)]
    if file.zero_is_void:
        return _enough(Classes(labels[1:], {"reduce_labels": True}, f" of {file.path}"))
    return _enough(Classes(labels, words=f" of {file.path}"))


def _fitting(names: list[str], present: set[int]) -> Classes | None:
    """Names in the order of ids; where there is one id more, the file leaves out the background, or no pixel is 0."""
    last = max(present - {WHITE}, default=0)
    if last == len(names):
        return Classes(["background", *names]) if 0 in present else Classes(names, {"reduce_labels": True})
    return Classes(names) if last < len(names) and len(names) > 1 else None


def _enough(classes: Classes) -> Classes:
    if len(classes.labels) < 2:
        return replace(classes, missing="all of its masks are of one value: there is nothing to tell apart")
    return classes
