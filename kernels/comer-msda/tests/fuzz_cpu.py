"""Random calls of the four operators on CPU, valid and invalid, against what their documentation promises.

An invalid call has to raise, a valid one to return tensors of the right size and dtype, the same bits twice and, for
ordinary numbers, what `reference.py` says in float64. Memory errors show in a sanitized build:

    python scripts/build_kernel.py --sanitize --output outputs/sanitized
    export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
    export ASAN_OPTIONS=detect_leaks=0
    python kernels/comer-msda/tests/fuzz_cpu.py --kernel outputs/sanitized --seconds 600

(libstdc++ because the sanitizer must find, at the start, how C++ throws.) ATEN_CPU_CAPABILITY=default, avx2 or avx512
chooses the instruction set. A failure or crash is told with the options that repeat it.
"""

import argparse
import functools
import math
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from reference import cell_centres, classic_reference, fused_reference, num_tokens, pairs


FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
DTYPES = [*FLOATS, torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e5m2]
# Largest error over the largest number there may be: rounding of the result, and of float32 positions.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
EXTREMES = [math.nan, math.inf, -math.inf, 3e38, -1e38, 1e30, 1e10, -1e5, 6e4, 1e-40, -6e-8, 5e-324, -0.0]
INTEGERS = [-(2**63), -(2**31), -1, 0, 1, 2, 3, 9, 256, 257, 2**24, 2**24 + 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**64]
# What disappears where a number, or a few times that number, is cut to 16, 32 or 64 bits.
WRAPS = [2**16, 2**31, 2**32, 2**60, 2**61, 2**62, 2**63, 2**64]
HEAD_DIMS = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 96, 120, 127, 128, 129, 200]
MULTIPLY_ADDS = 400_000
ALLOWED_ERRORS = (RuntimeError, TypeError)


class Failure(AssertionError):
    """A call did not do as documented."""


@dataclass
class Call:
    """One call: the tensors by name in the order of the operator's arguments, then the other arguments."""

    operator: str
    tensors: dict[str, torch.Tensor]
    level_sizes: list[int]
    heads: int
    points: int
    history: list[str] = field(default_factory=list)

    @property
    def fused(self) -> bool:
        return self.operator.startswith("comer_msda")

    @property
    def backward(self) -> bool:
        return self.operator.endswith("backward")

    @property
    def arguments(self) -> list[Any]:
        numbers = [self.heads, self.points] if self.fused else []
        return [*self.tensors.values(), self.level_sizes, *numbers, *([False] if self.backward else [])]

    def __str__(self) -> str:
        lines = [f"{self.operator}: level_sizes {self.level_sizes}, heads {self.heads}, points {self.points}"]
        for name, x in self.tensors.items():
            strided = x.layout == torch.strided
            places = f"strides {x.stride()}, offset {x.storage_offset()}" if strided else str(x.layout)
            lines.append(f"  {name}: {tuple(x.shape)} {x.dtype} {x.device}, {places}")
        return "\n".join([*lines, f"  drawn as: {', '.join(self.history) or 'plain'}"])


@dataclass
class Counts:
    calls: int = 0
    errors: int = 0
    compared: int = 0


# ---- Valid calls ---------------------------------------------------------------------------------------------------


def draw_levels(rng: random.Random, longest: int) -> list[int]:
    sides = {
        "any": lambda: [rng.randint(1, longest), rng.randint(1, longest)],
        "tiny": lambda: [rng.randint(1, 3), rng.randint(1, 3)],
        "line": lambda: rng.sample([1, rng.randint(1, 4 * longest)], 2),
    }
    count = rng.choice([1, 1, 2, 3, 3, 4, 4, 5, 8])
    return [size for _ in range(count) for size in sides[rng.choice(["any", "any", "tiny", "line"])]()]


