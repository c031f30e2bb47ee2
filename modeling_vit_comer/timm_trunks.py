"""Trunks of timm: `VisionTransformer`, `Eva` and `Beit`; and what they share with the other libraries' trunks."""

from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import NamedTuple

import timm
import torch
from timm.layers import Attention, RotaryEmbeddingCat, RotaryEmbeddingDinoV3, freq_bands, resample_patch_embed
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import gen_relative_position_index
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.vitdet.modeling_vitdet import (
    VitDetResBottleneckBlock,
    window_partition,
    window_unpartition,
)

from .configuration_vit_comer import PATCH_SIZE, ViTCoMerConfig
from .spatial_pyramid import to_map, to_tokens


PATCH_RESAMPLINGS = ("pi", "bilinear")

CLASS_ROWS = 3
"""Last rows of a BEiT's relative position table: from the class token, to it, and from it to itself."""

SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
"""timm's and BEiT's name of a table that all blocks share."""


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


def relative_position_bias(
    table: torch.Tensor, old_window: tuple[int, int], new_window: tuple[int, int], num_prefix_tokens: int
) -> torch.Tensor:
    """Bias of the attention logits of a window (Bao et al. 2021, arXiv 2106.08254).

    Args:
        table: ((2 * old height - 1) * (2 * old width - 1) [+ 3], heads).
        num_prefix_tokens: 1 with a class token, whose rows are the table's last three; 0 without.

    Returns:
        (1, heads, tokens, tokens), with `num_prefix_tokens` + new height * width tokens.
    """
    table = resize_relative_table(table, old_window, new_window)
    index = gen_relative_position_index(new_window).to(table.device)
    first = 1 - num_prefix_tokens
    # (tokens, tokens, heads) -> (1, heads, tokens, tokens)
    return F.embedding(index[first:, first:], table).permute(2, 0, 1).contiguous().unsqueeze(0)


def resize_relative_table(
    table: torch.Tensor, old_window: tuple[int, int], new_window: tuple[int, int]
) -> torch.Tensor:
    """A relative position table for another window; rows of a class token stay as they are."""
    if tuple(old_window) == tuple(new_window):
        return table
    old_size, new_size = ([2 * side - 1 for side in window] for window in (old_window, new_window))
    num_offsets = old_size[0] * old_size[1]
    dtype = torch.promote_types(table.dtype, torch.float32)
    height, width = (geometric_weights(*sizes).to(table.device, dtype) for sizes in zip(old_size, new_size))
    offsets = table[:num_offsets].to(dtype).unflatten(0, old_size)
    # (new height, old height), (new width, old width), (old height, old width, heads) -> (new height * width, heads)
    resized = torch.einsum("yi,xj,ijh->yxh", height, width, offsets).flatten(0, 1)
    return torch.cat([resized.to(table.dtype), table[num_offsets:]])


def geometric_weights(old_size: int, new_size: int) -> torch.Tensor:
    """Weights (new_size, old_size) of linear interpolation between offsets in geometric progression.

    Both sizes are odd, with offset 0 in the middle. The old offsets are spread over the new ones with steps that grow
    by a constant ratio, so that near offsets keep their values: what BEiT does for a larger image, and timm's
    `resize_rel_pos_bias_table` after it, whose numbers these are.
    """
    half, new_half = old_size // 2, new_size // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > new_half:
            high = ratio
        else:
            low = ratio
    distances = [sum(ratio**k for k in range(step)) for step in range(1, half + 1)]
    old = torch.tensor([-distance for distance in reversed(distances)] + [0.0] + distances)
    new = torch.arange(-new_half, new_half + 1, dtype=old.dtype)
    right = torch.bucketize(new, old).clamp(max=old_size - 1)
    left = (right - 1).clamp(min=0)
    share = ((new - old[left]) / (old[right] - old[left]).clamp(min=1e-6)).clamp(0, 1)[:, None]
    return F.one_hot(left, old_size) * (1 - share) + F.one_hot(right, old_size) * share


