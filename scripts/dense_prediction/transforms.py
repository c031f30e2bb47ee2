"""Augmentation and normalisation with torchvision v2; image and mask are always moved together."""

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from .data import IGNORE_INDEX, Sample
from .recipes import TransformRecipe


CROP_ATTEMPTS = 10

Example = dict[str, torch.Tensor]
"""`pixel_values`, (3, H, W) float32, and `labels`, (H, W) int64."""


class EvaluationTransform:
    """Normalisation only: an image is measured at its full size."""

    def __init__(self, recipe: TransformRecipe) -> None:
        self.normalize = v2.Compose(
            [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), _normalization(recipe)]
        )

    def __call__(self, sample: Sample) -> Example:
        image, mask = self.normalize(*sample)
        return {"pixel_values": image.as_subclass(torch.Tensor), "labels": mask.as_subclass(torch.Tensor)}


class TrainingTransform:
    """Random scale, crop, flip and colours, then normalisation. Draws from torch's global CPU generator only."""

    def __init__(self, recipe: TransformRecipe) -> None:
        self.base_size = recipe.base_size
        self.scale = recipe.scale
        self.crop = v2.RandomCrop(
            recipe.crop_size, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORE_INDEX}
        )
        self.flip = v2.RandomHorizontalFlip(recipe.flip)
        # The strengths of the usual recipes of semantic segmentation: +-32 of 255, +-50 %, +-50 %, +-18 degrees.
        self.jitter = v2.ColorJitter(32 / 255, 0.5, 0.5, 0.05) if recipe.photometric else v2.Identity()
        self.finish = EvaluationTransform(recipe)

    def __call__(self, sample: Sample) -> Example:
        image, mask = self._labelled_crop(*self._rescale(*sample))
        image, mask = self.flip(image, mask)
        return self.finish((self.jitter(image), mask))

    def _rescale(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> Sample:
        """Fit the sample into the base size times a random scale, keeping its shape."""
        # Not v2.ScaleJitter, which divides the target's width by the image's height and the other way round.
        fit = min(base / side for base, side in zip(self.base_size, mask.shape, strict=True))
        factor = fit * torch.empty(()).uniform_(*self.scale).item()
        return v2.Resize([max(1, round(side * factor)) for side in mask.shape])(image, mask)

    def _labelled_crop(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> Sample:
        """A random crop; drawn again while it holds no labelled pixel, since its loss would be 0 / 0."""
        for _ in range(CROP_ATTEMPTS):
            crop = self.crop(image, mask)
            if (crop[1] != IGNORE_INDEX).any():
                break
        return crop


def _normalization(recipe: TransformRecipe) -> v2.Normalize:
    return v2.Normalize(mean=list(recipe.image_mean), std=list(recipe.image_std))
