"""Conditional DETR: DETR whose queries know from where they look, with a focal loss."""

from typing import Any

from transformers import ConditionalDetrForObjectDetection, ConditionalDetrImageProcessor

from modeling_vit_comer.heads import supported_head

from ..boxes import detr_head, set_priors
from ..head import Head


def initialize(model: ConditionalDetrForObjectDetection) -> None:
    """As the official code does and transformers does not: boxes start with sides of 0.5 about their points."""
    layers: Any = model  # as attributes, to torch's types a tensor or a module of no class
    set_priors(layers.class_labels_classifier, layers.bbox_predictor.layers[-1], size_logit=0.0)


HEAD = Head(
    entry=supported_head(ConditionalDetrForObjectDetection),
    initialize=initialize,
    **detr_head(ConditionalDetrImageProcessor),
)
