"""Measure a backbone on this machine: time of the forward and the training step, and peak memory."""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import timm
import torch
import transformers
from torch import nn
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from dense_prediction.command_line import ArgumentParser, run, watch, without_their_progress_bars
from dense_prediction.errors import UserError
from dense_prediction.models.simple_feature_pyramid import SimpleFeaturePyramid
from modeling_vit_comer import (
    ViTCoMerBackbone,
    ViTCoMerConfig,
    deformable_attention,
    deformable_attention_backend,
    interaction,
    use_deformable_attention_kernel,
)
from modeling_vit_comer.kernel_choice import loaded_kernels
from modeling_vit_comer.presets import preset_names
from modeling_vit_comer.spatial_pyramid import PyramidShape


CLOCKS = ("wall_s", "cpu_s")

# Of each formulation and clock, one number a round.
Seconds = dict[str, dict[str, list[float]]]
# Computes the deformable attention in one way for as long as the context lasts.
Formulation = Callable[[], AbstractContextManager[None]]

DESCRIPTION = """\
Compare formulations of the deformable attention in one backbone, by turns in one process, on this machine.

  kernel                   the native one (`make kernel`)
  embedding_bag            this project's without it: one weighted gather of rows, recomputed in the backward pass
  grid_sample              the one of the official code and of transformers, as they run it
  simple_feature_pyramid   for comparison: the same trunk without ViT-CoMer, with ViTDet's pyramid (forward only)

Times are wall-clock medians and process CPU times (which a busy machine disturbs less); memory is the peak resident
size of a process that trains one step at batch 1, one process for each formulation.

  vit-comer benchmark --preset vit-comer-s --size 512 --output benchmark.json
"""


def grid_sample_attention(
    value: torch.Tensor, offsets: torch.Tensor, logits: torch.Tensor, shape: PyramidShape, num_heads: int
) -> torch.Tensor:
    """transformers' `MultiScaleDeformableAttention` behind the signature of `deformable_attention_torch`."""
    batch, num_tokens, _ = value.shape
    # (batch, num_tokens, heads * levels * points * 2) -> (batch, num_tokens, heads, levels, points, 2)
    offsets = offsets.view(batch, num_tokens, num_heads, len(shape.levels), -1, 2)
    attention = logits.view(batch, num_tokens, num_heads, -1).softmax(-1).view(offsets.shape[:-1])
    x, y = deformable_attention.cell_centres(shape, value.dtype, value.device)
    sizes = offsets.new_tensor([[width, height] for height, width in shape.levels])
    locations = torch.stack([x, y], dim=-1)[:, :, :, None] + offsets / sizes[:, None]
    heads = value.view(batch, num_tokens, num_heads, -1)
    levels = list(shape.levels)
    return MultiScaleDeformableAttention()(heads, torch.tensor(levels), levels, None, locations, attention, 64)


@contextmanager
def attention_kernel(kernel: str) -> Iterator[None]:
    """What the deformable attention runs on; afterwards as if nobody had chosen."""
    use_deformable_attention_kernel(kernel)
    try:
        yield
    finally:
        use_deformable_attention_kernel("auto")


@contextmanager
def replaced(module: ModuleType, name: str, function: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Another function in a module's place of that name, for a while."""
    original = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextmanager
def grid_sample_formulation() -> Iterator[None]:
    with (
        attention_kernel("torch"),
        replaced(deformable_attention, "deformable_attention_torch", grid_sample_attention),
        replaced(interaction, "checkpoint", call_directly),
    ):
        yield


def call_directly(function: Callable[..., torch.Tensor], *inputs: Any, **_: Any) -> torch.Tensor:
    """In place of `torch.utils.checkpoint`: the official code keeps everything for the backward pass."""
    return function(*inputs)


FORMULATIONS: dict[str, Formulation] = {
    "kernel": partial(attention_kernel, "auto"),
    "embedding_bag": partial(attention_kernel, "torch"),
    "grid_sample": grid_sample_formulation,
}
REFERENCE = "grid_sample"
PLAIN = "simple_feature_pyramid"


class Contender(NamedTuple):
    """A model, and how the deformable attention is computed while it runs."""

    formulation: Formulation
    model: nn.Module


def available_formulations() -> list[str]:
    with attention_kernel("auto"):
        if deformable_attention_backend("cpu") != "torch":
            return list(FORMULATIONS)
    print("without the native kernel: there is no build of it for this machine and torch, `make kernel` makes one")
    return [name for name in FORMULATIONS if name != "kernel"]


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--preset", default="vit-comer-s", help="a file of configuration/backbones (default: %(default)s)"
    )
    parser.add_argument(
        "--attention",
        choices=["preset", "global"],
        default="preset",
        help="of the trunk: in windows where the preset has them, or global in all blocks (default: %(default)s)",
    )
    parser.add_argument("--size", type=int, default=512, help="side of the square image (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="measured rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="where to write the result")
    return parser.parse_args()


def check_preset(preset: str) -> None:
    presets = preset_names()
    if preset not in presets:
        raise UserError(f"no preset {preset!r}; there are {', '.join(presets)}")


def build_backbone(preset: str, attention: str) -> ViTCoMerBackbone:
    torch.manual_seed(0)
    changes: dict[str, Any] = {"window_sizes": None} if attention == "global" else {}
    return ViTCoMerBackbone(ViTCoMerConfig.from_preset(preset, **changes))


