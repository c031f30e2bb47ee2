"""Validation: the confusion matrix of a model over a whole split, and what is reported of it."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from .heads import Head, semantic_map
from .loading import EvaluationSet, evaluation_loader
from .metrics import class_iou, confusion_matrix, constant_mean_iou, mean_iou, pixel_accuracy


@torch.no_grad()
def evaluate(
    accelerator: Accelerator, model: nn.Module, head: Head, data: EvaluationSet, num_labels: int, workers: int
) -> torch.Tensor:
    """Confusion matrix (num_labels, num_labels) over all of `data`, added up over the processes."""
    # Dealt out by hand: Accelerate would repeat samples to make the processes' shares equal, and count them twice.
    indices = range(accelerator.process_index, len(data.split), accelerator.num_processes)
    confusion = torch.zeros(num_labels, num_labels, dtype=torch.int64, device=accelerator.device)
    model = accelerator.unwrap_model(model)
    was_training = model.training
    model.eval()
    batches = evaluation_loader(data, indices, workers)
    for batch in tqdm(batches, "evaluating", leave=False, disable=not accelerator.is_main_process):
        labels = batch["labels"].to(accelerator.device)
        output = model(pixel_values=batch["pixel_values"].to(accelerator.device))
        prediction = semantic_map(head.scores(output), labels.shape[-2:])
        confusion += confusion_matrix(prediction, labels, num_labels)
    model.train(was_training)
    return accelerator.reduce(confusion)


def summarize(confusion: torch.Tensor, labels: list[str]) -> dict[str, Any]:
    """Numbers for a result file, all in 0..1; the IoU of a class that never occurs is None."""
    ious = zip(labels, class_iou(confusion).tolist(), strict=True)
    return {
        "mean_iou": mean_iou(confusion),
        "chance_mean_iou": constant_mean_iou(confusion),
        "pixel_accuracy": pixel_accuracy(confusion),
        "class_iou": {label: None if iou != iou else iou for label, iou in ious},
    }
