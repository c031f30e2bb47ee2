"""Compare both operators with what one uses without them, by turns in one process, on this machine."""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import kernels
import torch
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from benchmark_comer_msda import (
    POINTS,
    STRIDES,
    cell_centres,
    grid_sample_attention,
    locations_and_weights,
    pairs,
    pyramid,
    random_problem,
)
from modeling_vit_comer.deformable_attention import deformable_attention_torch
from modeling_vit_comer.kernel_choice import load_folder
from modeling_vit_comer.spatial_pyramid import PyramidShape


Row = dict[str, Any]

PROJECT = Path(__file__).resolve().parents[1]
COMMUNITY = "kernels-community/deformable-detr"
# Heads and channels of a head in the paper's sizes.
SIZES = {"T": (6, 32), "S": (6, 64), "B": (12, 32), "L": (16, 32)}
CASES = ["S@512x512", "B@512x512", "S@896x896", "S@800x1280"]

DESCRIPTION = f"""\
Time one deformable attention over the pyramid of an image, forward and forward with backward.

  fused          comer_msda
  classic        multi_scale_deformable_attention
  transformers   its MultiScaleDeformableAttention, which is grid_sample
  torch          modeling_vit_comer's deformable_attention_torch, which is embedding_bag
  community      {COMMUNITY} (CUDA): --community FOLDER, or LOCAL_KERNELS={COMMUNITY}=FOLDER

From the input "projection" all compute the same from the same, where the softmax and the locations of the operators
that want them are computed as in transformers' layers. From "locations" it is those operators alone.

The error is that of the output, against float64. On CPU a time is the wall-clock of one call. On CUDA it is the GPU's
own, launches hidden behind a wait, with the L2 cache overwritten before the call ("cold") or after the same call
("warm"); beside it stands the least that an H200 could take, by its bandwidths and instruction rate.

  python kernels/comer-msda/benchmarks/compare.py --output comparison.json
"""


@dataclass(frozen=True)
class Case:
    """A size of ViT-CoMer and an image, as "S@512x512" (height x width)."""

    name: str
    heads: int
    head_dim: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        try:
            size, image = text.split("@")
            height, width = (int(side) for side in image.split("x"))
            heads, head_dim = SIZES[size]
        except (KeyError, ValueError) as error:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not like S@512x512, with one of {', '.join(SIZES)}"
            ) from error
        if min(height, width) < STRIDES[-1] or height % STRIDES[-1] or width % STRIDES[-1]:
            raise argparse.ArgumentTypeError(f"{text!r}: height and width must be multiples of {STRIDES[-1]}")
        return cls(text, heads, head_dim, height, width)

    @property
    def level_sizes(self) -> list[int]:
        return pyramid(self.height, self.width)

    @property
    def tokens(self) -> int:
        return sum(height * width for height, width in pairs(self.level_sizes))


