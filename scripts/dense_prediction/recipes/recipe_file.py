"""`recipe.yaml` in a run's output folder: all that the run goes by, and why where it follows from the data."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..atomic_files import write_text
from ..options import Tree
from .runs import OF_ONE_START, RECIPE
from .schema import Recipe
from .settings import Setting
from .yaml_1_2 import Loader, dump_value


HEAD = """\
# What the run in this folder learns by. resume=auto goes on by it, and evaluate and predict need nothing else; as the
# recipe of another run it needs output=... What was derived from the data has its reason beside it.
"""

_BESIDE = "  # "
_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.-]+):(?: (?P<value>.*?))?(?:  # (?P<reason>.*))?")


def write_recipe(output: Path, recipe: Recipe, settings: Sequence[Setting] = ()) -> None:
    """Write the file; of a setting the reason only where the recipe has its value.

    A run that goes on passes the settings that `read_settings` found, so that their reasons stay.
    """
    tree = json.loads(json.dumps(dataclasses.asdict(recipe)))
    reasons = {setting.key: setting for setting in settings}
    lines = _lines({key: value for key, value in tree.items() if key not in OF_ONE_START}, reasons)
    write_text(output / RECIPE, HEAD + "".join(f"{line}\n" for line in lines))


def read_settings(output: Path) -> list[Setting]:
    """The values with a reason beside them in a run's folder; none where there is no such file."""
    path = output / RECIPE
    return list(_settings(path.read_text(encoding="utf-8"))) if path.is_file() else []


def _lines(tree: Tree, reasons: dict[str, Setting], prefix: str = "", indent: str = "") -> Iterator[str]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value and key not in reasons:
            yield f"{indent}{dump_value(name)}:"
            yield from _lines(value, reasons, f"{key}.", f"{indent}  ")
        else:
            yield f"{indent}{dump_value(name)}: {dump_value(value)}{_reason(reasons.get(key), value)}"


def _reason(setting: Setting | None, value: Any) -> str:
    if setting is None or json.loads(json.dumps(setting.value)) != value:
        return ""
    return f"{_BESIDE}{' '.join(setting.reason.split())}"


def _settings(text: str) -> Iterator[Setting]:
    parents: list[str] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:  # of a key in quotes, which is none of a recipe's own
            continue
        depth = len(match["indent"]) // 2
        parents = [*parents[:depth], match["key"]]
        if match["value"] and match["reason"]:
            yield Setting(".".join(parents), _value(match["value"]), match["reason"])


def _value(text: str) -> Any:
    return yaml.load(text, Loader)
