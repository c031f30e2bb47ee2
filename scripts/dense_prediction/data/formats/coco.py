"""Detection, instance segmentation and painted semantic maps from COCO's JSON files."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from ...options import FORBID_UNKNOWN
from ..annotations.coco_masks import decode_segmentation
from ..annotations.coco_schema import annotation_entry
from ..annotations.instances import Instance, OutlinesOptions, box_round, check_size, instance_fields
from ..annotations.numbers import is_number, short
from ..bad_samples import BadSample
from ..images import read_picture
from ..painted_maps import PaintedOptions
from ..samples import Glance, Sample, Source, UncheckedSplit, new_sample
from .coco_json import CocoFile, CocoJsonOptions, coco_labels, image_path, is_left_out


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class CocoOptions(CocoJsonOptions, OutlinesOptions, PaintedOptions):
    tasks: ClassVar[tuple[str, ...]] = ("instance_segmentation", "object_detection", "semantic_segmentation")

    format: Literal["coco"] = "coco"

    def open_objects(self, masks: bool) -> Source:
        """The JSON files that `annotations` names for each split, with the folders of `images`."""
        self.check_places("annotations", "images")
        train = CocoFile(self.place("annotations", "train_split"), self.skips_bad_samples)
        labels = coco_labels(self, train)

        def open_split(key: str) -> UncheckedSplit:
            place = self.place("annotations", key)
            file = train if key == "train_split" else CocoFile(place, self.skips_bad_samples)
            return CocoSplit(file, self.place("images", key), labels, masks, self)

        return Source(
            labels, frozenset(range(len(labels))), open_split, [train.category_ids[label] for label in labels]
        )


class CocoSplit:
    """The images of one JSON file.

    Args:
        masks: read the segmentations too.
    """

    def __init__(self, file: CocoFile, images: Path, labels: list[str], masks: bool, options: CocoOptions) -> None:
        self.records = file.records(options.skips_bad_samples)
        self.images = images
        self.labels, self.left_out = file.category_labels(labels), file.left_out(labels)
        self.masks = masks
        self.orientation, self.crowds = options.exif_orientation, options.crowds == "ignore"
        self.boxes_as_outlines = options.boxes_as_outlines
        self.objects = file.objects(self.crowds)
        self.file_names = options.file_names

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        fields, annotations = self.records[index]
        path = image_path(self.images, fields, self.file_names)
        annotated = fields.get("height"), fields.get("width")
        image = read_picture(path, self.orientation, annotated)
        size = image.height, image.width
        check_size(size, annotated, path)
        kept = [annotation for annotation in annotations if not is_left_out(annotation, self.left_out)]
        instances = [self._instance(annotation, size, path) for annotation in kept]
        objects = instance_fields(instances, size, str(path), masks=self.masks)
        return new_sample(image, str(path), fields["id"]) | objects

    def glance(self, index: int) -> Glance:
        """Of which categories its objects are."""
        return self.objects[index]

    def picture_names(self) -> list[str]:
        """What the file calls each image."""
        return self.records.names()

    def _instance(self, annotation: dict[str, Any], size: tuple[int, int], path: Path) -> Instance:
        name = f"{path}: annotation {short(annotation.get('id'))}"
        if annotation.get("category_id") is None:
            raise BadSample(f"{name} has no bbox or no category_id")
        annotation = annotation_entry(annotation, name)
        box, category, mask = annotation.get("bbox"), annotation["category_id"], self._mask(annotation, size, name)
        if box is None:
            box = _box_round(mask, name)
        return Instance(
            box,
            self.labels.get(category),
            category,
            self.crowds and annotation.get("iscrowd", False),
            annotation.get("area"),
            mask if self.masks else None,
        )

    def _mask(self, annotation: dict[str, Any], size: tuple[int, int], name: str) -> np.ndarray | None:
        """Where one is asked for, or the box has to be found in it."""
        segmentation = annotation.get("segmentation")
        if self.masks and not segmentation and self.boxes_as_outlines and annotation.get("bbox") is not None:
            segmentation = [_outline_of(annotation["bbox"], name)]
        if not self.masks and (annotation.get("bbox") is not None or not segmentation):
            return None
        return decode_segmentation(segmentation, size, name)


def _outline_of(box: Any, name: str) -> list[float]:
    """The corners of a box of x, y, width and height."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise BadSample(f"{name}: bbox must be four numbers, got {short(box)}")
    left, top, width, height = box
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def _box_round(mask: np.ndarray | None, name: str) -> list[int]:
    """x, y, width and height."""
    if mask is None or not mask.any():
        raise BadSample(f"{name} has no bbox{'' if mask is None else ', and an empty mask'}")
    left, top, right, bottom = box_round(mask)
    return [left, top, right - left, bottom - top]
