"""Semantic segmentation from images and masks in folders, matched by the stems of their names (as ADE20K has them)."""

import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
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


OR = "|"
"""Between patterns of which the first that fits is taken."""


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class PairedOptions(SplitPlaces):
    """Of formats in which the name of an image leads to its mask."""

    masks: dict[str, str] = Field(default_factory=dict, description="folder of the masks of each split, below path")
    mask_suffix: str = Field(
        default=".png",
        description="what stands after the image's stem in a mask's name; or the name with a * for it, mask_*.png or "
        "../masks/*.png",
    )
    image_stem: str = Field(
        default="*",
        description="what stems of images are called, with a * for the part that masks repeat, and perhaps the folder "
        "they are in: *_img, images/*; several where splits differ, as mask_suffix has them: *_training|*_test",
    )


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class FoldersOptions(PairedOptions, SemanticOptions):
    tasks: ClassVar[tuple[str, ...]] = ("semantic_segmentation",)

    format: Literal["folders"] = "folders"

    def open(self, task: Task) -> Source:
        """The folders that `images` and `masks` name for each split."""
        labels = self.class_names(None)
        ids = SemanticIds.of(self, labels)

        def open_split(key: str) -> MaskSplit:
            pairs, images = pairs_of(self, key), self.place("images", key)
            return MaskSplit(pairs, ids, self.exif_orientation, names_below(images, [image for image, _ in pairs]))

        return Source(labels, frozenset(), open_split, self.category_ids(labels))


class MaskSplit:
    """Pairs of an image and a mask of ids.

    Args:
        names: of the images, below their folder.
    """

    def __init__(
        self, pairs: Sequence[tuple[Path, Path]], ids: SemanticIds, orientation: ExifOrientation, names: Sequence[str]
    ) -> None:
        self.pairs = pairs
        self.names = names
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

    def picture_names(self) -> Sequence[str]:
        """What each image is called below its folder."""
        return self.names

    def _ids(self, mask: Path) -> np.ndarray:
        return self.ids.read(read(mask), str(mask))


def pairs_of(options: PairedOptions, key: str) -> list[tuple[Path, Path]]:
    """Each image with the mask of its stem; a mask that is missing is met when its sample is read.

    Where both are in one folder, what is the mask of another file is no image. What has no mask and is called as
    another image with something after it shows the same and is none either: `a_superpixels.png`, `a_mask_2.png`.
    """
    images, masks = options.place("images", key), options.place("masks", key)
    found = images_below(images)
    named = zip(found, names_below(images, found))
    masked = [(image, mask_of(name, options.image_stem, options.mask_suffix)) for image, name in named]
    pairs = [(image, spelt_in(masks, mask)) for image, mask in masked if mask is not None]
    if images == masks:
        taken = {mask for image, mask in pairs if mask != image}
        pairs = [(image, mask) for image, mask in pairs if image not in taken]
    pairs = _without_extras(pairs)
    found = [image for image, _ in pairs]
    if twice := [mask for mask, count in Counter(mask for _, mask in pairs).items() if count > 1]:
        first, second = [image.name for image, mask in pairs if mask == twice[0]][:2]
        raise UserError(f"{first} and {second} in {images} would both have the mask {twice[0].name}: leave one out")
    if found and not any(os.path.exists(mask) for _, mask in pairs):
        raise UserError(
            f"no image in {images} has a mask in {masks}: {found[0].name} would have {pairs[0][1].name}; set "
            f"data.mask_suffix (now {options.mask_suffix})"
        )
    return pairs


def _without_extras(pairs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Without images that have no mask and are called as another with something after it."""
    stems = {image.with_suffix("") for image, _ in pairs}
    return [(image, mask) for image, mask in pairs if not _is_called_after(image, stems) or os.path.exists(mask)]


def _is_called_after(image: Path, stems: set[Path]) -> bool:
    parts = image.stem.split("_")
    return any(image.with_name("_".join(parts[:end])) in stems for end in range(1, len(parts)) if parts[end - 1])


def mask_of(image: str, image_stem: str, mask_suffix: str) -> str | None:
    """Where the mask of an image is, from where the image is, both below their folders; None of a file that is none.

    >>> mask_of("a/img_1.jpg", "img_*", "_mask.png"), mask_of("a/images/1.jpg", "images/*", "../masks/*.png")
    ('a/1_mask.png', 'a/masks/1.png')
    """
    stems, suffixes = image_stem.split(OR), mask_suffix.split(OR)
    suffixes = suffixes if len(suffixes) == len(stems) else suffixes * len(stems)
    found = (_mask_of(image, stem, suffix) for stem, suffix in zip(stems, suffixes))
    return next((mask for mask in found if mask is not None), None)


def _mask_of(image: str, image_stem: str, mask_suffix: str) -> str | None:
    folder, _, pattern = image_stem.rpartition("/")
    above, _, name = image.rpartition("/")
    before, _, after = pattern.partition("*")
    stem = PurePosixPath(name).stem
    core = stem.removeprefix(before).removesuffix(after)
    if stem != f"{before}{core}{after}" or (folder and PurePosixPath(above).name != folder):
        return None
    mask = mask_suffix.replace("*", core) if "*" in mask_suffix else core + mask_suffix
    return posixpath.normpath(posixpath.join(above, mask))


def names_below(folder: Path, paths: Sequence[Path]) -> list[str]:
    """What files are called below their folder, on any system."""
    return [path.relative_to(folder).as_posix() for path in paths]


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and its folders, in the order of their names."""
    return sorted(path for path in files_below(folder) if is_picture_name(path.name))
