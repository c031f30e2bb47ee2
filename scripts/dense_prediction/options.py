"""What the option classes of all rooms share: ranges of numbers, trees of values, and what fields there are."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.fields import FieldInfo


FORBID_UNKNOWN = ConfigDict(extra="forbid")

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

Tree = dict[str, Any]


def merge(below: Tree, above: Tree) -> Tree:
    """`below` with the values of `above`; trees that both have are merged."""
    merged = dict(below)
    for key, value in above.items():
        both_trees = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_trees else value
    return merged


def flatten(tree: Tree, prefix: str = "") -> Tree:
    """Nested dicts as one, with dotted keys."""
    flat: Tree = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def fields_of(cls: type[Any]) -> dict[str, FieldInfo]:
    """The fields of a class of options, in the order in which they are defined."""
    return dict(cls.__pydantic_fields__)
