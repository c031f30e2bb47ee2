"""What stands before the layers of transformers' ViTs: patches, positions and prefix tokens, for any grid."""

from typing import Any, NamedTuple, cast

import torch

from .own_forwards import OwnForward
from .spatial_pyramid import to_tokens
from .trunk_parts import TokenGrid, resize_positions


class EmbeddingPlan(NamedTuple):
    """What a trunk asks of its embeddings, beside the image."""

    grid: TokenGrid
    """Of the image."""
    old_grid: tuple[int, int]
    """Of the table of positions."""
    prefix_names: tuple[str, ...]
    """Prefix tokens that are put before the patch tokens, in their order."""
    num_positioned: int
    """How many of the model's prefix tokens have a position, the first ones."""
    antialias: bool


class PatchEmbeddings(OwnForward):
    """The patches of transformers' ViTs, but DINOv3's, which are a bare convolution. DINOv2's own look at a weight."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # (batch, hidden_size, height, width) -> (batch, height * width, hidden_size)
        return to_tokens(cast(Any, self).projection(pixel_values))


class TransformersEmbeddings(OwnForward):
    """A transformers ViT's embeddings: from an image to the tokens of the first layer."""

    def forward(self, pixel_values: torch.Tensor, plan: EmbeddingPlan) -> torch.Tensor:
        """(batch, channels, H, W) -> (batch, prefix + height * width, hidden_size)."""
        embeddings = cast(Any, self)
        patches = embeddings.patch_embeddings(pixel_values)
        # Channels first, as the convolution leaves them, would be the layout of all the blocks' sums.
        tokens = (to_tokens(patches) if patches.dim() == 4 else patches).contiguous()
        prefix_positions, patch_positions = self.positions(plan)
        if patch_positions is not None:
            tokens = tokens + patch_positions
        if plan.prefix_names:
            prefix = self.prefix_tokens(plan.prefix_names, prefix_positions).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([prefix, tokens], dim=1)
        dropout = getattr(self, "dropout", None)
        return tokens if dropout is None else dropout(tokens)

    def prefix_tokens(self, names: tuple[str, ...], positions: torch.Tensor | None) -> torch.Tensor:
        """Class, distillation and register tokens with their positions: (1, prefix, hidden_size)."""
        tokens = torch.cat([getattr(self, name) for name in names], dim=1)
        if positions is None:
            return tokens
        num_positioned = positions.shape[1]
        return torch.cat([tokens[:, :num_positioned] + positions, tokens[:, num_positioned:]], dim=1)

    def positions(self, plan: EmbeddingPlan) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Position embeddings of the prefix tokens and, resized to the grid, of the patch tokens."""
        table = getattr(self, "position_embeddings", None)
        if table is None:
            return None, None
        # Not `tensor_split`, which torch's older ONNX exporter writes wrongly.
        prefix, patches = table[:, : plan.num_positioned], table[:, plan.num_positioned :]
        return prefix, resize_positions(patches, plan.old_grid, plan.grid, plan.antialias)
