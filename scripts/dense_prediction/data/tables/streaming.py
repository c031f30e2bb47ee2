"""Rows that are read while training, from what is larger than the disk, at any position of a shuffled endless stream.

A streamed dataset can only be read in order. Each reader, a loading process of a training process, goes over all rows
and decodes those at its own positions alone: so each sample is trained on once an epoch, and what stands at a position
depends on the seed alone, however many readers there are. The price is that each of them fetches all the data.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any
from zlib import crc32

import datasets
import torch

from ...errors import UserError
from ...seeds import mix
from ..bad_samples import BadSample, log_skipped, refuse_unless
from ..deep_pictures import Picture, Range
from ..samples import Glance, Sample, Stream
from ..tensors import to_tensors
from .rows import UNREADABLE, Row, RowReader, row_file, row_name


KEPT_ROWS = 32
"""How far back a reader can go without starting again: a bad sample makes it look ahead."""

NAME_SLOTS = 2**20
"""Far more than there are bad samples, so that hardly two of them are taken for one."""


class StreamedSplit(Stream):
    """One split of a streamed dataset, in its own order; `shuffled` gives the order to train in.

    Args:
        buffer: how many rows the next one of the shuffled order is drawn from.
        skip: None in place of bad samples and a line in the log instead of `UserError`.
        intensity: which numbers of pictures of more than 8 bits are black and white.
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        reader: RowReader,
        buffer: int,
        skip: bool,
        intensity: Range | None = None,
    ) -> None:
        self.rows = reader.undecoded(rows)
        self.reader = reader
        self.buffer = buffer
        self.skip = skip
        self.intensity = intensity
        self._length: int | None = None
        # In memory that loading processes share, found by the name of a row, whose place in the split is unknown.
        self.skipped = torch.zeros(NAME_SLOTS, dtype=torch.bool).share_memory_()
        self._cursor = Cursor(self._from)

    def __len__(self) -> int:
        """The number of rows; where the dataset does not say, all of them are read once to count them."""
        if self._length is None:
            self._length = self._length_on_card() or sum(1 for _ in iterate(self.rows))
        return self._length

    def __getitem__(self, index: int) -> Sample | None:
        try:
            row = self._cursor[index]
        except IndexError:
            self.check_length(index)
            raise
        return self.to_sample(row, index)

    def picture(self, index: int) -> Picture | None:
        """The picture of a sample before its numbers become colours; None of a bad sample and after the end."""
        try:
            return self.reader.read(self._cursor[index], f"streamed {self.rows.split}", index)["image"]
        except (BadSample, IndexError):
            return None

    def check_length(self, found: int) -> None:
        """Compare the number of rows that the dataset's card says, if it does, with that of those found.

        Raises:
            UserError: they differ, so that an epoch would not end where the data end.
        """
        said = self._length_on_card()
        if said and found != said:
            raise UserError(
                f"streamed {self.rows.split}: the card says {said} rows, but {found} were read: correct the dataset's "
                "num_examples, or set data.streaming=false"
            )

    def _length_on_card(self) -> int | None:
        """None or 0 if the card says nothing."""
        split = (self.rows.info.splits or {}).get(str(self.rows.split))
        return split.num_examples if split else None

    def is_empty(self) -> bool:
        """Whether there is no row, for which a training would wait without end."""
        return next(iterate(self.rows), None) is None

    def shuffled(self, seed: int) -> "ShuffledStream":
        """An endless stream in which every epoch is another order of all rows."""
        return ShuffledStream(self, seed)

    @property
    def num_skipped(self) -> int:
        """How many different samples have been passed over so far."""
        return int(self.skipped.sum())

    def glances(self) -> Iterator[Callable[[], Glance]]:
        """What is annotated in each row, from the first on, in a reading of its own."""
        for position, row in enumerate(iterate(self.rows)):
            yield partial(self.reader.glance, row, f"streamed {self.rows.split}, row {position}")

    def to_sample(self, row: Row, position: int) -> Sample | None:
        """The sample in a row; one without a file is named by its position."""
        place = f"streamed {self.rows.split}"
        if row_file(row, self.reader.image_column) is None:
            place += f", position {position}"
        try:
            return to_tensors(self.reader.read(row, place, position), self.intensity)
        except BadSample as error:
            refuse_unless(self.skip, error)
            slot = crc32(row_name(row, place, self.reader.image_column).encode()) % NAME_SLOTS
            if not self.skipped[slot]:
                self.skipped[slot] = True
                log_skipped(error, self.num_skipped)
            return None

    def _from(self, start: int) -> Iterator[Row]:
        return iterate(self.rows.skip(start))


class ShuffledStream:
    """The sample at any position of an endless stream; position p is in epoch p // len(split). Forward is fast."""

    def __init__(self, split: StreamedSplit, seed: int) -> None:
        self.split = split
        self.seed = seed
        self._cursor = Cursor(self._from)

    def __getitem__(self, position: int) -> Sample | None:
        return self.split.to_sample(self._cursor[position], position)

    def _from(self, start: int) -> Iterator[Row]:
        epoch, place = divmod(start, len(self.split)) if start else (0, 0)
        while True:
            rows = self.split.rows.shuffle(seed=mix(self.seed, 0, epoch), buffer_size=self.split.buffer)
            for row in islice(iterate(rows), place, None):
                yield row
                place += 1
            self.split.check_length(place)
            epoch, place = epoch + 1, 0


class Cursor:
    """Rows that can only be read in order, at any position: a step back further than `KEPT_ROWS` starts again.

    Args:
        start_at: opens the rows at a position.
    """

    _rows: Iterator[Row]
    _next: int
    """The position of the next of `_rows`."""
    _recent: deque[Row]
    """The last ones before it."""

    def __init__(self, start_at: Callable[[int], Iterator[Row]]) -> None:
        self._start_at = start_at
        self._process: int | None = None

    def __getitem__(self, position: int) -> Row:
        # A forked process must not go on reading the files that its parent has open.
        if self._process != os.getpid() or position < self._next - len(self._recent):
            self._rows, self._next, self._recent = self._start_at(position), position, deque(maxlen=KEPT_ROWS)
            self._process = os.getpid()
        while self._next <= position:
            self._recent.append(self._advance())
            self._next += 1
        return self._recent[position - self._next]

    def __getstate__(self) -> dict[str, object]:
        return {"_start_at": self._start_at, "_process": None}

    def _advance(self) -> Row:
        try:
            return next(self._rows)
        except StopIteration:
            raise IndexError("the stream has ended") from None


def iterate(rows: datasets.IterableDataset) -> Iterator[Row]:
    """All rows in order. Plain iteration would give each of PyTorch's loading processes a part of them.

    Raises:
        UserError: they cannot be read any further.
    """
    batches = rows.iter(batch_size=1)
    while (batch := _next(batches, str(rows.split))) is not None:
        yield {column: values[0] for column, values in batch.items()}


def _next(batches: Iterator[dict[str, list[Any]]], split: str) -> dict[str, list[Any]] | None:
    try:
        return next(batches, None)
    except UNREADABLE as error:
        raise UserError(f"streamed {split} cannot be read: {' '.join(str(error).split())}") from error
