"""Feature maps as colours: the first three principal components of the channels are red, green and blue."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from modeling_vit_comer.trunk import Trunk

from ..models.simple_feature_pyramid import STRIDES, pyramid_maps


COMPONENTS = 3
DARKEST, BRIGHTEST = 0.01, 0.99
"""Quantiles of a component that become 0 and 255."""

Maps = Sequence[torch.Tensor]
"""Of one image at the strides 4, 8, 16 and 32, each (channels, h, w)."""


@torch.inference_mode()
def backbone_maps(backbone: PreTrainedModel, pixel_values: torch.Tensor) -> Maps:
    """What the backbone, whose `out_features` are stages 1 to 4, gives a head of an image (1, 3, H, W)."""
    return [maps[0] for maps in backbone(pixel_values).feature_maps]


@torch.inference_mode()
def plain_maps(backbone: PreTrainedModel, pixel_values: torch.Tensor) -> Maps:
    """The last tokens of the trunk, which sees the image (1, 3, H, W) by itself, resized to the four strides."""
    trunk = cast(Trunk, backbone.trunk)
    trunk.set_attn_implementation(backbone.config._attn_implementation)
    resizing = nn.ModuleList(
        [
            nn.Upsample(scale_factor=4, mode="bilinear"),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Identity(),
            nn.AvgPool2d(2),
        ]
    )
    return [maps[0] for maps in pyramid_maps(trunk, resizing, pixel_values, STRIDES).values()]


def to_colors(maps: Maps) -> list[np.ndarray]:
    """(channels, h, w) -> (h, w, 3) uint8 for each map, a colour being the same direction of the features in all.

    The maps count equally, whatever their size and the strength of their features. The sign of each axis is such that
    its largest entry is positive, so that the same maps have the same colours everywhere.
    """
    features = [_centred(each) for each in maps]
    axes = _principal_axes(features)
    return [_paint(each @ axes, maps[level].shape[-2:]) for level, each in enumerate(features)]


def _centred(feature_map: torch.Tensor) -> torch.Tensor:
    """(channels, h, w) -> (h * w, channels) with a mean of 0."""
    features = feature_map.flatten(1).T.double()
    return features - features.mean(0)


def _principal_axes(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """(channels, 3), the axis with the largest variance first."""
    covariances = [each.T @ each for each in features]
    total = sum(each / each.trace().clamp_min(torch.finfo(each.dtype).tiny) for each in covariances)
    axes = torch.linalg.eigh(total).eigenvectors[:, -COMPONENTS:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * largest.sign()


def _paint(components: torch.Tensor, size: torch.Size) -> np.ndarray:
    """(h * w, 3) -> (h, w, 3) uint8, each component stretched from black to full; grey where it is constant."""
    low, high = torch.quantile(components, components.new_tensor([DARKEST, BRIGHTEST]), dim=0)
    span = high - low
    shares = torch.where(span > 0, (components - low) / span.clamp_min(torch.finfo(span.dtype).tiny), 0.5)
    return (255 * shares.clamp(0, 1)).round().byte().reshape(*size, COMPONENTS).cpu().numpy()
