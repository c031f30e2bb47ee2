"""Augmentation and normalisation with torchvision v2; an image moves together with its maps, boxes and masks."""

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.ops import box_area, clip_boxes_to_image, masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from transformers.image_transforms import get_size_with_aspect_ratio

from ..data.samples import IGNORE_INDEX, VOID, Sample
from .options import TransformOptions


CROP_ATTEMPTS = 10

# DETR's: what an image is resized to before it is cropped, and how large the crop is.
SHORTEST_EDGES_BEFORE_CROP = (400, 500, 600)
SHORTEST_CROP, LONGEST_CROP = 384, 600

PHOTOMETRIC = {
    "light": (16 / 255, 0.25, 0.25, 0.025),
    "standard": (32 / 255, 0.5, 0.5, 0.05),
    "strong": (64 / 255, 0.8, 0.8, 0.1),
}
"""By how much brightness, contrast, saturation and hue (1 is a full circle) are changed at most. Standard is what the
usual recipes of semantic segmentation have: +-32 of 255, +-50 %, +-50 %, +-18 degrees; light is half of it, and strong
twice, but that contrast is never taken away altogether."""

SMALLEST_SIDE = 1.0
"""Pixels; of a box with a shorter side nothing is left to see."""

VOIDS = {"semantic_map": IGNORE_INDEX, "segment_map": VOID}
"""The kinds of maps, and what stands in them for unlabelled pixels."""

Example = dict[str, Any]
"""A sample with `pixel_values`, (3, h, w) float32, instead of `image`, and `original_size`, (H, W) of the image."""

Size = tuple[int, int]


class EvaluationTransform:
    """The evaluation's size and normalisation; the truth stays as large as the image in its file."""

    def __init__(self, recipe: TransformOptions) -> None:
        self.recipe = recipe

    def __call__(self, sample: Sample) -> Example:
        image = sample["image"]
        size = tuple(image.shape[-2:])
        resized = functional.resize(image, list(evaluation_size(self.recipe, size)))
        return _to_example(sample | {"image": resized}, size, self.recipe)


class TrainingTransform:
    """Random turn, size, crop, flips and colours, then normalisation. Draws from torch's global CPU generator only,
    and nothing for what a recipe does not ask for.

    Crowds, and instances and segments of which no pixel is left, are taken out. Where there are masks, a box is drawn
    anew round what is left of its mask.
    """

    def __init__(self, recipe: TransformOptions) -> None:
        self.recipe = recipe
        sizing = {"jitter": self._jittered, "shortest_edge": self._to_shortest_edge, "fixed": self._to_fixed_size}
        self.change_size = sizing[recipe.resize]
        self.flip = v2.RandomHorizontalFlip(recipe.flip)
        self.vertical_flip = v2.RandomVerticalFlip(recipe.vertical_flip) if recipe.vertical_flip else v2.Identity()
        self.color = _color_jitter(recipe.photometric)

    def __call__(self, sample: Sample) -> Example:
        size = tuple(sample["image"].shape[-2:])
        # Turned before it is cropped, so that all crops have the size that was asked for.
        turned = turn(sample, int(torch.randint(4, ()))) if self.recipe.rotate == "quarter_turns" else sample
        moved = self.vertical_flip(self.flip(self.change_size(turned)))
        moved["image"] = self.color(moved["image"])
        return _to_example(_without_leftovers(moved), size, self.recipe)

    def _jittered(self, sample: Sample) -> Sample:
        """Fitted into the base size times a random scale, then cropped; wide scales make it large-scale jitter."""
        # Not v2.ScaleJitter, which divides the target's width by the image's height and the other way round.
        size = sample["image"].shape[-2:]
        base_size = self.recipe.base_size or self.recipe.needed_crop_size()
        fit = min(base / side for base, side in zip(sorted(base_size), sorted(size)))
        factor = fit * _uniform(*self.recipe.scale)
        resized = v2.Resize([max(1, round(side * factor)) for side in size])(sample)
        crop = v2.RandomCrop(self.recipe.needed_crop_size(), pad_if_needed=True, fill=_padding(sample))
        return _labelled_crop(resized, crop, self.recipe.cat_max_ratio)

    def _to_shortest_edge(self, sample: Sample) -> Sample:
        """The shortest edge one of several lengths, after DETR's crop of a part of the images."""
        if torch.rand(()) < self.recipe.crop_first:
            sample = _random_crop(_resize_shortest_edge(sample, _choose(SHORTEST_EDGES_BEFORE_CROP), None))
        sample = _resize_shortest_edge(sample, _choose(self.recipe.shortest_edges), self.recipe.longest_edge)
        if self.recipe.crop_size is None:
            return sample
        return _labelled_crop(sample, _crop_within(sample, self.recipe.crop_size), self.recipe.cat_max_ratio)

    def _to_fixed_size(self, sample: Sample) -> Sample:
        return v2.Resize(list(self.recipe.needed_crop_size()))(sample)


