"""Measure a backbone on this machine: time of the forward and the training step, and peak memory."""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from tqdm import tqdm
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from dense_prediction.command_line import ArgumentParser, run
from dense_prediction.errors import UserError
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig, deformable_attention, interaction
from modeling_vit_comer.spatial_pyramid import PyramidShape


PRESETS = Path(__file__).parents[1] / "configuration" / "backbones"

DESCRIPTION = """\
Compare formulations of the deformable attention in one backbone, by turns in one process, on this machine.

  embedding_bag   this project's: one weighted gather of rows, recomputed in the backward pass
  grid_sample     the one of the official code and of transformers, as they run it

Times are wall-clock medians and process CPU times (which a busy machine disturbs less); memory is the peak resident
size of a process that trains one step at batch 1, one process for each formulation.

  python scripts/benchmark.py --preset vit-comer-s --size 512 --output benchmark.json
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


def use_embedding_bag() -> None:
    deformable_attention.deformable_attention_torch = EMBEDDING_BAG
    interaction.checkpoint = CHECKPOINT


def use_grid_sample() -> None:
    deformable_attention.deformable_attention_torch = grid_sample_attention
    interaction.checkpoint = call_directly


def call_directly(function: Callable[..., torch.Tensor], *inputs: Any, **_: Any) -> torch.Tensor:
    """In place of `torch.utils.checkpoint`: the official code keeps everything for the backward pass."""
    return function(*inputs)


EMBEDDING_BAG = deformable_attention.deformable_attention_torch
CHECKPOINT = interaction.checkpoint
FORMULATIONS = {"embedding_bag": use_embedding_bag, "grid_sample": use_grid_sample}


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--preset", default="vit-comer-s", help="a file of configuration/backbones (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=512, help="side of the square image (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="measured rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="where to write the result")
    return parser.parse_args()


def check_preset(preset: str) -> None:
    presets = sorted(path.stem for path in PRESETS.glob("*.json"))
    if preset not in presets:
        raise UserError(f"no preset {preset!r}; there are {', '.join(presets)}")


def build_backbone(preset: str) -> ViTCoMerBackbone:
    torch.manual_seed(0)
    return ViTCoMerBackbone(ViTCoMerConfig.from_pretrained(PRESETS / f"{preset}.json"))


def forward(backbone: ViTCoMerBackbone, images: torch.Tensor) -> None:
    with torch.no_grad():
        backbone.eval()(images)


def training_step(backbone: ViTCoMerBackbone, images: torch.Tensor) -> None:
    feature_maps = backbone.train()(images).feature_maps
    sum(feature_map.square().mean() for feature_map in feature_maps).backward()
    backbone.zero_grad()


def clock(work: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and process CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def time_by_turns(
    step: Callable[[ViTCoMerBackbone, torch.Tensor], None], arguments: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Seconds of every round, after one that is not counted. The formulations take turns within a round."""
    backbone, images = build_backbone(arguments.preset), torch.randn(1, 3, arguments.size, arguments.size)
    seconds = {name: {"wall_s": [], "cpu_s": []} for name in FORMULATIONS}
    for round_index in tqdm(range(arguments.repeats + 1), desc=step.__name__, unit="round"):
        for name, use_formulation in FORMULATIONS.items():
            use_formulation()
            wall, cpu = clock(lambda: step(backbone, images))
            if round_index:
                seconds[name]["wall_s"].append(round(wall, 4))
                seconds[name]["cpu_s"].append(round(cpu, 4))
    return seconds


def peak_memory(name: str, preset: str, size: int, threads: int) -> float:
    """Peak resident MiB of a process that trains two steps at batch 1. To be called in a process of its own."""
    torch.set_num_threads(threads)
    FORMULATIONS[name]()
    backbone, images = build_backbone(preset), torch.randn(1, 3, size, size)
    for _ in range(2):
        training_step(backbone, images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(arguments: argparse.Namespace) -> dict[str, float]:
    memory = {}
    for name in tqdm(FORMULATIONS, desc="peak memory", unit="process"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory[name] = round(pool.apply(peak_memory, (name, arguments.preset, arguments.size, arguments.threads)))
    return memory


def summarize(seconds: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Medians, and how many times faster ours is, as the median of the rounds' ratios."""
    summary: dict[str, Any] = {"median": {}, "speedup": {}, "rounds": seconds}
    for clock_name in ("wall_s", "cpu_s"):
        ours, theirs = seconds["embedding_bag"][clock_name], seconds["grid_sample"][clock_name]
        summary["median"][clock_name] = {name: statistics.median(seconds[name][clock_name]) for name in seconds}
        summary["speedup"][clock_name] = round(statistics.median(b / a for a, b in zip(ours, theirs)), 2)
    return summary


def processor_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def environment(threads: int) -> dict[str, Any]:
    return {
        "processor": processor_name(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "timm": timm.__version__,
    }


def main() -> None:
    arguments = parse_arguments()
    check_preset(arguments.preset)
    torch.set_num_threads(arguments.threads)
    memory = measure_memory(arguments)
    result = {
        "preset": arguments.preset,
        "image": [1, 3, arguments.size, arguments.size],
        "dtype": "float32",
        "environment": environment(arguments.threads),
        "forward": summarize(time_by_turns(forward, arguments)),
        "training_step": summarize(time_by_turns(training_step, arguments)),
        "training_peak_memory_mib": memory,
        "training_peak_memory_ratio": round(memory["embedding_bag"] / memory["grid_sample"], 3),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"forward {result['forward']['speedup']['wall_s']}x faster than with grid_sample, "
        f"training {result['training_step']['speedup']['wall_s']}x, "
        f"peak memory {result['training_peak_memory_ratio']}x. Written to {arguments.output}"
    )


if __name__ == "__main__":
    run(main)
