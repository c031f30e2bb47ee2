"""What a recipe may say of its data."""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ..options import FORBID_UNKNOWN, NonNegative, Positive


ExifOrientation = Literal["refuse", "stored", "upright"]


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class DataOptions:
    path: str = Field(description="folder of the data, Hub id, or synthetic_shapes for pictures that are drawn")
    format: Literal["datasets", "folders", "coco", "coco_panoptic", "voc"] = Field(
        "datasets", description="what path is: read by datasets.load_dataset, images and masks in folders, ..."
    )
    train_split: str = Field("train", description="split to learn from")
    validation_split: str = Field("validation", description="split to measure and to choose the best model on")
    test_split: str | None = Field(None, description="split to measure a finished model on")
    image_column: str = Field("image", description="of datasets: column with the image")
    label_column: str = Field("label", description="of datasets: column with the class ids, as large as the image")
    objects_column: str = Field("objects", description="of datasets: column with the bbox and category of each object")
    box_format: Literal["xywh", "xyxy", "cxcywh"] = Field("xywh", description="of datasets: bbox, in pixels")
    images: dict[str, str] = Field(default_factory=dict, description="folder of the images of each split, below path")
    masks: dict[str, str] = Field(default_factory=dict, description="folder of the masks of each split, below path")
    mask_suffix: str = Field(".png", description="of folders: what stands after the image's stem in a mask's name")
    annotations: dict[str, str] = Field(default_factory=dict, description="COCO JSON of each split, below path")
    labels: list[str] | str | None = Field(
        None, description="class names in the order of their ids, or a file with a name a line; else from the data"
    )
    ignore_index: NonNegative = Field(255, description="id in the label files that is no class")
    reduce_labels: bool = Field(False, description="0 in the label files is no class, and 1 the first (ADE20K)")
    bad_samples: Literal["refuse", "skip"] = Field(
        "refuse", description="stop at a damaged picture or annotation, or report it and take the next sample"
    )
    exif_orientation: ExifOrientation = Field(
        "refuse", description="what was annotated of pictures that EXIF turns; refuse makes them bad samples"
    )
    streaming: bool = Field(False, description="of datasets: read while training, for what is larger than the disk")
    shuffle_buffer: Positive = Field(1000, description="of streaming: how many samples the next is drawn from")
    max_train_samples: Positive | None = Field(None, description="learn from the first so many samples only")
    max_validation_samples: Positive | None = Field(None, description="measure on the first so many samples only")
    workers: NonNegative = Field(0, description="processes that load data; 0 loads it between the steps")

    @model_validator(mode="after")
    def _check_streaming(self) -> Self:
        if self.streaming and self.format != "datasets":
            raise ValueError(f"streaming=true needs format=datasets, got format={self.format}")
        return self
