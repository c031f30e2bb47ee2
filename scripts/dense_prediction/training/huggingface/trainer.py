"""HF's Trainer on a recipe, with the data, losses, parameter groups, schedule and metrics of `scripts/train.py`."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Subset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.training_args import OptimizerNames

from ...batches.streams import EvaluationSet, collate
from ...batches.types import Batch, names_of
from ...data.options import some
from ...errors import UserError, named
from ...experiment import Experiment
from ...failures import SMALLER_PICTURES, check_loss, explained
from ...seeds import seed_step
from ..optimization import parameter_groups
from ..processes.loss_normalization import SharedNormalization
from ..run_folder import claim
from ..run_state import RunState, write_state
from ..schedules import build_scheduler
from ..trackers import flat_numbers
from .average import AverageCallback
from .checkpoints import remove_checkpoints, run_state


class RecipeTrainer(Trainer):
    """HF's Trainer, but for what a recipe says.

    Args:
        arguments: see `arguments.training_arguments`.
        recipe_schedule: the learning rate follows the recipe, not `arguments.lr_scheduler_type`.
        begun: how far the run was when it was resumed; None for a fresh one.
    """

    # The step's loss is the mean over its passes, see `SharedNormalization`. Left to itself Trainer would ask UperNet,
    # which takes any keyword, for a sum over the pixels of all, and multiply what is no sum.
    loss_is_scaled_for_ga = False

    model: PreTrainedModel

    def __init__(
        self,
        experiment: Experiment,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        recipe_schedule: bool = True,
        begun: RunState | None = None,
    ) -> None:
        self.experiment = experiment
        self.recipe = recipe = experiment.recipe
        self.recipe_schedule = recipe_schedule
        self.begun = begun or RunState(samples_per_step(arguments), is_one_batch=True)
        self.started = time.perf_counter() - self.begun.seconds
        self.skipped = dict(self.begun.skipped)
        self.has_warned = False  # of many samples that are skipped
        # Trainer's own limit counts and deletes whatever has the name of a checkpoint.
        self.most_checkpoints, arguments.save_total_limit = arguments.save_total_limit, None
        stream = experiment.training_stream()
        super().__init__(
            model,
            arguments,
            partial(collate, size_divisor=experiment.size_divisor),
            Subset(stream, range(arguments.max_steps * self.begun.samples_per_step)),  # to Trainer, one long epoch
            experiment.validation,
            experiment.processor(),
            callbacks=[RunCallback()],
        )
        self.normalization = SharedNormalization(self.accelerator, experiment, self.begun.is_one_batch)
        self.step_batches: list[Batch] = []
        self.average = AverageCallback(self.accelerator, self.model, recipe.optimization)
        self.add_callback(self.average)
        if recipe.training.early_stopping is not None:
            self.add_callback(EarlyStoppingCallback(recipe.training.early_stopping))

    @property
    def output(self) -> Path:
        """The folder of the run."""
        return Path(cast(str, self.args.output_dir))

    @property
    def measured_model(self) -> PreTrainedModel:
        """What is evaluated and saved: while a training keeps an average of the weights, that."""
        average = self.average.average
        return self.model if average is None else cast(PreTrainedModel, average.module)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        trained = super().train(*args, **kwargs)
        self.note_skipped("train", "validation")
        best = self.state.best_model_checkpoint
        if self.args.should_save and self.most_checkpoints == 1 and best is not None:
            remove_checkpoints(self.output, 1, {Path(best).name})
        return trained

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        if self.step_batches:  # not when they are read, which is before the step's random numbers are seeded
            self.normalization.begin(model, self.step_batches)
            self.step_batches = []
        with self.normalization.next_pass() as weight:
            output = model(**self.experiment.loss_inputs(inputs))
            loss = output.loss * weight
        return (loss, output) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        with named(names_of(inputs)):
            return super().training_step(model, inputs, num_items_in_batch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | int | None]:
        samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.step_batches = list(samples[0])
        return samples

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Its batches stay on the CPU: a step's are held together, and Trainer moves each when its turn comes."""
        places, self.accelerator.device_placement = self.accelerator.device_placement, False
        loader = super().get_train_dataloader()
        self.accelerator.device_placement = places
        return loader

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of the flags, by default AdamW, with the recipe's learning rates and decays.

        Raises:
            UserError: the flags name an optimizer that is not installed, or makes groups of its own.
        """
        if self.optimizer is None:
            model = model or self.model
            optimizer_class, settings = self._optimizer_class(model)
            self.optimizer = optimizer_class(parameter_groups(model, self.recipe.optimization), **settings)
        return self.optimizer

    def _optimizer_class(self, model: nn.Module) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        name = OptimizerNames(self.args.optim).value
        try:
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, cast(PreTrainedModel, model))
        except (ImportError, ValueError) as error:
            raise UserError(f"--optim={name}: {' '.join(str(error).split())}") from error
        if settings.keys() & {"params", "model", "optimizer_dict"} or not isinstance(optimizer_class, type):
            raise UserError(f"--optim={name} takes no groups of parameters; adamw_torch does")
        return optimizer_class, settings

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        if self.recipe_schedule and self.lr_scheduler is None:
            optimizer = optimizer or cast(torch.optim.Optimizer, self.optimizer)
            self.lr_scheduler = build_scheduler(optimizer, self.recipe, num_training_steps)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The metric of the task over the dataloader's dataset, of which each process measures its share.

        Raises:
            UserError: the number that chooses the best model cannot be measured.
        """
        samples = cast(EvaluationSet, dataloader.dataset)
        with explained(lambda: f"at step {self.state.global_step}, in the evaluation", SMALLER_PICTURES):
            numbers = self.experiment.measure(self.accelerator, self.measured_model, samples)
        measured = [name for name in ("validation", "test") if samples.split is getattr(self.experiment.data, name)]
        self.note_skipped("train", *measured)
        # eval/class_iou/sky -> eval_class_iou/sky: Trainer looks for names that begin with eval_
        flat = flat_numbers(numbers, metric_key_prefix)
        metrics = {name.replace("/", "_", 1): value for name, value in flat.items()}
        chosen = cast(str, self.args.metric_for_best_model).removeprefix("eval_")
        if f"{metric_key_prefix}_{chosen}" not in metrics:
            raise UserError(f"{chosen} cannot be measured: none of {len(samples)} samples has anything to be found")
        predictions = None  # the metric has counted them
        return EvalLoopOutput(predictions, None, metrics, len(samples))  # type: ignore[arg-type]  # wants predictions

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As Trainer does, but the average in place of the model, if there is one."""
        trained, self.model = self.model, self.measured_model
        super().save_model(output_dir, _internal_call)
        self.model = trained
        if output_dir is not None and self.args.should_save:
            self.average.save(Path(output_dir))
            write_state(Path(output_dir), self.recipe, self.run_state())

    def _save_checkpoint(self, model: nn.Module, trial: dict[str, Any] | None) -> None:
        """As Trainer does, but what it makes is listed before, and only what is listed is removed."""
        last = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            claim(self.output, [last])
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            kept = {last} if best is None else {last, Path(best).name}
            remove_checkpoints(self.output, self.most_checkpoints, kept)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Trainer's own would leave out most weights of a DETR, whose names in a saved model are older ones."""
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._read_weights(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self._read_weights(cast(str, self.state.best_model_checkpoint))

    def _read_weights(self, folder: str) -> None:
        loaded = type(self.model).from_pretrained(folder, output_loading_info=True)
        # Which the types of transformers leave out: a pair, because of output_loading_info.
        saved, report = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
        differing = [str(key) for keys in report.values() for key in keys]
        if differing:
            raise UserError(f"{folder} has not the weights of the recipe's model: {some(differing, 5)} differ")
        self.model.load_state_dict(saved.state_dict())

    def _load_callback_state(self) -> None:
        """Early stopping follows from the recipe, also where it has changed since the checkpoint was written."""
        super()._load_callback_state()
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience = cast(int, self.recipe.training.early_stopping)
                callback.early_stopping_patience_counter = self.run_state().evaluations_since_best
                # Which Trainer looks for when it saves, also after a checkpoint of a run without early stopping.
                states = cast(dict[str, Any], self.state.stateful_callbacks)
                states[type(callback).__name__] = callback.state()

    def run_state(self) -> RunState:
        """How far the run is and what it has measured."""
        state = run_state(self.state, self.begun, time.perf_counter() - self.started)
        state.note_skipped(self.skipped)
        return state

    def note_skipped(self, *names: str) -> None:
        """Count the bad samples of all processes, which call it together."""
        state = RunState(self.begun.samples_per_step, skipped=self.skipped)
        state.note_skipped(self.experiment.count_skipped(*names))
        self.skipped = state.skipped

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        super().log(logs, *args, **kwargs)
        if self.is_world_process_zero() and not self.has_warned and "loss" in logs:
            drawn = self.state.global_step * self.begun.samples_per_step // self.args.world_size
            self.has_warned = self.experiment.warn_of_skipped(drawn)


class RunCallback(TrainerCallback):
    """What a run of `scripts/train.py` does at certain moments."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The model's random numbers follow from the step, so that both trainers and resumed runs draw the same."""
        seed_step(args.seed, state.global_step, args.process_index)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        check_loss((logs or {}).get("loss", 0.0), f"at step {state.global_step}")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Keep the model that was measured: the best one is looked for among the checkpoints."""
        control.should_save |= args.load_best_model_at_end
        return control


def samples_per_step(arguments: TrainingArguments) -> int:
    """Of all processes together."""
    return arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
