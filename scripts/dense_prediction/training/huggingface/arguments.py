"""The flags of HF's Trainer beside a recipe. What both can say, a flag says by changing the recipe."""

import argparse
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments

from ...command_line import ArgumentParser, is_watched
from ...errors import UserError
from ...models.heads import find_head
from ...recipes.schema import Recipe
from ..processes.accelerators import check_machine


Flags = dict[str, Any]
"""Flags of `TrainingArguments` that were given, by name, without the dashes."""

KEYS = {
    "output_dir": "output",
    "seed": "seed",
    "max_steps": "training.steps",
    "num_train_epochs": "training.epochs",
    "per_device_train_batch_size": "training.batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation",
    "bf16": "training.mixed_precision",
    "fp16": "training.mixed_precision",
    "activation_checkpointing": "training.gradient_checkpointing",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "logging_steps": "training.log_every",
    "eval_steps": "training.evaluate_every",
    "save_steps": "training.checkpoint_every",
    "learning_rate": "optimization.learning_rate",
    "weight_decay": "optimization.weight_decay",
    "max_grad_norm": "optimization.max_grad_norm",
    "warmup_steps": "optimization.warmup_steps",
    "dataloader_num_workers": "data.workers",
    "report_to": "training.trackers",
    "resume_from_checkpoint": "resume",
}
"""The flags that a recipe has a key for."""

FIXED: dict[str, tuple[Any, str]] = {
    "do_train": (True, "scripts/evaluate.py measures a model that is trained"),
    "train_sampling_strategy": ("sequential", "the order of the data follows from seed"),
    "data_seed": (None, "the order of the data follows from seed"),
    "dataloader_drop_last": (False, "no batch is short: the data has no end"),
    "per_device_eval_batch_size": (1, "pictures of all sizes are measured one at a time"),
    "prediction_loss_only": (False, "the metric needs the predictions"),
    "batch_eval_metrics": (True, "the metric counts each picture when it is seen"),
    "eval_do_concat_batches": (False, "targets are lists, which would be joined wrongly"),
    "remove_unused_columns": (False, "the heads' targets are made from all columns"),
    "label_smoothing_factor": (0.0, "the heads have losses of their own"),
    "auto_find_batch_size": (False, "the batch size belongs to the recipe; lower training.batch_size"),
}
"""The flags that only one value is right for, and why."""

DEFAULTS = {name: value for name, (value, _) in FIXED.items()} | {
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "save_total_limit": 2,  # the best and the last
    "greater_is_better": True,
    "logging_nan_inf_filter": False,  # it would hide that a training has failed
    "optim": "adamw_torch",
}
"""Where Trainer's own defaults do not fit; flags may say otherwise, but for those in `FIXED`."""


class FlagParser(ArgumentParser, HfArgumentParser):
    """`HfArgumentParser` that reports a bad command line as a `UserError`."""


@dataclass(frozen=True)
class CommandLine:
    """`RECIPE [key=value ...] [--flag value ...]`.

    Attributes:
        overrides: of the recipe: those that were typed, and those that the flags mean.
        flags: all that were given.
    """

    recipe: Path
    overrides: list[str]
    flags: Flags


def parse_command_line(description: str, arguments: list[str] | None = None) -> CommandLine:
    """The command line, by default this process's.

    Raises:
        UserError: a flag does not exist, has a wrong value, or contradicts a `key=value`.
    """
    parser = FlagParser(
        TrainingArguments,  # type: ignore[arg-type]  # its type is of a name that no class has
        usage="%(prog)s RECIPE [key=value ...] [--flag value ...]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [field.name for field in fields(TrainingArguments) if field.init]
    absent = object()  # not argparse.SUPPRESS, a string, which the types of the flags would be applied to
    parser.set_defaults(**dict.fromkeys(names, absent))
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="YAML file of the experiment")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="a change to the recipe, as often as needed")
    given = vars(parser.parse_intermixed_args(arguments))
    recipe, typed = given.pop("recipe"), given.pop("overrides")
    flags = {name: value for name, value in given.items() if value is not absent}
    _check_fixed(flags)
    return CommandLine(recipe, typed + _overrides(flags, typed), flags)