def forward(model: nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        model.eval()(images)


def training_step(backbone: nn.Module, images: torch.Tensor) -> None:
    feature_maps = backbone.train()(images).feature_maps
    sum(feature_map.square().mean() for feature_map in feature_maps).backward()
    backbone.zero_grad()


def clock(work: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and process CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def time_by_turns(
    step: Callable[[nn.Module, torch.Tensor], None],
    contenders: dict[str, Contender],
    images: torch.Tensor,
    repeats: int,
) -> Seconds:
    """Seconds of every round, after one that is not counted. The contenders take turns within a round."""
    seconds: Seconds = {name: {clock_name: [] for clock_name in CLOCKS} for name in contenders}
    for round_index in watch(range(repeats + 1), step.__name__, unit="round"):
        for name, (formulation, model) in contenders.items():
            with formulation():
                elapsed = clock(partial(step, model, images))
            if round_index:
                for clock_name, value in zip(CLOCKS, elapsed):
                    seconds[name][clock_name].append(round(value, 4))
    return seconds


def peak_memory(name: str, arguments: argparse.Namespace) -> float:
    """Peak resident MiB of a process that trains two steps at batch 1. To be called in a process of its own."""
    torch.set_num_threads(arguments.threads)
    backbone = build_backbone(arguments.preset, arguments.attention)
    images = torch.randn(1, 3, arguments.size, arguments.size)
    with FORMULATIONS[name]():
        for _ in range(2):
            training_step(backbone, images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(formulations: list[str], arguments: argparse.Namespace) -> dict[str, float]:
    memory: dict[str, float] = {}
    for name in watch(formulations, "peak memory", unit="process"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory[name] = round(pool.apply(peak_memory, (name, arguments)))
    return memory


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(numerators, denominators)), 2)


def summarize(seconds: Seconds) -> dict[str, Any]:
    """Medians, and medians of the rounds' ratios.

    "speedup" is how many times faster than `grid_sample`; "over_simple_feature_pyramid", where that was measured, how
    many times its time.
    """
    times = {clock_name: {name: seconds[name][clock_name] for name in seconds} for clock_name in CLOCKS}
    ours = [name for name in seconds if name not in (REFERENCE, PLAIN)]
    summary = {
        "median": {key: {name: round(statistics.median(x[name]), 4) for name in x} for key, x in times.items()},
        "speedup": {key: {name: median_ratio(x[REFERENCE], x[name]) for name in ours} for key, x in times.items()},
    }
    if PLAIN in seconds:
        summary[f"over_{PLAIN}"] = {
            key: {name: median_ratio(x[name], x[PLAIN]) for name in [*ours, REFERENCE]} for key, x in times.items()
        }
    return summary | {"rounds": seconds}


def processor_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def kernel_name() -> str | None:
    with attention_kernel("auto"):
        kernel = loaded_kernels().get("cpu")
    return None if kernel is None else kernel.__name__


def environment(threads: int) -> dict[str, Any]:
    return {
        "processor": processor_name(),
        "threads": threads,
        "kernel": kernel_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "timm": timm.__version__,
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    names = available_formulations()
    memory = measure_memory(names, arguments)
    backbone = build_backbone(arguments.preset, arguments.attention)
    images = torch.randn(1, 3, arguments.size, arguments.size)
    formulations = {name: Contender(FORMULATIONS[name], backbone) for name in names}
    plain = {PLAIN: Contender(FORMULATIONS["kernel"], SimpleFeaturePyramid(backbone.trunk))}
    forward_s = time_by_turns(forward, formulations | plain, images, arguments.repeats)
    training_s = time_by_turns(training_step, formulations, images, arguments.repeats)
    return {
        "preset": arguments.preset,
        "attention": arguments.attention,
        "image": list(images.shape),
        "dtype": "float32",
        "environment": environment(arguments.threads),
        "forward": summarize(forward_s),
        "training_step": summarize(training_s),
        "training_peak_memory_mib": memory,
        "training_peak_memory_ratio": {
            name: round(mib / memory[REFERENCE], 3) for name, mib in memory.items() if name != REFERENCE
        },
    }


def print_table(result: dict[str, Any]) -> None:
    """A column for each formulation, and one for the plain trunk."""
    forward_result, training = result["forward"], result["training_step"]
    names = forward_result["median"]["wall_s"].keys()
    rows = [
        ("", {name: name for name in names}),
        ("forward, wall s", forward_result["median"]["wall_s"]),
        ("forward, CPU s", forward_result["median"]["cpu_s"]),
        ("  times faster than grid_sample, wall", forward_result["speedup"]["wall_s"]),
        ("  times faster than grid_sample, CPU", forward_result["speedup"]["cpu_s"]),
        ("  over the plain trunk, wall", forward_result["over_simple_feature_pyramid"]["wall_s"]),
        ("  over the plain trunk, CPU", forward_result["over_simple_feature_pyramid"]["cpu_s"]),
        ("training step, wall s", training["median"]["wall_s"]),
        ("training step, CPU s", training["median"]["cpu_s"]),
        ("  times faster than grid_sample, wall", training["speedup"]["wall_s"]),
        ("  times faster than grid_sample, CPU", training["speedup"]["cpu_s"]),
        ("peak memory, MiB", result["training_peak_memory_mib"]),
        ("  over grid_sample", result["training_peak_memory_ratio"]),
    ]
    for label, values in rows:
        print(f"{label:38}" + "".join(f"{values.get(name, '-')!s:>{len(name) + 3}}" for name in names))


@without_their_progress_bars()
def main() -> None:
    arguments = parse_arguments()
    check_preset(arguments.preset)
    torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print_table(result)
    print(f"Written to {arguments.output}")


if __name__ == "__main__":
    run(main)
