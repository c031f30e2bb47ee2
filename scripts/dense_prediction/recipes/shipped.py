"""The recipes that come with the package, found by their names from any folder."""

import difflib
from functools import cache
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import cast

from ..errors import UserError


RECIPES = "recipes"


@cache
def presets() -> ModuleType:
    """`modeling_vit_comer.presets`, which says where its files are, without the package round it: that brings torch.

    A mistake in a recipe is answered before anything is imported that takes seconds.
    """
    # None of these is None for files that are there, as those of a package are that is installed with this one.
    package = cast(ModuleSpec, find_spec("modeling_vit_comer"))
    path = Path(cast(str, package.origin)).with_name("presets.py")
    spec = cast(ModuleSpec, spec_from_file_location("presets_of_modeling_vit_comer", path))
    module = module_from_spec(spec)
    cast(Loader, spec.loader).exec_module(module)
    return module


def configuration_folder() -> Path:
    """Where `recipes/`, `labels/` and `backbones/` are."""
    return presets().configuration_folder()


def recipe_names() -> list[str]:
    """Such as `semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo`, in alphabetical order."""
    folder = configuration_folder() / RECIPES
    paths = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    return sorted(path.as_posix() for path in paths if path.parts[0] != "fragments")


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe.

    Args:
        recipe: its path, or the name of one that comes with the package, with `configuration/recipes/` before it or
            without, and with `.yaml` or without.

    Raises:
        UserError: there is none.
    """
    path = Path(recipe).expanduser()
    if path.is_file():
        return path
    name = path.as_posix().removeprefix(f"configuration/{RECIPES}/").removesuffix(".yaml")
    shipped = configuration_folder() / RECIPES / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    raise UserError(f"cannot read the recipe {path.absolute()}: No such file{_near(name)}")


def _near(name: str) -> str:
    """`; did you mean ...` with the recipes that are called almost so, or whose last part is."""
    names = recipe_names()
    leaves = difflib.get_close_matches(name.split("/")[-1], {known.split("/")[-1] for known in names}, n=2)
    close = difflib.get_close_matches(name, names, n=2) if "/" in name else []
    close += [known for leaf in leaves for known in names if known.endswith(f"/{leaf}")]
    found = list(dict.fromkeys(close))[:3]
    return f"; did you mean {' or '.join(found)}?" if found else f"; those of the package are called as {names[-1]}"
