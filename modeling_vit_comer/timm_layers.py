"""Blocks of timm as layers of a trunk: with windows, residual blocks and relative positions."""

from typing import Any, Protocol, cast

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

from .own_forwards import OwnForward, give_forward
from .relative_positions import RelativePositionBias
from .spatial_pyramid import to_map, to_tokens
from .trunk_parts import TokenGrid
from .watchers import is_plain


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


class WindowedAttention(OwnForward):
    """A timm `Attention` inside windows of tokens.

    The grid is padded at the right and bottom after the qkv projection, so that padded keys have logit 0 and value 0
    and are not masked: the official code does so, and published weights need it.
    """

    def forward(self, tokens: torch.Tensor, grid: TokenGrid, window_size: int) -> torch.Tensor:
        """`tokens` (batch, height * width, channels), no prefix tokens, -> the same shape."""
        attention = cast(Attention, self)
        # (batch, height * width, 3 * channels) -> (windows, window, window, 3 * channels)
        windows, padded_size = window_partition(attention.qkv(tokens).unflatten(1, grid), window_size)
        # -> 3 x (windows, heads, window * window, head_dim)
        windows = windows.flatten(1, 2).unflatten(-1, (3, attention.num_heads, -1))
        query, key, value = windows.permute(2, 0, 3, 1, 4).unbind(0)
        output = attend(attention, attention.q_norm(query), attention.k_norm(key), value)
        # (windows, heads, window * window, head_dim) -> (batch, height * width, channels)
        output = output.transpose(1, 2).flatten(2)
        output = window_unpartition(output, window_size, padded_size, grid).flatten(1, 2)
        return attention.proj_drop(attention.proj(attention.norm(output)))


class WindowedBlock(OwnForward):
    """A timm `Block` with a windowed attention."""

    def forward(self, tokens: torch.Tensor, grid: TokenGrid, window_size: int) -> torch.Tensor:
        block = cast(Block, self)
        tokens = tokens + block.drop_path1(block.ls1(block.attn(block.norm1(tokens), grid, window_size)))
        return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


class WindowedBeitBlock(OwnForward):
    """A timm Beit's block whose attention sees windows.

    The grid is padded before the projection, so that a padded value is the bias of the values: as official.
    """

    def forward(
        self, tokens: torch.Tensor, grid: TokenGrid, window_size: int, bias: torch.Tensor | None
    ) -> torch.Tensor:
        block = cast(BeitBlock, self)
        # (batch, height * width, channels) -> (windows, window * window, channels)
        windows, padded_size = window_partition(block.norm1(tokens).unflatten(1, grid), window_size)
        attended = block.attn(windows.flatten(1, 2), bias)
        attended = window_unpartition(attended, window_size, padded_size, grid).flatten(1, 2)
        mixed = tokens + block.drop_path1(scale(attended, block.gamma_1))
        return mixed + block.drop_path2(scale(block.mlp(block.norm2(mixed)), block.gamma_2))


class CalledProjection(OwnForward):
    """An attention of timm's Eva or Beit that calls its `qkv`, whose biases it holds itself.

    timm uses the weight of that layer alone, which is faster and leaves out whatever adapts or watches the layer.
    """

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        qkv, library_class = self.get_submodule("qkv"), self.classes[1]
        is_same = type(qkv) is nn.Linear and is_plain(qkv)
        return library_class.forward(self if is_same else WithBiases(self), *args, **kwargs)


class WithBiases:
    """What timm's forward sees of such an attention: no biases of its own, and a `qkv` that adds them."""

    q_bias = None

    def __init__(self, attention: nn.Module) -> None:
        self.attention = attention

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attention, name)

    def qkv(self, tokens: torch.Tensor) -> torch.Tensor:
        biases = [getattr(self.attention, name) for name in ("q_bias", "k_bias", "v_bias")]
        return self.attention.get_submodule("qkv")(tokens) + torch.cat(biases)


class TimmTrunkLayer(GradientCheckpointingLayer):
    """One block of a timm `VisionTransformer` or `Eva`.

    Args:
        block: timm's block.
        window_size: side of its attention windows in tokens, 0 for global attention.
        residual: a convolutional residual bottleneck after the block.
    """

    def __init__(self, block: nn.Module, window_size: int, residual: VitDetResBottleneckBlock | None) -> None:
        super().__init__()
        if window_size:
            self.take_windows(block)
        self.block = block
        self.window_size = window_size
        self.residual = residual

    @staticmethod
    def take_windows(block: nn.Module) -> None:
        give_forward(block, WindowedBlock)
        give_forward(block.get_submodule("attn"), WindowedAttention)

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
        return self.block(tokens, grid, self.window_size)


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

    @staticmethod
    def take_windows(block: nn.Module) -> None:
        give_forward(block, WindowedBeitBlock)

    def global_block(self, tokens: torch.Tensor, grid: TokenGrid, positions: torch.Tensor | None) -> torch.Tensor:
        return self.block(tokens, self.add_bias(grid, positions))

    def windowed_block(self, tokens: torch.Tensor, grid: TokenGrid, positions: torch.Tensor | None) -> torch.Tensor:
        window = (self.window_size, self.window_size)
        return self.block(tokens, grid, self.window_size, self.add_bias(window, None))

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
