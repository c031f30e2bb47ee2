"""Panoptic segmentation from COCO's JSON files and PNGs, whose colours are the numbers of segments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ...tasks import Task
from ..annotations.coco_schema import panoptic_entry
from ..annotations.file_names import locate
from ..bad_samples import BadSample
from ..images import colours, read, read_picture
from ..samples import VOID, Glance, Sample, Source, UncheckedSplit, new_sample
from .coco_json import CocoFile, CocoJsonOptions, coco_labels, image_path, is_left_out


NO_SEGMENT = 0

SEGMENTS = "segments_info"
"""The list of an annotation that holds its segments."""


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class CocoPanopticOptions(CocoJsonOptions):
    tasks: ClassVar[tuple[str, ...]] = ("panoptic_segmentation",)

    format: Literal["coco_panoptic"] = "coco_panoptic"
    masks: dict[str, str] = Field(default_factory=dict, description="folder of the masks of each split, below path")

    def open(self, task: Task) -> Source:
        """The JSON files of `annotations`, with the folders of `images` and of the PNGs, `masks`."""
        self.check_places("annotations", "images", "masks")
        train = CocoFile(self.place("annotations", "train_split"), self.skips_bad_samples, SEGMENTS)
        labels = coco_labels(self, train)

        def open_split(key: str) -> UncheckedSplit:
            place = self.place("annotations", key)
            file = train if key == "train_split" else CocoFile(place, self.skips_bad_samples, SEGMENTS)
            return PanopticSplit(file, self.place("images", key), self.place("masks", key), labels, self)

        return Source(labels, _things(train, labels), open_split, [train.category_ids[label] for label in labels])


class PanopticSplit:
    """The images of one JSON file, each with one annotation: a PNG and what its segments are."""

    def __init__(
        self, file: CocoFile, images: Path, masks: Path, labels: list[str], options: CocoPanopticOptions
    ) -> None:
        self.records = file.records(options.skips_bad_samples)
        self.images, self.masks = images, masks
        self.labels, self.left_out = file.category_labels(labels), file.left_out(labels)
        self.orientation, self.crowds = options.exif_orientation, options.crowds == "ignore"
        self.objects = file.objects(self.crowds)
        self.file_names = options.file_names

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        fields, annotations = self.records[index]
        path = image_path(self.images, fields, self.file_names)
        if len(annotations) != 1:
            raise BadSample(f"{path} has {len(annotations)} annotations, expected one")
        mask_path = locate(self.masks, annotations[0].get("file_name"), f"the segments of {path}")
        annotation = panoptic_entry(annotations[0], str(mask_path))
        numbers = _segment_numbers(mask_path)
        image = read_picture(path, self.orientation, numbers.shape)
        if numbers.shape != (image.height, image.width):
            raise BadSample(f"{mask_path} has height and width {numbers.shape}, its image {image.height, image.width}")
        segments = self._segments(annotation, numbers, mask_path)
        return new_sample(image, str(path), fields["id"]) | segments

    def glance(self, index: int) -> Glance:
        """Of which categories its segments are."""
        return self.objects[index]

    def picture_names(self) -> list[str]:
        """What the file calls each image."""
        return self.records.names()

    def _segments(self, annotation: dict[str, Any], numbers: np.ndarray, path: Path) -> dict[str, np.ndarray]:
        segments = annotation.get("segments_info", [])
        left_out = [segment["id"] for segment in segments if self._check(segment, path)]
        kept = [segment for segment in segments if not is_left_out(segment, self.left_out)]
        crowds = [self.crowds and bool(segment.get("iscrowd")) for segment in kept]
        return {
            "segment_map": segment_map(numbers, [segment["id"] for segment in kept], path, left_out),
            "labels": np.array([self.labels[segment["category_id"]] for segment in kept], dtype=np.int64),
            "is_crowd": np.array(crowds, dtype=bool),
        }

    def _check(self, segment: dict[str, Any], path: Path) -> bool:
        """Whether a segment, which is a good one, is of a category that is no class."""
        if "id" not in segment or (segment.get("category_id") not in self.labels.keys() | self.left_out):
            raise BadSample(f"{path}: a segment has no id or an unknown category: {segment}")
        return is_left_out(segment, self.left_out)


def segment_map(numbers: np.ndarray, known: list[int], path: Path, left_out: Sequence[int] = ()) -> np.ndarray:
    """Numbers of segments (H, W) -> their positions in `known`, and `VOID`, also for those that are left out.

    Raises:
        BadSample: the picture and the list name different segments, or there is none.
    """
    if len(set(known)) < len(known) or NO_SEGMENT in known:
        raise BadSample(
            f"{path}: its annotation lists a segment twice, or {NO_SEGMENT}, which stands for none: {known}"
        )
    present, places = np.unique(numbers, return_inverse=True)
    listed = dict.fromkeys(left_out, VOID) | {number: position for position, number in enumerate(known)}
    listed |= {NO_SEGMENT: VOID}
    unknown = [number for number in present.tolist() if number not in listed]
    if unknown:
        raise BadSample(f"{path} shows segments {unknown[:5]} that its annotation does not list")
    empty = sorted({*known, *left_out} - set(present.tolist()))
    if empty:
        raise BadSample(f"{path} shows no pixel of the segments {empty[:5]} that its annotation lists")
    if not known and not left_out:
        raise BadSample(f"{path} shows no segment")
    return np.array([listed[number] for number in present.tolist()])[places].reshape(numbers.shape)


def _things(file: CocoFile, labels: list[str]) -> frozenset[int]:
    unmarked = [category["name"] for category in file.categories if category.get("isthing") is None]
    if unmarked:
        raise UserError(f"{file.path}: the category {unmarked[0]} does not say whether it isthing")
    countable = {category["name"] for category in file.categories if category["isthing"]}
    return frozenset(position for position, label in enumerate(labels) if label in countable)


def _segment_numbers(path: Path) -> np.ndarray:
    """(H, W) uint32: red + 256 green + 256 * 256 blue."""
    return colours(read(path), str(path)).astype(np.uint32) @ np.array([1, 256, 256 * 256], dtype=np.uint32)
