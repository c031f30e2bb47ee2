"""Numbers that files give for ids, sides and flags: finite, of a sane size, and neither truth values nor words."""

import re
import reprlib
from typing import Any


LARGEST = 1e9
"""Of a coordinate in pixels, whatever the picture."""

LARGEST_ID = 2**63 - 1


class Fault(ValueError):
    """What is wrong with a value, said in a whole sentence."""


_DIGITS = re.compile(r"[-+]?\d{1,19}", re.ASCII)


def is_number(value: Any, largest: float = LARGEST) -> bool:
    """Whether it is an int or a float of at most this size; true and infinity are none, and NaN is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def short(value: Any) -> str:
    """The beginning of a value, for a message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # of a number of thousands of digits
        return f"a {type(value).__name__}"


def whole_number(value: Any) -> int:
    """5, 5.0 and "5" are 5.

    Raises:
        ValueError: it is something else, or takes more than 64 bits.
    """
    number = _whole(value)
    if number is None or abs(number) > LARGEST_ID:
        raise ValueError("expected a whole number")
    return number


def flag(value: Any) -> bool:
    """0, 1, false, true and null for false.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, int | float | None) or value not in (0, 1, None):
        raise ValueError("expected 0 or 1")
    return bool(value)


def _whole(value: Any) -> int | None:
    match value:
        case bool():
            return None
        case int():
            return value
        case float():
            return int(value) if value.is_integer() else None
        case str():
            return int(value) if _DIGITS.fullmatch(value.strip()) else None
        case _:
            return None
