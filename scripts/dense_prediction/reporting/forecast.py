"""How long a run is going to take, measured on its first steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


WARM_UP = 2
"""Steps that are slower than all others: memory is taken, and kernels are chosen."""

FEWEST, SECONDS = 5, 5.0
"""So many steps are measured, or as many as take so long."""

PATIENCE = 60.0
"""Seconds after which what was measured has to do, warm-up included."""


class Forecast:
    """Measures a run's first steps, without the evaluations and checkpoints between them.

    Attributes:
        seconds_per_step: None until enough of them were measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds_per_step: float | None = None
        self._measured: list[float] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Round a step."""
        if self.seconds_per_step is not None:
            yield
            return
        self._synchronize()
        began = time.perf_counter()
        yield
        self._synchronize()
        self.note(time.perf_counter() - began)

    def note(self, seconds: float) -> None:
        """A step has taken so long."""
        self._measured.append(seconds)
        steady = self._measured[WARM_UP:]
        if len(steady) >= FEWEST or sum(steady) >= SECONDS:
            self.seconds_per_step = sum(steady) / len(steady)
        elif sum(self._measured) >= PATIENCE:
            self.seconds_per_step = min(self._measured)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":  # which is still at work when a step seems to be done
            torch.cuda.synchronize(self.device)


def duration(seconds: float) -> str:
    """In words: 40 s, 14 min, 3 h 20 min, 2 days 4 h."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"
