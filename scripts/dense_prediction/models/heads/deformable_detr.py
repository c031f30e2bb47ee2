"""Deformable DETR: it looks at a few points of every map."""

from typing import Any

from transformers import DeformableDetrForObjectDetection, DeformableDetrImageProcessor

from modeling_vit_comer.heads import supported_head

from ..boxes import detr_head, set_priors
from ..head import Head


SIZE_LOGIT = -2.0
"""Boxes start with sides of 0.12."""


def initialize(model: DeformableDetrForObjectDetection) -> None:
    """As the official code does and transformers does not. All layers of the decoder share these weights."""
    layers: Any = model  # as attributes, to torch's types a tensor or a module of no class
    set_priors(layers.class_embed[0], layers.bbox_embed[0].layers[-1], SIZE_LOGIT)


HEAD = Head(
    entry=supported_head(DeformableDetrForObjectDetection),
    initialize=initialize,
    **detr_head(DeformableDetrImageProcessor),
)
