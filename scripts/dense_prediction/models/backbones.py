"""The backbone of a recipe: a config with random weights or a checkpoint; then weights for its trunk, if given."""

import difflib
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

import modeling_vit_comer  # noqa: F401, registers ViT-CoMer with AutoConfig and AutoBackbone
from modeling_vit_comer.presets import preset_path
from modeling_vit_comer.trunk import MODEL_TYPES, TIMM, Trunk

from ..errors import UserError
from ..failures import NOT_TO_BE_HAD, cache_or_hub, is_unreached
from ..options import merge
from . import simple_feature_pyramid  # noqa: F401, registers the baseline
from .building import check_fields, encoder_of
from .heads import head_names, head_of, known_head
from .options import BackboneOptions


_logger = logging.getLogger(__name__)

Fields = dict[str, Any]

OTHER_TRUNKS = (
    "connect to it, or give backbone.trunk=FILE|FOLDER|HUB_ID: the safetensors file of a plain ViT, a folder with one "
    "or with a model of timm or transformers, or a name whose files are in the cache"
)

_NO_FIELDS = ("model_type", "out_features", "out_indices")
"""What a backbone's config takes beside its fields."""


def build_backbone(recipe: BackboneOptions, out_features: list[str] | None = None) -> PreTrainedModel:
    """The backbone that a recipe describes.

    Args:
        out_features: the maps that a head wants, unless the recipe's `overrides` name others.

    Raises:
        UserError: a file cannot be read, a field of the config is wrong, or the trunk's weights do not fit.
    """
    overrides = _overrides(recipe, out_features)
    if recipe.trunk is not None:
        return _from_trunk(recipe, overrides)
    if recipe.config is not None:
        backbone = AutoBackbone.from_config(_config_from_file(recipe.config, overrides))
    else:
        backbone = _from_checkpoint(cast(str, recipe.checkpoint), overrides)
    if recipe.trunk_weights is not None:
        load_trunk_weights(backbone, Path(recipe.trunk_weights))
    return backbone


def build_skeleton(recipe: BackboneOptions, out_features: list[str] | None = None) -> PreTrainedModel:
    """As `build_backbone`, without any weights: in a second the config alone tells whether a recipe is right.

    Raises:
        UserError: as `build_backbone`, but for files of weights that are damaged or do not fit.
    """
    overrides, weights = _overrides(recipe, out_features), recipe.trunk_weights
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"backbone.trunk_weights: cannot read {Path(weights).resolve()}: there is no such file")
    if recipe.trunk is not None:
        _check_trunk_offline(recipe, overrides)
    with torch.device("meta"):
        if recipe.trunk is not None:
            return _from_trunk(recipe, overrides, pretrained=False)
        if recipe.config is not None:
            return AutoBackbone.from_config(_config_from_file(recipe.config, overrides))
        return AutoBackbone.from_config(_config_from_checkpoint(cast(str, recipe.checkpoint), overrides))


def _check_trunk_offline(recipe: BackboneOptions, overrides: Fields) -> None:
    """Without the Hub, find out before the data are read whether the cache has the weights of the trunk."""
    with cache_or_hub(recipe.trunk) as is_offline:
        if is_offline:
            _from_trunk(recipe, overrides)


