"""DETR: it attends to every token of stride 32."""

from transformers import DetrForObjectDetection, DetrImageProcessor

from modeling_vit_comer.heads import supported_head

from ..boxes import detr_head
from ..head import Head


HEAD = Head(entry=supported_head(DetrForObjectDetection), **detr_head(DetrImageProcessor))
