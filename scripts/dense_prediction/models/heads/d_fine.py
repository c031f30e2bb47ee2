"""D-FINE: RT-DETR whose boxes are distributions."""

from transformers import DFineForObjectDetection

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..real_time import REAL_TIME


HEAD = Head(entry=supported_head(DFineForObjectDetection), **REAL_TIME)
