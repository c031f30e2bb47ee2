"""Losses that are means over what all processes see together, as they are for one process with the whole batch."""

from collections.abc import Callable
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import reduce
from transformers.loss import loss_for_object_detection
from transformers.models.mask2former import modeling_mask2former

from ...batches.types import Batch
from ...data.samples import IGNORE_INDEX


def share_normalization() -> None:
    """Make DETR, Deformable DETR and Mask2Former divide their losses by the objects of all processes.

    They mean to. But `reduce` is a mean by default, which transformers divides by the number of processes once more:
    the terms of boxes and masks would weigh as many times too much. For one process nothing changes.
    """
    for module in (loss_for_object_detection, modeling_mask2former):
        module.reduce = partial(reduce, reduction="sum")


def process_weight(accelerator: Accelerator, head: str, batch: Batch) -> torch.Tensor | float:
    """What this process's loss is to be multiplied with, so that the mean over the processes is that over all samples.

    Of heads that divide by what their own process sees: UperNet by labelled pixels, RT-DETR and its successors by
    boxes. The others share the divisor, or average over queries, of which there are as many everywhere.
    """
    if accelerator.num_processes == 1 or head not in _COUNTS:
        return 1.0
    count = torch.tensor(float(_COUNTS[head](batch)), device=accelerator.device).clamp(min=1)
    return count / accelerator.reduce(count, "mean")


def _labelled_pixels(batch: Batch) -> int:
    return sum(int((target["semantic_map"] != IGNORE_INDEX).sum()) for target in batch["targets"])


def _boxes(batch: Batch) -> int:
    return sum(len(target["labels"]) for target in batch["targets"])


_COUNTS: dict[str, Callable[[Batch], int]] = {
    "upernet": _labelled_pixels,
    "rt_detr": _boxes,
    "rt_detr_v2": _boxes,
    "d_fine": _boxes,
}
