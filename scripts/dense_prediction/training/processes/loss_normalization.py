"""Losses that are means over what all processes see together, as they are for one process with the whole batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module

import torch
from accelerate import Accelerator

from ...batches.types import Batch
from ...models.head import Head


@contextmanager
def share_normalization(head: Head) -> Iterator[None]:
    """While it lasts, a loss that is divided by the objects of all processes is divided by them once.

    That is what the losses of `head.loss_module` mean to do. But `reduce` is a mean by default, which they divide by
    the number of processes once more: the terms of boxes and masks would weigh as many times too much. For one process
    nothing changes.
    """
    if head.loss_module is None:
        yield
        return
    module = import_module(head.loss_module)
    mean = module.reduce
    module.reduce = partial(mean, reduction="sum")
    try:
        yield
    finally:
        module.reduce = mean


def process_weight(accelerator: Accelerator, head: Head, batch: Batch) -> torch.Tensor | float:
    """What this process's loss is to be multiplied with, so that the mean over the processes is that over all samples.

    Of heads that divide by what their own process sees. The others share the divisor, or average over queries, of
    which there are as many everywhere; that those without an object weigh less is left out of account.
    """
    if accelerator.num_processes == 1 or head.count is None:
        return 1.0
    count = torch.tensor(float(head.count(batch)), device=accelerator.device).clamp(min=1)
    return count / accelerator.reduce(count, "mean")
