"""The formats of data: one file for each, with its options and its reader, and what several of them share."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic.fields import FieldInfo

from ...options import Tree, fields_of
from ..options import DataOptions


def formats() -> dict[str, type[DataOptions]]:
    """The options of each format by its name: those in this folder, and those that other modules define."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return dict(sorted((cls.format, cls) for cls in _subclasses(DataOptions) if "tasks" in vars(cls)))


def format_of(fields: Tree) -> type[DataOptions] | None:
    """The format of the data that a recipe describes, by `format` or, where nothing is read, by `path`; or None."""
    known = formats()
    named = known.get(str(fields.get("path")))
    return known.get(str(fields.get("format", DataOptions.format))) if named is None or named.has_path else named


def data_fields() -> dict[str, FieldInfo]:
    """Every key of every format, those that all have first."""
    fields = fields_of(DataOptions)
    for cls in formats().values():
        fields |= {key: field for key, field in fields_of(cls).items() if key not in fields}
    return fields


def formats_with(key: str) -> list[str]:
    """The names of the formats that have a key."""
    return [name for name, cls in formats().items() if key in fields_of(cls)]


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
