"""Train a semantic segmentation model: `python scripts/train.py RECIPE [key=value ...]`."""

import argparse
import dataclasses
import shutil
import time
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from PIL import Image
from pydantic.fields import FieldInfo
from torchvision.transforms.v2.functional import to_pil_image
from tqdm import tqdm

from dense_prediction.backbones import build_backbone
from dense_prediction.checkpointing import FOLDER, RunState, find_checkpoint, read_state, restore, save_checkpoint
from dense_prediction.command_line import ArgumentParser, run
from dense_prediction.data import load_data
from dense_prediction.drawing import comparison
from dense_prediction.errors import UserError
from dense_prediction.evaluation import evaluate, summarize
from dense_prediction.heads import HEADS, build_model, build_processor, encoder_of
from dense_prediction.loading import EvaluationSet, TrainingStream, training_loader
from dense_prediction.optimization import build_optimizer, build_scheduler
from dense_prediction.prediction import load_model, predict_map
from dense_prediction.recipe_loading import dotted_fields, load_recipe
from dense_prediction.recipes import Recipe
from dense_prediction.results import write_results
from dense_prediction.transforms import EvaluationTransform, TrainingTransform


BEST_MODEL = "best_model"
PICTURE = "predictions.png"
PICTURE_ROWS = 4

DESCRIPTION = """\
Train a semantic segmentation model as a recipe says.

A recipe is a YAML file below configuration/recipes/. Everything in it can be changed on the command line:

  python scripts/train.py configuration/recipes/semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo.yaml
  python scripts/train.py RECIPE data.path=/my/dataset training.steps=2000 training.mixed_precision=bf16
  python scripts/train.py RECIPE resume=auto        # goes on where a stopped run left off, with the same result
  accelerate launch scripts/train.py RECIPE         # on several GPUs

The output folder then holds best_model/ (for predict.py and from_pretrained), predictions.png, results.json and
checkpoints/. Paths are relative to the folder that the command runs in.
"""


