"""Scores of semantic maps from a confusion matrix that adds up over images and processes.

Imports nothing of this project: `scripts/metrics/semantic_iou` links to this file, and `evaluate` copies it elsewhere.
"""

import torch


def confusion_matrix(
    prediction: torch.Tensor, target: torch.Tensor, num_labels: int, ignore_index: int = 255
) -> torch.Tensor:
    """Count (true class, predicted class) pairs.

    Args:
        prediction: integer class ids in [0, num_labels), any shape.
        target: class ids or `ignore_index`, the same shape.

    Returns:
        (num_labels, num_labels) int64, rows true classes, columns predicted ones.

    Raises:
        ValueError: the shapes differ or an id is no class.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction is {tuple(prediction.shape)} but target is {tuple(target.shape)}")
    kept = target != ignore_index
    prediction, target = prediction[kept].long(), target[kept].long()
    for name, ids in (("prediction", prediction), ("target", target)):
        if ids.numel() and not 0 <= ids.min() <= ids.max() < num_labels:
            raise ValueError(f"{name} holds ids {ids.min()}..{ids.max()}, allowed are 0..{num_labels - 1}")
    pairs = torch.bincount(target * num_labels + prediction, minlength=num_labels**2)
    return pairs.view(num_labels, num_labels)  # (true * predicted) -> (true, predicted)


def class_iou(confusion: torch.Tensor) -> torch.Tensor:
    """IoU of each class, (num_labels,) float64; NaN for a class that is neither present nor predicted."""
    intersection = confusion.diagonal().double()
    return intersection / (confusion.sum(0) + confusion.sum(1) - intersection)


def mean_iou(confusion: torch.Tensor) -> float:
    """Mean IoU over the classes that are present or predicted, as torchmetrics' MulticlassJaccardIndex counts it."""
    return class_iou(confusion).nanmean().item()


def class_accuracy(confusion: torch.Tensor) -> torch.Tensor:
    """Share of each class's pixels that are found, (num_labels,) float64; NaN for a class that is not present."""
    return confusion.diagonal().double() / confusion.sum(1)


def mean_class_accuracy(confusion: torch.Tensor) -> float:
    """Mean of `class_accuracy` over the classes that are present."""
    return class_accuracy(confusion).nanmean().item()


def pixel_accuracy(confusion: torch.Tensor) -> float:
    """Share of the labelled pixels whose class is right; NaN when no pixel is labelled."""
    return (confusion.diagonal().sum() / confusion.sum()).item()


def constant_mean_iou(confusion: torch.Tensor) -> float:
    """Chance level: the mean IoU of answering the most frequent class everywhere on the same images."""
    pixels = confusion.sum(1)
    return (pixels.max() / pixels.sum() / (pixels > 0).sum()).item()
