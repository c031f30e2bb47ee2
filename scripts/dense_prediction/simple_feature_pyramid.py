"""The plain ViT as a baseline: ViTDet's simple feature pyramid (Li et al. 2022, arXiv 2203.16527), no interaction."""

import torch
from torch import nn

from modeling_vit_comer.modeling_vit_comer import SIZE_MULTIPLE, crop_to_stride, pad_to_multiple
from modeling_vit_comer.spatial_pyramid import to_map
from modeling_vit_comer.trunk import Trunk


NORM_GROUPS = 32


class SimpleFeaturePyramid(nn.Module):
    """Maps at strides 4, 8, 16 and 32 from the trunk's last tokens alone: what the official code calls ViTBaseline.

    Args:
        trunk: of a ViTCoMerConfig; `backbone.trunk` shares a backbone's own, with its weights.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        size = trunk.hidden_size
        self.levels = nn.ModuleList(
            [
                nn.Sequential(upsampling(size), nn.GroupNorm(NORM_GROUPS, size), nn.GELU(), upsampling(size)),
                upsampling(size),
                nn.Identity(),
                nn.MaxPool2d(kernel_size=2, stride=2),
            ]
        )

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """(batch, channels, H, W) -> the four maps, (batch, hidden_size, ceil(H / stride), ceil(W / stride))."""
        tokens, context = self.trunk.embed(pad_to_multiple(pixel_values, SIZE_MULTIPLE))
        tokens = self.trunk.run(tokens, context, 0, self.trunk.num_layers)
        # (batch, prefix + height * width, hidden_size) -> (batch, hidden_size, height, width)
        feature_map = to_map(tokens[:, self.trunk.num_prefix_tokens :], context.height, context.width)
        image_size = pixel_values.shape[-2:]
        return [crop_to_stride(level(feature_map), image_size, s) for level, s in zip(self.levels, self.strides)]


def upsampling(size: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(size, size, kernel_size=2, stride=2)