class TrainingRun:
    """Everything one run needs, and the loop over it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.accelerator = build_accelerator(recipe)
        checkpoint = find_checkpoint(recipe)
        self.state = RunState() if checkpoint is None else read_state(checkpoint, recipe)
        self.data = load_data(recipe.data)
        self.head = HEADS[recipe.head.name]
        set_seed(recipe.seed)
        self._build_model()
        self._build_loaders()
        set_seed(recipe.seed, device_specific=True)
        if checkpoint is not None:
            restore(self.accelerator, checkpoint)
        elif self.accelerator.is_main_process:
            clear_output(Path(recipe.output))
        self.started = time.perf_counter() - self.state.seconds

    def _build_model(self) -> None:
        recipe = self.recipe
        model = build_model(recipe.head, build_backbone(recipe.backbone), self.data.labels)
        if recipe.training.gradient_checkpointing:
            encoder_of(model).activation_checkpointing_enable()
        optimizer = build_optimizer(model, recipe.optimization)
        scheduler = build_scheduler(optimizer, recipe.optimization, recipe.training.steps)
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(model, optimizer, scheduler)

    def _build_loaders(self) -> None:
        recipe, training = self.recipe, self.recipe.training
        stream = TrainingStream(self.data.train, TrainingTransform(recipe.transforms), recipe.seed)
        samples_per_step = training.batch_size * training.gradient_accumulation * self.accelerator.num_processes
        positions = range(self.state.step * samples_per_step, training.steps * samples_per_step)
        loader = training_loader(stream, positions, training.batch_size, recipe.data.workers)
        self.batches = self.accelerator.prepare(loader)
        self.validation = EvaluationSet(self.data.validation, EvaluationTransform(recipe.transforms))

    def train(self) -> None:
        """All remaining steps, with the curve, evaluations and checkpoints that the recipe asks for."""
        training, state = self.recipe.training, self.state
        main = self.accelerator.is_main_process
        window = torch.zeros((), device=self.accelerator.device)
        self.model.train()
        with tqdm(total=training.steps, initial=state.step, desc="training", unit="step", disable=not main) as bar:
            for batch in self.batches:
                rate = self.scheduler.get_last_lr()[0]
                window += self._accumulate(batch)
                if not self.accelerator.sync_gradients:
                    continue
                state.step += 1
                bar.update()
                last = state.step == training.steps
                if last or state.step % training.log_every == 0:
                    self._log(window, rate, bar)
                    window.zero_()
                if last or state.step % training.evaluate_every == 0:
                    self._evaluate()
                if last or state.step % training.checkpoint_every == 0:
                    state.seconds = time.perf_counter() - self.started
                    save_checkpoint(self.accelerator, self.recipe, state)

    def _accumulate(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One forward and backward pass, and the optimizer's step when enough passes have added up.

        Returns:
            This pass's share of the step's loss, a scalar.
        """
        with self.accelerator.accumulate(self.model):
            loss = self.model(pixel_values=batch["pixel_values"], **self.head.targets(batch["labels"])).loss
            self.accelerator.backward(loss)  # divides by the number of accumulated passes
            if self.accelerator.sync_gradients and self.recipe.optimization.max_grad_norm is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimization.max_grad_norm)
            self.optimizer.step()
            if self.accelerator.sync_gradients and not self.accelerator.optimizer_step_was_skipped:
                self.scheduler.step()
            self.optimizer.zero_grad()
        return loss.detach().float() / self.recipe.training.gradient_accumulation

    def _log(self, window: torch.Tensor, rate: float, bar: tqdm) -> None:
        steps = (self.state.step - 1) % self.recipe.training.log_every + 1
        loss = self.accelerator.reduce(window / steps, "mean").item()
        if loss != loss or abs(loss) == float("inf"):
            raise UserError(
                f"the loss is {loss} at step {self.state.step}: lower optimization.learning_rate, set "
                "optimization.max_grad_norm, or use training.mixed_precision=no"
            )
        self.state.curve.append({"step": self.state.step, "loss": loss, "learning_rate": rate})
        bar.set_postfix(loss=f"{loss:.4f}", lr=f"{rate:.2e}", memory=f"{memory_in_use(window.device):.1f}GiB")

    def _evaluate(self) -> None:
        confusion = evaluate(
            self.accelerator, self.model, self.head, self.validation, len(self.data.labels), self.recipe.data.workers
        )
        numbers = {"step": self.state.step} | summarize(confusion, self.data.labels)
        self.state.evaluations.append(numbers)
        if self.accelerator.is_main_process:
            tqdm.write(f"step {self.state.step}: validation mIoU {numbers['mean_iou']:.4f}")
        if numbers["mean_iou"] > self.state.best_mean_iou:
            self.state.best_mean_iou, self.state.best_step = numbers["mean_iou"], self.state.step
            self._save_best()

    def _save_best(self) -> None:
        if not self.accelerator.is_main_process:
            return
        final = Path(self.recipe.output) / BEST_MODEL
        partial = final.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.unwrap_model(self.model).save_pretrained(partial)
        build_processor(self.recipe.head, self.recipe.transforms).save_pretrained(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)

    def report(self) -> None:
        """Write the picture and the numbers, and name all that a person wants to find."""
        output, best = Path(self.recipe.output), self.state.best_step
        self._draw().save(output / PICTURE)
        results = write_results(self.recipe, self.state, self.accelerator.device)
        numbers = next(numbers for numbers in self.state.evaluations if numbers["step"] == best)
        print(
            f"validation mIoU {numbers['mean_iou']:.4f} at step {best} (answering the most frequent class everywhere: "
            f"{numbers['chance_mean_iou']:.4f}), {self.state.seconds:.0f} s of training and evaluation"
        )
        print(f"model    {output / BEST_MODEL}\npicture  {output / PICTURE}\nnumbers  {results}")

    def _draw(self) -> Image.Image:
        """Image | truth | prediction of the best model for the first samples of the validation split."""
        model, processor = load_model(Path(self.recipe.output) / BEST_MODEL, self.accelerator.device)
        rows = []
        for index in range(min(PICTURE_ROWS, len(self.data.validation))):
            image, truth = self.data.validation[index]
            image = to_pil_image(image)
            rows.append((image, truth.numpy(), predict_map(model, processor, image)))
        return comparison(rows, self.data.labels)


def build_accelerator(recipe: Recipe) -> Accelerator:
    """Accelerate with the recipe's precision; the schedule is stepped once a step whatever the number of processes."""
    training = recipe.training
    try:
        return Accelerator(
            mixed_precision=training.mixed_precision,
            gradient_accumulation_steps=training.gradient_accumulation,
            step_scheduler_with_optimizer=False,
        )
    except ValueError as error:
        raise UserError(f"training.mixed_precision={training.mixed_precision} cannot be used here: {error}") from error


def clear_output(output: Path) -> None:
    """Remove what an earlier run left in the folder, and nothing else."""
    for name in (FOLDER, BEST_MODEL):
        shutil.rmtree(output / name, ignore_errors=True)
    for name in (PICTURE, "results.json"):
        (output / name).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)


def memory_in_use(device: torch.device) -> float:
    """GiB: the peak of the GPU's memory, or what the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return psutil.Process().memory_info().rss / 2**30


def describe_keys() -> str:
    """One line for every key of a recipe: its name, what it means, and its default."""
    return "\n".join(f"  {name:<37} {_describe(field)}" for name, field in dotted_fields())


def _describe(field: dataclasses.Field) -> str:
    info: FieldInfo = field.default
    if info.is_required():
        return f"{info.description} (required)"
    default = info.get_default(call_default_factory=True, validated_data={"name": "RECIPE"})
    return f"{info.description} (default {default})"


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(
        description=DESCRIPTION,
        epilog=f"keys of a recipe:\n{describe_keys()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="YAML file of the experiment")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="a change to the recipe, as often as needed")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    training_run = TrainingRun(load_recipe(arguments.recipe, arguments.overrides))
    training_run.train()
    if training_run.accelerator.is_main_process:
        training_run.report()


if __name__ == "__main__":
    run(main)
