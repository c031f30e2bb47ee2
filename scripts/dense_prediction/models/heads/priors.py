"""How Deformable DETR's last layers start, in the official code and not in transformers."""

import math

import torch
from torch import nn
from transformers import DeformableDetrForObjectDetection


CLASS_PROBABILITY = 0.01
SIZE_LOGIT = -2.0


@torch.no_grad()
def set_detection_priors(model: DeformableDetrForObjectDetection) -> None:
    """Every class is improbable for every query, and every box sits on its reference point with sides of 0.12.

    Without it a query starts with each class at 1/2, and the first thousands of steps go into unlearning that
    (focal loss: Lin et al. 2017, section 4.1). All layers of the decoder share these weights.
    """
    nn.init.constant_(model.class_embed[0].bias, math.log(CLASS_PROBABILITY / (1 - CLASS_PROBABILITY)))
    last = model.bbox_embed[0].layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    last.bias[2:] = SIZE_LOGIT
