"""What is asked of a trunk, and what those of all libraries share: positions for another grid, pretrained weights."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import nn
from torch.nn import functional as F

from .spatial_pyramid import to_map, to_tokens


PATCH_SIZE = 16
"""Stride of the trunk's tokens, in pixels. A patch kernel of another size is resampled when weights are loaded."""

PATCH_RESAMPLINGS = ("pi", "bilinear")

RGB = 3
"""Channels of the images of nearly all pretrained models, from which a patch kernel can be adapted to others."""


class UnsupportedTrunk(ValueError):
    """No trunk of this library's. Who knows all libraries adds what is supported."""


class TrunkFacts(NamedTuple):
    """What the config and the model need to know of a trunk before it is built."""

    family: str
    """timm's class, or transformers' `model_type`."""
    hidden_size: int
    num_hidden_layers: int
    grid_size: tuple[int, int]
    """Patches of the image that it was trained on."""
    num_prefix_tokens: int
    antialias: bool
    """Whether its own library antialiases when it resizes position embeddings."""


class TrunkOptions(Protocol):
    """What a trunk reads of a [`ViTCoMerConfig`], which itself asks the trunks for their facts."""

    @property
    def trunk_config(self) -> Any:
        """Of the pretrained model, by its own library."""

    @property
    def trunk_facts(self) -> TrunkFacts: ...

    @property
    def trunk_model_args(self) -> dict[str, Any]:
        """Arguments for `timm.create_model` beside the architecture's name."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def num_channels(self) -> int: ...

    @property
    def image_size(self) -> Sequence[int]:
        """Height and width that have the pretrained grid of patches of 16 x 16 pixels."""

    @property
    def use_prefix_tokens(self) -> bool: ...

    @property
    def window_sizes(self) -> Sequence[int] | None: ...

    @property
    def residual_block_indexes(self) -> Sequence[int]: ...

    @property
    def position_embedding_antialias(self) -> bool: ...

    @property
    def drop_path_rate(self) -> float: ...


class TokenGrid(NamedTuple):
    """Height and width of the patch tokens' grid."""

    height: int
    width: int


class PositionedGrid(NamedTuple):
    """Context of the trunk's blocks: the grid, and what `embed` has made for it of those that take positions."""

    height: int
    width: int
    positions: torch.Tensor | tuple[torch.Tensor, ...] | None = None


