"""The heads that can be trained: a module for each name, whose `HEAD` says all that a training needs to know of it.

Nothing of torch is imported here: recipes are checked, and `--help` is answered, before a head is needed.
"""

import difflib
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from ...errors import UserError


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from ..head import Head

_registered: dict[str, "Head"] = {}


def register(name: str, head: "Head") -> None:
    """Let recipes name a head that is defined elsewhere; it goes before a module of the same name."""
    _registered[name] = head


def head_names() -> list[str]:
    """What `head.name` may be."""
    return sorted({*_registered, *(module.name for module in iter_modules(__path__))})


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: there is no such head.
    """
    names = head_names()
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(f"got {name!r}, which is no head: {hint}There are {', '.join(names)}")


def find_head(name: str) -> "Head":
    """The head of a name, of which alone the module is imported.

    Raises:
        UserError: there is no such head.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise UserError(f"head.name: {error}") from error
    return _registered[name] if name in _registered else import_module(f".{name}", __package__).HEAD


def all_heads() -> dict[str, "Head"]:
    """By their names."""
    return {name: find_head(name) for name in head_names()}


def known_head(model: "PreTrainedModel | PreTrainedConfig") -> "Head | None":
    """The head of which this is a model, or the config of one; None for other models, backbones among them."""
    names = {base.__name__ for base in type(model).__mro__}
    return next((head for head in all_heads().values() if names & {head.entry.model, head.entry.config}), None)


def head_of(model: "PreTrainedModel | PreTrainedConfig") -> "Head":
    """The head of which this is a model, or the config of one.

    Raises:
        KeyError: it is of none.
    """
    head = known_head(model)
    if head is None:
        raise KeyError(type(model).__name__)
    return head
