"""Panoptic segmentation from COCO's JSON files and PNGs, whose colours are the numbers of segments."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ...tasks import Task
from ..annotations.coco_schema import panoptic_entry
from ..bad_samples import BadSample
from ..file_names import locate
from ..images import colours, read, read_rgb
from ..samples import VOID, Sample, Source, UncheckedSplit, new_sample
from .coco_json import CocoFile, CocoJsonOptions, coco_labels, image_path


NO_SEGMENT = 0


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class CocoPanopticOptions(CocoJsonOptions):
    tasks: ClassVar[tuple[str, ...]] = ("panoptic_segmentation",)

    format: Literal["coco_panoptic"] = "coco_panoptic"
    masks: dict[str, str] = Field(default_factory=dict, description="folder of the masks of each split, below path")

    def open(self, task: Task) -> Source:
        """The JSON files of `annotations`, with the folders of `images` and of the PNGs, `masks`."""
        train = CocoFile(self.place("annotations", "train_split"), self.skips_bad_samples)
        labels = coco_labels(self, train)

        def open_split(key: str) -> UncheckedSplit:
            place = self.place("annotations", key)
            file = train if key == "train_split" else CocoFile(place, self.skips_bad_samples)
            return PanopticSplit(file, self.place("images", key), self.place("masks", key), labels, self)

        return Source(labels, _things(train, labels), open_split)


class PanopticSplit:
    """The images of one JSON file, each with one annotation: a PNG and what its segments are."""

    def __init__(
        self, file: CocoFile, images: Path, masks: Path, labels: list[str], options: CocoPanopticOptions
    ) -> None:
        self.records = file.records(options.skips_bad_samples)
        self.images, self.masks = images, masks
        self.labels = file.category_labels(labels)
        self.orientation = options.exif_orientation

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        fields, annotations = self.records[index]
        path = image_path(self.images, fields)
        if len(annotations) != 1:
            raise BadSample(f"{path} has {len(annotations)} annotations, expected one")
        mask_path = locate(self.masks, annotations[0].get("file_name"), f"the segments of {path}")
        annotation = panoptic_entry(annotations[0], str(mask_path))
        image = read_rgb(path, self.orientation)
        numbers = _segment_numbers(mask_path, (image.height, image.width))
        segments = self._segments(annotation, numbers, mask_path)
        return new_sample(image, str(path), fields["id"]) | segments

    def _segments(self, annotation: dict[str, Any], numbers: np.ndarray, path: Path) -> dict[str, np.ndarray]:
        segments = annotation.get("segments_info", [])
        for segment in segments:
            if segment.get("category_id") not in self.labels or "id" not in segment:
                raise BadSample(f"{path}: a segment has no id or an unknown category: {segment}")
        return {
            "segment_map": segment_map(numbers, [segment["id"] for segment in segments], path),
            "labels": np.array([self.labels[segment["category_id"]] for segment in segments], dtype=np.int64),
            "is_crowd": np.array([bool(segment.get("iscrowd")) for segment in segments], dtype=bool),
        }


def segment_map(numbers: np.ndarray, known: list[int], path: Path) -> np.ndarray:
    """Numbers of segments (H, W) -> their positions in `known`, and `VOID`.

    Raises:
        BadSample: the picture and the list name different segments, or there is none.
    """
    if len(set(known)) < len(known) or NO_SEGMENT in known:
        raise BadSample(
            f"{path}: its annotation lists a segment twice, or {NO_SEGMENT}, which stands for none: {known}"
        )
    present, places = np.unique(numbers, return_inverse=True)
    listed = {number: position for position, number in enumerate(known)} | {NO_SEGMENT: VOID}
    unknown = [number for number in present.tolist() if number not in listed]
    if unknown:
        raise BadSample(f"{path} shows segments {unknown[:5]} that its annotation does not list")
    empty = sorted(set(known) - set(present.tolist()))
    if empty:
        raise BadSample(f"{path} shows no pixel of the segments {empty[:5]} that its annotation lists")
    if not known:
        raise BadSample(f"{path} shows no segment")
    return np.array([listed[number] for number in present.tolist()])[places].reshape(numbers.shape)


def _things(file: CocoFile, labels: list[str]) -> frozenset[int]:
    unmarked = [category["name"] for category in file.categories if category.get("isthing") is None]
    if unmarked:
        raise UserError(f"{file.path}: the category {unmarked[0]} does not say whether it isthing")
    countable = {category["name"] for category in file.categories if category["isthing"]}
    return frozenset(position for position, label in enumerate(labels) if label in countable)


def _segment_numbers(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """(H, W) int64: red + 256 green + 256 * 256 blue."""
    colors = colours(read(path), str(path)).astype(np.int64)
    if colors.shape[:2] != image_size:
        raise BadSample(f"{path} has height and width {colors.shape[:2]}, its image {image_size}")
    return colors @ np.array([1, 256, 256 * 256])
