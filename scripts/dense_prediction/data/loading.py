"""The splits and class names that a recipe asks for, whatever their format."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import UserError
from ..tasks import Task
from .bad_samples import BadSample, log_skipped, refuse_unless
from .deep_pictures import Picture, Range
from .formats import formats
from .held_back import hold_back
from .options import DataOptions
from .samples import FirstSamples, Sample, Source, Split, Stream, UncheckedSplit
from .tensors import to_tensors


@dataclass(frozen=True)
class Data:
    """What a recipe trains and measures on. Each split counts the bad samples passed over so far, `num_skipped`.

    Attributes:
        labels: class names in the order of their ids.
        things: ids of the countable classes: all for detection and instance segmentation, none for semantic maps.
        category_ids: what the files call each class, in the order of `labels`; None where that is its id.
    """

    train: Split
    validation: Split
    test: Split | None
    labels: list[str]
    things: frozenset[int]
    category_ids: list[int] | None = None


class CheckedSplit:
    """What a format has read, as tensors: bad samples are refused, or None in their place and once a line in the log.

    Args:
        skip: pass over bad samples instead of raising `UserError`.
        intensity: which numbers of pictures of more than 8 bits are black and white.
    """

    def __init__(self, split: UncheckedSplit, skip: bool, intensity: Range | None = None) -> None:
        self.split = split
        self.skip = skip
        self.intensity = intensity
        self.glance = getattr(split, "glance", None)
        self.peek: Callable[[int], Sample | None] | None = self._peek
        # In memory that loading processes share: they log each sample once between them and count together.
        self.skipped = torch.zeros(len(split), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample | None:
        try:
            return to_tensors(self.split[index], self.intensity)
        except BadSample as error:
            refuse_unless(self.skip, error)
            if not self.skipped[index]:
                self.skipped[index] = True
                log_skipped(error, self.num_skipped)
            return None

    def picture(self, index: int) -> Picture | None:
        """The picture of a sample before its numbers become colours; None of a bad sample."""
        try:
            return self.split[index]["image"]
        except BadSample:
            return None

    def _peek(self, index: int) -> Sample | None:
        try:
            return to_tensors(self.split[index], self.intensity)
        except BadSample:
            return None

    @property
    def num_skipped(self) -> int:
        """How many different samples have been passed over so far."""
        return int(self.skipped.sum())


def load_data(options: DataOptions, task: Task) -> Data:
    """The splits of a recipe's dataset, with samples for the task (see `Sample`).

    Raises:
        UserError: the dataset, a split, a column, a file or the class names cannot be found, a split is empty, or
            the format has no such samples.
    """
    if task.name not in options.tasks:
        fitting = [name for name, other in formats().items() if task.name in other.tasks]
        raise UserError(f"data.format={options.format} has no samples for task={task.name}; {', '.join(fitting)} have")
    source = options.open(task)
    train, validation = _train_and_validation(source, options)
    train = _first(train, "max_train_samples", options)
    validation = _first(validation, "max_validation_samples", options)
    test = None if options.test_split is None else _checked(_opened(source, options, "test_split"), options)
    return Data(train, validation, test, source.labels, source.things, source.category_ids)


def _train_and_validation(source: Source, options: DataOptions) -> tuple[Split, Split]:
    train, share = _opened(source, options, "train_split"), options.validation_share
    if share is None:
        return _checked(train, options), _checked(_opened(source, options, "validation_split"), options)
    if isinstance(train, Stream):
        raise UserError(f"data.validation_share={share} needs data.streaming=false, or a split data.validation_split")
    learnt, held = hold_back(train, share)
    return _checked(learnt, options), _checked(held, options)


def _opened(source: Source, options: DataOptions, key: str) -> UncheckedSplit | Stream:
    split = source.open_split(key)
    if split.is_empty() if isinstance(split, Stream) else len(split) == 0:
        raise UserError(f"data.{key}={getattr(options, key)}: the split is empty")
    return split


def _checked(split: UncheckedSplit | Stream, options: DataOptions) -> Split:
    if isinstance(split, Stream):
        return split
    return CheckedSplit(split, options.skips_bad_samples, options.known_intensity)


def _first(split: Split, key: str, options: DataOptions) -> Split:
    number = getattr(options, key)
    if number is None:
        return split
    if isinstance(split, Stream):
        raise UserError(f"data.{key}={number} needs data.streaming=false")
    return FirstSamples(split, number)
