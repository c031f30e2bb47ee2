"""Class ids of pixels, checked, from whatever ids a file holds."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN, NonNegative, Positive
from ..bad_samples import BadSample
from ..images import colours
from ..options import DataOptions, some
from ..samples import IGNORE_INDEX, Glance
from .palettes import Colours, Palette


WHITE = 255
"""What drawing programs write for the one class of a mask that has no other: white."""


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class SemanticOptions(DataOptions):
    """Of formats with a class id for each pixel."""

    ignore_index: NonNegative = Field(default=255, description="id in the label files that is no class")
    reduce_labels: bool = Field(
        default=False, description="0 in the label files is no class, and 1 the first (ADE20K)"
    )
    palette: Colours | None = Field(
        default=None,
        description="of label files in colours: {CLASS or id: [red, green, blue], ...} or lists of them; null for ids",
    )
    foreground_255: bool | None = Field(
        default=None,
        description="of two classes: 255 in the label files is the second one, and not void; null asks the files",
    )
    foreground_from: Positive | None = Field(
        default=None,
        description="of two classes: numbers in the label files from this one on are the second, as where JPEG has "
        "blurred 0 and 255; of colours the brightest of the three counts; null for ids",
    )

    def category_ids(self, labels: list[str]) -> list[int] | None:
        """What the label files call each class, None where that is its id."""
        if self.foreground_255:
            return [0, WHITE]
        return list(range(1, len(labels) + 1)) if self.reduce_labels else None


@dataclasses.dataclass(frozen=True)
class SemanticIds:
    """What the ids in the label files mean.

    Attributes:
        num_labels: class ids are 0 to one less than this.
        ignore_index: the id of unlabelled pixels.
        reduce: 0 is unlabelled as well, and every other id one more than its class.
        white: the ids are 0 and 255, for the classes 0 and 1.
        palette: the ids that the colours of label files stand for; None where their pixels are ids.
        threshold: the number from which pixels are the second of two classes; None where they are ids.
    """

    num_labels: int
    ignore_index: int
    reduce: bool
    white: bool = False
    palette: Palette | None = None
    threshold: int | None = None

    @classmethod
    def of(cls, options: SemanticOptions, labels: list[str]) -> "SemanticIds":
        """As the recipe says.

        Raises:
            UserError: there are too few classes or, for one byte a pixel, too many; or 255 cannot be one of them.
        """
        if len(labels) == 1:
            raise UserError(
                f"data.labels must name 2 to {IGNORE_INDEX - 1} classes, got 1 ({labels[0]}): name what is 0 in the "
                f"label files as well, data.labels=[background, {labels[0]}]"
            )
        if not 2 <= len(labels) < IGNORE_INDEX:
            raise UserError(f"data.labels must name 2 to {IGNORE_INDEX - 1} classes, got {len(labels)}")
        if options.foreground_from is not None and (
            len(labels) != 2 or options.reduce_labels or options.foreground_255 or options.palette
        ):
            raise UserError(
                f"data.foreground_from={options.foreground_from} is for two classes that a number parts: got "
                f"{len(labels)}; leave out data.foreground_255, data.reduce_labels and data.palette"
            )
        white, reduce = bool(options.foreground_255), options.reduce_labels
        if white and not may_be_white(options, labels):
            raise UserError(
                f"data.foreground_255=true is for two classes of which 0 is the first: got {len(labels)}, "
                f"data.reduce_labels={options.reduce_labels}, data.ignore_index={options.ignore_index}"
            )
        palette = None if options.palette is None else Palette.of(options.palette, labels, int(reduce))
        return cls(len(labels), options.ignore_index, reduce, white, palette, options.foreground_from)

    def read(self, label: Image.Image, name: str) -> np.ndarray:
        """The ids in a label file, (H, W) if it is a map of ids, or of colours that the palette or a number parts."""
        if self.threshold is not None:
            return (brightness(label, name) >= self.threshold).astype(np.uint8)
        return np.array(label) if self.palette is None else self.palette.read(label, name)

    def to_map(self, ids: np.ndarray, image_size: tuple[int, int], name: str) -> np.ndarray:
        """Class ids (H, W) int64, with unlabelled pixels as `IGNORE_INDEX`.

        Raises:
            BadSample: the shape is not the image's, the ids are no whole numbers, one is no class, or no pixel is
            labelled.
        """
        if ids.shape != image_size:
            raise BadSample(
                f"{name}: label has shape {ids.shape}, expected the image's height and width {image_size}"
                + "; a map of colours needs data.palette={CLASS: [red, green, blue], ...}" * (ids.ndim == 3)
            )
        _check_type(ids, name)
        ids = ids.astype(np.int64)
        labelled, classes = self._meaning(ids)
        self._check(ids[labelled], classes[labelled], name)
        return np.where(labelled, classes, IGNORE_INDEX)

    def count(self, pixels: Mapping[int, int]) -> tuple[dict[int, int], int, list[int]]:
        """Of the pixels of each id in the files: those of each class, those without a label, and ids of no class."""
        ids = np.array(list(pixels), dtype=np.int64)
        labelled, classes = self._meaning(ids)
        known = self._are_known(classes)
        by_class = {label: pixels[number] for label, number in zip(classes.tolist(), ids.tolist())}
        kept = set(classes[labelled & known].tolist())
        void = sum(pixels[number] for number in ids[~labelled].tolist())
        return {label: by_class[label] for label in kept}, void, sorted(ids[labelled & ~known].tolist())

    def allowed(self) -> str:
        """Which ids may stand in the files, for a message."""
        unlabelled = f"{self.ignore_index} (data.ignore_index)"
        if self.white:
            others = "" if self.ignore_index == WHITE else f" and {unlabelled}"
            return f"0 and 255 (data.foreground_255){others}"
        first, last = self.reduce + 0, self.num_labels - 1 + self.reduce
        return f"{first}..{last} (data.labels) and {unlabelled}" + " and 0 (data.reduce_labels)" * self.reduce

    def _meaning(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which ids are labelled, and the class of each; one that is no class is none of 0 to `num_labels` - 1."""
        if self.white:
            # 1 is no class here: files of both kinds would be mixed up.
            classes = np.select([ids == WHITE, ids == 1], [1, -1], ids)
            return (ids != self.ignore_index) | (ids == WHITE), classes
        labelled = ids != self.ignore_index
        if self.reduce:
            labelled &= ids != 0
        return labelled, ids - self.reduce

    def _are_known(self, classes: np.ndarray) -> np.ndarray:
        return (classes >= 0) & (classes < self.num_labels)

    def _check(self, ids: np.ndarray, classes: np.ndarray, name: str) -> None:
        known = self._are_known(classes)
        if not known.all():
            unknown = np.unique(ids[~known]).tolist()
            raise BadSample(f"{name}: label holds ids [{some(unknown)}], allowed are {self.allowed()}")
        if len(ids) == 0:
            unlabelled = f"{self.ignore_index} (data.ignore_index)" + " and 0 (data.reduce_labels)" * self.reduce
            raise BadSample(f"{name}: no pixel is labelled, all are {unlabelled}")


