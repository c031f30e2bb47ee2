"""From a recipe and flags to HF's Trainer, in the order of `scripts/train.py`, so that the first weights are equal."""

from pathlib import Path

from accelerate.utils import set_seed
from huggingface_hub.utils import httpx
from transformers import PreTrainedModel, TrainingArguments

from modeling_vit_comer.configuration_heads import carry_code

from ...data.loading import Data, load_data
from ...data.streaming import StreamedSplit
from ...errors import UserError
from ...evaluation.metrics import build_metric
from ...evaluation.tasks import TASKS
from ...evaluation.views import check_views
from ...models.backbones import build_backbone
from ...models.building import build_model, encoder_of
from ...models.heads import find_head
from ...recipes.schema import Recipe
from ..checkpointing import is_inside, read_state
from ..processes.batch_norm import synchronize_batch_norms
from ..processes.unused_parameters import freeze_unused
from ..schedules import training_steps
from ..step_size import warn_of_step_size
from .arguments import Flags, training_arguments
from .checkpoints import clear_run, find_checkpoint
from .trainer import RecipeTrainer, samples_per_step


def build_trainer(recipe: Recipe, flags: Flags) -> RecipeTrainer:
    """Ready to train, from the start or from `args.resume_from_checkpoint`.

    Raises:
        UserError: something in the recipe, the data, the output folder or the flags is wrong, as its text says.
    """
    check_views(recipe.task, recipe.evaluation)
    checkpoint = find_checkpoint(recipe)
    arguments = training_arguments(recipe, flags)
    if arguments.process_index == 0:
        warn_of_step_size(recipe.training, arguments.world_size)
    with arguments.main_process_first():  # fills the cache that the others read
        data = load_data(recipe.data, recipe.task)
    _complete(arguments, recipe, data, flags)
    seconds = 0.0
    if checkpoint is not None:
        arguments.resume_from_checkpoint = str(checkpoint)
        seconds = read_state(checkpoint, recipe, samples_per_step(arguments)).seconds
    trainer = _build(recipe, data, arguments, "lr_scheduler_type" not in flags, seconds)
    if not is_inside(checkpoint, Path(recipe.output)) and arguments.process_index == 0:
        clear_run(Path(recipe.output))
    trainer.accelerator.wait_for_everyone()
    return trainer


def _complete(arguments: TrainingArguments, recipe: Recipe, data: Data, flags: Flags) -> None:
    """Add what the data decides."""
    length = None if isinstance(data.train, StreamedSplit) else len(data.train)
    arguments.max_steps = training_steps(recipe.training, length, arguments.world_size)
    metric = build_metric(recipe.task, data.labels, data.things)
    arguments.metric_for_best_model = flags.get("metric_for_best_model", metric.primary)
    known = [name for name, value in metric.compute().items() if not isinstance(value, dict)]
    if arguments.metric_for_best_model.removeprefix("eval_") not in known:
        raise UserError(
            f"--metric_for_best_model={arguments.metric_for_best_model} is not measured, choose {', '.join(known)}"
        )


def _build(
    recipe: Recipe, data: Data, arguments: TrainingArguments, recipe_schedule: bool, seconds: float
) -> RecipeTrainer:
    set_seed(recipe.seed)
    model = _build_model(recipe, data, arguments)
    try:
        if arguments.push_to_hub:
            carry_code(model)
        return RecipeTrainer(recipe, data, model, arguments, recipe_schedule, seconds)
    # A model or a repository that the Hub has no use for, or a tracker that is unknown or not installed.
    except (OSError, ValueError, ImportError, RuntimeError, httpx.HTTPError) as error:
        raise UserError(f"Trainer cannot start: {' '.join(str(error).split())}") from error


def _build_model(recipe: Recipe, data: Data, arguments: TrainingArguments) -> PreTrainedModel:
    backbone = build_backbone(recipe.backbone, find_head(recipe.head.name).out_features)
    model = build_model(recipe.head, backbone, data.labels, TASKS[recipe.task], data.things)
    freeze_unused(encoder_of(model))
    if recipe.training.gradient_checkpointing:
        # Not by Trainer, which asks the head for it, and most refuse.
        encoder_of(model).activation_checkpointing_enable(arguments.activation_checkpointing_kwargs)
    if arguments.world_size > 1:
        model = synchronize_batch_norms(model, arguments.device)
    return model
