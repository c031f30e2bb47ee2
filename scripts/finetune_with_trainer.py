"""Train a recipe with HF's Trainer: `vit-comer finetune RECIPE [key=value ...] [--flag ...]`."""

from pathlib import Path
from pickle import UnpicklingError
from typing import cast

from huggingface_hub.utils import httpx
from safetensors import SafetensorError

from dense_prediction.command_line import run, without_their_progress_bars
from dense_prediction.data.inspection.findings import describe_skipped
from dense_prediction.data.samples import Split
from dense_prediction.errors import UserError
from dense_prediction.failures import explained
from dense_prediction.hub.public_paths import public_path, write_public
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe
from dense_prediction.training.huggingface.arguments import KEYS, CommandLine, parse_command_line
from dense_prediction.training.huggingface.building import build_trainer
from dense_prediction.training.huggingface.reporting import build_report, course_of
from dense_prediction.training.huggingface.trainer import RecipeTrainer
from dense_prediction.training.processes.folder_lock import locked
from dense_prediction.training.processes.step_size import smaller_passes
from dense_prediction.training.results import write_results
from dense_prediction.training.run_folder import PICTURE, RESULTS
from dense_prediction.training.run_state import RunState


DESCRIPTION = """\
Train a model as a recipe says, with HF's Trainer. The numbers are those of scripts/train.py.

Beside the recipe's own keys (train.py --help lists them) every flag of TrainingArguments can be given, after them:

  vit-comer finetune RECIPE training.steps=2000 --bf16 --report_to tensorboard
  vit-comer finetune RECIPE --push_to_hub --hub_model_id me/my-model
  vit-comer finetune RECIPE --resume_from_checkpoint true   # the last one in the output folder
  accelerate launch -m vit_comer_commands.finetune_with_trainer RECIPE                      # on several GPUs

A flag that the recipe has a key for changes the recipe: --learning_rate 1e-4 is optimization.learning_rate=1e-4.
The output folder then holds the best model (for predict.py and from_pretrained), report.html, predictions.png,
results.json, what Trainer writes, and its checkpoints. With --do_predict the test split is measured too.
"""

TAGS = ["vision", "vit-comer"]


def finetune(trainer: RecipeTrainer) -> None:
    """Train, save the best model, measure it, and write down and push what the flags ask for."""
    args, data = trainer.args, trainer.experiment.data
    report = build_report(trainer) if trainer.is_world_process_zero() else None
    if report is not None:
        report.begin(course_of(trainer, trainer.begun))
    trained = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    record(trainer, "train", trained.metrics)
    state = trainer.run_state()
    if trainer.is_world_process_zero():
        write(trainer, state)
        draw(trainer)
    trainer.save_state()
    trainer.save_model(_internal_call=True)  # pushed below, once
    if args.do_eval:
        record(trainer, "eval", trainer.evaluate())
        confusion = trainer.experiment.confusion
        state.confusion = None if confusion is None else confusion.plain()
    if args.do_predict:
        samples = trainer.experiment.evaluation_set(cast(Split, data.test))
        record(trainer, "test", trainer.evaluate(samples, metric_key_prefix="test"))
    if trainer.is_world_process_zero():
        state.note_skipped(trainer.skipped)
        write(trainer, state)  # again, with what was skipped since
        if report is not None:
            report.write(course_of(trainer, state, is_finished=True))
        trainer.experiment.warn_of_all_skipped(
            trainer.state.global_step * trainer.begun.samples_per_step, trainer.skipped
        )
        if skipped := describe_skipped(trainer.skipped):
            print(skipped)
    if args.push_to_hub:
        push(trainer)


def write(trainer: RecipeTrainer, state: RunState) -> None:
    """The results of a run as it was when it ended."""
    write_results(
        trainer.recipe,
        state,
        trainer.args.device,
        metric=cast(str, trainer.args.metric_for_best_model),
        data=trainer.experiment.data_record(),
        processes=trainer.args.world_size,
    )


def record(trainer: RecipeTrainer, name: str, metrics: dict[str, float]) -> None:
    """Print the numbers and write them into `{name}_results.json`."""
    trainer.log_metrics(name, metrics)
    trainer.save_metrics(name, metrics)


def draw(trainer: RecipeTrainer) -> None:
    """What the model sees in pictures of the validation split."""
    page = trainer.experiment.draw(trainer.accelerator, trainer.model)
    if page is not None:
        page.save(Path(cast(str, trainer.args.output_dir)) / PICTURE)


def push(trainer: RecipeTrainer) -> None:
    """Upload the model, its results and a card, both without the folders of this machine from then on."""
    recipe, results = trainer.recipe, Path(cast(str, trainer.args.output_dir)) / RESULTS
    if trainer.is_world_process_zero():
        write_public(results, results)
    try:
        trainer.push_to_hub(
            finetuned_from=public_path(recipe.backbone.checkpoint or recipe.backbone.trunk),
            dataset=public_path(recipe.data.path),
            tags=[*TAGS, recipe.task.replace("_", "-")],
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise UserError(
            f"the model is saved in {trainer.args.output_dir}, but not pushed: {' '.join(str(error).split())}"
        ) from error


def announce(line: CommandLine) -> None:
    """Say which flags have changed the recipe."""
    for name, value in line.flags.items():
        if name in KEYS:
            print(f"--{name} {value} replaces the recipe's {KEYS[name]}")


@without_their_progress_bars()
def main() -> None:
    line = parse_command_line(DESCRIPTION)
    recipe = load_recipe(line.recipe, line.overrides)
    check_test_split(recipe, line)
    try:
        with (
            locked(Path(recipe.output)),
            explained(
                lambda: f"(the checkpoints in {recipe.output} are kept, resume=auto goes on from the last)",
                smaller_passes(recipe.training),
            ),
        ):
            trainer = build_trainer(recipe, line.flags)
            if trainer.is_world_process_zero():
                announce(line)
            finetune(trainer)
    except (SafetensorError, UnpicklingError, EOFError) as error:
        raise UserError(f"cannot resume {recipe.resume}: {' '.join(str(error).split())}") from error


def check_test_split(recipe: Recipe, line: CommandLine) -> None:
    if line.flags.get("do_predict") and recipe.data.test_split is None:
        raise UserError("--do_predict needs data.test_split=..., the split to measure the finished model on")


if __name__ == "__main__":
    run(main)
