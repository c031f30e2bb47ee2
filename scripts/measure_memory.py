"""Measure the memory of building a backbone on a trunk, and of training it with the trunk frozen or not."""

import argparse
import json
import multiprocessing
import re
import resource
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

from benchmark import environment, training_step
from dense_prediction.command_line import ArgumentParser, run, watch, without_their_progress_bars
from dense_prediction.errors import UserError
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig


MIB = 2**20
TIMM_NAME = "vit_large_patch16_224"
TRANSFORMERS_CONFIG: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
TRANSFORMERS_CONFIG |= {"intermediate_size": 4096}

SAMPLED = {"anonymous": "RssAnon", "resident": "VmRSS"}
"""What is reported, and Linux' name of it."""

SOURCES = ("trunk_config", "timm model", "safetensors file", "timm folder", "transformers folder")

TRAINED: dict[str, dict[str, Any]] = {
    "trunk trained": {},
    "trunk frozen": {"freeze_trunk": True},
    "trunk frozen, no CTI to ViT": {"freeze_trunk": True, "use_cti_to_vit": False},
    "trunk trained, no CTI to ViT": {"use_cti_to_vit": False},
}

DESCRIPTION = """\
Measure memory on this machine (Linux), each number in a process of its own:

  - what `from_trunk` takes at its peak beside what the process held before, over the size of the trunk's weights, for
    ViT-L from each kind of source: anonymous memory; and all that is resident, which counts the pages of files that
    the libraries map, which the system drops when it needs them;
  - the peak resident memory of training a ViT-CoMer at batch 1, its trunk trained or frozen.

  python scripts/measure_memory.py --output memory.json
"""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="vit-comer-s", help="that is trained (default: %(default)s)")
    parser.add_argument("--size", type=int, default=512, help="side of the square image (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="where to write the result")
    return parser.parse_args()


def resident_bytes(field: str) -> int:
    """A field of Linux' account of this process."""
    return 1024 * int(re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def extra_memory(work: Callable[[], Any]) -> dict[str, int]:
    """Bytes by which each of `SAMPLED` grew at most while `work` ran, sampled every few milliseconds."""
    before = {name: resident_bytes(field) for name, field in SAMPLED.items()}
    peak, finished = dict(before), threading.Event()

    def watch() -> None:
        while not finished.wait(0.003):
            for name, field in SAMPLED.items():
                peak[name] = max(peak[name], resident_bytes(field))

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    finished.set()
    watcher.join()
    return {name: peak[name] - before[name] for name in SAMPLED}


def save_sources(folder: Path) -> None:
    """ViT-L of both libraries with random weights, as they save it."""
    vit = timm.create_model(TIMM_NAME)
    timm.models.save_for_hf(vit, str(folder / "timm"), safe_serialization=True)
    save_file(vit.state_dict(), folder / "weights.safetensors")
    del vit
    ViTModel(ViTConfig(**TRANSFORMERS_CONFIG), add_pooling_layer=False).save_pretrained(folder / "transformers")


def arguments_of(source: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The trunk, and the further arguments of `from_trunk`."""
    trunk_config = {"architecture": TIMM_NAME}
    match source:
        case "trunk_config":
            return trunk_config, {}
        case "timm model":
            return timm.create_model(TIMM_NAME, num_classes=0), {}
        case "safetensors file":
            return folder / "weights.safetensors", {"trunk_config": trunk_config}
        case _:
            return folder / source.removesuffix(" folder"), {}


def measure_from_trunk(source: str, folder: Path) -> dict[str, float]:
    """Peaks over the size of the trunk's weights. To be called in a process of its own."""
    ViTCoMerBackbone.from_trunk("vit_tiny_patch16_224", pretrained=False)  # what is imported on first use
    trunk, arguments = arguments_of(source, folder)
    built: list[ViTCoMerBackbone] = []
    extra = extra_memory(lambda: built.append(ViTCoMerBackbone.from_trunk(trunk, **arguments)))
    weights = sum(parameter.nbytes for parameter in built[0].trunk.parameters())
    backbone = sum(parameter.nbytes for parameter in built[0].parameters())
    numbers = {"backbone": backbone} | extra
    return {name: round(number / weights, 2) for name, number in numbers.items()} | {"weights_mib": weights // MIB}


def measure_training(name: str, arguments: argparse.Namespace) -> int:
    """Peak resident MiB of a process that trains two steps at batch 1. To be called in a process of its own."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = ViTCoMerConfig.from_preset(arguments.preset, **TRAINED[name])
    backbone = ViTCoMerBackbone(config)
    images = torch.randn(1, 3, arguments.size, arguments.size)
    for _ in range(2):
        training_step(backbone, images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def in_processes(work: Callable[[str], Any], names: tuple[str, ...], title: str) -> dict[str, Any]:
    """The result for each name, of a new process each."""
    results = {}
    for name in watch(names, title, unit="process"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[name] = pool.apply(work, (name,))
    return results


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        save_sources(Path(folder))
        sources = in_processes(partial(measure_from_trunk, folder=Path(folder)), SOURCES, "from_trunk")
    training = in_processes(partial(measure_training, arguments=arguments), tuple(TRAINED), "training")
    return {
        "environment": environment(arguments.threads),
        "from_trunk": {"trunk": TIMM_NAME, "peak_over_trunk_weights": sources},
        "training": {
            "preset": arguments.preset,
            "image": [1, 3, arguments.size, arguments.size],
            "dtype": "float32",
            "peak_memory_mib": training,
        },
    }


@without_their_progress_bars()
def main() -> None:
    arguments = parse_arguments()
    if not Path("/proc/self/status").exists():
        raise UserError("memory is read from /proc/self/status, which only Linux has")
    result = measure(arguments)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    for source, numbers in result["from_trunk"]["peak_over_trunk_weights"].items():
        print(f"from_trunk, {source:<28}", *(f"{name} {number}" for name, number in numbers.items()), sep="  ")
    for name, mib in result["training"]["peak_memory_mib"].items():
        print(f"training, {name:<30}  {mib} MiB")
    print(f"Written to {arguments.output}")


if __name__ == "__main__":
    run(main)
