"""What is learnt on what: both trainers and the evaluation stand on it."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object
from PIL import Image
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from .batches.streams import EvaluationSet, TrainingStream, evaluation_loader
from .batches.transforms import EvaluationTransform, TrainingTransform
from .batches.types import Batch, PredictionOptions, Tensors
from .data.inspection.findings import check, describe, warn_of_limits, warn_of_skipped
from .data.inspection.looking import Facts, Inspection, inspect
from .data.loading import Data, load_data
from .data.samples import Split, Stream
from .errors import UserError
from .evaluation.measuring import measure
from .evaluation.metrics.metric import Metric, Numbers
from .evaluation.metrics.mistakes import Confusion
from .evaluation.showing import draw_predictions
from .evaluation.tasks import find_task
from .evaluation.views import Viewer, check_views, keep_windows
from .models.backbones import build_backbone, build_skeleton
from .models.building import build_model, queries_of
from .models.head import Head
from .models.heads import find_head
from .models.saved_models import build_processor, padding_divisor
from .models.warm_start import check_checkpoint, start_from
from .recipes.schema import Recipe


T = TypeVar("T")


@dataclass(frozen=True)
class Opened:
    """Data that were opened, looked at and found good before there was an experiment."""

    data: Data
    inspection: Inspection


class Experiment:
    """A recipe and what it names: its task, its data and its head.

    Args:
        head: in place of the recipe's, that of a model which is only measured.
        opened: the recipe's data, so that they are not opened again.

    Attributes:
        viewer: how its models look at pictures that they are measured on.
        confusion: which class was taken for which when a model was last measured, on the main process.
        size_divisor: height and width of every batch are multiples of it, for the recipe's sake and the head's.

    Raises:
        UserError: something that the recipe names is not there, or does not fit the rest.
    """

    def __init__(self, recipe: Recipe, head: Head | None = None, opened: Opened | None = None) -> None:
        self.recipe, self.opened = recipe, opened
        self.task = find_task(recipe.task)
        check_views(self.task, recipe.evaluation)
        self.head = head or find_head(recipe.head.name)
        self.size_divisor = padding_divisor(self.head, recipe.transforms)
        if head is None:
            self._check_model()
        self.data = load_data(recipe.data, self.task) if opened is None else opened.data
        options = PredictionOptions(things=self.data.things, max_detections=recipe.evaluation.max_detections)
        self.viewer = Viewer(self.head, self.task, recipe.evaluation, options)
        self.validation = self.evaluation_set(self.data.validation)
        self.facts: dict[str, Facts] = {}
        self.confusion: Confusion | None = None

    def look_at_data(self, *keys: str) -> None:
        """Find out, on the main process for all, what the splits of these keys hold, and how their files are read.

        Args:
            keys: such as `train_split`, of which the facts are kept.

        Raises:
            UserError: on every process, where there is nothing to be learnt or measured.
        """
        inspection = from_main_process(lambda: self._inspected(keys))
        self.facts = inspection.facts
        if inspection.options != self.recipe.data:
            self.recipe = dataclasses.replace(self.recipe, data=inspection.options)
            self.data = load_data(inspection.options, self.task)
            self.validation = self.evaluation_set(self.data.validation)

    def data_record(self) -> dict[str, Any]:
        """What the splits that were looked at hold, as JSON has it."""
        return {key: facts.plain() for key, facts in self.facts.items()}

    def count_skipped(self, *names: str) -> dict[str, int]:
        """How many different bad samples of the splits all processes have passed over; they call it together.

        Args:
            names: such as `train`.
        """
        splits = {name: getattr(self.data, name) for name in names}
        places = {name: split.skipped.nonzero().flatten().tolist() for name, split in splits.items()}
        everywhere = gather_object([places])
        return {name: len(set().union(*(each[name] for each in everywhere))) for name in names}

    def warn_of_skipped(self, drawn: int) -> bool:
        """Say it if this process has skipped many training samples while it drew so many; whether it was said."""
        return self._warn_of_skipped("train", drawn, self.data.train.num_skipped)

    def warn_of_all_skipped(self, drawn: int, counts: Mapping[str, int]) -> None:
        """The same of every split at the end, where all processes have drawn so many and skipped `counts`."""
        for name, count in counts.items():
            self._warn_of_skipped(name, drawn if name == "train" else None, count)

    def _warn_of_skipped(self, name: str, drawn: int | None, skipped: int) -> bool:
        split, most = getattr(self.data, name), None if drawn is None else drawn + skipped
        total = most if most is not None and isinstance(split, Stream) else len(split)
        where = f"data.{name}_split={getattr(self.recipe.data, f'{name}_split')}"
        return warn_of_skipped(where, skipped, total if most is None else min(total, most))

    def _inspected(self, keys: tuple[str, ...]) -> Inspection:
        if self.opened is not None and self.opened.inspection.facts.keys() >= {*keys}:
            inspection = self.opened.inspection
        else:
            inspection = inspect(self.recipe.data, self.task, self.data, keys)
            check(inspection, self.data.labels)
        for line in describe(inspection, self.recipe.data, self.data.labels):
            tqdm.write(line, file=sys.stderr)
        return inspection

    def _check_model(self) -> None:
        """Find what is wrong of backbone and head before the data are read, which may take minutes."""
        backbone = build_skeleton(self.recipe.backbone, self.head.out_features)
        if self.recipe.head.checkpoint is not None:
            check_checkpoint(self.head, self.recipe.head.checkpoint)
        with torch.device("meta"):
            build_model(self.recipe.head, backbone, ["one class", "another"], self.task)

    def evaluation_set(self, split: Split) -> EvaluationSet:
        """The samples of a split as they are measured."""
        return EvaluationSet(split, EvaluationTransform(self.recipe.transforms))

    def training_stream(self) -> TrainingStream:
        """The samples of the training split as they are learnt, without an end."""
        return TrainingStream(self.data.train, TrainingTransform(self.recipe.transforms), self.recipe.seed)

    def new_metric(self) -> Metric:
        """The metric of the task, with nothing counted yet."""
        limits = [self.recipe.evaluation.max_detections] if self.task.limits_detections else []
        return self.task.metric(self.data.labels, self.data.things, *limits)

    def build_model(self) -> PreTrainedModel:
        """The recipe's head round its backbone: the weights that `checkpoint` of either brings, and random ones."""
        recipe, data = self.recipe, self.data
        backbone = build_backbone(recipe.backbone, self.head.out_features)
        model = build_model(recipe.head, backbone, data.labels, self.task, data.things, data.category_ids)
        if recipe.head.checkpoint is not None:
            start_from(model, self.head, recipe.head.checkpoint)
        self.warn_of_limits(model)
        return model

    def warn_of_limits(self, model: PreTrainedModel) -> None:
        """Say it on the main process if pictures hold more than a model can find, or than is measured."""
        most = self.recipe.evaluation.max_detections if self.task.limits_detections else None
        if self.facts and PartialState().is_main_process:
            warn_of_limits(self.facts, self.recipe.data, queries_of(model), most)

    def loss_inputs(self, batch: Batch) -> Tensors:
        """The keyword arguments of a model with which its output has a loss."""
        return self.head.loss_inputs(batch, self.task)

    def processor(self) -> BaseImageProcessor:
        """What prepares an image for the model as the evaluation does."""
        recipe = self.recipe
        processor = build_processor(recipe.head, recipe.transforms, recipe.data.known_intensity)
        keep_windows(processor, recipe.evaluation)
        return processor

    def measure(self, accelerator: Accelerator, model: nn.Module, samples: EvaluationSet) -> Numbers:
        """What the task's metric says of the model on all of the samples, the same numbers on every process."""
        # Dealt out by hand: Accelerate would repeat samples to make the processes' shares equal, and count them twice.
        indices = range(accelerator.process_index, len(samples), accelerator.num_processes)
        batches = evaluation_loader(samples, indices, self.recipe.data.workers, size_divisor=self.size_divisor)
        with accelerator.autocast():
            metric = measure(accelerator, model, self.viewer, batches, self.new_metric)
        if accelerator.is_main_process and hasattr(metric, "confusion"):
            self.confusion = metric.confusion()
        return metric.compute()

    def draw(self, accelerator: Accelerator, model: PreTrainedModel) -> Image.Image | None:
        """What the model sees in samples from all over the validation split; None if none is good."""
        with accelerator.autocast():
            return draw_predictions(model, self.viewer, self.validation, self.data.labels, self.size_divisor)


def from_main_process(work: Callable[[], T]) -> T:
    """What `work` returns on the main process, on all of them; its `UserError` ends all of them."""
    outcome: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            outcome = [work()]
        except UserError as error:
            outcome = [error]
    (found,) = broadcast_object_list(outcome)
    if isinstance(found, UserError):
        raise found
    return found
