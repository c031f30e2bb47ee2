"""Augmentation moves image and mask together; evaluation keeps an image as it is and as predict.py will see it."""

import dataclasses
from pathlib import Path

import pytest
import torch
from miniature import draw_rows
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import pil_to_tensor

from dense_prediction.data import IGNORE_INDEX, Sample
from dense_prediction.heads import HEADS, build_processor
from dense_prediction.recipe_loading import load_recipe
from dense_prediction.recipes import HeadRecipe, TransformRecipe
from dense_prediction.transforms import EvaluationTransform, TrainingTransform


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> TransformRecipe:
    geometry = ["transforms.base_size=[48, 64]", "transforms.crop_size=[32, 40]", "transforms.photometric=false"]
    return load_recipe(recipe_file, geometry).transforms


@pytest.fixture
def sample() -> Sample:
    """40 x 56: the right half is white and of class 1, the left half black and of class 0, but for a void column."""
    image, mask = draw_rows(1)[0]
    ids = pil_to_tensor(mask)[0].long()
    ids[:, 0] = IGNORE_INDEX
    return tv_tensors.Image(pil_to_tensor(image)), tv_tensors.Mask(ids)


def test_image_and_mask_stay_together(recipe: TransformRecipe, sample: Sample) -> None:
    torch.manual_seed(0)
    transform = TrainingTransform(recipe)
    flips, widths = set(), set()
    for _ in range(40):
        example = transform(sample)
        pixels, labels = example["pixel_values"], example["labels"]
        assert pixels.shape == (3, 32, 40)
        assert labels.shape == (32, 40)
        white, labelled = pixels[0] > 0, labels != IGNORE_INDEX
        agreement = (white[labelled] == (labels[labelled] == 1)).float().mean()
        assert agreement > 0.95, "only the blurred border may differ"
        if (labels == 1).any() and (labels == 0).any():
            columns = torch.arange(40).expand(32, 40)
            flips.add(bool(columns[labels == 1].float().mean() < columns[labels == 0].float().mean()))
        widths.add(int((labels == 1).sum()))
    assert flips == {True, False}, "both orientations must occur"
    assert len(widths) > 10, "scale and place of the crop must vary"


def test_scale_1_fits_an_image_into_the_base_size(recipe: TransformRecipe, sample: Sample) -> None:
    """40 x 56 fits into 60 x 70 at 1.25 times its size: 50 x 70."""
    still = dataclasses.replace(recipe, scale=(1, 1), flip=0, base_size=(60, 70), crop_size=(50, 70))
    labels = TrainingTransform(still)(sample)["labels"]
    assert (labels[:, :1] == IGNORE_INDEX).all()
    assert (labels[:, 2:35] == 0).all()
    assert (labels[:, 35:] == 1).all()


def test_padding_is_void_and_black(recipe: TransformRecipe, sample: Sample) -> None:
    white = (tv_tensors.Image(torch.full_like(sample[0], 255)), tv_tensors.Mask(torch.ones_like(sample[1])))
    example = TrainingTransform(dataclasses.replace(recipe, scale=(0.25, 0.25)))(white)
    void = example["labels"] == IGNORE_INDEX
    assert 0.5 < void.float().mean() < 1
    black = -torch.tensor(recipe.image_mean) / torch.tensor(recipe.image_std)
    padding = example["pixel_values"][:, void]
    torch.testing.assert_close(padding, black[:, None].expand_as(padding))
    assert (example["pixel_values"][:, ~void] > 0).all()


def test_colours_change_but_labels_do_not(recipe: TransformRecipe, sample: Sample) -> None:
    still = dataclasses.replace(recipe, scale=(1, 1), flip=0, base_size=(40, 56), crop_size=(40, 56))
    grey = tv_tensors.Image(sample[0] // 2 + 60)
    plain = TrainingTransform(still)((grey, sample[1]))
    jittered = TrainingTransform(dataclasses.replace(still, photometric=True))((grey, sample[1]))
    assert torch.equal(plain["labels"], jittered["labels"])
    assert (plain["pixel_values"] - jittered["pixel_values"]).abs().max() > 0.05


def test_a_crop_without_labels_is_drawn_again(recipe: TransformRecipe) -> None:
    """One labelled corner of an image four times the crop: a single draw would miss it more often than not."""
    torch.manual_seed(0)
    mask = torch.full((48, 64), IGNORE_INDEX)
    mask[:20, :20] = 1
    large = (tv_tensors.Image(torch.zeros(3, 48, 64, dtype=torch.uint8)), tv_tensors.Mask(mask))
    transform = TrainingTransform(dataclasses.replace(recipe, scale=(2, 2)))
    labelled = [(transform(large)["labels"] != IGNORE_INDEX).any().item() for _ in range(40)]
    assert sum(labelled) >= 38


@pytest.mark.parametrize("head", HEADS)
def test_evaluation_prepares_an_image_as_the_saved_processor_does(
    recipe: TransformRecipe, sample: Sample, head: str
) -> None:
    example = EvaluationTransform(recipe)(sample)
    assert torch.equal(example["labels"], sample[1])
    processor = build_processor(HeadRecipe(name=head), recipe)
    pixel_values = processor(images=draw_rows(1)[0][0], return_tensors="pt")["pixel_values"][0]
    assert pixel_values.shape == (3, 40, 56), "full size"
    torch.testing.assert_close(pixel_values, example["pixel_values"])
