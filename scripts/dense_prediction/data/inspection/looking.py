"""A look at the data before the first step: what is annotated, and how much of it was looked at."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...tasks import Task
from ..annotations.semantic_maps import WHITE, SemanticIds, SemanticOptions, may_be_white
from ..bad_samples import BadSample, refuse_unless
from ..loading import Data
from ..options import DataOptions
from ..samples import IGNORE_INDEX, Glance, Split, Stream
from .intensities import Intensities, look_at_intensities


SECONDS = 24.0
"""For all splits together."""

MOST_FILES = 200
"""Rows of a stream that are looked at, and label files if they show every class; of anything else all that there is
time for."""


@dataclass(frozen=True)
class Seen:
    """The glances at a split.

    Attributes:
        pictures: that it has; None of a stream that was not seen to its end.
        bad: how many more samples are bad ones.
    """

    pictures: int | None
    glances: Sequence[Glance]
    bad: int


@dataclass(frozen=True)
class Facts:
    """What a look at a split has found.

    Attributes:
        pictures: that the split has; None of a stream that was not seen to its end.
        looked_at: so many of them, bad ones included.
        bad: of these, samples that cannot be used.
        unit: what is counted, "pixels" of label maps or "objects" (and segments).
        by_class: how many there are of each class, 0 where none was seen.
        left_out: how many objects there are of each category that is no class.
        crowds: how many objects are marked as crowds.
        void_share: of the pixels, those without a label.
        most: objects, or classes of a label map, in one picture.
        values: ids that stand in the label files.
        unknown: those of them that are neither a class nor void, and a file that holds one.
    """

    pictures: int | None
    looked_at: int
    bad: int
    unit: str
    by_class: dict[str, int]
    left_out: dict[str, int]
    crowds: int
    void_share: float
    most: int
    values: list[int]
    unknown: tuple[list[int], str]

    @property
    def is_whole(self) -> bool:
        """Whether every picture was looked at."""
        return self.looked_at == self.pictures

    @property
    def total(self) -> int:
        return sum(self.by_class.values())

    @property
    def absent(self) -> list[str]:
        """The classes of which nothing was seen."""
        return [label for label, count in self.by_class.items() if count == 0]

    def plain(self) -> dict[str, Any]:
        """As results have it."""
        return dataclasses.asdict(self) | {"unknown": self.unknown[0]}


@dataclass(frozen=True)
class Inspection:
    """What was found in the splits that were looked at, by the names of their keys.

    Attributes:
        options: those of the recipe, with what the label files and the training pictures decide.
        intensities: of the training pictures, if they were looked at.
    """

    options: DataOptions
    facts: dict[str, Facts]
    intensities: Intensities | None = None


def inspect(options: DataOptions, task: Task, data: Data, keys: Sequence[str]) -> Inspection:
    """Look at the splits of `keys`, such as `train_split`. What is learnt, and the order of it, stay as they are.

    Raises:
        UserError: a bad sample was met that is not to be skipped.
    """
    maps = options if isinstance(options, SemanticOptions) and "semantic_map" in task.columns else None
    is_open = maps is not None and maps.foreground_255 is None and may_be_white(maps, data.labels)
    looked = {*keys, "train_split"} if is_open else {*keys}
    ids = _ids(maps, task, data.labels)
    seconds = SECONDS / len(looked)
    seen = {key: look(_split_of(data, key), options.skips_bad_samples, seconds, ids) for key in sorted(looked)}
    if maps is not None and is_open and is_white(seen["train_split"], maps.ignore_index):
        options = maps = dataclasses.replace(maps, foreground_255=True)
        ids = SemanticIds.of(maps, data.labels)
    facts = {key: facts_of(seen[key], data.labels, ids) for key in keys if seen[key].glances or seen[key].bad}
    intensities = look_at_intensities(data.train) if "train_split" in keys else None
    return Inspection(_with_intensity(options, intensities), facts, intensities)


def _ids(options: SemanticOptions | None, task: Task, labels: list[str]) -> SemanticIds | None:
    """What the ids of label maps mean, those of painted ones being the classes; None where there are none."""
    if options is not None:
        return SemanticIds.of(options, labels)
    return SemanticIds(len(labels), IGNORE_INDEX, reduce=False) if "semantic_map" in task.columns else None


def _with_intensity(options: DataOptions, found: Intensities | None) -> DataOptions:
    """With the numbers that are black and white where there are pictures of more than 8 bits, whose are not known."""
    if found is None or not found.deep or not isinstance(options.intensity, str):
        return options
    return dataclasses.replace(options, intensity=found.range(options.intensity))


def look(split: Split | Stream, skip: bool, seconds: float, ids: SemanticIds | None = None) -> Seen:
    """What is annotated of a split's pictures, taken from all over it, or of a stream's first ones.

    Args:
        skip: count bad samples instead of raising `UserError`.
        ids: of label maps, whose classes are looked for.
    """
    end, found, bad, unseen = time.monotonic() + seconds, [], 0, _Unseen(ids)
    is_stream = isinstance(split, Stream)
    for glance in _glances(split):
        try:
            found.append(glance())
            unseen.strike_off(found[-1])
        except BadSample as error:
            refuse_unless(skip, error)
            bad += 1
        is_enough = is_stream or (ids is not None and not unseen.classes)
        if time.monotonic() > end or (is_enough and len(found) + bad >= MOST_FILES):
            return Seen(None if is_stream else len(split), found, bad)
    return Seen(len(found) + bad, found, bad)


class _Unseen:
    """The classes of label maps that no file has shown so far."""

    def __init__(self, ids: SemanticIds | None) -> None:
        self.ids = ids
        self.classes = set(range(ids.num_labels)) if ids is not None else set()

    def strike_off(self, glance: Glance) -> None:
        if self.ids is not None and self.classes:
            by_class, _, _ = self.ids.count(glance.pixels)
            self.classes -= by_class.keys()
            if self.ids.num_labels == 2 and WHITE in glance.pixels:  # which may turn out to be the second
                self.classes.discard(1)


def is_white(seen: Seen, void: int) -> bool:
    """Whether label files hold 0 and 255 alone, as drawing programs write the masks of one class, and perhaps `void`.

    Those that hold what is no class in any case do not count.
    """
    maps = (glance.pixels.keys() for glance in seen.glances)
    return {value for ids in maps if ids <= {0, 1, WHITE, void} for value in ids} - ({void} - {WHITE}) == {0, WHITE}


def facts_of(seen: Seen, labels: Sequence[str], ids: SemanticIds | None) -> Facts:
    """The sums over a look.

    Args:
        ids: what the ids of label maps mean.
    """
    if ids is not None and any(glance.pixels for glance in seen.glances):
        return _facts_of_maps(seen, labels, ids)
    objects = [[name for name in glance.objects if name is not None] for glance in seen.glances]
    counts = Counter(name for names in objects for name in names)
    return Facts(
        pictures=seen.pictures,
        looked_at=len(seen.glances) + seen.bad,
        bad=seen.bad,
        unit="objects",
        by_class={label: counts[label] for label in labels},
        left_out={name: count for name, count in sorted(counts.items()) if name not in set(labels)},
        crowds=sum(glance.crowds for glance in seen.glances),
        void_share=0.0,
        most=max((sum(name in set(labels) for name in names) for names in objects), default=0),
        values=[],
        unknown=([], ""),
    )


def _facts_of_maps(seen: Seen, labels: Sequence[str], ids: SemanticIds) -> Facts:
    counts, void, most, bad, unknown, example = Counter[int](), 0, 0, seen.bad, set[int](), ""
    for glance in seen.glances:
        by_class, without, strange = ids.count(glance.pixels)
        if strange:
            unknown, example, bad = unknown | set(strange), example or glance.name, bad + 1
            continue
        counts, void, most = counts + Counter(by_class), void + without, max(most, len(by_class))
    pixels = counts.total() + void
    return Facts(
        pictures=seen.pictures,
        looked_at=len(seen.glances) + seen.bad,
        bad=bad,
        unit="pixels",
        by_class={label: counts[place] for place, label in enumerate(labels)},
        left_out={},
        crowds=0,
        void_share=void / pixels if pixels else 0.0,
        most=most,
        values=sorted({value for glance in seen.glances for value in glance.pixels}),
        unknown=(sorted(unknown), example),
    )


def _split_of(data: Data, key: str) -> Split | Stream:
    split = getattr(data, key.removesuffix("_split"))
    if split is None:
        raise ValueError(f"there is no {key}")
    return split


def _glances(split: Split | Stream) -> Iterator[Callable[[], Glance]]:
    if isinstance(split, Stream):
        return split.glances()
    glance = split.glance
    if glance is None:
        return iter(())
    # A generator of its own: nothing of what a training draws may change.
    order = np.random.default_rng(0).permutation(len(split)).tolist()
    return (partial(glance, index) for index in order)
