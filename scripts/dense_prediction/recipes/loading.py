"""From YAML files and `key=value` arguments to a checked `Recipe`."""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ..errors import UserError
from ..options import Tree, merge
from .schema import Recipe


_RECIPES_FOLDER = "recipes"


class _Loader(yaml.SafeLoader):
    """YAML with the plain values of version 1.2: 1e-4 is a number, and `no` or 2024-05-01 are words.

    PyYAML follows version 1.1, in which 1e-4 is a word, `no` is false and 2024-05-01 a date.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), "-+.0123456789"
)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the YAML file `path`, changed by `overrides` such as `"training.steps=100"`.

    Raises:
        UserError: a file is missing or no YAML; a key is unknown; a value is of the wrong type or out of its range.
    """
    name = experiment_name(path)
    tree = _read(path, ())
    for override in overrides:
        _apply(tree, override)
    if "name" in tree:
        raise UserError(f"name is not to be set: the path of the recipe names it, here {name!r}")
    return _validate({**tree, "name": name})


def experiment_name(path: Path) -> str:
    """`.../recipes/semantic_segmentation/x/y.yaml` -> `semantic_segmentation/x/y`; elsewhere the file's stem."""
    parts = path.resolve().with_suffix("").parts
    if _RECIPES_FOLDER not in parts:
        return parts[-1]
    last = len(parts) - 1 - parts[::-1].index(_RECIPES_FOLDER)
    return "/".join(parts[last + 1 :])


def dotted_fields(cls: type = Recipe, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every key that a recipe or a `key=value` may set, with its dataclass field."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from dotted_fields(field.type, f"{prefix}{field.name}.")
        elif prefix + field.name != "name":
            yield prefix + field.name, field


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What a key of `dotted_fields` is unless it is set; of `output`, with RECIPE for the recipe's name."""
    return field.default.get_default(call_default_factory=True, validated_data={"name": "RECIPE"})


def _read(path: Path, readers: tuple[Path, ...]) -> Tree:
    """The tree of `path` merged over those of its `base:` files, which are relative to `path` and merged in order."""
    path = path.resolve()
    if path in readers:
        raise UserError(f"{path} is its own base, through {' -> '.join(str(reader) for reader in readers)}")
    tree = _parse(path)
    bases = tree.pop("base", [])
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{path}: base must be a list of YAML paths, got {bases!r}")
    merged: Tree = {}
    for base in bases:
        merged = merge(merged, _read(path.parent / base, (*readers, path)))
    return merge(merged, tree)


def _parse(path: Path) -> Tree:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"the recipe {path} must hold `key: value` lines, got {type(tree).__name__}")
    return tree


def _apply(tree: Tree, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"expected key=value, got {override!r}; for example training.steps=100")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{key}: cannot read the value {text!r}") from error
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UserError(f"{key}: {parent} is a value, it has no fields{_neighbours(key)}")
    tree[leaf] = value


def _validate(tree: Tree) -> Recipe:
    try:
        return TypeAdapter(Recipe).validate_python(tree)
    except ValidationError as error:
        raise UserError("; ".join(_explain(details) for details in error.errors())) from error


def _explain(details: ErrorDetails) -> str:
    key = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "unexpected_keyword_argument":
            return f"unknown key {key!r}{_neighbours(key)}"
        case "missing":
            return f"{key} is required: set it in the recipe or add {key}=... to the command"
        case "value_error":
            return f"{key}: {details['ctx']['error']}".removeprefix(": ")
        case _:
            return f"{key}: got {details['input']!r} ({type(details['input']).__name__}): {details['msg']}"


def _neighbours(key: str) -> str:
    """`; did you mean ...` with the known keys that look like `key`, or whose last part looks like its last part."""
    known = [name for name, _ in dotted_fields()]
    close = difflib.get_close_matches(key, known, n=3)
    leaves = difflib.get_close_matches(key.split(".")[-1], {name.split(".")[-1] for name in known}, n=2)
    close += [name for name in known if name.split(".")[-1] in leaves]
    return f"; did you mean {' or '.join(dict.fromkeys(close[:4]))}?" if close else "; --help lists all keys"
