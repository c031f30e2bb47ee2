"""What stands before the blocks of timm's models: patches, positions and prefix tokens, for any grid."""

from typing import cast

import torch
from timm.layers import RotaryEmbeddingCat

from .own_forwards import OwnForward
from .timm_layers import TimmViT
from .trunk_parts import TokenGrid, resize_positions


PREFIX_TOKENS = ("cls_token", "dist_token", "reg_token")


class RotaryPositions(OwnForward):
    """timm's rotary position embedding, asked for the positions of a grid."""

    def forward(self, grid: TokenGrid) -> torch.Tensor:
        return cast(RotaryEmbeddingCat, self).get_embed(shape=list(grid))


class TimmEmbeddings(OwnForward):
    """timm's model without its blocks, final norm and head: from an image to the tokens of the first block."""

    def forward(
        self, pixel_values: torch.Tensor, grid: TokenGrid, use_prefix_tokens: bool, antialias: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, channels, H, W) -> tokens (batch, prefix + height * width, hidden_size), and what the blocks take
        of rotary positions."""
        vit = cast(TimmViT, self)
        # (batch, height * width, channels), or of some models (batch, height, width, channels). The convolution leaves
        # channels first. Sums keep the layout of what they add: all blocks would work on it.
        tokens = vit.patch_embed(pixel_values).flatten(1, -2).contiguous()
        prefix_positions, patch_positions = self.positions(grid, antialias)
        if patch_positions is not None:
            tokens = tokens + patch_positions
        if use_prefix_tokens:
            prefix = self.prefix_tokens() if prefix_positions is None else self.prefix_tokens() + prefix_positions
            tokens = torch.cat([prefix.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = vit.pos_drop(tokens)
        tokens = vit.norm_pre(tokens) if hasattr(vit, "norm_pre") else tokens
        rope = getattr(self, "rope", None)
        return tokens, rope(grid) if rope is not None else None

    def prefix_tokens(self) -> torch.Tensor:
        """Class, distillation and register tokens: (1, prefix, hidden_size)."""
        tokens = [getattr(self, name, None) for name in PREFIX_TOKENS]
        return torch.cat([token for token in tokens if token is not None], dim=1)

    def positions(self, grid: TokenGrid, antialias: bool) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Position embeddings of the prefix tokens and, resized to `grid`, of the patch tokens."""
        vit = cast(TimmViT, self)
        if vit.pos_embed is None:
            return None, None
        num_patches = vit.patch_embed.grid_size[0] * vit.patch_embed.grid_size[1]
        # Not `tensor_split`, which torch's older ONNX exporter writes wrongly.
        num_positioned = vit.pos_embed.shape[1] - num_patches
        prefix, patches = vit.pos_embed[:, :num_positioned], vit.pos_embed[:, num_positioned:]
        patches = resize_positions(patches, vit.patch_embed.grid_size, grid, antialias)
        return prefix if prefix.shape[1] else None, patches
