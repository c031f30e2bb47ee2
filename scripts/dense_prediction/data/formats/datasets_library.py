"""Anything that `datasets.load_dataset` reads: a Hub id, a folder of parquet, an image folder with metadata."""

from collections.abc import Mapping
from pathlib import Path

import datasets

from ...errors import UserError
from ..options import DataOptions
from ..rows import READERS, RowReader, Rows
from ..samples import Sample, Split
from ..source import Source
from ..streaming import StreamedSplit


class DatasetSplit:
    """One split of a dataset; each sample is checked when it is read."""

    def __init__(self, dataset: datasets.Dataset, reader: RowReader) -> None:
        self.dataset = reader.undecoded(dataset)
        self.reader = reader

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.reader.read(self.dataset[index], f"sample {index} of {self.dataset.split}", index)


def open_dataset(recipe: DataOptions, task: str) -> Source:
    """The dataset at `data.path`.

    Raises:
        UserError: it cannot be read, or lacks a split, a column or class names.
    """
    dataset = _load_dataset(recipe)
    train = _select(dataset, recipe, "train_split")
    if train.features is None:
        raise UserError(f"data.path={recipe.path}: its columns are not known before it is read: set streaming=false")
    reader = READERS[task](recipe, train.features)

    def open_split(key: str) -> Split:
        rows = _select(dataset, recipe, key)
        if recipe.streaming:
            return StreamedSplit(rows, reader, recipe.shuffle_buffer, recipe.bad_samples == "skip")
        return DatasetSplit(rows, reader)

    things = frozenset(range(len(reader.labels))) if task == "object_detection" else frozenset()
    return Source(reader.labels, things, open_split)


def _load_dataset(recipe: DataOptions) -> Mapping[str, Rows]:
    path = recipe.path
    folder = Path(path).expanduser()
    if not folder.is_dir() and path.startswith((".", "/", "~")):
        raise UserError(f"data.path={path}: there is no folder {folder.resolve()}; set data.path=FOLDER")
    try:
        return datasets.load_dataset(str(folder) if folder.is_dir() else path, streaming=recipe.streaming)
    # What `datasets` raises depends on the builder, the network and the Hub; all of it means "not readable".
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.path={path}: neither a folder nor a Hub dataset that can be read: {reason}") from error


def _select(dataset: Mapping[str, Rows], recipe: DataOptions, key: str) -> Rows:
    name = getattr(recipe, key)
    if name not in dataset:
        raise UserError(f"data.{key}={name}: {recipe.path} has no such split, it has {', '.join(dataset)}")
    return dataset[name]
