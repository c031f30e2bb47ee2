"""Where images and their masks come from: any dataset of the `datasets` library, or shapes that we draw."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from . import shapes
from .errors import UserError
from .recipes import DataRecipe


IGNORE_INDEX = 255
"""The id of unlabelled pixels in every mask that leaves this module, whatever it was in the files."""

SYNTHETIC = "synthetic_shapes"
SYNTHETIC_SIZE = 64
SYNTHETIC_SEEDS = {"train": 0, "validation": 1}
SYNTHETIC_SAMPLES = {"train": 4000, "validation": 100}

Sample = tuple[tv_tensors.Image, tv_tensors.Mask]
"""An image, (3, H, W) uint8, and its mask, (H, W) int64 of class ids and `IGNORE_INDEX`."""


class Split(Protocol):
    """A finite set of samples that can be read in any order."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class SegmentationData:
    train: Split
    validation: Split
    labels: list[str]


def load_data(recipe: DataRecipe) -> SegmentationData:
    """Both splits and the class names of the recipe's dataset.

    Raises:
        UserError: the dataset, a split, a column or the class names cannot be found, or a split is empty.
    """
    if recipe.path == SYNTHETIC:
        train, validation, labels = _draw_splits()
    else:
        train, validation, labels = _read_splits(recipe)
    if recipe.max_validation_samples is not None:
        validation = _First(validation, recipe.max_validation_samples)
    return SegmentationData(train, validation, labels)


def _draw_splits() -> tuple[Split, Split, list[str]]:
    train, validation = (ShapesSplit(SYNTHETIC_SEEDS[name], SYNTHETIC_SAMPLES[name]) for name in SYNTHETIC_SEEDS)
    return train, validation, list(shapes.LABELS)


def _read_splits(recipe: DataRecipe) -> tuple[Split, Split, list[str]]:
    dataset = _load_dataset(recipe.path)
    train = _select(dataset, recipe, "train_split")
    validation = _select(dataset, recipe, "validation_split")
    labels = recipe.labels or _labels_from_features(train.features[recipe.label_column])
    if not 2 <= len(labels) < IGNORE_INDEX:
        raise UserError(f"data.labels must name 2 to {IGNORE_INDEX - 1} classes, got {len(labels)}")
    return DatasetSplit(train, recipe, len(labels)), DatasetSplit(validation, recipe, len(labels)), labels


class ShapesSplit:
    """Drawn samples: see `shapes`."""

    def __init__(self, seed: int, length: int) -> None:
        self.seed = seed
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        image, mask = shapes.draw_sample(self.seed, index, SYNTHETIC_SIZE)
        return _image_tensor(image), tv_tensors.Mask(torch.from_numpy(np.array(mask, dtype=np.int64)))


class DatasetSplit:
    """One split of a dataset; each sample is checked when it is read, and a bad one is reported by its name."""

    def __init__(self, dataset: datasets.Dataset, recipe: DataRecipe, num_labels: int) -> None:
        # Undecoded, so that a file that cannot be decoded is caught here, where its name is known.
        self.dataset = dataset.cast_column(recipe.image_column, datasets.Image(decode=False))
        self.label_is_image = isinstance(dataset.features[recipe.label_column], datasets.Image)
        if self.label_is_image:
            self.dataset = self.dataset.cast_column(recipe.label_column, datasets.Image(decode=False))
        self.recipe = recipe
        self.num_labels = num_labels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        row = self.dataset[index]
        name = self._name(row, index)
        image = _decode(row[self.recipe.image_column], f"{name}: image").convert("RGB")
        label = row[self.recipe.label_column]
        ids = np.array(_decode(label, f"{name}: label") if self.label_is_image else label)
        return _image_tensor(image), self._mask(ids, (image.height, image.width), name)

    def _name(self, row: dict[str, Any], index: int) -> str:
        """What a person finds the sample by: its file if it has one, and its place in the split."""
        place = f"sample {index} of {self.dataset.split}"
        file = (row[self.recipe.image_column] or {}).get("path") or row.get("name")
        return f"{place} ({file})" if file else place

    def _mask(self, ids: np.ndarray, image_size: tuple[int, int], name: str) -> tv_tensors.Mask:
        """Class ids (H, W), checked, with unlabelled pixels as `IGNORE_INDEX`."""
        if ids.shape != image_size:
            raise UserError(f"{name}: label has shape {ids.shape}, expected the image's height and width {image_size}")
        ids = ids.astype(np.int64)
        labelled = ids != self.recipe.ignore_index
        known = (ids >= 0) & (ids < self.num_labels)
        if (labelled & ~known).any():
            unknown = np.unique(ids[labelled & ~known]).tolist()
            raise UserError(
                f"{name}: label holds ids {unknown[:5]}, allowed are 0..{self.num_labels - 1} (data.labels) "
                f"and {self.recipe.ignore_index} (data.ignore_index)"
            )
        if not labelled.any():
            raise UserError(f"{name}: no pixel is labelled, all are {self.recipe.ignore_index} (data.ignore_index)")
        return tv_tensors.Mask(torch.from_numpy(np.where(labelled, ids, IGNORE_INDEX)))


class _First:
    """The first `length` samples of a split."""

    def __init__(self, split: Split, length: int) -> None:
        self.split = split
        self.length = min(length, len(split))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return self.split[index]


def _load_dataset(path: str) -> datasets.DatasetDict:
    folder = Path(path).expanduser()
    if not folder.is_dir() and path.startswith((".", "/", "~")):
        raise UserError(f"data.path={path}: there is no folder {folder.resolve()}; set data.path=FOLDER")
    try:
        return datasets.load_dataset(str(folder) if folder.is_dir() else path)
    # What `datasets` raises depends on the builder, the network and the Hub; all of it means "not readable".
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.path={path}: neither a folder nor a Hub dataset that can be read: {reason}") from error


def _select(dataset: datasets.DatasetDict, recipe: DataRecipe, key: str) -> datasets.Dataset:
    name = getattr(recipe, key)
    if name not in dataset:
        raise UserError(f"data.{key}={name}: {recipe.path} has no such split, it has {', '.join(dataset)}")
    split = dataset[name]
    for column in (recipe.image_column, recipe.label_column):
        if column not in split.features:
            raise UserError(f"{recipe.path} has no column {column!r}, it has {', '.join(split.features)}")
    if len(split) == 0:
        raise UserError(f"data.{key}={name}: the split is empty")
    return split


def _labels_from_features(feature: Any) -> list[str]:
    """Names of a label column that holds rows of `ClassLabel`; a column of images holds no names."""
    while isinstance(feature, datasets.List):
        feature = feature.feature
    if not isinstance(feature, datasets.ClassLabel):
        raise UserError("the dataset does not name its classes: list them in data.labels, in the order of their ids")
    return list(feature.names)


def _decode(value: dict[str, Any] | None, name: str) -> Image.Image:
    if value is None or not (value["bytes"] or value["path"]):
        raise UserError(f"{name} is empty")
    try:
        return datasets.Image().decode_example(value)
    # PIL reports damaged files by these three, depending on the format.
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{name} cannot be decoded: {error}") from error


def _image_tensor(image: Image.Image) -> tv_tensors.Image:
    return tv_tensors.Image(functional.pil_to_tensor(image))
