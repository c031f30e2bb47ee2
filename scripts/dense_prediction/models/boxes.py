"""The DETR family: sets of boxes, of which each has one class."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, Protocol

import torch
from torch import nn
from torchvision.ops import box_convert, clip_boxes_to_image
from transformers import PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.loss.loss_for_object_detection import ImageLoss
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

from ..batches.geometry import Geometry, Size, geometries
from ..batches.loss_counts import Counts, Method, count_matched, weighing_classes, wrapped
from ..batches.types import Batch, Prediction, PredictionOptions, Tensors
from ..tasks import Task


CLASS_PROBABILITY = 0.01

TOP_K = 100
"""What the processors of Deformable and Conditional DETR keep by default."""

Reference = Callable[[Geometry], Size]
"""The size that a model's relative boxes are relative to."""


class BoxesOutput(Protocol):
    """Of N queries: class logits (B, N, num_labels or one more), and boxes (B, N, 4) as the targets have them."""

    logits: torch.Tensor
    pred_boxes: torch.Tensor


def of_image(geometry: Geometry) -> Size:
    """DETR and its kin see by `pixel_mask` where an image ends."""
    return geometry.resized


def of_padded_image(geometry: Geometry) -> Size:
    """RT-DETR and its successors take no notice of `pixel_mask`: to them the padding is image."""
    return geometry.padded


def detection_head(processor_class: type[BaseImageProcessor], reference: Reference) -> dict[str, Any]:
    """What all heads with sets of boxes have in common."""
    return {
        "tasks": ("object_detection",),
        "processor_class": processor_class,
        "targets": box_targets(reference),
        "predict": predict_boxes(processor_class, reference),
        "count": count_boxes,
    }


def detr_head(processor_class: type[BaseImageProcessor]) -> dict[str, Any]:
    """What DETR and its kin have in common."""
    return detection_head(processor_class, of_image) | {"divide": divide_detr}


@torch.no_grad()
def set_priors(classes: nn.Linear, boxes: nn.Linear, size_logit: float) -> None:
    """Let every class be improbable for every query, and every box sit on its reference point with sides of one size.

    Without it a query starts with each class at 1/2, and the first thousands of steps go into unlearning that
    (focal loss: Lin et al. 2017, section 4.1).

    Args:
        classes, boxes: the last layers, of which `boxes` gives the logits of centre, width and height.
    """
    nn.init.constant_(classes.bias, math.log(CLASS_PROBABILITY / (1 - CLASS_PROBABILITY)))
    nn.init.zeros_(boxes.weight)
    nn.init.zeros_(boxes.bias)
    boxes.bias[2:] = size_logit


def count_boxes(batch: Batch, config: PreTrainedConfig) -> Counts:
    """By which the terms of boxes and classes are divided, and the queries, by which DETR's term of classes is."""
    return count_matched([len(target["labels"]) for target in batch["targets"]], config.num_queries)


@contextmanager
def divide_detr(own: Counts, mean: Counts) -> Iterator[float]:
    """Also in place of transformers' own number, which is divided by the number of processes twice."""

    def dividing(get_loss: Method) -> Method:
        return lambda self, loss, outputs, targets, indices, num_boxes: get_loss(
            self, loss, outputs, targets, indices, mean.objects
        )

    with wrapped(ImageLoss, get_loss=dividing, loss_labels=weighing_classes(own, mean)):
        yield 1.0


def box_targets(reference: Reference) -> Callable[[Batch, Task], Tensors]:
    """Makes of a batch, for each image, `class_labels` (N,) and `boxes` (N, 4): centre, width, height, relative."""

    def targets(batch: Batch, task: Task) -> Tensors:
        pairs = zip(batch["targets"], geometries(batch), strict=True)
        return {"labels": [_relative(target, reference(geometry)) for target, geometry in pairs]}

    return targets


def _relative(target: Tensors, size: Size) -> Tensors:
    boxes = target["boxes"].float()
    return {
        "class_labels": target["labels"].long(),
        "boxes": box_convert(boxes, "xyxy", "cxcywh") / boxes.new_tensor([size[1], size[0], size[1], size[0]]),
    }


def predict_boxes(
    processor_class: type[BaseImageProcessor], reference: Reference
) -> Callable[[BoxesOutput, Batch, Task, PredictionOptions], list[Prediction]]:
    """Predictions by the image processor of a head, whose scores belong to the loss that the head is trained with."""

    whole_family: Any = processor_class  # whose base class does not know of the method that all of it have
    has_limit = "top_k" in signature(whole_family.post_process_object_detection).parameters

    def limits(options: PredictionOptions) -> dict[str, int]:
        # Some keep their best 100 whatever is asked for; never fewer here, so that equal scores are ranked as before.
        return {"top_k": max(TOP_K, options.max_detections)} if has_limit else {}

    def predict(output: BoxesOutput, batch: Batch, task: Task, options: PredictionOptions) -> list[Prediction]:
        sizes = [_full_size(geometry, reference) for geometry in geometries(batch)]
        single = DetrObjectDetectionOutput(logits=output.logits.float(), pred_boxes=output.pred_boxes.float())
        found = whole_family().post_process_object_detection(single, options.score_threshold, sizes, **limits(options))
        return [_best(each, target["original_size"], options) for each, target in zip(found, batch["targets"])]

    return predict


def _full_size(geometry: Geometry, reference: Reference) -> tuple[float, float]:
    """The reference, in pixels of the original image."""
    pairs = zip(reference(geometry), geometry.original, geometry.resized, strict=True)
    height, width = (side * original / resized for side, original, resized in pairs)
    return height, width


def _best(found: Tensors, size: Size, options: PredictionOptions) -> Prediction:
    scores, order = found["scores"].sort(descending=True, stable=True)
    order = order[: options.max_detections]
    boxes = clip_boxes_to_image(found["boxes"][order], size)
    return {"boxes": boxes.cpu(), "scores": scores[: len(order)].cpu(), "labels": found["labels"][order].cpu()}
