"""COCO's average precision of boxes for the `evaluate` library: `evaluate.load("scripts/metrics/box_ap")`.

`evaluate` copies this file and the file beside it, a link to the project's own code, into its cache; nothing has to be
installed or on the path for it, and no network is needed.
"""

from typing import Any

import datasets
import evaluate
import torch

from .average_precision import ImageRecord, corners_to_coco, plain_average_precision


DESCRIPTION = "Average precision of boxes at IoU 0.5 to 0.95, as COCO measures it, with crowds and three size classes."
INPUTS = """
Args:
    predictions: for each image a dict of `boxes` (N, 4) as x1, y1, x2, y2, `scores` (N,) and `labels` (N,).
    references: for each image a dict of `boxes` (M, 4), `labels` (M,), `is_crowd` (M,), and `areas` (M,), which choose
        an object's size class.
    num_labels (int): the number of classes; labels are 0..num_labels - 1.
Returns:
    `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` and `ar100`, in 0..1, and of each class
    `class_ap`, `class_ap50` and `class_ar100`, lists;
    None where there was no object to be found.
"""


class BoxAP(evaluate.Metric):
    """`compute(predictions=..., references=..., num_labels=...)`, or `add_batch` many times and then `compute`."""

    def _info(self) -> evaluate.MetricInfo:
        objects = {
            "boxes": datasets.Sequence(datasets.Sequence(datasets.Value("float64"))),
            "labels": datasets.Sequence(datasets.Value("int64")),
        }
        found = objects | {"scores": datasets.Sequence(datasets.Value("float64"))}
        truth = objects | {
            "is_crowd": datasets.Sequence(datasets.Value("bool")),
            "areas": datasets.Sequence(datasets.Value("float64")),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": found, "references": truth}),
        )

    def _compute(
        self, predictions: list[dict[str, Any]], references: list[dict[str, Any]], num_labels: int
    ) -> dict[str, float | None | list[float | None]]:
        images = [record(found, truth) for found, truth in zip(predictions, references, strict=True)]
        return plain_average_precision(images, num_labels, "bbox")


def record(found: dict[str, Any], truth: dict[str, Any]) -> ImageRecord:
    """Boxes are compared in their own coordinates: the size of the image plays no part."""
    columns = [
        {"category_id": side["labels"], "bbox": corners_to_coco(torch.tensor(side["boxes"], dtype=torch.float64))}
        for side in (truth, found)
    ]
    truth_columns = columns[0] | {"area": truth["areas"], "iscrowd": [int(crowd) for crowd in truth["is_crowd"]]}
    return ImageRecord((0, 0), truth_columns, columns[1] | {"score": found["scores"]})
