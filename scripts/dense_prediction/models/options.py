"""What a recipe may say of the model: its backbone and its head."""

from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..options import FORBID_UNKNOWN


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class BackboneOptions:
    config: str | None = Field(
        None, description="preset, or JSON file of a backbone config, built with random weights"
    )
    checkpoint: str | None = Field(
        None,
        description="folder or Hub id of a pretrained backbone, instead of config; "
        "or of a trained model, of which the backbone goes on and the head starts anew",
    )
    trunk: str | None = Field(
        None, description="published ViT, timm/NAME or a Hub id, in place of the config's trunk and with its weights"
    )
    overrides: dict[str, Any] = Field(default_factory=dict, description="fields of the backbone config to change")
    trunk_weights: str | None = Field(None, description="safetensors file of a timm model, loaded into the ViT trunk")
    freeze_trunk: bool = Field(False, description="train everything but the ViT trunk")


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class HeadOptions:
    name: Literal["upernet", "mask2former", "detr", "deformable_detr", "rt_detr", "rt_detr_v2", "d_fine"] = Field(
        description="which head of transformers"
    )
    config: dict[str, Any] = Field(default_factory=dict, description="fields of the head's transformers config")
