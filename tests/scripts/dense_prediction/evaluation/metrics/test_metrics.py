"""mIoU against counting by hand, and against torchmetrics where it is installed."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dense_prediction.evaluation.metrics.confusion import (
    class_accuracy,
    class_iou,
    confusion_matrix,
    constant_mean_iou,
    mean_iou,
    pixel_accuracy,
)
from dense_prediction.evaluation.tasks import TASKS


NUM_LABELS = 5
LABELS = ["road", "sky", "tree", "car", "pole"]
IGNORE = 255


def random_maps(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and targets (2, 9, 7) in which class 4 never occurs, class 3 is only predicted, some pixels void."""
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, 4, (2, 9, 7), generator=generator)
    target = torch.randint(0, 3, (2, 9, 7), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = IGNORE
    return prediction, target


def count_by_hand(prediction: torch.Tensor, target: torch.Tensor) -> list[float]:
    """IoU of the classes that occur in either map, pixel sets compared one class at a time."""
    kept = target != IGNORE
    ious = []
    for label in range(NUM_LABELS):
        found, true = (prediction == label) & kept, (target == label) & kept
        if (found | true).any():
            ious.append(((found & true).sum() / (found | true).sum()).item())
    return ious


@pytest.mark.parametrize("seed", range(5))
def test_mean_iou_equals_counting_pixel_sets(seed: int) -> None:
    prediction, target = random_maps(seed)
    confusion = confusion_matrix(prediction, target, NUM_LABELS)
    expected = count_by_hand(prediction, target)
    assert mean_iou(confusion) == pytest.approx(sum(expected) / len(expected))
    assert class_iou(confusion)[4].isnan(), "a class that never occurs has no IoU"
    assert class_iou(confusion)[3] == 0, "a class that is only predicted counts as 0"


@pytest.mark.parametrize("seed", range(5))
def test_mean_iou_equals_torchmetrics(seed: int) -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    metric = classification.MulticlassJaccardIndex(num_classes=NUM_LABELS, ignore_index=IGNORE)
    prediction, target = random_maps(seed)
    assert mean_iou(confusion_matrix(prediction, target, NUM_LABELS)) == pytest.approx(
        metric(prediction, target).item()
    )


def test_rows_are_the_truth() -> None:
    confusion = confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, IGNORE]), 2)
    assert confusion.tolist() == [[1, 1], [0, 0]]
    assert pixel_accuracy(confusion) == 0.5


def test_matrices_add_up_over_images() -> None:
    prediction, target = random_maps(0)
    parts = sum(confusion_matrix(p, t, NUM_LABELS) for p, t in zip(prediction, target, strict=True))
    assert torch.equal(parts, confusion_matrix(prediction, target, NUM_LABELS))


def test_chance_level_is_that_of_a_constant_answer() -> None:
    _, target = random_maps(1)
    most_frequent = target[target != IGNORE].mode().values
    constant = confusion_matrix(torch.full_like(target, most_frequent), target, NUM_LABELS)
    other = confusion_matrix(random_maps(1)[0], target, NUM_LABELS)
    assert constant_mean_iou(other) == pytest.approx(mean_iou(constant))


@pytest.mark.parametrize("bad", [-1, NUM_LABELS, 254])
def test_ids_that_are_no_class_are_refused(bad: int) -> None:
    good = torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="target holds ids"):
        confusion_matrix(good, torch.tensor([0, 0, bad]), NUM_LABELS)
    with pytest.raises(ValueError, match="prediction holds ids"):
        confusion_matrix(torch.tensor([0, 0, bad]), good, NUM_LABELS)
    with pytest.raises(ValueError, match="prediction is"):
        confusion_matrix(good, good[:2], NUM_LABELS)


def count_classes_with_numpy(prediction: np.ndarray, target: np.ndarray) -> dict[str, list[float | None]]:
    """IoU and accuracy of each class from sets of pixel numbers; None where there is nothing to divide by."""
    kept = set(np.flatnonzero(target != IGNORE).tolist())
    numbers: dict[str, list[float | None]] = {"class_iou": [], "class_accuracy": []}
    for label in range(NUM_LABELS):
        found = set(np.flatnonzero(prediction == label).tolist()) & kept
        true = set(np.flatnonzero(target == label).tolist()) & kept
        numbers["class_iou"].append(len(found & true) / len(found | true) if found | true else None)
        numbers["class_accuracy"].append(len(found & true) / len(true) if true else None)
    return numbers


def mean_of_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


maps = arrays(np.int64, (3, 4), elements=st.integers(0, NUM_LABELS - 1))
targets = arrays(np.int64, (3, 4), elements=st.sampled_from([0, 1, 2, 4, IGNORE]))


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(maps, targets), max_size=3))
@example([(np.zeros((3, 4), np.int64), np.full((3, 4), IGNORE))])
def test_the_semantic_metric_equals_counting_sets(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Over several images, also when every pixel is void, when there is no image, and split over two processes."""
    metric, other = (TASKS["semantic_segmentation"].metric(LABELS, frozenset()) for _ in range(2))
    for index, (prediction, target) in enumerate(images):
        half = (metric, other)[index % 2]
        half.update({"semantic_map": torch.from_numpy(prediction)}, {"semantic_map": torch.from_numpy(target)})
    metric.merge(pickle.loads(pickle.dumps(other.state)))
    numbers = metric.compute()
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    everything = (np.stack([image[side] for image in images]) if images else np.zeros(0) for side in (0, 1))
    expected = count_classes_with_numpy(*everything)
    for name, of_classes in expected.items():
        assert numbers[name] == pytest.approx(dict(zip(LABELS, of_classes, strict=True))), name
    assert numbers["mean_iou"] == pytest.approx(mean_of_known(expected["class_iou"]))
    assert numbers["mean_class_accuracy"] == pytest.approx(mean_of_known(expected["class_accuracy"]))
    labelled = sum((target != IGNORE).sum() for _, target in images)
    right = sum(((prediction == target) & (target != IGNORE)).sum() for prediction, target in images)
    assert numbers["pixel_accuracy"] == (pytest.approx(right / labelled) if labelled else None)
    assert (numbers["chance_mean_iou"] is None) == (labelled == 0)


def test_mean_class_accuracy_equals_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    prediction, target = random_maps(3)
    target[target == 2] = 3  # so that class 3 is present
    accuracy = classification.MulticlassAccuracy(NUM_LABELS, average=None, ignore_index=IGNORE)(prediction, target)
    ours = class_accuracy(confusion_matrix(prediction, target, NUM_LABELS))
    torch.testing.assert_close(ours.nan_to_num(), accuracy.double(), rtol=1e-6, atol=1e-6)


def test_every_task_has_a_metric_and_nothing_else_has() -> None:
    primaries = {
        "semantic_segmentation": "mean_iou",
        "object_detection": "box_ap",
        "instance_segmentation": "mask_ap",
        "panoptic_segmentation": "panoptic_quality",
    }
    for task, primary in primaries.items():
        metric = TASKS[task].metric(LABELS, frozenset({0}))
        assert metric.primary == primary
        assert metric.compute()[primary] is None, "nothing was measured"
