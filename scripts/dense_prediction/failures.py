"""What a run may end of that is nobody's mistake: memory or disk that is too small. One line says what to do."""

import errno
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate.utils.memory import should_reduce_batch_size
from safetensors import SafetensorError

from .errors import UserError, notes_of


SMALLER_BATCHES = "halve training.batch_size and double training.gradient_accumulation"

SMALLER_PICTURES = (
    "measure smaller pictures (transforms.evaluation_resize and shortest_edges) or, of semantic segmentation, windows "
    "that slide over them (evaluation.window and stride)"
)

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_MESSAGES = ("no space left", "disk quota", "file too large", "unexpected pos", "file write failed")
_KILLED_WORKER = ("dataloader worker", "killed")


@contextmanager
def explained(whereabouts: Callable[[], str], smaller: str = SMALLER_BATCHES) -> Iterator[None]:
    """Turn the end of memory or disk space into `UserError`.

    Args:
        whereabouts: says how far the run is and what of it is kept.
        smaller: what to do for want of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise UserError(f"out of memory {whereabouts()}; {smaller}{notes_of(error)}") from error
        if is_out_of_disk(error):
            raise UserError(f"no space left on the disk of output {whereabouts()}; make room for it") from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's or the machine's memory was too small, also for a process that loads data."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or should_reduce_batch_size(error):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text
        or "cublas_status_alloc_failed" in text
        or all(part in text for part in _KILLED_WORKER)
    )


def is_out_of_disk(error: BaseException) -> bool:
    """Whether writing a file failed for want of room; safetensors and torch say so in their own words."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return True
    return isinstance(error, (SafetensorError, RuntimeError)) and any(
        message in str(error).lower() for message in _DISK_MESSAGES
    )


def check_loss(loss: float, whereabouts: str) -> None:
    """End a training that has failed.

    Raises:
        UserError: the loss is no finite number.
    """
    if not math.isfinite(loss):
        raise UserError(
            f"the loss is {loss} {whereabouts}: lower optimization.learning_rate, set optimization.max_grad_norm, or "
            "use training.mixed_precision=no, and start again with overwrite=true"
        )
