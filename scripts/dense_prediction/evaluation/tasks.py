"""The tasks, by the names that recipes and the configs of trained models have for them."""

from ..tasks import Task


def _later(*arguments: object) -> None:
    raise NotImplementedError


def _task(name: str, *columns: str) -> Task:
    return Task(name=name, columns=columns, metric=_later, draw=_later, describe=_later)


TASKS = {
    task.name: task
    for task in (
        _task("semantic_segmentation", "semantic_map"),
        _task("object_detection", "boxes", "labels", "is_crowd", "areas"),
        _task("instance_segmentation", "boxes", "labels", "is_crowd", "areas", "masks"),
        _task("panoptic_segmentation", "segment_map", "labels", "is_crowd"),
    )
}
