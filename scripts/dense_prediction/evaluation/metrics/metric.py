"""What every metric offers to the evaluation."""

from typing import Any, Protocol


Annotation = dict[str, Any]
"""A prediction, or what a sample's annotators drew: a dict of tensors at the image's own size."""

Number = float | None
"""A measure in 0..1, or None where nothing was there to be measured: JSON has no NaN."""

Numbers = dict[str, Number | dict[str, Number]]


class Metric(Protocol):
    """Counts over images, and the numbers that follow from them.

    With a method `confusion` that returns a `mistakes.Confusion` it can be told which class is taken for which.

    Attributes:
        primary: the key of the number that tells which of two models is the better one.
        state: all that was counted; it can be pickled and merged into another metric of the same kind.
    """

    primary: str

    @property
    def state(self) -> Any: ...
    def update(self, prediction: Annotation, targets: Annotation) -> None: ...
    def merge(self, state: Any) -> None: ...
    def compute(self) -> Numbers: ...


def number(value: float) -> Number:
    """The value as JSON can hold it."""
    return None if value != value else float(value)
