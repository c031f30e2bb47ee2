"""What a training needs to know of a head."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from modeling_vit_comer.heads import SupportedHead

from ..batches.loss_counts import Counts, divide_whole
from ..batches.types import Batch, Prediction, PredictionOptions, Tensors
from ..tasks import Task


Output = Any
"""Of the class that the head's model returns. Each function for heads says which of its fields it reads."""

Model = Any
"""Of the head's own class."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """All that differs between the heads when they are trained, measured and published.

    Attributes:
        entry: what the package knows of it: its model's class, the backbone's place in it, and the maps it takes.
        tasks: names of what it can be trained for, first that of a model which does not say.
        processor_class: the image processor that is saved beside a model.
        targets: a batch and the task -> the keyword arguments from which the model computes its loss.
        predict: the model's output, the batch, the task and options -> one prediction for each image, on the CPU.
        scores: of heads for semantic segmentation: the model's output -> class scores (B, num_labels, h, w), of any
            resolution, over the padded images.
        probabilities: these scores -> what is averaged over several views of a picture, of the same shape.
        initialize: changes a new model's weights where transformers does not start from the official ones.
        prepare: what a model needs before it runs, new or loaded.
        takes_pixel_mask: whether the model has an argument `pixel_mask`.
        size_divisor: height and width of `pixel_values` are padded to multiples of it.
        count: a batch and the config -> what the terms of the loss are divided by; None where each pass of a step
            weighs the same.
        divide: makes the loss of a pass divide by what the step's passes have on average, see `batches.loss_counts`.
        record_matches: while it lasts, each forward pass with a loss adds its matches to the list that it yields; of
            heads of which `count` cannot tell them.
        may_leave_out: whether a batch without any object leaves parameters without a gradient.
        smallest_side: the config -> the side of the smallest square image, in pixels, if the head sets a limit.
        needs_scipy: whether a model needs it to be loaded, and not only to be trained.
    """

    entry: SupportedHead
    tasks: tuple[str, ...]
    processor_class: type[BaseImageProcessor]
    targets: Callable[[Batch, Task], Tensors]
    predict: Callable[[Output, Batch, Task, PredictionOptions], list[Prediction]]
    scores: Callable[[Output], torch.Tensor] | None = None
    probabilities: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores
    initialize: Callable[[Model], None] = lambda model: None
    prepare: Callable[[PreTrainedModel], None] = lambda model: None
    takes_pixel_mask: bool = True
    size_divisor: int = 1
    count: Callable[[Batch, PreTrainedConfig], Counts] | None = None
    divide: Callable[[Counts, Counts], AbstractContextManager[float]] = divide_whole
    record_matches: Callable[[], AbstractContextManager[list[int]]] | None = None
    may_leave_out: bool = False
    smallest_side: Callable[[PreTrainedConfig], int] | None = None
    needs_scipy: bool = False

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return self.entry.model_class

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        return self.entry.config_class

    @property
    def out_features(self) -> list[str]:
        """The maps that the head takes from the backbone."""
        return list(self.entry.stages)

    def model_inputs(self, batch: Batch) -> Tensors:
        """The keyword arguments of the model without a loss."""
        names = ["pixel_values", "pixel_mask"] if self.takes_pixel_mask else ["pixel_values"]
        return {name: batch[name] for name in names}

    def loss_inputs(self, batch: Batch, task: Task) -> Tensors:
        """The keyword arguments of the model with which its output has a loss."""
        return self.model_inputs(batch) | self.targets(batch, task)
