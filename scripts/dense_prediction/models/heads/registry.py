"""One entry for each head, holding all that differs between them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DeformableDetrImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    DFineConfig,
    DFineForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    SegformerImageProcessor,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import ModelOutput

from ...batches.types import Batch, Prediction, PredictionOptions, Task, Tensors
from ..boxes import box_targets, of_image, of_padded_image, predict_boxes
from ..masks import mask_targets, predict_masks, query_scores
from ..semantic import dense_scores, dense_targets, predict_dense
from .priors import set_detection_priors


ALL_STAGES = ["stage1", "stage2", "stage3", "stage4"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """What differs between the heads.

    Attributes:
        tasks: what the head can be trained for.
        encoder: dotted path of the backbone inside the model.
        out_features: the maps that the head takes from the backbone.
        targets: a batch and the task -> the keyword arguments from which the model computes its loss.
        predict: the model's output, the batch, the task and options -> one prediction for each image, on the CPU.
        scores: of heads for semantic segmentation: the model's output -> class scores (B, num_labels, h, w), of any
            resolution, over the padded images.
        settings: the recipe's fields of the head's config, and the backbone -> fields that follow from them.
        initialize: changes a new model's weights where transformers does not start from the official ones.
        takes_pixel_mask: whether the model has an argument `pixel_mask`.
        size_divisor: height and width of `pixel_values` are padded to multiples of it: RT-DETR and its successors
            can take no other sizes, and the official Mask2Former does the same.
    """

    tasks: tuple[Task, ...]
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    processor_class: type[BaseImageProcessor]
    encoder: str
    out_features: list[str]
    targets: Callable[[Batch, Task], Tensors]
    predict: Callable[[ModelOutput, Batch, Task, PredictionOptions], list[Prediction]]
    scores: Callable[[ModelOutput], torch.Tensor] | None = None
    settings: Callable[[dict[str, Any], PreTrainedModel], dict[str, Any]] = lambda fields, backbone: {}
    initialize: Callable[[PreTrainedModel], None] = lambda model: None
    takes_pixel_mask: bool = True
    size_divisor: int = 1

    def model_inputs(self, batch: Batch) -> Tensors:
        """The keyword arguments of the model without a loss."""
        names = ["pixel_values", "pixel_mask"] if self.takes_pixel_mask else ["pixel_values"]
        return {name: batch[name] for name in names}

    def loss_inputs(self, batch: Batch, task: Task) -> Tensors:
        """The keyword arguments of the model with which its output has a loss."""
        return self.model_inputs(batch) | self.targets(batch, task)


def _rt_detr_settings(fields: dict[str, Any], backbone: PreTrainedModel) -> dict[str, Any]:
    """RT-DETR, RT-DETRv2 and D-FINE: their defaults are those of a ResNet-50 that was trained before."""
    encoder_size = fields.get("encoder_hidden_dim", RTDetrConfig.encoder_hidden_dim)
    channels = list(backbone.channels)
    return {
        "encoder_in_channels": channels,
        "decoder_in_channels": [encoder_size] * len(channels),
        "freeze_backbone_batch_norms": False,
    }


def _detection_head(
    processor_class: type[BaseImageProcessor], out_features: list[str], encoder: str = "model.backbone.model"
) -> dict[str, Any]:
    """What DETR and Deformable DETR have in common."""
    return {
        "tasks": ("object_detection",),
        "processor_class": processor_class,
        "encoder": encoder,
        "out_features": out_features,
        "targets": box_targets(of_image),
        "predict": predict_boxes(processor_class, of_image),
    }


_REAL_TIME = _detection_head(RTDetrImageProcessor, ALL_STAGES[1:]) | {
    "targets": box_targets(of_padded_image),
    "predict": predict_boxes(RTDetrImageProcessor, of_padded_image),
    "settings": _rt_detr_settings,
    "size_divisor": 32,
}
"""What RT-DETR and its successors have in common."""

HEADS = {
    "upernet": Head(
        tasks=("semantic_segmentation",),
        config_class=UperNetConfig,
        model_class=UperNetForSemanticSegmentation,
        processor_class=SegformerImageProcessor,
        encoder="backbone",
        out_features=ALL_STAGES,
        targets=dense_targets,
        predict=predict_dense,
        scores=dense_scores,
        takes_pixel_mask=False,
    ),
    "mask2former": Head(
        tasks=("semantic_segmentation", "instance_segmentation", "panoptic_segmentation"),
        config_class=Mask2FormerConfig,
        model_class=Mask2FormerForUniversalSegmentation,
        processor_class=Mask2FormerImageProcessor,
        encoder="model.pixel_level_module.encoder",
        out_features=ALL_STAGES,
        targets=mask_targets,
        predict=predict_masks,
        scores=query_scores,
        size_divisor=32,
    ),
    "detr": Head(
        config_class=DetrConfig,
        model_class=DetrForObjectDetection,
        **_detection_head(DetrImageProcessor, ALL_STAGES[3:]),
    ),
    "deformable_detr": Head(
        config_class=DeformableDetrConfig,
        model_class=DeformableDetrForObjectDetection,
        initialize=set_detection_priors,
        **_detection_head(DeformableDetrImageProcessor, ALL_STAGES[1:]),
    ),
    "rt_detr": Head(config_class=RTDetrConfig, model_class=RTDetrForObjectDetection, **_REAL_TIME),
    "rt_detr_v2": Head(config_class=RTDetrV2Config, model_class=RTDetrV2ForObjectDetection, **_REAL_TIME),
    "d_fine": Head(config_class=DFineConfig, model_class=DFineForObjectDetection, **_REAL_TIME),
}
