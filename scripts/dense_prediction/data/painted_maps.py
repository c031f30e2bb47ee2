"""Semantic maps from objects: their outlines are painted, and what none of them covers is background."""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from pydantic.dataclasses import dataclass

from ..errors import UserError
from ..options import FORBID_UNKNOWN
from ..tasks import Task
from .annotations.semantic_maps import count_ids
from .held_back import picture_names
from .options import DataOptions
from .samples import Glance, Sample, Source, Stream, UncheckedSplit, new_sample


BACKGROUND = "background"
"""The first class of painted maps, unless the data have a class that is called so."""


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class PaintedOptions(DataOptions):
    """Of formats of objects whose outlines can be painted into a map of classes."""

    @abstractmethod
    def open_objects(self, masks: bool) -> Source:
        """The dataset as objects, with `masks` or without.

        Raises:
            UserError: it cannot be found or read, or does not name its classes.
        """

    def open(self, task: Task) -> Source:
        """The dataset as objects, or painted where the task wants maps.

        Raises:
            UserError: as of `open_objects`; or `labels` names nothing to paint.
        """
        if "semantic_map" not in task.columns:
            return self.open_objects("masks" in task.columns)
        if self.labels is None:
            return _painted(self.open_objects(masks=True))
        classes = [label for label in self.labels if not is_background(label)]
        if not classes:
            raise UserError(f"data.labels={self.labels}: name the classes whose outlines are to be painted")
        return _painted(dataclasses.replace(self, labels=classes).open_objects(masks=True))


def is_background(label: str) -> bool:
    """Whether a class is called so, in any case or with labelme's underscores: `_background_`."""
    return label.strip(" _").casefold() == BACKGROUND


def _painted(source: Source) -> Source:
    names = source.labels
    labels = names if any(map(is_background, names)) else [BACKGROUND, *names]
    ids = [labels.index(name) for name in names]
    background = next(place for place, label in enumerate(labels) if is_background(label))

    def open_split(key: str) -> PaintedSplit:
        split = source.open_split(key)
        if isinstance(split, Stream):
            raise TypeError(f"{type(split).__name__}: outlines are painted of what can be read in any order")
        return PaintedSplit(split, ids, background)

    return Source(labels, frozenset(), open_split)


class PaintedSplit:
    """The samples of a split of objects as semantic maps.

    Args:
        ids: the class of a map for each class of objects.
        background: the class of pixels that no object has.
    """

    def __init__(self, split: UncheckedSplit, ids: Sequence[int], background: int) -> None:
        self.split, self.ids, self.background = split, ids, background

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        sample = self.split[index]
        semantic_map = np.full(sample["masks"].shape[1:], self.background, dtype=np.int64)
        # The largest first, so that a small one which lies on it is seen.
        for place in np.argsort(-sample["masks"].sum((1, 2)), kind="stable"):
            semantic_map[sample["masks"][place]] = self.ids[sample["labels"][place]]
        return new_sample(sample["image"], sample["name"], sample["image_id"]) | {"semantic_map": semantic_map}

    def picture_names(self) -> Sequence[str]:
        """What each picture is called below the folder of all."""
        return picture_names(self.split)

    def glance(self, index: int) -> Glance:
        """How many pixels are of each class."""
        sample = self[index]
        return count_ids(sample["semantic_map"], sample["name"])
