"""The splits of a dataset that the `datasets` library reads."""

from collections.abc import Callable, Mapping
from pathlib import Path

import datasets

from ..errors import UserError
from ..failures import NOT_TO_BE_HAD, cache_or_hub
from .options import DataOptions
from .rows import UNREADABLE, RowReader, Rows
from .samples import Glance, Sample, Source, Stream, UncheckedSplit
from .streaming import StreamedSplit


class RowSplit:
    """One split of a dataset; each sample is checked when it is read."""

    def __init__(self, dataset: datasets.Dataset, reader: RowReader) -> None:
        self.dataset = reader.undecoded(dataset)
        self.reader = reader
        kept = [name for name in dataset.column_names if name in (reader.annotation_column, "name")]
        self.annotations = self.dataset.select_columns(kept)

    def __len__(self) -> int:
        return len(self.dataset)

    def glance(self, index: int) -> Glance:
        """What is annotated of a sample, whose picture stays where it is."""
        return self.reader.glance(self.annotations[index], f"sample {index} of {self.dataset.split}")

    def __getitem__(self, index: int) -> Sample:
        return self.reader.read(self.dataset[index], f"sample {index} of {self.dataset.split}", index)


def open_rows(
    options: DataOptions, new_reader: Callable[[datasets.Features], RowReader], buffer: int | None = None
) -> Source:
    """The dataset at `data.path`.

    Args:
        new_reader: what reads rows that have these features.
        buffer: if given, the rows are read while training, and the next one is drawn from so many.

    Raises:
        UserError: it cannot be read, or lacks a split, a column or class names.
    """
    dataset = _load_dataset(options.path, streaming=buffer is not None)
    train = _select(dataset, options, "train_split")
    if train.features is None:
        raise UserError(f"data.path={options.path}: its columns are not known before it is read: set streaming=false")
    reader = new_reader(train.features)

    def open_split(key: str) -> UncheckedSplit | Stream:
        rows = _select(dataset, options, key)
        if buffer is None:
            return RowSplit(rows, reader)
        return StreamedSplit(rows, reader, buffer, options.skips_bad_samples, options.known_intensity)

    return Source(reader.labels, reader.things, open_split, reader.category_ids)


def _load_dataset(path: str, streaming: bool) -> Mapping[str, Rows]:
    folder = Path(path).expanduser()
    if not folder.is_dir() and path.startswith((".", "/", "~")):
        raise UserError(f"data.path={path}: there is no folder {folder.absolute()}; set data.path=FOLDER")
    try:
        with cache_or_hub(path) as is_offline:
            return datasets.load_dataset(str(folder) if folder.is_dir() else path, streaming=streaming)
    except UNREADABLE as error:
        # The cause names the file, where the error itself says that there was one.
        reason = NOT_TO_BE_HAD if is_offline else " ".join(f"{error} {error.__cause__ or ''}".split())
        raise UserError(f"data.path={path}: neither a folder nor a Hub dataset that can be read: {reason}") from error


def _select(dataset: Mapping[str, Rows], options: DataOptions, key: str) -> Rows:
    name = getattr(options, key)
    if name not in dataset:
        raise UserError(f"data.{key}={name}: {options.path} has no such split, it has {', '.join(dataset)}")
    return dataset[name]
