"""The keys of a recipe: which there are, what they mean, and which one was meant."""

import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from ..data.formats import data_fields, formats, formats_with
from ..data.options import DataOptions
from ..options import fields_of
from .schema import Recipe


def dotted_fields(cls: type[Any] = Recipe, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that a recipe or a `key=value` may set; of `data`, those of all formats."""
    for name, field in (data_fields() if cls is DataOptions else fields_of(cls)).items():
        if dataclasses.is_dataclass(field.annotation):
            yield from dotted_fields(field.annotation, f"{prefix}{name}.")
        elif prefix + name != "name":
            yield prefix + name, field


def default_of(field: FieldInfo) -> Any:
    """What a key of `dotted_fields` is unless it is set; of `output`, with RECIPE for the recipe's name."""
    return field.get_default(call_default_factory=True, validated_data={"name": "RECIPE"})


def describe_keys() -> str:
    """One line for every key: its name, which formats have it if not all, what it means, and its default."""
    return "\n".join(f"  {name:<37} {_formats(name)}{_describe(field)}" for name, field in dotted_fields())


def neighbours(key: str) -> str:
    """`; did you mean ...` with the known keys that look like `key`, or whose last part looks like its last part."""
    known = [name for name, _ in dotted_fields()]
    close = difflib.get_close_matches(key, known, n=3)
    leaves = difflib.get_close_matches(key.split(".")[-1], {name.split(".")[-1] for name in known}, n=2)
    close += [name for name in known if name.split(".")[-1] in leaves]
    return f"; did you mean {' or '.join(dict.fromkeys(close[:4]))}?" if close else "; --help lists all keys"


def _formats(key: str) -> str:
    names = formats_with(key.removeprefix("data.")) if key.startswith("data.") else []
    return f"of {', '.join(names)}: " if names and len(names) < len(formats()) else ""


def _describe(field: FieldInfo) -> str:
    if field.is_required():
        return f"{field.description} (required)"
    return f"{field.description} (default {default_of(field)})"
