"""What a recipe may say of the model: its backbone and its head."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from ..options import FORBID_UNKNOWN
from .heads import check_name, head_names


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class BackboneOptions:
    config: str | None = Field(
        default=None, description="preset, or JSON file of a backbone config, built with random weights"
    )
    checkpoint: str | None = Field(
        default=None,
        description="folder or Hub id of a pretrained backbone, instead of config; "
        "or of a trained model, of which the backbone goes on and the head starts anew",
    )
    trunk: str | None = Field(
        default=None,
        description="published ViT, timm/NAME or a Hub id, in place of the config's trunk and with its weights",
    )
    overrides: dict[str, Any] = Field(default_factory=dict, description="fields of the backbone config to change")
    trunk_weights: str | None = Field(
        default=None, description="safetensors file of a timm model, loaded into the ViT trunk"
    )
    freeze_trunk: bool = Field(default=False, description="train everything but the ViT trunk")


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class HeadOptions:
    name: Annotated[str, AfterValidator(check_name)] = Field(description=f"which head: {', '.join(head_names())}")
    config: dict[str, Any] = Field(default_factory=dict, description="fields of the head's transformers config")
    checkpoint: str | None = Field(
        default=None,
        description="folder or Hub id of a trained model of the same head, of which what fits is taken over, whatever "
        "its backbone; the rest has random weights",
    )
