"""What only a GPU can show: real sizes on all queries, streams, graph capture, sizes beyond int32.

The operators' other tests run on the GPU too, by the `device` fixture: opcheck, gradcheck, errors, extreme numbers.
"""

from types import ModuleType

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


pytestmark = pytest.mark.gpu

POINTS = 4


@pytest.fixture
def cuda(kernel: ModuleType) -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if "cuda" not in kernel.DEVICE_TYPES:
        pytest.skip("there is no CUDA build: `make kernel` where nvcc is")
    return torch.device("cuda")


def fused_call(
    cuda: torch.device, size: str, image: tuple[int, int], dtype: torch.dtype = torch.float32, batch: int = 1
) -> tuple[list[torch.Tensor], list[int], int, int]:
    """Arguments of `comer_msda`: leaves, the same numbers for every dtype, no sample where a derivative jumps."""
    heads, head_dim = SIZES[size]
    level_sizes = pyramid(*image)
    value, projection = random_inputs(level_sizes, heads, head_dim, POINTS, batch, torch.bfloat16)
    # Centres of pixels are at multiples of 1/8 from a token's own: float32 must see on which side a sample lies.
    offsets = projection[..., : heads * 3 * POINTS * 2]
    offsets += ((8 * offsets - (8 * offsets).round()).abs() < 0.01) / 16
    return [x.to(cuda, dtype).requires_grad_() for x in (value, projection)], level_sizes, heads, POINTS


