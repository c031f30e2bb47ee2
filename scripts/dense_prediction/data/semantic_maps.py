"""Class ids of pixels, checked, from whatever ids a file holds."""

from dataclasses import dataclass

import numpy as np
from torchvision import tv_tensors

from .bad_samples import BadSample
from .options import DataOptions
from .samples import IGNORE_INDEX, to_mask


@dataclass(frozen=True)
class SemanticIds:
    """What the ids in the label files mean.

    Attributes:
        num_labels: class ids are 0 to one less than this.
        ignore_index: the id of unlabelled pixels.
        reduce: 0 is unlabelled as well, and every other id one more than its class.
    """

    num_labels: int
    ignore_index: int
    reduce: bool

    @classmethod
    def of(cls, recipe: DataOptions, labels: list[str]) -> "SemanticIds":
        return cls(len(labels), recipe.ignore_index, recipe.reduce_labels)

    def to_map(self, ids: np.ndarray, image_size: tuple[int, int], name: str) -> tv_tensors.Mask:
        """Class ids (H, W) int64, with unlabelled pixels as `IGNORE_INDEX`.

        Raises:
            BadSample: the shape is not the image's, the ids are no whole numbers, one is no class, or no pixel is
            labelled.
        """
        if ids.shape != image_size:
            raise BadSample(f"{name}: label has shape {ids.shape}, expected the image's height and width {image_size}")
        if ids.dtype.kind not in "biu":
            raise BadSample(f"{name}: label holds {ids.dtype} values, expected whole numbers")
        ids = ids.astype(np.int64)
        labelled = ids != self.ignore_index
        if self.reduce:
            labelled &= ids != 0
        classes = ids - self.reduce
        self._check(ids[labelled], classes[labelled], name)
        return to_mask(np.where(labelled, classes, IGNORE_INDEX))

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
