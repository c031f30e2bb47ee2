"""Drawn shapes as a dataset for every task, without a download."""

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ...tasks import Task
from ..annotations.instances import Instance, box_round, instance_fields
from ..options import DataOptions, it_has
from ..samples import Sample, Source, new_sample
from . import drawn_shapes as shapes


SIZE = 64
SEEDS = {"train": 0, "validation": 1, "test": 2}
SAMPLES = {"train": 4000, "validation": 100, "test": 100}
BACKGROUND = 0


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class SyntheticShapesOptions(DataOptions):
    """Splits train, validation and test. Only maps count the background as a class."""

    tasks: ClassVar[tuple[str, ...]] = (
        "semantic_segmentation",
        "instance_segmentation",
        "panoptic_segmentation",
        "object_detection",
    )
    has_path: ClassVar[bool] = False

    path: str = "synthetic_shapes"
    format: Literal["synthetic_shapes"] = "synthetic_shapes"

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        if self.path != self.format:
            raise ValueError(f"path={self.path}: format={self.format} draws its pictures; set data.format, too")
        return self

    def open(self, task: Task) -> Source:
        if self.labels is not None:
            raise UserError(f"data.labels={self.labels}: {self.format} brings its own classes; leave data.labels out")
        has_background = not {"semantic_map", "segment_map"}.isdisjoint(task.columns)
        labels = list(shapes.LABELS if has_background else shapes.LABELS[1:])
        countable = range(0) if "semantic_map" in task.columns else range(has_background, len(labels))
        return Source(labels, frozenset(countable), lambda key: self._open_split(key, task))

    def _open_split(self, key: str, task: Task) -> "ShapesSplit":
        name = getattr(self, key)
        if name not in SEEDS:
            raise UserError(f"data.{key}={name}: {self.format} has no such split{it_has(SEEDS)}")
        return ShapesSplit(SEEDS[name], SAMPLES[name], task.columns)


class ShapesSplit:
    """Drawn samples: see `drawn_shapes`."""

    def __init__(self, seed: int, length: int, columns: tuple[str, ...] = ("semantic_map",)) -> None:
        self.seed = seed
        self.length = length
        self.columns = columns

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        image, drawn = shapes.draw_shapes(self.seed, index, SIZE)
        return new_sample(image, f"shapes {self.seed}/{index}", index) | self._truth(drawn)

    def _truth(self, drawn: list[tuple[int, np.ndarray]]) -> dict[str, np.ndarray]:
        if "semantic_map" in self.columns:
            return {"semantic_map": _paint([label for label, _ in drawn], [seen for _, seen in drawn])}
        if "segment_map" in self.columns:
            return _segments(drawn)
        return _objects(drawn, masks="masks" in self.columns)


def _paint(values: list[int], masks: list[np.ndarray]) -> np.ndarray:
    """(H, W) int64: each value where its mask is, and 0 elsewhere."""
    canvas = np.full((SIZE, SIZE), BACKGROUND, dtype=np.int64)
    for value, mask in zip(values, masks):
        canvas[mask] = value
    return canvas


def _segments(drawn: list[tuple[int, np.ndarray]]) -> dict[str, np.ndarray]:
    """The background is a segment as well, the first."""
    labels = [BACKGROUND, *(label for label, _ in drawn)]
    return {
        "segment_map": _paint(list(range(1, len(labels))), [seen for _, seen in drawn]),
        "labels": np.array(labels, dtype=np.int64),
        "is_crowd": np.zeros(len(labels), dtype=bool),
    }


def _objects(drawn: list[tuple[int, np.ndarray]], masks: bool) -> dict[str, np.ndarray]:
    instances = [
        Instance(box_round(mask), label - 1, shapes.LABELS[label], area=float(mask.sum()), mask=mask)
        for label, mask in drawn
    ]
    return instance_fields(instances, (SIZE, SIZE), "synthetic_shapes", "xyxy", masks)
