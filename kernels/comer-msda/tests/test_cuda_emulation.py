"""The CUDA kernels, run on the CPU by `emulation/`, against float64."""

import ctypes
import itertools
import mmap
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from reference import cell_centres, classic_reference, fused_reference


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
# Largest error over largest number: rounding of the result, and float32 arithmetic before that.
TOLERANCE = {torch.float32: 4e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float64: 1e-12}
GUARD = 0xA5
GUARD_BYTES = 64


class Case(NamedTuple):
    """The sizes of one call. The classic operator has `queries` queries, the fused one as many as tokens."""

    levels: tuple[tuple[int, int], ...]
    heads: int
    head_dim: int
    points: int
    queries: int = 13
    batch: int = 3

    @property
    def level_sizes(self) -> list[int]:
        return list(itertools.chain(*self.levels))

    @property
    def tokens(self) -> int:
        return sum(height * width for height, width in self.levels)

    @property
    def samples(self) -> int:
        return len(self.levels) * self.points

    def numbers(self, queries: int) -> ctypes.Array:
        numbers = [self.batch, queries, self.heads, self.head_dim, self.points, len(self.levels), *self.level_sizes]
        return (ctypes.c_int64 * len(numbers))(*numbers)


# 1 to 4 levels, odd and even numbers of points, one chunk of samples and several, one pass over channels and several.
CASES = [
    Case(((6, 9), (3, 5), (2, 3)), heads=2, head_dim=32, points=4),
    Case(((5, 7),), heads=2, head_dim=64, points=3),
    Case(((4, 4), (2, 2), (1, 1), (3, 8)), heads=2, head_dim=8, points=5),
    Case(((6, 4), (3, 2)), heads=3, head_dim=24, points=1),
    Case(((7, 3), (1, 6), (2, 2)), heads=2, head_dim=5, points=11),
    Case(((4, 5), (2, 3)), heads=1, head_dim=256, points=2),
]
SMALL = Case(((4, 8), (2, 4)), heads=2, head_dim=8, points=2, batch=2)


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy that starts on 64 bytes, as the CUDA allocator's memory does."""
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    assert copy.data_ptr() % 64 == 0
    return copy


