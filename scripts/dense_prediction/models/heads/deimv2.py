"""DEIMv2: D-FINE with denser matches and a loss that weighs them by their quality."""

from transformers import Deimv2ForObjectDetection

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..real_time import REAL_TIME


HEAD = Head(entry=supported_head(Deimv2ForObjectDetection), **REAL_TIME)
