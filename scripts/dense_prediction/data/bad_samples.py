"""Samples that nothing can be learnt from, and what a recipe wants done about them."""

import logging

import torch

from ..errors import UserError
from .samples import Sample, Split


_logger = logging.getLogger(__name__)

HINT = "repair it, leave it out, or pass over all such samples with data.bad_samples=skip"


class BadSample(UserError):
    """A sample is damaged or contradicts itself; the text names its file and says what was found."""


class CheckedSplit:
    """`split` with its bad samples refused, or None in their place and a line in the log the first time.

    Args:
        skip: pass over bad samples instead of raising `UserError`.
    """

    def __init__(self, split: Split, skip: bool) -> None:
        self.split = split
        self.skip = skip
        # In memory that loading processes share: they log each sample once between them and count together.
        self.skipped = torch.zeros(len(split), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample | None:
        try:
            return self.split[index]
        except BadSample as error:
            refuse_unless(self.skip, error)
            if not self.skipped[index]:
                self.skipped[index] = True
                log_skipped(error, self.num_skipped)
            return None

    @property
    def num_skipped(self) -> int:
        """How many different samples have been passed over so far."""
        return int(self.skipped.sum())


def refuse_unless(skip: bool, error: BadSample) -> None:
    """End the run with advice if bad samples are not to be skipped."""
    if not skip:
        raise UserError(f"{error}; {HINT}") from error


def log_skipped(error: BadSample, count: int) -> None:
    _logger.warning("skipped, %d so far: %s", count, error)
