"""The segmentation heads of transformers round our backbone: one entry for each, holding all that differs."""

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn.functional import interpolate
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerImageProcessor,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import ModelOutput

from .data import IGNORE_INDEX
from .errors import UserError
from .recipes import HeadRecipe, TransformRecipe


Targets = dict[str, torch.Tensor | list[torch.Tensor]]


@dataclass(frozen=True)
class Head:
    """What differs between the heads.

    Attributes:
        encoder: dotted path of the backbone inside the model.
        targets: labels (B, H, W) -> the keyword arguments from which the model computes its loss.
        scores: the model's output -> class scores (B, num_labels, h, w).
    """

    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    processor_class: type[BaseImageProcessor]
    encoder: str
    targets: Callable[[torch.Tensor], Targets]
    scores: Callable[[ModelOutput], torch.Tensor]


def build_model(recipe: HeadRecipe, backbone: PreTrainedModel, labels: list[str]) -> PreTrainedModel:
    """The head with random weights round `backbone`, whose weights it takes over.

    Raises:
        UserError: `recipe.config` names a field that the head's config has not, or gives it a wrong value.
    """
    head = HEADS[recipe.name]
    check_fields(head.config_class, recipe.config, "head.config")
    try:
        config = head.config_class(backbone_config=backbone.config, **label_names(labels), **recipe.config)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"head.config: {' '.join(str(error).split())}") from error
    model = head.model_class(config)
    model.get_submodule(head.encoder).load_state_dict(backbone.state_dict(), strict=True)
    return model


def build_processor(recipe: HeadRecipe, transforms: TransformRecipe) -> BaseImageProcessor:
    """The image processor that prepares an image as the evaluation does: full size, normalised."""
    return HEADS[recipe.name].processor_class(
        do_resize=False, image_mean=list(transforms.image_mean), image_std=list(transforms.image_std)
    )


def head_of(model: PreTrainedModel) -> Head:
    """The entry for a model's class.

    Raises:
        KeyError: the model is none of `HEADS`.
    """
    return next(head for head in HEADS.values() if isinstance(model, head.model_class))


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The backbone inside a head's model."""
    return model.get_submodule(head_of(model).encoder)


def semantic_map(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Class ids (B, *size) from class scores (B, num_labels, h, w) of any resolution."""
    return interpolate(scores.float(), size=size, mode="bilinear", align_corners=False).argmax(1)


def label_names(labels: list[str]) -> dict[str, dict[Any, Any]]:
    """The class names as a transformers config wants them."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def check_fields(config_class: type[PreTrainedConfig], fields: dict[str, Any], key: str) -> None:
    """Refuse what a transformers config would silently keep as an attribute that nothing reads."""
    known = [field.name for field in dataclasses.fields(config_class)]
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else f", it has {', '.join(known)}"
            raise UserError(f"{key}.{name}: {config_class.__name__} has no such field{hint}")


def _dense_targets(labels: torch.Tensor) -> Targets:
    return {"labels": labels}


def _mask_targets(labels: torch.Tensor) -> Targets:
    """For each image one binary mask (num_present, H, W) and one id for each class present; void is no class."""
    present = [ids[ids != IGNORE_INDEX] for ids in (image.unique() for image in labels)]
    masks = [(image == ids[:, None, None]).float() for image, ids in zip(labels, present, strict=True)]
    return {"mask_labels": masks, "class_labels": present}


def _dense_scores(output: ModelOutput) -> torch.Tensor:
    return output.logits


def _query_scores(output: ModelOutput) -> torch.Tensor:
    """Sum over queries of class probability times mask probability, at the masks' own resolution.

    `Mask2FormerImageProcessor.post_process_semantic_segmentation` does the same after squeezing the masks to
    384 x 384, which blurs large images and distorts those that are not square.
    """
    classes = output.class_queries_logits.float().softmax(-1)[..., :-1]  # without "no object"
    masks = output.masks_queries_logits.float().sigmoid()
    return torch.einsum("bqc,bqhw->bchw", classes, masks)


HEADS = {
    "upernet": Head(
        UperNetConfig,
        UperNetForSemanticSegmentation,
        SegformerImageProcessor,
        encoder="backbone",
        targets=_dense_targets,
        scores=_dense_scores,
    ),
    "mask2former": Head(
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        encoder="model.pixel_level_module.encoder",
        targets=_mask_targets,
        scores=_query_scores,
    ),
}
