"""A run: everything it needs, and the loop over its steps.

What happens at a step follows from the recipe and the step's number: the samples, their augmentation, and the seed of
the model's own random numbers. So a run goes on from a checkpoint exactly as if it had never stopped.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    ProjectConfiguration,
    send_to_device,
    set_seed,
)
from tqdm import tqdm
from transformers import PreTrainedModel

from ..batches.streams import training_loader
from ..batches.types import Batch, names_of
from ..data.samples import Stream
from ..errors import UserError, named
from ..evaluation.metrics.metric import Number, Numbers
from ..evaluation.tables import class_table
from ..experiment import Experiment, Opened
from ..failures import SMALLER_PICTURES, check_loss, explained
from ..models.building import encoder_of
from ..models.heads import find_head
from ..models.saved_models import save_model
from ..recipes.recipe_file import read_settings, write_recipe
from ..recipes.schema import Recipe
from ..recipes.settings import Setting
from ..reporting.course import Course
from ..reporting.forecast import Forecast
from ..reporting.outline import Plan
from ..reporting.report import Report
from ..seeds import seed_step
from .checkpoints import FOLDER, last_checkpoint, restore, save_checkpoint
from .ema import build_average
from .optimization import build_optimizer
from .processes.accelerators import start_accelerator
from .processes.batch_norm import synchronize_batch_norms
from .processes.loss_normalization import SharedNormalization
from .processes.step_size import samples_per_step, smaller_passes, warn_of_step_size
from .processes.unused_parameters import freeze_unused
from .progress import Progress
from .results import device_name, write_results
from .resuming import find_checkpoint, is_inside, own_names, resumed_state
from .run_folder import BEST_MODEL, LAST_MODEL, LOGS, PICTURE, PICTURES, RESULTS, carry_best, claim, clear_output
from .run_state import RunState, write_state
from .schedules import build_scheduler, training_steps
from .trackers import check_trackers, flat_numbers, start_trackers


class TrainingRun:
    """Everything one run needs, and the loop over it.

    Args:
        settings: what of the recipe follows from the data, and why; a run that goes on has those of its folder.
        opened: the data, if they have been opened.
    """

    def __init__(self, recipe: Recipe, settings: Sequence[Setting] = (), opened: Opened | None = None) -> None:
        self.recipe = recipe
        self.output = Path(recipe.output)
        check_trackers(recipe.training.trackers)
        self.accelerator = build_accelerator(recipe)
        checkpoint = find_checkpoint(recipe)
        self.settings = settings or (read_settings(self.output) if is_inside(checkpoint, self.output) else ())
        if self.is_main and checkpoint is None:  # a resumed run cannot follow the advice any more
            warn_of_step_size(recipe.training, self.accelerator.num_processes)
        with self.accelerator.local_main_process_first():  # fills the cache that the others read
            self.experiment = Experiment(recipe, opened=opened)
        self.experiment.look_at_data("train_split", "validation_split")
        self.recipe = recipe = self.experiment.recipe
        self.state = self._read_state(checkpoint)
        self.metric = self.experiment.new_metric().primary
        set_seed(recipe.seed)
        with explained(self._whereabouts):
            self._build_model()
        self._build_loader()
        self.normalization = SharedNormalization(self.accelerator, self.experiment, self.state.is_one_batch)
        if checkpoint is not None:
            restore(self.accelerator, checkpoint, self.average)
        with explained(self._whereabouts):
            self.checkpoint = self._settle(checkpoint)
        start_trackers(self.accelerator, recipe, self.state.step)
        self.report = self._build_report()
        self.started = time.perf_counter() - self.state.seconds
        self.has_warned = False  # of many samples that are skipped
        self.losses: list[torch.Tensor] = []  # of the passes since the last point of the curve

    def _settle(self, checkpoint: Path | None) -> Path | None:
        """Make `output` the folder of this run alone, and return the checkpoint in it from which the run goes on.

        Another folder's checkpoint is written again in this one: it stays as it is, and resume=auto works at once.
        """
        if self.is_main:
            if is_inside(checkpoint, self.output):
                claim(self.output, own_names(self.recipe))
            else:
                clear_output(self.output, own_names(self.recipe))
                if checkpoint is not None:
                    carry_best(checkpoint, self.output)
            write_recipe(self.output, self.recipe, self.settings)
        self.accelerator.wait_for_everyone()
        if checkpoint is None or is_inside(checkpoint, self.output / FOLDER):
            return checkpoint
        return save_checkpoint(self.accelerator, self.recipe, self.state, self.average)

    def _read_state(self, checkpoint: Path | None) -> RunState:
        training, processes = self.recipe.training, self.accelerator.num_processes
        split = self.experiment.data.train
        length = None if isinstance(split, Stream) else len(split)
        self.steps = training_steps(training, length, processes)
        step_size = samples_per_step(training, processes)
        if checkpoint is None:
            return RunState(step_size, is_one_batch=True)
        return resumed_state(checkpoint, self.recipe, step_size)

    def _build_model(self) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        model = self.experiment.build_model()
        freeze_unused(encoder_of(model))
        if recipe.training.gradient_checkpointing:
            encoder_of(model).activation_checkpointing_enable()
        model.to(accelerator.device)
        self.average = build_average(model, recipe.optimization)
        if self.average is not None and accelerator.distributed_type == DistributedType.FSDP:
            raise UserError("optimization.ema_decay needs whole weights in every process: set it to null under FSDP")
        if accelerator.num_processes > 1:
            model = synchronize_batch_norms(model, accelerator.device)
        optimizer = build_optimizer(model, recipe.optimization)
        scheduler = build_scheduler(optimizer, recipe, self.steps)
        self.model, self.optimizer, self.scheduler = accelerator.prepare(model, optimizer, scheduler)

    def _build_loader(self) -> None:
        recipe, state, experiment = self.recipe, self.state, self.experiment
        positions = range(state.step * state.samples_per_step, self.steps * state.samples_per_step)
        batch_size, workers = recipe.training.batch_size, recipe.data.workers
        # Accelerate deals the batches out in turn, so that each step's samples are those of a run of one process.
        stream, divisor = experiment.training_stream(), experiment.size_divisor
        loader = training_loader(stream, positions, batch_size, workers, divisor)
        # A step's batches are held together: each is moved to the device when its turn comes.
        self.batches = self.accelerator.prepare_data_loader(loader, device_placement=False)

    def _build_report(self) -> Report:
        accelerator, state = self.accelerator, self.state
        plan = Plan(
            steps=self.steps,
            samples_per_step=state.samples_per_step,
            processes=accelerator.num_processes,
            device=device_name(accelerator.device),
        )
        model = accelerator.unwrap_model(self.model)
        forecast = Forecast(accelerator.device)
        return Report(self.experiment, model, plan, forecast, self.output / PICTURE, self.settings)

    def _course(self, is_finished: bool = False) -> Course:
        state = self.state
        return Course(
            metric=self.metric,
            curve=state.curve,
            evaluations=state.evaluations,
            best_step=state.best_step,
            confusion=state.confusion,
            is_finished=is_finished,
        )

    @property
    def evaluated_model(self) -> PreTrainedModel:
        """What is measured and saved: the average of the weights if there is one."""
        if self.average is None:
            return self.accelerator.unwrap_model(self.model)
        return cast(PreTrainedModel, self.average.module)

    @property
    def results_file(self) -> Path:
        """Where the numbers of the run are."""
        return self.output / RESULTS

    @property
    def is_main(self) -> bool:
        """Whether this process writes for all."""
        return self.accelerator.is_main_process

    def train(self) -> None:
        """All remaining steps, with the curve, evaluations and checkpoints that the recipe asks for."""
        state, device = self.state, self.accelerator.device
        with explained(self._whereabouts, smaller_passes(self.recipe.training)):
            if self.is_main:
                self.report.begin(self._course())
            with Progress(self.steps, state.step, device, self.is_main) as self.progress:
                self._catch_up()
                self.model.train()
                batches = iter(self.batches)
                while state.step < self.steps and not self._is_stalled():
                    self._timed_step(batches)
                    self._look_back()
            self._finish()

    def _catch_up(self) -> None:
        """Do what a run that was killed after its checkpoint had still to do at that step."""
        if self._is_due(self.recipe.training.evaluate_every) and not self.state.is_evaluated:
            self._evaluate()
        elif self.state.best_step == self.state.step:
            self._save_model(BEST_MODEL)

    def _timed_step(self, batches: Iterator[Batch]) -> None:
        with self.report.forecast.step():
            self._step(batches)
        if self.is_main:
            self.report.tell_time(self._course(), self.steps - self.state.step)

    def _step(self, batches: Iterator[Batch]) -> None:
        """One optimizer step, of one forward and backward pass or more."""
        state, accelerator = self.state, self.accelerator
        seed_step(self.recipe.seed, state.step, accelerator.process_index)
        self.rate = self.scheduler.get_last_lr()[0]
        passes = [next(batches) for _ in range(self.recipe.training.gradient_accumulation)]
        self.normalization.begin(self.model, passes)
        for batch in passes:
            with named(names_of(batch)):
                self.losses.append(self._accumulate(send_to_device(batch, accelerator.device)))
        if self.average is not None and not accelerator.optimizer_step_was_skipped:
            self.average.update_parameters(accelerator.unwrap_model(self.model))
        state.step += 1
        self.progress.advance(state.samples_per_step)

    def _accumulate(self, batch: Batch) -> torch.Tensor:
        """One forward and backward pass, and the optimizer's step when enough passes have added up.

        Returns:
            The pass's loss, a scalar; the mean over a step's passes is the loss of the step.
        """
        accelerator, max_norm = self.accelerator, self.recipe.optimization.max_grad_norm
        with accelerator.accumulate(self.model):
            with self.normalization.next_pass() as weight:
                loss = self.model(**self.experiment.loss_inputs(batch)).loss * weight
            accelerator.backward(loss)  # divides by the number of accumulated passes
            if accelerator.sync_gradients and max_norm is not None:
                accelerator.clip_grad_norm_(self.model.parameters(), max_norm)
            self.optimizer.step()
            if accelerator.sync_gradients and not accelerator.optimizer_step_was_skipped:
                self.scheduler.step()
            self.optimizer.zero_grad()
        return loss.detach().float()

    def _look_back(self) -> None:
        """Log, save and measure what is due after a step."""
        training = self.recipe.training
        evaluates, saves = self._is_due(training.evaluate_every), self._is_due(training.checkpoint_every)
        if evaluates or saves or self._is_due(training.log_every):
            self._log()
        if evaluates or saves:
            # Before the evaluation, which takes long and may fail.
            self.state.seconds = time.perf_counter() - self.started
            self.checkpoint = save_checkpoint(self.accelerator, self.recipe, self.state, self.average)
        if evaluates:
            self._evaluate()
        if evaluates or saves:
            self.progress.restart_clock()

    def _is_due(self, every: int) -> bool:
        step = self.state.step
        return step > 0 and (step == self.steps or step % every == 0)

    def _log(self) -> None:
        """Add the mean loss since the last time to the curve."""
        state = self.state
        loss = self.accelerator.reduce(torch.stack(self.losses).mean(), "mean").item()
        self.losses.clear()
        check_loss(loss, self._whereabouts())
        state.curve.append({"step": state.step, "loss": loss, "learning_rate": self.rate})
        if self.is_main and not self.has_warned:
            share = state.step * state.samples_per_step // self.accelerator.num_processes
            self.has_warned = self.experiment.warn_of_skipped(share)
        measured = self.progress.report(loss, self.rate) | {"loss": loss, "learning_rate": self.rate}
        self.accelerator.log(flat_numbers(measured, "training"), state.step)

    def _evaluate(self) -> None:
        """Measure the model, draw what it sees, and keep it if it is the best so far."""
        state = self.state
        with explained(self._whereabouts, SMALLER_PICTURES):
            numbers = self._measure()
        score = cast(Number, numbers[self.metric])  # of all classes together
        if score is None:
            raise UserError(
                f"{self.metric} cannot be measured: no sample of data.validation_split="
                f"{self.recipe.data.validation_split} has anything to be found {self._whereabouts()}"
            )
        improves = state.best_score is None or score > state.best_score
        if improves:
            state.best_step, state.best_score = state.step, score
            confusion = self.experiment.confusion
            state.confusion = None if confusion is None else confusion.plain()
        if self.is_main:
            tqdm.write(f"step {state.step}: validation {self.metric} {score:.4f}")
            if table := class_table(numbers, f"of them stand in {self.results_file}"):
                tqdm.write(table)
            self._draw(improves)
        self._record(numbers)
        if improves:
            self._save_model(BEST_MODEL)

    def _measure(self) -> Numbers:
        experiment = self.experiment
        return experiment.measure(self.accelerator, self.evaluated_model, experiment.validation)

    def _draw(self, improves: bool) -> None:
        """Samples from all over the validation split, of this step and, if it is the best, as the run's picture."""
        page = self.experiment.draw(self.accelerator, self.evaluated_model)
        if page is None:
            return
        (self.output / PICTURES).mkdir(exist_ok=True)
        page.save(self.output / PICTURES / f"step_{self.state.step:08d}.png")
        if improves:
            page.save(self.output / PICTURE)

    def _record(self, numbers: Numbers) -> None:
        """Add the evaluation to the results and to the checkpoint of this step, whose weights it does not change."""
        state = self.state
        state.evaluations.append({"step": state.step} | numbers)
        state.note_skipped(self.experiment.count_skipped("train", "validation"))
        state.seconds = time.perf_counter() - self.started
        if self.is_main:
            write_state(cast(Path, self.checkpoint), self.recipe, state)
            self._write_results(finished=False)
            self.report.write(self._course())
        self.accelerator.log(flat_numbers(numbers, "validation"), state.step)

    def _save_model(self, name: str) -> None:
        average = self.average
        weights = self.accelerator.get_state_dict(self.model) if average is None else average.module.state_dict()
        if self.is_main:
            save_model(self.output / name, self.evaluated_model, weights, self.experiment.processor())

    def _is_stalled(self) -> bool:
        patience = self.recipe.training.early_stopping
        return patience is not None and self.state.evaluations_since_best >= patience

    def _finish(self) -> None:
        """Save the last model and the numbers."""
        self._save_model(LAST_MODEL)
        self.state.note_skipped(self.experiment.count_skipped("train", "validation"))
        if self.is_main:
            self.experiment.warn_of_all_skipped(self.state.step * self.state.samples_per_step, self.state.skipped)
            self._write_results(finished=True)
            self.report.write(self._course(is_finished=True))
        self.accelerator.end_training()

    def _write_results(self, finished: bool) -> Path:
        accelerator = self.accelerator
        return write_results(
            self.recipe,
            self.state,
            accelerator.device,
            metric=self.metric,
            data=self.experiment.data_record(),
            processes=accelerator.num_processes,
            finished=finished,
        )

    def _whereabouts(self) -> str:
        """`at step 7; the checkpoint step_00000004 is kept: ...`"""
        checkpoint = last_checkpoint(self.output)
        kept = f"{checkpoint} is kept, resume=auto goes on from it" if checkpoint else "there is no checkpoint yet"
        return f"at step {self.state.step} ({kept})"


def build_accelerator(recipe: Recipe) -> Accelerator:
    """Accelerate with the recipe's precision; the schedule is stepped once a step whatever the number of processes."""
    training, leaves_out = recipe.training, find_head(recipe.head.name).may_leave_out
    return start_accelerator(
        training.mixed_precision,
        # Not as gradient_accumulation_steps, which ACCELERATE_GRADIENT_ACCUMULATION_STEPS would replace. The last
        # step's batches are all read before its first pass, which is not yet the end of the step.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            training.gradient_accumulation, sync_with_dataloader=False
        ),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=leaves_out)],
        log_with=training.trackers or None,
        project_config=ProjectConfiguration(recipe.output, logging_dir=str(Path(recipe.output) / LOGS)),
    )
