"""Recipes that an earlier version wrote, or that were written for it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.formats import data_fields, format_of
from ..data.options import DataOptions
from ..options import Tree, fields_of
from .keys import default_of
from .shipped import presets


_PRESET = re.compile(r"(?:\./)?configuration/backbones/([^/]+)\.json")


def modernized(tree: Tree) -> Tree:
    """A recipe of version 0.1.0 in the form of today; one that is in that form stays as it is.

    There all formats of data had the same keys, and a run wrote all of them down: a key of another format goes if it
    says nothing, and in a recipe that a run wrote down, which has a name, in any case. Presets were called by the
    paths that their files have in a checkout. What was refused by default, a picture that EXIF turns, is now read as
    it was annotated.
    """
    if isinstance(data := tree.get("data"), dict):
        if data.get("exif_orientation") == "refuse":
            data = data | {"exif_orientation": fields_of(DataOptions)["exif_orientation"].default}
        data = without_foreign_keys(data, lambda key, value: "name" in tree or _is_default(key, value))
        tree = tree | {"data": data}
    return with_preset_name(tree)


def with_preset_name(tree: Tree) -> Tree:
    """With NAME in the place of `configuration/backbones/NAME.json`, unless there is another file."""
    backbone = tree.get("backbone")
    if not isinstance(backbone, dict) or "config" not in backbone:
        return tree
    return tree | {"backbone": backbone | {"config": _preset_name(backbone["config"])}}


def without_foreign_keys(data: Tree, may_go: Callable[[str, Any], bool]) -> Tree:
    """`data` of a recipe without those keys of other formats that may go, by their names and values."""
    cls = format_of(data)
    foreign = data_fields().keys() - fields_of(cls) if cls else ()
    return {key: value for key, value in data.items() if key not in foreign or not may_go(key, value)}


def _is_default(key: str, value: Any) -> bool:
    return value == default_of(data_fields()[key])


def _preset_name(config: Any) -> Any:
    match = _PRESET.fullmatch(str(config))
    if match is None or match[1] not in presets().preset_names():
        return config
    own, shipped = Path(config), presets().preset_path(match[1])
    return config if own.is_file() and own.read_bytes() != shipped.read_bytes() else match[1]
