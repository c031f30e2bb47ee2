"""The tasks: one record for each, of how it is measured, drawn and written down."""

from ..drawing.pictures import draw_objects, draw_segments, draw_semantic_map, paint_semantic_map
from ..errors import UserError
from ..tasks import Task
from .coco_output import describe_classes, describe_objects
from .metrics.average_precision import MAX_DETECTIONS
from .metrics.detection import DetectionMetric, InstanceMetric
from .metrics.panoptic import PanopticMetric
from .metrics.semantic import SemanticMetric


OBJECTS = ("boxes", "labels", "is_crowd", "areas")

TASKS = {
    task.name: task
    for task in (
        Task(
            name="semantic_segmentation",
            columns=("semantic_map",),
            metric=lambda labels, things: SemanticMetric(labels),
            draw=draw_semantic_map,
            draw_beside=paint_semantic_map,
            to_json=describe_classes,
            averages_views=True,
            pipeline_arguments=', subtask="semantic"',
        ),
        Task(
            name="instance_segmentation",
            columns=(*OBJECTS, "masks"),
            metric=lambda labels, things, most=MAX_DETECTIONS: InstanceMetric(labels, most),
            limits_detections=True,
            draw=draw_objects,
            to_json=describe_objects,
            pipeline_arguments=', subtask="instance", threshold=0.5',
        ),
        Task(
            name="panoptic_segmentation",
            columns=("segment_map", "labels", "is_crowd"),
            metric=PanopticMetric,
            draw=draw_segments,
            to_json=describe_objects,
            pipeline_arguments=', subtask="panoptic"',
        ),
        Task(
            name="object_detection",
            columns=OBJECTS,
            metric=lambda labels, things, most=MAX_DETECTIONS: DetectionMetric(labels, most),
            limits_detections=True,
            draw=draw_objects,
            to_json=describe_objects,
            pipeline_arguments=", threshold=0.5",
        ),
    )
}
"""By their names; another task is another entry."""


def find_task(name: str) -> Task:
    """The record of a recipe's task.

    Raises:
        UserError: there is no such task.
    """
    if name not in TASKS:
        raise UserError(f"task={name} cannot be learnt, there are {', '.join(TASKS)}")
    return TASKS[name]
