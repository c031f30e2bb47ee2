"""What the settings of a training need to know of its pictures: sizes, objects, and whether there is an up."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from ..samples import IGNORE_INDEX, VOID, Sample, Split, Stream


SECONDS = 20.0
"""After which no more pictures are read."""
MOST_PICTURES = 200
MOST_SIDE = 1024
"""Pixels; of a larger label map the part in the middle is looked at."""

CELL = 16
"""Pixels along a cell of a plain ViT's maps."""

THUMBNAIL = 8
FEWEST_FOR_UP = 8
"""Pictures from which it can be told whether they have an up."""
SURELY = 2.0
"""Standard deviations from chance."""
CLEARLY = 2.0
"""Times as much as pictures have in common of left and right."""


@dataclass(frozen=True)
class Traits:
    """What a sample of the training pictures is like.

    Attributes:
        pictures: how many the split has; None of a stream.
        looked_at: how many were read.
        sizes: height and width of each.
        object_sides: of every object in them, the square root of its box's area in pixels, in ascending order.
        object_shares: the same as a share of its picture's, the square root of whose area is 1; in ascending order.
        most: objects, segments or classes in one of them.
        class_pixels: of label maps, the share of the labelled pixels that each class has, by its id.
        kept_by_cells: of label maps, the IoU with itself that the worst class but the largest keeps when it is seen
            as averages over cells of 16 pixels, as a plain ViT sees it; 1 where there is no label map.
        has_up: whether turning them upside down would show what is never seen.
    """

    pictures: int | None
    looked_at: int
    sizes: Sequence[tuple[int, int]]
    object_sides: Sequence[float]
    object_shares: Sequence[float]
    most: int
    class_pixels: Sequence[float]
    kept_by_cells: float
    has_up: bool

    @property
    def median_size(self) -> tuple[int, int]:
        """Height and width."""
        heights, widths = zip(*self.sizes, strict=True)
        return int(np.median(heights)), int(np.median(widths))

    @property
    def longest(self) -> int:
        """Of all sides, in pixels."""
        return max(max(size) for size in self.sizes)


def find_traits(split: Split | Stream, num_labels: int, seconds: float = SECONDS) -> Traits | None:
    """Read pictures from all over a split, or the first of a stream, as long as there is time; None if all are bad.

    Args:
        num_labels: of label maps, how many classes there are.
    """
    end, views = time.monotonic() + seconds, list[_View]()
    count = MOST_PICTURES if isinstance(split, Stream) else len(split)
    # A generator of its own: nothing of what a training draws may change.
    order = range(count) if isinstance(split, Stream) else np.random.default_rng(1).permutation(count).tolist()
    for index in order[:MOST_PICTURES]:
        sample = split[index]
        if sample is not None:
            views.append(_View.of(sample, num_labels))
        if time.monotonic() > end:
            break
    return _traits(views, None if isinstance(split, Stream) else count) if views else None


@dataclass(frozen=True)
class _View:
    """What is kept of one sample."""

    size: tuple[int, int]
    sides: np.ndarray
    """(objects,) in pixels."""
    count: int
    pixels: torch.Tensor
    """(classes,) int64"""
    kept: torch.Tensor
    """(classes, 2) int64: pixels in both the map and what its cells show, and in either."""
    thumbnail: torch.Tensor
    """(channels, 8, 8): colours, and where what is annotated lies."""

    @classmethod
    def of(cls, sample: Sample, num_labels: int) -> "_View":
        height, width = sample["image"].shape[-2:]
        ids = sample["semantic_map"].as_subclass(torch.Tensor) if "semantic_map" in sample else None
        if ids is None:
            count, pixels, kept = len(sample["labels"]), torch.zeros(0), torch.zeros(0, 2)
        else:
            pixels = torch.bincount(ids[ids != IGNORE_INDEX], minlength=num_labels)
            count, kept = int((pixels > 0).sum()), _seen_in_cells(_middle(ids), num_labels)
        return cls((height, width), _sides(sample), count, pixels, kept, _thumbnail(sample))


def _traits(views: Sequence[_View], pictures: int | None) -> Traits:
    sides = np.concatenate([view.sides for view in views])
    shares = np.concatenate([view.sides / np.sqrt(view.size[0] * view.size[1]) for view in views])
    pixels = torch.stack([view.pixels for view in views]).sum(0)
    return Traits(
        pictures=pictures,
        looked_at=len(views),
        sizes=[view.size for view in views],
        object_sides=np.sort(sides).tolist(),
        object_shares=np.sort(shares).tolist(),
        most=max(view.count for view in views),
        class_pixels=(pixels / pixels.sum().clamp(min=1)).tolist(),
        kept_by_cells=_worst(pixels, torch.stack([view.kept for view in views]).sum(0)),
        has_up=has_up(torch.stack([view.thumbnail for view in views])),
    )


