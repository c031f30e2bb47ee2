"""How far a run is and what it has measured: the file of a checkpoint that says it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic_files import write_text
from ..errors import UserError
from ..recipes.schema import Recipe


STATE_FILE = "state.json"


@dataclass
class RunState:
    """How far a run is and what it has measured so far.

    Attributes:
        samples_per_step: of all processes together.
        best_score: the metric's primary number of the evaluation at `best_step`.
        curve: `step`, mean `loss` since the point before, and `learning_rate` at the step.
        evaluations: `step` and all numbers of the metric.
        is_one_batch: whether a step's passes make one batch, see `processes.loss_normalization`. The version before
            divided the loss of each by what that pass had alone, and a run goes on as it was begun.
        confusion: which class the best model takes for which, as `Confusion.plain` has it.
        skipped: different bad samples of each split that were passed over, since the run was last resumed at least.
    """

    samples_per_step: int
    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_score: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    is_one_batch: bool = False
    confusion: dict[str, Any] | None = None
    skipped: dict[str, int] = field(default_factory=dict)

    def note_skipped(self, counts: Mapping[str, int]) -> None:
        """Keep the larger numbers: a run that was resumed has forgotten which samples it had met."""
        self.skipped |= {name: max(count, self.skipped.get(name, 0)) for name, count in counts.items()}

    @property
    def is_evaluated(self) -> bool:
        """Whether the weights as they are now have been measured."""
        return bool(self.evaluations) and self.evaluations[-1]["step"] == self.step

    @property
    def evaluations_since_best(self) -> int:
        return sum(numbers["step"] > (self.best_step or 0) for numbers in self.evaluations)


def write_state(checkpoint: Path, recipe: Recipe, state: RunState) -> None:
    """Write, or replace at once, the part of a checkpoint that an evaluation adds to."""
    content = {"recipe": dataclasses.asdict(recipe), "state": dataclasses.asdict(state)}
    write_text(checkpoint / STATE_FILE, json.dumps(content))


def read_state(checkpoint: Path) -> tuple[dict[str, Any], RunState]:
    """The recipe of the run that wrote a checkpoint, as a tree, and its state.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        return dict(content["recipe"]), RunState(**content["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{checkpoint / STATE_FILE} is damaged: {error}") from error
