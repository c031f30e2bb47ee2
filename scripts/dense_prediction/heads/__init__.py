"""The dense prediction heads of transformers round our backbone: targets, losses, predictions and image processors."""

from .building import (
    build_model,
    check_fields,
    encoder_of,
    head_of,
    label_names,
    run_on_kernel,
    task_of,
    things_of,
)
from .geometry import Geometry, geometries
from .processors import build_processor, padding_divisor
from .queries import refuse_small_images
from .registry import HEADS, Head
from .types import Batch, Prediction, PredictionOptions, Task, Tensors


__all__ = [
    "HEADS",
    "Batch",
    "Geometry",
    "Head",
    "Prediction",
    "PredictionOptions",
    "Task",
    "Tensors",
    "build_model",
    "build_processor",
    "check_fields",
    "encoder_of",
    "geometries",
    "head_of",
    "label_names",
    "padding_divisor",
    "refuse_small_images",
    "run_on_kernel",
    "task_of",
    "things_of",
]
