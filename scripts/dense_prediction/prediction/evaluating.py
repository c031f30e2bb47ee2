"""A trained model measured on the data of a recipe."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any, cast

from transformers.image_processing_utils import BaseImageProcessor

from ..data.samples import Split
from ..errors import UserError, notes_of
from ..evaluation.metrics.metric import Numbers
from ..evaluation.metrics.mistakes import Confusion
from ..evaluation.tasks import find_task
from ..evaluation.views import check_views
from ..experiment import Experiment
from ..failures import SMALLER_PICTURES, is_out_of_memory
from ..models.building import check_fits
from ..models.heads import head_of
from ..models.saved_models import intensity_of, read_model
from ..recipes.runs import model_in
from ..recipes.schema import Recipe
from ..training.processes.accelerators import start_accelerator
from ..training.results import device_name, origin


_logger = logging.getLogger(__name__)


class Measurement:
    """A model measured on all samples of a split, on all processes that were started.

    Args:
        model: the folder of a model or of a run, or the name of such a repository on the Hub.
        split: "validation" or "test".

    Attributes:
        counts: how many pictures were measured and skipped, and how long it took.
        numbers: what the task's metric says.

    Raises:
        UserError: the model does not fit the recipe, or something that the recipe names is not there.
    """

    def __init__(self, recipe: Recipe, model: str | Path, split: str = "validation") -> None:
        check_views(find_task(recipe.task), recipe.evaluation)
        check_split(recipe, split)
        self.recipe, self.model, self.split = recipe, model_in(model), split
        self.accelerator = start_accelerator(recipe.training.mixed_precision)
        self._network, processor = read_model(self.model, self.accelerator.device)
        # Before the data are read, which may take long.
        check_normalization(processor, recipe)
        recipe = with_intensity_of(processor, recipe)
        self.experiment = Experiment(recipe, head_of(self._network))
        check_fits(self._network, self.experiment.data, self.experiment.task)
        self.experiment.look_at_data(f"{split}_split")
        self.experiment.warn_of_limits(self._network)
        self.recipe = self.experiment.recipe
        samples, started = self._samples(), time.perf_counter()
        self.numbers = self._measure(samples)
        self._warn_of_nothing()
        skipped = self.experiment.count_skipped(split)[split]
        seconds = round(time.perf_counter() - started, 1)
        if self.accelerator.is_main_process:
            self.experiment.warn_of_all_skipped(0, {split: skipped})
        self.counts = {"pictures": len(samples), "skipped": skipped, "seconds": seconds}

    def _samples(self) -> Split:
        data = self.experiment.data
        return cast(
            Split, data.validation if self.split == "validation" else data.test
        )  # `check_split` has seen to it

    def _measure(self, samples: Split) -> Numbers:
        try:
            return self.experiment.measure(self.accelerator, self._network, self.experiment.evaluation_set(samples))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"out of memory; {SMALLER_PICTURES}{notes_of(error)}") from error

    def _warn_of_nothing(self) -> None:
        primary = self.experiment.new_metric().primary
        if self.numbers[primary] is None and self.accelerator.is_main_process:
            _logger.warning("%s is null: nothing in the %s split was there to be found", primary, self.split)

    @property
    def confusion(self) -> Confusion | None:
        """Which class was taken for which, on the main process; None of a metric that cannot tell."""
        return self.experiment.confusion

    def content(self) -> dict[str, Any]:
        """The numbers, what was measured and on what, as JSON takes it."""
        recipe, accelerator = self.recipe, self.accelerator
        parts = ("data", "transforms", "evaluation")
        return {
            "name": recipe.name,
            "model": str(self.model),
            "task": recipe.task,
            "split": self.split,
            "recipe": {name: dataclasses.asdict(getattr(recipe, name)) for name in parts},
            "mixed_precision": recipe.training.mixed_precision,
            "device": device_name(accelerator.device),
            "processes": accelerator.num_processes,
            "data": self.experiment.data_record(),
            **origin(),
            **self.counts,
            "metrics": self.numbers,
            "confusion": None if self.confusion is None else self.confusion.plain(),
        }


def check_split(recipe: Recipe, split: str) -> None:
    """Refuse a split that the recipe does not name.

    Raises:
        UserError: for it.
    """
    if split not in ("validation", "test"):
        raise UserError(f"split={split}: choose validation or test, whose names the recipe says")
    if split == "test" and recipe.data.test_split is None:
        raise UserError("--split test: the recipe names no test split; set data.test_split=NAME")


def with_intensity_of(processor: BaseImageProcessor, recipe: Recipe) -> Recipe:
    """The recipe with what was black and white in the pictures of more than 8 bits that a model was trained on.

    Raises:
        UserError: the recipe says something else.
    """
    trained, asked = intensity_of(processor), recipe.data.known_intensity
    if asked is not None and trained != asked:
        learnt = "pictures of 8 bits" if trained is None else f"{list(trained)}; set it to that"
        raise UserError(f"data.intensity={list(asked)}, but the model was trained with {learnt}")
    return (
        recipe
        if trained is None
        else dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, intensity=trained))
    )


def check_normalization(processor: BaseImageProcessor, recipe: Recipe) -> None:
    """Refuse a recipe whose images look otherwise than those that the model was trained on.

    Raises:
        UserError: for these.
    """
    for name in ("image_mean", "image_std"):
        trained, asked = list(getattr(processor, name)), list(getattr(recipe.transforms, name))
        if trained != asked:
            raise UserError(f"transforms.{name}={asked}, but the model was trained with {trained}; set it to that")
