"""The report of a run of HF's Trainer: the same as of `scripts/train.py`, as far as Trainer's log tells."""

from collections.abc import Mapping
from typing import Any, cast

from ...reporting.course import Course
from ...reporting.forecast import Forecast
from ...reporting.outline import Plan
from ...reporting.report import Report
from ..results import device_name
from ..run_folder import PICTURE
from ..run_state import RunState
from .trainer import RecipeTrainer


def build_report(trainer: RecipeTrainer) -> Report:
    """Ready to begin, on the main process."""
    args = trainer.args
    plan = Plan(
        steps=args.max_steps,
        samples_per_step=trainer.begun.samples_per_step,
        processes=args.world_size,
        device=device_name(args.device),
    )
    model = trainer.accelerator.unwrap_model(trainer.model)
    return Report(trainer.experiment, model, plan, Forecast(args.device), trainer.output / PICTURE)


def course_of(trainer: RecipeTrainer, state: RunState, is_finished: bool = False) -> Course:
    """What has come of the run so far."""
    return Course(
        metric=cast(str, trainer.args.metric_for_best_model).removeprefix("eval_"),
        curve=state.curve,
        evaluations=[nested(numbers) for numbers in state.evaluations],
        best_step=state.best_step,
        confusion=state.confusion,
        is_finished=is_finished,
    )


def nested(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """`class_iou/sky` of a log as the metric has it: `{"class_iou": {"sky": ...}}`."""
    tree: dict[str, Any] = {}
    for name, value in numbers.items():
        metric, separator, label = name.partition("/")
        if separator:
            tree.setdefault(metric, {})[label] = value
        else:
            tree[name] = value
    return tree
