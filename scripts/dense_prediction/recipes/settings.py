"""What a recipe says because the data are as they are."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """A value of a recipe that was derived, and why.

    Attributes:
        key: as it is typed, such as `training.steps`.
        value: as YAML has it.
        reason: half a sentence that names the facts it follows from, such as "164 pictures, 60 times each".
    """

    key: str
    value: Any
    reason: str
