"""Samples that nothing can be learnt from, and what a recipe wants done about them."""

import logging

from ..errors import UserError


_logger = logging.getLogger(__name__)

HINT = "repair it, leave it out, or pass over all such samples with data.bad_samples=skip"


class BadSample(UserError):
    """A sample is damaged or contradicts itself; the text names its file and says what was found."""


def refuse_unless(skip: bool, error: BadSample) -> None:
    """End the run with advice if bad samples are not to be skipped."""
    if not skip:
        raise UserError(f"{error}; {HINT}") from error


def log_skipped(error: BadSample, count: int) -> None:
    _logger.warning("skipped, %d so far: %s", count, error)
