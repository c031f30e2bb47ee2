"""Augmentation and normalisation with torchvision v2; an image moves together with its maps, boxes and masks."""

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.ops import box_area, clip_boxes_to_image, masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from transformers.image_transforms import get_size_with_aspect_ratio

from .data import IGNORE_INDEX, VOID, Sample
from .recipes import TransformRecipe


CROP_ATTEMPTS = 10

# DETR's: what an image is resized to before it is cropped, and how large the crop is.
SHORTEST_EDGES_BEFORE_CROP = (400, 500, 600)
SHORTEST_CROP, LONGEST_CROP = 384, 600

SMALLEST_SIDE = 1.0
"""Pixels; of a box with a shorter side nothing is left to see."""

Example = dict[str, Any]
"""A sample with `pixel_values`, (3, h, w) float32, instead of `image`, and `original_size`, (H, W) of the image."""

Size = tuple[int, int]


class EvaluationTransform:
    """The evaluation's size and normalisation; the truth stays as large as the image in its file."""

    def __init__(self, recipe: TransformRecipe) -> None:
        self.recipe = recipe

    def __call__(self, sample: Sample) -> Example:
        image = sample["image"]
        size = tuple(image.shape[-2:])
        resized = functional.resize(image, list(evaluation_size(self.recipe, size)))
        return _to_example(sample | {"image": resized}, size, self.recipe)


class TrainingTransform:
    """Random size, crop, flip and colours, then normalisation. Draws from torch's global CPU generator only.

    Crowds, and instances and segments of which no pixel is left, are taken out. Where there are masks, a box is drawn
    anew round what is left of its mask.
    """

    def __init__(self, recipe: TransformRecipe) -> None:
        self.recipe = recipe
        sizing = {"jitter": self._jittered, "shortest_edge": self._to_shortest_edge, "fixed": self._to_fixed_size}
        self.change_size = sizing[recipe.resize]
        self.flip = v2.RandomHorizontalFlip(recipe.flip)
        # The strengths of the usual recipes of semantic segmentation: +-32 of 255, +-50 %, +-50 %, +-18 degrees.
        self.color = v2.ColorJitter(32 / 255, 0.5, 0.5, 0.05) if recipe.photometric else v2.Identity()

    def __call__(self, sample: Sample) -> Example:
        size = tuple(sample["image"].shape[-2:])
        moved = self.flip(self.change_size(sample))
        moved["image"] = self.color(moved["image"])
        return _to_example(_without_leftovers(moved), size, self.recipe)

    def _jittered(self, sample: Sample) -> Sample:
        """Fitted into the base size times a random scale, then cropped; wide scales make it large-scale jitter."""
        # Not v2.ScaleJitter, which divides the target's width by the image's height and the other way round.
        size = sample["image"].shape[-2:]
        base_size = self.recipe.base_size or self.recipe.crop_size
        fit = min(base / side for base, side in zip(sorted(base_size), sorted(size)))
        factor = fit * _uniform(*self.recipe.scale)
        resized = v2.Resize([max(1, round(side * factor)) for side in size])(sample)
        return self._labelled_crop(resized)

    def _labelled_crop(self, sample: Sample) -> Sample:
        """A random crop; drawn again while no pixel of it is labelled, since its loss would be 0 / 0."""
        crop = v2.RandomCrop(self.recipe.crop_size, pad_if_needed=True, fill=_padding(sample))
        for _ in range(CROP_ATTEMPTS):
            cropped = crop(sample)
            if _is_worth_learning(cropped, self.recipe.cat_max_ratio):
                break
        return cropped

    def _to_shortest_edge(self, sample: Sample) -> Sample:
        """The shortest edge one of several lengths, after DETR's crop of a part of the images."""
        if torch.rand(()) < self.recipe.crop_first:
            sample = _random_crop(_resize_shortest_edge(sample, _choose(SHORTEST_EDGES_BEFORE_CROP), None))
        sample = _resize_shortest_edge(sample, _choose(self.recipe.shortest_edges), self.recipe.longest_edge)
        return sample if self.recipe.crop_size is None else _crop_to(sample, self.recipe.crop_size)

    def _to_fixed_size(self, sample: Sample) -> Sample:
        return v2.Resize(list(self.recipe.crop_size))(sample)


def evaluation_size(recipe: TransformRecipe, size: Size) -> Size:
    """Height and width in which an image of a height and width is evaluated."""
    if recipe.evaluation_resize == "shortest_edge":
        return _shortest_edge_size(size, max(recipe.shortest_edges), recipe.longest_edge)
    return recipe.crop_size if recipe.evaluation_resize == "fixed" else size


