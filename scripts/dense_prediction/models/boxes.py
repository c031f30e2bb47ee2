"""The DETR family: sets of boxes, of which each has one class."""

from collections.abc import Callable

from torchvision.ops import box_convert, clip_boxes_to_image
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput
from transformers.utils import ModelOutput

from ..batches.geometry import Geometry, Size, geometries
from ..batches.types import Batch, Prediction, PredictionOptions, Task, Tensors


Reference = Callable[[Geometry], Size]
"""The size that a model's relative boxes are relative to."""


def of_image(geometry: Geometry) -> Size:
    """DETR and Deformable DETR see by `pixel_mask` where an image ends."""
    return geometry.resized


def of_padded_image(geometry: Geometry) -> Size:
    """RT-DETR and its successors take no notice of `pixel_mask`: to them the padding is image."""
    return geometry.padded


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
) -> Callable[[ModelOutput, Batch, Task, PredictionOptions], list[Prediction]]:
    """Predictions by the image processor of a head, whose scores belong to the loss that the head is trained with."""

    def predict(output: ModelOutput, batch: Batch, task: Task, options: PredictionOptions) -> list[Prediction]:
        sizes = [_full_size(geometry, reference) for geometry in geometries(batch)]
        single = DetrObjectDetectionOutput(logits=output.logits.float(), pred_boxes=output.pred_boxes.float())
        found = processor_class().post_process_object_detection(single, options.score_threshold, sizes)
        return [_best(each, target["original_size"], options) for each, target in zip(found, batch["targets"])]

    return predict


def _full_size(geometry: Geometry, reference: Reference) -> tuple[float, float]:
    """The reference, in pixels of the original image."""
    pairs = zip(reference(geometry), geometry.original, geometry.resized, strict=True)
    return tuple(side * original / resized for side, original, resized in pairs)


def _best(found: Tensors, size: Size, options: PredictionOptions) -> Prediction:
    scores, order = found["scores"].sort(descending=True, stable=True)
    order = order[: options.max_detections]
    boxes = clip_boxes_to_image(found["boxes"][order], size)
    return {"boxes": boxes.cpu(), "scores": scores[: len(order)].cpu(), "labels": found["labels"][order].cpu()}
