"""The convolutional branch: the stem pyramid (paper, Figure 3) and the multi-receptive-field pyramid (Figure 4)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .watchers import is_plain


NUM_LEVELS = 3
"""Levels that live in the token sequence of the pyramid: strides 8, 16 and 32."""


class PyramidShape(NamedTuple):
    """Sizes of the token pyramid, from the size of the trunk's token grid (stride 16). Both are even.

    The pyramid is one sequence: all tokens of stride 8, then of stride 16, then of stride 32, row by row.
    """

    height: int
    width: int

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the levels at strides 8, 16 and 32."""
        height, width = self.height, self.width
        return (2 * height, 2 * width), (height, width), (height // 2, width // 2)

    @property
    def level_lengths(self) -> list[int]:
        return [height * width for height, width in self.levels]

    @property
    def num_tokens(self) -> int:
        return sum(self.level_lengths)

    def to_maps(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """The levels of (batch, num_tokens, channels) as views (batch, channels, height, width), channels last."""
        levels = tokens.split(self.level_lengths, dim=1)
        return [to_map(level, *size) for level, size in zip(levels, self.levels)]

    def patch_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """The trunk's tokens (batch, prefix + height * width, channels) without class and register tokens."""
        return tokens[:, tokens.shape[1] - self.height * self.width :]

    def add_to_middle(self, tokens: torch.Tensor, patch_tokens: torch.Tensor) -> torch.Tensor:
        """Add the trunk's patch tokens (batch, height * width, channels) to the level of the same stride, 16."""
        fine, middle, coarse = tokens.split(self.level_lengths, dim=1)
        return torch.cat([fine, middle + patch_tokens.to(middle.device), coarse], dim=1)


def to_map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    # (batch, height * width, channels) -> (batch, channels, height, width): a view, in channels-last memory
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def to_tokens(feature_map: torch.Tensor) -> torch.Tensor:
    # (batch, channels, height, width) -> (batch, height * width, channels): a view of a channels-last map
    return feature_map.flatten(2).transpose(1, 2)


class PyramidBatchNorm(_BatchNorm):
    """Batch normalisation of (batch, channels, height, width) that is not an `nn.BatchNorm2d`.

    Heads of the DETR family replace every `nn.BatchNorm2d` of a backbone by a frozen one, which would fix this
    branch, trained from scratch, at its initial statistics. It still converts to `nn.SyncBatchNorm`.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() != 4:
            raise ValueError(f"expected (batch, channels, height, width), got {input.dim()} dimensions")
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            raise ValueError(
                "One image of 32 x 32 pixels cannot be trained on: at stride 32 it has one cell, of which batch norm "
                "takes no variance. Give two or more images, or larger ones; or call model.eval()."
            )


class ConvNormLayer(nn.Module):
    """3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm = PyramidBatchNorm(out_channels)
        self.activation = nn.ReLU()

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        normed = self.norm(self.conv(feature_map))
        # In place where nobody can have what the norm returned: these are the widest maps.
        return normed.relu_() if type(self.activation) is nn.ReLU and is_plain(self) else self.activation(normed)


class SpatialPyramid(nn.Module):
    """Convolutional stem pyramid (paper, Figure 3, lower left).

    Args:
        num_channels: channels of the image.
        stem_channels: channels at stride 4; the later stages have 2, 4 and 4 times as many.
        hidden_size: channels of every output.
    """

    def __init__(self, num_channels: int, stem_channels: int, hidden_size: int) -> None:
        super().__init__()
        widths = [stem_channels, 2 * stem_channels, 4 * stem_channels, 4 * stem_channels]
        self.stem = nn.Sequential(
            ConvNormLayer(num_channels, stem_channels, stride=2),
            ConvNormLayer(stem_channels, stem_channels, stride=1),
            ConvNormLayer(stem_channels, stem_channels, stride=1),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList(ConvNormLayer(*pair, stride=2) for pair in zip(widths[:-1], widths[1:]))
        self.projections = nn.ModuleList(nn.Conv2d(width, hidden_size, kernel_size=1) for width in widths)
        self.level_embed = nn.Parameter(torch.zeros(NUM_LEVELS, hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, channels, H, W) -> the map at stride 4 (batch, hidden_size, H/4, W/4), the pyramid's tokens."""
        features = [self.stem(pixel_values.contiguous(memory_format=torch.channels_last))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        stem, *levels = [project(feature) for project, feature in zip(self.projections, features)]
        tokens = [to_tokens(level) + embedding for level, embedding in zip(levels, self.level_embed)]
        return stem, torch.cat(tokens, dim=1)


class MultiKernelConv(nn.Module):
    """One level of the MRFP: channels in equal groups, one depthwise kernel size each, then norm and GELU."""

    def __init__(self, channels: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        width = channels // len(kernel_sizes)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, kernel_size=size, padding=size // 2, groups=width) for size in kernel_sizes
        )
        self.norm = PyramidBatchNorm(channels)
        self.activation = nn.GELU()

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        groups = feature_map.chunk(len(self.convs), dim=1)
        mixed = torch.cat([conv(group) for conv, group in zip(self.convs, groups)], dim=1)
        return self.activation(self.norm(mixed))


class MRFP(nn.Module):
    """Multi-receptive-field feature pyramid (paper, section 3.2, Figure 4): linear, depthwise kernels, linear.

    The released code adds a batch norm and a GELU for each level, a second GELU after them, and no residual.
    """

    def __init__(self, hidden_size: int, inner_size: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, inner_size)
        self.levels = nn.ModuleList(MultiKernelConv(inner_size, kernel_sizes) for _ in range(NUM_LEVELS))
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(inner_size, hidden_size)

    def forward(self, pyramid: torch.Tensor, shape: PyramidShape) -> torch.Tensor:
        """(batch, num_tokens, hidden_size) -> (batch, num_tokens, hidden_size)."""
        maps = shape.to_maps(self.fc1(pyramid))
        mixed = [to_tokens(level(feature_map)) for level, feature_map in zip(self.levels, maps)]
        return self.fc2(self.activation(torch.cat(mixed, dim=1)))
