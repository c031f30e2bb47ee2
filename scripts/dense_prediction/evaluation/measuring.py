"""A model measured on every sample of a split."""

import math
from collections.abc import Set

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from tqdm import tqdm

from ..batches.streams import EvaluationSet, evaluation_loader
from ..batches.types import Batch, PredictionOptions, Task
from ..models.head import Head
from ..recipes.schema import EvaluationOptions
from .metrics import build_metric
from .metrics.metric import Metric, Numbers
from .views import predict


@torch.no_grad()
def evaluate(
    accelerator: Accelerator,
    model: nn.Module,
    head: Head,
    data: EvaluationSet,
    *,
    task: Task,
    labels: list[str],
    things: Set[int] = frozenset(),
    workers: int = 0,
    size_divisor: int = 1,
    recipe: EvaluationOptions | None = None,
) -> Numbers:
    """What the task's metric says of all of `data`, the same numbers on every process.

    Args:
        labels: class names in the order of their ids.
        things: ids of the countable classes, for panoptic segmentation.
        size_divisor: images are padded to multiples of it and of what the head needs.
        recipe: the views of each picture; None for the picture as it is.

    Raises:
        UserError: the recipe does not fit the task, or the model's predictions are no numbers.
    """
    recipe = recipe or EvaluationOptions()
    metric = build_metric(task, labels, things)
    options = PredictionOptions(things=frozenset(things))
    # Dealt out by hand: Accelerate would repeat samples to make the processes' shares equal, and count them twice.
    indices = range(accelerator.process_index, len(data), accelerator.num_processes)
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    batches = evaluation_loader(data, indices, workers, size_divisor=math.lcm(size_divisor, head.size_divisor))
    for batch in tqdm(batches, "evaluating", leave=False, disable=not accelerator.is_main_process):
        found = predict(model, head, _images_on(accelerator.device, batch), task, options, recipe)
        for prediction, targets in zip(found, batch["targets"], strict=True):
            metric.update(prediction, targets)
    model.train(was_training)
    return _merged(metric, build_metric(task, labels, things)).compute()


def _images_on(device: torch.device, batch: Batch) -> Batch:
    """The batch with its images on `device`; the targets, which may be large, stay where they are counted."""
    return batch | {name: batch[name].to(device) for name in ("pixel_values", "pixel_mask")}


def _merged(part: Metric, whole: Metric) -> Metric:
    """`whole` with what this and every other process has counted."""
    for state in gather_object([part.state]):
        whole.merge(state)
    return whole
