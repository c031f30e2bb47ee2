"""Configs of transformers' heads that bring the code of a ViT-CoMer backbone along.

transformers reads the `backbone_config` of a head only if its model type is registered, and a registered model type is
the same for every repository of a process. These configs make the backbone's config themselves. A repository whose
`auto_map` names one loads without our package, and runs its own copy of the code. They have the names of
transformers' own configs, because the Auto classes find a config's model by that name.
"""

from typing import Any

import transformers
from transformers import AutoBackbone, AutoModelForImageSegmentation, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .configuration_vit_comer import ViTCoMerConfig
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

    _auto_class = "AutoConfig"

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.backbone_config, dict):
            self.backbone_config = backbone_config_class().from_dict(self.backbone_config)
        super().__post_init__(**kwargs)


class ConditionalDetrConfig(CarriesCode, transformers.ConditionalDetrConfig):
    pass


class DabDetrConfig(CarriesCode, transformers.DabDetrConfig):
    pass


class DeformableDetrConfig(CarriesCode, transformers.DeformableDetrConfig):
    pass


class Deimv2Config(CarriesCode, transformers.Deimv2Config):
    pass


class DetrConfig(CarriesCode, transformers.DetrConfig):
    pass


class DFineConfig(CarriesCode, transformers.DFineConfig):
    pass


class GroundingDinoConfig(CarriesCode, transformers.GroundingDinoConfig):
    pass


class Mask2FormerConfig(CarriesCode, transformers.Mask2FormerConfig):
    pass


class MaskFormerConfig(CarriesCode, transformers.MaskFormerConfig):
    pass


class RTDetrConfig(CarriesCode, transformers.RTDetrConfig):
    pass


class RTDetrV2Config(CarriesCode, transformers.RTDetrV2Config):
    pass


class TableTransformerConfig(CarriesCode, transformers.TableTransformerConfig):
    pass


class UperNetConfig(CarriesCode, transformers.UperNetConfig):
    pass


# The only Auto class of the image segmentation pipeline that could find these models. Again by the config's class.
for _config, _model in (
    (Mask2FormerConfig, transformers.Mask2FormerForUniversalSegmentation),
    (MaskFormerConfig, transformers.MaskFormerForInstanceSegmentation),
):
    AutoModelForImageSegmentation.register(_config, _model, exist_ok=True)

HEAD_CONFIGS = {config_class.__name__: config_class for config_class in CarriesCode.__subclasses__()}


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
