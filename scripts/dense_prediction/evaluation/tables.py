"""Numbers of a metric as text that a person reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from .metrics.metric import Number, Numbers
from .metrics.mistakes import Mistake


MOST_CLASSES = 24
"""Of a table that is printed again and again; of more classes the best and the worst half are shown."""

_CLASS = "class_"

_NOTHING = "-"
"""For what was not there to be measured."""

_SHORT = {
    "iou": "IoU",
    "accuracy": "accuracy",
    "panoptic_quality": "PQ",
    "segmentation_quality": "SQ",
    "recognition_quality": "RQ",
}


def to_table(numbers: Numbers) -> str:
    """The numbers of all classes together, one a line, above a table with a line for each class."""
    overall = [(name, _show(value)) for name, value in numbers.items() if not isinstance(value, dict)]
    by_class = {name: values for name, values in numbers.items() if isinstance(values, dict)}
    return f"{align(overall)}\n\n{align(_rows(by_class))}"


def class_rows(numbers: Mapping[str, Any]) -> list[Sequence[str]]:
    """A heading in the words of papers, then name and numbers of each class: the best first, unmeasured ones last."""
    columns = {name.removeprefix(_CLASS): values for name, values in numbers.items() if isinstance(values, dict)}
    if not columns:
        return []
    first = next(iter(columns.values()))
    labels = dict.fromkeys(label for values in columns.values() for label in values)
    ranked = sorted(labels, key=lambda label: -1.0 if (value := first.get(label)) is None else value, reverse=True)
    rows = [[label, *(_show(values.get(label)) for values in columns.values())] for label in ranked]
    return [["class", *map(_in_words, columns)], *rows]


def class_table(numbers: Numbers, whereabouts: str, most: int = MOST_CLASSES) -> str:
    """`class_rows` as text, or nothing where no class has numbers of its own.

    Args:
        whereabouts: where the numbers of all classes are, such as "of them stand in results.json".
        most: classes that are shown, the best and the worst ones.
    """
    rows = class_rows(numbers)
    if not rows:
        return ""
    if len(rows) - 1 <= most:
        return align(rows)
    measured = [row for row in rows if row[1] != _NOTHING]
    upper, lower = most - most // 2, min(most // 2, max(0, len(measured) - 1 - most + most // 2))
    left_out = len(measured) - 1 - upper - lower
    lines = align([*measured[: 1 + upper], *measured[len(measured) - lower :]]).splitlines()
    if left_out > 0:
        lines.insert(1 + upper, f"... {left_out} classes between these")
    absent = len(rows) - len(measured)
    return "\n".join(
        [*lines, *([f"{absent} classes of which nothing was there"] if absent else []), f"all {whereabouts}"]
    )


def mistake_lines(mistakes: Sequence[Mistake], unit: str) -> str:
    """A line for each of some mistakes."""
    return "\n".join(
        f"{mistake.true} -> {mistake.found}: {mistake.amount:,} {unit}, {mistake.share:.1%}" for mistake in mistakes
    )


def _in_words(column: str) -> str:
    """`box_ap50` -> `box AP50`, `box_ap_at_300` -> `box AP at 300`."""
    if column in _SHORT:
        return _SHORT[column]
    return " ".join(word.upper() if word[:2] in ("ap", "ar") else word for word in column.split("_"))


def _rows(by_class: dict[str, dict[str, Number]]) -> list[Sequence[str]]:
    """A heading, then the name and the numbers of each class."""
    heading = ["class", *(name.removeprefix(_CLASS) for name in by_class)]
    labels = next(iter(by_class.values()))
    return [heading, *([label, *(_show(values[label]) for values in by_class.values())] for label in labels)]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells as text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))] for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _show(value: Number) -> str:
    return _NOTHING if value is None else f"{value:.4f}"
