"""Trunks of transformers: `vit`, `deit`, `beit`, `dinov2`, `dinov2_with_registers` and `dinov3_vit`."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, cast

import torch
from timm.layers import DropPath
from torch import nn
from transformers import (
    BeitConfig,
    BeitModel,
    DeiTModel,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    PreTrainedConfig,
    PreTrainedModel,
    ViTModel,
)
from transformers.models.beit.modeling_beit import BeitRelativePositionBias

from .own_forwards import give_forward
from .relative_positions import relative_position_bias
from .transformers_embeddings import EmbeddingPlan, PatchEmbeddings, TransformersEmbeddings
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
    pair,
    patch_grid,
)


class TransformersTrunk(Trunk):
    """A ViT of transformers as a trunk: `model` is the library's, without its final norm and pooler.

    Its patch size is 16 and its table of positions has the pretrained grid, whatever the patch size of `trunk_config`.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    model_arguments: ClassVar[dict[str, Any]] = {}
    no_split_modules = ("TransformersEmbeddings",)
    prefix_names: ClassVar[tuple[str, ...]] = ("cls_token",)
    """Prefix tokens in their order; those of `positioned` have a position embedding, the others are registers."""
    positioned: ClassVar[tuple[str, ...]] = ("cls_token",)
    unused: ClassVar[tuple[str, ...]] = ("layernorm.", "norm.", "pooler.", "embeddings.mask_token")
    undecayed: ClassVar[tuple[str, ...]] = (
        "position_embeddings",
        "cls_token",
        "distillation_token",
        "register_tokens",
    )

    model: PreTrainedModel

    @classmethod
    def facts_of(cls, trunk_config: PreTrainedConfig) -> TrunkFacts:
        """Facts of a config of the library.

        Raises:
            ValueError: its patches are not square.
        """
        image_size, patch_size = (pair(getattr(trunk_config, name)) for name in ("image_size", "patch_size"))
        if patch_size[0] != patch_size[1]:
            raise ValueError(f"trunk_config has patches of {patch_size} pixels, which must be square.")
        return TrunkFacts(
            family=trunk_config.model_type,
            hidden_size=trunk_config.hidden_size,
            num_hidden_layers=trunk_config.num_hidden_layers,
            grid_size=(image_size[0] // patch_size[0], image_size[1] // patch_size[1]),
            num_prefix_tokens=len(cls.positioned) + getattr(trunk_config, "num_register_tokens", 0),
            antialias=cls.antialiases,
        )

    def __init__(self, config: TrunkOptions) -> None:
        super().__init__(config)
        trunk_config = config_of_trunk(config)
        self.model = self.model_class(trunk_config, **self.model_arguments)
        for name in ("layernorm", "norm"):
            if hasattr(self.model, name):
                setattr(self.model, name, nn.Identity())
        hide_mask_token(self.model.get_submodule("embeddings"))
        give_forward(self.model.get_submodule("embeddings"), TransformersEmbeddings)
        if not isinstance(self.input_embeddings, nn.Conv2d):
            give_forward(self.input_embeddings, PatchEmbeddings)
        self.grid_size = config.trunk_facts.grid_size
        self.antialias = config.position_embedding_antialias
        self.hidden_size, self.num_layers = config.hidden_size, len(self.layers)
        self.num_prefix_tokens = config.trunk_facts.num_prefix_tokens if config.use_prefix_tokens else 0
        for index, layer in enumerate(self.layers):
            set_drop_path(layer, config.drop_path_rate * index / max(self.num_layers - 1, 1))

    @property
    def layers(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.get_submodule(self.layers_name))

    @property
    def input_embeddings(self) -> nn.Module:
        return self.model.get_submodule("embeddings.patch_embeddings")

    def initialize(self, module: nn.Module) -> None:
        """Nothing: the library's model is one of transformers itself, which initialises all that is in it."""

    def set_attn_implementation(self, attn_implementation: str | None) -> None:
        """The attention function that all layers look up in their config: "sdpa" or "eager"."""
        if self.model.config._attn_implementation != (attn_implementation or "sdpa"):
            self.model.config._attn_implementation = attn_implementation or "sdpa"

    def embed(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, PositionedGrid]:
        """(batch, channels, H, W), H and W multiples of 16 -> tokens (batch, prefix + H/16 * W/16, hidden_size)."""
        grid = patch_grid(pixel_values)
        names = self.prefix_names if self.num_prefix_tokens else ()
        plan = EmbeddingPlan(grid, self.grid_size, names, len(self.positioned), self.antialias)
        return self.model.get_submodule("embeddings")(pixel_values, plan), self.context(grid, pixel_values)

    def context(self, grid: TokenGrid, pixel_values: torch.Tensor) -> PositionedGrid:
        """What the blocks need to know of an image, computed once for all of them."""
        return PositionedGrid(*grid)

    def run_layer(self, layer: nn.Module, tokens: torch.Tensor, context: PositionedGrid) -> torch.Tensor:
        return layer(tokens)

    def run(self, tokens: torch.Tensor, context: PositionedGrid, start: int, stop: int) -> torch.Tensor:
        """Blocks `start` to `stop - 1`: (batch, prefix + height * width, hidden_size) -> the same shape."""
        layers = self.layers
        for index in range(start, stop):
            tokens = self.run_layer(layers[index], tokens, context)
        return tokens

    def convert_pretrained(
        self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi"
    ) -> dict[str, torch.Tensor]:
        """Weights under the names of the library's model, alone or with a head on it, which is left out, as this
        trunk's.

        Args:
            patch_resample: how a patch kernel of another size becomes 16 x 16, "pi" or "bilinear".

        Raises:
            ValueError: a weight of the trunk is missing, unexpected or of another shape; the message names it.
        """
        prefix = f"{self.model.base_model_prefix}."
        if any(key.startswith(f"{prefix}embeddings.") for key in state_dict):
            state_dict = {key.removeprefix(prefix): state_dict[key] for key in state_dict if key.startswith(prefix)}
        weights = {f"model.{key}": value for key, value in state_dict.items() if not key.startswith(self.unused)}
        kernels = ("model.embeddings.patch_embeddings.weight", "model.embeddings.patch_embeddings.projection.weight")
        for key in weights.keys() & set(kernels):
            weights[key] = fit_patch_kernel(weights[key], self.num_channels, patch_resample)
        check_weights(weights, self)
        return weights


class ViTTrunk(TransformersTrunk):
    model_class, layers_name = ViTModel, "model.layers"
    model_arguments = {"add_pooling_layer": False}


class DeiTTrunk(TransformersTrunk):
    """The distillation token is a prefix token."""

    model_class, layers_name = DeiTModel, "model.layers"
    model_arguments = {"add_pooling_layer": False}
    prefix_names = positioned = ("cls_token", "distillation_token")


class Dinov2Trunk(TransformersTrunk):
    model_class, layers_name = Dinov2Model, "model.encoder.layer"


class Dinov2WithRegistersTrunk(TransformersTrunk):
    model_class, layers_name = Dinov2WithRegistersModel, "model.encoder.layer"
    prefix_names = ("cls_token", "register_tokens")
    antialiases = True


class DINOv3ViTTrunk(TransformersTrunk):
    """Its rotary position embedding is computed for the grid of the image; prefix tokens are not rotated."""

    model_class, layers_name = DINOv3ViTModel, "model.model.layer"
    prefix_names = ("cls_token", "register_tokens")
    model: DINOv3ViTModel

    def context(self, grid: TokenGrid, pixel_values: torch.Tensor) -> PositionedGrid:
        return PositionedGrid(*grid, self.model.rope_embeddings(pixel_values))

    def run_layer(self, layer: nn.Module, tokens: torch.Tensor, context: PositionedGrid) -> torch.Tensor:
        return layer(tokens, position_embeddings=context.positions)


class BeitTrunk(TransformersTrunk):
    """Relative position tables are resized for the grid of the image as BEiT's own code does, geometrically."""

    model_class, layers_name = BeitModel, "model.layers"
    model_arguments = {"add_pooling_layer": False}
    undecayed = TransformersTrunk.undecayed + ("relative_position_bias_table",)
    model: BeitModel

    def __init__(self, config: TrunkOptions) -> None:
        super().__init__(config)
        tables = [(layer, "relative_position_bias") for layer in self.layers]
        for parent, name in [*tables, (self.model, "shared_position_bias")]:
            if getattr(parent, name) is not None:
                setattr(parent, name, BeitGeometricBias(self.model.config, self.num_prefix_tokens))

    def context(self, grid: TokenGrid, pixel_values: torch.Tensor) -> PositionedGrid:
        shared = self.model.shared_position_bias
        return PositionedGrid(*grid, shared(tuple(grid)) if shared is not None else None)

    def run_layer(self, layer: nn.Module, tokens: torch.Tensor, context: PositionedGrid) -> torch.Tensor:
        resolution = (context.height * PATCH_SIZE, context.width * PATCH_SIZE)
        return layer(tokens, context.positions, resolution=resolution)


class BeitGeometricBias(BeitRelativePositionBias):
    """transformers' table, with another way to resize it and with or without the rows of the class token."""

    def __init__(self, config: BeitConfig, num_prefix_tokens: int) -> None:
        super().__init__(config)
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, window_size: tuple[int, int], *_: Any, **__: Any) -> torch.Tensor:
        """(1, heads, tokens, tokens) for the tokens of a window of that height and width."""
        table = self.relative_position_bias_table
        return relative_position_bias(table, self.window_size, window_size, self.num_prefix_tokens)


