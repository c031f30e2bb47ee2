"""What the trunks of all libraries share: their context, positions for another grid, and pretrained weights."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from timm.layers import resample_patch_embed
from torch import nn
from torch.nn import functional as F

from .configuration_vit_comer import PATCH_SIZE
from .spatial_pyramid import to_map, to_tokens


PATCH_RESAMPLINGS = ("pi", "bilinear")


class TokenGrid(NamedTuple):
    """Context of the trunk's blocks: height and width of the patch tokens' grid."""

    height: int
    width: int


class PositionedGrid(NamedTuple):
    """Context of blocks that take positions: the grid, and a tensor or tensors that `embed` has made for it."""

    height: int
    width: int
    positions: torch.Tensor | tuple[torch.Tensor, ...] | None


def resize_positions(
    positions: torch.Tensor, old_grid: tuple[int, int], new_grid: TokenGrid, antialias: bool
) -> torch.Tensor:
    """Position embeddings (1, old height * width, channels) for another grid, by bicubic interpolation.

    Always interpolated, which changes nothing on the old grid: a shortcut would tie an exported graph to that grid.
    """
    dtype = torch.promote_types(positions.dtype, torch.float32)
    resized = F.interpolate(to_map(positions.to(dtype), *old_grid), size=new_grid, mode="bicubic", antialias=antialias)
    return to_tokens(resized).to(positions.dtype)


def resample_patch_kernel(kernel: torch.Tensor, method: str) -> torch.Tensor:
    """A pretrained patch kernel (hidden_size, channels, patch, patch) as (hidden_size, channels, 16, 16).

    Args:
        method: "pi", the kernel whose tokens of an upsampled patch are closest to the tokens of the patch (FlexiViT,
            arXiv 2212.08013); or "bilinear", as the official DINOv2 checkpoints of ViT-CoMer were made.
    """
    if method not in PATCH_RESAMPLINGS:
        raise ValueError(f"patch_resample must be one of {PATCH_RESAMPLINGS}, got {method!r}.")
    size = [PATCH_SIZE, PATCH_SIZE]
    if list(kernel.shape[-2:]) == size:
        return kernel
    if method == "pi":
        return resample_patch_embed(kernel.float(), size).to(kernel.dtype)
    return F.interpolate(kernel.float(), size=size, mode="bilinear", align_corners=False).to(kernel.dtype)


def check_weights(weights: Mapping[str, torch.Tensor], trunk: nn.Module) -> None:
    """Refuse weights that are not all that a trunk has, and nothing else.

    Raises:
        ValueError: with the names that are missing, unexpected or of another shape.
    """
    expected = trunk.state_dict()
    missing, unexpected = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing == expected.keys():
        raise ValueError(f"The weights hold nothing of this trunk, but {shorten(unexpected)}: a head alone?")
    shapes = {
        f"{key} {tuple(weights[key].shape)} for {tuple(value.shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape
    }
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    found = [f"{problem}: {shorten(names)}" for problem, names in problems.items() if names]
    if found:
        raise ValueError(f"The weights do not fit this trunk; {'; '.join(found)}.")


def shorten(names: Collection[str]) -> str:
    """The first of many names."""
    first, rest = sorted(names)[:3], len(names) - 3
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


class PretrainedTrunk(nn.Module):
    """A trunk that takes its library's weights, by a `convert_pretrained` of its own."""

    def load_pretrained(self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi") -> None:
        """Load weights under the library's names. See `convert_pretrained`."""
        self.load_state_dict(self.convert_pretrained(state_dict, patch_resample))
