"""What torch needs to know of the operators beside their code: shapes for tracing, and gradients."""

from typing import Any

import torch

from ._ops import add_op_namespace_prefix, ops


def check_same_device(first: torch.Tensor, *others: torch.Tensor) -> None:
    """What the code for a device checks is not checked for meta tensors: a mixture would pass as meta."""
    for other in others:
        if other.device != first.device:
            raise RuntimeError(f"comer_msda: inputs must be on one device, got {first.device} and {other.device}")


def fused_fake(
    value: torch.Tensor, projection: torch.Tensor, level_sizes: list[int], heads: int, points: int
) -> torch.Tensor:
    check_same_device(value, projection)
    return value.new_empty(value.shape)


def fused_backward_fake(
    grad_output: torch.Tensor,
    value: torch.Tensor,
    projection: torch.Tensor,
    level_sizes: list[int],
    heads: int,
    points: int,
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    check_same_device(value, projection, grad_output)
    return value.new_empty(value.shape), projection.new_empty(projection.shape)


def classic_fake(
    value: torch.Tensor, sampling_locations: torch.Tensor, attention_weights: torch.Tensor, level_sizes: list[int]
) -> torch.Tensor:
    check_same_device(value, sampling_locations, attention_weights)
    batch, _, heads, head_dim = value.shape
    return value.new_empty(batch, sampling_locations.shape[1], heads * head_dim)


def classic_backward_fake(
    grad_output: torch.Tensor,
    value: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    level_sizes: list[int],
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    inputs = (value, sampling_locations, attention_weights)
    check_same_device(grad_output, *inputs)
    return tuple(tensor.new_empty(tensor.shape) for tensor in inputs)


def keep_fused_inputs(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    value, projection, *ctx.sizes = inputs
    ctx.save_for_backward(value, projection)


def fused_gradients(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    grad_value, grad_projection = ops.comer_msda_backward(grad_output, *ctx.saved_tensors, *ctx.sizes, deterministic)
    return grad_value, grad_projection, None, None, None


def keep_classic_inputs(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    *tensors, ctx.level_sizes = inputs
    ctx.save_for_backward(*tensors)


def classic_gradients(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    gradients = ops.multi_scale_deformable_attention_backward(
        grad_output, *ctx.saved_tensors, ctx.level_sizes, deterministic
    )
    return *gradients, None


def no_second_derivative(ctx: Any, *gradients: torch.Tensor) -> None:
    raise RuntimeError("comer_msda: the gradients of the deformable attention cannot be differentiated again")


def has_cuda() -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(add_op_namespace_prefix("comer_msda"), "CUDA")


def register() -> None:
    fakes = {
        "comer_msda": fused_fake,
        "comer_msda_backward": fused_backward_fake,
        "multi_scale_deformable_attention": classic_fake,
        "multi_scale_deformable_attention_backward": classic_backward_fake,
    }
    for name, fake in fakes.items():
        torch.library.register_fake(add_op_namespace_prefix(name), fake)
    autograd = {
        "comer_msda": (fused_gradients, keep_fused_inputs),
        "comer_msda_backward": (no_second_derivative, None),
        "multi_scale_deformable_attention": (classic_gradients, keep_classic_inputs),
        "multi_scale_deformable_attention_backward": (no_second_derivative, None),
    }
    for name, (gradients, keep_inputs) in autograd.items():
        torch.library.register_autograd(add_op_namespace_prefix(name), gradients, setup_context=keep_inputs)
