"""The backbone of a recipe: a config with random weights or a checkpoint; then weights for its trunk, if given."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

import modeling_vit_comer  # noqa: F401, registers ViT-CoMer with AutoConfig and AutoBackbone

from .errors import UserError
from .recipe_loading import merge
from .recipes import BackboneRecipe


Fields = dict[str, Any]


def build_backbone(recipe: BackboneRecipe) -> PreTrainedModel:
    """The backbone that a recipe describes.

    Raises:
        UserError: a file cannot be read, a field of the config is wrong, or the trunk's weights do not fit.
    """
    if (recipe.config is None) == (recipe.checkpoint is None):
        raise UserError("set one of backbone.config (random weights) and backbone.checkpoint (pretrained weights)")
    overrides = recipe.overrides | ({"freeze_trunk": True} if recipe.freeze_trunk else {})
    if recipe.config is not None:
        backbone = AutoBackbone.from_config(_config_from_file(Path(recipe.config), overrides))
    else:
        backbone = _from_checkpoint(recipe.checkpoint, overrides)
    if recipe.trunk_weights is not None:
        load_trunk_weights(backbone, Path(recipe.trunk_weights))
    return backbone


def load_trunk_weights(backbone: PreTrainedModel, path: Path) -> None:
    """Load a safetensors file of a timm `VisionTransformer` into the trunk of a ViT-CoMer; every weight must fit."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"backbone.trunk_weights: cannot read {path.resolve()} as safetensors: {error}") from error
    try:
        backbone.trunk.load_pretrained(weights)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"backbone.trunk_weights: {path} does not fit the trunk of the config: {reason}") from error


def _config_from_file(path: Path, overrides: Fields) -> PreTrainedConfig:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"backbone.config: cannot read {path.resolve()}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"backbone.config: {path} is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("model_type") not in _backbone_types():
        raise UserError(f"backbone.config: {path} needs a model_type that is a backbone, for example vit_comer")
    return _config(merge(fields, overrides))


def _config(fields: Fields) -> PreTrainedConfig:
    try:
        return AutoConfig.for_model(**fields)
    # A config's validation raises these for a wrong field; StrictDataclassError for a wrong type.
    except (TypeError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise UserError(f"the backbone's config is wrong: {' '.join(str(error).split())}") from error


def _from_checkpoint(checkpoint: str, overrides: Fields) -> PreTrainedModel:
    try:
        fields = AutoConfig.from_pretrained(checkpoint).to_dict()
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"backbone.checkpoint={checkpoint}: no config can be read there: {reason}") from error
    config = _config(merge(fields, overrides))
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise UserError(f"backbone.checkpoint={checkpoint} is a {config.model_type}, which is no backbone")
    try:
        # Not AutoBackbone.from_pretrained, which asks the Hub whether the repository exists even for a folder.
        return MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(checkpoint, config=config)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"backbone.checkpoint={checkpoint}: its weights cannot be loaded: {reason}") from error


def _backbone_types() -> set[str]:
    return {config.model_type for config in MODEL_FOR_BACKBONE_MAPPING}
