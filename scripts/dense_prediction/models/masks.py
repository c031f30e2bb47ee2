"""MaskFormer and Mask2Former: sets of masks, of which each has one class.

They make semantic, instance or panoptic segmentations. The predictions are those of the official code
(`maskformer_model.py` of facebookresearch/Mask2Former). We do not use the image processors' `post_process_*`:
Mask2Former's first squeezes the masks of every image to 384 x 384. Beside that, the panoptic ones count the area of a
mask after the mask was multiplied by its score, give pixels outside all masks to the nearest one, and, after merging a
class that is not countable, give the next segment an id in use.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torchvision.ops import masks_to_boxes
from transformers import PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor

from ..batches.geometry import Geometry, geometries
from ..batches.loss_counts import Counts, Method, count_matched, weighing_classes, wrapped
from ..batches.types import Batch, Prediction, PredictionOptions, Tensors
from ..data.samples import IGNORE_INDEX, VOID
from ..tasks import Task
from .semantic import pad_to, semantic_predictions


class QueriesOutput(Protocol):
    """Of Q queries: class logits (B, Q, num_labels + 1) and mask logits (B, Q, h, w)."""

    class_queries_logits: torch.Tensor
    masks_queries_logits: torch.Tensor


def mask_targets(batch: Batch, task: Task) -> Tensors:
    """For each image `mask_labels` (N, h, w) float, over the padded image, and `class_labels` (N,)."""
    size = batch["pixel_values"].shape[-2:]
    masks_of = next(make for column, make in _MASKS.items() if column in task.columns)
    pairs = [masks_of(target) for target in batch["targets"]]
    # Padded to the batch, as the loss samples masks and predictions at the same relative positions.
    masks = [pad_to(masks.float(), size, value=0) for masks, _ in pairs]
    return {"mask_labels": masks, "class_labels": [labels for _, labels in pairs]}


def _semantic_masks(target: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """One mask for each class that is present; void is no class."""
    ids = _semantic_ids(target)
    return target["semantic_map"] == ids[:, None, None], ids


def _semantic_ids(target: Tensors) -> torch.Tensor:
    ids = target["semantic_map"].unique()
    return ids[ids != IGNORE_INDEX]


def _instance_masks(target: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    return target["masks"], target["labels"]


def _panoptic_masks(target: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    positions = torch.arange(len(target["labels"]), device=target["labels"].device)
    return target["segment_map"] == positions[:, None, None], target["labels"]


_MASKS = {"semantic_map": _semantic_masks, "masks": _instance_masks, "segment_map": _panoptic_masks}
"""By the column that tells the tasks apart."""


def query_scores(output: QueriesOutput) -> torch.Tensor:
    """Class scores (B, num_labels, h, w): the sum over queries of class probability times mask probability."""
    classes = output.class_queries_logits.float().softmax(-1)[..., :-1]  # without "no object"
    masks = output.masks_queries_logits.float().sigmoid()
    return torch.einsum("bqc,bqhw->bchw", classes, masks)


def predict_masks(output: QueriesOutput, batch: Batch, task: Task, options: PredictionOptions) -> list[Prediction]:
    """What the queries say of each image: class logits (Q, num_labels + 1) and mask logits (Q, h, w)."""
    if "semantic_map" in task.columns:
        return semantic_predictions(query_scores(output), batch)
    predict = predict_instances if "masks" in task.columns else predict_segments
    queries = zip(output.class_queries_logits, output.masks_queries_logits, geometries(batch), strict=True)
    return [predict(classes.float(), masks.float(), geometry, options) for classes, masks, geometry in queries]


def predict_instances(
    classes: torch.Tensor, masks: torch.Tensor, geometry: Geometry, options: PredictionOptions
) -> Prediction:
    """The best pairs of query and class; a score is the class's probability times the mask's mean one inside it."""
    probabilities = classes.softmax(-1)[:, :-1]
    scores, order = probabilities.flatten().topk(min(options.max_detections, probabilities.numel()))
    order = order[scores > options.score_threshold]  # the mask's factor only lowers a score
    queries, labels = order // probabilities.shape[1], order % probabilities.shape[1]
    found, kept_masks = [], []
    for query, label in zip(queries.tolist(), labels.tolist(), strict=True):
        (logits,) = geometry.restore(masks[query, None])
        mask = logits > 0
        score = (probabilities[query, label] * logits.sigmoid()[mask].mean()).item()
        if score > options.score_threshold:  # false for an empty mask, whose mean is NaN
            found.append((label, score))
            kept_masks.append(mask.cpu())
    return _instances(kept_masks, found, geometry)


def _instances(masks: list[torch.Tensor], found: list[tuple[int, float]], geometry: Geometry) -> Prediction:
    """Sorted by score, with the boxes of the masks."""
    order = sorted(range(len(found)), key=lambda index: -found[index][1])
    stacked = torch.zeros(len(order), *geometry.original, dtype=torch.bool)
    for place, index in enumerate(order):
        stacked[place] = masks[index]
    boxes = masks_to_boxes(stacked).float()
    boxes[:, 2:] += 1  # from the last pixel inside to where it ends
    return {"masks": stacked, "boxes": boxes} | _labels_and_scores([found[index] for index in order])


def predict_segments(
    classes: torch.Tensor, masks: torch.Tensor, geometry: Geometry, options: PredictionOptions
) -> Prediction:
    """Each pixel goes to the query with the highest product of class and mask probability, if it lies in its mask."""
    scores, labels = classes.softmax(-1).max(-1)
    kept = (labels != classes.shape[1] - 1) & (scores > options.object_threshold)
    scores, labels = scores[kept], labels[kept]
    owners, inside, areas = _assign_pixels(masks[kept], scores, geometry)
    segment_map = torch.full(geometry.original, VOID)
    found: list[tuple[int, float]] = []
    positions: dict[int, int] = {}  # of the classes of which there is only one segment
    for query, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True)):
        owned = owners == query
        mask = owned & inside
        if not mask.any() or int(owned.sum()) / areas[query] < options.overlap_threshold:
            continue
        position = positions.get(label, len(found))
        if position == len(found):
            found.append((label, score))
        if label not in options.things:
            positions[label] = position
        segment_map[mask] = position
    return {"segment_map": segment_map} | _labels_and_scores(found)


def _assign_pixels(
    masks: torch.Tensor, scores: torch.Tensor, geometry: Geometry
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """The query that owns each pixel, (H, W) int64, whether the pixel is in its mask, (H, W), and each mask's area.

    One query at a time: all at the size of the image would not fit into memory.
    """
    best = torch.full(geometry.original, -1.0, device=masks.device)
    owners = torch.full(geometry.original, -1, device=masks.device)
    inside = torch.zeros(geometry.original, dtype=torch.bool, device=masks.device)
    areas = []
    for query, score in enumerate(scores):
        probability = geometry.restore(masks[query, None])[0].sigmoid()
        better = score * probability > best
        best = torch.where(better, score * probability, best)
        owners[better] = query
        inside = torch.where(better, probability >= 0.5, inside)
        areas.append(int((probability >= 0.5).sum()))
    return owners.cpu(), inside.cpu(), areas


def _labels_and_scores(found: list[tuple[int, float]]) -> Prediction:
    labels, scores = zip(*found, strict=True) if found else ((), ())
    return {"labels": torch.tensor(labels, dtype=torch.int64), "scores": torch.tensor(scores, dtype=torch.float32)}


def count_masks(batch: Batch, config: PreTrainedConfig) -> Counts:
    """By which the terms of masks are divided, and the queries, by which that of the classes is."""
    objects = [len(_semantic_ids(each) if "semantic_map" in each else each["labels"]) for each in batch["targets"]]
    return count_matched(objects, getattr(config, "decoder_config", config).num_queries)


def divide_masks(loss_class: type) -> Callable[[Counts, Counts], AbstractContextManager[float]]:
    """Also in place of transformers' own number, which is divided by the number of processes twice."""

    @contextmanager
    def divide(own: Counts, mean: Counts) -> Iterator[float]:
        def counting(get_num_masks: Method) -> Method:
            return lambda self, class_labels, device: mean.objects

        with wrapped(loss_class, get_num_masks=counting, loss_labels=weighing_classes(own, mean)):
            yield 1.0

    return divide


def mask_head(processor_class: type[BaseImageProcessor], loss_class: type) -> dict[str, Any]:
    """What both heads have in common."""
    return {
        "tasks": ("semantic_segmentation", "instance_segmentation", "panoptic_segmentation"),
        "processor_class": processor_class,
        "targets": mask_targets,
        "predict": predict_masks,
        "scores": query_scores,
        "size_divisor": 32,  # as in the official code
        "count": count_masks,
        "divide": divide_masks(loss_class),
        "needs_scipy": True,  # the model builds its loss when it is built
    }
