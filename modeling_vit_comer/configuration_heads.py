"""Configs of transformers' heads that bring the code of a ViT-CoMer backbone along.

transformers reads the `backbone_config` of a head only if its model type is registered, and a registered model type is
the same for every repository of a process. These configs make the backbone's config themselves. A repository whose
`auto_map` names one loads without our package, and runs its own copy of the code. They have the names of
transformers' own configs, because the Auto classes find a config's model by that name.
"""

from typing import TYPE_CHECKING, Any

import transformers
from transformers import AutoBackbone, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .configuration_vit_comer import ViTCoMerConfig
from .heads import SUPPORTED_HEADS, SupportedHead
from .modeling_vit_comer import ViTCoMerBackbone


# By the class itself, which no other copy of this file shares: not by the model type, as AutoConfig does.
AutoBackbone.register(ViTCoMerConfig, ViTCoMerBackbone, exist_ok=True)


def backbone_config_class() -> type[PreTrainedConfig]:
    """An installed package's config, which transformers prefers to any copy, or that of the copy this file is in."""
    if ViTCoMerConfig.model_type in CONFIG_MAPPING:
        registered = CONFIG_MAPPING[ViTCoMerConfig.model_type]
        if not registered.__module__.startswith("transformers_modules."):
            return registered
    return ViTCoMerConfig


class CarriesCode:
    """Mixin for the config of a head: makes its ViT-CoMer backbone's config, and is saved with the code."""

    if TYPE_CHECKING:
        backbone_config: Any  # of the config that this is mixed into

    _auto_class = "AutoConfig"

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.backbone_config, dict):
            self.backbone_config = backbone_config_class().from_dict(self.backbone_config)
        super().__post_init__(**kwargs)  # type: ignore[misc]  # of the config that this is mixed into


def config_that_carries_code(head: SupportedHead) -> type[PreTrainedConfig]:
    """A class as if it were written in this file, where a repository's `auto_map` looks for it."""
    return type(head.config, (CarriesCode, head.config_class), {"__module__": __name__})


HEAD_CONFIGS = {head.config: config_that_carries_code(head) for head in SUPPORTED_HEADS}
globals().update(HEAD_CONFIGS)

for _head in SUPPORTED_HEADS:
    if _head.auto_class is not None:
        # Again by the config's class.
        _auto_class = getattr(transformers, _head.auto_class)
        _auto_class.register(HEAD_CONFIGS[_head.config], _head.model_class, exist_ok=True)


def carry_code(model: PreTrainedModel) -> None:
    """From now on `save_pretrained` and `push_to_hub` of a head's model write the code of its backbone, too.

    Raises:
        ValueError: the model's backbone is no ViT-CoMer, or the head is none of those above.
    """
    config = model.config
    if not isinstance(getattr(config, "backbone_config", None), ViTCoMerConfig):
        raise ValueError(f"{type(model).__name__} has no ViT-CoMer backbone whose code could be saved.")
    if type(config).__name__ not in HEAD_CONFIGS:
        raise ValueError(f"a {type(config).__name__} cannot carry code; these can: {', '.join(HEAD_CONFIGS)}")
    # The object stays, because every part of the model holds it.
    config.__class__ = HEAD_CONFIGS[type(config).__name__]
