"""Which class is taken for which: what is matched with what, and what a person reads of it."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from dense_prediction.data.samples import IGNORE_INDEX
from dense_prediction.evaluation.metrics.mistakes import BACKGROUND, MISSED, Confusion
from dense_prediction.evaluation.tasks import TASKS


LABELS = ["cat", "dog", "horse"]
SIZE = (60, 80)

Box = tuple[int, int, int, int]


def masks(boxes: torch.Tensor) -> torch.Tensor:
    """(N, H, W): each box filled."""
    found = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(found, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return found


def objects(*each: tuple[int, Box, float]) -> dict[str, Any]:
    boxes = torch.tensor([box for _, box, _ in each]).float().reshape(-1, 4)
    labels = torch.tensor([label for label, _, _ in each], dtype=torch.int64)
    return {
        "boxes": boxes,
        "labels": labels,
        "scores": torch.tensor([score for _, _, score in each]),
        "masks": masks(boxes),
        "is_crowd": torch.zeros(len(each), dtype=torch.bool),
        "areas": (boxes[:, 2:] - boxes[:, :2]).prod(1),
        "image_id": 1,
        "original_size": SIZE,
        "name": "a picture",
    }


def confusion(task: str, found: dict[str, Any], truth: dict[str, Any]) -> Confusion:
    metric = TASKS[task].metric(LABELS, frozenset({1, 2}))
    metric.update(found, truth)
    return metric.confusion()


LEFT, RIGHT, BELOW = (0, 0, 20, 20), (40, 0, 60, 20), (0, 30, 20, 50)
MATCHES = {
    "the same object": ([(0, LEFT, 0.9)], [(0, LEFT, 1.0)], {("cat", "cat"): 1}),
    "another class": ([(1, LEFT, 0.9)], [(0, LEFT, 1.0)], {("cat", "dog"): 1}),
    "elsewhere": ([(0, RIGHT, 0.9)], [(0, LEFT, 1.0)], {("cat", MISSED): 1, (BACKGROUND, "cat"): 1}),
    "not sure": ([(0, LEFT, 0.29)], [(0, LEFT, 1.0)], {("cat", MISSED): 1}),
    "sure enough": ([(0, LEFT, 0.31)], [(0, LEFT, 1.0)], {("cat", "cat"): 1}),
    "found twice": ([(0, LEFT, 0.9), (0, LEFT, 0.8)], [(0, LEFT, 1.0)], {("cat", "cat"): 1, (BACKGROUND, "cat"): 1}),
    "half of it": ([(0, (0, 0, 20, 10), 0.9)], [(0, LEFT, 1.0)], {("cat", "cat"): 1}),
    "less than half": ([(0, (0, 0, 20, 9), 0.9)], [(0, LEFT, 1.0)], {("cat", MISSED): 1, (BACKGROUND, "cat"): 1}),
    "a rider on a horse": (
        [(2, (0, 0, 20, 19), 0.9), (0, (0, 0, 20, 20), 0.5)],
        [(0, (0, 0, 20, 19), 1.0), (2, (0, 0, 20, 20), 1.0)],
        {("cat", "cat"): 1, ("horse", "horse"): 1},
    ),
    "nothing found": ([], [(0, LEFT, 1.0), (1, BELOW, 1.0)], {("cat", MISSED): 1, ("dog", MISSED): 1}),
    "nothing there": ([(2, BELOW, 0.9)], [], {(BACKGROUND, "horse"): 1}),
}


@pytest.mark.parametrize("task", ["object_detection", "instance_segmentation"])
@pytest.mark.parametrize("case", MATCHES)
def test_objects_in_one_place_are_compared(task: str, case: str) -> None:
    found, truth, expected = MATCHES[case]
    seen = confusion(task, objects(*found), objects(*truth))
    counts = {
        (seen.true[row], seen.found[column]): int(seen.counts[row, column]) for row, column in np.argwhere(seen.counts)
    }
    assert counts == expected


def test_masks_and_not_their_boxes_are_compared() -> None:
    truth = objects((0, LEFT, 1.0))
    found = objects((0, LEFT, 0.9))
    found["masks"][0, 8:] = False
    assert confusion("object_detection", found, truth).counts[0, 0] == 1
    assert confusion("instance_segmentation", found, truth).counts[0].tolist() == [0, 0, 0, 1]


def test_crowds_count_for_nothing() -> None:
    truth = objects((0, (0, 0, 60, 60), 1.0)) | {"is_crowd": torch.tensor([True])}
    seen = confusion("object_detection", objects((0, LEFT, 0.9), (1, BELOW, 0.9)), truth)
    assert seen.counts.sum() == 0


def test_pixels_of_semantic_maps() -> None:
    truth = torch.tensor([[0, 0, 1, IGNORE_INDEX]])
    seen = confusion("semantic_segmentation", {"semantic_map": torch.tensor([[0, 1, 1, 2]])}, {"semantic_map": truth})
    assert seen.counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (seen.unit, [*seen.true], [*seen.found]) == ("pixels", LABELS, LABELS)
    assert seen.shares.tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]]


def test_pixels_of_segments() -> None:
    """Of both maps -1 is void; of the truth it does not count, and neither does a crowd."""
    truth = {
        "segment_map": torch.tensor([[0, 0, 0, 1, -1, 2]]),
        "labels": torch.tensor([2, 1, 1]),
        "is_crowd": torch.tensor([False, False, True]),
    }
    found = {"segment_map": torch.tensor([[0, 0, -1, 1, 0, 0]]), "labels": torch.tensor([2, 0])}
    seen = confusion("panoptic_segmentation", found, truth)
    assert seen.counts.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 2, 1]]
    assert seen.found[-1] == MISSED


def test_the_most_frequent_mistakes_come_first() -> None:
    counts = np.array([[5, 3, 0], [9, 1, 0], [4, 0, 0]])
    seen = Confusion("objects", ["cat", "dog", BACKGROUND], ["cat", "dog", MISSED], counts)
    assert [tuple(mistake) for mistake in seen.mistakes()] == [
        ("dog", "cat", 9, 0.9),
        (BACKGROUND, "cat", 4, 1.0),
        ("cat", "dog", 3, 0.375),
    ]


def test_json_gives_back_what_was_counted() -> None:
    seen = confusion("object_detection", objects((1, LEFT, 0.9), (2, RIGHT, 0.9)), objects((0, LEFT, 1.0)))
    content = json.loads(json.dumps(seen.plain()))
    assert content["counts"] == {"cat": {"dog": 1}, BACKGROUND: {"horse": 1}}
    assert content["shares"] == {"cat": {"dog": 1.0}, BACKGROUND: {"horse": 1.0}}
    assert "0.5" in content["rule"] and "0.3" in content["rule"]
    again = Confusion.of_plain(content)
    assert (again.true, again.found, again.unit) == (seen.true, seen.found, seen.unit)
    assert np.array_equal(again.counts, seen.counts)
