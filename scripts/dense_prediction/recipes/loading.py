"""From YAML files and `key=value` arguments to a checked `Recipe`."""

import copy
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ..data.annotations.text_files import read_lines
from ..data.formats import format_of, formats_with
from ..errors import UserError
from ..options import Tree, merge
from .compatibility import modernized, with_preset_name, without_foreign_keys
from .keys import neighbours
from .runs import RECIPE, written_recipe
from .schema import Recipe
from .shipped import RECIPES, configuration_folder, find_recipe
from .yaml_1_2 import Loader


def load_recipe(
    recipe: str | Path, overrides: Sequence[str] = (), *, data: Tree | None = None, name: str | None = None
) -> Recipe:
    """A recipe, changed by `overrides` such as `"training.steps=100"`.

    Args:
        recipe: path of a YAML file, name of a recipe that comes with the package, or output folder of a run.
        data: in place of what the recipe says of its data.
        name: in place of the recipe's; where its output is named after it, that is too.

    Raises:
        UserError: a file is missing or no YAML; a key is unknown; a value is of the wrong type or out of its range.
    """
    written = _written(recipe)
    if data is not None:
        written = written | {"data": data}
    if name is not None:
        written = {key: value for key, value in written.items() if key != "output"} | {"name": name}
    tree = copy.deepcopy(written)
    for override in overrides:
        _apply(tree, override)
    typed = {override.partition("=")[0] for override in overrides}
    of_own_data = set() if "data" in typed else {key for key in ONE_DATA_SET if f"data.{key}" not in typed}
    return _validate(_in_one_format(_without_its_data(tree, written, of_own_data), written))


def _written(recipe: str | Path) -> Tree:
    """What a recipe says, with its name."""
    if (folder := Path(recipe).expanduser()).is_dir():
        # The folder may have been moved since, and what goes on has its output where it is now.
        return modernized(_written_by_run(folder)) | {"output": str(folder)}
    path = find_recipe(recipe)
    return {"name": experiment_name(path)} | modernized(_read(path, ()))


def _written_by_run(folder: Path) -> Tree:
    """Of `recipe.yaml`, which is there from the first step on, else of `results.json`, with its name."""
    path = folder / RECIPE
    return {"name": experiment_name(path)} | _read(path, ()) if path.is_file() else written_recipe(folder)


PLACES = ("format", "images", "masks", "annotations")
"""What says where data are, below a path that differs from machine to machine."""

ONE_DATA_SET = ("bad_samples", "exif_orientation")
"""What is known of the data at such places, and is true of no other."""


def resolve(tree: Tree) -> Recipe:
    """A recipe that a run has written down, with its name, such as in results.json; by this version or one before.

    Raises:
        UserError: a key is unknown, a value is of the wrong type or out of its range, or a label file is missing.
    """
    return _validate(modernized(tree))


def experiment_name(path: Path) -> str:
    """`.../recipes/semantic_segmentation/x/y.yaml` -> `semantic_segmentation/x/y`; elsewhere the file's stem."""
    parts = path.resolve().with_suffix("").parts
    if RECIPES not in parts:
        return parts[-1]
    last = len(parts) - 1 - parts[::-1].index(RECIPES)
    return "/".join(parts[last + 1 :])


def _read(path: Path, readers: tuple[Path, ...]) -> Tree:
    """The tree of `path` merged over those of its `base:` files, which are relative to `path` and merged in order."""
    path = path.resolve()
    if path in readers:
        raise UserError(f"{path} is its own base, through {' -> '.join(str(reader) for reader in readers)}")
    tree = _with_label_names(_parse(path), path.parent)
    bases = tree.pop("base", [])
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{path}: base must be a list of YAML paths, got {bases!r}")
    merged: Tree = {}
    for base in bases:
        merged = _merge_files(merged, _read(path.parent / base, (*readers, path)))
    merged.pop("name", None)  # of a base
    return _merge_files(merged, tree)


def _merge_files(below: Tree, above: Tree) -> Tree:
    """`below` with the values of `above`; where that has its data elsewhere, what `below` says of its own goes."""
    data, merged = above.get("data"), merge(below, above)
    said = data.keys() if isinstance(data, dict) else ()
    return _without_its_data(merged, below, {key for key in ONE_DATA_SET if key not in said})


def _without_its_data(tree: Tree, before: Tree, keys: Collection[str]) -> Tree:
    """Without `data.{key}` for each of the keys, where the data are at other places than they were."""
    data, old = tree.get("data"), before.get("data")
    if not isinstance(data, dict) or not isinstance(old, dict):
        return tree
    if not any(place in old and _is_moved(old[place], data.get(place)) for place in PLACES):
        return tree
    return tree | {"data": {key: value for key, value in data.items() if key not in keys}}


def _is_moved(old: Any, new: Any) -> bool:
    """Whether a place is another one; a place for one more split is not."""
    if isinstance(old, dict) and isinstance(new, dict):
        return any(new.get(split) != place for split, place in old.items())
    return bool(old != new)


def _with_label_names(tree: Tree, folder: Path) -> Tree:
    """With names in the place of a file of names, which is looked for in `folder` first."""
    data = tree.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("labels"), str):
        return tree
    return tree | {"data": data | {"labels": _read_names(data["labels"], folder)}}


def _read_names(file: str, folder: Path) -> list[str]:
    path = Path(file).expanduser()
    # The version before took all such paths from the working folder, which was that of a checkout.
    places = [parent / path for parent in (folder, Path(), configuration_folder().parent)]
    found = next((place for place in places if place.is_file()), places[0])
    try:
        return read_lines(found)
    except UserError as error:
        raise UserError(f"data.labels={file}: {error}") from error


def _parse(path: Path) -> Tree:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader)
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
        value = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{key}: cannot read the value {text!r}") from error
    if key == "name":
        raise UserError(f"name is not to be set: the path of the recipe names it, here {tree['name']!r}")
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UserError(f"{key}: {parent} is a value, it has no fields{neighbours(key)}")
    tree[leaf] = value


def _in_one_format(tree: Tree, written: Tree) -> Tree:
    """Where another format of data is typed, what the file says of its own alone goes."""
    data, before = tree.get("data"), written.get("data")
    if not isinstance(data, dict) or not isinstance(before, dict) or format_of(data) is format_of(before):
        return tree
    return tree | {"data": without_foreign_keys(data, lambda key, value: before.get(key) == value)}


def _validate(tree: Tree) -> Recipe:
    tree = _with_label_names(with_preset_name(tree), Path())
    try:
        return TypeAdapter(Recipe).validate_python(tree)
    except ValidationError as error:
        raise UserError("; ".join(_explain(details, tree) for details in error.errors())) from error


def _explain(details: ErrorDetails, tree: Tree) -> str:
    key = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "unexpected_keyword_argument":
            return f"unknown key {key!r}{_other_formats(key, tree) or neighbours(key)}"
        case "missing":
            return f"{key} is required: set it in the recipe or add {key}=... to the command"
        case "value_error":
            return f"{key}: {details['ctx']['error']}".removeprefix(": ")
        case _:
            return f"{key}: got {details['input']!r} ({type(details['input']).__name__}): {details['msg']}"


def _other_formats(key: str, tree: Tree) -> str:
    """` for data.format=...; data.format=... has it` for the end of a message, or nothing."""
    room, _, leaf = key.partition(".")
    if room != "data":
        return ""
    chosen, names = format_of(tree["data"]), formats_with(leaf)
    if chosen is None or not names:
        return ""
    return f" for data.format={chosen.format}; data.format={' or '.join(names)} has it"
