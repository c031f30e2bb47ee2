"""Parameters without a gradient, which several processes would wait for."""

import torch
from transformers import PreTrainedModel


IMAGE_SIDE = 64
"""Pixels; of the smallest image that every backbone takes."""


def freeze_unused(encoder: PreTrainedModel) -> list[str]:
    """Freeze the parameters of a backbone that the feature maps it gives do not depend on, and return their names.

    A detection head leaves out the finest level, and with it norms and projections that are made for this level alone.
    They never get a gradient; while they are expected to have one, DistributedDataParallel cannot go on.
    """
    named = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    if not named:
        return []
    was_training = encoder.training
    encoder.eval()
    maps = encoder(torch.zeros(1, 3, IMAGE_SIDE, IMAGE_SIDE)).feature_maps
    total = sum(feature_map.sum() for feature_map in maps)
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    encoder.train(was_training)
    unused = [name for name, gradient in zip(named, gradients, strict=True) if gradient is None]
    for name in unused:
        named[name].requires_grad_(False)
    return unused
