"""The splits and class names that a recipe asks for, whatever their format."""

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UserError
from .bad_samples import CheckedSplit
from .formats.coco import open_coco
from .formats.coco_panoptic import open_coco_panoptic
from .formats.datasets_library import open_dataset
from .formats.folders import open_folders
from .formats.synthetic_shapes import SYNTHETIC, open_shapes
from .formats.voc import open_voc
from .options import DataOptions
from .samples import FirstSamples, Split
from .source import Source
from .streaming import StreamedSplit, check_not_empty


TASKS = ("semantic_segmentation", "instance_segmentation", "panoptic_segmentation", "object_detection")

FORMATS: dict[str, tuple[Callable[[DataOptions, str], Source], tuple[str, ...]]] = {
    SYNTHETIC: (open_shapes, TASKS),
    "datasets": (open_dataset, ("semantic_segmentation", "object_detection")),
    "folders": (open_folders, ("semantic_segmentation",)),
    "coco": (open_coco, ("instance_segmentation", "object_detection")),
    "coco_panoptic": (open_coco_panoptic, ("panoptic_segmentation",)),
    "voc": (open_voc, ("semantic_segmentation", "object_detection")),
}
"""How each format is opened, and the tasks that it has samples for."""


@dataclass(frozen=True)
class Data:
    """What a recipe trains and measures on. Each split counts the bad samples passed over so far, `num_skipped`.

    Attributes:
        labels: class names in the order of their ids.
        things: ids of the countable classes: all for detection and instance segmentation, none for semantic maps.
    """

    train: Split
    validation: Split
    test: Split | None
    labels: list[str]
    things: frozenset[int]


def load_data(recipe: DataOptions, task: str) -> Data:
    """The splits of the recipe's dataset, with samples for the task (see `Sample`).

    Raises:
        UserError: the dataset, a split, a column, a file or the class names cannot be found, a split is empty, or
            the format has no such samples.
    """
    source = _open(recipe, task)
    train = _first(_split(source, recipe, "train_split"), "max_train_samples", recipe)
    validation = _first(_split(source, recipe, "validation_split"), "max_validation_samples", recipe)
    test = None if recipe.test_split is None else _split(source, recipe, "test_split")
    return Data(train, validation, test, source.labels, source.things)


def _first(split: Split, key: str, recipe: DataOptions) -> Split:
    number = getattr(recipe, key)
    if number is None:
        return split
    if isinstance(split, StreamedSplit):
        raise UserError(f"data.{key}={number} needs data.streaming=false")
    return FirstSamples(split, number)


def _open(recipe: DataOptions, task: str) -> Source:
    name = SYNTHETIC if recipe.path == SYNTHETIC else recipe.format
    open_source, tasks = FORMATS[name]
    if task not in tasks:
        fitting = [other for other, (_, known) in FORMATS.items() if task in known]
        raise UserError(f"data.format={name} has no samples for task={task}; {', '.join(fitting)} have")
    return open_source(recipe, task)


def _split(source: Source, recipe: DataOptions, key: str) -> Split:
    split = source.open_split(key)
    where = f"data.{key}={getattr(recipe, key)}"
    if isinstance(split, StreamedSplit):
        check_not_empty(split, where)
        return split
    if len(split) == 0:
        raise UserError(f"{where}: the split is empty")
    return CheckedSplit(split, recipe.bad_samples == "skip")
