"""What a model sees in a batch; for semantic segmentation also averaged over scales, mirror images and windows.

The averages are those of MMSegmentation: scores of overlapping windows are averaged as they are, views of different
scale or direction as probabilities. One view that is the whole picture gives exactly what the model gives without.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import interpolate
from transformers.image_processing_utils import BaseImageProcessor

from ..batches.geometry import Size, geometries, size_of
from ..batches.types import Batch, Prediction, PredictionOptions
from ..errors import UserError
from ..models.head import Head
from ..models.semantic import semantic_predictions
from ..recipes.schema import EvaluationOptions
from ..tasks import Task
from .metrics.average_precision import MAX_DETECTIONS


WINDOW, STRIDE = "evaluation_window", "evaluation_stride"
"""Our own fields of an image processor: height and width of the windows, and the steps between them."""

Scorer = Callable[[torch.Tensor], torch.Tensor]
"""An image (1, 3, h, w) -> class scores (1, num_labels, h', w') of any resolution."""


@dataclass(frozen=True)
class Viewer:
    """How the models of a head look at pictures.

    Attributes:
        views: of each picture.
        options: how much of what a model sees becomes a prediction.
    """

    head: Head
    task: Task
    views: EvaluationOptions
    options: PredictionOptions

    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """One prediction for each image of a batch on the model's device."""
        if self.views.is_plain:
            return self.head.predict(model(**self.head.model_inputs(batch)), batch, self.task, self.options)

        # Heads for a task whose views are averaged have it.
        scores_of = cast(Callable[[Any], torch.Tensor], self.head.scores)

        def score(image: torch.Tensor) -> torch.Tensor:
            mask = torch.ones_like(image[:, 0], dtype=torch.int64)
            inputs = self.head.model_inputs({"pixel_values": image, "pixel_mask": mask})
            return scores_of(model(**inputs)).float()

        predictions = []
        for image in _unpadded(batch):
            scores = average_over_views(score, image["pixel_values"], self.views, self.head.probabilities)
            predictions += semantic_predictions(scores, image)
        return predictions

    def glance(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """The same from one view of each picture, in its own size and in the windows of `views`."""
        return dataclasses.replace(self, views=windows_alone(self.views)).predict(model, batch)


def windows_alone(views: EvaluationOptions) -> EvaluationOptions:
    """One view of a picture, in windows where `views` has them."""
    return EvaluationOptions(window=views.window, stride=views.stride)


def keep_windows(processor: BaseImageProcessor, views: EvaluationOptions) -> None:
    """Let the image processor of a saved model say in which windows it was measured: it has learnt no larger parts."""
    if views.window is not None and views.stride is not None:
        setattr(processor, WINDOW, list(views.window))
        setattr(processor, STRIDE, list(views.stride))


def kept_windows(processor: BaseImageProcessor) -> EvaluationOptions:
    """How a saved model looks at a picture."""
    return EvaluationOptions(window=getattr(processor, WINDOW, None), stride=getattr(processor, STRIDE, None))


def check_views(task: Task, views: EvaluationOptions) -> None:
    """Refuse several views of a picture where a task's predictions cannot be averaged, and a limit of what it has not.

    Raises:
        UserError: for these.
    """
    if not task.limits_detections and views.max_detections != MAX_DETECTIONS:
        raise UserError(
            f"evaluation.max_detections={views.max_detections} is for boxes and instances, not for task={task.name}: "
            "leave it out"
        )
    if not task.averages_views and not views.is_plain:
        raise UserError(
            f"evaluation.scales, flip and window are for semantic_segmentation, not for task={task.name}: leave them "
            "out"
        )


def average_over_views(
    score: Scorer, image: torch.Tensor, options: EvaluationOptions, normalize: Scorer
) -> torch.Tensor:
    """Mean class probabilities at the image's size, or, of a single view, its scores as they are.

    Args:
        image: (1, 3, height, width).
        normalize: scores -> probabilities, both (1, num_labels, height, width).
    """
    views = [
        (scale, mirrored) for scale in options.scales for mirrored in ([False, True] if options.flip else [False])
    ]
    size = size_of(image)
    total = image.new_zeros(())
    for scale, mirrored in views:
        view = _resize(image, _scaled(size, scale), antialias=True)
        scores = _scores_in_windows(score, view.flip(-1) if mirrored else view, options)
        scores = scores.flip(-1) if mirrored else scores
        if len(views) == 1:
            return scores
        total = total + normalize(_resize(scores, size))
    return total / len(views)


def windows(size: Size, window: Size, stride: Size) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the windows over a picture; those at the border are moved inside, none is larger than it."""
    for top in _starts(size[0], window[0], stride[0]):
        for left in _starts(size[1], window[1], stride[1]):
            yield slice(top, min(top + window[0], size[0])), slice(left, min(left + window[1], size[1]))


def _scores_in_windows(score: Scorer, image: torch.Tensor, options: EvaluationOptions) -> torch.Tensor:
    """Scores of the whole image, or the mean over its windows, (1, num_labels, height, width)."""
    size = size_of(image)
    if options.window is None or options.stride is None:
        return score(image)
    places = list(windows(size, options.window, options.stride))
    if len(places) < 2:
        return score(image)
    total, count = image.new_zeros(0), image.new_zeros(size)
    for place in places:
        part = image[..., *place]
        scores = _resize(score(part), size_of(part))
        if total.numel() == 0:
            total = scores.new_zeros(*scores.shape[:2], *size)
        total[..., *place] += scores
        count[place] += 1
    return total / count


def _starts(side: int, window: int, stride: int) -> list[int]:
    last = max(side - window, 0)
    return [min(start, last) for start in range(0, last + stride, stride)]


def _unpadded(batch: Batch) -> Iterator[Batch]:
    """Every image of a batch alone, without its padding."""
    for index, geometry in enumerate(geometries(batch)):
        height, width = geometry.resized
        yield {
            "pixel_values": batch["pixel_values"][index, None, :, :height, :width],
            "pixel_mask": batch["pixel_mask"][index, None, :height, :width],
            "targets": [batch["targets"][index]],
        }


def _scaled(size: Size, scale: float) -> Size:
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def _resize(maps: torch.Tensor, size: Size, antialias: bool = False) -> torch.Tensor:
    if size_of(maps) == size:
        return maps
    return interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=antialias)