class RelativePositionBias(nn.Module):
    """A relative position table that gives its bias for any window."""

    def __init__(self, window: tuple[int, int], num_heads: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.window, self.num_prefix_tokens = tuple(window), num_prefix_tokens
        num_rows = (2 * window[0] - 1) * (2 * window[1] - 1) + CLASS_ROWS * num_prefix_tokens
        self.table = nn.Parameter(torch.zeros(num_rows, num_heads))

    def forward(self, window: tuple[int, int]) -> torch.Tensor:
        """(1, heads, tokens, tokens) for the tokens of a window of that height and width."""
        return relative_position_bias(self.table, self.window, window, self.num_prefix_tokens)

    def fit(self, table: torch.Tensor) -> torch.Tensor:
        """A pretrained table of a square window as this one, see `fit_relative_table`."""
        return (
            table
            if table.shape == self.table.shape
            else fit_relative_table(table, self.window, self.num_prefix_tokens)
        )


def fit_relative_table(table: torch.Tensor, window: tuple[int, int], num_prefix_tokens: int) -> torch.Tensor:
    """A pretrained table of a square window for another window, with or without the rows of a class token.

    Raises:
        ValueError: its number of rows is that of no square window, or it has no rows of the class token to keep.
    """
    num_rows = table.shape[0]
    side = (round(num_rows**0.5) + 1) // 2
    num_offsets = (2 * side - 1) ** 2
    if num_rows not in (num_offsets, num_offsets + CLASS_ROWS):
        raise ValueError(
            f"A relative position table has {num_rows} rows: not (2 * side - 1) ** 2 of a square window, with or "
            f"without the {CLASS_ROWS} rows of the class token."
        )
    if num_prefix_tokens and num_rows == num_offsets:
        raise ValueError(
            f"A relative position table has {num_rows} rows, none of the class token: use_prefix_tokens=False."
        )
    return resize_relative_table(table if num_prefix_tokens else table[:num_offsets], (side, side), window)


def rebuild_buffers(module: nn.Module) -> None:
    """Compute the buffers of a timm module that no checkpoint holds: after the meta device they are empty.

    timm's modules have a method for that, which the oldest timm that we run with has not yet.
    """
    if hasattr(module, "init_non_persistent_buffers"):
        module.init_non_persistent_buffers()
    elif isinstance(module, (EvaAttention, BeitAttention)) and module.k_bias is not None:
        init.zeros_(module.k_bias)
    elif isinstance(module, RotaryEmbeddingDinoV3):
        init.copy_(module.periods, module._compute_periods())
    elif isinstance(module, RotaryEmbeddingCat):
        init.copy_(module.bands, freq_bands(module.dim // 4, temperature=module.temperature, step=1))


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
        block = self.block
        attended = window_attention(block.attn, block.norm1(tokens), grid, self.window_size)
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
        block, size = self.block, self.window_size
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


class PretrainedTrunk(nn.Module):
    """A trunk that takes its library's weights, by a `convert_pretrained` of its own."""

    def load_pretrained(self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi") -> None:
        """Load weights under the library's names. See `convert_pretrained`."""
        self.load_state_dict(self.convert_pretrained(state_dict, patch_resample))


class TimmVisionTransformerTrunk(PretrainedTrunk):
    """A timm `VisionTransformer` (DeiT, AugReg, MAE, DINO, DINOv2, CLIP, SigLIP, ...) as a trunk.

    `embeddings` is timm's model without its blocks, final norm and head; `layers` are its blocks.
    """

    unused = ("norm.", "fc_norm.", "head.", "head_dist.", "attn_pool.")
    """Parts of a pretrained model that a trunk has not."""

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__()
        vit = timm.create_model(config.trunk_config.architecture, pretrained=False, **config.trunk_build_args)
        vit.prune_intermediate_layers(1, prune_norm=True, prune_head=True)
        self.num_prefix_tokens = vit.num_prefix_tokens if config.use_prefix_tokens else 0
        self.layers = nn.ModuleList(self.build_layer(config, vit, index) for index in range(len(vit.blocks)))
        vit.blocks = nn.Sequential()
        self.embeddings = vit
        self.antialias = config.position_embedding_antialias
        self.hidden_size, self.num_layers, self.patch_size = vit.embed_dim, len(self.layers), PATCH_SIZE

    def build_layer(self, config: ViTCoMerConfig, vit: nn.Module, index: int) -> TimmTrunkLayer:
        block, window_size = vit.blocks[index], window_size_of(config, index)
        attention = getattr(block, "attn", None)
        if window_size and (type(block), type(attention)) != (Block, Attention):
            raise ValueError(
                f"window_sizes needs timm's Block with its Attention, got {type(block).__name__} with "
                f"{type(attention).__name__} in block {index}."
            )
        return TimmTrunkLayer(block, window_size, residual_of(config, index))

    @property
    def input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embed

    def set_attn_implementation(self, attn_implementation: str | None) -> None:
        """Let timm's attention run fused, or step by step for "eager", which is what shows its weights."""
        fused = attn_implementation != "eager"
        for layer in self.layers:
            attention = getattr(layer.block, "attn", layer.block)  # a parallel block is its own attention
            if attention.fused_attn != fused:
                attention.fused_attn = fused

    def embed(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, TokenGrid | PositionedGrid]:
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
        tokens = vit.pos_drop(tokens)
        return (vit.norm_pre(tokens) if hasattr(vit, "norm_pre") else tokens), self.context(grid)

    def prefix_tokens(self) -> torch.Tensor:
        """Class, distillation and register tokens: (1, prefix, hidden_size)."""
        tokens = [getattr(self.embeddings, name, None) for name in ("cls_token", "dist_token", "reg_token")]
        return torch.cat([token for token in tokens if token is not None], dim=1)

    def positions(self, grid: TokenGrid) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Position embeddings of the prefix tokens and, resized to `grid`, of the patch tokens."""
        vit = self.embeddings
        if vit.pos_embed is None:
            return None, None
        num_patches = vit.patch_embed.grid_size[0] * vit.patch_embed.grid_size[1]
        prefix, patches = vit.pos_embed.tensor_split([vit.pos_embed.shape[1] - num_patches], dim=1)
        patches = resize_positions(patches, vit.patch_embed.grid_size, grid, self.antialias)
        return prefix if prefix.shape[1] else None, patches

    def context(self, grid: TokenGrid) -> TokenGrid | PositionedGrid:
        """What the blocks need to know of an image, computed once for all of them."""
        return grid

    def block_positions(self, context: TokenGrid | PositionedGrid, index: int) -> torch.Tensor | None:
        """What of the context block `index` takes beside its tokens."""
        return None

    def run(self, tokens: torch.Tensor, context: TokenGrid | PositionedGrid, start: int, stop: int) -> torch.Tensor:
        """Blocks `start` to `stop - 1`: (batch, prefix + height * width, hidden_size) -> the same shape."""
        grid = TokenGrid(context.height, context.width)
        for index in range(start, stop):
            tokens = self.layers[index](tokens, grid, self.block_positions(context, index))
        return tokens

    def convert_pretrained(
        self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi"
    ) -> dict[str, torch.Tensor]:
        """Weights under timm's names as this trunk's. A final norm and a classifier, which it has not, are left out.

        Args:
            patch_resample: how a patch kernel of another size becomes 16 x 16, "pi" or "bilinear".

        Raises:
            ValueError: a weight of the trunk is missing, unexpected or of another shape; the message names it.
        """
        weights = {self.key_of(key): value for key, value in state_dict.items() if not key.startswith(self.unused)}
        kernel = "embeddings.patch_embed.proj.weight"
        if kernel in weights:
            weights[kernel] = resample_patch_kernel(weights[kernel], patch_resample)
        check_weights(weights, self)
        return weights

    @staticmethod
    def key_of(timm_key: str) -> str:
        """Our name of a timm weight: `blocks.3.norm1.weight` -> `layers.3.block.norm1.weight`."""
        if not timm_key.startswith("blocks."):
            return f"embeddings.{timm_key}"
        _, index, name = timm_key.split(".", 2)
        return f"layers.{index}.block.{name}"


class TimmEvaTrunk(TimmVisionTransformerTrunk):
    """A timm `Eva` (DINOv3, EVA, EVA-02, Perception Encoder, RoPE-ViT, Sapiens2) as a trunk.

    Its rotary position embedding is computed for the grid of the image; prefix tokens are not rotated.
    """

    def build_layer(self, config: ViTCoMerConfig, vit: nn.Module, index: int) -> TimmTrunkLayer:
        vit.blocks[index].attn.num_prefix_tokens = self.num_prefix_tokens
        return super().build_layer(config, vit, index)

    def context(self, grid: TokenGrid) -> PositionedGrid:
        rope = self.embeddings.rope
        return PositionedGrid(*grid, rope.get_embed(shape=list(grid)) if rope is not None else None)

    def block_positions(self, context: PositionedGrid, index: int) -> torch.Tensor | None:
        """(height * width, 2 * head_dim), or with one embedding a block (heads, height * width, 2 * head_dim)."""
        has_one_a_block = getattr(self.embeddings, "rope_mixed", False)
        return context.positions[index] if has_one_a_block else context.positions


class TimmBeitTrunk(TimmVisionTransformerTrunk):
    """A timm `Beit` (BEiT, BEiT v2) as a trunk, with weights of timm or of BEiT's own code.

    Relative position tables are resized for the grid of the image; those of blocks with windows are of their windows.
    Without prefix tokens there are no class token and no rows of it in the tables: so is the official code's BEiT.
    """

    unused = TimmVisionTransformerTrunk.unused + ("mask_token", "lm_head.", "cls_pt_layers.")

    def __init__(self, config: ViTCoMerConfig) -> None:
        super().__init__(config)
        vit, shared = self.embeddings, self.embeddings.rel_pos_bias
        self.shared_bias = None
        if shared is not None:
            num_heads = shared.relative_position_bias_table.shape[1]
            self.shared_bias = RelativePositionBias(vit.patch_embed.grid_size, num_heads, self.num_prefix_tokens)
            vit.rel_pos_bias = None
        if not self.num_prefix_tokens:
            vit.cls_token = None
            if vit.pos_embed is not None:
                vit.pos_embed = nn.Parameter(vit.pos_embed[:, 1:].detach().clone())

    def build_layer(self, config: ViTCoMerConfig, vit: nn.Module, index: int) -> TimmBeitLayer:
        block, window_size, bias = vit.blocks[index], window_size_of(config, index), None
        if block.attn.relative_position_bias_table is not None:
            window = (window_size, window_size) if window_size else vit.patch_embed.grid_size
            bias = RelativePositionBias(window, block.attn.num_heads, self.num_prefix_tokens)
            # The table is ours from here: the block's own attention knows no grid but the pretrained one.
            block.attn.relative_position_bias_table = block.attn.relative_position_index = None
        return TimmBeitLayer(block, window_size, residual_of(config, index), bias)

    def context(self, grid: TokenGrid) -> PositionedGrid:
        return PositionedGrid(*grid, self.shared_bias(grid) if self.shared_bias is not None else None)

    def block_positions(self, context: PositionedGrid, index: int) -> torch.Tensor | None:
        return context.positions

    def convert_pretrained(
        self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi"
    ) -> dict[str, torch.Tensor]:
        weights = {key: value for key, value in state_dict.items() if not key.endswith("relative_position_index")}
        modules = self.named_modules()
        tables = {timm_table_key(name): module for name, module in modules if isinstance(module, RelativePositionBias)}
        if SHARED_TABLE in weights and not tables.keys() & weights.keys():
            # As BEiT's own code: a table that pre-training shared is the start of each block's own.
            weights |= dict.fromkeys(tables, weights.pop(SHARED_TABLE))
        weights |= {key: tables[key].fit(weights[key]) for key in tables.keys() & weights.keys()}
        if not self.num_prefix_tokens:
            weights.pop("cls_token", None)
            weights = {key: value[:, 1:] if key == "pos_embed" else value for key, value in weights.items()}
        return super().convert_pretrained(weights, patch_resample)

    @staticmethod
    def key_of(timm_key: str) -> str:
        key = TimmVisionTransformerTrunk.key_of(timm_key)
        key = key.replace("block.attn.relative_position_bias_table", "relative_position_bias.table")
        return key.replace(f"embeddings.{SHARED_TABLE}", "shared_bias.table")


def timm_table_key(name: str) -> str:
    """timm's name of the table of our module: `layers.3.relative_position_bias`, or the one that is shared."""
    if name == "shared_bias":
        return SHARED_TABLE
    return f"blocks.{name.split('.')[1]}.attn.relative_position_bias_table"


def window_size_of(config: ViTCoMerConfig, index: int) -> int:
    return config.window_sizes[index] if config.window_sizes else 0


def residual_of(config: ViTCoMerConfig, index: int) -> VitDetResBottleneckBlock | None:
    if index not in config.residual_block_indexes:
        return None
    size = config.hidden_size
    return VitDetResBottleneckBlock(SimpleNamespace(hidden_act="gelu"), size, size, size // 2)


TIMM_TRUNKS = {
    "VisionTransformer": TimmVisionTransformerTrunk,
    "VisionTransformerDistilled": TimmVisionTransformerTrunk,
    "Eva": TimmEvaTrunk,
    "Beit": TimmBeitTrunk,
}
"""Trunk of each class of timm models."""