def with_gradients(
    kernel: ModuleType, inputs: list[torch.Tensor], *sizes: object, cotangent: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """Output and gradients of `comer_msda`."""
    output = kernel.comer_msda(*inputs, *sizes)
    if cotangent is None:
        generator = torch.Generator(output.device).manual_seed(1)
        cotangent = torch.randn(output.shape, generator=generator, device=output.device).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, inputs, cotangent)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("image", IMAGES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_output_and_gradients_at_real_sizes(
    kernel: ModuleType, cuda: torch.device, size: str, image: tuple[int, int], dtype: torch.dtype
) -> None:
    inputs, *sizes = fused_call(cuda, size, image, dtype)
    exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
    exact_output = fused_reference(*exact_inputs, *sizes)
    cotangent = torch.randn_like(exact_output).to(dtype)
    exact = [exact_output.detach(), *torch.autograd.grad(exact_output, exact_inputs, cotangent.double())]
    for x, y in zip(with_gradients(kernel, inputs, *sizes, cotangent=cotangent), exact):
        assert x.dtype == dtype
        assert relative_error(x, y.cpu()) <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("queries", [300, 13294])
def test_classic_operator_at_the_size_of_deformable_detr(
    kernel: ModuleType, cuda: torch.device, queries: int, dtype: torch.dtype
) -> None:
    level_sizes = [100, 100, 50, 50, 25, 25, 13, 13]
    value, *sampling = random_classic_inputs(level_sizes, 8, 32, POINTS, queries, batch=2)
    # Samples at eighths of a pixel, and never on a pixel's centre: float32 places them exactly as float64 does.
    sizes = torch.tensor([[[width, height]] for height, width in zip(level_sizes[::2], level_sizes[1::2])])
    sampling[0] = (sampling[0] * sizes * 4).round() / 4 / sizes + 0.125 / sizes
    inputs = [x.to(cuda, t).requires_grad_() for x, t in zip((value, *sampling), (dtype, *2 * [torch.float32]))]
    exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
    output = kernel.multi_scale_deformable_attention(*inputs, level_sizes)
    exact_output = classic_reference(*exact_inputs, level_sizes)
    cotangent = torch.randn_like(output)
    ours = [output.detach(), *torch.autograd.grad(output, inputs, cotangent)]
    exact = [exact_output.detach(), *torch.autograd.grad(exact_output, exact_inputs, cotangent.double())]
    for x, y in zip(ours, exact):
        assert relative_error(x, y.cpu()) <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", [*TOLERANCES, torch.float64], ids=str)
def test_deterministic_gradients(kernel: ModuleType, cuda: torch.device, dtype: torch.dtype) -> None:
    """Bit-equal over five runs, and equal to the normal ones up to rounding."""
    call = fused_call(cuda, "S", (512, 512), dtype, batch=2)
    normal = with_gradients(kernel, *call)
    torch.use_deterministic_algorithms(True)
    try:
        runs = [with_gradients(kernel, *call) for _ in range(5)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(x, y) for run in runs[1:] for x, y in zip(runs[0], run))
    rounding = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
    assert relative_error(runs[0][1], normal[1].cpu().double()) <= rounding
    assert all(torch.equal(x, y) for x, y in zip(runs[0][2:], normal[2:]))


def test_deterministic_gradient_with_nan_is_nan(kernel: ModuleType, cuda: torch.device) -> None:
    inputs, *sizes = fused_call(cuda, "T", (512, 512))
    with torch.no_grad():
        inputs[1][0, 7, 5] = torch.nan
    torch.use_deterministic_algorithms(True)
    try:
        _, grad_value, grad_projection = with_gradients(kernel, inputs, *sizes)
    finally:
        torch.use_deterministic_algorithms(False)
    assert grad_value.isnan().all()
    assert grad_projection.isnan().sum() <= grad_projection.shape[-1]


@pytest.mark.parametrize("batch", [1, 3, 65])
def test_images_of_a_batch_are_independent(kernel: ModuleType, cuda: torch.device, batch: int) -> None:
    inputs, *sizes = fused_call(cuda, "S", (512, 512), torch.bfloat16, batch)
    cotangent = torch.randn_like(inputs[0])
    together = with_gradients(kernel, inputs, *sizes, cotangent=cotangent)
    for image in {0, batch // 2, batch - 1}:
        own = slice(image, image + 1)
        one = [x.detach()[own].requires_grad_() for x in inputs]
        output, grad_value, grad_projection = with_gradients(kernel, one, *sizes, cotangent=cotangent[own])
        assert torch.equal(together[0][own], output)
        assert torch.equal(together[2][own], grad_projection)
        assert relative_error(together[1][own], grad_value.cpu().double()) <= 8e-3


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_memory_without_alignment(kernel: ModuleType, cuda: torch.device, dtype: torch.dtype) -> None:
    """Contiguous inputs that begin one element behind an allocation: no 16-byte accesses there."""
    inputs, *sizes = fused_call(cuda, "S", (256, 256), dtype)
    shifted = [torch.cat([x.detach().new_zeros(1), x.detach().flatten()])[1:].view(x.shape) for x in inputs]
    assert all(x.is_contiguous() and x.data_ptr() % 16 for x in shifted)
    expected = with_gradients(kernel, inputs, *sizes)
    found = with_gradients(kernel, [x.requires_grad_() for x in shifted], *sizes)
    for x, y in zip(found, expected):
        assert relative_error(x, y.cpu().double()) <= TOLERANCES[dtype]


def test_runs_on_the_current_stream(kernel: ModuleType, cuda: torch.device) -> None:
    """A kernel on any other stream would read the zeros before the late copy has filled them."""
    inputs, *sizes = fused_call(cuda, "S", (512, 512))
    expected = with_gradients(kernel, inputs, *sizes)
    late = [torch.zeros_like(x) for x in inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        for x, y in zip(late, inputs):
            x.detach().copy_(y.detach())
        found = with_gradients(kernel, [x.requires_grad_() for x in late], *sizes)
    stream.synchronize()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[2], expected[2])
    assert relative_error(found[1], expected[1].cpu().double()) <= 1e-5


@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_graph(kernel: ModuleType, cuda: torch.device, deterministic: bool) -> None:
    """Nothing in the operators waits for the GPU or reads from it: they can be captured."""
    inputs, *sizes = fused_call(cuda, "S", (512, 512))
    value, projection = (x.detach() for x in inputs)
    ops = kernel.layers.ops

    def step() -> tuple[torch.Tensor, ...]:
        output = ops.comer_msda(value, projection, *sizes)
        return output, *ops.comer_msda_backward(output, value, projection, *sizes, deterministic)

    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        step()
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    value.copy_(value.flip(1))
    graph.replay()
    for x, y in zip(captured, step()):
        assert relative_error(x, y.cpu().double()) <= 1e-6


def test_more_than_2_to_31_elements(kernel: ModuleType, cuda: torch.device) -> None:
    image, (heads, head_dim) = (896, 896), SIZES["S"]
    level_sizes = pyramid(*image)
    tokens = num_tokens(level_sizes)
    batch = 2**31 // (tokens * heads * head_dim) + 2
    if torch.cuda.mem_get_info()[0] < 60 * 2**30:
        pytest.skip("needs 60 GB of free GPU memory")
    options = {"dtype": torch.bfloat16, "device": cuda}
    value = torch.randn(batch, tokens, heads * head_dim, **options).requires_grad_()
    projection = torch.randn(batch, tokens, heads * 3 * POINTS * 3, **options).requires_grad_()
    assert value.numel() > 2**31
    cotangent = torch.randn(value.shape, **options)
    sizes = (level_sizes, heads, POINTS)
    together = with_gradients(kernel, [value, projection], *sizes, cotangent=cotangent)
    last = [x.detach()[-1:].requires_grad_() for x in (value, projection)]
    alone = with_gradients(kernel, last, *sizes, cotangent=cotangent[-1:])
    assert torch.equal(together[0][-1:], alone[0])
    assert torch.equal(together[2][-1:], alone[2])
    assert relative_error(together[1][-1:], alone[1].cpu().double()) <= 8e-3
