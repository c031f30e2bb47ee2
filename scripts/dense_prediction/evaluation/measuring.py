"""A model measured on every sample of a split."""

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from ..batches.types import Batch, names_of
from ..command_line import watch
from ..errors import named
from .metrics.metric import Metric
from .views import Viewer


@torch.no_grad()
def measure(
    accelerator: Accelerator,
    model: nn.Module,
    viewer: Viewer,
    batches: Iterable[Batch],
    new_metric: Callable[[], Metric],
) -> Metric:
    """A metric that has counted what the model sees in the batches of all processes: the same on each of them.

    Args:
        batches: this process's own, no sample of which another process has.
        new_metric: makes the metric, with nothing counted yet.

    Raises:
        UserError: the model's predictions are no numbers.
    """
    metric = new_metric()
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    for batch in watch(batches, "evaluating", shown=accelerator.is_main_process):
        with named(names_of(batch)):
            found = viewer.predict(model, _images_on(accelerator.device, batch))
            for prediction, targets in zip(found, batch["targets"], strict=True):
                metric.update(prediction, targets)
    model.train(was_training)
    return _merged(metric, new_metric())


def _images_on(device: torch.device, batch: Batch) -> Batch:
    """The batch with its images on `device`; the targets, which may be large, stay where they are counted."""
    return batch | {name: batch[name].to(device) for name in ("pixel_values", "pixel_mask")}


def _merged(part: Metric, whole: Metric) -> Metric:
    """`whole` with what this and every other process has counted."""
    for state in gather_object([part.state]):
        whole.merge(state)
    return whole