def _to_example(sample: Sample, original_size: Size, recipe: TransformRecipe) -> Example:
    pixels = functional.to_dtype(sample["image"], torch.float32, scale=True)
    pixels = functional.normalize(pixels, list(recipe.image_mean), list(recipe.image_std))
    rest = {key: value for key, value in sample.items() if key != "image"}
    example = {"pixel_values": pixels, **rest, "original_size": original_size}
    return {key: _plain(value) for key, value in example.items()}


def _plain(value: Any) -> Any:
    return value.as_subclass(torch.Tensor) if isinstance(value, torch.Tensor) else value


def _shortest_edge_size(size: Size, shortest: int, longest: int | None) -> Size:
    """As DETR's image processor rounds it."""
    height, width = get_size_with_aspect_ratio(size, shortest, longest)
    return max(1, height), max(1, width)


def _resize_shortest_edge(sample: Sample, shortest: int, longest: int | None) -> Sample:
    size = _shortest_edge_size(tuple(sample["image"].shape[-2:]), shortest, longest)
    return v2.Resize(list(size))(sample)


def _random_crop(sample: Sample) -> Sample:
    """DETR's crop: height and width drawn between its bounds, as far as the image reaches."""
    height, width = sample["image"].shape[-2:]
    return _crop_to(sample, (_crop_side(height), _crop_side(width)))


def _crop_side(side: int) -> int:
    longest = min(side, LONGEST_CROP)
    return int(torch.randint(min(SHORTEST_CROP, longest), longest + 1, ()))


def _crop_to(sample: Sample, size: Size) -> Sample:
    """A random crop of this size, or less where the image is smaller."""
    return v2.RandomCrop([min(sides) for sides in zip(size, sample["image"].shape[-2:])])(sample)


def _padding(sample: Sample) -> dict[type, int]:
    """What each kind of picture is padded with."""
    void = IGNORE_INDEX if "semantic_map" in sample else VOID if "segment_map" in sample else 0
    return {tv_tensors.Image: 0, tv_tensors.Mask: void}


def _is_worth_learning(sample: Sample, cat_max_ratio: float) -> bool:
    """Whether a map has labelled pixels, and a semantic one not too many of one class."""
    if "segment_map" in sample:
        return bool((sample["segment_map"] != VOID).any())
    if "semantic_map" not in sample:
        return True
    ids = sample["semantic_map"]
    counts = torch.bincount(ids[ids != IGNORE_INDEX])
    return bool(counts.any()) and (counts.max() / counts.sum()).item() <= cat_max_ratio


def _without_leftovers(sample: Sample) -> Sample:
    """The sample without crowds and without instances and segments of which nothing can be seen."""
    if "segment_map" in sample:
        return _keep_segments(sample)
    return _keep_instances(sample) if "boxes" in sample else sample


def _keep_instances(sample: Sample) -> Sample:
    # A resize may round a box at the border to a little outside.
    sample = sample | {"boxes": clip_boxes_to_image(sample["boxes"], sample["image"].shape[-2:])}
    left, top, right, bottom = sample["boxes"].unbind(1)
    keep = ~sample["is_crowd"] & (right - left >= SMALLEST_SIDE) & (bottom - top >= SMALLEST_SIDE)
    if "masks" in sample:
        keep &= sample["masks"].flatten(1).any(1)
    fields = [key for key in ("boxes", "labels", "is_crowd", "masks") if key in sample]
    sample = sample | {key: sample[key][keep] for key in fields}
    if "masks" in sample:
        # The last pixel belongs to the box.
        sample["boxes"] = masks_to_boxes(sample["masks"]) + torch.tensor([0, 0, 1, 1])
        return sample | {"areas": sample["masks"].flatten(1).sum(1).float()}
    return sample | {"areas": box_area(sample["boxes"])}


def _keep_segments(sample: Sample) -> Sample:
    """Segments that go become void, and the others move up."""
    segments, labels = sample["segment_map"], sample["labels"]
    count = len(labels)
    # Void is -1: one place further it is 0, the first of the counts and the new positions.
    pixels = torch.bincount((segments + 1).flatten(), minlength=count + 1)[1:]
    keep = (pixels > 0) & ~sample["is_crowd"]
    positions = torch.full((count + 1,), VOID)
    positions[1:][keep] = torch.arange(int(keep.sum()))
    return sample | {
        "segment_map": positions[segments + 1],
        "labels": labels[keep],
        "is_crowd": sample["is_crowd"][keep],
    }


def _uniform(low: float, high: float) -> float:
    return torch.empty(()).uniform_(low, high).item()


def _choose(values: tuple[int, ...] | list[int]) -> int:
    return values[int(torch.randint(len(values), ()))]
