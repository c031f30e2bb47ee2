"""The splits of a dataset that the `datasets` library reads."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

import datasets

from ...errors import UserError
from ...failures import NOT_TO_BE_HAD, cache_or_hub, is_unreached
from ..options import DataOptions
from ..samples import Glance, Sample, Source, Stream, UncheckedSplit
from .rows import UNREADABLE, Row, RowReader, Rows, row_file
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

    def picture_names(self) -> list[str]:
        """What each picture is called; where its row does not say it, by what its file holds."""
        column = self.reader.image_column
        rows = self.dataset.select_columns([name for name in (column, "name") if name in self.dataset.column_names])
        return [_name_of(row, column) for row in rows]

    def __getitem__(self, index: int) -> Sample:
        return self.reader.read(self.dataset[index], f"sample {index} of {self.dataset.split}", index)


def _name_of(row: Row, image_column: str) -> str:
    name, content = row_file(row, image_column), (row.get(image_column) or {}).get("bytes")
    # A path of this machine is another one elsewhere.
    return PurePath(name).name if name else hashlib.sha256(content or b"").hexdigest()


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
    dataset = load_rows(options.path, streaming=buffer is not None)
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


def load_rows(path: str, streaming: bool) -> Mapping[str, Rows]:
    """All splits at a path, a folder or an id on the Hub.

    Raises:
        UserError: it cannot be read.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir() and path.startswith((".", "/", "~")):
        raise UserError(f"data.path={path}: there is no folder {folder.absolute()}; set data.path=FOLDER")
    try:
        with cache_or_hub(path):
            return datasets.load_dataset(str(folder) if folder.is_dir() else path, streaming=streaming)
    except UNREADABLE as error:
        # The cause names the file, where the error itself says that there was one.
        reason = NOT_TO_BE_HAD if is_unreached(error) else " ".join(f"{error} {error.__cause__ or ''}".split())
        raise UserError(f"data.path={path}: neither a folder nor a Hub dataset that can be read: {reason}") from error


def _select(dataset: Mapping[str, Rows], options: DataOptions, key: str) -> Rows:
    name = getattr(options, key)
    if name not in dataset:
        raise UserError(f"data.{key}={name}: {options.path} has no such split, it has {', '.join(dataset)}")
    return dataset[name]
