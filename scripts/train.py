"""Train a model for any of the four tasks: `vit-comer train RECIPE_OR_TASK [--data SOURCE] [key=value ...]`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dense_prediction import begin
from dense_prediction.command_line import ArgumentParser, run, without_their_progress_bars
from dense_prediction.recipes.keys import describe_keys
from dense_prediction.recipes.runs import RECIPE
from dense_prediction.tailoring.requests import Request, own_data_recipes


if TYPE_CHECKING:
    from dense_prediction.tailoring.planning import Plan
    from dense_prediction.training.loop import TrainingRun


DESCRIPTION = """\
Train a model for semantic, instance or panoptic segmentation or object detection: as a recipe says, or on your own
pictures, whose format is recognised and whose settings follow from them.

  vit-comer train object_detection --data my_pictures
  vit-comer train semantic_segmentation --data my_pictures.zip training.steps=2000 output=outputs/mine

The data may be COCO's JSON, YOLO's folders, VOC's XML, folders of images and masks, one mask for each object, a
`datasets` folder or Hub id, or a zip file of these. What was found and each setting with its reason is shown and
stands in recipe.yaml in the output folder; what is typed is taken as it is.

A recipe is a YAML file, or the name of one that comes with the package. Everything in it can be changed on the
command line:

  vit-comer train semantic_segmentation/synthetic_shapes/upernet_vit-comer-demo
  vit-comer train RECIPE data.path=/my/dataset training.steps=2000 training.mixed_precision=bf16
  vit-comer train RECIPE --data my_pictures # the recipe's settings on data that are recognised
  vit-comer train RECIPE resume=auto        # goes on where a stopped run left off, with the same result
  accelerate launch -m vit_comer_commands.train RECIPE         # on several GPUs

The output folder then holds report.html (the data, the model and what came of it, from before the first step on),
best_model/ and last_model/ (for predict.py and from_pretrained), predictions.png, predictions/, curve.png and
confusion.png (pictures), recipe.yaml, results.json and checkpoints/. Paths that are typed, and those of data, weights
and output, are relative to the folder that the command runs in; label lists and bases, to the recipe that names them.
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


def announce(plan: "Plan") -> None:
    """What was recognised, and what follows from it."""
    for setting in plan.settings:
        print(f"{setting.key}={json.dumps(setting.value)}  # {setting.reason}")
    if plan.settings:
        print(
            f"recipe   {Path(plan.recipe.output) / RECIPE}; what is typed as key=value replaces a setting", flush=True
        )


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(
        description=DESCRIPTION,
        epilog=f"keys of a recipe:\n{describe_keys()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE_OR_TASK",
        help=f"name of a recipe, YAML file, output folder of a run, or {', '.join(own_data_recipes())}",
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="a change to the recipe, as often as needed")
    parser.add_argument(
        "--data", metavar="SOURCE", help="folder, file, zip or Hub id of the data, which are recognised"
    )
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse_arguments()
    train(Request(arguments.recipe, arguments.data, arguments.overrides))


@without_their_progress_bars()
def train(request: Request) -> None:
    with begin(request, announce) as training_run:
        training_run.train()
    if training_run.is_main:
        report(training_run)


if __name__ == "__main__":
    run(main)
