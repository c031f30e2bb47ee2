"""What the terms of a head's loss are divided by, so that several passes together make the loss of one batch.

A pass divides by its own objects or pixels, and one with few would weigh each of them more. While the function
`divide` of a head lasts, it divides by the mean of all passes of the step in their place: the mean of the passes'
losses is then that of one batch with all samples.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


Method = Callable[..., Any]


@dataclass(frozen=True)
class Counts:
    """What one pass has, or the passes of a step on average.

    Attributes:
        objects: boxes, masks, or pixels with a label.
        matches: queries that an object is matched with; None where only the model's predictions tell.
        queries: of all pictures.
    """

    objects: float
    matches: float | None = 0.0
    queries: float = 0.0

    def class_weight(self, no_object_weight: float) -> float:
        """The weights of all queries' classes: 1, and another one for those without an object."""
        matches = self.matches or 0.0
        return matches + no_object_weight * (self.queries - matches)


def count_matched(objects: list[int], num_queries: int) -> Counts:
    """Of pictures with so many objects each."""
    matches = sum(min(number, num_queries) for number in objects)
    return Counts(sum(objects), matches, num_queries * len(objects))


@contextmanager
def divide_whole(own: Counts, mean: Counts) -> Iterator[float]:
    """For a loss that is divided by its objects wholly: yields what it is to be multiplied with."""
    yield share(own.objects, mean.objects)


def share(own: float, mean: float) -> float:
    """What a term is multiplied with that has been divided by `own`, or by 1 where it is 0."""
    return max(own, 1.0) / mean


@contextmanager
def wrapped(owner: type, **wrappers: Callable[[Method], Method]) -> Iterator[None]:
    """While it lasts, the methods of a class are what `wrappers` make of them."""
    originals = {name: vars(owner)[name] for name in wrappers}
    for name, wrap in wrappers.items():
        setattr(owner, name, wrap(originals[name]))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(owner, name, original)


def weighing_classes(own: Counts, mean: Counts) -> Callable[[Method], Method]:
    """Of a loss of transformers whose cross entropy is divided by the weights of its queries' classes."""

    def wrap(loss_labels: Method) -> Method:
        def divided(self: Any, *args: Any) -> dict[str, Any]:
            factor = own.class_weight(self.eos_coef) / mean.class_weight(self.eos_coef)
            return {name: factor * term for name, term in loss_labels(self, *args).items()}

        return divided

    return wrap
