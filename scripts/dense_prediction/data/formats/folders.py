"""Semantic segmentation from images and masks in folders, matched by the stems of their names (as ADE20K has them)."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ...tasks import Task
from ..annotations.file_names import files_below, spelt_in
from ..annotations.semantic_maps import SemanticIds, SemanticOptions, count_ids
from ..images import is_picture_name, read, read_picture
from ..options import ExifOrientation, SplitPlaces
from ..samples import Glance, Sample, Source, new_sample


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class FoldersOptions(SplitPlaces, SemanticOptions):
    tasks: ClassVar[tuple[str, ...]] = ("semantic_segmentation",)

    format: Literal["folders"] = "folders"
    masks: dict[str, str] = Field(default_factory=dict, description="folder of the masks of each split, below path")
    mask_suffix: str = Field(default=".png", description="what stands after the image's stem in a mask's name")

    def open(self, task: Task) -> Source:
        """The folders that `images` and `masks` name for each split."""
        labels = self.class_names(None)
        ids = SemanticIds.of(self, labels)
        return Source(
            labels,
            frozenset(),
            lambda key: MaskSplit(_pairs(self, key), ids, self.exif_orientation),
            self.category_ids(labels),
        )


class MaskSplit:
    """Pairs of an image and a mask of ids."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], ids: SemanticIds, orientation: ExifOrientation) -> None:
        self.pairs = pairs
        self.ids = ids
        self.orientation = orientation

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.pairs[index]
        ids = self._ids(mask_path)
        image = read_picture(image_path, self.orientation, ids.shape[:2])
        semantic_map = self.ids.to_map(ids, (image.height, image.width), str(mask_path))
        return new_sample(image, str(image_path), index) | {"semantic_map": semantic_map}

    def glance(self, index: int) -> Glance:
        """How many pixels of a mask have each id."""
        path = self.pairs[index][1]
        return count_ids(self._ids(path), str(path))

    def _ids(self, mask: Path) -> np.ndarray:
        return self.ids.read(read(mask), str(mask))


def _pairs(options: FoldersOptions, key: str) -> list[tuple[Path, Path]]:
    """Each image with the mask of its stem; a mask that is missing is met when its sample is read."""
    images, masks = options.place("images", key), options.place("masks", key)
    found = images_below(images)
    folders = [masks / image.relative_to(images).parent for image in found]
    pairs = [(image, spelt_in(folder, f"{image.stem}{options.mask_suffix}")) for image, folder in zip(found, folders)]
    if twice := [mask for mask, count in Counter(mask for _, mask in pairs).items() if count > 1]:
        first, second = [image.name for image, mask in pairs if mask == twice[0]][:2]
        raise UserError(f"{first} and {second} in {images} would both have the mask {twice[0].name}: leave one out")
    if found and not any(os.path.exists(mask) for _, mask in pairs):
        raise UserError(
            f"no image in {images} has a mask in {masks}: {found[0].name} would have {pairs[0][1].name}; set "
            f"data.mask_suffix (now {options.mask_suffix})"
        )
    return pairs


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and its folders, in the order of their names."""
    return sorted(path for path in files_below(folder) if is_picture_name(path.name))
