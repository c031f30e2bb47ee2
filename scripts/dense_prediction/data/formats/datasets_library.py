"""Anything that `datasets.load_dataset` reads: a Hub id, a folder of parquet, an image folder with metadata."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ...options import FORBID_UNKNOWN, Positive
from ...tasks import Task
from ..annotations.instances import ObjectsOptions
from ..annotations.semantic_maps import SemanticOptions
from ..samples import Source


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class DatasetsOptions(SemanticOptions, ObjectsOptions):
    tasks: ClassVar[tuple[str, ...]] = ("semantic_segmentation", "object_detection")

    format: Literal["datasets"] = "datasets"
    image_column: str = Field(default="image", description="column with the image")
    label_column: str = Field(default="label", description="column with the class ids, as large as the image")
    objects_column: str = Field(default="objects", description="column with the bbox and category of each object")
    box_format: Literal["xywh", "xyxy", "cxcywh"] = Field(default="xywh", description="what a bbox holds, in pixels")
    streaming: bool = Field(default=False, description="read while training, for what is larger than the disk")
    shuffle_buffer: Positive = Field(default=1000, description="with streaming: the next is drawn from so many")

    def open(self, task: Task) -> Source:
        """Rows with an image and a label, or an image and its objects."""
        # Not at the top: the library takes a second to import, which nobody shall wait for who does not use it.
        from ..tables.row_splits import open_rows
        from ..tables.rows import ObjectsReader, RowReader, SemanticReader

        new_reader: Callable[[Any], RowReader]
        if "semantic_map" in task.columns:
            new_reader = partial(SemanticReader, self, columns=(self.image_column, self.label_column))
        else:
            columns = self.image_column, self.objects_column
            new_reader = partial(ObjectsReader, self, columns=columns, box_format=self.box_format)
        return open_rows(self, new_reader, self.shuffle_buffer if self.streaming else None)
