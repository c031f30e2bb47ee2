"""What a task is: the one record of all that differs between tasks. The records themselves: `evaluation/tasks.py`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


Annotation = Mapping[str, Any]
"""A prediction, or what a sample's annotators drew: tensors or arrays at the image's own size, by their columns."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What there is to be learnt.

    Attributes:
        name: as recipes and the configs of trained models call it.
        columns: what a sample has beside its image, as `data.samples.Sample` describes it.
        metric: class names, and the ids of the countable classes -> an `evaluation.metrics.metric.Metric`; where
            `limits_detections`, also how many detections of a picture count.
        draw: over a picture what was found in it or annotated, see `drawing.pictures.Draw`.
        draw_beside: the same where the picture itself is shown beside; None for `draw`.
        to_json: a prediction -> what JSON says of each of its objects, segments or classes.
        limits_detections: whether a picture has at most `evaluation.max_detections` predictions.
        averages_views: whether its scores of several views of a picture can be averaged.
        pipeline_arguments: what a pipeline of transformers takes for this task beside a picture, as Python has it.
    """

    name: str
    columns: tuple[str, ...]
    metric: Callable[..., Any]
    draw: Callable[..., Any]
    to_json: Callable[[Annotation], Iterator[dict[str, Any]]]
    draw_beside: Callable[..., Any] | None = None
    limits_detections: bool = False
    averages_views: bool = False
    pipeline_arguments: str = ""
