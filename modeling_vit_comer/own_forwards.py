"""Another `forward` for a module that a library has built."""

from functools import cache
from typing import ClassVar

from torch import nn


class OwnForward(nn.Module):
    """Mixin: a `forward` of ours on a module of timm or transformers, which stays what it was in all else.

    A trunk needs other computations than the library's of some modules' weights. They are this module's call, because
    whatever hooks, gathers, offloads or adapts a module has its weights ready, and looks, while it is called.
    """

    classes: ClassVar[tuple[type["OwnForward"], type[nn.Module]]]
    """This mixin's class, and the library's."""

    def __reduce__(self) -> tuple:
        return new_module, self.classes, self.__getstate__()


@cache
def mixed(mixin: type[OwnForward], library_class: type[nn.Module]) -> type[nn.Module]:
    """The class of a library with the `forward` of a mixin, under the name of that."""
    classes = (mixin, library_class)
    return type(mixin.__name__, classes, {"__module__": mixin.__module__, "classes": classes})


def new_module(mixin: type[OwnForward], library_class: type[nn.Module]) -> nn.Module:
    """One without weights, whose state a pickle or a copy brings."""
    module_class = mixed(mixin, library_class)  # type: ignore[arg-type]  # mypy: the hash of a class is its modules'
    return module_class.__new__(module_class)


def give_forward(module: nn.Module, mixin: type[OwnForward]) -> None:
    """Let a module's call be that of `mixin`. Weights, their names and first values, and hooks stay."""
    module.__class__ = mixed(mixin, type(module))  # type: ignore[arg-type]  # the same
