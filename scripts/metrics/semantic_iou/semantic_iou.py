"""Mean IoU of semantic maps for the `evaluate` library: `evaluate.load("scripts/metrics/semantic_iou")`.

`evaluate` copies this file and the file beside it, a link to the project's own code, into its cache; nothing has to be
installed or on the path for it, and no network is needed.
"""

import datasets
import evaluate
import numpy as np
import torch

from .confusion import (
    class_accuracy,
    class_iou,
    confusion_matrix,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
)


DESCRIPTION = "Mean intersection over union, and accuracies, from one confusion matrix over all pixels of all images."
INPUTS = """
Args:
    predictions: list of (H, W) maps of class ids, each of any size.
    references: list of (H, W) maps of class ids and `ignore_index`, of the sizes of the predictions.
    num_labels (int): the number of classes.
    ignore_index (int, optional): id in the references that is no class. Default 255.
Returns:
    `mean_iou`, `pixel_accuracy` and `mean_class_accuracy`, in 0..1, and `class_iou` and `class_accuracy`, lists;
    None where there was nothing to be measured.
"""


class SemanticIoU(evaluate.Metric):
    """`compute(predictions=..., references=..., num_labels=...)`, or `add_batch` many times and then `compute`."""

    def _info(self) -> evaluate.MetricInfo:
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("uint16")))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": maps, "references": maps}),
        )

    def _compute(
        self,
        predictions: list[list[list[int]]],
        references: list[list[list[int]]],
        num_labels: int,
        ignore_index: int = 255,
    ) -> dict[str, float | None | list[float | None]]:
        confusion = torch.zeros(num_labels, num_labels, dtype=torch.int64)
        for maps in zip(predictions, references, strict=True):
            prediction, reference = (torch.from_numpy(np.array(class_map, dtype=np.int64)) for class_map in maps)
            confusion += confusion_matrix(prediction, reference, num_labels, ignore_index)
        return {
            "mean_iou": number(mean_iou(confusion)),
            "pixel_accuracy": number(pixel_accuracy(confusion)),
            "mean_class_accuracy": number(mean_class_accuracy(confusion)),
            "class_iou": [number(value) for value in class_iou(confusion).tolist()],
            "class_accuracy": [number(value) for value in class_accuracy(confusion).tolist()],
        }


def number(value: float) -> float | None:
    return None if value != value else value
