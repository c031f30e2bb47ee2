"""A step's loss is that of one batch with all samples of its passes, one after the other and on several processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn

from ...batches.loss_counts import Counts
from ...batches.types import Batch, names_of
from ...errors import named
from ...experiment import Experiment
from ...models.head import Head


class SharedNormalization:
    """Lets each pass of a step divide its loss by what all passes have on average.

    For a step of one pass on one process it does nothing.

    Args:
        is_one_batch: False for the passes of the version before, each of which was divided by what it had alone.
    """

    def __init__(self, accelerator: Accelerator, experiment: Experiment, is_one_batch: bool = True) -> None:
        self.accelerator = accelerator
        self.experiment = experiment
        self.is_one_batch = is_one_batch
        self._passes: list[tuple[Counts, Counts]] = []  # each pass's own, and the mean

    @property
    def head(self) -> Head:
        return self.experiment.head

    def begin(self, model: nn.Module, batches: list[Batch]) -> None:
        """Count what the batches of a step's passes have, on this process and on all, before the first of them."""
        together = [batches] if self.is_one_batch else [[batch] for batch in batches]
        self._passes = [counts for group in together for counts in self._count(model, group)]

    @contextmanager
    def next_pass(self) -> Iterator[float]:
        """For the forward pass of the next batch: yields what its loss is to be multiplied with."""
        if not self._passes:
            yield 1.0
            return
        with self.head.divide(*self._passes.pop(0)) as weight:
            yield weight

    def _count(self, model: nn.Module, batches: list[Batch]) -> list[tuple[Counts, Counts]]:
        if self.head.count is None or len(batches) * self.accelerator.num_processes == 1:
            return []
        config = self.accelerator.unwrap_model(model).config
        passes = [self.head.count(batch, config) for batch in batches]
        if passes[0].matches is None and len(batches) > 1:
            matches = self._count_matches(model, batches)
            passes = [replace(own, matches=found) for own, found in zip(passes, matches, strict=True)]
        mean = self._mean_of_all(passes)
        return [(own, mean) for own in passes]

    def _mean_of_all(self, passes: list[Counts]) -> Counts:
        accelerator = self.accelerator
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
                with named(names_of(batch)):
                    model(**experiment.loss_inputs(send_to_device(batch, device)))
        for buffer, value in buffers:
            buffer.copy_(value)
        return found
