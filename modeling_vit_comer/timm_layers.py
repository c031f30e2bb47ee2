"""Blocks of timm as layers of a trunk: with windows, residual blocks and relative positions."""

from typing import Protocol, cast

import torch
from timm.layers import Attention, PatchEmbed, RotaryEmbeddingCat
from timm.models.beit import Block as BeitBlock
from timm.models.beit import RelativePositionBias as SharedBias
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.vitdet.modeling_vitdet import (
    VitDetResBottleneckBlock,
    window_partition,
    window_unpartition,
)
from transformers.utils.output_capturing import OutputRecorder

from .relative_positions import RelativePositionBias
from .spatial_pyramid import to_map, to_tokens
from .trunk_parts import TokenGrid


class TimmViT(Protocol):
    """What we use of timm's `VisionTransformer`, `Eva` and `Beit`, which have no class in common."""

    embed_dim: int
    num_prefix_tokens: int
    blocks: nn.Sequential
    patch_embed: PatchEmbed
    pos_embed: nn.Parameter | None
    cls_token: nn.Parameter | None
    pos_drop: nn.Module
    rope: RotaryEmbeddingCat | None  # of Eva, with others that have the same method
    rel_pos_bias: SharedBias | None  # of Beit

    def prune_intermediate_layers(self, indices: int, prune_norm: bool, prune_head: bool) -> list[int]: ...


def attend(attention: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention with the module's settings over (batch, heads, tokens, head_dim)."""
    if attention.fused_attn:
        dropout = attention.attn_drop.p if attention.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    weights = (query * attention.scale) @ key.transpose(-2, -1)
    return attention.attn_drop(weights.softmax(dim=-1)) @ value


def window_attention(attention: Attention, tokens: torch.Tensor, grid: TokenGrid, window_size: int) -> torch.Tensor:
    """A timm attention's own weights, applied inside windows of `window_size` x `window_size` tokens.

    The grid is padded at the right and bottom after the qkv projection, so that padded keys have logit 0 and value 0
    and are not masked: the official code does so, and published weights need it.

    Args:
        tokens: (batch, height * width, channels), no prefix tokens.
    """
    # (batch, height * width, 3 * channels) -> (windows, window, window, 3 * channels)
    qkv = attention.qkv(tokens).unflatten(1, grid)
    windows, padded_size = window_partition(qkv, window_size)
    # -> 3 x (windows, heads, window * window, head_dim)
    windows = windows.flatten(1, 2).unflatten(-1, (3, attention.num_heads, -1))
    query, key, value = windows.permute(2, 0, 3, 1, 4).unbind(0)
    output = attend(attention, attention.q_norm(query), attention.k_norm(key), value)
    # (windows, heads, window * window, head_dim) -> (batch, height * width, channels)
    output = output.transpose(1, 2).flatten(2)
    output = window_unpartition(output, window_size, padded_size, grid).flatten(1, 2)
    return attention.proj_drop(attention.proj(attention.norm(output)))


class TimmTrunkLayer(GradientCheckpointingLayer):
    """One block of a timm `VisionTransformer` or `Eva`.

    Args:
        block: timm's block.
        window_size: side of its attention windows in tokens, 0 for global attention.
        residual: a convolutional residual bottleneck after the block.
    """

    def __init__(self, block: nn.Module, window_size: int, residual: VitDetResBottleneckBlock | None) -> None:
        super().__init__()
        self.block = block
        self.window_size = window_size
        self.residual = residual

    def forward(self, tokens: torch.Tensor, grid: TokenGrid, positions: torch.Tensor | None = None) -> torch.Tensor:
        if self.window_size:
            tokens = self.windowed_block(tokens, grid, positions)
        else:
            tokens = self.global_block(tokens, grid, positions)
        if self.residual is None:
            return tokens
        num_patches = grid.height * grid.width
        prefix, patches = tokens.split([tokens.shape[1] - num_patches, num_patches], dim=1)
        return torch.cat([prefix, to_tokens(self.residual(to_map(patches, *grid)))], dim=1)

    def global_block(self, tokens: torch.Tensor, grid: TokenGrid, positions: torch.Tensor | None) -> torch.Tensor:
        return self.block(tokens) if positions is None else self.block(tokens, positions)

    def windowed_block(self, tokens: torch.Tensor, grid: TokenGrid, positions: torch.Tensor | None) -> torch.Tensor:
        block = cast(Block, self.block)
        attended = window_attention(cast(Attention, block.attn), block.norm1(tokens), grid, self.window_size)
        tokens = tokens + block.drop_path1(block.ls1(attended))
        return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


class TimmBeitLayer(TimmTrunkLayer):
    """One block of a timm `Beit`. `positions` are a bias that all blocks share.

    Args:
        relative_position_bias: the block's own bias, of its window or of the whole grid.
    """

    def __init__(
        self,
        block: nn.Module,
        window_size: int,
        residual: VitDetResBottleneckBlock | None,
        relative_position_bias: RelativePositionBias | None,
    ) -> None:
        super().__init__(block, window_size, residual)
        self.relative_position_bias = relative_position_bias

    def global_block(self, tokens: torch.Tensor, grid: TokenGrid, positions: torch.Tensor | None) -> torch.Tensor:
        return self.block(tokens, self.add_bias(grid, positions))

    def windowed_block(self, tokens: torch.Tensor, grid: TokenGrid, positions: torch.Tensor | None) -> torch.Tensor:
        """The grid is padded before the projection, so that a padded value is the bias of the values: as official."""
        block, size = cast(BeitBlock, self.block), self.window_size
        # (batch, height * width, channels) -> (windows, window * window, channels)
        windows, padded_size = window_partition(block.norm1(tokens).unflatten(1, grid), size)
        attended = block.attn(windows.flatten(1, 2), self.add_bias((size, size), None))
        attended = window_unpartition(attended, size, padded_size, grid).flatten(1, 2)
        mixed = tokens + block.drop_path1(scale(attended, block.gamma_1))
        return mixed + block.drop_path2(scale(block.mlp(block.norm2(mixed)), block.gamma_2))

    def add_bias(self, window: tuple[int, int], shared: torch.Tensor | None) -> torch.Tensor | None:
        if self.relative_position_bias is None:
            return shared
        own = self.relative_position_bias(window)
        return own if shared is None else own + shared


def scale(update: torch.Tensor, gamma: torch.Tensor | None) -> torch.Tensor:
    return update if gamma is None else gamma * update


TIMM_OUTPUTS = {
    "hidden_states": TimmTrunkLayer,
    "attentions": OutputRecorder(nn.Dropout, layer_name="attn.attn_drop"),
}
"""What transformers records of timm's trunks, which do not record by themselves."""
