"""The backbone of a trained model, with which another training starts."""

import logging
from typing import Any

import torch
from transformers import PreTrainedConfig

from .building import encoder_of
from .heads.registry import HEADS, Head


_logger = logging.getLogger(__name__)


def head_for(config: PreTrainedConfig) -> Head | None:
    """The head whose models have such a config."""
    return next((head for head in HEADS.values() if head.config_class.model_type == config.model_type), None)


def backbone_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of the backbone's config in that of a trained model, but what the training had frozen."""
    fields = config.backbone_config.to_dict()
    return {name: value for name, value in fields.items() if name != "freeze_trunk"}


def backbone_weights(checkpoint: str, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """The weights of the backbone in the trained model of that config, in float32."""
    model_class = head_for(config).model_class
    model = model_class.from_pretrained(checkpoint, config=config, dtype=torch.float32)
    _logger.warning(
        "backbone.checkpoint=%s: the backbone of this %s goes on, its head is dropped and the new one starts anew",
        checkpoint,
        model_class.__name__,
    )
    return encoder_of(model).state_dict()
