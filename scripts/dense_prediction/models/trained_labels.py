"""The classes that a saved model knows, and whether they are those of some data."""

from itertools import zip_longest

from transformers import PreTrainedModel

from ..data.loading import Data
from ..errors import UserError
from ..tasks import Task
from .building import task_of, things_of


def labels_of(model: PreTrainedModel) -> list[str]:
    """Class names in the order of their ids."""
    return [model.config.id2label[label] for label in range(model.config.num_labels)]


def check_fits(model: PreTrainedModel, data: Data, task: Task) -> None:
    """Refuse to measure a model by data of another task or with other classes: every number would be wrong.

    Raises:
        UserError: the task, a class name, the order of the classes or, of panoptic data, what is countable differs.
    """
    if task_of(model) != task.name:
        raise UserError(f"the model was trained for {task_of(model)}, the recipe's task is {task.name}; set task=...")
    pairs = zip_longest(labels_of(model), data.labels)
    for index, (trained, annotated) in enumerate(pairs):
        if trained != annotated:
            raise UserError(
                f"class {index} is {_name(trained)} to the model and {_name(annotated)} in the data: the model was "
                f"trained with {model.config.num_labels} classes, the data has {len(data.labels)}; set data.labels"
            )
    if "segment_map" in task.columns and things_of(model) != data.things:
        differing = ", ".join(data.labels[index] for index in sorted(things_of(model) ^ data.things))
        raise UserError(f"{differing}: countable either to the model or in the data, but not to both")


def _name(label: str | None) -> str:
    return "nothing" if label is None else repr(label)
