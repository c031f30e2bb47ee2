"""ViT-CoMer for Hugging Face Transformers. Importing this package registers it with the Auto classes."""

from transformers import AutoBackbone, AutoConfig, AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .configuration_vit_comer import ViTCoMerConfig
from .modeling_vit_comer import ViTCoMerBackbone, ViTCoMerModel, ViTCoMerPreTrainedModel


if ViTCoMerConfig.model_type not in CONFIG_MAPPING:
    AutoConfig.register(ViTCoMerConfig.model_type, ViTCoMerConfig)
    AutoModel.register(ViTCoMerConfig, ViTCoMerModel)
    AutoBackbone.register(ViTCoMerConfig, ViTCoMerBackbone)

__all__ = ["ViTCoMerBackbone", "ViTCoMerConfig", "ViTCoMerModel", "ViTCoMerPreTrainedModel"]