def _color_jitter(photometric: bool | str) -> v2.Transform:
    """The jitter of colours that a recipe asks for; `True` is what it was before there were strengths."""
    strength = "standard" if photometric is True else photometric
    return v2.ColorJitter(*PHOTOMETRIC[strength]) if strength else v2.Identity()


def turn(sample: Sample, quarters: int) -> Sample:
    """The image turned counterclockwise by so many times 90 degrees, with its maps, masks and boxes, to the pixel."""
    # Not v2.RandomRotation, which samples anew and computes a box from rounded sines.
    for _ in range(quarters):
        sample = {key: _quarter_turn(value) for key, value in sample.items()}
    return sample


def _quarter_turn(value: Any) -> Any:
    if isinstance(value, tv_tensors.BoundingBoxes):
        height, width = value.canvas_size
        left, top, right, bottom = value.unbind(1)
        boxes = torch.stack([top, width - right, bottom, width - left], 1)
        return tv_tensors.wrap(boxes, like=value, canvas_size=(width, height))
    if isinstance(value, tv_tensors.TVTensor):
        return tv_tensors.wrap(value.rot90(1, (-2, -1)), like=value)  # (..., H, W) -> (..., W, H)
    return value


def evaluation_size(recipe: TransformOptions, size: Size) -> Size:
    """Height and width in which an image of a height and width is evaluated."""
    if recipe.evaluation_resize == "shortest_edge":
        return _shortest_edge_size(size, max(recipe.shortest_edges), recipe.longest_edge)
    return recipe.needed_crop_size() if recipe.evaluation_resize == "fixed" else size


def _to_example(sample: Sample, original_size: Size, recipe: TransformOptions) -> Example:
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
    return _crop_within(sample, (_crop_side(height), _crop_side(width)))(sample)


def _crop_side(side: int) -> int:
    longest = min(side, LONGEST_CROP)
    return int(torch.randint(min(SHORTEST_CROP, longest), longest + 1, ()))


def _crop_within(sample: Sample, size: Size) -> v2.RandomCrop:
    """A random crop of this size, or less where the image is smaller."""
    return v2.RandomCrop([min(sides) for sides in zip(size, sample["image"].shape[-2:])])


def _labelled_crop(sample: Sample, crop: v2.RandomCrop, cat_max_ratio: float) -> Sample:
    """A random crop; drawn again while no pixel of it is labelled, since its loss would be 0 / 0.

    Where no draw finds one that is worth learning, any with a label will do, and at last one is made round a label.
    """
    labelled = None
    for _ in range(CROP_ATTEMPTS):
        cropped = crop(sample)
        if not has_labels(cropped):
            continue
        labelled = cropped
        if not _is_dominated(cropped, cat_max_ratio):
            break
    return _crop_round_a_label(sample, crop) if labelled is None else labelled


def _crop_round_a_label(sample: Sample, crop: v2.RandomCrop) -> Sample:
    """A random crop with one labelled pixel for certain, if there is one in the whole picture."""
    labelled = _labelled_pixels(sample)
    if labelled is None or not labelled.any():
        return crop(sample)
    places = labelled.nonzero()
    place = places[int(torch.randint(len(places), ()))].tolist()
    # Less than a crop's side away in every direction, so that no crop of this window misses the pixel.
    rows, columns = (slice(max(0, at - side + 1), at + side) for at, side in zip(place, crop.size))
    pictures = {key: value for key, value in sample.items() if isinstance(value, tv_tensors.TVTensor)}
    parts = {key: tv_tensors.wrap(value[..., rows, columns], like=value) for key, value in pictures.items()}
    return crop(sample | parts)


def _padding(sample: Sample) -> dict[type, int]:
    """What each kind of picture is padded with."""
    void = next((void for key, void in VOIDS.items() if key in sample), 0)
    return {tv_tensors.Image: 0, tv_tensors.Mask: void}


def _labelled_pixels(sample: Sample) -> torch.Tensor | None:
    """(H, W) bool of a sample with a map, else None."""
    for key, void in VOIDS.items():
        if key in sample:
            return (sample[key] != void).as_subclass(torch.Tensor)
    return None


def has_labels(sample: Sample) -> bool:
    """Whether a sample's map has a labelled pixel; there are losses for samples without objects."""
    labelled = _labelled_pixels(sample)
    return labelled is None or bool(labelled.any())


def _is_dominated(sample: Sample, cat_max_ratio: float) -> bool:
    """Whether too much of a semantic map is of one class."""
    if "semantic_map" not in sample:
        return False
    ids = sample["semantic_map"]
    counts = torch.bincount(ids[ids != IGNORE_INDEX])
    return (counts.max() / counts.sum()).item() > cat_max_ratio


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
