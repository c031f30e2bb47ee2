"""A step's loss is that of one batch with all samples of its passes, one after the other and on several processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn

from ...batches.loss_counts import Counts
from ...batches.types import Batch
from ...experiment import Experiment
from ...models.head import Head


class SharedNormalization:
    """Lets each pass of a step divide its loss by what all passes have on average.

    For a step of one pass on one process it does nothing.
    """

    def __init__(self, accelerator: Accelerator, experiment: Experiment) -> None:
        self.accelerator = accelerator
        self.experiment = experiment
        self._passes: list[Counts] = []
        self._mean = Counts(1.0)

    @property
    def head(self) -> Head:
        return self.experiment.head

    def begin(self, model: nn.Module, batches: list[Batch]) -> None:
        """Count what the batches of a step's passes have, on this process and on all, before the first of them."""
        self._passes = []
        if self.head.count is None or len(batches) * self.accelerator.num_processes == 1:
            return
        config = self.accelerator.unwrap_model(model).config
        self._passes = [self.head.count(batch, config) for batch in batches]
        if self._passes[0].matches is None and len(batches) > 1:
            matches = self._count_matches(model, batches)
            self._passes = [replace(own, matches=found) for own, found in zip(self._passes, matches, strict=True)]
        self._mean = self._mean_of_all()

    @contextmanager
    def next_pass(self) -> Iterator[float]:
        """For the forward pass of the next batch: yields what its loss is to be multiplied with."""
        if not self._passes:
            yield 1.0
            return
        with self.head.divide(self._passes.pop(0), self._mean) as weight:
            yield weight

    def _mean_of_all(self) -> Counts:
        passes, accelerator = self._passes, self.accelerator
        rows = [[own.objects, own.matches or 0.0, own.queries] for own in passes]
        total = torch.tensor(rows, dtype=torch.float64).sum(0)  # (3,)
        if accelerator.num_processes > 1:
            total = accelerator.reduce(total.to(accelerator.device), "sum")
        total[0].clamp_(min=1)
        objects, matches, queries = (total / (len(passes) * accelerator.num_processes)).tolist()
        return Counts(objects, None if passes[0].matches is None else matches, queries)

    @torch.no_grad()
    def _count_matches(self, model: nn.Module, batches: list[Batch]) -> list[int]:
        """What the coming passes will find: with the same random numbers, and leaving no trace in the batch norms."""
        device, experiment = self.accelerator.device, self.experiment
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        devices = [device] if device.type == "cuda" else []
        assert self.head.record_matches is not None
        with torch.random.fork_rng(devices), self.head.record_matches() as found:
            for batch in batches:
                model(**experiment.loss_inputs(send_to_device(batch, device)))
        for buffer, value in buffers:
            buffer.copy_(value)
        return found
