"""What train.py and evaluate.py measured, read from the files that they wrote."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError


METRICS = {
    "panoptic_quality": "panoptic quality",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
    "box_ap": "box AP",
    "box_ap50": "box AP50",
    "mean_iou": "mean IoU",
    "mean_class_accuracy": "mean class accuracy",
    "pixel_accuracy": "pixel accuracy",
    "chance_mean_iou": "mean IoU of the most frequent class everywhere",
}
"""The numbers that a card shows, and what it calls them, the most telling first."""

CLASSES = {
    "class_iou": "IoU",
    "class_mask_ap": "mask AP",
    "class_box_ap": "box AP",
    "class_panoptic_quality": "panoptic quality",
}
"""The numbers of each class, and what a card calls them."""

TRAINING = ("name", "seed", "step", "seconds", "best_step", "evaluations", "device", "versions")
EVALUATION = ("name", "split", "metrics")
"""What the files have that train.py and evaluate.py write."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measured model.

    Attributes:
        name: of the recipe.
        split: that it was measured on.
        numbers: of the metric; of train.py's those of the best model, which it keeps.
        content: all that the file says.
    """

    name: str
    split: str
    numbers: dict[str, Any]
    content: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of their ids."""
        keys = (key for name in CLASSES for key, _ in _measured(name, self.numbers))
        return next((list(self.numbers[key]) for key in keys), [])

    @property
    def by_class(self) -> dict[str, dict[str, float | None]]:
        """What was measured of each class, by what a card calls it; None where there was nothing to be found."""
        return {label: self.numbers[key] for key, label in CLASSES.items() if key in self.numbers}


def read_result(path: Path) -> Result:
    """What train.py or evaluate.py measured.

    Raises:
        UserError: the file is missing, no JSON, or neither train.py's nor evaluate.py's.
    """
    content = read_json(path)
    of_evaluation = "metrics" in content
    if missing := [key for key in (EVALUATION if of_evaluation else TRAINING) if key not in content]:
        raise UserError(f"{path} is no result of train.py or evaluate.py: it has no {', '.join(missing)}")
    if of_evaluation:
        return Result(name=content["name"], split=content["split"], numbers=content["metrics"], content=content)
    best = [each for each in content["evaluations"] if each["step"] == content["best_step"]]
    if not best:
        raise UserError(f"{path}: the run has evaluated nothing yet, its best_step is {content['best_step']}")
    return Result(name=content["name"], split="validation", numbers=best[-1], content=content)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        UserError: the file is missing or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the result file {path}: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no result file: it holds a {type(content).__name__} instead of an object")
    return content


class Row(NamedTuple):
    """A number of one metric, over the seeds."""

    name: str
    label: str
    first: float
    mean: float
    lowest: float
    highest: float


def summarize(results: Sequence[Result]) -> list[Row]:
    """A row for each metric that every result has."""
    rows = []
    for metric, label in METRICS.items():
        for name, limit in _measured(metric, results[0].numbers) if results else ():
            rows += _row(name, label + limit, results)
    return rows


def _row(name: str, label: str, results: Sequence[Result]) -> list[Row]:
    """One, or none if a result lacks the number."""
    values = [result.numbers[name] for result in results if result.numbers.get(name) is not None]
    if len(values) < len(results):
        return []
    return [Row(name, label, values[0], sum(values) / len(values), min(values), max(values))]


def _measured(metric: str, numbers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The names that a metric has among the numbers, and what they say of it: `box_ap_at_300` is of 300 detections."""
    for name in numbers:
        if name == metric:
            yield name, ""
        elif match := re.fullmatch(rf"{metric}_at_(\d+)", name):
            yield name, f" of at most {match[1]} detections"
