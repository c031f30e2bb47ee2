"""Class ids of pixels, checked, from whatever ids a file holds."""

import dataclasses

import numpy as np
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN, NonNegative
from ..bad_samples import BadSample
from ..options import DataOptions
from ..samples import IGNORE_INDEX
from .palettes import Colours, Palette


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


@dataclasses.dataclass(frozen=True)
class SemanticIds:
    """What the ids in the label files mean.

    Attributes:
        num_labels: class ids are 0 to one less than this.
        ignore_index: the id of unlabelled pixels.
        reduce: 0 is unlabelled as well, and every other id one more than its class.
        palette: the ids that the colours of label files stand for; None where their pixels are ids.
    """

    num_labels: int
    ignore_index: int
    reduce: bool
    palette: Palette | None = None

    @classmethod
    def of(cls, options: SemanticOptions, labels: list[str]) -> "SemanticIds":
        """As the recipe says.

        Raises:
            UserError: there are too few classes or, for one byte a pixel, too many.
        """
        if not 2 <= len(labels) < IGNORE_INDEX:
            raise UserError(f"data.labels must name 2 to {IGNORE_INDEX - 1} classes, got {len(labels)}")
        reduce = options.reduce_labels
        palette = None if options.palette is None else Palette.of(options.palette, labels, int(reduce))
        return cls(len(labels), options.ignore_index, reduce, palette)

    def read(self, label: Image.Image, name: str) -> np.ndarray:
        """The ids in a label file, (H, W) if it is a map of ids or of colours of the palette."""
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
        if ids.dtype.kind not in "biu":
            raise BadSample(f"{name}: label holds {ids.dtype} values, expected whole numbers")
        ids = ids.astype(np.int64)
        labelled = ids != self.ignore_index
        if self.reduce:
            labelled &= ids != 0
        classes = ids - self.reduce
        self._check(ids[labelled], classes[labelled], name)
        return np.where(labelled, classes, IGNORE_INDEX)

    def _check(self, ids: np.ndarray, classes: np.ndarray, name: str) -> None:
        unlabelled = f"{self.ignore_index} (data.ignore_index)" + " and 0 (data.reduce_labels)" * self.reduce
        known = (classes >= 0) & (classes < self.num_labels)
        if not known.all():
            unknown = np.unique(ids[~known]).tolist()
            first, last = self.reduce + 0, self.num_labels - 1 + self.reduce
            raise BadSample(
                f"{name}: label holds ids {unknown[:5]}, allowed are {first}..{last} (data.labels) and {unlabelled}"
            )
        if len(ids) == 0:
            raise BadSample(f"{name}: no pixel is labelled, all are {unlabelled}")
