"""The ViT branch: somebody else's plain ViT, called part by part between the interactions."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn

from .configuration_vit_comer import ViTCoMerConfig
from .timm_layers import TimmTrunkLayer
from .timm_trunks import TIMM_TRUNKS, TimmVisionTransformerTrunk
from .transformers_trunks import TRANSFORMERS_TRUNKS
from .trunk_parts import PositionedGrid, TokenGrid


class Trunk(Protocol):
    """What the model asks of a trunk, an `nn.Module`: one class for each signature of a library's blocks.

    `context` is what `embed` knows of an image beside its tokens and `run` needs again; its `height` and `width` are
    the grid of the patch tokens, which come last. A patch is 16 x 16 pixels.
    """

    hidden_size: int
    num_layers: int
    num_prefix_tokens: int
    patch_size: int
    input_embeddings: nn.Module

    def embed(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, TokenGrid | PositionedGrid]:
        """(batch, channels, H, W), H and W multiples of 16 -> tokens (batch, prefix + H/16 * W/16, hidden_size),
        contiguous, with their positions; and the context."""

    def run(self, tokens: torch.Tensor, context: TokenGrid | PositionedGrid, start: int, stop: int) -> torch.Tensor:
        """Blocks `start` to `stop - 1`: (batch, prefix + height * width, hidden_size) -> the same shape."""

    def set_attn_implementation(self, attn_implementation: str | None) -> None:
        """Run attention fused ("sdpa", None) or step by step ("eager")."""

    def load_pretrained(self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi") -> None:
        """Load weights under the library's own names; all that the trunk has must be there and fit."""

    def convert_pretrained(
        self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi"
    ) -> dict[str, torch.Tensor]:
        """The same weights under the trunk's names, none of them copied but a resampled one."""


def build_trunk(config: ViTCoMerConfig) -> Trunk:
    """The trunk of a config, with the weights of its library's initialisation."""
    if config.trunk_config.model_type == "timm_wrapper":
        return TIMM_TRUNKS[config.trunk_facts.family](config)
    return TRANSFORMERS_TRUNKS[config.trunk_facts.family](config)


__all__ = ["PositionedGrid", "TimmTrunkLayer", "TimmVisionTransformerTrunk", "TokenGrid", "Trunk", "build_trunk"]