def config_of_trunk(config: TrunkOptions) -> PreTrainedConfig:
    """`trunk_config` with patches of 16 x 16 and the image size that has the pretrained grid of them."""
    trunk_config = deepcopy(config.trunk_config)
    trunk_config.num_channels = config.num_channels
    trunk_config.patch_size = PATCH_SIZE
    height, width = config.image_size
    trunk_config.image_size = height if height == width else [height, width]
    for name, value in (("drop_path_rate", 0.0), ("use_mask_token", False)):
        if hasattr(trunk_config, name):
            setattr(trunk_config, name, value)
    return trunk_config


def hide_mask_token(embeddings: nn.Module) -> None:
    """The mask token of pre-training is no weight of a trunk: a parameter without gradient would stop DDP."""
    mask_token = getattr(embeddings, "mask_token", None)
    if mask_token is not None:
        del embeddings.mask_token
        # Still there, because the library's own initialisation fills it.
        embeddings.register_buffer("mask_token", mask_token.detach(), persistent=False)


def set_drop_path(layer: nn.Module, rate: float) -> None:
    """Stochastic depth of both branches of a layer, in place of the library's or where it has none."""
    if hasattr(layer, "drop_path"):
        layer.drop_path = DropPath(rate)
    else:
        # ViT's and DeiT's layers have a dropout at the very end of both branches.
        layer.dropout = nn.Sequential(layer.get_submodule("dropout"), DropPath(rate))


TRANSFORMERS_TRUNKS: dict[str, type[TransformersTrunk]] = {
    "vit": ViTTrunk,
    "deit": DeiTTrunk,
    "beit": BeitTrunk,
    "dinov2": Dinov2Trunk,
    "dinov2_with_registers": Dinov2WithRegistersTrunk,
    "dinov3_vit": DINOv3ViTTrunk,
}
"""Trunk of each `model_type`."""


def transformers_facts(trunk_config: PreTrainedConfig) -> TrunkFacts:
    """Facts of the trunk that a config of transformers describes."""
    if trunk_config.model_type not in TRANSFORMERS_TRUNKS:
        raise UnsupportedTrunk(f"trunk_config has model_type {trunk_config.model_type!r}")
    return TRANSFORMERS_TRUNKS[trunk_config.model_type].facts_of(trunk_config)
