"""Instances of one class from masks that tell them apart: a number for each object, or a file for each.

Numbers are those of Cellpose (https://cellpose.readthedocs.io/en/latest/train.html) and StarDist; files are those of
the Data Science Bowl 2018 (https://www.kaggle.com/c/data-science-bowl-2018/data).
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN, NonNegative
from ..annotations.file_names import is_litter
from ..annotations.instances import Instance, box_round, instance_fields
from ..annotations.palettes import Colours, Palette
from ..bad_samples import BadSample
from ..images import NOT_SAID, AnnotatedSize, colours, is_picture_name, read, read_picture
from ..painted_maps import PaintedOptions
from ..samples import Glance, Sample, Source, new_sample
from .folders import PairedOptions, images_below, names_below, pairs_of


IMAGES, MASKS = "images", "masks"
"""The folders of each picture where it has folders of its own."""

OBJECT = "object"

BACKGROUND = 0

_WEIGHTS = np.array([65536, 256, 1], dtype=np.int64)


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class InstanceMasksOptions(PairedOptions, PaintedOptions):
    """Folders of images and of masks. These name no class: there is one, or `classes` has other masks that do."""

    tasks: ClassVar[tuple[str, ...]] = ("instance_segmentation", "object_detection", "semantic_segmentation")

    format: Literal["instance_masks"] = "instance_masks"
    objects: Literal["numbers", "files"] = Field(
        default="numbers",
        description="a mask of an image numbers its objects, 0 being none; or each object is a file, in a folder that "
        "is called as its image, or in masks/ beside images/",
    )
    void_numbers: list[NonNegative] = Field(
        default_factory=list,
        description="numbers that are no object, as those of borders in VOC's masks; of colours red * 65536 + green * "
        "256 + blue",
    )
    classes: dict[str, str] = Field(
        default_factory=dict,
        description="folder of a second mask of each image, called as the first: what most of an object's pixels are "
        "there is its class, 1 the first of labels; else all are of one class",
    )
    palette: Colours | None = Field(
        default=None, description="of these masks where they are in colours, as for label maps"
    )

    def open_objects(self, masks: bool) -> Source:
        """The folders that `images` and `masks` name for each split."""
        labels = self.class_names([OBJECT])
        if len(labels) > 1 and not self.classes:
            raise UserError(
                f"data.labels={labels}: masks that tell objects apart are of one class; name one, or the folders of "
                "masks of classes in data.classes"
            )
        if self.classes and self.objects == "files":
            raise UserError("data.classes is for data.objects=numbers, masks that number the objects of an image")

        def open_split(key: str) -> "InstanceMaskSplit":
            pairs = pairs_of(self, key) if self.objects == "numbers" else _with_folders(self, key)
            classes = ClassMasks.of(self, labels, key) if self.classes else None
            return InstanceMaskSplit(pairs, self.place("images", key), labels, masks, self, classes)

        return Source(labels, frozenset(range(len(labels))), open_split)


class ClassMasks:
    """The masks that say of which class objects are.

    Args:
        masks: the folder of the objects' masks, below which they are called as these below `folder`.
        palette: of those in colours.
        count: of the classes, which are 1 to `count` in the masks.
    """

    def __init__(self, masks: Path, folder: Path, palette: Palette | None, count: int) -> None:
        self.masks, self.folder, self.palette, self.count = masks, folder, palette, count

    @classmethod
    def of(cls, options: InstanceMasksOptions, labels: list[str], key: str) -> "ClassMasks":
        palette = None if options.palette is None else Palette.of(options.palette, labels, 1)
        return cls(options.place("masks", key), options.place("classes", key), palette, len(labels))

    def labels_of(self, mask: Path, objects: Sequence[np.ndarray]) -> list[int | None]:
        """The class that most pixels of each object (H, W) in a mask have, from 0 on; None where none has any.

        Raises:
            BadSample: the mask of the classes cannot be read, or has another size.
        """
        path = self.folder / mask.relative_to(self.masks)
        numbers = _numbers(path) if self.palette is None else self.palette.read(read(path), str(path))
        if objects and numbers.shape != objects[0].shape:
            raise BadSample(f"{path} has height and width {numbers.shape}, {mask} has {objects[0].shape}")
        return [self._most(numbers[each]) for each in objects]

    def _most(self, numbers: np.ndarray) -> int | None:
        counts = np.bincount(numbers[(numbers > BACKGROUND) & (numbers <= self.count)])
        return int(counts.argmax()) - 1 if counts.any() else None


class InstanceMaskSplit:
    """Pairs of an image and what shows its objects, a mask or a folder of masks.

    Args:
        folder: of the images.
        labels: the names of the classes.
        masks: give the masks too, and not the boxes round them alone.
        classes: say of which class an object is; None where there is one.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        folder: Path,
        labels: list[str],
        masks: bool,
        options: InstanceMasksOptions,
        classes: ClassMasks | None = None,
    ) -> None:
        self.pairs, self.folder, self.labels = pairs, folder, labels
        self.masks, self.classes = masks, classes
        self.orientation = options.exif_orientation
        self.no_objects = {BACKGROUND, *options.void_numbers}
        self.objects_of = self._numbered if options.objects == "numbers" else _in_files

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        path, place = self.pairs[index]
        found = list(self.objects_of(place))
        annotated = found[0][0].shape if found else _size_of(place)
        image = read_picture(path, self.orientation, annotated)
        size = image.height, image.width
        for mask, name in found:
            if mask.shape != size:
                raise BadSample(f"{name} has height and width {mask.shape}, its image {path} has {size}")
        objects = [mask for mask, _ in found]
        labels = self._labels_of(place, objects)
        instances = [self._instance(mask, label) for mask, label in zip(objects, labels) if label is not None]
        return new_sample(image, str(path), index) | instance_fields(instances, size, str(path), "xyxy", self.masks)

    def glance(self, index: int) -> Glance:
        """How many objects there are, and of which classes."""
        place = self.pairs[index][1]
        if self.classes is not None:
            labels = self._labels_of(place, [mask for mask, _ in self.objects_of(place)])
            return Glance([self.labels[label] for label in labels if label is not None])
        count = len(_files(place)) if self.objects_of is _in_files else len(self._present(_numbers(place)))
        return Glance([self.labels[0]] * count)

    def picture_names(self) -> list[str]:
        """What each image is called below its folder."""
        return names_below(self.folder, [image for image, _ in self.pairs])

    def _numbered(self, path: Path) -> Iterator[tuple[np.ndarray, str]]:
        """The objects of a mask, each (H, W) bool, with what a message calls them."""
        numbers = _numbers(path)
        for number in self._present(numbers):
            yield numbers == number, str(path)

    def _present(self, numbers: np.ndarray) -> list[int]:
        """Those of the objects."""
        return [number for number in np.unique(numbers).tolist() if number not in self.no_objects]

    def _labels_of(self, place: Path, objects: Sequence[np.ndarray]) -> list[int | None]:
        return [0] * len(objects) if self.classes is None else self.classes.labels_of(place, objects)

    def _instance(self, mask: np.ndarray, label: int) -> Instance:
        name = self.labels[label]
        return Instance(box_round(mask), label, name, area=int(mask.sum()), mask=mask if self.masks else None)


