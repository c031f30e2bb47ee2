"""What every format gives: class names, and splits by their names."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .options import DataOptions
from .samples import Split


@dataclass(frozen=True)
class Source:
    """A dataset whose splits can be opened.

    Attributes:
        labels: class names in the order of their ids.
        things: ids of the countable classes.
        open_split: the name of a field of the recipe that names a split, such as `train_split` -> that split.
    """

    labels: list[str]
    things: frozenset[int]
    open_split: Callable[[str], Split]


def root_folder(recipe: DataOptions) -> Path:
    """`data.path`, which must be a folder."""
    folder = Path(recipe.path).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.path={recipe.path}: there is no folder {folder.resolve()}; set data.path=FOLDER")
    return folder


def split_path(recipe: DataOptions, field: str, key: str) -> Path:
    """Where `data.{field}`, one of images, masks and annotations, has the split that `data.{key}` names."""
    name, places = getattr(recipe, key), getattr(recipe, field)
    if name not in places:
        raise UserError(
            f"data.{key}={name}: data.{field} says no place for this split; set data.{field}.{name}=PATH below "
            f"{recipe.path}{known(places)}"
        )
    path = root_folder(recipe) / places[name]
    if not path.exists():
        raise UserError(f"data.{field}.{name}={places[name]}: {path.resolve()} does not exist")
    return path


def known(names: Iterable[str]) -> str:
    """`, it has a, b` for the end of a message, or nothing."""
    listed = ", ".join(names)
    return f", it has {listed}" if listed else ""
