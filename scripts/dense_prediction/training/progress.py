"""The bar that a run is watched on, or the lines of its log."""

import sys
import time
from typing import Self

import psutil
import torch
from tqdm import tqdm

from ..command_line import is_watched


class Progress:
    """Steps done and time left, with the loss, the learning rate, the speed and the memory in use.

    Args:
        steps: of the whole run, of which `done` are behind.
        shown: on one process only; where nobody watches, without a bar: `report` writes a plain line.
    """

    def __init__(self, steps: int, done: int, device: torch.device, shown: bool) -> None:
        self.steps, self.done, self.writes_lines = steps, done, shown and not is_watched()
        disabled = not shown or self.writes_lines
        self.bar = tqdm(total=steps, initial=done, desc="training", unit="step", disable=disabled, dynamic_ncols=True)
        self.device = device
        self.restart_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def advance(self, images: int) -> None:
        """One step is done, on so many images."""
        self.images += images
        self.done += 1
        self.bar.update()

    def restart_clock(self) -> None:
        """Count images and seconds anew: an evaluation or a checkpoint is no part of the speed."""
        self.images, self.since = 0, time.perf_counter()

    def report(self, loss: float, rate: float) -> dict[str, float]:
        """Show the numbers, and return what was measured since the last time."""
        measured = {
            "images_per_second": self.images / (time.perf_counter() - self.since),
            "memory_gib": memory_in_use(self.device),
        }
        numbers = (
            f"loss {loss:.4f}, lr {rate:.2e}, {measured['images_per_second']:.1f} images/s, "
            f"{measured['memory_gib']:.1f} GiB"
        )
        self.bar.set_postfix_str(numbers)
        if self.writes_lines:
            tqdm.write(f"step {self.done}/{self.steps}: {numbers}", file=sys.stderr)
        self.restart_clock()
        return measured


def memory_in_use(device: torch.device) -> float:
    """GiB: the peak of the GPU's memory, or what the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return psutil.Process().memory_info().rss / 2**30
