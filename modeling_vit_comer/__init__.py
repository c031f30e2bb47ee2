"""ViT-CoMer for Hugging Face Transformers. Importing this package registers it with the Auto classes."""

from transformers import AutoBackbone, AutoConfig, AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .configuration_vit_comer import ViTCoMerConfig
from .deformable_heads import restore_heads, use_kernel_in_heads
from .kernel_choice import deformable_attention_backend, use_deformable_attention_kernel
from .modeling_vit_comer import ViTCoMerBackbone, ViTCoMerModel, ViTCoMerPreTrainedModel


if ViTCoMerConfig.model_type not in CONFIG_MAPPING:
    AutoConfig.register(ViTCoMerConfig.model_type, ViTCoMerConfig)
    AutoModel.register(ViTCoMerConfig, ViTCoMerModel)
    AutoBackbone.register(ViTCoMerConfig, ViTCoMerBackbone)

# setup.cfg reads it from here, without importing anything.
__version__ = "0.1.0"

__all__ = [
    "ViTCoMerBackbone",
    "ViTCoMerConfig",
    "ViTCoMerModel",
    "ViTCoMerPreTrainedModel",
    "deformable_attention_backend",
    "restore_heads",
    "use_deformable_attention_kernel",
    "use_kernel_in_heads",
]
