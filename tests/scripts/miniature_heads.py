"""Tiny models for every head and task, and batches of drawn targets for them."""

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel

from dense_prediction.batches.types import Batch
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model
from dense_prediction.models.heads import all_heads, find_head
from dense_prediction.models.options import BackboneOptions, HeadOptions
from miniature import HEADS as SEGMENTATION_FIELDS


LABELS = ["sky", "dog", "car"]
THINGS = [1, 2]
SIZES = [(64, 96), (48, 70)]
"""Of the two images of a batch, which is padded to 64 x 96."""

_DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_layers": 2,
    "decoder_ffn_dim": 32,
    "decoder_attention_heads": 2,
    "num_queries": 6,
}
_REAL_TIME = _DETR | {"encoder_hidden_dim": 32, "num_denoising": 4}
FIELDS: dict[str, dict[str, Any]] = SEGMENTATION_FIELDS | {
    "detr": _DETR,
    "deformable_detr": _DETR | {"num_feature_levels": 3},
    "rt_detr": _REAL_TIME,
    "rt_detr_v2": _REAL_TIME,
    "d_fine": _REAL_TIME,
    "deimv2": _REAL_TIME,
    "conditional_detr": _DETR,
    "maskformer": {
        "fpn_feature_size": 32,
        "mask_feature_size": 32,
        "use_auxiliary_loss": True,
        "decoder_config": {
            "d_model": 32,
            "decoder_layers": 2,
            "decoder_ffn_dim": 32,
            "decoder_attention_heads": 2,
            "num_queries": 8,
        },
    },
}

HEADS_AND_TASKS: list[tuple[str, str]] = [(name, task) for name, head in all_heads().items() for task in head.tasks]


def build(name: str, task: str, backbone_file: Path, **overrides: Any) -> PreTrainedModel:
    """A model as a recipe makes it, the same each time."""
    torch.manual_seed(0)
    recipe = BackboneOptions(config=str(backbone_file), overrides={"drop_path_rate": 0.0} | overrides)
    backbone = build_backbone(recipe, find_head(name).out_features)
    return build_model(HeadOptions(name=name, config=FIELDS[name]), backbone, LABELS, TASKS[task], THINGS)


def draw_targets(task: str, height: int, width: int, empty: bool) -> dict[str, Any]:
    """A dog in the upper left and a car in the lower right part, on the sky; or nothing at all."""
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, : height // 2, 4 : width // 2] = masks[1, height // 2 + 4 :, width // 2 :] = True
    boxes = torch.tensor([[4, 0, width // 2, height // 2], [width // 2, height // 2 + 4, width, height]]).float()
    labels = torch.tensor([1, 2])
    if empty:
        masks, boxes, labels = masks[:0], boxes[:0], labels[:0]
    match task:
        case "semantic_segmentation":
            if empty:
                return {"semantic_map": torch.full((height, width), 255)}
            return {"semantic_map": torch.where(masks.any(0), masks.int().argmax(0) + 1, 0)}
        case "panoptic_segmentation":
            positions = torch.full((height, width), -1)
            for position, mask in enumerate(masks):
                positions[mask] = position
            return {"segment_map": positions, "labels": labels}
        case "instance_segmentation":
            return {"masks": masks, "boxes": boxes, "labels": labels}
        case "object_detection":
            return {"boxes": boxes, "labels": labels}


def draw_batch(task: str, empty: tuple[bool, ...] = (False, False)) -> Batch:
    """Two images of noise that shows the targets by its brightness."""
    height, width = (max(sides) for sides in zip(*SIZES))
    generator = torch.Generator().manual_seed(1)
    batch: Batch = {"targets": []}
    images, pixel_masks = [], []
    for size, nothing in zip(SIZES, empty):
        shown = draw_targets("instance_segmentation", *size, nothing)["masks"]
        image = 0.1 * torch.randn(3, *size, generator=generator)
        for brightness, mask in zip((1.5, -1.5), shown):
            image[:, mask] += brightness
        padding = (0, width - size[1], 0, height - size[0])
        images.append(pad(image, padding))
        pixel_masks.append(pad(torch.ones(size, dtype=torch.int64), padding))
        batch["targets"].append(draw_targets(task, *size, nothing) | {"original_size": size})
    return batch | {"pixel_values": torch.stack(images), "pixel_mask": torch.stack(pixel_masks)}
