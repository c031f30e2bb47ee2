"""The one exception for mistakes that the user can put right."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in a recipe, in the data or on the command line; its text says what was seen and what to do."""


class named:  # noqa: N801, it is used as a function
    """A context in which an error says at which samples it came: a `UserError` at once, any other in a note."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception) or not self.names:
            return
        names = ", ".join(self.names)
        if isinstance(error, UserError):
            if any(name in str(error) for name in self.names):
                return
            raise UserError(f"{names}: {error}") from error
        error.add_note(f"at {names}")


def notes_of(error: BaseException) -> str:
    """` (at NAME)` of what `named` has noted."""
    notes = getattr(error, "__notes__", [])
    return f" ({'; '.join(notes)})" if notes else ""
