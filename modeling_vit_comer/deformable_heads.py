"""transformers' own heads on our kernel: Deformable DETR, RT-DETR, Grounding DINO, Mask2Former, D-FINE and others.

Their multi-scale deformable attention comes in three forms, and each module is switched in place, by itself:

- a layer `MultiScaleDeformableAttention` (Deformable DETR, RT-DETR, Grounding DINO, LW-DETR, ...): its `forward`;
- a `forward` that calls a function of its file (Mask2Former, OneFormer, RT-DETRv2): the same code, which finds ours
  under that function's name;
- a function held as an attribute (D-FINE, DEIMv2): the attribute.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from types import FunctionType
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from .kernel_choice import kernel_for, loaded_kernels


Attention = Callable[..., torch.Tensor]
LevelSizes = Sequence[tuple[int, int]]

ATTRIBUTE = "ms_deformable_attn_core"
# x and y of a sample outside every level: it counts as zero, and the kernel skips it.
OUTSIDE = -1.0


def attend(
    value: torch.Tensor,
    level_sizes: LevelSizes,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    original: Callable[[], torch.Tensor],
) -> torch.Tensor:
    """Multi-scale deformable attention by the kernel that fits, or by `original` where none does.

    Args:
        value: (batch, tokens, heads, head_dim), level after level.
        level_sizes: height and width of each level.
        sampling_locations: (batch, queries, heads, levels, points, 2), x and y from 0 to 1 across the level.
        attention_weights: (batch, queries, heads, levels, points), after the softmax.
        original: transformers' own computation of the same.

    Returns:
        (batch, queries, heads * head_dim) in the dtype of `value`. The kernel's arithmetic is in float32, or float64.
    """
    kernel = kernel_for(value.device, value.dtype)
    if kernel is None:
        return original()
    dtype = torch.promote_types(value.dtype, torch.float32)
    flat_sizes = [side for size in level_sizes for side in size]
    return kernel.multi_scale_deformable_attention(
        value, sampling_locations.to(dtype), attention_weights.to(dtype), flat_sizes
    )


def layer_forward(
    original: Attention,
    layer: nn.Module,
    value: torch.Tensor,
    value_spatial_shapes: torch.Tensor,
    value_spatial_shapes_list: LevelSizes,
    level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    im2col_step: int,
) -> torch.Tensor:
    """In place of `MultiScaleDeformableAttention.forward`: tensors as in `attend`."""
    samples = sampling_locations, attention_weights
    shapes = value_spatial_shapes, value_spatial_shapes_list, level_start_index
    fallback = partial(original, layer, value, *shapes, *samples, im2col_step)
    return attend(value, value_spatial_shapes_list, *samples, fallback)


def attention(
    original: Attention,
    value: torch.Tensor,
    value_spatial_shapes: LevelSizes,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
) -> torch.Tensor:
    """In place of `multi_scale_deformable_attention` of Mask2Former and OneFormer: tensors as in `attend`."""
    inputs = value, value_spatial_shapes, sampling_locations, attention_weights
    return attend(*inputs, partial(original, *inputs))


def attention_v2(
    original: Attention,
    value: torch.Tensor,
    value_spatial_shapes: LevelSizes,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    num_points_list: list[int],
    method: str = "default",
) -> torch.Tensor:
    """In place of `multi_scale_deformable_attention_v2` of RT-DETRv2, D-FINE and DEIMv2.

    Args:
        value: as in `attend`.
        sampling_locations: (batch, queries, heads, samples, 2); the samples of all levels one after another.
        attention_weights: (batch, queries, heads, samples).
        num_points_list: samples of each level. Published D-FINE models have [3, 6, 3].
        method: "discrete" reads the nearest pixel, which no kernel does.
    """
    inputs = value, value_spatial_shapes, sampling_locations, attention_weights
    fallback = partial(original, *inputs, num_points_list, method)
    if method != "default":
        return fallback()
    locations = split_levels(sampling_locations, num_points_list, OUTSIDE)
    weights = split_levels(attention_weights[..., None], num_points_list, 0.0).squeeze(-1)
    return attend(value, value_spatial_shapes, locations, weights, fallback)


def split_levels(samples: torch.Tensor, num_points: list[int], fill: float) -> torch.Tensor:
    """(..., samples, size) -> (..., levels, points, size), levels with fewer points than others filled up."""
    points = max(num_points)
    if points == min(num_points):
        return samples.unflatten(-2, (len(num_points), points))
    levels = samples.split(num_points, dim=-2)
    return torch.stack([F.pad(level, (0, 0, 0, points - level.shape[-2]), value=fill) for level in levels], dim=-3)


STAND_INS: dict[str, Attention] = {
    "multi_scale_deformable_attention": attention,
    "multi_scale_deformable_attention_v2": attention_v2,
}


@cache
def kernel_forward(layer_class: type[nn.Module]) -> Callable[..., Any] | None:
    """The `forward` of a transformers class with our attention in it, None where the class has none that we know."""
    forward = getattr(layer_class, "forward", None)
    if not isinstance(forward, FunctionType) or not (forward.__module__ or "").startswith("transformers.models."):
        return None
    if forward.__qualname__ == "MultiScaleDeformableAttention.forward":
        return partial(layer_forward, forward)
    names = STAND_INS.keys() & set(forward.__code__.co_names) & forward.__globals__.keys()
    if not names:
        return None
    scope = forward.__globals__ | {name: partial(STAND_INS[name], forward.__globals__[name]) for name in names}
    # torch.compile (torch 2.11 and 2.13) looks globals up in the module of that name, where the original still is.
    del scope["__name__"]
    function = FunctionType(forward.__code__, scope, forward.__name__, forward.__defaults__, forward.__closure__)
    function.__kwdefaults__ = forward.__kwdefaults__
    return function


def forward_for(module: nn.Module) -> Callable[..., Any] | None:
    return kernel_forward(type(module))  # type: ignore[arg-type]  # mypy holds the class to the hash of its modules


class KernelForward:
    """The `forward` of one module, with the kernel. A bound method would come out of a pickle as the original."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.function = cast(Callable[..., Any], forward_for(module))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.module, *args, **kwargs)

    def __reduce__(self) -> tuple[type["KernelForward"], tuple[nn.Module]]:
        return KernelForward, (self.module,)


