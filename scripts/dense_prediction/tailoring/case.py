"""What a rule is, and what it may look at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.inspection.traits import Traits
from ..recipes.settings import Setting


@dataclass(frozen=True)
class Device:
    """What a run would use.

    Attributes:
        kind: cpu, cuda, ...
        cores: threads that compute on a CPU.
        memory: GiB that are free.
        has_bf16: whether it computes in bf16 itself.
        processes: how many learn together.
    """

    kind: str = "cpu"
    cores: int = 1
    memory: float = 8.0
    has_bf16: bool = False
    processes: int = 1

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"


@dataclass(frozen=True)
class Cost:
    """What was measured on the device with the settings that do not depend on it.

    Attributes:
        seconds: of learning one picture, by the precision, such as `{"no": 1.2, "bf16": 0.7}`.
        evaluation: seconds of measuring one picture.
        fixed: GiB whatever the batch; 0 where no record is kept of the memory.
        each: GiB more for each picture of a batch.
    """

    seconds: Mapping[str, float]
    evaluation: float = 0.1
    fixed: float = 1.0
    each: float = 0.1


@dataclass(frozen=True)
class Case:
    """All that a rule may look at.

    Attributes:
        most: objects in one picture of either split, or classes of label maps.
        validation: pictures of the validation split; None of a stream.
        values: of the recipe as it is so far, by dotted keys: what was typed, what was derived before, and what the
            recipe for one's own data says.
        typed: the keys of what was typed.
        device: where the run will be.
        statistics: mean and standard deviation of R, G, B in the pictures that the trunk was trained on, if known.
        cost: None before the step is measured.
    """

    task: str
    labels: tuple[str, ...]
    traits: Traits
    most: int
    validation: int | None
    values: Mapping[str, Any] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()
    device: Device = Device()
    statistics: tuple[list[float], list[float]] | None = None
    cost: Cost | None = None

    def __getitem__(self, key: str) -> Any:
        """The value of a key; None where the recipe does not say."""
        return self.values.get(key)

    def is_typed(self, key: str) -> bool:
        """Whether a key, or a tree that it stands in, was typed."""
        return any(key == typed or key.startswith(f"{typed}.") for typed in self.typed)

    @property
    def pictures(self) -> int:
        """Of the training split, or of those that were read of a stream."""
        return self.traits.pictures or self.traits.looked_at

    @property
    def measured(self) -> Cost:
        assert self.cost is not None, "the step is measured before the rules that need it"
        return self.cost

    @property
    def samples_per_step(self) -> int:
        """Pictures that all processes learn in one step."""
        return self["training.batch_size"] * self["training.gradient_accumulation"] * self.device.processes


Derived = tuple[Any, str]
"""A value, and half a sentence that says why."""


@dataclass(frozen=True)
class Rule:
    """How one key of a recipe follows from the data.

    Attributes:
        key: as it is typed.
        about: the rule in words, for the documentation.
        bounds: what its values keep to, in words.
        derive: the value and its reason, or None where the recipe's own stays.
    """

    key: str
    about: str
    bounds: str
    derive: Callable[[Case], Derived | None]

    def __call__(self, case: Case) -> Setting | None:
        """What it says of a case."""
        derived = self.derive(case)
        return None if derived is None else Setting(self.key, *derived)


def rule(key: str, about: str, bounds: str = "") -> Callable[[Callable[[Case], Derived | None]], Rule]:
    """Make a rule of the function that derives its value."""
    return lambda derive: Rule(key, about, bounds, derive)


def clamp(value: float, low: float, high: float) -> float:
    """The nearest number between the two."""
    return max(low, min(high, value))


def multiple(value: float, of: int = 32) -> int:
    """The nearest multiple, which is 1 times at least."""
    return max(1, round(value / of)) * of


def two_digits(value: float) -> float:
    """Rounded to two significant digits, as a person would write it."""
    return float(f"{value:.1e}")
