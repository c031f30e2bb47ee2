"""The ViT branch: somebody else's plain ViT, called part by part between the interactions."""

import json
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from .timm_layers import TIMM_OUTPUTS, TimmTrunkLayer
from .timm_trunks import TIMM_TRUNKS, TimmVisionTransformerTrunk, timm_facts
from .transformers_trunks import TRANSFORMERS_TRUNKS, transformers_facts
from .trunk_parts import RGB, PositionedGrid, TokenGrid, Trunk, TrunkFacts, TrunkOptions, UnsupportedTrunk


__all__ = [
    "PositionedGrid",
    "TimmTrunkLayer",
    "TimmVisionTransformerTrunk",
    "TokenGrid",
    "Trunk",
    "TrunkFacts",
    "build_trunk",
]

TIMM = "timm_wrapper"
"""The `model_type` of all trunks of timm, whose family follows from the architecture."""

LIBRARIES: dict[str, Mapping[str, type[Trunk]]] = {"timm": TIMM_TRUNKS, "transformers": TRANSFORMERS_TRUNKS}
"""The trunk of each family of each library."""

MODEL_TYPES = (TIMM, *TRANSFORMERS_TRUNKS)
"""What a `trunk_config` can be."""

NO_SPLIT_MODULES = {
    name for trunks in LIBRARIES.values() for trunk in trunks.values() for name in trunk.no_split_modules
}
"""Blocks of all trunks that a device map keeps whole; models of transformers name their own."""

RECORDED_OUTPUTS = TIMM_OUTPUTS
"""What hidden states and attentions are; models of transformers record their own."""


def distinct(trunks: Mapping[str, type[Trunk]]) -> dict[str, type[Trunk]]:
    """The families without those that only are another name for one before them."""
    first: dict[type[Trunk], str] = {}
    for name, trunk in trunks.items():
        first.setdefault(trunk, name)
    return {name: trunk for trunk, name in first.items()}


SUPPORTED_TRUNKS = (
    f"supported: {TIMM!r} with a timm architecture of family: "
    + " or ".join(f"{name} ({TIMM_TRUNKS[name].models})" for name in distinct(TIMM_TRUNKS))
    + ", for example 'vit_base_patch16_224'; and the transformers configs "
    + ", ".join(TRANSFORMERS_TRUNKS)
)


def library_of(trunk_config: PreTrainedConfig) -> str:
    return "timm" if trunk_config.model_type == TIMM else "transformers"


def trunk_facts(trunk_config: PreTrainedConfig, timm_arguments: dict[str, Any]) -> TrunkFacts:
    """What is known of a trunk before it is built.

    Args:
        timm_arguments: for `timm.create_model`, if it is one of timm.

    Raises:
        ValueError: it is no trunk that is supported.
    """
    try:
        if library_of(trunk_config) == "timm":
            return timm_facts(trunk_config.architecture, json.dumps(timm_arguments))
        return transformers_facts(trunk_config)
    except UnsupportedTrunk as error:
        raise ValueError(f"{error}; {SUPPORTED_TRUNKS}.") from error


def channels_of(trunk_config: Any) -> int:
    """Channels of the images that a pretrained trunk takes, by its config or the fields of one."""
    fields = trunk_config if isinstance(trunk_config, dict) else vars(trunk_config)
    arguments = fields.get("model_args") or {}
    return arguments.get("in_chans", RGB) if "architecture" in fields else fields.get("num_channels", RGB)


def trunk_class(config: TrunkOptions) -> type[Trunk]:
    return LIBRARIES[library_of(config.trunk_config)][config.trunk_facts.family]


def check_abilities(config: TrunkOptions) -> None:
    """Refuse windows and residual blocks for a trunk that takes none."""
    trunk, library, family = trunk_class(config), library_of(config.trunk_config), config.trunk_facts.family
    if any(config.window_sizes or ()) and not trunk.takes_windows:
        raise ValueError(f"window_sizes needs {families_with('takes_windows')} as the trunk, got {family}.")
    if config.residual_block_indexes and not trunk.takes_residual_blocks:
        libraries = " or ".join(name for name in LIBRARIES if families_of(name, "takes_residual_blocks"))
        raise ValueError(f"residual_block_indexes needs a trunk of {libraries}, got {possessive(library)} {family!r}.")


def families_of(library: str, ability: str) -> list[str]:
    """Families of a library of whose class an attribute is true."""
    return [name for name, trunk in distinct(LIBRARIES[library]).items() if getattr(trunk, ability)]


def families_with(ability: str) -> str:
    """The same of all libraries, for an error message: "timm's VisionTransformer or Beit"."""
    found = {library: families_of(library, ability) for library in LIBRARIES}
    return " or ".join(f"{possessive(library)} {' or '.join(names)}" for library, names in found.items() if names)


def possessive(library: str) -> str:
    return f"{library}'" if library.endswith("s") else f"{library}'s"


def build_trunk(config: TrunkOptions) -> Trunk:
    """The trunk of a config, with the weights of its library's initialisation."""
    return trunk_class(config)(config)
