"""DEIMv2: D-FINE with denser matches and a loss that weighs them by their quality.

The terms of the boxes are means over the matches, not over the boxes; of several processes each takes its own.
"""

from transformers import Deimv2ForObjectDetection

from modeling_vit_comer.heads import supported_head

from ..head import Head
from ..real_time import REAL_TIME


HEAD = Head(entry=supported_head(Deimv2ForObjectDetection), **REAL_TIME)
