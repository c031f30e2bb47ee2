"""Semantic segmentation: one map of class ids for each image."""

from typing import Protocol

import torch
from torch.nn.functional import pad
from transformers import PreTrainedConfig

from ..batches.geometry import Geometry, geometries
from ..batches.loss_counts import Counts
from ..batches.types import Batch, Prediction, PredictionOptions, Tensors
from ..data.samples import IGNORE_INDEX
from ..tasks import Task


class DenseOutput(Protocol):
    """Class scores (B, num_labels, h, w) in `logits`."""

    logits: torch.Tensor


def dense_targets(batch: Batch, task: Task) -> Tensors:
    """The maps of class ids (B, h, w), with the padding as no class."""
    size = batch["pixel_values"].shape[-2:]
    return {"labels": torch.stack([pad_to(target["semantic_map"], size) for target in batch["targets"]])}


def dense_scores(output: DenseOutput) -> torch.Tensor:
    """Class scores (B, num_labels, h, w)."""
    return output.logits


def dense_probabilities(scores: torch.Tensor) -> torch.Tensor:
    """Of class scores (B, num_labels, h, w), which are logits."""
    return scores.softmax(1)


def count_labelled_pixels(batch: Batch, config: PreTrainedConfig) -> Counts:
    """By which the cross entropy is divided."""
    return Counts(sum(int((target["semantic_map"] != IGNORE_INDEX).sum()) for target in batch["targets"]))


def predict_dense(output: DenseOutput, batch: Batch, task: Task, options: PredictionOptions) -> list[Prediction]:
    """The most likely class of every pixel, from the output of a head with scores for each."""
    return semantic_predictions(dense_scores(output), batch)


def semantic_predictions(scores: torch.Tensor, batch: Batch) -> list[Prediction]:
    """From class scores (B, num_labels, h, w) of any resolution, over the padded images."""
    pairs = zip(scores, geometries(batch), strict=True)
    return [{"semantic_map": restored_argmax(maps, geometry).cpu()} for maps, geometry in pairs]


def restored_argmax(maps: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """The channel (*original) int64 with the highest value of (channels, h, w) at the original size."""
    best = torch.full(geometry.original, -torch.inf, device=maps.device)
    channels = torch.zeros(geometry.original, dtype=torch.int64, device=maps.device)
    first = 0
    for chunk in geometry.restore_in_chunks(maps):
        values, indices = chunk.float().max(0)
        better = values > best
        best[better], channels[better] = values[better], first + indices[better]
        first += len(chunk)
    return channels


def pad_to(maps: torch.Tensor, size: torch.Size, value: int = IGNORE_INDEX) -> torch.Tensor:
    """(..., h, w) -> (..., *size), filled at the right and bottom."""
    return pad(maps, (0, size[1] - maps.shape[-1], 0, size[0] - maps.shape[-2]), value=value)
