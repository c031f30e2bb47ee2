"""RT-DETR: DETR in real time."""

from transformers import RTDetrForObjectDetection

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..real_time import REAL_TIME


HEAD = Head(entry=supported_head(RTDetrForObjectDetection), **REAL_TIME)