def draw_points(rng: random.Random, levels: int) -> int:
    """Often 12 or 16 samples, for which there is code of its own; at most 256."""
    usual = [samples // levels for samples in (12, 16) if samples % levels == 0]
    return rng.choice([*usual, *usual, rng.randint(1, 6), rng.randint(1, 256 // levels)])


def fill(rng: random.Random, size: tuple[int, ...], dtype: torch.dtype, scale: float) -> torch.Tensor:
    """Normal numbers, sometimes with extremes among them."""
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    x = scale * torch.randn(size, generator=generator, dtype=torch.float64)
    if rng.random() < 0.3:
        hit = torch.rand(size, generator=generator) < rng.choice([0.001, 0.1, 1])
        chosen = torch.tensor(rng.sample(EXTREMES, rng.randint(1, 3)), dtype=torch.float64)
        x = torch.where(hit, chosen[torch.randint(len(chosen), size, generator=generator)], x)
    return x.to(dtype)


def fused_tensors(
    rng: random.Random, dtype: torch.dtype, batch: int, level_sizes: list[int], heads: int, dim: int, points: int
) -> dict[str, torch.Tensor]:
    tokens, samples = num_tokens(level_sizes), heads * points * (len(level_sizes) // 2)
    offsets = fill(rng, (batch, tokens, 2 * samples), dtype, rng.choice([0.3, 2, 20, 1000]))
    if rng.random() < 0.3:  # onto the pixels of the query's own level, and the borders
        offsets = (2 * offsets).round() / 2
    logits = fill(rng, (batch, tokens, samples), dtype, rng.choice([1, 1, 30]))
    value = fill(rng, (batch, tokens, heads * dim), dtype, 1)
    return {"value": value, "projection": torch.cat([offsets, logits], dim=-1)}


def classic_tensors(
    rng: random.Random, dtype: torch.dtype, batch: int, level_sizes: list[int], heads: int, dim: int, points: int
) -> dict[str, torch.Tensor]:
    queries = rng.choice([0, 1, 2, 7, 8, 9, 63, 64, 65, 130, rng.randint(0, 40)])
    size = (batch, queries, heads, len(level_sizes) // 2, points)
    arithmetic = torch.promote_types(dtype, torch.float32)
    locations = fill(rng, (*size, 2), arithmetic, rng.choice([0.3, 1])) + rng.choice([0, 0.5])
    if rng.random() < 0.3:  # onto pixels, and the borders
        extents = torch.tensor(pairs(level_sizes), dtype=arithmetic).flip(-1)[:, None]
        locations = ((locations * extents).round() + rng.choice([0, 0.5])) / extents
    return {
        "value": fill(rng, (batch, num_tokens(level_sizes), heads, dim), dtype, 1),
        "sampling_locations": locations,
        "attention_weights": fill(rng, size, arithmetic, rng.choice([0.1, 1])),
    }


def draw_valid(rng: random.Random) -> Call:
    fused, dtype = rng.random() < 0.5, rng.choice(FLOATS)
    longest = rng.choice([4, 12, 40])
    while True:
        level_sizes, heads = draw_levels(rng, longest), rng.choice([1, 1, 2, 3, 6, 8])
        dim, points = rng.choice([*HEAD_DIMS, rng.randint(1, 200)]), draw_points(rng, len(level_sizes) // 2)
        queries = num_tokens(level_sizes) if fused else 40
        if queries * heads * points * len(level_sizes) * (dim + 8) < MULTIPLY_ADDS:
            break
    batch = rng.choice([0, 1, 1, 1, 2, 3])
    tensors = (fused_tensors if fused else classic_tensors)(rng, dtype, batch, level_sizes, heads, dim, points)
    operator = "comer_msda" if fused else "multi_scale_deformable_attention"
    if rng.random() < 0.5:
        operator += "_backward"
        queries = next(reversed(tensors.values())).shape[1]
        tensors = {"grad_output": fill(rng, (batch, queries, heads * dim), dtype, 1), **tensors}
    return Call(operator, tensors, level_sizes, heads, points)


# ---- Layouts -------------------------------------------------------------------------------------------------------


def permuted(rng: random.Random, x: torch.Tensor) -> torch.Tensor:
    order = rng.sample(range(x.dim()), x.dim())
    return x.permute(order).contiguous().permute([order.index(i) for i in range(x.dim())])


def sliced(rng: random.Random, x: torch.Tensor) -> torch.Tensor:
    step, before, after = rng.randint(1, 2), rng.randint(0, 2), rng.randint(0, 2)
    host = torch.zeros([before + step * size + after for size in x.shape], dtype=x.dtype)
    view = host[tuple(slice(before, before + step * size, step) for size in x.shape)]
    return view.copy_(x)


def shifted(rng: random.Random, x: torch.Tensor) -> torch.Tensor:
    """Contiguous from the middle of a storage on to its very end."""
    before = rng.randint(1, 70)
    return torch.cat([x.new_zeros(before), x.flatten()])[before:].view(x.shape)


def expanded(rng: random.Random, x: torch.Tensor) -> torch.Tensor:
    size = [1 if rng.random() < 0.5 else size for size in x.shape]
    return x[tuple(slice(0, length) for length in size)].clone().expand(x.shape)


def overlapping(rng: random.Random, x: torch.Tensor) -> torch.Tensor:
    """Small strides, in a storage just large enough."""
    strides = [rng.randint(0, 3) for _ in x.shape]
    needed = 1 + sum(stride * max(0, size - 1) for stride, size in zip(strides, x.shape))
    storage = x.flatten()[:needed].clone()
    return torch.cat([storage, x.new_ones(needed - len(storage))]).as_strided(x.shape, strides)


def imaginary(rng: random.Random, x: torch.Tensor) -> torch.Tensor:
    """Every other number of a storage, and negated by a flag only."""
    if x.dtype not in (torch.float32, torch.float64):
        return torch._neg_view(-x)
    return torch.complex(x, -x).conj().imag


LAYOUTS = [permuted, sliced, shifted, expanded, overlapping, imaginary]


def lay_out(rng: random.Random, call: Call) -> Call:
    tensors = {}
    for name, x in call.tensors.items():
        # Mostly an allocation of exactly this size: reading beyond its end is then an error.
        layout = rng.choice(LAYOUTS) if rng.random() < 0.25 and x.dim() else None
        tensors[name] = layout(rng, x) if layout else x.clone(memory_format=torch.contiguous_format)
        call.history += [f"{layout.__name__} {name}"] if layout else []
    return replace(call, tensors=tensors)


# ---- Invalid calls -------------------------------------------------------------------------------------------------


def another_integer(rng: random.Random, number: int) -> int:
    nearby = [number - 1, number + 1, 2 * number, -number]
    wrapped = [number + sign * wrap for sign in (1, 1, -1) for wrap in WRAPS]
    return rng.choice([rng.choice(INTEGERS), rng.choice(nearby), rng.choice(wrapped)])


def change_levels(rng: random.Random, call: Call) -> Call:
    sizes = list(call.level_sizes)
    place = rng.randrange(len(sizes)) if sizes else 0
    number = another_integer(rng, sizes[place]) if sizes else 1
    level = sizes[place // 2 * 2 :][:2]
    changed = [
        sizes[:place] + [number] + sizes[place + 1 :],
        sizes[:place] + sizes[place + 1 :],
        [*sizes, number],
        [*sizes, *rng.choice([[0, 0], [1, 1], [0, number], [-1, 1]])],
        sizes + [1, 1] * rng.randint(1, 9),
        sizes[: place // 2 * 2] + [-size for size in level] + sizes[place // 2 * 2 + 2 :],
        sizes[: place // 2 * 2] + level[::-1] + sizes[place // 2 * 2 + 2 :],
        rng.sample(sizes, len(sizes)),
        [],
    ]
    return replace(call, level_sizes=rng.choice(changed))


def change_heads(rng: random.Random, call: Call) -> Call:
    return replace(call, heads=another_integer(rng, call.heads))


def change_points(rng: random.Random, call: Call) -> Call:
    return replace(call, points=another_integer(rng, call.points))


def overflow_points(rng: random.Random, call: Call) -> Call:
    """Beyond what is allowed, with a projection as large as the low bits say."""
    levels = max(1, len(call.level_sizes) // 2)
    points = rng.choice([1, 4, 300, 1000])
    tensors = dict(call.tensors)
    if "projection" in tensors and call.heads in range(1, 9):
        x = tensors["projection"]
        tensors["projection"] = x.new_ones(1).expand(*x.shape[:2], call.heads * levels * points * 3)
    return replace(call, points=points + rng.choice([0, *WRAPS]) * rng.choice([1, 2, 3]), tensors=tensors)


def change_tensor(rng: random.Random, call: Call) -> Call:
    name = rng.choice(list(call.tensors))
    x = call.tensors[name]
    changes = {
        "dtype": lambda: x.to(rng.choice(DTYPES)),
        "deeper": lambda: x.unsqueeze(rng.randint(0, x.dim())),
        "meta": lambda: x.to("meta"),
    }
    if x.dim():
        dim = rng.randrange(x.dim())
        size = rng.choice([0, 1, x.shape[dim] + 1, max(0, x.shape[dim] - 1), 2 * x.shape[dim]])
        changes["size"] = lambda: x.new_ones([*x.shape[:dim], size, *x.shape[dim + 1 :]])
        changes["flat"] = lambda: x.flatten(0, rng.randrange(x.dim()))
        changes["swapped"] = lambda: x.transpose(dim, -1).contiguous()
        changes["sparse"] = lambda: torch.empty(x.shape, dtype=x.dtype, layout=torch.sparse_coo)
        if name != "value":  # whose channels may be as many, if there were the memory
            changes["huge"] = lambda: x.new_ones([1] * x.dim()).expand([*x.shape[:dim], 2**31, *x.shape[dim + 1 :]])
    change = rng.choice(list(changes))
    call.history.append(f"{change} {name}")
    return replace(call, tensors={**call.tensors, name: changes[change]()})


def swap_tensors(rng: random.Random, call: Call) -> Call:
    names = list(call.tensors)
    return replace(call, tensors=dict(zip(names, (call.tensors[name] for name in rng.sample(names, len(names))))))


CHANGES = [change_tensor, change_tensor, change_levels, change_heads, change_points, overflow_points, swap_tensors]


def draw(seed: int, number: int) -> Call:
    """Call `number` of `seed`: two in three valid, the others with some changes, which may leave it valid."""
    rng = random.Random(f"{seed} {number}")
    call = lay_out(rng, draw_valid(rng))
    for _ in range(rng.choice([0, 0, 0, 0, 1, 2])):
        if any(x.layout != torch.strided or x.is_meta or x.numel() > 2**24 for x in call.tensors.values()):
            break
        change = rng.choice(CHANGES)
        call.history.append(change.__name__)
        call = change(rng, call)
    return call


# ---- What is promised ----------------------------------------------------------------------------------------------


def valid_levels(level_sizes: list[int], tokens: int) -> bool:
    sides = all(1 <= size <= 2**24 for size in level_sizes)
    return len(level_sizes) in range(2, 17, 2) and sides and num_tokens(level_sizes) == tokens


def tensor_rules(call: Call) -> tuple[dict[str, tuple[int, ...]], torch.dtype] | None:
    """The sizes that the tensors must have, given that of `value`, and the dtype of those that sample."""
    value, levels = call.tensors["value"], len(call.level_sizes) // 2
    if value.dim() != (3 if call.fused else 4) or 0 in value.shape[2:]:
        return None
    batch, tokens = value.shape[:2]
    if call.fused:
        if call.heads < 1 or value.shape[2] % call.heads:
            return None
        sizes = {"projection": (batch, tokens, call.heads * levels * call.points * 3)}
        return {**sizes, "grad_output": tuple(value.shape)}, value.dtype
    locations = call.tensors["sampling_locations"]
    if locations.dim() != 6:
        return None
    queries, heads, points = locations.shape[1], value.shape[2], locations.shape[4]
    sizes = {"attention_weights": (batch, queries, heads, levels, points)}
    sizes["sampling_locations"] = (*sizes["attention_weights"], 2)
    sizes["grad_output"] = (batch, queries, heads * value.shape[3])
    return sizes, torch.promote_types(value.dtype, torch.float32)


def is_valid(call: Call) -> bool:
    """The documented conditions, in Python's unbounded integers."""
    if any(x.layout != torch.strided or x.device.type != "cpu" for x in call.tensors.values()):
        return False
    value = call.tensors["value"]
    rules = tensor_rules(call) if value.dtype in FLOATS else None
    if rules is None or not valid_levels(call.level_sizes, value.shape[1]):
        return False
    sizes, sampling_dtype = rules
    points = call.points if call.fused else call.tensors["sampling_locations"].shape[4]
    if points < 1 or points * len(call.level_sizes) // 2 > 256:
        return False
    dtypes = {"value": value.dtype, "grad_output": value.dtype}
    return all(
        x.dtype == dtypes.get(name, sampling_dtype) and tuple(x.shape) == sizes.get(name, tuple(x.shape))
        for name, x in call.tensors.items()
    )


def run(kernel: ModuleType, call: Call) -> tuple[torch.Tensor, ...]:
    result = getattr(kernel.layers.ops, call.operator)(*call.arguments)
    return result if isinstance(result, tuple) else (result,)


def check_raises(kernel: ModuleType, call: Call) -> None:
    try:
        run(kernel, call)
    except ALLOWED_ERRORS as error:
        if "INTERNAL ASSERT" in str(error):
            raise Failure(f"an internal error: {error}") from error
        return
    raise Failure("an invalid call was accepted")


def check_sizes(call: Call, outputs: tuple[torch.Tensor, ...]) -> None:
    tensors = dict(call.tensors)
    if call.backward:
        del tensors["grad_output"]
        expected = [(tuple(x.shape), x.dtype) for x in tensors.values()]
    else:
        value = tensors["value"]
        batch, _, *channels = value.shape
        queries = list(tensors.values())[1].shape[1]
        expected = [((batch, queries, math.prod(channels)), value.dtype)]
    found = [(tuple(x.shape), x.dtype) for x in outputs]
    if found != expected or not all(x.is_contiguous() for x in outputs):
        raise Failure(f"outputs {found}, expected {expected}")


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(-1).view(torch.uint8), other.view(-1).view(torch.uint8))


# ---- Against the reference -----------------------------------------------------------------------------------------


@dataclass
class Exact:
    """A call in float64, as the reference takes it: offsets in `places` bounded (far is far), NaN replaced by 0."""

    value: torch.Tensor
    places: torch.Tensor  # fused: (batch, queries, all offsets); classic: the locations
    weights: torch.Tensor  # fused: the logits
    undefined: torch.Tensor  # (batch, queries, heads): where the output has to be NaN
    distance: torch.Tensor  # of each coordinate to the next centre of a pixel, in the size of `places`


def sampled(call: Call) -> list[torch.Tensor]:
    """All tensors but the output's gradient, in float64."""
    return [x.resolve_neg().double().clone() for name, x in call.tensors.items() if name != "grad_output"]


def fused_exact(call: Call) -> Exact:
    value, projection = sampled(call)
    levels = len(call.level_sizes) // 2
    offsets, logits = projection.tensor_split([call.heads * levels * call.points * 2], dim=-1)
    by_head = logits.unflatten(-1, (call.heads, -1)).softmax(-1).isnan().any(-1)
    undefined = by_head | offsets.unflatten(-1, (call.heads, -1)).isnan().any(-1)
    offsets, logits = offsets.nan_to_num(0, math.inf, -math.inf).clamp(-1e4, 1e4), logits.clone()
    logits.unflatten(-1, (call.heads, -1))[undefined] = 0
    sizes = value.new_tensor(pairs(call.level_sizes)).flip(-1)[:, None]
    centres = cell_centres(call.level_sizes, value)[:, None, None, None] * sizes
    pixels = (offsets.unflatten(-1, (call.heads, levels, call.points, 2)) + centres - 0.5).flatten(2)
    return Exact(value, offsets, logits, undefined, (pixels - pixels.round()).abs())


def classic_exact(call: Call) -> Exact:
    value, locations, weights = sampled(call)
    undefined = locations.isnan().flatten(3).any(-1)
    locations = locations.nan_to_num(0, math.inf, -math.inf).clamp(-10, 10)
    pixels = locations * value.new_tensor(pairs(call.level_sizes)).flip(-1)[:, None] - 0.5
    return Exact(value, locations, weights, undefined, (pixels - pixels.round()).abs())


def ordinary(*tensors: torch.Tensor) -> bool:
    return all(x.isfinite().all() and x.abs().max() < 100 for x in tensors)


def evaluate(call: Call, exact: Exact) -> torch.Tensor:
    if call.fused:
        projection = torch.cat([exact.places, exact.weights], dim=-1)
        return fused_reference(exact.value, projection, call.level_sizes, call.heads, call.points)
    return classic_reference(exact.value, exact.places, exact.weights, call.level_sizes)


def check_close(name: str, ours: torch.Tensor, exact: torch.Tensor, scale: float) -> None:
    """Also where both are NaN. `scale` is what an error is to be compared with, next to the largest number."""
    largest, kind = exact.nan_to_num(0).abs().max(), torch.finfo(ours.dtype)
    if largest > kind.max:
        return
    # And some of the smallest steps there are, for numbers so small that no digits are left.
    bound = TOLERANCES[ours.dtype] * (scale + largest) + 4096 * kind.tiny * kind.eps
    right = (ours.double() - exact).abs() <= bound
    wrong = ~(right | (ours.isnan() & exact.isnan()))
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        text = f"{name}{list(place)} is {ours[place].item()}, should be {exact[place].item()} within {bound:.3g}"
        raise Failure(f"{text}; {wrong.sum()} of {wrong.numel()} are wrong")


def compare_forward(call: Call, exact: Exact, outputs: tuple[torch.Tensor, ...]) -> None:
    heads = exact.undefined.shape[2]
    expected = evaluate(call, exact).unflatten(-1, (heads, -1)).clone()
    expected[exact.undefined] = math.nan
    scale = exact.value.abs().max().item() * (1 if call.fused else exact.weights.flatten(3).abs().sum(-1).max().item())
    check_close("output", outputs[0], expected.flatten(-2), scale)


def compare_backward(call: Call, exact: Exact, outputs: tuple[torch.Tensor, ...]) -> None:
    """The derivative by a place jumps at the centres of pixels: not compared next to them."""
    grad_output = call.tensors["grad_output"].double()
    inputs = [x.requires_grad_() for x in (exact.value, exact.places, exact.weights)]
    expected = torch.autograd.grad(evaluate(call, exact), inputs, grad_output)
    if call.fused:
        outputs = outputs[0], *outputs[1].tensor_split([exact.places.shape[-1]], dim=-1)
    clear = exact.distance > (1e-3 if outputs[1].dtype != torch.float64 else 1e-9)
    places = [torch.where(clear, x, 0) for x in (outputs[1], expected[1])]
    scale = grad_output.abs().max().item() * exact.value.detach().abs().max().item()
    weight = 1 if call.fused else exact.weights.detach().abs().max().item()
    check_close("grad_value", outputs[0], expected[0], grad_output.abs().max().item() * weight)
    check_close("grad of the places", *places, scale * weight)
    check_close("grad of the weights", outputs[2], expected[2], scale)


def compare(call: Call, outputs: tuple[torch.Tensor, ...]) -> bool:
    """Against the reference, if it can tell: it cannot with empty tensors or enormous numbers. Whether it could."""
    if any(x.numel() == 0 for x in call.tensors.values()):
        return False
    exact = (fused_exact if call.fused else classic_exact)(call)
    inputs = [exact.value] + ([] if call.fused else [exact.weights])
    if call.backward:
        inputs += [call.tensors["grad_output"].double(), *([exact.weights] if call.fused else [])]
    if not ordinary(*inputs) or (call.backward and exact.undefined.any()):
        return False
    (compare_backward if call.backward else compare_forward)(call, exact, outputs)
    return True


# ---- The loop ------------------------------------------------------------------------------------------------------


def check(kernel: ModuleType, call: Call, counts: Counts) -> None:
    if not is_valid(call):
        check_raises(kernel, call)
        counts.errors += 1
        return
    outputs = run(kernel, call)
    check_sizes(call, outputs)
    if not all(same_bits(*pair) for pair in zip(outputs, run(kernel, call))):
        raise Failure("the same call again has another result")
    counts.compared += compare(call, outputs)


def fuzz(
    kernel: ModuleType,
    seed: int,
    seconds: float,
    start: int = 0,
    calls: int | None = None,
    tell: Callable[[int], None] = lambda number: None,
    report: Callable[[str], None] = print,
) -> Counts:
    """Checks the calls from `start` on, at most `calls`; `tell` hears each number before the call is made."""
    counts, began, reported = Counts(), time.monotonic(), 0.0
    while counts.calls != calls and (elapsed := time.monotonic() - began) < seconds:
        number = start + counts.calls
        tell(number)
        call = draw(seed, number)
        try:
            check(kernel, call, counts)
        except Exception as error:
            raise Failure(f"seed {seed}, call {number}: {error!r}\n{call}") from error
        counts.calls += 1
        if elapsed - reported > 5:
            reported = elapsed
            report(f"{elapsed:.0f} s: {describe(counts)}, {counts.calls / elapsed:.0f} calls/s")
    return counts


def describe(counts: Counts) -> str:
    return f"{counts.calls} calls, {counts.errors} raised as they must, {counts.compared} compared with the reference"


def load_and_fuzz(arguments: argparse.Namespace, current: Any) -> None:
    from kernels import get_local_kernel

    kernel = get_local_kernel(arguments.kernel, backend="cpu")
    tell, report = functools.partial(setattr, current, "value"), functools.partial(print, flush=True)
    counts = fuzz(kernel, arguments.seed, arguments.seconds, arguments.start, arguments.calls, tell, report)
    print(f"no failure: {describe(counts)}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(__file__).resolve().parents[1]
    parser.add_argument("--kernel", type=Path, default=folder, metavar="DIR", help="folder of the build's variants")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="other calls for every seed (default: 0)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="number of the first call (default: 0)")
    parser.add_argument("--calls", type=int, metavar="N", help="stop after as many calls (default: no limit)")
    return parser.parse_args()


def main() -> None:
    """The calls are made in a process of its own, so that after a crash someone is left to tell which it was."""
    arguments = parse_arguments()
    context = multiprocessing.get_context("fork")
    current = context.RawValue("q", arguments.start)
    worker = context.Process(target=load_and_fuzz, args=(arguments, current))
    worker.start()
    worker.join()
    if worker.exitcode:
        print(f"exit code {worker.exitcode} in call {current.value}; repeat it with")
        print(f"  --seed {arguments.seed} --start {current.value} --calls 1")
        print(draw(arguments.seed, current.value))
        sys.exit(1)


if __name__ == "__main__":
    main()
