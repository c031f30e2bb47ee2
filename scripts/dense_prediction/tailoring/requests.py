"""What a person asks a training for. Nothing that takes seconds to import is, so that a typo is answered at once."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import UserError
from ..recipes.keys import dotted_fields, neighbours
from ..recipes.loading import experiment_name, load_recipe
from ..recipes.schema import Recipe
from ..recipes.shipped import find_recipe, recipe_names


@dataclass(frozen=True)
class Request:
    """A recipe or a task, the data, and changes.

    Attributes:
        source: path of a recipe, the name of one, the output folder of a run, or a task.
        data: folder, file or Hub id of data that are to be recognised; None for those of the recipe.
        overrides: `key=value`, as they were typed.

    Raises:
        UserError: a task without data, or something in the recipe or the changes that is wrong whatever the data are.
    """

    source: str
    data: str | None = None
    overrides: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.is_task and self.data is None:
            raise UserError(
                f"{self.source} is a task: say on which data with --data FOLDER (in Python data=FOLDER), or give the "
                "name of a recipe"
            )
        self._refuse_misspelt_task()
        if self.data is not None:
            self._check_data_keys()
        _ = self.recipe

    @property
    def is_task(self) -> bool:
        """Whether all settings are to follow from the data."""
        return self.source in own_data_recipes()

    @property
    def base(self) -> str:
        """The recipe that the changes are made to."""
        return own_data_recipes().get(self.source, self.source)

    @property
    def name(self) -> str | None:
        """Of the recipe that comes of it, if it has another name than the base."""
        if self.data is None:
            return None
        if self.is_task:
            return f"{self.source}/{data_name(self.data)}"
        is_run = Path(self.source).expanduser().is_dir()
        own = load_recipe(self.source).name if is_run else experiment_name(find_recipe(self.source))
        return f"{own}_{data_name(self.data)}"

    @cached_property
    def recipe(self) -> Recipe:
        """The base with the changes; with other data, as far as it can be told without having seen them."""
        return load_recipe(self.base, self._changes(), name=self.name)

    @property
    def typed(self) -> set[str]:
        """The keys of the changes."""
        return {override.partition("=")[0] for override in self.overrides}

    @property
    def format(self) -> str | None:
        """Of the data, where it was typed."""
        typed = [each for each in self.overrides if each.startswith("data.format=")]
        return typed[-1].partition("=")[2] if typed else None

    def _changes(self) -> Sequence[str]:
        """Those that can be checked before the data are recognised."""
        changes = [each for each in self.overrides if self.data is None or not each.startswith("data.")]
        return [*self.neutral, *changes]

    @property
    def neutral(self) -> list[str]:
        """What the base of a task says of its length and its trunk, so changed that others may be typed."""
        if not self.is_task:
            return []
        log_every = next((each for each in self.overrides if each.startswith("training.log_every=")), "=1")
        fields = {"optimization.warmup_steps": "0", "training.log_every": "1"}
        fields["training.checkpoint_every"] = log_every.partition("=")[2]
        if "training.epochs" in self.typed:
            fields["training.steps"] = "null"
        if "backbone.checkpoint" in self.typed:
            fields |= {"backbone.config": "null", "backbone.trunk": "null"}
        if "backbone.trunk_weights" in self.typed:
            fields["backbone.trunk"] = "null"
        return [f"{key}={value}" for key, value in fields.items() if key not in self.typed]

    def _check_data_keys(self) -> None:
        """Which of them the format of the data has, is known when they are."""
        known = {name for name, _ in dotted_fields() if name.startswith("data.")}
        for key in sorted(self.typed):
            if key in ("data", "data.path"):
                raise UserError(f"--data and {key}=... both say which data: give one of them")
            if key.startswith("data.") and not any(key == name or key.startswith(f"{name}.") for name in known):
                raise UserError(f"unknown key {key!r}{neighbours(key)}")

    def _refuse_misspelt_task(self) -> None:
        close = difflib.get_close_matches(self.source, own_data_recipes(), n=1)
        if self.is_task or not close or Path(self.source).exists():
            return
        raise UserError(f"there is no task {self.source!r}; did you mean {close[0]}?")


def own_data_recipes() -> dict[str, str]:
    """What each task starts from: the one recipe of its folder `custom`, which says nothing of any data."""
    names = [name.split("/") for name in recipe_names()]
    return {parts[0]: "/".join(parts) for parts in names if parts[1:-1] == ["custom"]}


def data_name(source: str) -> str:
    """What data are called in the name of an output folder: `my_data` of /a/my_data, my_data.zip and org/my_data."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() != ".zip":
        path = path.absolute().parent  # the name of an annotation file says little
    name = path.resolve().name if path.exists() else source.rstrip("/").rpartition("/")[2]
    name = name if path.is_dir() else re.sub(r"\.zip$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "data"
