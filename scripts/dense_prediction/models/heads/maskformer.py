"""MaskFormer: DETR's decoder over stride 32, its queries' masks from a feature pyramid."""

from transformers import MaskFormerForInstanceSegmentation, MaskFormerImageProcessor
from transformers.models.maskformer.modeling_maskformer import MaskFormerLoss

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..masks import mask_head


HEAD = Head(
    entry=supported_head(MaskFormerForInstanceSegmentation),
    **mask_head(MaskFormerImageProcessor, MaskFormerLoss),
)
