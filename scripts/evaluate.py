"""Measure a trained model on a recipe's data: `vit-comer evaluate RECIPE --model FOLDER [key=value ...]`."""

import argparse
import json
from pathlib import Path

from dense_prediction.command_line import ArgumentParser, run, without_their_progress_bars
from dense_prediction.errors import UserError
from dense_prediction.prediction.image_files import make_folder
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe


MOST_MISTAKES = 5
CONFUSION_SUFFIX = ".confusion.png"

DESCRIPTION = """\
Measure a trained model on the data of a recipe: mean IoU, average precision of boxes and masks, or panoptic quality,
of all classes and of each; and which class is taken for which.

  vit-comer evaluate outputs/my_run --split test      # its best model, by the recipe that it learnt by
  vit-comer evaluate RECIPE --model outputs/my_run/best_model
  vit-comer evaluate RECIPE --model MODEL_FOLDER --split test --output test.json data.path=/my/dataset
  accelerate launch -m vit_comer_commands.evaluate RECIPE --model MODEL_FOLDER    # on several GPUs, the same

Semantic segmentation can look at every picture more than once:

  ... 'evaluation.scales=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]' evaluation.flip=true    # the average of twelve views
  ... 'evaluation.window=[512, 512]' 'evaluation.stride=[341, 341]'                 # windows that slide over it

RECIPE says what the data is (data.*), how pictures are prepared (transforms.*) and in which precision the model runs
(training.mixed_precision); the head comes from the model. A model is refused that was trained for another task, with
other classes, or with images that were normalised otherwise.
"""


def main() -> None:
    arguments = parse_arguments()
    if arguments.max_detections is not None:
        arguments.overrides.append(f"evaluation.max_detections={arguments.max_detections}")
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    prepare_output(arguments.output)
    evaluate(arguments, recipe)


@without_their_progress_bars()
def evaluate(arguments: argparse.Namespace, recipe: Recipe) -> None:
    # Not before the arguments are read, because torch takes seconds.
    from dense_prediction.evaluation.metrics.mistakes import RULES
    from dense_prediction.evaluation.tables import mistake_lines, to_table
    from dense_prediction.prediction.evaluating import Measurement
    from dense_prediction.reporting.course import draw_confusion

    measured = Measurement(recipe, arguments.model or arguments.recipe, arguments.split)
    if not measured.accelerator.is_main_process:
        return
    counted = ", ".join(f"{value} {name}" for name, value in measured.counts.items())
    print(f"{recipe.name}, {arguments.split} split: {counted}\n\n{to_table(measured.numbers)}")
    confusion = measured.confusion
    if confusion is not None and (mistakes := confusion.mistakes()[:MOST_MISTAKES]):
        print(f"\nmost frequent mistakes, true -> found, of {RULES[confusion.unit]}:")
        print(mistake_lines(mistakes, confusion.unit))
    if arguments.output is None:
        print("\n--output FILE.json writes all numbers, and which class is taken for which, also as a picture")
    else:
        content = measured.content() | {"overrides": arguments.overrides}
        arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"\nnumbers  {arguments.output}")
        if confusion is not None:
            picture = arguments.output.with_suffix(CONFUSION_SUFFIX)
            draw_confusion(confusion).save(picture)
            print(f"picture  {picture}: which class is taken for which")


def prepare_output(path: Path | None) -> None:
    """Find out before the work, not after it, that the file has no place."""
    if path is None:
        return
    make_folder(path.parent)
    if path.is_dir():
        raise UserError(f"--output {path} is a folder: name a file in it, {path / 'evaluation.json'}")


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recipe", metavar="RECIPE", type=Path, help="YAML file that the model was trained with, or the run's folder"
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="a change to the recipe, as often as needed")
    parser.add_argument(
        "--model", metavar="FOLDER", type=Path, help="a best_model folder that train.py wrote (default: the run's own)"
    )
    parser.add_argument("--split", choices=["validation", "test"], default="validation", help="default: %(default)s")
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=int,
        help="the best N boxes or instances of a picture count (default: evaluation.max_detections, which is 100)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        type=Path,
        help="write the numbers and how they were measured, and FILE.confusion.png: which class is taken for which",
    )
    arguments = parser.parse_intermixed_args()
    if arguments.model is None and not arguments.recipe.is_dir():
        parser.error("--model FOLDER is needed, unless RECIPE is the output folder of a run")
    return arguments


if __name__ == "__main__":
    run(main)