def can_switch(module: nn.Module) -> bool:
    """Whether this is one of the modules above; also if it is switched already."""
    attributes = vars(module)
    if "discrete" in (attributes.get("method"), attributes.get("decoder_method")):
        return False
    function = attributes.get(ATTRIBUTE)
    is_known = is_stand_in(function) or getattr(function, "__name__", None) in STAND_INS
    return is_known or forward_for(module) is not None


def is_stand_in(function: Any) -> bool:
    """Whether this `forward` or function is ours."""
    return isinstance(function, KernelForward) or (
        isinstance(function, partial) and function.func in STAND_INS.values()
    )


def check_forward(name: str, module: nn.Module) -> None:
    forward = vars(module).get("forward")
    if ATTRIBUTE not in vars(module) and forward is not None and not is_stand_in(forward):
        raise ValueError(
            f"The forward of {name!r} ({type(module).__name__}) was already replaced, by {forward!r}. Call "
            "use_kernel_in_heads before anything else that does so: accelerate's hooks, transformers' use_kernels."
        )


def use_kernel_in_heads(model: nn.Module) -> list[str]:
    """Compute the deformable attention of transformers' own heads with our kernel, wherever one fits.

    Modules are switched in place: weights, state dict and everything else stay as they are, and other models are not
    touched. Which kernel runs, if any, is what `use_deformable_attention_kernel` says at each call; where none fits,
    transformers' own computation runs. Calling this again changes nothing.

    Switch before a compiled model runs for the first time: torch 2.11 does not notice a later switch. Not for
    `nn.DataParallel`, whose replicas share the `forward` of one device: use DistributedDataParallel.

    Args:
        model: any model with a head of transformers in it.

    Returns:
        Names of the modules that are switched.

    Raises:
        ValueError: if nothing in the model can be switched, or something else replaced a `forward`.
    """
    modules = {name: module for name, module in model.named_modules() if can_switch(module)}
    if not modules:
        raise ValueError(
            f"{type(model).__name__} has no deformable attention to switch. Known are the heads of transformers: "
            "Deformable DETR, RT-DETR (v1, v2), Grounding DINO, LW-DETR, RF-DETR, OmDet-Turbo, PP-DocLayout, D-FINE, "
            "DEIMv2, Mask2Former, OneFormer; method 'discrete' of RT-DETRv2, D-FINE and DEIMv2 has no kernel."
        )
    for name, module in modules.items():
        check_forward(name, module)
    loaded_kernels()
    for module in modules.values():
        function = vars(module).get(ATTRIBUTE)
        if is_stand_in(function) or is_stand_in(vars(module).get("forward")):
            continue
        if function is None:
            module.forward = KernelForward(module)
        else:
            setattr(module, ATTRIBUTE, partial(STAND_INS[function.__name__], function))
    return list(modules)


def restore_heads(model: nn.Module) -> list[str]:
    """Undo `use_kernel_in_heads`: names of the modules that compute as transformers wrote them again."""
    names = []
    for name, module in model.named_modules():
        if is_stand_in(vars(module).get("forward")):
            del module.forward
        elif is_stand_in(vars(module).get(ATTRIBUTE)):
            # The stand-in's first argument is the original.
            setattr(module, ATTRIBUTE, vars(module)[ATTRIBUTE].args[0])
        else:
            continue
        names.append(name)
    return names
