"""Several views of a picture against plain loops over them, and the evaluation of every task."""

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import interpolate

from dense_prediction.batches.types import PredictionOptions
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.evaluation.views import Viewer, average_over_views, check_views, windows
from dense_prediction.models.heads import find_head
from dense_prediction.models.masks import query_scores
from dense_prediction.recipes.schema import EvaluationOptions


NUM_LABELS = 3
SEMANTIC = TASKS["semantic_segmentation"]
OPTIONS = PredictionOptions()


class Toy(nn.Module):
    """Logits of three classes at half the resolution, which depend on the surroundings and on left and right."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, NUM_LABELS, 5, stride=2, padding=2)
        self.seen: list[tuple[int, int]] = []

    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None) -> Any:
        self.seen.append(tuple(pixel_values.shape[-2:]))
        assert pixel_mask is None or pixel_mask.shape == pixel_values[:, 0].shape
        return SimpleNamespace(logits=3 * self.conv(pixel_values))


@pytest.fixture
def toy() -> Toy:
    return Toy().eval()


def batch_of(*images: torch.Tensor, padded: tuple[int, int]) -> dict[str, Any]:
    pixel_values, pixel_mask = torch.zeros(len(images), 3, *padded), torch.zeros(len(images), *padded).long()
    for index, image in enumerate(images):
        height, width = image.shape[-2:]
        pixel_values[index, :, :height, :width] = image
        pixel_mask[index, :height, :width] = 1
    targets = [{"original_size": tuple(image.shape[-2:])} for image in images]
    return {"pixel_values": pixel_values, "pixel_mask": pixel_mask, "targets": targets}


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))


def resize(maps: torch.Tensor, size: tuple[int, int], antialias: bool = False) -> torch.Tensor:
    return interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=antialias)


@torch.no_grad()
def semantic_map(model: Toy, image: torch.Tensor, **fields: Any) -> torch.Tensor:
    batch = batch_of(image, padded=tuple(image.shape[-2:]))
    recipe = EvaluationOptions(**fields)
    (prediction,) = Viewer(find_head("upernet"), SEMANTIC, recipe, OPTIONS).predict(model, batch)
    return prediction["semantic_map"]


@pytest.mark.parametrize(
    "fields",
    [
        {"scales": [1.0], "flip": False},
        {"window": (40, 40), "stride": (20, 20)},
        {"window": (33, 47), "stride": (33, 47)},
    ],
)
def test_one_view_of_the_whole_picture_is_the_plain_result(toy: Toy, fields: dict[str, Any]) -> None:
    """Bit for bit: nothing is averaged, no probability is rounded."""
    image = picture(33, 40)
    with torch.no_grad():
        expected = resize(toy(image[None]).logits, (33, 40)).argmax(1)[0]
        recipe = EvaluationOptions(**fields)
        scores = average_over_views(
            lambda view: toy(view).logits, image[None], recipe, lambda logits: logits.softmax(1)
        )
        assert torch.equal(scores, toy(image[None]).logits)
    assert torch.equal(semantic_map(toy, image, **fields), expected)


@torch.no_grad()
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [[1.0], [0.5, 1.0, 1.75], [0.5]])
def test_views_are_averaged_as_probabilities(toy: Toy, scales: list[float], flip: bool) -> None:
    image = picture(30, 41)
    recipe = EvaluationOptions(scales=scales, flip=flip)
    views = []
    for scale in scales:
        view = resize(image[None], (round(30 * scale), round(41 * scale)), antialias=True)
        views.append(resize(toy(view).logits, (30, 41)))
        if flip:
            views.append(resize(toy(view.flip(-1)).logits, (30, 41)).flip(-1))
    scores = average_over_views(lambda view: toy(view).logits, image[None], recipe, lambda logits: logits.softmax(1))
    if len(views) == 1:
        expected = views[0]
        scores = resize(scores, (30, 41))
    else:
        expected = sum(view.softmax(1) for view in views) / len(views)
        plain = semantic_map(toy, image)
        assert not torch.equal(plain, expected.argmax(1)[0]), "the views must matter"
    torch.testing.assert_close(scores, expected)
    assert torch.equal(semantic_map(toy, image, scales=scales, flip=flip), scores.argmax(1)[0])


def test_a_mirrored_picture_gets_the_mirrored_answer(toy: Toy) -> None:
    image = picture(32, 48)
    answers = [semantic_map(toy, each, flip=True) for each in (image, image.flip(-1))]
    assert (answers[0] == answers[1].flip(-1)).float().mean() > 0.999


@torch.no_grad()
def test_overlapping_windows_average_their_scores(toy: Toy) -> None:
    image = picture(30, 41)
    total, count = torch.zeros(NUM_LABELS, 30, 41), torch.zeros(30, 41)
    for top, left in itertools.product((0, 10, 14), (0, 12, 21)):
        part = image[:, top : top + 16, left : left + 20]
        total[:, top : top + 16, left : left + 20] += resize(toy(part[None]).logits, (16, 20))[0]
        count[top : top + 16, left : left + 20] += 1
    recipe = EvaluationOptions(window=(16, 20), stride=(10, 12))
    toy.seen.clear()
    scores = average_over_views(lambda view: toy(view).logits, image[None], recipe, lambda logits: logits.softmax(1))
    torch.testing.assert_close(scores[0], total / count)
    assert toy.seen == [(16, 20)] * 9
    assert torch.equal(semantic_map(toy, image, window=(16, 20), stride=(10, 12)), scores[0].argmax(0))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 20), (17, 20), (33, 47), (64, 61)])
@pytest.mark.parametrize(("window", "stride"), [((16, 20), (10, 12)), ((16, 20), (16, 20)), ((5, 64), (1, 3))])
def test_windows_cover_every_pixel_and_stay_inside(
    size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]
) -> None:
    count = torch.zeros(size)
    places = list(windows(size, window, stride))
    for rows, columns in places:
        count[rows, columns] += 1
        assert (rows.stop - rows.start, columns.stop - columns.start) == (
            min(window[0], size[0]),
            min(window[1], size[1]),
        )
    assert count.min() >= 1
    assert count.sum() == len(places) * min(window[0], size[0]) * min(window[1], size[1])
    assert len(set(map(str, places))) == len(places), "no window comes twice"


@torch.no_grad()
def test_images_of_a_batch_are_seen_without_their_padding(toy: Toy) -> None:
    small, large = picture(20, 30, 1), picture(33, 41, 2)
    recipe = EvaluationOptions(scales=[1.0, 1.5], flip=True)
    batch = batch_of(small, large, padded=(40, 64))
    found = Viewer(find_head("upernet"), SEMANTIC, recipe, OPTIONS).predict(toy, batch)
    for image, prediction in zip((small, large), found, strict=True):
        assert torch.equal(prediction["semantic_map"], semantic_map(toy, image, scales=[1.0, 1.5], flip=True))


@torch.no_grad()
def test_sums_of_probabilities_are_not_softened_again() -> None:
    """Mask2Former's scores: averaged as they are, and its pixel mask fits every view."""
    image, seen = picture(24, 36), []

    def model(pixel_values: torch.Tensor, pixel_mask: torch.Tensor) -> Any:
        assert pixel_mask.shape == pixel_values[:, 0].shape
        generator = torch.Generator().manual_seed(len(seen))
        output = SimpleNamespace(
            class_queries_logits=torch.randn(1, 5, NUM_LABELS + 1, generator=generator),
            masks_queries_logits=5 * torch.randn(1, 5, 6, 9, generator=generator),
        )
        seen.append(query_scores(output))
        return output

    recipe = EvaluationOptions(scales=[1.0, 2.0])
    batch = batch_of(image, padded=(24, 36))
    (found,) = Viewer(find_head("mask2former"), SEMANTIC, recipe, OPTIONS).predict(model, batch)
    expected = sum(resize(scores, (24, 36)) for scores in seen)
    assert torch.equal(found["semantic_map"], expected.argmax(1)[0])
    assert not torch.equal(found["semantic_map"], sum(resize(s, (24, 36)).softmax(1) for s in seen).argmax(1)[0])


def test_only_semantic_maps_have_views() -> None:
    recipe = EvaluationOptions(flip=True)
    with pytest.raises(UserError, match="not for task=panoptic_segmentation: leave them out"):
        check_views(TASKS["panoptic_segmentation"], recipe)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": (8, 8)}, "set both or none"),
        ({"stride": (8, 8)}, "set both or none"),
        ({"window": (8, 8), "stride": (9, 8)}, "leaves gaps"),
        ({"scales": []}, "at least 1 item"),
        ({"scales": [0.0]}, "greater than 0"),
        ({"flips": True}, "unexpected"),
    ],
)
def test_wrong_options_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationOptions(**fields)


def test_options_are_fields_of_a_recipe() -> None:
    """Every field has a description, from which --help is made."""
    assert all(field.default.description for field in dataclasses.fields(EvaluationOptions))
    assert EvaluationOptions().is_plain
    assert not EvaluationOptions(scales=[2.0]).is_plain
