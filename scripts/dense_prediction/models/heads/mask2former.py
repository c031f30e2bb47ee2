"""Mask2Former: queries that look inside the masks they have found so far."""

from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..masks import mask_head


HEAD = Head(
    entry=supported_head(Mask2FormerForUniversalSegmentation),
    **mask_head(Mask2FormerImageProcessor, Mask2FormerLoss),
)
