"""All rules in the order in which they are asked: each sees what those before it have said."""

import dataclasses
from collections.abc import Iterable

from ..recipes.settings import Setting
from . import rules_of_pictures as pictures
from . import rules_of_steps as steps
from .case import Case, Rule


BEFORE_ALL: tuple[Setting, ...] = (
    Setting("data.bad_samples", "skip", "a damaged sample is named, counted and passed over; many are warned of"),
)
"""Before the data are opened."""

OF_PICTURES: tuple[Rule, ...] = (
    pictures.base_size,
    pictures.crop_size,
    pictures.shortest_edges,
    pictures.longest_edge,
    pictures.evaluation_resize,
    pictures.window,
    pictures.stride,
    pictures.scale,
    pictures.crop_first,
    pictures.image_mean,
    pictures.image_std,
    pictures.flip,
    pictures.vertical_flip,
    pictures.rotate,
    pictures.num_queries,
    pictures.max_detections,
    pictures.freeze_trunk,
    pictures.hidden_size,
    pictures.decoder_layers,
)
"""Before the step is measured, which they make."""

OF_STEPS: tuple[Rule, ...] = (
    steps.mixed_precision,
    steps.batch_size,
    steps.gradient_accumulation,
    steps.samples_per_step,
    steps.max_validation_samples,
    steps.steps,
    steps.learning_rate,
    steps.trunk_lr_multiplier,
    steps.warmup_steps,
    steps.log_every,
    steps.evaluate_every,
    steps.checkpoint_every,
    steps.early_stopping,
    steps.photometric,
    steps.workers,
)
"""After it."""

RULES = OF_PICTURES + OF_STEPS


def ask(rules: Iterable[Rule], case: Case) -> tuple[list[Setting], Case]:
    """What each rule says whose key was not typed, and the case with all of it; the next one sees what one said."""
    settings = []
    for rule in rules:
        setting = None if case.is_typed(rule.key) else rule(case)
        if setting is not None:
            settings.append(setting)
            case = dataclasses.replace(case, values={**case.values, setting.key: setting.value})
    return settings, case


def markdown() -> str:
    """The table of the documentation."""
    rows = [f"| `{setting.key}` | {setting.reason} | {setting.value} |" for setting in BEFORE_ALL]
    rows += [f"| `{rule.key}` | {rule.about} | {rule.bounds} |" for rule in RULES]
    return "\n".join(["| setting | rule | bounds |", "|---|---|---|", *rows])
