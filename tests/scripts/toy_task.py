"""A task that the library does not know: one file, as anybody would write it."""

from collections.abc import Iterator, Set
from typing import Any

from PIL import Image

from dense_prediction.drawing.annotations import Arrays
from dense_prediction.drawing.pictures import Style
from dense_prediction.evaluation.metrics.semantic import SemanticMetric
from dense_prediction.tasks import Annotation, Task


class WorstClass(SemanticMetric):
    """The IoU of the class that is found worst."""

    primary = "worst_iou"

    def __init__(self, labels: list[str], things: Set[int]) -> None:
        super().__init__(labels)

    def compute(self) -> dict[str, float | None]:
        found = super().compute()["class_iou"].values()
        return {"worst_iou": None if None in found else min(found)}


def draw_outline(image: Image.Image, arrays: Arrays, labels: list[str], style: Style) -> Image.Image:
    """White where the last class is."""
    mask = Image.fromarray(arrays["semantic_map"] == len(labels) - 1)
    return Image.composite(Image.new("RGB", image.size, "white"), image, mask)


def count_pixels(prediction: Annotation) -> Iterator[dict[str, Any]]:
    for label in prediction["semantic_map"].unique().tolist():
        yield {"category_id": label, "pixels": int((prediction["semantic_map"] == label).sum())}


TASK = Task(
    name="worst_class",
    columns=("semantic_map",),
    metric=WorstClass,
    draw=draw_outline,
    to_json=count_pixels,
)
