"""Numbers of a metric as text that a person reads."""

from collections.abc import Sequence

from .metrics.metric import Number, Numbers


_CLASS = "class_"


def to_table(numbers: Numbers) -> str:
    """The numbers of all classes together, one a line, above a table with a line for each class."""
    overall = [(name, _show(value)) for name, value in numbers.items() if not isinstance(value, dict)]
    by_class = {name: values for name, values in numbers.items() if isinstance(values, dict)}
    return f"{_align(overall)}\n\n{_align(_rows(by_class))}"


def _rows(by_class: dict[str, dict[str, Number]]) -> list[Sequence[str]]:
    """A heading, then the name and the numbers of each class."""
    heading = ["class", *(name.removeprefix(_CLASS) for name in by_class)]
    labels = next(iter(by_class.values()))
    return [heading, *([label, *(_show(values[label]) for values in by_class.values())] for label in labels)]


def _align(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))] for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _show(value: Number) -> str:
    """A dash for what was not there to be measured."""
    return "-" if value is None else f"{value:.4f}"
