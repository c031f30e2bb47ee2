"""RT-DETRv2: RT-DETR with a number of points for each map."""

from transformers import RTDetrV2ForObjectDetection

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..real_time import REAL_TIME


HEAD = Head(entry=supported_head(RTDetrV2ForObjectDetection), **REAL_TIME)
