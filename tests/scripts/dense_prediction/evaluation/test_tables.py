"""The table by class that is printed at every evaluation."""

import pytest
import torch

from dense_prediction.evaluation.metrics.metric import Numbers
from dense_prediction.evaluation.tables import class_rows, class_table
from dense_prediction.evaluation.tasks import TASKS


HEADINGS = {
    "semantic_segmentation": ["class", "IoU", "accuracy"],
    "object_detection": ["class", "box AP", "box AP50", "box AR100"],
    "instance_segmentation": [
        "class",
        *(f"{kind} {number}" for kind in ("mask", "box") for number in ("AP", "AP50", "AR100")),
    ],
    "panoptic_segmentation": ["class", "PQ", "SQ", "RQ"],
}
WHERE = "of them stand in results.json"


@pytest.mark.parametrize("task", HEADINGS)
def test_every_task_has_its_columns(task: str) -> None:
    numbers = TASKS[task].metric(["cat", "dog"], frozenset({0, 1})).compute()
    rows = class_rows(numbers)
    assert rows[0] == HEADINGS[task]
    assert [row[0] for row in rows[1:]] == ["cat", "dog"]


def test_another_limit_of_detections_is_named() -> None:
    numbers = TASKS["object_detection"].metric(["cat"], frozenset({0}), 300).compute()
    assert class_rows(numbers)[0] == ["class", "box AP at 300", "box AP50 at 300", "box AR300"]


def numbered(count: int, absent: int = 0) -> Numbers:
    """Class i has i thousandths."""
    values = {f"class {place}": None if place < absent else place / 1000 for place in range(count)}
    return {"mean_iou": 0.5, "class_iou": values}


def test_the_best_stand_first_and_what_was_not_there_last() -> None:
    lines = class_table(numbered(4, absent=1), WHERE).splitlines()
    assert lines == ["class       IoU", "class 3  0.0030", "class 2  0.0020", "class 1  0.0010", "class 0       -"]


def test_of_very_many_the_best_and_the_worst_are_shown() -> None:
    lines = class_table(numbered(150, absent=30), WHERE, most=4).splitlines()
    assert [line.rsplit("  ", 1)[0].strip() for line in lines] == [
        "class",
        "class 149",
        "class 148",
        "... 116 classes between these",
        "class 31",
        "class 30",
        "30 classes of which nothing was there",
        "all of them stand in results.json",
    ]
    assert len({len(lines[place]) for place in (0, 1, 4)}) == 1, "one width, as if there were no cut"


@pytest.mark.parametrize("measured", [0, 1, 2, 3, 4, 5])
def test_few_of_many_classes_were_there(measured: int) -> None:
    lines = class_table(numbered(20, absent=20 - measured), WHERE, most=4).splitlines()
    shown = [line for line in lines if line.startswith("class ") and "IoU" not in line]
    assert len(shown) == len(set(shown)) == min(measured, 4)
    assert (f"... {measured - 4} classes between these" in lines) is (measured > 4)
    assert f"{20 - measured} classes of which nothing was there" in lines


def test_no_table_where_no_class_has_numbers() -> None:
    assert class_table({"worst_iou": 0.5}, WHERE) == ""


def test_average_precision_of_a_class_is_that_of_its_objects() -> None:
    """AP50 forgives a box that is a little off, AP does not; AR is of the class's own objects."""
    metric = TASKS["object_detection"].metric(["cat", "dog", "cow"], frozenset({0, 1, 2}))
    truth = torch.tensor([[0, 0, 40, 40], [50, 50, 90, 90], [0, 50, 40, 90]]).float()
    found = {"boxes": truth[:2] + torch.tensor([[0, 0, 0, 0], [0, 0, 16, 0]]), "scores": torch.tensor([0.9, 0.8])}
    targets = {"boxes": truth, "labels": torch.tensor([0, 1, 1]), "is_crowd": torch.zeros(3, dtype=torch.bool)}
    targets |= {"areas": torch.full((3,), 1600.0), "image_id": 1, "original_size": (100, 110), "name": "a"}
    metric.update(found | {"labels": torch.tensor([0, 1])}, targets)
    numbers = metric.compute()
    assert numbers["class_box_ap50"] == {"cat": pytest.approx(1), "dog": pytest.approx(51 / 101), "cow": None}
    assert numbers["class_box_ap"]["dog"] == pytest.approx(51 / 101 * 5 / 10)  # at 0.5 to 0.7: the IoU is 40 / 56
    assert numbers["class_box_ar100"] == {"cat": pytest.approx(1), "dog": pytest.approx(0.25), "cow": None}
