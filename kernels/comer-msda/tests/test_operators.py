"""The operators against float64, and what torch asks of operators."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch

from reference import (
    IMAGES,
    SIZES,
    TOLERANCES,
    classic_reference,
    fused_reference,
    num_tokens,
    pyramid,
    random_classic_inputs,
    random_inputs,
    relative_error,
)


LEVELS = [8, 12, 4, 6, 2, 3]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("image", IMAGES, ids=str)
def test_accuracy_at_real_sizes(kernel: ModuleType, device: torch.device, image: tuple[int, int], size: str) -> None:
    """Against float64 on the same rounded inputs, for some of the queries."""
    heads, head_dim = SIZES[size]
    level_sizes = pyramid(*image)
    value, projection = random_inputs(level_sizes, heads, head_dim, points=4)
    queries = torch.randperm(num_tokens(level_sizes), generator=torch.Generator().manual_seed(0))[:500]
    for dtype, tolerance in TOLERANCES.items():
        inputs = value.to(dtype), projection.to(dtype)
        exact = fused_reference(*(x.double() for x in inputs), level_sizes, heads, 4, queries)
        output = kernel.comer_msda(*(x.to(device) for x in inputs), level_sizes, heads, 4)
        assert output.dtype == dtype
        assert relative_error(output[:, queries.to(device)], exact) <= tolerance


@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCES])
@pytest.mark.parametrize(
    ("level_sizes", "heads", "head_dim", "points", "batch"),
    [
        (LEVELS, 2, 64, 4, 2),
        (LEVELS, 3, 32, 4, 1),
        (LEVELS, 1, 5, 3, 3),
        (LEVELS, 2, 24, 5, 1),
        (LEVELS, 1, 200, 4, 1),
        ([7, 5], 2, 8, 1, 2),
        ([1, 9, 3, 1, 2, 2, 5, 4], 2, 16, 4, 1),
        ([2, 2] * 8, 1, 16, 32, 1),
    ],
)
def test_fused_forward_and_backward(
    kernel: ModuleType,
    device: torch.device,
    level_sizes: list[int],
    heads: int,
    head_dim: int,
    points: int,
    batch: int,
    dtype: torch.dtype,
) -> None:
    inputs = random_inputs(level_sizes, heads, head_dim, points, batch, dtype)
    check(
        lambda *x: kernel.comer_msda(*x, level_sizes, heads, points),
        lambda *x: fused_reference(*x, level_sizes, heads, points),
        inputs,
        device,
        {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype],
    )


@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCES])
@pytest.mark.parametrize(
    ("level_sizes", "heads", "head_dim", "points", "queries", "batch"),
    [
        ([8, 12, 4, 6, 2, 3, 1, 2], 8, 32, 4, 300, 2),
        (LEVELS, 2, 64, 4, 7, 1),
        (LEVELS, 3, 12, 3, 200, 1),
        ([6, 4], 1, 1, 5, 1, 2),
    ],
)
def test_classic_forward_and_backward(
    kernel: ModuleType,
    device: torch.device,
    level_sizes: list[int],
    heads: int,
    head_dim: int,
    points: int,
    queries: int,
    batch: int,
    dtype: torch.dtype,
) -> None:
    value, *sampling = random_classic_inputs(level_sizes, heads, head_dim, points, queries, batch)
    arithmetic = torch.promote_types(dtype, torch.float32)
    check(
        lambda *x: kernel.multi_scale_deformable_attention(*x, level_sizes),
        lambda *x: classic_reference(*x, level_sizes),
        [value.to(dtype), *(x.to(arithmetic) for x in sampling)],
        device,
        {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}[dtype],
    )


def check(
    ours: Callable[..., torch.Tensor],
    exact: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    device: torch.device,
    tolerance: float,
) -> None:
    """Output and all gradients, against float64 on the same inputs."""
    exact_inputs = [x.double().requires_grad_() for x in inputs]
    inputs = [x.to(device).requires_grad_() for x in inputs]
    output, exact_output = ours(*inputs), exact(*exact_inputs)
    assert output.dtype == inputs[0].dtype
    assert relative_error(output.detach(), exact_output.detach()) <= tolerance
    cotangent = torch.randn_like(exact_output).to(output.dtype)
    gradients = torch.autograd.grad(output, inputs, cotangent.to(device))
    exact_gradients = torch.autograd.grad(exact_output, exact_inputs, cotangent.double())
    for x, gradient, exact_gradient in zip(inputs, gradients, exact_gradients):
        assert gradient.dtype == x.dtype
        assert relative_error(gradient, exact_gradient) <= tolerance


def test_gradcheck(kernel: ModuleType, device: torch.device) -> None:
    level_sizes = [3, 2, 2, 1]
    inputs = [x.to(device).requires_grad_() for x in random_inputs(level_sizes, 2, 4, 2)]
    assert torch.autograd.gradcheck(lambda *x: kernel.comer_msda(*x, level_sizes, 2, 2), inputs)
    inputs = [x.to(device).requires_grad_() for x in random_classic_inputs(level_sizes, 2, 4, 2, queries=3)]
    assert torch.autograd.gradcheck(lambda *x: kernel.multi_scale_deformable_attention(*x, level_sizes), inputs)


def operator_calls(kernel: ModuleType, device: torch.device, dtype: torch.dtype) -> list[tuple[Any, tuple[Any, ...]]]:
    """Each of the four operators with arguments."""
    ops = kernel.layers.ops
    arithmetic = torch.promote_types(dtype, torch.float32)
    value, projection = (x.to(device, dtype) for x in random_inputs(LEVELS, 2, 8, 4, batch=2))
    heads, *sampling = random_classic_inputs(LEVELS, 2, 8, 4, queries=5, batch=2)
    heads, sampling = heads.to(device, dtype), [x.to(device, arithmetic) for x in sampling]
    fused, classic = (value, projection, LEVELS, 2, 4), (heads, *sampling, LEVELS)
    output = torch.randn(2, 5, 16, dtype=dtype, device=device)
    return [
        (ops.comer_msda.default, fused),
        (ops.comer_msda_backward.default, (torch.randn_like(value), *fused, True)),
        (ops.multi_scale_deformable_attention.default, classic),
        (ops.multi_scale_deformable_attention_backward.default, (output, *classic, True)),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(kernel: ModuleType, device: torch.device, dtype: torch.dtype) -> None:
    for operator, arguments in operator_calls(kernel, device, dtype):
        if not operator.name().endswith("backward"):
            arguments = tuple(x.clone().requires_grad_() if isinstance(x, torch.Tensor) else x for x in arguments)
        torch.library.opcheck(operator, arguments)


def test_no_second_derivative(kernel: ModuleType, device: torch.device) -> None:
    """An error, not a wrong gradient."""
    value, projection = (x.to(device).requires_grad_() for x in random_inputs(LEVELS, 2, 8, 4))
    output = kernel.comer_msda(value, projection, LEVELS, 2, 4)
    (gradient,) = torch.autograd.grad(output.square().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()


def test_two_graphs_for_four_image_sizes(kernel: ModuleType, device: torch.device) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    def attend(value: torch.Tensor, projection: torch.Tensor, height: int, width: int) -> torch.Tensor:
        level_sizes = [2 * height, 2 * width, height, width, height // 2, width // 2]
        return kernel.comer_msda(2 * value, projection, level_sizes, 2, 4)

    torch._dynamo.reset()
    compiled = torch.compile(attend, backend=count, fullgraph=True, dynamic=True)
    for height, width in [(4, 4), (6, 8), (10, 6), (2, 12)]:
        level_sizes = [2 * height, 2 * width, height, width, height // 2, width // 2]
        value, projection = (x.float().to(device) for x in random_inputs(level_sizes, 2, 8, 4))
        output = compiled(value, projection, height, width)
        torch.testing.assert_close(output, attend(value, projection, height, width))
    assert len(graphs) <= 2


def test_compiled_training_step(kernel: ModuleType, device: torch.device) -> None:
    """Through the real compiler, with gradients, for two sizes."""
    torch._dynamo.reset()

    def loss(value: torch.Tensor, projection: torch.Tensor, level_sizes: list[int]) -> torch.Tensor:
        return kernel.comer_msda(value.sin(), projection, level_sizes, 2, 4).square().mean()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    for level_sizes in (LEVELS, [4, 4, 2, 2, 1, 1]):
        inputs = [x.float().to(device).requires_grad_() for x in random_inputs(level_sizes, 2, 8, 4)]
        ours = torch.autograd.grad(compiled(*inputs, level_sizes), inputs)
        theirs = torch.autograd.grad(loss(*inputs, level_sizes), inputs)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_backward_is_deterministic(kernel: ModuleType, device: torch.device) -> None:
    """Bit-equal over five runs with torch's switch on; on CPU for any number of threads."""
    inputs = [x.float().to(device).requires_grad_() for x in random_inputs(pyramid(256, 256), 4, 32, 4, batch=2)]
    cotangent = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(0)).to(device)
    threads, runs = torch.get_num_threads(), []
    torch.use_deterministic_algorithms(True)
    try:
        for run in range(5):
            torch.set_num_threads(1 + run % 2)
            output = kernel.comer_msda(*inputs, pyramid(256, 256), 4, 4)
            runs.append([output.detach(), *torch.autograd.grad(output, inputs, cotangent)])
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run))
