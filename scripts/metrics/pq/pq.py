"""Panoptic quality for the `evaluate` library: `evaluate.load("scripts/metrics/pq")`.

`evaluate` copies this file and the file beside it, a link to the project's own code, into its cache; nothing has to be
installed or on the path for it, and no network is needed.
"""

from typing import Any

import datasets
import evaluate
import torch

from .panoptic_quality import Segments, class_qualities, count_segments


DESCRIPTION = "Panoptic, segmentation and recognition quality by COCO's rules, with void and crowds."
INPUTS = """
Args:
    predictions: for each image a dict of `segment_map` (H, W), the position of each pixel's segment in `labels` or -1
        for none, and `labels` (K,).
    references: the same and `is_crowd` (K,).
    num_labels (int): the number of classes; labels are 0..num_labels - 1.
Returns:
    `pq`, `sq` and `rq`, in 0..1, means over the classes that occur, and `class_pq`, a list;
    None where there was nothing to be measured.
"""


class PQ(evaluate.Metric):
    """`compute(predictions=..., references=..., num_labels=...)`, or `add_batch` many times and then `compute`."""

    def _info(self) -> evaluate.MetricInfo:
        found = {
            "segment_map": datasets.Sequence(datasets.Sequence(datasets.Value("int32"))),
            "labels": datasets.Sequence(datasets.Value("int64")),
        }
        truth = found | {"is_crowd": datasets.Sequence(datasets.Value("bool"))}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": found, "references": truth}),
        )

    def _compute(
        self, predictions: list[dict[str, Any]], references: list[dict[str, Any]], num_labels: int
    ) -> dict[str, float | None | list[float | None]]:
        counts = torch.zeros(num_labels, 4, dtype=torch.float64)
        for found, truth in zip(predictions, references, strict=True):
            counts += count_segments(segments(found), segments(truth), num_labels)
        qualities = class_qualities(counts)
        means = zip(("pq", "sq", "rq"), qualities.nanmean(0).tolist(), strict=True)
        by_class = [number(value) for value in qualities[:, 0].tolist()]
        return {name: number(mean) for name, mean in means} | {"class_pq": by_class}


def segments(annotation: dict[str, Any]) -> Segments:
    crowd = annotation.get("is_crowd")
    return Segments(
        torch.tensor(annotation["segment_map"], dtype=torch.int64),
        torch.tensor(annotation["labels"], dtype=torch.int64),
        None if crowd is None else torch.tensor(crowd, dtype=torch.bool),
    )


def number(value: float) -> float | None:
    return None if value != value else value
