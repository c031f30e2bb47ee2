"""Train a model for any of the four tasks: `vit-comer train RECIPE [key=value ...]`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dense_prediction.command_line import ArgumentParser, run, without_their_progress_bars
from dense_prediction.recipes.keys import describe_keys
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe


if TYPE_CHECKING:
    from dense_prediction.training.loop import TrainingRun


DESCRIPTION = """\
Train a model as a recipe says: semantic, instance or panoptic segmentation, or object detection.

A recipe is a YAML file, or the name of one that comes with the package. Everything in it can be changed on the
command line:

  vit-comer train semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo
  vit-comer train RECIPE data.path=/my/dataset training.steps=2000 training.mixed_precision=bf16
  vit-comer train RECIPE resume=auto        # goes on where a stopped run left off, with the same result
  accelerate launch -m vit_comer_commands.train RECIPE         # on several GPUs

The output folder then holds report.html (the data, the model and what came of it, from before the first step on),
best_model/ and last_model/ (for predict.py and from_pretrained), predictions.png, predictions/, curve.png and
confusion.png (pictures), results.json and checkpoints/. Paths that are typed, and those of data, weights and output,
are relative to the folder that the command runs in; label lists and bases, to the recipe that names them.
"""


def report(training_run: "TrainingRun") -> None:
    """Name all that a person wants to find."""
    from dense_prediction.data.inspection.findings import describe_skipped
    from dense_prediction.reporting.files import REPORT
    from dense_prediction.training.run_folder import BEST_MODEL, PICTURE

    output, state = training_run.output, training_run.state
    stopped = "" if state.step == training_run.steps else f", stopped early at step {state.step}"
    print(
        f"validation {training_run.metric} {state.best_score:.4f} at step {state.best_step}{stopped}, "
        f"{state.seconds:.0f} s of training and evaluation"
    )
    if skipped := describe_skipped(state.skipped):
        print(skipped)
    print(f"model    {output / BEST_MODEL}\npicture  {output / PICTURE}\nnumbers  {training_run.results_file}")
    print(f"report   {output / REPORT}")


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(
        description=DESCRIPTION,
        epilog=f"keys of a recipe:\n{describe_keys()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe, or YAML file of the experiment")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="a change to the recipe, as often as needed")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    train(load_recipe(arguments.recipe, arguments.overrides))


@without_their_progress_bars()
def train(recipe: Recipe) -> None:
    # Not before the arguments are read, because torch takes seconds.
    from dense_prediction.training.processes.folder_lock import locked

    with locked(Path(recipe.output)):
        from dense_prediction.training.loop import TrainingRun

        training_run = TrainingRun(recipe)
        training_run.train()
    if training_run.is_main:
        report(training_run)


if __name__ == "__main__":
    run(main)
