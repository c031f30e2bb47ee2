"""What the values in masks stand for: classes, with names from a file where there is one, or objects."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

NOT_NAMED = ", which no file names"

NEAR = 32
"""How far from black or white a pixel may be that JPEG, or a change of size, has blurred."""

TWO_TONED = 0.9
"""The share of pixels that are near black or near white, where masks were meant to have these two."""

FEWEST_SHADES = 16
"""Between black and white, for masks in a lossless format to be blurred ones of two classes."""

HALF = 128
"""Of the way from black to white, which parts two classes."""


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
        near: the shares of the pixels that are near black, and near white.
        palette: the colour of each number in files that have a palette; none where it differs from file to file, and
            the numbers mean nothing.
    """

    ids: frozenset[int]
    colours: frozenset[tuple[int, int, int]]
    grey: bool
    most: int
    single: float
    counted: float
    varied: bool
    lossy: bool
    near: tuple[float, float] = (0.0, 0.0)
    palette: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def is_blurred(self) -> bool:
        """Whether masks were black and white before JPEG or a change of size made greys of them."""
        if min(self.near) == 0 or sum(self.near) < TWO_TONED:
            return False
        shades = sorted(self.ids | {max(colour) for colour in self.colours})
        is_smooth = len(shades) > FEWEST_SHADES or not any(NEAR < shade < 255 - NEAR for shade in shades)
        return self.lossy or (is_smooth and any(HALF <= shade < 255 for shade in shades))

    @property
    def are_objects(self) -> bool:
        """Whether the numbers tell objects apart, and no classes."""
        return self.may_be_objects and self.most >= FEWEST_OBJECTS and min(self.single, self.counted) >= SINGLE

    @property
    def may_be_objects(self) -> bool:
        """Whether masks have several numbers beside 0, not the same in all of them, and most are in one piece."""
        has_background = 0 in self.ids or (0, 0, 0) in self.colours
        is_many = self.most > 1 and (self.varied or self.most >= FEWEST_OBJECTS)
        return is_many and has_background and not self.lossy and not self.is_blurred and self.single > 0.5


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
    near, shown = list[tuple[float, float]](), set[tuple[int, tuple[int, int, int]]]()
    for mask in masks:
        numbers = np.array(mask)
        near.append(_near_black_and_white(mask))
        if numbers.ndim == 3:
            levels = colours(mask, "a mask").reshape(-1, 3)
            numbers = levels.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
            numbers = numbers.reshape(mask.height, mask.width)
            present = np.unique(numbers).tolist()
            found.update((number >> 16, number >> 8 & 255, number & 255) for number in present)
        elif numbers.dtype.kind in "biu":
            present = np.unique(numbers).astype(np.int64).tolist()
            ids.update(present)
            shown.update(_colours_of(mask, present))
            grey &= mask.mode in ("L", "1")
        else:
            continue
        counts.add(len([number for number in present if number]))
        if len(counted) < MOST_EXAMINED:
            single += _are_single(numbers, present)
            counted.append(max(present) > LARGEST_CLASS or max(present) < 2 * len(present) + 2)
        if time.monotonic() > end:
            break
    if len(shown) > len(palette := dict(shown)):
        found, ids, palette = found | {colour for _, colour in shown}, ids.difference(palette), {}
    return Look(
        frozenset(ids),
        frozenset(found),
        grey,
        max(counts, default=0),
        _share(single),
        _share(counted),
        len(counts) > 1,
        lossy,
        (float(np.mean([dark for dark, _ in near] or [0])), float(np.mean([light for _, light in near] or [0]))),
        palette,
    )


def _colours_of(mask: Image.Image, numbers: Sequence[int]) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """What numbers look like in a file with a palette."""
    levels = (mask.getpalette("RGB") or []) if mask.mode == "P" else []
    for number in numbers:
        if len(colour := levels[3 * number : 3 * number + 3]) == 3:
            yield number, (colour[0], colour[1], colour[2])


def _near_black_and_white(mask: Image.Image) -> tuple[float, float]:
    """The shares of a mask's pixels that are near black, and near white; none of a map of numbers."""
    if mask.mode == "L":
        numbers = np.array(mask)
        return float(np.mean(numbers <= NEAR)), float(np.mean(numbers >= 255 - NEAR))
    if mask.mode in ("RGB", "RGBA", "LA"):
        levels = colours(mask, "a mask")
        return float(np.mean(levels.max(-1) <= NEAR)), float(np.mean(levels.min(-1) >= 255 - NEAR))
    return 0.0, 0.0


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

    @property
    def are_named(self) -> bool:
        """Whether a file says the names."""
        return not self.missing and NOT_NAMED not in self.words

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
    if look.is_blurred:
        return _of_two_tones(look, file)
    is_blurred = look.lossy and len(look.ids | look.colours) > 2
    if is_blurred or len(look.colours) > MOST_COLOURS or look.most > MOST_COLOURS:
        return Classes([], missing=_why_too_many(look))
    if look.colours:
        return _of_colours(look, file)
    return _of_ids(look, file) if look.ids else Classes([], missing="no mask could be read")


def _of_two_tones(look: Look, file: ClassFile | None) -> Classes:
    """Black and white that were blurred; a file may name them, by their colours or in this order."""
    names, where = ["background", "foreground"], NOT_NAMED
    if file is not None and len(file.names) == 2:
        lightness = [sum(colour) for colour in file.colours] or [0, 1]
        names = [name for _, name in sorted(zip(lightness, file.names), key=lambda pair: pair[0])]
        where = f" of {file.path}"
    elif file is not None and len(file.names) == 1:
        names, where = ["background", *file.names], f" of {file.path}"
    why = "JPEG" if look.lossy else "a change of size"
    words = f" below and from {HALF} on, as {why} has blurred black and white{where}"
    return Classes(names, {"foreground_from": HALF}, words)


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
    return _enough(Classes(labels, {"palette": palette}, f" by their colours{NOT_NAMED}"))


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
    return _enough(Classes(labels, {"palette": palette}, f" by their shades{NOT_NAMED}"))


def _of_ids(look: Look, file: ClassFile | None) -> Classes:
    present = set(look.ids)
    if file is not None and file.ids:
        return _numbered(file)
    if file is not None and file.colours and not look.grey:
        return _named_colours(file)
    if file is not None and (fitting := _fitting(file.names, present)):
        return _enough(replace(fitting, words=f" of {file.path}"))
    nothing = NOT_NAMED
    if present and 0 not in present and min(present) == 1 and max(present) <= LARGEST_CLASS - 2:
        labels = [f"class {number}" for number in range(1, max(present) + 1)]
        return _enough(Classes(labels, {"reduce_labels": True}, f" by the ids from 1 to {max(present)}{nothing}"))
    if present == {0, WHITE}:
        return Classes(["background", "foreground"], {"foreground_255": True}, f" for 0 and 255{nothing}")
    if present - {WHITE} <= {0, 1} and 1 in present:
        return _enough(Classes(["background", "foreground"], words=f" for 0 and 1{nothing}"))
    known = sorted(present - {WHITE})
    are_far_apart = bool(known) and (len(known) == 1 or known[-1] >= FAR_APART * len(known) + 5)
    if look.grey and are_far_apart:
        return _of_shades(sorted(present))
    if are_far_apart and WHITE not in present and present <= look.palette.keys():
        return _of_colours(replace(look, colours=frozenset(look.palette.values())), None)
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
