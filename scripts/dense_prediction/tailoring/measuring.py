"""A step of learning and one of measuring on the device, for their seconds and their memory."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from ..batches.streams import evaluation_loader, training_loader
from ..batches.types import Batch
from ..errors import UserError
from ..experiment import Experiment, Opened
from ..failures import is_out_of_memory
from ..recipes.schema import Recipe
from .case import Cost, Device


BATCHES = (2, 4)
"""Two sizes, of which the memory of each picture more follows."""
FIRST = 100
"""Samples of the validation split among which there has to be a good one."""
TIMES = 3
PATIENCE = 8.0
"""Seconds, after which nothing is timed again."""
GIB = 2**30


def find_device() -> Device:
    """What this process would compute on."""
    state = PartialState()
    kind = state.device.type
    if kind == "cuda":
        memory, _ = torch.cuda.mem_get_info(state.device)
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        memory, has_bf16 = psutil.virtual_memory().available, kind == "cpu"
    cores = torch.get_num_threads() if kind == "cpu" else psutil.cpu_count() or 1
    return Device(kind, cores, memory / GIB, has_bf16, state.num_processes)


def measure_cost(recipe: Recipe, opened: Opened, device: Device) -> Cost:
    """Learn and measure a picture or two with a model that is thrown away. What a run draws later stays as it is.

    Raises:
        UserError: the backbone or the head cannot be built, or a single picture is too large for the device.
    """
    # The weights of a head that is taken over are as slow as random ones.
    head = dataclasses.replace(recipe.head, checkpoint=None)
    bench = _Bench(Experiment(dataclasses.replace(recipe, head=head), opened=opened))
    try:
        return bench.measure(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            "out of memory in a step of two pictures: make them smaller with transforms.crop_size=[HEIGHT, WIDTH]"
        ) from error


class _Bench:
    """A model on the device, and batches for it."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.device = experiment, PartialState().device
        self.model: PreTrainedModel = experiment.build_model().to(self.device).train()
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-8)

    def measure(self, device: Device) -> Cost:
        small, large = (self._batch(size) for size in ((1, 1) if device.is_cpu else BATCHES))
        precisions = ["no", "bf16"] if device.has_bf16 else ["no"]
        timed = small if device.is_cpu else large
        spans = {name: self._timed(partial(self._learn, timed, name)) for name in precisions}
        seconds = {name: span / _size(timed) for name, span in _seconds(spans, device.is_cpu).items()}
        fastest = min(precisions, key=seconds.__getitem__)
        fixed, each = (0.0, 0.0) if device.is_cpu else self._memory(small, large, precisions[-1])
        return Cost(seconds, self._evaluation(fastest), fixed, each)

    def _batch(self, size: int) -> Batch:
        stream = self.experiment.training_stream()
        return next(iter(training_loader(stream, range(size), size, 0, self.experiment.size_divisor)))

    def _learn(self, batch: Batch, precision: str) -> None:
        with self._autocast(precision):
            loss = self.model(**self.experiment.loss_inputs(send_to_device(batch, self.device))).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _evaluation(self, precision: str) -> float:
        """Seconds of one picture of the validation split, with the metric."""
        experiment = self.experiment
        (batch,) = islice(
            evaluation_loader(
                experiment.validation, range(min(FIRST, len(experiment.validation))), 0, 1, experiment.size_divisor
            ),
            1,
        )
        images = batch | {name: batch[name].to(self.device) for name in ("pixel_values", "pixel_mask")}

        @torch.no_grad()
        def look() -> None:
            with self._autocast(precision):
                (found,) = experiment.viewer.predict(self.model, images)
            experiment.new_metric().update(found, batch["targets"][0])

        self.model.eval()
        return self._timed(look).wall

    def _autocast(self, precision: str) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

    def _timed(self, work: Callable[[], object]) -> "_Span":
        """The shortest of three times, or of as many as there is time for: the first one takes longer."""
        spans: list[_Span] = []
        while len(spans) < TIMES and sum(span.wall for span in spans) < PATIENCE:
            self._wait()
            wall, busy = time.perf_counter(), time.process_time()
            work()
            self._wait()
            spans.append(_Span(time.perf_counter() - wall, time.process_time() - busy))
        return min(spans, key=lambda span: span.busy if self.device.type == "cpu" else span.wall)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _memory(self, small: Batch, large: Batch, precision: str) -> tuple[float, float]:
        """GiB that a step holds at its peak whatever the batch, and for each picture."""
        peaks = []
        for batch in (small, large):
            torch.cuda.reset_peak_memory_stats(self.device)
            self._learn(batch, precision)
            self._wait()
            peaks.append(torch.cuda.max_memory_allocated(self.device) / GIB)
        each = max(0.0, peaks[1] - peaks[0]) / (_size(large) - _size(small))
        return max(0.0, peaks[0] - _size(small) * each), each


@dataclass(frozen=True)
class _Span:
    """Seconds that passed, and those in which the process computed."""

    wall: float
    busy: float


def _seconds(spans: Mapping[str, _Span], is_cpu: bool) -> dict[str, float]:
    """How long each takes.

    On a CPU other programs may have been at work in one of them: what the process computed is compared, and they
    count for all alike.
    """
    wall, busy = (sum(getattr(span, name) for span in spans.values()) for name in ("wall", "busy"))
    return {name: span.busy * wall / busy if is_cpu else span.wall for name, span in spans.items()}


def _size(batch: Batch) -> int:
    return len(batch["targets"])
