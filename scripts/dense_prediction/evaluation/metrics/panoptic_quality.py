"""Panoptic quality (Kirillov et al. 2019, arXiv 1801.00868) by the rules of COCO's own script.

Imports nothing of this project: `scripts/metrics/pq` links to this file, and `evaluate` copies it elsewhere.
"""

from dataclasses import dataclass

import torch


VOID = -1
"""In a segment map, a pixel of no segment."""

MATCH = 0.5
"""Segments of one class with a higher IoU than this match; at such an IoU no segment has two matches."""


@dataclass(frozen=True)
class Segments:
    """The segments of one image.

    Attributes:
        segment_map: (H, W) integers, the position of the pixel's segment in `labels`, or `VOID`.
        labels: (K,) class ids.
        is_crowd: (K,) bool, or None for no crowds.
    """

    segment_map: torch.Tensor
    labels: torch.Tensor
    is_crowd: torch.Tensor | None = None


def count_segments(found: Segments, truth: Segments, num_labels: int) -> torch.Tensor:
    """What one image adds: for each class the sum of the matches' IoU, matches, unmatched found, unmatched true.

    Void pixels of the truth count for nothing in a found segment's union. An unmatched found segment is forgiven when
    more than half of it lies in void or in crowds of its class, and a crowd need not be found. What has no pixel is
    not found.

    Returns:
        (num_labels, 4) float64, which add up over images and processes.

    Raises:
        ValueError: the maps' sizes differ, or they or the labels hold an id that does not exist.
    """
    _check(found, num_labels, "found")
    _check(truth, num_labels, "true")
    sizes = [tuple(segments.segment_map.shape) for segments in (found, truth)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the found segment_map is {sizes[0]} but the true one is {sizes[1]}")
    shared = _intersections(found, truth)
    true_area, found_area = shared.sum(1)[1:], shared.sum(0)[1:]
    void, shared = shared[0, 1:], shared[1:, 1:]
    crowd = torch.zeros_like(truth.labels, dtype=torch.bool) if truth.is_crowd is None else truth.is_crowd.bool()
    same_class = truth.labels[:, None] == found.labels

    iou = shared / (true_area[:, None] + found_area - shared - void)
    matches = (iou > MATCH) & same_class & ~crowd[:, None]
    true_match, found_match = matches.nonzero(as_tuple=True)
    missed = ~matches.any(1) & ~crowd
    forgiven = void + (shared * (same_class & crowd[:, None])).sum(0)
    wrong = ~matches.any(0) & (found_area > 0) & (forgiven <= found_area / 2)

    counts = torch.zeros(num_labels, 4, dtype=torch.float64)
    counts[:, 0].index_add_(0, truth.labels[true_match], iou[true_match, found_match])
    for column, labels in enumerate((truth.labels[true_match], found.labels[wrong], truth.labels[missed]), start=1):
        counts[:, column] = torch.bincount(labels, minlength=num_labels)
    return counts


def class_qualities(counts: torch.Tensor) -> torch.Tensor:
    """(num_labels, 4) counts -> (num_labels, 3) panoptic, segmentation and recognition quality.

    NaN for a class of which there is no segment, true or found.
    """
    iou, matches, wrong, missed = counts.unbind(1)
    weight = matches + wrong / 2 + missed / 2
    present = weight > 0
    quality = torch.stack([iou / weight, iou / matches.clamp(min=1), matches / weight], dim=1)
    return quality.where(present[:, None], torch.nan)


def _intersections(found: Segments, truth: Segments) -> torch.Tensor:
    """(1 + true, 1 + found) float64 pixels that two segments share; the first row and column are void."""
    rows, columns = 1 + len(truth.labels), 1 + len(found.labels)
    pairs = (truth.segment_map.long() + 1) * columns + found.segment_map.long() + 1
    return torch.bincount(pairs.flatten(), minlength=rows * columns).view(rows, columns).double()


def _check(segments: Segments, num_labels: int, name: str) -> None:
    limits = ((segments.segment_map, VOID, len(segments.labels)), (segments.labels, 0, num_labels))
    for ids, lowest, end in limits:
        if ids.numel() and not lowest <= ids.min() <= ids.max() < end:
            raise ValueError(f"the {name} segments hold ids {ids.min()}..{ids.max()}, allowed are {lowest}..{end - 1}")
