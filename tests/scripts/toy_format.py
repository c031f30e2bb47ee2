"""A format of data that the library does not know: one file, as anybody would write it."""

from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from dense_prediction.data.options import DataOptions
from dense_prediction.data.samples import Sample, Source, new_sample
from dense_prediction.options import FORBID_UNKNOWN, Positive
from dense_prediction.tasks import Task


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class ToyOptions(DataOptions):
    """Pictures that are dark on the left and bright on the right."""

    tasks: ClassVar[tuple[str, ...]] = ("semantic_segmentation", "worst_class")
    has_path: ClassVar[bool] = False

    path: str = "toy"
    format: Literal["toy"] = "toy"
    pictures: Positive = Field(4, description="how many there are of each split")

    def open(self, task: Task) -> Source:
        return Source(self.class_names(["dark", "bright"]), frozenset(), lambda key: Halves(self.pictures))


class Halves:
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        ids = np.zeros((64, 64), dtype=np.int64)
        ids[:, 20 + 4 * index :] = 1
        image = Image.fromarray((200 * ids).astype(np.uint8)).convert("RGB")
        return new_sample(image, f"half {index}", index) | {"semantic_map": ids}
