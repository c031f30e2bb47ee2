"""What a run may end of that is nobody's mistake: memory or disk that is too small, or no network. One line says
what to do.
"""

import errno
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size
from huggingface_hub import constants, get_session
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import httpx
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


NOT_TO_BE_HAD = "the Hub cannot be reached (or HF_HUB_OFFLINE is set), and it is neither a path nor in the cache"

SECONDS_TO_CONNECT = 4.0
"""Far more than a slow network takes; all that comes after a connection may last."""


@contextmanager
def cache_or_hub(source: str | Path | None) -> Iterator[bool]:
    """Take what the cache has at once where the Hub cannot be reached, which its clients would try for a minute.

    Args:
        source: a folder or a file, or a name on the Hub.

    Yields:
        Whether the cache alone is looked into.
    """
    is_local = source is None or Path(source).expanduser().exists()
    if is_local or constants.HF_HUB_OFFLINE or hub_answers():
        yield constants.HF_HUB_OFFLINE and not is_local
        return
    # `datasets` has a copy of its own, if it is in use.
    holders = [constants, *([sys.modules["datasets.config"]] if "datasets.config" in sys.modules else [])]
    before = [holder.HF_HUB_OFFLINE for holder in holders]
    try:
        for holder in holders:
            holder.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]  # of a module that is taken by its name
        yield True
    finally:
        for holder, value in zip(holders, before):
            holder.HF_HUB_OFFLINE = value  # type: ignore[attr-defined]


def is_unreached(error: BaseException | None) -> bool:
    """Whether an error comes of a Hub that was not reached, or not asked, and of a cache without the file."""
    while error is not None and not isinstance(error, (LocalEntryNotFoundError, ConnectionError)):
        error = error.__cause__ or error.__context__
    return error is not None


def hub_answers() -> bool:
    """Whether a connection to the Hub can be made, at the second try if not at the first."""
    for wait in (1.0, 0.0):
        try:
            get_session().head(constants.ENDPOINT, timeout=httpx.Timeout(None, connect=SECONDS_TO_CONNECT, read=10.0))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            time.sleep(wait)
        except httpx.HTTPError:
            return True  # it is slow, or has an answer that its clients know better
        else:
            return True
    return False


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