def _with_folders(options: InstanceMasksOptions, key: str) -> list[tuple[Path, Path]]:
    """Each image with the folder of its masks."""
    images, masks = options.place("images", key), options.place("masks", key)
    found = images_below(images)
    pairs = [(image, _folder_of(masks / image.relative_to(images))) for image in found]
    if images == masks:  # in which the masks were found too
        pairs = [(image, folder) for image, folder in pairs if os.path.isdir(folder)]
    if found and not any(os.path.isdir(folder) for _, folder in pairs):
        raise UserError(f"no image in {images} has a folder of masks in {masks}: {found[0].name} would have one")
    return pairs


def _folder_of(image: Path) -> Path:
    """a/ID.png -> a/ID, and ID/images/x.png -> ID/masks."""
    if image.parent.name == IMAGES and not os.path.isdir(image.with_suffix("")):
        return image.parent.with_name(MASKS)
    return image.with_suffix("")


def _in_files(folder: Path) -> Iterator[tuple[np.ndarray, str]]:
    """The same of a folder of masks; one without a pixel shows nothing."""
    for file in _files(folder):
        mask = _numbers(file) != BACKGROUND
        if mask.any():
            yield mask, str(file)


def _files(folder: Path) -> list[Path]:
    try:
        names = sorted(name for name in os.listdir(folder) if is_picture_name(name) and not is_litter(name))
    except OSError as error:
        raise BadSample(f"{folder}, the folder of the masks, cannot be read: {error.strerror}") from error
    return [folder / name for name in names]


def _size_of(place: Path) -> AnnotatedSize:
    """Height and width of a mask without objects; nothing where there is none."""
    if os.path.isdir(place):
        return NOT_SAID
    height, width = _numbers(place).shape
    return height, width


def _numbers(path: Path) -> np.ndarray:
    """(H, W) of whole numbers, with all bits that the file has; colours are numbers too, and black is none.

    Raises:
        BadSample: it cannot be read, or holds no whole numbers.
    """
    mask = read(path)
    numbers = np.array(mask)
    if numbers.ndim == 3:
        return colours(mask, str(path)).astype(np.int64) @ _WEIGHTS
    if numbers.dtype.kind == "f" and np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all():
        numbers = numbers.astype(np.int64)  # TIFFs of Fiji
    if numbers.dtype.kind not in "biu":
        raise BadSample(f"{path}: the mask holds {numbers.dtype} values, expected whole numbers")
    return numbers
