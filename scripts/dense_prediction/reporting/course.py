"""What has come of a run so far, as parts of its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..drawing.charts import curve
from ..drawing.matrices import MOST_NAMES, matrix, most_telling
from ..evaluation.metrics.mistakes import BACKGROUND, Confusion
from ..evaluation.tables import class_rows
from .html import figure, paragraph, section, table


MOST_MISTAKES = 12


@dataclass(frozen=True, kw_only=True)
class Course:
    """What was measured.

    Attributes:
        metric: the number that tells which model is the best one.
        curve: `step` and `loss`.
        evaluations: `step` and the numbers of the metric.
        best_step: of the best evaluation.
        confusion: of the best model, as `Confusion.plain` has it.
    """

    metric: str
    curve: Sequence[Mapping[str, float]]
    evaluations: Sequence[Mapping[str, Any]]
    best_step: int | None
    confusion: Mapping[str, Any] | None
    is_finished: bool

    @property
    def best(self) -> Mapping[str, Any] | None:
        return next((each for each in self.evaluations if each["step"] == self.best_step), None)

    def lead(self) -> str:
        """How far it is, in a line."""
        if self.best is None:
            return "Nothing has been measured yet."
        state = "The run has ended" if self.is_finished else f"At step {self.evaluations[-1]['step']}"
        return f"{state}: the best validation {self.metric} is {self.best[self.metric]:.4f}, at step {self.best_step}."

    def chart(self) -> Image.Image | None:
        """Loss and score over the steps; None before there is any."""
        losses = [(point["step"], point["loss"]) for point in self.curve]
        scores = [(each["step"], each[self.metric]) for each in self.evaluations if each[self.metric] is not None]
        return curve(losses, scores, self.metric, self.best_step) if losses or scores else None

    def confusion_picture(self) -> Image.Image | None:
        """What was taken for what, of many classes those that are confused most; None if nothing is known of it."""
        return None if self.confusion is None else draw_confusion(Confusion.of_plain(self.confusion))

    def sections(self, predictions: Image.Image | None) -> list[str]:
        """The parts of the page.

        Args:
            predictions: of the best model.
        """
        chart, parts = self.chart(), []
        if chart is not None:
            parts.append(section("Curve", figure(chart, "Loss and validation over the steps.", is_photo=False)))
        if self.best is not None:
            parts.append(section("By class, of the best model", table(class_rows(self.best))))
        parts.append(self._confusion_section())
        if predictions is not None:
            caption = "Pictures of the validation split, what is annotated in them, and what the best model sees."
            parts.append(section("Predictions", figure(predictions, caption, is_photo=True)))
        return parts

    def _confusion_section(self) -> str:
        picture = self.confusion_picture()
        if picture is None or self.confusion is None:
            return ""
        confusion = Confusion.of_plain(self.confusion)
        mistakes = confusion.mistakes()[:MOST_MISTAKES]
        rows = [[each.true, each.found, f"{each.amount:,}", f"{each.share:.1%}"] for each in mistakes]
        cut = len(confusion.true) > MOST_NAMES
        return section(
            "What is taken for what",
            paragraph(f"Counted are {self.confusion['rule']}. Shares are of all {confusion.unit} of the true class."),
            figure(picture, f"The {MOST_NAMES} most confused classes." if cut else "All classes.", is_photo=False),
            table([["true", "found as", confusion.unit, "share"], *rows]),
        )


def draw_confusion(confusion: Confusion) -> Image.Image:
    """Its picture: of many classes those that are confused most."""
    classes = sum(name != BACKGROUND for name in confusion.true)
    chosen = most_telling(confusion.counts, classes)
    rows = [*chosen, *range(classes, len(confusion.true))]
    columns = [*chosen, *range(classes, len(confusion.found))]
    names = [confusion.true[row] for row in rows], [confusion.found[column] for column in columns]
    shares, counts = (table[rows][:, columns] for table in (confusion.shares, confusion.counts))
    return matrix(shares, counts, *names, (f"true ({confusion.unit})", "found"))