def may_be_white(options: SemanticOptions, labels: list[str]) -> bool:
    """Whether 255 can be the second class: there are two, 0 is the first, and pixels are ids."""
    is_of_ids = options.palette is None and options.foreground_from is None
    return len(labels) == 2 and not options.reduce_labels and options.ignore_index != 0 and is_of_ids


def brightness(mask: Image.Image, name: str) -> np.ndarray:
    """(H, W): the numbers of a mask of grey, of any bits; of colours, also those of a palette, the brightest of three.

    Raises:
        BadSample: it has neither.
    """
    is_grey = mask.mode in ("L", "I", "F") or mask.mode.startswith("I;")
    return np.array(mask) if is_grey else colours(mask, name).max(axis=-1)


def count_ids(ids: np.ndarray, name: str) -> Glance:
    """How many pixels of a label map (H, W) have each id.

    Raises:
        BadSample: it is no map of whole numbers.
    """
    if ids.ndim != 2:
        raise BadSample(f"{name}: label has shape {ids.shape}, expected a height and a width")
    _check_type(ids, name)
    if ids.dtype.kind == "b":
        ids = ids.astype(np.uint8)
    if ids.dtype == np.uint8:  # without sorting millions of pixels
        counts = np.bincount(ids.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(ids, return_counts=True)
    return Glance(pixels=dict(zip(values.tolist(), counts.tolist())), name=name)


def _check_type(ids: np.ndarray, name: str) -> None:
    if ids.dtype.kind not in "biu":
        raise BadSample(f"{name}: label holds {ids.dtype} values, expected whole numbers")