def _sides(sample: Sample) -> np.ndarray:
    """(objects,): the square root of the area of each object's box, or of a segment's pixels."""
    if "boxes" in sample:
        left, top, right, bottom = sample["boxes"].as_subclass(torch.Tensor).unbind(1)
        areas = (right - left) * (bottom - top)
        return areas[~sample["is_crowd"]].clamp(min=0).sqrt().numpy()
    if "segment_map" in sample:
        segments = sample["segment_map"].as_subclass(torch.Tensor)
        return torch.bincount(segments[segments != VOID], minlength=len(sample["labels"])).sqrt().numpy()
    return np.zeros(0)


def _middle(ids: torch.Tensor) -> torch.Tensor:
    """(H, W) -> at most 1024 pixels of each side."""
    rows, columns = (slice(max(0, (side - MOST_SIDE) // 2), None) for side in ids.shape)
    return ids[rows, columns][:MOST_SIDE, :MOST_SIDE]


def _seen_in_cells(ids: torch.Tensor, num_labels: int) -> torch.Tensor:
    """(H, W) -> (classes, 2): pixels of each class in the map and in its cells, and in either of them."""
    counts = torch.zeros(num_labels, 2, dtype=torch.int64)
    for label in ids.unique().tolist():
        if label == IGNORE_INDEX:
            continue
        mask = (ids == label).float()[None, None]
        cells = avg_pool2d(mask, CELL, ceil_mode=True, count_include_pad=False)
        seen = interpolate(cells, scale_factor=CELL, mode="bilinear")[..., : ids.shape[0], : ids.shape[1]] > 0.5
        counts[label] = torch.tensor([int((seen & (mask > 0)).sum()), int((seen | (mask > 0)).sum())])
    return counts


def _worst(pixels: torch.Tensor, kept: torch.Tensor) -> float:
    """(classes,), (classes, 2) -> the smallest IoU, without the largest class and those that were not seen."""
    if len(pixels) < 2:
        return 1.0
    counted = (pixels > 0) & (torch.arange(len(pixels)) != pixels.argmax())
    ratios = kept[counted, 0] / kept[counted, 1].clamp(min=1)
    return float(ratios.min()) if len(ratios) else 1.0


def _thumbnail(sample: Sample) -> torch.Tensor:
    """(4, 8, 8): the colours, and the share of each cell that is annotated as an object or as a rarer class."""
    image = sample["image"].as_subclass(torch.Tensor).float()
    small = adaptive_avg_pool2d(image, THUMBNAIL)
    marked = adaptive_avg_pool2d(_marked(sample)[None], THUMBNAIL)
    return torch.cat([small, marked])


def _marked(sample: Sample) -> torch.Tensor:
    """(H, W) float: 1 in boxes, in countable segments, and where a label map is not of its largest class."""
    if "boxes" in sample:
        mask = torch.zeros(sample["image"].shape[-2:])
        for left, top, right, bottom in sample["boxes"].round().int().tolist():
            mask[max(0, top) : bottom, max(0, left) : right] = 1
        return mask
    ids = sample["semantic_map" if "semantic_map" in sample else "segment_map"].as_subclass(torch.Tensor)
    labelled = (ids != IGNORE_INDEX) & (ids != VOID)
    return (labelled & (ids != ids[labelled].mode().values)).float() if labelled.any() else labelled.float()


def has_up(thumbnails: torch.Tensor) -> bool:
    """Whether pictures and what is annotated in them are otherwise above than below, by more than chance.

    What one half of the pictures has more of above than below is looked for in the other half: without an up it is
    there as often as its contrary. Slices of one block or pictures of one scene also share what is left and right of
    them: theirs is an up only if they share twice as much of what is above and below. Of a few pictures nobody can
    tell, and they are taken to have an up.

    Args:
        thumbnails: (pictures, channels, side, side)
    """
    count = len(thumbnails)
    if count < FEWEST_FOR_UP:
        return True
    agreeing, shared = _shared(thumbnails)
    _, sideways = _shared(thumbnails.transpose(2, 3))
    return (agreeing - count / 2) / (count / 4) ** 0.5 > SURELY and shared > CLEARLY * max(0.0, sideways)


def _shared(thumbnails: torch.Tensor) -> tuple[float, float]:
    """What pictures have more of above than below, in one half of them and in the other.

    Returns:
        In how many it is as in those of the other half, and which share of all of it they have in common.
    """
    upside_down = (thumbnails - thumbnails.flip(2)).flatten(2)  # (pictures, channels, side * side)
    scale = upside_down.std(dim=(0, 2), keepdim=True).clamp(min=1e-6)
    each = (upside_down / scale).flatten(1)
    one, other = each[::2], each[1::2]
    signs = torch.cat([one @ other.mean(0), other @ one.mean(0)]).sign()
    common = one.mean(0) @ other.mean(0) / each.square().sum(1).mean().clamp(min=1e-6)
    return float((signs + 1).sum() / 2), float(common)
