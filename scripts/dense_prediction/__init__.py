"""Train, measure and use dense prediction models on ViT-CoMer: what `vit-comer` does, for Python.

    from dense_prediction import evaluate, load_model, train

    results = train("object_detection", data="my_pictures")  # or a recipe, with changes: {"training.steps": 100}
    prediction = load_model("outputs/.../best_model").predict("photo.jpg")

The imports stand inside of the functions, because torch takes seconds, and a typo should be answered at once.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .prediction.trained_model import TrainedModel
    from .recipes.schema import Recipe
    from .tailoring.planning import Plan
    from .tailoring.requests import Request
    from .training.loop import TrainingRun

__all__ = ["evaluate", "load_model", "train"]


def train(
    recipe: str | Path, overrides: Mapping[str, Any] | None = None, *, data: str | Path | None = None
) -> dict[str, Any]:
    """Train a model as a recipe says, or as the data ask for: `train("object_detection", data="my_pictures")`.

    Args:
        recipe: a YAML file, the name of a recipe that comes with the package, the output folder of a run; or a task,
            whose settings follow from the data.
        overrides: changes to it by dotted keys, `{"training.steps": 100}`.
        data: folder, file or Hub id of the data, in whatever format they are; needed with a task, else in place of
            the recipe's.

    Returns:
        What stands in `results.json` in the run's output folder, where `best_model` and `last_model` are as well.

    Raises:
        UserError: something that the recipe says is wrong, as its text tells.
    """
    from .tailoring.requests import Request

    request = Request(str(recipe), None if data is None else str(data), _as_typed(overrides))
    with begin(request) as (run, _):
        run.train()
    return json.loads(run.results_file.read_text(encoding="utf-8"))


@contextmanager
def begin(request: "Request") -> Iterator[tuple["TrainingRun", "Plan"]]:
    """A run that is ready, in a folder that no other run may have meanwhile, and what it goes by.

    Raises:
        UserError: something that was asked for is wrong, as its text tells.
    """
    from .training.processes.folder_lock import locked

    with locked(Path(request.recipe.output)):
        from .tailoring.planning import plan_together
        from .training.loop import TrainingRun
        from .training.resuming import find_checkpoint

        find_checkpoint(request.recipe)  # a folder that is taken is refused before anything is measured
        plan = plan_together(request)
        yield TrainingRun(plan.recipe, plan.settings, plan.opened), plan


def evaluate(
    recipe: str | Path,
    model: str | Path | None = None,
    split: str = "validation",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a trained model on the data of a recipe.

    Args:
        recipe: a YAML file, the name of a recipe that comes with the package, or the output folder of a run.
        model: the folder that a training wrote, or the name of such a repository on the Hub; None for the best model
            of the run.
        split: "validation" or "test".
        overrides: changes to the recipe by dotted keys, `{"data.path": "my/data"}`.

    Returns:
        `metrics`, the numbers of all classes and of each, and how they were measured.

    Raises:
        UserError: something that the recipe says is wrong, or does not fit the model, as its text tells.
    """
    loaded = _load(recipe, overrides)
    from .prediction.evaluating import Measurement

    return Measurement(loaded, recipe if model is None else model, split).content()


def load_model(
    source: str | Path, device: str | None = None, threshold: float | None = None, max_detections: int = 100
) -> "TrainedModel":
    """A trained model, whose `predict` takes a file, a picture of PIL or an array; see `TrainedModel`.

    Args:
        source: the folder that a training wrote, `OUTPUT` or `OUTPUT/best_model`, or the name of such a repository on
            the Hub.
        device: where it runs; None for the GPU if there is one.
        threshold: leave out objects and segments of lower scores; None for 0.5, of panoptic segmentation 0.8.
        max_detections: keep so many boxes or instances of a picture, the best ones.

    Raises:
        UserError: there is no such model, or its files are damaged.
    """
    from .prediction.trained_model import load_model

    return load_model(source, device, threshold, max_detections)


def _load(recipe: str | Path, overrides: Mapping[str, Any] | None) -> "Recipe":
    from .recipes.loading import load_recipe

    return load_recipe(recipe, _as_typed(overrides))


def _as_typed(overrides: Mapping[str, Any] | None) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
