"""What a folder may be taken for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ...options import Tree
from ..options import some


Found = TypeVar("Found")

OUTLINED = ("object_detection", "instance_segmentation", "semantic_segmentation")
"""The tasks of objects that have outlines; for the last, these are painted."""

HELD_BACK = 0.2
"""Of the training pictures, where the data have no validation split."""


@dataclass(frozen=True)
class Candidate:
    """One reading of a folder.

    Attributes:
        format: the name of the format that reads it so.
        title: what people call it.
        tasks: the names of the tasks that it has samples for.
        data: what stands under `data:` of a recipe.
        words: what was found, for people.
        missing: why nothing can be made of it; nothing where something can.
    """

    format: str
    title: str
    tasks: tuple[str, ...] = ()
    data: Tree = field(default_factory=dict)
    words: str = ""
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.title}: {self.words}" if self.words else self.title


def in_words(counts: Mapping[str, int | None], what: str = "pictures") -> str:
    """`train 120 and validation 30 pictures`, and that a part is held back where only one split is there."""
    if not counts:
        return ""
    parts = [name if count is None else f"{name} {count:,}" for name, count in counts.items()]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    kept = "" if "validation" in counts else f", about {HELD_BACK:.0%} of train held back for validation"
    return f"{listed} {what}{kept}"


def classes_in_words(names: Iterable[str]) -> str:
    """`3 classes (a, b, c)`."""
    listed = list(names)
    return f"{len(listed)} class{'es' if len(listed) != 1 else ''} ({some(listed, 10)})"


def split_keys(splits: Iterable[str]) -> Tree:
    """What a recipe says of splits that are called train, validation and test here."""
    found = set(splits)
    keys: Tree = {"train_split": "train"}
    keys |= {"validation_split": "validation"} if "validation" in found else {"validation_share": HELD_BACK}
    return keys | ({"test_split": "test"} if "test" in found else {})


def as_splits(found: Mapping[str | None, Found]) -> dict[str, Found]:
    """By split: where none is called train, what says no split is learnt from, else validation, else test."""
    splits = dict(found)
    for other in (None, "validation", "test"):
        if "train" not in splits and other in splits:
            splits["train"] = splits.pop(other)
    order: tuple[str, ...] = ("train", "validation", "test")
    return {name: splits[name] for name in order if name in splits}
