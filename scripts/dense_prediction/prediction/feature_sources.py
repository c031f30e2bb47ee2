"""Backbones whose maps can be shown: inside a trained model, in a folder of their own, or new round a ViT."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, PreTrainedModel, ViTImageProcessor
from transformers.image_processing_utils import BaseImageProcessor

from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig

from ..errors import UserError
from ..models.backbones import build_backbone
from ..models.building import encoder_of
from ..models.options import BackboneOptions
from ..models.saved_models import read_model
from ..models.simple_feature_pyramid import STRIDES, SimpleFeaturePyramidConfig
from ..recipes.runs import model_in


Statistics = tuple[list[float], list[float]]
"""Mean and standard deviation of R, G, B in 0..1."""

IMAGENET: Statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@dataclass(frozen=True)
class FeatureSource:
    """A backbone with a ViT in it that gives stages 1 to 4, what prepares its images, and what to call it."""

    backbone: PreTrainedModel
    processor: BaseImageProcessor
    name: str

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """(1, 3, H, W), on the backbone's device."""
        return self.processor(images=image, return_tensors="pt")["pixel_values"].to(self.backbone.device)


def from_folder(folder: Path, device: torch.device) -> FeatureSource:
    """The backbone of a model that `train.py` saved, or one that `save_pretrained` or `build_backbone.py` did.

    Raises:
        UserError: the folder holds neither, or its backbone is neither a ViT-CoMer nor the baseline.
    """
    if _holds_backbone(folder):
        recipe = BackboneOptions(checkpoint=str(folder))
        backbone = build_backbone(recipe, list(STRIDES))
        backbone.to(device)  # type: ignore[arg-type]  # transformers wraps `to` in a type that forgets its `self`
        return _source(backbone, _processor_in(folder))
    model, processor = read_model(model_in(folder), device)
    backbone = encoder_of(model)
    if not isinstance(backbone.config, ViTCoMerConfig):
        raise UserError(f"{folder}: its backbone is a {type(backbone).__name__}, not a ViT-CoMer or its baseline")
    backbone.out_features = list(STRIDES)  # type: ignore[assignment]  # torch's types: tensors and modules only
    return _source(backbone, processor)


def backbone_on(trunk: str, fields: dict[str, Any]) -> PreTrainedModel:
    """A new ViT-CoMer round a pretrained ViT.

    Args:
        trunk: a name, a folder or a file, as `ViTCoMerBackbone.from_trunk` takes it.
        fields: of `ViTCoMerConfig`.
    """
    try:
        return ViTCoMerBackbone.from_trunk(trunk, out_features=list(STRIDES), **fields)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise UserError(f"--trunk {trunk}: {' '.join(str(error).split())}") from error


def untrained(backbone: PreTrainedModel, statistics: Statistics) -> FeatureSource:
    """A new backbone, round a ViT for which images were normalised by `statistics`."""
    return FeatureSource(backbone, _processor(statistics), "untrained ViT-CoMer")


def _holds_backbone(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no model folder: it has no config.json")
    try:
        return isinstance(AutoConfig.from_pretrained(folder), ViTCoMerConfig)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: cannot read its config.json: {' '.join(str(error).split())}") from error


def _source(backbone: PreTrainedModel, processor: BaseImageProcessor) -> FeatureSource:
    is_baseline = isinstance(backbone.config, SimpleFeaturePyramidConfig)
    return FeatureSource(backbone.eval(), processor, "feature pyramid" if is_baseline else "ViT-CoMer")


def _processor_in(folder: Path) -> BaseImageProcessor:
    known = (folder / "preprocessor_config.json").is_file()
    return AutoImageProcessor.from_pretrained(folder) if known else _processor(IMAGENET)


def _processor(statistics: Statistics) -> BaseImageProcessor:
    mean, std = statistics
    return ViTImageProcessor(do_resize=False, image_mean=mean, image_std=std)
