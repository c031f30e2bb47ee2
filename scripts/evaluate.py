"""Measure a trained model on a recipe's data: `python scripts/evaluate.py RECIPE --model FOLDER [key=value ...]`."""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from dense_prediction.batches.streams import EvaluationSet
from dense_prediction.batches.transforms import EvaluationTransform
from dense_prediction.command_line import ArgumentParser, run
from dense_prediction.data.loading import Data, load_data
from dense_prediction.data.samples import Split
from dense_prediction.errors import UserError
from dense_prediction.evaluation.measuring import evaluate
from dense_prediction.evaluation.metrics.metric import Numbers
from dense_prediction.evaluation.tables import to_table
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.evaluation.views import check_views
from dense_prediction.failures import is_out_of_memory
from dense_prediction.models.heads import head_of
from dense_prediction.models.trained_labels import check_fits
from dense_prediction.prediction.image_files import make_folder
from dense_prediction.prediction.saved_models import load_model
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe
from dense_prediction.training.processes.accelerators import start_accelerator
from dense_prediction.training.results import device_name, library_versions


SMALLER = (
    "measure smaller pictures (transforms.evaluation_resize and shortest_edges) or, of semantic segmentation, windows "
    "that slide over them (evaluation.window and stride)"
)

DESCRIPTION = """\
Measure a trained model on the data of a recipe: mean IoU, average precision of boxes and masks, or panoptic quality,
of all classes and of each.

  python scripts/evaluate.py RECIPE --model outputs/my_run/best_model
  python scripts/evaluate.py RECIPE --model MODEL_FOLDER --split test --output test.json data.path=/my/dataset
  accelerate launch scripts/evaluate.py RECIPE --model MODEL_FOLDER       # on several GPUs, the same numbers

Semantic segmentation can look at every picture more than once:

  ... 'evaluation.scales=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]' evaluation.flip=true    # the average of twelve views
  ... 'evaluation.window=[512, 512]' 'evaluation.stride=[341, 341]'                 # windows that slide over it

RECIPE says what the data is (data.*), how pictures are prepared (transforms.*) and in which precision the model runs
(training.mixed_precision); the head comes from the model. A model is refused that was trained for another task, with
other classes, or with images that were normalised otherwise.
"""


def main() -> None:
    arguments = parse_arguments()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    check_views(recipe.task, recipe.evaluation)
    prepare_output(arguments.output)
    accelerator = start_accelerator(recipe.training.mixed_precision)
    model, processor = load_model(arguments.model, accelerator.device)
    data = load_data(recipe.data, recipe.task)
    check_fits(model, data, TASKS[recipe.task])
    check_normalization(processor, recipe)
    split = choose_split(data, arguments.split)
    started = time.perf_counter()
    numbers = measure(accelerator, model, split, data, recipe)
    counts = {"pictures": len(split), "skipped": sum(gather_object([split.num_skipped]))}
    counts["seconds"] = round(time.perf_counter() - started, 1)
    if accelerator.is_main_process:
        counted = ", ".join(f"{value} {name}" for name, value in counts.items())
        print(f"{recipe.name}, {arguments.split} split: {counted}\n\n{to_table(numbers)}")
        if arguments.output is not None:
            content = describe(arguments, recipe, accelerator) | counts | {"metrics": numbers}
            arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            print(f"\nnumbers  {arguments.output}")


def check_normalization(processor: BaseImageProcessor, recipe: Recipe) -> None:
    """Refuse a recipe whose images look otherwise than those that the model was trained on."""
    for name in ("image_mean", "image_std"):
        trained, asked = list(getattr(processor, name)), list(getattr(recipe.transforms, name))
        if trained != asked:
            raise UserError(f"transforms.{name}={asked}, but the model was trained with {trained}; set it to that")


def choose_split(data: Data, name: str) -> Split:
    if name == "test" and data.test is None:
        raise UserError("--split test: the recipe names no test split; set data.test_split=NAME")
    return data.test if name == "test" else data.validation


def measure(accelerator: Accelerator, model: PreTrainedModel, split: Split, data: Data, recipe: Recipe) -> Numbers:
    """The numbers of the whole split, on every process."""
    samples = EvaluationSet(split, EvaluationTransform(recipe.transforms))
    fields = {
        "task": recipe.task,
        "labels": data.labels,
        "things": data.things,
        "workers": recipe.data.workers,
        "size_divisor": recipe.transforms.size_divisor,
        "recipe": recipe.evaluation,
    }
    try:
        with accelerator.autocast():
            return evaluate(accelerator, model, head_of(model), samples, **fields)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"out of memory; {SMALLER}") from error


def describe(arguments: argparse.Namespace, recipe: Recipe, accelerator: Accelerator) -> dict[str, Any]:
    """What was measured and on what."""
    return {
        "name": recipe.name,
        "model": str(arguments.model),
        "task": recipe.task,
        "split": arguments.split,
        "overrides": arguments.overrides,
        "recipe": {name: dataclasses.asdict(getattr(recipe, name)) for name in ("data", "transforms", "evaluation")},
        "mixed_precision": recipe.training.mixed_precision,
        "device": device_name(accelerator.device),
        "processes": accelerator.num_processes,
        "versions": library_versions(),
    }


def prepare_output(path: Path | None) -> None:
    """Find out before the work, not after it, that the file has no place."""
    if path is None:
        return
    make_folder(path.parent)
    if path.is_dir():
        raise UserError(f"--output {path} is a folder: name a file in it, {path / 'evaluation.json'}")


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="YAML file that the model was trained with")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="a change to the recipe, as often as needed")
    parser.add_argument(
        "--model", metavar="FOLDER", type=Path, required=True, help="the best_model folder that train.py wrote"
    )
    parser.add_argument("--split", choices=["validation", "test"], default="validation", help="default: %(default)s")
    parser.add_argument(
        "--output", metavar="FILE.json", type=Path, help="write the numbers, and how they were measured"
    )
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run(main)
