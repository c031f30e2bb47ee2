"""A run's report: on the console and as a page beside its results."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedModel

from ..atomic_files import write_text
from ..data.samples import Stream
from ..drawing.pages import contact_sheet
from ..evaluation.tables import align
from ..experiment import Experiment
from ..recipes.settings import Setting
from ..seeds import kept_randomness
from . import outline
from .course import Course
from .files import CONFUSION, CURVE, REPORT
from .forecast import Forecast, duration
from .html import figure, folded, page, paragraph, section, table
from .outline import Looked, Plan
from .survey import Cell, survey


SPLITS = ("train", "validation")
MOST_CLASSES = 20
"""On the console; the page has all."""


class Report:
    """What is told of a run, by its main process alone.

    Args:
        model: not the wrapper of several processes.
        predictions: where a picture of what the best model sees is, once there is one.
        settings: what of the recipe follows from the data, and why.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: PreTrainedModel,
        plan: Plan,
        forecast: Forecast,
        predictions: Path,
        settings: Sequence[Setting] = (),
    ) -> None:
        self.experiment, self.recipe = experiment, experiment.recipe
        self.output = Path(self.recipe.output)
        self.model, self.plan, self.settings = model, plan, settings
        self.predictions = predictions
        self.forecast, self.is_forecast = forecast, False
        self.splits: list[Looked] = []
        self.fixed: list[str] = []

    def begin(self, course: Course) -> None:
        """Look at some pictures, print what there is to say before the first step, and write the page."""
        with kept_randomness():
            self.splits = [self._looked(name) for name in SPLITS]
            self.fixed = self._sections()
        tqdm.write("\n".join(self._lines()))
        self.write(course)

    def tell_time(self, course: Course, steps_left: int) -> None:
        """Say once how long the run is going to take, as soon as that is known."""
        if self.forecast.seconds_per_step is not None and not self.is_forecast:
            self.is_forecast = True
            tqdm.write(f"about {self._expected(steps_left)}")
            self.write(course)

    def write(self, course: Course) -> None:
        """Write the page, and the pictures of what has come of the run so far."""
        shown = None
        if course.best is not None and self.predictions.is_file():
            with Image.open(self.predictions) as opened:
                shown = opened.convert("RGB")
        for name, picture in ((CURVE, course.chart()), (CONFUSION, course.confusion_picture())):
            if picture is not None:
                picture.save(self.output / name)
        sections = [*course.sections(shown), *self.fixed, self._time_section()]
        write_text(self.output / REPORT, page(self.recipe.name, course.lead(), sections))

    def _looked(self, name: str) -> Looked:
        split = getattr(self.experiment.data, name)
        length = None if isinstance(split, Stream) else len(split)
        seen = survey(split, self.recipe.transforms if name == "train" else None)
        return Looked(name, length, self.experiment.facts.get(f"{name}_split"), seen)

    def _expected(self, steps_left: int) -> str:
        """Of which early stopping may spare a part."""
        seconds = self.forecast.seconds_per_step or 0.0
        evaluations = -(-steps_left // self.recipe.training.evaluate_every)
        most = " at most" if self.recipe.training.early_stopping else ""
        return (
            f"{duration(seconds * steps_left)} left{most} for {steps_left:,} steps of {seconds:.2g} s each; "
            f"evaluations are not counted, of which there are {evaluations:,}"
        )

    def _lines(self) -> list[str]:
        """What a person reads in the console."""
        labels = self.experiment.data.labels
        rows = outline.class_rows(self.splits, labels)
        lines = [align(outline.most_frequent(rows, self.splits, labels, MOST_CLASSES))] if rows else []
        if rows and len(labels) > MOST_CLASSES:
            lines.insert(0, f"the {MOST_CLASSES} most frequent of {len(labels)} classes; {REPORT} has all")
        lines += [f"{split.name.ljust(10)}  {outline.in_words(split)}" for split in self.splits]
        counts = outline.counted(self.model)
        numbers = {name: outline.millions(count) for name, count in counts.items()}
        lines.append(f"model       {numbers['all']} parameters, {numbers['trained']} of them trained")
        told = dict(outline.plan_rows(self.recipe, self.plan)[1:])
        lines.append(
            f"device      {told['device']}; {told['precision']}; deformable attention: {told['deformable attention']}"
        )
        lines.append(f"steps       {told['steps']}, evaluations {told['evaluations']}")
        return [*lines, f"report      {self.output / REPORT}"]

    def _sections(self) -> list[str]:
        """Of the page, those that do not change while the run goes on."""
        labels, data = self.experiment.data.labels, self.recipe.data
        settings = [[each.key, json.dumps(each.value), each.reason] for each in self.settings]
        recipe = json.loads(json.dumps(dataclasses.asdict(self.recipe)))
        return [
            section(
                "Data",
                paragraph(f"{data.path}, read as data.format={data.format}"),
                table(outline.split_rows(self.splits), of_words=True),
                table(outline.class_rows(self.splits, labels)),
            ),
            *self._sheets(),
            section(
                "Settings that follow from the data", table([["setting", "value", "reason"], *settings], of_words=True)
            ),
            section(
                "Model and machine",
                table(outline.parameter_rows(self.model)),
                table(outline.plan_rows(self.recipe, self.plan), of_words=True),
            ),
            section(
                "Recipe", folded("all of it, as YAML", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
            ),
        ]

    def _sheets(self) -> Iterator[str]:
        """Pictures of the training split."""
        seen = self.splits[0].survey
        if seen is None or seen.smallest is None or seen.most_crowded is None:
            return
        yield self._sheet("What is annotated", seen.shown, "Pictures of the training split, from all over it.")
        yield self._sheet("What is learnt", seen.learnt, "The same as augmentation may change them.")
        extremes = [seen.smallest.cell, seen.most_crowded.cell]
        caption = f"The smallest and the most crowded one of {seen.looked_at} training pictures that were read."
        yield self._sheet("The smallest and the most crowded picture", extremes, caption)

    def _sheet(self, title: str, cells: Sequence[Cell], caption: str) -> str:
        picture = contact_sheet(cells, self.experiment.data.labels, self.experiment.task.draw)
        return section(title, figure(picture, caption, is_photo=True))

    def _time_section(self) -> str:
        seconds = self.forecast.seconds_per_step
        if seconds is None:
            return ""
        whole = duration(seconds * self.plan.steps)
        return section(
            "Time", paragraph(f"{seconds:.2g} s a step, measured on the first ones: {whole} for all steps.")
        )
