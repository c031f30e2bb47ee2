"""The tasks: one record for each."""

from ..errors import UserError
from ..tasks import Task


OBJECTS = ("boxes", "labels", "is_crowd", "areas")

TASKS = {
    name: Task(name=name, columns=columns, metric=lambda labels, things: None, draw=lambda: None, describe=iter)
    for name, columns in {
        "semantic_segmentation": ("semantic_map",),
        "instance_segmentation": (*OBJECTS, "masks"),
        "panoptic_segmentation": ("segment_map", "labels", "is_crowd"),
        "object_detection": OBJECTS,
    }.items()
}
"""By their names."""


def find_task(name: str) -> Task:
    """The record of a recipe's task.

    Raises:
        UserError: there is no such task.
    """
    if name not in TASKS:
        raise UserError(f"task={name} cannot be learnt, there are {', '.join(TASKS)}")
    return TASKS[name]
