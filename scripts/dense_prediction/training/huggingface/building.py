"""From a recipe and flags to HF's Trainer, in the order of `scripts/train.py`, so that the first weights are equal."""

from pathlib import Path

from accelerate.utils import set_seed
from huggingface_hub.utils import httpx
from transformers import PreTrainedModel, TrainingArguments

from modeling_vit_comer.configuration_heads import carry_code

from ...data.samples import Stream
from ...errors import UserError
from ...experiment import Experiment
from ...models.building import encoder_of
from ...recipes.schema import Recipe
from ..processes.batch_norm import synchronize_batch_norms
from ..processes.step_size import warn_of_step_size
from ..processes.unused_parameters import freeze_unused
from ..resuming import is_inside, resumed_state
from ..run_folder import claim, clear_output
from ..run_state import RunState
from ..schedules import training_steps
from .arguments import Flags, training_arguments
from .checkpoints import check_checkpoints, find_checkpoint, own_names
from .trainer import RecipeTrainer, samples_per_step


def build_trainer(recipe: Recipe, flags: Flags) -> RecipeTrainer:
    """Ready to train, from the start or from `args.resume_from_checkpoint`.

    Raises:
        UserError: something in the recipe, the data, the output folder or the flags is wrong, as its text says.
    """
    checkpoint = find_checkpoint(recipe, bool(flags.get("push_to_hub")))
    arguments = training_arguments(recipe, flags)
    if arguments.process_index == 0 and checkpoint is None:  # a resumed run cannot follow the advice any more
        warn_of_step_size(recipe.training, arguments.world_size)
    with arguments.main_process_first():  # fills the cache that the others read
        experiment = Experiment(recipe)
    experiment.look_at_data("train_split", "validation_split", *(["test_split"] if flags.get("do_predict") else []))
    recipe = experiment.recipe
    _complete(arguments, experiment, flags)
    check_checkpoints(arguments)
    begun = None
    if checkpoint is not None:
        arguments.resume_from_checkpoint = str(checkpoint)
        begun = resumed_state(checkpoint, recipe, samples_per_step(arguments))
    trainer = _build(experiment, arguments, "lr_scheduler_type" not in flags, begun)
    if arguments.process_index == 0:
        settle = claim if is_inside(checkpoint, Path(recipe.output)) else clear_output
        settle(Path(recipe.output), own_names(arguments.push_to_hub))
    trainer.accelerator.wait_for_everyone()
    return trainer


def _complete(arguments: TrainingArguments, experiment: Experiment, flags: Flags) -> None:
    """Add what the data decides."""
    split = experiment.data.train
    length = None if isinstance(split, Stream) else len(split)
    arguments.max_steps = training_steps(experiment.recipe.training, length, arguments.world_size)
    metric = experiment.new_metric()
    arguments.metric_for_best_model = flags.get("metric_for_best_model", metric.primary)
    known = [name for name, value in metric.compute().items() if not isinstance(value, dict)]
    if arguments.metric_for_best_model.removeprefix("eval_") not in known:
        raise UserError(
            f"--metric_for_best_model={arguments.metric_for_best_model} is not measured, choose {', '.join(known)}"
        )


def _build(
    experiment: Experiment, arguments: TrainingArguments, recipe_schedule: bool, begun: RunState | None
) -> RecipeTrainer:
    set_seed(experiment.recipe.seed)
    model = _build_model(experiment, arguments)
    try:
        if arguments.push_to_hub:
            carry_code(model)
        return RecipeTrainer(experiment, model, arguments, recipe_schedule, begun)
    # A model or a repository that the Hub has no use for, or a tracker that is unknown or not installed.
    except (OSError, ValueError, ImportError, RuntimeError, httpx.HTTPError) as error:
        raise UserError(f"Trainer cannot start: {' '.join(str(error).split())}") from error


def _build_model(experiment: Experiment, arguments: TrainingArguments) -> PreTrainedModel:
    model = experiment.build_model()
    freeze_unused(encoder_of(model))
    if experiment.recipe.training.gradient_checkpointing:
        # Not by Trainer, which asks the head for it, and most refuse.
        encoder_of(model).activation_checkpointing_enable(arguments.activation_checkpointing_kwargs)
    if arguments.world_size > 1:
        model = synchronize_batch_norms(model, arguments.device)
    return model
