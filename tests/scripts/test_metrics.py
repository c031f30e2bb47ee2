"""mIoU against counting by hand, and against torchmetrics where it is installed."""

import pytest
import torch

from dense_prediction.metrics import class_iou, confusion_matrix, constant_mean_iou, mean_iou, pixel_accuracy


NUM_LABELS = 5
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
