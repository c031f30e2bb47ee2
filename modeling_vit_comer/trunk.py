"""The ViT branch: somebody else's plain ViT, called part by part between the interactions."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import NamedTuple

import timm
import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, ResPostBlock
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.vitdet.modeling_vitdet import (
    VitDetResBottleneckBlock,
    window_partition,
    window_unpartition,
)

from .configuration_vit_comer import ViTCoMerConfig
from .spatial_pyramid import to_map, to_tokens


class TokenGrid(NamedTuple):
    """Context of the trunk's blocks: height and width of the patch tokens' grid."""

    height: int
    width: int


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


def resize_positions(
    positions: torch.Tensor, old_grid: tuple[int, int], new_grid: TokenGrid, antialias: bool
) -> torch.Tensor:
    """Position embeddings (1, old height * width, channels) for another grid, by bicubic interpolation.

    Always interpolated, which changes nothing on the old grid: a shortcut would tie an exported graph to that grid.
    """
    dtype = torch.promote_types(positions.dtype, torch.float32)
    resized = F.interpolate(to_map(positions.to(dtype), *old_grid), size=new_grid, mode="bicubic", antialias=antialias)
    return to_tokens(resized).to(positions.dtype)


class TimmTrunkLayer(GradientCheckpointingLayer):
    """One block of a timm `VisionTransformer`.

    Args:
        block: timm's block.
        window_size: side of its attention windows in tokens, 0 for global attention.
        residual: a convolutional residual bottleneck after the block.
    """

    def __init__(self, block: Block, window_size: int, residual: VitDetResBottleneckBlock | None) -> None:
        super().__init__()
        self.block = block
        self.window_size = window_size
        self.residual = residual

    def forward(self, tokens: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
        tokens = self.windowed_block(tokens, grid) if self.window_size else self.block(tokens)
        if self.residual is None:
            return tokens
        num_patches = grid.height * grid.width
        prefix, patches = tokens.split([tokens.shape[1] - num_patches, num_patches], dim=1)
        return torch.cat([prefix, to_tokens(self.residual(to_map(patches, *grid)))], dim=1)

    def windowed_block(self, tokens: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
        block = self.block
        attended = window_attention(block.attn, block.norm1(tokens), grid, self.window_size)
        tokens = tokens + block.drop_path1(block.ls1(attended))
        return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


class TimmVisionTransformerTrunk(nn.Module):
    """A timm `VisionTransformer` (DeiT, AugReg, MAE, DINO, DINOv2, CLIP, ...) as a trunk.

    `embeddings` is timm's model without its blocks, final norm and head; `layers` are its blocks.
    """

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__()
        vit = timm.create_model(config.trunk_config.architecture, pretrained=False, **config.trunk_model_args)
        vit.prune_intermediate_layers(len(vit.blocks) - 1, prune_norm=True, prune_head=True)
        self.layers = nn.ModuleList(self._layer(config, index, block) for index, block in enumerate(vit.blocks))
        vit.blocks = nn.Sequential()
        self.embeddings = vit
        self.antialias = config.position_embedding_antialias
        self.hidden_size, self.num_layers, self.patch_size = vit.embed_dim, len(self.layers), config.patch_size
        self.num_prefix_tokens = vit.num_prefix_tokens if config.use_prefix_tokens else 0

    @staticmethod
    def _layer(config: ViTCoMerConfig, index: int, block: nn.Module) -> TimmTrunkLayer:
        window_size = config.window_sizes[index] if config.window_sizes else 0
        if not isinstance(block, (Block, ResPostBlock)):
            raise ValueError(f"The trunk's blocks must be timm's Block or ResPostBlock, got {type(block).__name__}.")
        if window_size and (type(block), type(block.attn)) != (Block, Attention):
            raise ValueError(
                f"window_sizes needs timm's Block with its Attention, got {type(block).__name__} with "
                f"{type(block.attn).__name__} in block {index}."
            )
        residual = None
        if index in config.residual_block_indexes:
            size = config.hidden_size
            residual = VitDetResBottleneckBlock(SimpleNamespace(hidden_act="gelu"), size, size, size // 2)
        return TimmTrunkLayer(block, window_size, residual)

    def set_attn_implementation(self, attn_implementation: str | None) -> None:
        """Let timm's attention run fused, or step by step for "eager", which is what shows its weights."""
        fused = attn_implementation != "eager"
        for layer in self.layers:
            if layer.block.attn.fused_attn != fused:
                layer.block.attn.fused_attn = fused

    def embed(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, TokenGrid]:
        """(batch, channels, H, W), H and W multiples of 16 -> tokens (batch, prefix + H/16 * W/16, hidden_size)."""
        vit = self.embeddings
        patches = vit.patch_embed.proj(pixel_values)
        grid = TokenGrid(*patches.shape[-2:])
        # The convolution leaves channels first. Sums keep the layout of what they add: all blocks would work on it.
        tokens = vit.patch_embed.norm(to_tokens(patches).contiguous())
        prefix_positions, patch_positions = self.positions(grid)
        if patch_positions is not None:
            tokens = tokens + patch_positions
        if self.num_prefix_tokens:
            prefix = self.prefix_tokens() if prefix_positions is None else self.prefix_tokens() + prefix_positions
            tokens = torch.cat([prefix.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return vit.norm_pre(vit.pos_drop(tokens)), grid

    def prefix_tokens(self) -> torch.Tensor:
        """Class and register tokens: (1, prefix, hidden_size)."""
        tokens = [token for token in (self.embeddings.cls_token, self.embeddings.reg_token) if token is not None]
        return torch.cat(tokens, dim=1)

    def positions(self, grid: TokenGrid) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Position embeddings of the prefix tokens and, resized to `grid`, of the patch tokens."""
        vit = self.embeddings
        if vit.pos_embed is None:
            return None, None
        num_prefix_tokens = 0 if vit.no_embed_class else vit.num_prefix_tokens
        prefix, patches = vit.pos_embed.tensor_split([num_prefix_tokens], dim=1)
        patches = resize_positions(patches, vit.patch_embed.grid_size, grid, self.antialias)
        return prefix if num_prefix_tokens else None, patches

    def run(self, tokens: torch.Tensor, context: TokenGrid, start: int, stop: int) -> torch.Tensor:
        """Blocks `start` to `stop - 1`: (batch, prefix + height * width, hidden_size) -> the same shape."""
        for layer in self.layers[start:stop]:
            tokens = layer(tokens, context)
        return tokens

    def load_pretrained(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Load weights under timm's own names. The final norm and the classifier, which a trunk has not, are left out.

        Raises:
            RuntimeError: a weight of the trunk is missing, unexpected or of another shape; the message names it.
        """
        unused = ("norm.", "fc_norm.", "head.", "attn_pool.")
        weights = {self.key_of(key): value for key, value in state_dict.items() if not key.startswith(unused)}
        self.load_state_dict(weights, strict=True)

    @staticmethod
    def key_of(timm_key: str) -> str:
        """Our name of a timm weight: `blocks.3.norm1.weight` -> `layers.3.block.norm1.weight`."""
        if not timm_key.startswith("blocks."):
            return f"embeddings.{timm_key}"
        _, index, name = timm_key.split(".", 2)
        return f"layers.{index}.block.{name}"