class Problem:
    """The inputs of one case on one device, and everybody's way to call their operator."""

    def __init__(self, case: Case, batch: int, device: torch.device) -> None:
        self.case, self.batch = case, batch
        torch.manual_seed(0)
        problem = random_problem(case.level_sizes, case.heads, case.head_dim, batch)
        self.value, self.projection = (x.to(device) for x in problem)
        self.levels = pairs(case.level_sizes)
        self.sizes = torch.tensor(self.levels, device=device)
        self.first_tokens = self.sizes.prod(1).cumsum(0) - self.sizes.prod(1)
        self.centres = cell_centres(case.level_sizes).to(device)

    def fused(self, kernel: ModuleType, value: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
        return kernel.comer_msda(value, projection, self.case.level_sizes, self.case.heads, POINTS)

    def embedding_bag(self, value: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
        shape = PyramidShape(*self.levels[1])
        offsets, logits = projection.split([2 * projection.shape[-1] // 3, projection.shape[-1] // 3], dim=-1)
        return deformable_attention_torch(value, offsets, logits, shape, self.case.heads)

    def classic(
        self, kernel: ModuleType, value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        return kernel.multi_scale_deformable_attention(value, locations, weights, self.case.level_sizes)

    def layer(
        self, layer: torch.nn.Module, value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """transformers' class, or the community kernel's, which has its signature."""
        return layer(value, self.sizes, self.levels, self.first_tokens, locations, weights, 64)

    def operator_inputs(
        self, dtype: torch.dtype, value: torch.Tensor, projection: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """What the operators that do not take the projection take, with locations and weights in `dtype`."""
        samples = locations_and_weights(projection.to(dtype), self.centres.to(dtype), self.sizes, self.case.heads)
        return value.unflatten(-1, (self.case.heads, -1)), *samples

    def exact(self) -> torch.Tensor:
        """The output, computed in float64."""
        inputs = self.operator_inputs(torch.float64, self.value.double(), self.projection)
        return grid_sample_attention(*inputs, self.case.level_sizes)


@dataclass(frozen=True, eq=False)
class Contender:
    """One implementation with its inputs."""

    implementation: str
    input: str
    dtype: torch.dtype
    call: Callable[..., torch.Tensor]
    inputs: tuple[torch.Tensor, ...]

    def forward(self) -> torch.Tensor:
        with torch.no_grad():
            return self.call(*self.inputs)

    def forward_backward(self) -> None:
        output = self.call(*self.inputs)
        torch.autograd.grad(output, self.inputs, self.inputs[0].detach().view(output.shape))


def contenders(
    problem: Problem, dtype: torch.dtype, kernel: ModuleType, community: ModuleType | None
) -> Iterator[Contender]:
    inputs = tuple(x.detach().to(dtype).requires_grad_() for x in (problem.value, problem.projection))
    yield Contender("fused", "projection", dtype, partial(problem.fused, kernel), inputs)
    yield Contender("torch", "projection", dtype, problem.embedding_bag, inputs)
    operators = {
        # The operator, and the dtype of its locations and weights.
        "classic": (partial(problem.classic, kernel), torch.float32),
        "transformers": (partial(problem.layer, MultiScaleDeformableAttention()), dtype),
    }
    if community is not None:
        operators["community"] = (partial(problem.layer, community.layers.MultiScaleDeformableAttention()), dtype)
    for name, (operator, sampling_dtype) in operators.items():
        prepare = partial(problem.operator_inputs, sampling_dtype)
        yield Contender(name, "projection", dtype, partial(prepare_and_call, prepare, operator), inputs)
        prepared = tuple(x.detach().requires_grad_() for x in prepare(*inputs))
        yield Contender(name, "locations", dtype, operator, prepared)


def prepare_and_call(
    prepare: Callable[..., tuple[torch.Tensor, ...]], operator: Callable[..., torch.Tensor], *inputs: torch.Tensor
) -> torch.Tensor:
    return operator(*prepare(*inputs))


def all_contenders(
    problem: Problem, device: torch.device, kernel: ModuleType, community: ModuleType | None
) -> list[Contender]:
    """In float32 and bfloat16; on CPU, where nobody else is meant to run in bfloat16, of that the fused one only."""
    half = contenders(problem, torch.bfloat16, kernel, community)
    group = [
        *contenders(problem, torch.float32, kernel, community),
        *(contender for contender in half if device.type == "cuda" or contender.implementation == "fused"),
    ]
    return sorted(group, key=lambda contender: contender.input, reverse=True)


def time_on_cpu(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


class CudaTimer:
    """Milliseconds of GPU time of one call, with a cold or a warm L2 cache."""

    # About 3 ms, in which the CPU launches all of the call: only then do the events enclose nothing but its kernels.
    WAIT_CYCLES = 5_000_000

    def __init__(self, device: torch.device, cold: bool) -> None:
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cache_size = torch.cuda.get_device_properties(device).L2_cache_size
        self.flood = torch.empty(4 * cache_size, dtype=torch.uint8, device=device) if cold else None

    def __call__(self, work: Callable[[], Any]) -> float:
        if self.flood is None:
            work()
        else:
            self.flood.zero_()
        torch.cuda._sleep(self.WAIT_CYCLES)
        self.start.record()
        work()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end)


def timers(device: torch.device) -> dict[str | None, Callable[[Callable[[], Any]], float]]:
    """By state of the L2 cache, which is only known on CUDA."""
    if device.type == "cuda":
        return {"cold": CudaTimer(device, cold=True), "warm": CudaTimer(device, cold=False)}
    return {None: time_on_cpu}


# What an H200 can do, in bytes and warp instructions a second: memory, L1 caches, schedulers, float32 atomics.
H200 = {"hbm": 4.3e12, "l1": 29.7e12, "issue": 927e9, "atomics": 2.2e12}
# Of a lane for a sample, beside loads, conversions and multiply-adds: weights, addresses, exchange, loop.
OTHER_INSTRUCTIONS = 45


def h200_floor_us(case: Case, batch: int, dtype: torch.dtype) -> dict[str, float]:
    """The least time of the fused operator, by what may bound it; "atomics" is the backward pass."""
    queries, channels = batch * case.tokens, case.heads * case.head_dim
    samples = queries * case.heads * len(STRIDES) * POINTS
    corner_values = 4 * samples * case.head_dim
    lane_channels = 16 // dtype.itemsize
    instructions_a_channel = 1 if dtype == torch.float32 else 2
    instructions = 4 * (1 + lane_channels * instructions_a_channel) + OTHER_INSTRUCTIONS
    amounts = {
        "hbm": (2 * queries * channels + 3 * samples) * dtype.itemsize,
        "l1": corner_values * dtype.itemsize,
        "issue": samples * case.head_dim / lane_channels / 32 * instructions,
        "atomics": corner_values * torch.float32.itemsize,
    }
    return {name: round(1e6 * amount / H200[name], 2) for name, amount in amounts.items()}


def floor_us(case: Case, batch: int, contender: Contender, step: str) -> float | None:
    """Of the fused operator: it reads the least."""
    if contender.implementation != "fused":
        return None
    bounds = h200_floor_us(case, batch, contender.dtype)
    backward = bounds.pop("atomics")
    return round(max(bounds.values()) + (backward if step == "forward_backward" else 0), 2)


def measure(
    group: list[Contender], step: str, timer: Callable[[Callable[[], Any]], float], repeats: int
) -> dict[Contender, list[float]]:
    """Milliseconds of every round, after one that is not counted. Each round has an order of its own."""
    rounds: dict[Contender, list[float]] = {contender: [] for contender in group}
    for index in range(repeats + 1):
        for contender in random.Random(index).sample(group, len(group)):
            elapsed = timer(getattr(contender, step))
            if index:
                rounds[contender].append(elapsed)
    return rounds


def speedups(contender: Contender, rounds: dict[Contender, list[float]]) -> dict[str, float]:
    """How many times faster than others on the same input: medians of the rounds' ratios.

    In the same dtype where the others have it, else than theirs in float32.
    """
    others = {}
    for other, times in rounds.items():
        comparable = other.input == contender.input and other.dtype in (contender.dtype, torch.float32)
        if comparable and other.implementation in ("transformers", "community"):
            others[other.implementation] = times  # float32 comes first
    return {
        name: round(statistics.median(theirs / ours for ours, theirs in zip(rounds[contender], times)), 2)
        for name, times in others.items()
        if name != contender.implementation
    }


def relative_error(output: torch.Tensor, exact: torch.Tensor) -> float:
    return float(f"{((output.double() - exact).norm() / exact.norm()).item():.2g}")


def compare(problem: Problem, group: list[Contender], device: torch.device, repeats: int) -> Iterator[list[Row]]:
    """For each step and state of the cache, a row for each contender."""
    exact = problem.exact()
    errors = {contender: relative_error(contender.forward(), exact) for contender in group}
    del exact
    for (cache, timer), step in product(timers(device).items(), ("forward", "forward_backward")):
        rounds = measure(group, step, timer, repeats)
        yield [
            {
                "case": problem.case.name,
                "batch": problem.batch,
                "step": step,
                "l2_cache": cache,
                "input": contender.input,
                "implementation": contender.implementation,
                "dtype": str(contender.dtype).removeprefix("torch."),
                "median_ms": round(statistics.median(times), 4),
                "min_ms": round(min(times), 4),
                "times_faster_than": speedups(contender, rounds),
                "relative_error": errors[contender],
                "h200_floor_us": floor_us(problem.case, problem.batch, contender, step) if cache else None,
                "rounds_ms": [round(elapsed, 4) for elapsed in times],
            }
            for contender, times in rounds.items()
        ]


def print_table(rows: list[Row]) -> None:
    """One step of one problem."""
    first = rows[0]
    cache = f", {first['l2_cache']} L2 cache" if first["l2_cache"] else ""
    print(f"\n{first['case']}, batch {first['batch']}, {first['step'].replace('_', ' + ')}{cache}")
    print("  from        implementation  dtype      median ms     min ms     error  times faster than")
    for row in rows:
        faster = ", ".join(f"{name} {ratio:g}" for name, ratio in row["times_faster_than"].items())
        floor = f"  (H200: {row['h200_floor_us'] / 1e3:.4f} ms or more)" if row["h200_floor_us"] else ""
        times = f"{row['median_ms']:10.4f}  {row['min_ms']:9.4f}"
        name = f"{row['input']:10}  {row['implementation']:14}  {row['dtype']:8}"
        print(f"  {name}  {times}  {row['relative_error']:8.1e}  {faster}{floor}".rstrip(), flush=True)


def load_kernel(device: torch.device) -> ModuleType:
    """Raises FileNotFoundError where there is no build for this machine, torch and device."""
    loaded = load_folder(PROJECT)
    if device.type not in loaded:
        raise FileNotFoundError(f"the build of {PROJECT} is for {', '.join(loaded)} only")
    return loaded[device.type]


def load_community(folder: Path | None, device: torch.device) -> ModuleType | None:
    """The community's kernel where it can be had without the network; else says why not."""
    try:
        if device.type != "cuda":
            raise ImportError("it runs on CUDA only")
        if folder is not None:
            return kernels.get_local_kernel(folder)
        if COMMUNITY not in os.environ.get("LOCAL_KERNELS", ""):
            raise FileNotFoundError("neither --community nor LOCAL_KERNELS names its folder")
        return kernels.get_kernel(COMMUNITY, version=1)
    except (ImportError, OSError, ValueError) as error:
        print(f"without {COMMUNITY}: {error}")
        return None


def processor_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def cuda_driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def environment(device: torch.device, kernel: ModuleType, community: ModuleType | None) -> dict[str, Any]:
    facts = {
        "processor": processor_name(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "kernel": kernel.__name__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("kernels", "transformers")},
    }
    if device.type == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(device),
            "driver": cuda_driver(),
            "cuda": torch.version.cuda,
            "community_kernel": community.__name__ if community is not None else None,
        }
    return facts


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="measured rounds (default: %(default)s)")
    parser.add_argument(
        "--cases",
        type=Case.parse,
        nargs="+",
        default=[Case.parse(text) for text in CASES],
        metavar="CASE",
        help=f"size and image, height x width (default: {' '.join(CASES)})",
    )
    parser.add_argument("--community", type=Path, metavar="FOLDER", help=f"a build of {COMMUNITY}")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="where to write the result")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    if min(arguments.repeats, arguments.threads) < 1:
        parser.error("--repeats and --threads must be at least 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    try:
        kernel = load_kernel(device)
    except FileNotFoundError as error:
        raise SystemExit(f"error: {error}\n`make kernel` builds the kernel for this machine.") from error
    community = load_community(arguments.community, device)
    result = {"device": device.type, "environment": environment(device, kernel, community), "results": []}
    for case in arguments.cases:
        for batch in (1, 8) if device.type == "cuda" else (1,):
            problem = Problem(case, batch, device)
            group = all_contenders(problem, device, kernel, community)
            for rows in compare(problem, group, device, arguments.repeats):
                print_table(rows)
                result["results"] += rows
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
        print(f"Written to {arguments.output}")


if __name__ == "__main__":
    main()