def misaligned(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy that starts one element behind an alignment."""
    flat = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    copy = flat[1:].view(tensor.shape)
    return copy.copy_(tensor)


class Output:
    """An array for results with guards at both ends; unwritten elements stay visible."""

    def __init__(self, size: tuple[int, ...], dtype: torch.dtype) -> None:
        num_bytes = torch.Size(size).numel() * dtype.itemsize
        self.memory = torch.full((num_bytes + 2 * GUARD_BYTES,), GUARD, dtype=torch.uint8)
        self.tensor = self.memory[GUARD_BYTES : GUARD_BYTES + num_bytes].view(dtype).view(size)
        self.num_bytes = num_bytes

    def checked(self) -> torch.Tensor:
        ends = torch.cat([self.memory[:GUARD_BYTES], self.memory[GUARD_BYTES + self.num_bytes :]])
        assert (ends == GUARD).all(), "written outside an array"
        return self.tensor.clone()


class Inputs(NamedTuple):
    """Arguments of one of the two operators; `tensors` get gradients."""

    name: str
    tensors: tuple[torch.Tensor, ...]

    @property
    def value(self) -> torch.Tensor:
        return self.tensors[0]

    @property
    def queries(self) -> int:
        return self.tensors[1].shape[1]


class Emulation:
    """The library's functions on tensors. `place` puts inputs into memory."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for name in ("fused_forward", "fused_backward", "classic_forward", "classic_backward", "plan", "mistake"):
            getattr(library, f"emulate_{name}").restype = ctypes.c_char_p
        library.emulated_wide_loads.restype = library.emulated_wide_adds.restype = ctypes.c_int64

    def call(self, name: str, *arguments: object) -> None:
        error = getattr(self.library, f"emulate_{name}")(*arguments)
        if error is not None:
            raise RuntimeError(error.decode())

    def run(self, name: str, dtype: torch.dtype, sizes: ctypes.Array, tensors: list[torch.Tensor], *rest: object):
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        self.call(name, DTYPES.index(dtype), sizes, *pointers, *rest)

    def forward(
        self, case: Case, inputs: Inputs, seed: int = 0, place: Callable[[torch.Tensor], torch.Tensor] = aligned
    ) -> torch.Tensor:
        value = inputs.value
        output = Output((case.batch, inputs.queries, case.heads * case.head_dim), value.dtype)
        tensors = [place(tensor) for tensor in inputs.tensors]
        sizes = case.numbers(inputs.queries)
        self.run(f"{inputs.name}_forward", value.dtype, sizes, [*tensors, output.tensor], ctypes.c_uint64(seed))
        return output.checked()

    def backward(
        self,
        case: Case,
        inputs: Inputs,
        grad_output: torch.Tensor,
        deterministic: bool = False,
        seed: int = 0,
        place: Callable[[torch.Tensor], torch.Tensor] = aligned,
    ) -> list[torch.Tensor]:
        outputs = [Output(tuple(tensor.shape), tensor.dtype) for tensor in inputs.tensors]
        tensors = [place(tensor) for tensor in (grad_output, *inputs.tensors)]
        self.run(
            f"{inputs.name}_backward",
            inputs.value.dtype,
            case.numbers(inputs.queries),
            [*tensors, *(output.tensor for output in outputs)],
            ctypes.c_bool(deterministic),
            ctypes.c_uint64(seed),
        )
        return [output.checked() for output in outputs]

    def plan(self, case: Case, queries: int, fused: bool, backward: bool) -> list[int]:
        """Blocks, threads, bytes of shared memory, lanes of a group, samples of a chunk, height, width of a tile."""
        result = (ctypes.c_int64 * 7)()
        self.call("plan", case.numbers(queries), ctypes.c_bool(fused), ctypes.c_bool(backward), result)
        return list(result)


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    library = tmp_path_factory.mktemp("emulation") / "emulation.so"
    source = Path(__file__).parent / "emulation" / "emulate.cpp"
    headers = Path(torch.__file__).parent / "include"
    # Fortified jumps refuse to change stacks, which is what fibers do.
    flags = ["-O1", "-std=c++20", "-shared", "-fPIC", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"]
    warnings = ["-Wall", "-Wno-unknown-pragmas"]
    command = [compiler, *flags, *warnings, "-isystem", str(headers), str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return Emulation(ctypes.CDLL(str(library)))


def widths_and_heights(case: Case) -> torch.Tensor:
    """(L, 1, xy), to go with locations (..., L, P, xy)."""
    return torch.tensor([[[width, height]] for height, width in case.levels], dtype=torch.float64)


def split_projection(projection: torch.Tensor, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """-> offsets (B, S, heads, L, P, xy), logits (B, S, heads, L * P)."""
    samples = case.heads * case.samples
    offsets, logits = projection.split([2 * samples, samples], dim=-1)
    offsets = offsets.unflatten(-1, (case.heads, len(case.levels), case.points, 2))
    return offsets, logits.unflatten(-1, (case.heads, -1))


def own_pixels(case: Case) -> torch.Tensor:
    """Where each token's own centre lies, in pixels of each level: (S, 1, L, 1, xy)."""
    centres = cell_centres(case.level_sizes, torch.zeros((), dtype=torch.float64))
    return centres[:, None, None, None] * widths_and_heights(case) - 0.5


def reference(case: Case, inputs: Inputs) -> torch.Tensor:
    if inputs.name == "fused":
        return fused_reference(*inputs.tensors, case.level_sizes, case.heads, case.points)
    return classic_reference(*inputs.tensors, case.level_sizes)


def reference_with_gradients(case: Case, inputs: Inputs, grad_output: torch.Tensor) -> list[torch.Tensor]:
    """Output, then the gradients of all inputs."""
    leaves = tuple(tensor.detach().double().requires_grad_() for tensor in inputs.tensors)
    output = reference(case, Inputs(inputs.name, leaves))
    return [output.detach(), *torch.autograd.grad(output, leaves, grad_output.double())]


# Random inputs. Gradients jump where a location crosses a pixel's centre: no sample may lie too near one.


def near_kink(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - pixels.round()).abs() < 2e-3


def fused_inputs(case: Case, dtype: torch.dtype, seed: int = 0) -> Inputs:
    random = torch.Generator().manual_seed(seed)
    value = torch.randn(case.batch, case.tokens, case.heads * case.head_dim, generator=random).to(dtype)
    projection = torch.randn(case.batch, case.tokens, case.heads * case.samples * 3, generator=random) * 1.5
    projection = projection.to(dtype)
    offsets, _ = split_projection(projection, case)
    while (bad := near_kink(offsets.double() + own_pixels(case))).any():
        offsets[bad] += 0.07
    return Inputs("fused", (value, projection))


def classic_inputs(case: Case, dtype: torch.dtype, seed: int = 0) -> Inputs:
    random = torch.Generator().manual_seed(seed)
    arithmetic = torch.promote_types(dtype, torch.float32)
    value = torch.randn(case.batch, case.tokens, case.heads, case.head_dim, generator=random).to(dtype)
    size = (case.batch, case.queries, case.heads, len(case.levels), case.points)
    locations = (torch.rand(*size, 2, generator=random) * 1.6 - 0.3).to(arithmetic)
    while (bad := near_kink(locations.double() * widths_and_heights(case) - 0.5)).any():
        locations[bad] += 0.007
    return Inputs("classic", (value, locations, torch.randn(size, generator=random).to(arithmetic)))


MAKE = {"fused": fused_inputs, "classic": classic_inputs}


def output_gradient(case: Case, inputs: Inputs, seed: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    size = (case.batch, inputs.queries, case.heads * case.head_dim)
    return torch.randn(size, generator=random).to(inputs.value.dtype)


def assert_near(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    error = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.2e}"


def tolerances(inputs: Inputs) -> list[float]:
    """Of the output and of the gradients: locations and weights of the classic operator are never rounded to T."""
    return [TOLERANCE[inputs.value.dtype], *(TOLERANCE[tensor.dtype] for tensor in inputs.tensors)]


@pytest.mark.parametrize("name", ["fused", "classic"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"D{case.head_dim}")
def test_output_and_gradients(emulation: Emulation, case: Case, dtype: torch.dtype, name: str) -> None:
    inputs = MAKE[name](case, dtype)
    grad_output = output_gradient(case, inputs)
    expected = reference_with_gradients(case, inputs, grad_output)
    found = [emulation.forward(case, inputs, seed=3), *emulation.backward(case, inputs, grad_output, seed=3)]
    for one, other, tolerance in zip(found, expected, tolerances(inputs), strict=True):
        assert_near(one, other, tolerance)


@pytest.mark.parametrize("name", ["fused", "classic"])
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_memory_without_alignment(emulation: Emulation, dtype: torch.dtype, name: str) -> None:
    case = CASES[0]
    inputs = MAKE[name](case, dtype)
    grad_output = output_gradient(case, inputs)
    expected = reference_with_gradients(case, inputs, grad_output)
    found = [emulation.forward(case, inputs, place=misaligned)]
    found += emulation.backward(case, inputs, grad_output, place=misaligned)
    for one, other, tolerance in zip(found, expected, tolerances(inputs), strict=True):
        assert_near(one, other, tolerance)
    assert emulation.library.emulated_wide_loads() == 0


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_aligned_rows_are_read_16_bytes_at_a_time(emulation: Emulation, dtype: torch.dtype) -> None:
    inputs = fused_inputs(SMALL, dtype)
    emulation.forward(SMALL, inputs)
    row_bytes = SMALL.head_dim * dtype.itemsize
    rows = 4 * SMALL.batch * SMALL.tokens * SMALL.heads * SMALL.samples
    assert emulation.library.emulated_wide_loads() == rows * row_bytes // 16
    emulation.backward(SMALL, inputs, output_gradient(SMALL, inputs))
    assert emulation.library.emulated_wide_adds() > 0


# Special locations


@pytest.mark.parametrize("name", ["fused", "classic"])
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_locations_on_pixel_centres(emulation: Emulation, dtype: torch.dtype, name: str) -> None:
    """Whole pixels from -2 to size + 1, hence the edges -1 and size, where gradients are one-sided: as grid_sample."""
    inputs = MAKE[name](SMALL, dtype)
    # Powers of two: every step from location to pixel is exact.
    sizes = widths_and_heights(SMALL)
    target = inputs.tensors[1] if name == "classic" else split_projection(inputs.tensors[1], SMALL)[0]
    steps = torch.arange(target.numel() // 2).view(target.shape[:-1])
    widths, heights = sizes.int().unbind(-1)
    pixels = torch.stack([steps % (widths + 4) - 2, steps // 5 % (heights + 4) - 2], dim=-1)
    target.copy_((pixels + 0.5) / sizes if name == "classic" else pixels - own_pixels(SMALL))
    grad_output = output_gradient(SMALL, inputs)
    expected = reference_with_gradients(SMALL, inputs, grad_output)
    found = [emulation.forward(SMALL, inputs), *emulation.backward(SMALL, inputs, grad_output)]
    for one, other, tolerance in zip(found, expected, tolerances(inputs), strict=True):
        assert_near(one, other, tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_far_and_infinite_offsets_sample_zero(emulation: Emulation, dtype: torch.dtype) -> None:
    inputs = fused_inputs(SMALL, dtype)
    far = inputs.tensors[1].clone()
    offsets, _ = split_projection(inputs.tensors[1], SMALL)
    for token, number in enumerate([torch.inf, -torch.inf, torch.finfo(dtype).max, torch.finfo(dtype).min, -1e4, 3e4]):
        offsets[1, token, 0, 1, 0, token % 2] = number
        split_projection(far, SMALL)[0][1, token, 0, 1, 0, token % 2] = 1000.0
    grad_output = output_gradient(SMALL, inputs)
    expected = reference_with_gradients(SMALL, Inputs("fused", (inputs.value, far)), grad_output)
    found = [emulation.forward(SMALL, inputs), *emulation.backward(SMALL, inputs, grad_output)]
    for one, other, tolerance in zip(found, expected, tolerances(inputs), strict=True):
        assert_near(one, other, tolerance)
    grad_offsets, _ = split_projection(found[2], SMALL)
    assert (grad_offsets[1, :6, 0, 1, 0] == 0).all()


@pytest.mark.parametrize("where", ["offset", "logit"])
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_nan_stays_in_its_query_and_head(emulation: Emulation, dtype: torch.dtype, where: str) -> None:
    clean = fused_inputs(SMALL, dtype)
    inputs = Inputs("fused", tuple(tensor.clone() for tensor in clean.tensors))
    offsets, logits = split_projection(inputs.tensors[1], SMALL)
    if where == "offset":
        offsets[1, 7, 1, 0, 1, 0] = torch.nan
    else:
        logits[1, 7, 1, 2] = torch.nan
    output = emulation.forward(SMALL, inputs).unflatten(-1, (SMALL.heads, -1))
    assert output[1, 7, 1].isnan().all()
    expected = emulation.forward(SMALL, clean).unflatten(-1, (SMALL.heads, -1))
    output[1, 7, 1] = expected[1, 7, 1]
    assert torch.equal(output, expected)

    grad_output = output_gradient(SMALL, inputs)
    grad_value, grad_projection = emulation.backward(SMALL, inputs, grad_output)
    _, clean_projection = emulation.backward(SMALL, clean, grad_output)
    changed = (grad_projection != clean_projection).nonzero()
    assert len(changed) > 0 and (changed[:, :2] == torch.tensor([1, 7])).all()
    grad_value = grad_value.unflatten(-1, (SMALL.heads, -1))
    assert grad_value[1, :, 1].isnan().any()
    grad_value[1, :, 1] = 0
    assert grad_value.isfinite().all()


# Gradients of `value` in fixed point


@pytest.mark.parametrize("name", ["fused", "classic"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_deterministic_gradient(emulation: Emulation, dtype: torch.dtype, name: str) -> None:
    case = CASES[0]
    inputs = MAKE[name](case, dtype)
    grad_output = output_gradient(case, inputs)
    normal = emulation.backward(case, inputs, grad_output)
    found = [emulation.backward(case, inputs, grad_output, deterministic=True, seed=seed) for seed in range(4)]
    assert all(torch.equal(one, other) for run in found[1:] for one, other in zip(found[0], run))
    # Sums that fall on either side of a rounding boundary of T differ by one step of it.
    step = {torch.float16: 2**-10, torch.bfloat16: 2**-7}.get(dtype, 0)
    assert_near(found[0][0], normal[0], 1e-6 + step)
    assert all(torch.equal(one, other) for one, other in zip(found[0][1:], normal[1:]))


def test_order_shows_in_the_normal_gradient(emulation: Emulation) -> None:
    """Or the test above would pass for any kernel."""
    inputs = fused_inputs(CASES[0], torch.float32)
    grad_output = output_gradient(CASES[0], inputs)
    first, second = (emulation.backward(CASES[0], inputs, grad_output, seed=seed)[0] for seed in (0, 1))
    assert not torch.equal(first, second)
    assert_near(first, second, 1e-6)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1.0, 1e15, 1e25])
@pytest.mark.parametrize("name", ["fused", "classic"])
def test_deterministic_gradient_of_any_size(emulation: Emulation, name: str, scale: float) -> None:
    inputs = MAKE[name](SMALL, torch.float32)
    grad_output = output_gradient(SMALL, inputs) * scale
    if name == "classic":
        inputs.tensors[2].mul_(1e6)
    expected = reference_with_gradients(SMALL, inputs, grad_output)[1]
    assert_near(emulation.backward(SMALL, inputs, grad_output, deterministic=True)[0], expected, 1e-6)


def test_deterministic_gradient_of_double_is_precise(emulation: Emulation) -> None:
    inputs = fused_inputs(SMALL, torch.float64)
    grad_output = output_gradient(SMALL, inputs)
    expected = reference_with_gradients(SMALL, inputs, grad_output)[1]
    assert_near(emulation.backward(SMALL, inputs, grad_output, deterministic=True)[0], expected, 1e-11)


def test_deterministic_zero_gradient(emulation: Emulation) -> None:
    inputs = fused_inputs(SMALL, torch.float32)
    grad_output = torch.zeros_like(output_gradient(SMALL, inputs))
    assert (emulation.backward(SMALL, inputs, grad_output, deterministic=True)[0] == 0).all()


@pytest.mark.parametrize("where", ["nan gradient", "infinite gradient", "nan offset", "nan logit"])
def test_deterministic_gradient_that_is_not_finite(emulation: Emulation, where: str) -> None:
    """No integer stands for infinity or NaN: all of it is NaN, and nothing finite is a silent lie."""
    inputs = fused_inputs(SMALL, torch.float32)
    grad_output = output_gradient(SMALL, inputs)
    offsets, logits = split_projection(inputs.tensors[1], SMALL)
    if where == "nan offset":
        offsets[0, 3, 1, 1, 1, 1] = torch.nan
    elif where == "nan logit":
        logits[0, 3, 1, 1] = torch.nan
    else:
        grad_output[1, 5, 3] = torch.nan if where == "nan gradient" else -torch.inf
    for seed in range(2):
        assert emulation.backward(SMALL, inputs, grad_output, deterministic=True, seed=seed)[0].isnan().all()


def test_deterministic_infinite_gradient_times_tiny_weights(emulation: Emulation) -> None:
    inputs = classic_inputs(SMALL, torch.float64)
    inputs.tensors[2].mul_(1e-300)
    grad_output = output_gradient(SMALL, inputs)
    grad_output[0, 0, 0] = torch.inf
    assert emulation.backward(SMALL, inputs, grad_output, deterministic=True)[0].isnan().all()


# Sizes


@pytest.mark.parametrize("deterministic", [False, True])
def test_empty_calls(emulation: Emulation, deterministic: bool) -> None:
    for case in (SMALL._replace(batch=0), SMALL._replace(queries=0)):
        inputs = classic_inputs(case, torch.float32)
        assert emulation.forward(case, inputs).numel() == 0
        grad_output = output_gradient(case, inputs)
        grad_value, grad_locations, grad_weights = emulation.backward(case, inputs, grad_output, deterministic)
        assert (grad_value == 0).all()
        assert grad_locations.numel() == grad_weights.numel() == 0


@pytest.mark.parametrize("points", [1, 16, 17, 256])
def test_many_samples(emulation: Emulation, points: int) -> None:
    case = Case(((3, 5),), heads=1, head_dim=4, points=points, batch=1)
    for dtype in (torch.float32, torch.float64):
        inputs = fused_inputs(case, dtype)
        grad_output = output_gradient(case, inputs)
        expected = reference_with_gradients(case, inputs, grad_output)
        found = [emulation.forward(case, inputs), *emulation.backward(case, inputs, grad_output)]
        for one, other, tolerance in zip(found, expected, tolerances(inputs), strict=True):
            assert_near(one, other, tolerance)


def test_more_than_2_to_31_elements(emulation: Emulation) -> None:
    """Only the last rows of `value` are ever touched: the others take no memory."""
    case = Case(((350, 400),), heads=64, head_dim=256, points=1, queries=2, batch=1)
    numel = case.tokens * case.heads * case.head_dim
    assert numel > 2**31
    try:
        memory = mmap.mmap(-1, numel * 2)
    except OSError:
        pytest.skip("needs 4.6 GB of address space")
    value = torch.frombuffer(memory, dtype=torch.bfloat16).view(1, case.tokens, case.heads, case.head_dim)
    value[0, -2:] = 2.0
    locations = torch.tensor([[399.0, 349.5], [399.5, 349.5]]) / torch.tensor([400.0, 350.0])
    locations = locations.view(1, 2, 1, 1, 1, 2).expand(-1, -1, case.heads, -1, -1, -1)
    inputs = Inputs("classic", (value, locations.contiguous(), torch.ones(1, 2, case.heads, 1, 1)))
    output = emulation.forward(case, inputs, place=lambda tensor: tensor)
    assert_near(output, torch.full_like(output, 2.0), 1e-2)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_plans_fit_the_hardware(emulation: Emulation, fused: bool, backward: bool) -> None:
    for head_dim, points in itertools.product([1, 2, 4, 8, 32, 100, 1024], [1, 4, 5, 64]):
        case = Case(((64, 64), (32, 32), (16, 16), (1, 1)), heads=3, head_dim=head_dim, points=points)
        blocks, threads, shared, lanes, chunk, height, width = emulation.plan(case, case.tokens, fused, backward)
        assert threads in (64, 128, 256) and height * width * lanes == threads
        assert width in (height, 2 * height) if fused else height == 1
        assert shared <= 48 * 1024
        assert lanes <= 32 and (lanes >= 4 or not backward)
        assert lanes >= min(32, head_dim) and 1 <= chunk <= 16
        assert blocks * height * width >= case.batch * case.tokens * case.heads


def test_a_grid_beyond_the_hardware_is_refused(emulation: Emulation) -> None:
    case = SMALL._replace(batch=2**31)
    with pytest.raises(RuntimeError, match="split the batch of 2147483648"):
        emulation.plan(case, case.tokens, True, False)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (0, "divergence: lane 5 has ended"),
        (1, "divergence: lane 0 waits at __shfl_xor_sync.* lane 5 at __syncwarp"),
        (2, "read of 4 bytes outside all arrays"),
        (3, "read of 16 bytes at an address not aligned"),
        (4, "atomicAdd of 4 bytes outside all arrays"),
        (5, "write beyond 16 bytes of shared memory"),
    ],
)
def test_the_emulation_notices_mistakes(emulation: Emulation, mistake: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        emulation.call("mistake", mistake)
