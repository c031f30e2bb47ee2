"""Trunks of timm: `VisionTransformer`, `Eva` and `Beit`."""

import json
from collections.abc import Mapping
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import timm
import torch
from timm.layers import (
    Attention,
    LayerScale,
    PatchEmbed,
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    freq_bands,
)
from timm.layers.pos_embed_sincos import init_random_2d_freqs
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Block as BeitBlock
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch import nn
from transformers import initialization as init
from transformers.models.vitdet.modeling_vitdet import VitDetResBottleneckBlock

from .own_forwards import give_forward
from .relative_positions import RelativePositionBias
from .timm_embeddings import PREFIX_TOKENS, RotaryPositions, TimmEmbeddings
from .timm_layers import CalledProjection, TimmBeitLayer, TimmTrunkLayer, TimmViT
from .trunk_parts import (
    PATCH_SIZE,
    PositionedGrid,
    TokenGrid,
    Trunk,
    TrunkFacts,
    TrunkOptions,
    UnsupportedTrunk,
    check_weights,
    fit_patch_kernel,
    patch_grid,
)


SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
"""timm's and BEiT's name of a table that all blocks share."""


class TimmVisionTransformerTrunk(Trunk):
    """A timm `VisionTransformer` (DeiT, AugReg, MAE, DINO, DINOv2, CLIP, SigLIP, ...) as a trunk.

    `embeddings` is timm's model without its blocks, final norm and head; `layers` are its blocks.
    """

    models: ClassVar[str] = "DeiT, AugReg, MAE, DINOv2, CLIP, SigLIP, ..."
    """Names that people know models of this class by."""
    layers_name = "layers"
    antialiases = takes_windows = takes_residual_blocks = True
    no_split_modules = ("TimmEmbeddings", "TimmTrunkLayer")
    undecayed: ClassVar[tuple[str, ...]] = ("pos_embed", *PREFIX_TOKENS)
    unused: ClassVar[tuple[str, ...]] = ("norm.", "fc_norm.", "head.", "head_dist.", "attn_pool.")
    """Parts of a pretrained model that a trunk has not."""
    model_args: ClassVar[dict[str, Any]] = {}
    """Arguments for `timm.create_model` that the trunk needs, whatever the config says."""

    layers: nn.ModuleList
    embeddings: nn.Module

    @classmethod
    def facts_of(cls, vit: TimmViT, family: str) -> TrunkFacts:
        """Facts of timm's model, which may be on the meta device."""
        return TrunkFacts(
            family=family,
            hidden_size=vit.embed_dim,
            num_hidden_layers=len(vit.blocks),
            grid_size=vit.patch_embed.grid_size,
            num_prefix_tokens=vit.num_prefix_tokens,
            antialias=cls.antialiases,
        )

    def __init__(self, config: TrunkOptions) -> None:
        super().__init__(config)
        size = {"img_size": tuple(config.image_size), "patch_size": PATCH_SIZE}
        arguments = config.trunk_model_args | size | self.model_args
        model = timm.create_model(config.trunk_config.architecture, pretrained=False, **arguments)
        vit = cast(TimmViT, model)
        self.built_empty = vit.patch_embed.proj.weight.is_meta
        vit.prune_intermediate_layers(1, prune_norm=True, prune_head=True)
        self.num_prefix_tokens = vit.num_prefix_tokens if config.use_prefix_tokens else 0
        self.layers = nn.ModuleList(self.build_layer(config, vit, index) for index in range(len(vit.blocks)))
        vit.blocks = nn.Sequential()
        # Images of any size: timm's own check of theirs would tie a compiled graph to one.
        vit.patch_embed.img_size = None
        give_forward(model, TimmEmbeddings)
        if getattr(vit, "rope", None) is not None:
            give_forward(cast(nn.Module, vit.rope), RotaryPositions)
        self.embeddings = model
        self.antialias = config.position_embedding_antialias
        self.hidden_size, self.num_layers = vit.embed_dim, len(self.layers)

    def build_layer(self, config: TrunkOptions, vit: TimmViT, index: int) -> TimmTrunkLayer:
        block, window_size = vit.blocks[index], window_size_of(config, index)
        attention = getattr(block, "attn", None)
        if isinstance(attention, EvaAttention) and attention.q_bias is not None:
            give_forward(attention, CalledProjection)
        if window_size and (type(block), type(attention)) != (Block, Attention):
            raise ValueError(
                f"window_sizes needs timm's Block with its Attention, got {type(block).__name__} with "
                f"{type(attention).__name__} in block {index}."
            )
        return TimmTrunkLayer(block, window_size, residual_of(config, index))

    @property
    def vit(self) -> TimmViT:
        return cast(TimmViT, self.embeddings)

    @property
    def input_embeddings(self) -> nn.Module:
        return self.vit.patch_embed

    def initialize(self, module: nn.Module) -> None:
        if self.built_empty:
            fill_vectors(module)
        # Buffers that no checkpoint holds: after the meta device they are empty.
        getattr(module, "init_non_persistent_buffers", partial(self.rebuild_buffers, module))()
        if module is self.embeddings:
            self.initialize_embeddings()
        elif isinstance(module, LayerScale):
            init.constant_(module.gamma, module.init_values)
        elif isinstance(module, VitDetResBottleneckBlock):
            init.zeros_(module.norm3.weight)

    def rebuild_buffers(self, module: nn.Module) -> None:
        """What a module's `init_non_persistent_buffers` does, which the oldest timm that we run with has not yet."""

    def initialize_embeddings(self) -> None:
        vit = self.vit
        init.trunc_normal_(vit.patch_embed.proj.weight, std=0.02)
        if vit.pos_embed is not None:
            init.trunc_normal_(vit.pos_embed, std=0.02)
        for name in PREFIX_TOKENS:
            if (token := getattr(vit, name, None)) is not None:
                init.normal_(token, std=1e-6)

    def set_attn_implementation(self, attn_implementation: str | None) -> None:
        """Let timm's attention run fused, or step by step for "eager", which is what shows its weights."""
        fused = attn_implementation != "eager"
        for layer in self.layers:
            attention: Any = getattr(layer.block, "attn", layer.block)  # a parallel block is its own attention
            if attention.fused_attn != fused:
                attention.fused_attn = fused

    def embed(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, PositionedGrid]:
        """(batch, channels, H, W), H and W multiples of 16 -> tokens (batch, prefix + H/16 * W/16, hidden_size)."""
        grid = patch_grid(pixel_values)
        tokens, rotary = self.embeddings(pixel_values, grid, self.num_prefix_tokens > 0, self.antialias)
        return tokens, self.context(grid, rotary)

    def context(self, grid: TokenGrid, rotary: torch.Tensor | None) -> PositionedGrid:
        """What the blocks need to know of an image, computed once for all of them."""
        return PositionedGrid(*grid, rotary)

    def block_positions(self, context: PositionedGrid, index: int) -> torch.Tensor | None:
        """What of the context block `index` takes beside its tokens."""
        return None

    def run(self, tokens: torch.Tensor, context: PositionedGrid, start: int, stop: int) -> torch.Tensor:
        """Blocks `start` to `stop - 1`: (batch, prefix + height * width, hidden_size) -> the same shape."""
        grid = TokenGrid(context.height, context.width)
        for index in range(start, stop):
            tokens = self.layers[index](tokens, grid, self.block_positions(context, index))
        return tokens

    def convert_pretrained(
        self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi"
    ) -> dict[str, torch.Tensor]:
        """See `Trunk`. A final norm and a classifier, which a trunk has not, are left out."""
        weights = {self.key_of(key): value for key, value in state_dict.items() if not key.startswith(self.unused)}
        kernel = "embeddings.patch_embed.proj.weight"
        if kernel in weights:
            weights[kernel] = fit_patch_kernel(weights[kernel], self.num_channels, patch_resample)
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

    models = "DINOv3, EVA-02, PE"
    takes_windows = False
    undecayed = TimmVisionTransformerTrunk.undecayed + ("freqs",)
    # timm's rotary embedding keeps that of one grid unless the image size is dynamic.
    model_args = {"dynamic_img_size": True}

    def initialize(self, module: nn.Module) -> None:
        super().initialize(module)
        if isinstance(module, EvaBlock):
            initialize_gammas(module)
        elif isinstance(module, RotaryEmbeddingMixed) and self.built_empty:
            head_dim = module.dim // module.num_heads
            sizes = head_dim, module.depth, module.num_heads
            init.copy_(module.freqs, init_random_2d_freqs(*sizes, temperature=module.temperature, rotate=False))

    def rebuild_buffers(self, module: nn.Module) -> None:
        if isinstance(module, EvaAttention) and module.k_bias is not None:
            init.zeros_(module.k_bias)
        elif isinstance(module, RotaryEmbeddingDinoV3):
            init.copy_(module.get_buffer("periods"), module._compute_periods())
        elif isinstance(module, RotaryEmbeddingCat):
            init.copy_(module.get_buffer("bands"), freq_bands(module.dim // 4, temperature=module.temperature, step=1))

    def build_layer(self, config: TrunkOptions, vit: TimmViT, index: int) -> TimmTrunkLayer:
        cast(EvaBlock, vit.blocks[index]).attn.num_prefix_tokens = self.num_prefix_tokens
        return super().build_layer(config, vit, index)

    def block_positions(self, context: PositionedGrid, index: int) -> torch.Tensor | None:
        """(height * width, 2 * head_dim), or with one embedding a block (heads, height * width, 2 * head_dim)."""
        has_one_a_block = getattr(self.embeddings, "rope_mixed", False)
        positions = cast(torch.Tensor | None, context.positions)
        return positions[index] if positions is not None and has_one_a_block else positions


class TimmBeitTrunk(TimmVisionTransformerTrunk):
    """A timm `Beit` (BEiT, BEiT v2) as a trunk, with weights of timm or of BEiT's own code.

    Relative position tables are resized for the grid of the image; those of blocks with windows are of their windows.
    Without prefix tokens there are no class token and no rows of it in the tables: so is the official code's BEiT.
    """

    models = "BEiT, BEiT v2"
    no_split_modules = ("TimmEmbeddings", "TimmBeitLayer")
    undecayed = TimmVisionTransformerTrunk.undecayed + ("table",)
    unused = TimmVisionTransformerTrunk.unused + ("mask_token", "lm_head.", "cls_pt_layers.")

    def __init__(self, config: TrunkOptions) -> None:
        super().__init__(config)
        vit, shared = self.vit, self.vit.rel_pos_bias
        self.shared_bias = None
        if shared is not None:
            num_heads = shared.relative_position_bias_table.shape[1]
            self.shared_bias = RelativePositionBias(vit.patch_embed.grid_size, num_heads, self.num_prefix_tokens)
            vit.rel_pos_bias = None
        if not self.num_prefix_tokens:
            vit.cls_token = None
            if vit.pos_embed is not None:
                vit.pos_embed = nn.Parameter(vit.pos_embed[:, 1:].detach().clone())

    def initialize(self, module: nn.Module) -> None:
        super().initialize(module)
        if isinstance(module, BeitBlock):
            initialize_gammas(module)
        elif isinstance(module, RelativePositionBias):
            init.zeros_(module.table)

    def rebuild_buffers(self, module: nn.Module) -> None:
        if isinstance(module, BeitAttention) and module.k_bias is not None:
            init.zeros_(module.k_bias)

    def build_layer(self, config: TrunkOptions, vit: TimmViT, index: int) -> TimmBeitLayer:
        block, window_size, bias = cast(BeitBlock, vit.blocks[index]), window_size_of(config, index), None
        if block.attn.q_bias is not None:
            give_forward(block.attn, CalledProjection)
        if block.attn.relative_position_bias_table is not None:
            window = (window_size, window_size) if window_size else vit.patch_embed.grid_size
            bias = RelativePositionBias(window, block.attn.num_heads, self.num_prefix_tokens)
            # The table is ours from here: the block's own attention knows no grid but the pretrained one.
            block.attn.register_parameter("relative_position_bias_table", None)
            block.attn.relative_position_index = None
        return TimmBeitLayer(block, window_size, residual_of(config, index), bias)

    def context(self, grid: TokenGrid, rotary: torch.Tensor | None) -> PositionedGrid:
        return PositionedGrid(*grid, self.shared_bias(grid) if self.shared_bias is not None else None)

    def block_positions(self, context: PositionedGrid, index: int) -> torch.Tensor | None:
        return cast(torch.Tensor | None, context.positions)

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


def window_size_of(config: TrunkOptions, index: int) -> int:
    return config.window_sizes[index] if config.window_sizes else 0


def residual_of(config: TrunkOptions, index: int) -> VitDetResBottleneckBlock | None:
    if index not in config.residual_block_indexes:
        return None
    size = config.hidden_size
    return VitDetResBottleneckBlock(SimpleNamespace(hidden_act="gelu"), size, size, size // 2)


def fill_vectors(module: nn.Module) -> None:
    """First values of vectors, where timm's own got lost with the meta device: norms, biases beside layers, scales.

    They are no random ones. What else is initialised, by its module's kind, comes after these.
    """
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim <= 1 and name == "weight":
            init.ones_(parameter)
        elif parameter.ndim <= 1:
            init.zeros_(parameter)


def initialize_gammas(block: EvaBlock | BeitBlock) -> None:
    value = getattr(block, "init_values", None)
    for gamma in (block.gamma_1, block.gamma_2):
        if gamma is not None and value is not None:
            init.constant_(gamma, value)


TIMM_TRUNKS: dict[str, type[TimmVisionTransformerTrunk]] = {
    "VisionTransformer": TimmVisionTransformerTrunk,
    "VisionTransformerDistilled": TimmVisionTransformerTrunk,
    "Eva": TimmEvaTrunk,
    "Beit": TimmBeitTrunk,
}
"""Trunk of each class of timm models."""


@lru_cache(maxsize=32)
def timm_facts(architecture: str, model_args: str) -> TrunkFacts:
    """Facts of a timm model, read from the model itself, built without memory on the meta device.

    Args:
        model_args: arguments for `timm.create_model`, as JSON.
    """
    if not timm.is_model(architecture):
        raise ValueError(
            f"timm {timm.__version__} has no model {architecture!r}; timm.list_models('vit_*') lists them."
        )
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture, pretrained=False, **json.loads(model_args))
    except (TypeError, ValueError, AssertionError, AttributeError, RuntimeError) as error:
        raise UnsupportedTrunk(
            f"trunk_config.architecture {architecture!r} cannot be built with the arguments {model_args}, "
            f"{type(error).__name__}: {error}"
        ) from error
    if reason := why_not_plain(model):
        raise UnsupportedTrunk(f"trunk_config.architecture {architecture!r} {reason}")
    return TIMM_TRUNKS[type(model).__name__].facts_of(cast(TimmViT, model), type(model).__name__)


def why_not_plain(model: nn.Module) -> str | None:
    """What keeps a timm model from being a trunk, or None."""
    kind, patch_embed = type(model), getattr(model, "patch_embed", None)
    if not kind.__module__.startswith("timm.") or kind.__name__ not in TIMM_TRUNKS:
        return f"is a {kind.__name__}, not a plain ViT that can be a trunk"
    if type(patch_embed) is not PatchEmbed:
        return f"has a {type(patch_embed).__name__} stem and not one convolution that makes the patches"
    if len(set(patch_embed.patch_size)) > 1:
        return f"has patches of {patch_embed.patch_size} pixels, which are not square"
    return None