def _check_fixed(flags: Flags) -> None:
    for name, (value, reason) in FIXED.items():
        if flags.get(name, value) != value:
            raise UserError(f"--{name}={flags[name]} cannot be used here, only {value}: {reason}")
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if flags.get(name) == "epoch":
            raise UserError(f"--{name}=epoch cannot be used here: the data has no end; count steps with {name}=steps")


def _overrides(flags: Flags, typed: list[str]) -> list[str]:
    """The flags that a recipe has a key for, as `key=value`."""
    typed_keys = {override.partition("=")[0] for override in typed}
    overrides: dict[str, str] = {}
    for name in [name for name in flags if name in KEYS]:
        for key, value in _in_recipe(name, flags[name]).items():
            if key in typed_keys or key in overrides:
                raise UserError(f"--{name} and another argument both set {key}: give one of them")
            overrides[key] = json.dumps(value)
    return [f"{key}={value}" for key, value in overrides.items()]


def _in_recipe(name: str, value: Any) -> dict[str, Any]:
    """The keys of a recipe that a flag sets, with their values."""
    key = KEYS[name]
    match name:
        case "max_steps":
            return {key: value, "training.epochs": None}
        case "num_train_epochs":
            return {key: value, "training.steps": None}
        case "bf16" | "fp16":
            return {key: name if value else "no"}
        case "max_grad_norm":
            return {key: value or None}  # 0 is Trainer's way to say that nothing is clipped
        case "report_to":
            return {key: [] if value == "none" else [value]}
        case "resume_from_checkpoint":
            return {key: "auto" if value.lower() == "true" else value}
    return {key: value}


def training_arguments(recipe: Recipe, flags: Flags) -> TrainingArguments:
    """What Trainer is told: the recipe, the other flags, and what is always so here.

    What follows from the data is still missing: `max_steps`, and which number chooses the best model.

    Raises:
        UserError: a flag has a wrong value, or this machine cannot do it.
    """
    rest = {name: value for name, value in flags.items() if name not in KEYS}
    wants_best = rest.pop("load_best_model_at_end", True)
    try:
        arguments = TrainingArguments(**(DEFAULTS | _of_recipe(recipe) | rest))
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise UserError(f"the flags of Trainer are wrong: {' '.join(str(error).split())}") from error
    if arguments.n_gpu > 1:
        raise UserError(
            f"one process sees {arguments.n_gpu} GPUs: start one for each with accelerate launch "
            "scripts/finetune_with_trainer.py ..., or set CUDA_VISIBLE_DEVICES=0"
        )
    check_machine(recipe.training.mixed_precision, arguments.device, arguments.world_size)
    # Not in the constructor, which demands that checkpoints are as rare as evaluations: we keep one at each of these.
    arguments.load_best_model_at_end = wants_best and "no" not in (arguments.eval_strategy, arguments.save_strategy)
    return arguments


def _of_recipe(recipe: Recipe) -> dict[str, Any]:
    training, optimization = recipe.training, recipe.optimization
    return {
        "output_dir": recipe.output,
        "seed": recipe.seed,
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation,
        "bf16": training.mixed_precision == "bf16",
        "fp16": training.mixed_precision == "fp16",
        "logging_steps": training.log_every,
        "eval_steps": training.evaluate_every,
        "save_steps": training.checkpoint_every,
        "learning_rate": optimization.learning_rate,
        "weight_decay": optimization.weight_decay,
        "max_grad_norm": optimization.max_grad_norm or 0.0,
        "warmup_steps": optimization.warmup_steps,
        "dataloader_num_workers": recipe.data.workers,
        "report_to": training.trackers or "none",
        # Trainer's own default changes with activation checkpointing; what a backbone leaves unused has been frozen.
        "ddp_find_unused_parameters": find_head(recipe.head.name).may_leave_out,
        "disable_tqdm": not is_watched(),  # then each log is one line
        "use_cpu": not torch.accelerator.is_available(),
    }