class Trunk(nn.Module, ABC):
    """A plain ViT, called part by part: one class for each signature of a library's blocks.

    `context` is what `embed` knows of an image beside its tokens and `run` needs again; its `height` and `width` are
    the grid of the patch tokens, which come last. A patch is 16 x 16 pixels.
    """

    layers_name: ClassVar[str]
    """Path of the list of blocks inside the trunk."""
    antialiases: ClassVar[bool] = False
    """Whether its own library antialiases when it resizes position embeddings."""
    takes_windows: ClassVar[bool] = False
    takes_residual_blocks: ClassVar[bool] = False
    no_split_modules: ClassVar[tuple[str, ...]] = ()
    """Classes of blocks that stay on one device, where the library's own model does not name them."""
    undecayed: ClassVar[tuple[str, ...]]
    """Last parts of the names of tokens and of tables of positions: no weight decay, whatever their dimensions."""

    hidden_size: int
    num_layers: int
    num_channels: int
    num_prefix_tokens: int
    patch_size: int = PATCH_SIZE

    @abstractmethod
    def __init__(self, config: TrunkOptions) -> None:
        """The trunk of a config, with the weights of its library's initialisation."""
        super().__init__()
        self.num_channels = config.num_channels

    @property
    @abstractmethod
    def input_embeddings(self) -> nn.Module:
        """The module that makes tokens of patches."""

    @abstractmethod
    def initialize(self, module: nn.Module) -> None:
        """Give one module of the model its first weights and buffers, as far as only this family knows them."""

    @abstractmethod
    def set_attn_implementation(self, attn_implementation: str | None) -> None:
        """Run attention fused ("sdpa", None) or step by step ("eager")."""

    @abstractmethod
    def embed(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, PositionedGrid]:
        """(batch, channels, H, W), H and W multiples of 16 -> tokens (batch, prefix + H/16 * W/16, hidden_size),
        contiguous, with their positions; and the context."""

    @abstractmethod
    def run(self, tokens: torch.Tensor, context: PositionedGrid, start: int, stop: int) -> torch.Tensor:
        """Blocks `start` to `stop - 1`: (batch, prefix + height * width, hidden_size) -> the same shape."""

    @abstractmethod
    def convert_pretrained(
        self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi"
    ) -> dict[str, torch.Tensor]:
        """Weights under the library's own names as this trunk's, none of them copied but a resampled one.

        Args:
            patch_resample: how a patch kernel of another size becomes 16 x 16, "pi" or "bilinear".

        Raises:
            ValueError: a weight of the trunk is missing, unexpected or of another shape; the message names it.
        """

    def forward(
        self, inputs: torch.Tensor, context: PositionedGrid | None = None, start: int = 0, stop: int = 0
    ) -> tuple[torch.Tensor, PositionedGrid]:
        """One part of the way, as a call: what hooks, gathers or offloads a trunk sees each.

        Args:
            inputs: pixel values for `embed`; or with a context tokens for `run`.
        """
        if context is None:
            return self.embed(inputs)
        return self.run(inputs, context, start, stop), context

    def load_pretrained(self, state_dict: Mapping[str, torch.Tensor], patch_resample: str = "pi") -> None:
        """Load weights under the library's own names. See `convert_pretrained`."""
        self.load_state_dict(self.convert_pretrained(state_dict, patch_resample))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that no weight decay may pull to zero, beside vectors and scalars."""
        names = (name for name, parameter in self.named_parameters() if parameter.ndim > 1)
        return {name for name in names if name.split(".")[-1] in self.undecayed}


def image_size(pixel_values: torch.Tensor) -> tuple[int, int]:
    """Height and width of images (batch, channels, H, W), as numbers also while `torch.jit.trace` records."""
    height, width = pixel_values.shape[-2:]
    if not torch.jit.is_tracing():
        return height, width
    with warnings.catch_warnings():
        # That a number stays what it is in the graph is what `keep_size` sees to.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(height), int(width)


def keep_size(pixel_values: torch.Tensor) -> torch.Tensor:
    """The images; in a graph that `torch.jit.trace` records, an error for images of another size than the traced.

    Grids, positions and samples follow from the size by numbers, which such a graph keeps. Its batch is free.
    """
    if not torch.jit.is_tracing():
        return pixel_values
    height, width = image_size(pixel_values)
    return pixel_values.unflatten(-1, (width,)).unflatten(-2, (height,))


def patch_grid(pixel_values: torch.Tensor) -> TokenGrid:
    """The grid of patches of images (batch, channels, H, W), as the patch convolution counts them."""
    # In a graph of dynamic sizes no other formula is known to be the same.
    height, width = ((side - PATCH_SIZE) // PATCH_SIZE + 1 for side in image_size(pixel_values))
    return TokenGrid(height, width)


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


def fit_patch_kernel(kernel: torch.Tensor, num_channels: int, method: str) -> torch.Tensor:
    """A pretrained patch kernel (hidden_size, channels, patch, patch) as (hidden_size, num_channels, 16, 16).

    Channels are adapted as timm does: those of R, G, B are repeated and scaled, or summed for one.

    Args:
        method: see `resample_patch_kernel`.

    Raises:
        ValueError: the kernel has another number of channels than three, and it is not `num_channels`.
    """
    channels = kernel.shape[1]
    if num_channels != channels:
        if channels != RGB:
            raise ValueError(
                f"The pretrained patch embedding takes images of {channels} channels, and num_channels is "
                f"{num_channels}: only one of {RGB} channels can be adapted. Leave num_channels out, or set it to "
                f"{channels}."
            )
        kernel = adapt_input_conv(num_channels, kernel)
    return resample_patch_kernel(kernel, method)


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


def pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Height and width, of both or of one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