def load_trunk_weights(backbone: PreTrainedModel, path: Path) -> None:
    """Load a safetensors file of a timm `VisionTransformer` into the trunk of a ViT-CoMer; every weight must fit."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"backbone.trunk_weights: cannot read {path.resolve()} as safetensors: {error}") from error
    try:
        cast(Trunk, backbone.trunk).load_pretrained(weights)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"backbone.trunk_weights: {path} does not fit the trunk of the config: {reason}") from error


def _overrides(recipe: BackboneOptions, out_features: list[str] | None) -> Fields:
    if (recipe.config is None) == (recipe.checkpoint is None):
        raise UserError("set one of backbone.config (random weights) and backbone.checkpoint (pretrained weights)")
    chosen = out_features is not None and not recipe.overrides.keys() & {"out_features", "out_indices"}
    return (
        ({"out_features": out_features} if chosen else {})
        | recipe.overrides
        | ({"freeze_trunk": True} if recipe.freeze_trunk else {})
    )


def _from_trunk(recipe: BackboneOptions, overrides: Fields, **arguments: bool) -> PreTrainedModel:
    """The backbone of a config round another trunk than the config's, with that trunk's published weights."""
    if recipe.config is None or recipe.trunk_weights is not None or "trunk_config" in overrides:
        raise UserError(
            f"backbone.trunk={recipe.trunk} brings a trunk and its weights: it needs backbone.config, and neither "
            "backbone.checkpoint nor trunk_weights nor overrides.trunk_config"
        )
    fields = _fields_from_file(_config_file(recipe.config), overrides)
    fields.pop("trunk_config", None)
    model_class = _class_for(CONFIG_MAPPING[fields.pop("model_type")])
    if not hasattr(model_class, "from_trunk"):
        raise UserError(f"backbone.trunk={recipe.trunk}: a {model_class.__name__} has no trunk")
    with cache_or_hub(recipe.trunk):
        try:
            return model_class.from_trunk(recipe.trunk, **arguments, **fields)
        # An unknown or missing name, weights that do not fit, a wrong field of the config.
        except (OSError, TypeError, ValueError, RuntimeError, StrictDataclassError) as error:
            if is_unreached(error):
                raise UserError(f"backbone.trunk={recipe.trunk}: {NOT_TO_BE_HAD}; {OTHER_TRUNKS}") from error
            raise UserError(f"backbone.trunk={recipe.trunk}: {' '.join(str(error).split())}") from error


def _config_from_file(config: str, overrides: Fields) -> PreTrainedConfig:
    return _config(_fields_from_file(_config_file(config), overrides))


def _config_file(config: str) -> Path:
    """The JSON file at a path, or of a preset that is called so."""
    path = Path(config).expanduser()
    if path.suffix == ".json" or path.is_file():
        return path
    try:
        return preset_path(config)
    except ValueError as error:
        raise UserError(f"backbone.config={config}: {error}") from error


def _fields_from_file(path: Path, overrides: Fields) -> Fields:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"backbone.config: cannot read {path.resolve()}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"backbone.config: {path} is not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("model_type") not in _backbone_types():
        raise UserError(f"backbone.config: {path} needs a model_type that is a backbone, for example vit_comer")
    return _change(fields, overrides)


def _change(fields: Fields, overrides: Fields) -> Fields:
    """`fields` with `overrides`; the maps are named or numbered, so that one way of choosing them ends the other.

    The weights are in float32 whatever they were saved in: in less, the steps of a training would be rounded away.
    """
    _check_overrides(fields, overrides)
    names = {"out_features", "out_indices"}
    kept = {name: value for name, value in fields.items() if name not in names or not overrides.keys() & names}
    return merge(kept, overrides) | {"dtype": "float32"}


def _check_overrides(fields: Fields, overrides: Fields) -> None:
    """Refuse names that no config reads, which a config that was saved before would keep."""
    if "dtype" in overrides:
        raise UserError(
            f"backbone.overrides.dtype={overrides['dtype']} cannot be used here, only float32, which it always is; "
            "training.mixed_precision=bf16 computes in less"
        )
    _check_tree(fields, overrides, "backbone.overrides", sorted(_backbone_types()))
    if isinstance(trunk := overrides.get("trunk_config"), dict):
        before = {"model_type": TIMM} | (fields.get("trunk_config") or {})
        _check_tree(before, trunk, "backbone.overrides.trunk_config", list(MODEL_TYPES))


def _check_tree(fields: Fields, overrides: Fields, key: str, known: list[str]) -> None:
    model_type = (fields | overrides)["model_type"]
    if "model_type" in overrides and model_type not in known:
        close = difflib.get_close_matches(str(model_type), known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see the docstring of ViTCoMerConfig"
        raise UserError(f"{key}.model_type={model_type} cannot be used here; {hint}")
    named = {name: value for name, value in overrides.items() if name not in _NO_FIELDS}
    check_fields(CONFIG_MAPPING[model_type], named, key)


def _config(fields: Fields) -> PreTrainedConfig:
    try:
        return AutoConfig.for_model(**fields)
    # A config's validation raises these for a wrong field; StrictDataclassError for a wrong type.
    except (TypeError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise UserError(f"the backbone's config is wrong: {' '.join(str(error).split())}") from error


def _config_from_checkpoint(checkpoint: str, overrides: Fields) -> PreTrainedConfig:
    saved = _saved_config(checkpoint)
    return _config(_change(saved.to_dict() if _is_backbone(saved) else backbone_fields(saved), overrides))


def _from_checkpoint(checkpoint: str, overrides: Fields) -> PreTrainedModel:
    saved, config = _saved_config(checkpoint), _config_from_checkpoint(checkpoint, overrides)
    # Not AutoBackbone, whose from_pretrained asks the Hub whether the repository exists even for a folder.
    load = partial(_class_for(type(config)).from_pretrained, config=config, dtype=torch.float32)
    try:
        with cache_or_hub(checkpoint):
            if _is_backbone(saved):
                return load(checkpoint)
            return load(None, state_dict=backbone_weights(checkpoint, saved))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"backbone.checkpoint={checkpoint}: its weights cannot be loaded: {reason}") from error


def _saved_config(checkpoint: str) -> PreTrainedConfig:
    """Of a backbone, or of a trained model with one."""
    with cache_or_hub(checkpoint):
        try:
            config = AutoConfig.from_pretrained(checkpoint)
        except (OSError, ValueError, KeyError) as error:
            reason = NOT_TO_BE_HAD if is_unreached(error) else " ".join(str(error).split())
            raise UserError(f"backbone.checkpoint={checkpoint}: no config can be read there: {reason}") from error
    if not _is_backbone(config) and known_head(config) is None:
        raise UserError(
            f"backbone.checkpoint={checkpoint} is a {config.model_type}: give the folder or Hub id of a backbone, or "
            f"of a trained model, whose head starts anew: {', '.join(head_names())}"
        )
    return config


def _is_backbone(config: PreTrainedConfig) -> bool:
    return type(config) in MODEL_FOR_BACKBONE_MAPPING


def backbone_fields(config: PreTrainedConfig) -> Fields:
    """The fields of the backbone's config in that of a trained model, but what the training had frozen."""
    fields = config.backbone_config.to_dict()
    return {name: value for name, value in fields.items() if name != "freeze_trunk"}


def backbone_weights(checkpoint: str, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """The weights of the backbone in the trained model of that config, in float32."""
    model_class = head_of(config).model_class
    model = model_class.from_pretrained(checkpoint, config=config, dtype=torch.float32)
    _logger.warning(
        "backbone.checkpoint=%s: the backbone of this %s goes on, its head is dropped and the new one starts anew",
        checkpoint,
        model_class.__name__,
    )
    return encoder_of(model).state_dict()


def _class_for(config_class: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    """The backbone that a config is of."""
    return cast(type[PreTrainedModel], MODEL_FOR_BACKBONE_MAPPING[config_class])


def _backbone_types() -> set[str]:
    return {config.model_type for config in MODEL_FOR_BACKBONE_MAPPING}
