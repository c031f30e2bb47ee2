"""Augmentation moves an image with its maps, boxes and masks; evaluation sees an image as predict.py will see it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from dense_prediction.batches import transforms
from dense_prediction.batches.options import TransformOptions
from dense_prediction.batches.transforms import EvaluationTransform, TrainingTransform, evaluation_size
from dense_prediction.data.samples import IGNORE_INDEX, VOID, Sample
from dense_prediction.recipes.loading import load_recipe
from miniature import draw_rows


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> TransformOptions:
    geometry = ["transforms.base_size=[48, 64]", "transforms.crop_size=[32, 40]", "transforms.photometric=false"]
    return load_recipe(recipe_file, geometry).transforms


def semantic(image: torch.Tensor, ids: torch.Tensor) -> Sample:
    fields = {"image": tv_tensors.Image(image), "semantic_map": tv_tensors.Mask(ids)}
    return fields | {"name": "street", "image_id": 3}


@pytest.fixture
def sample() -> Sample:
    """40 x 56: the right half is white and of class 1, the left half black and of class 0, but for a void column."""
    image, mask = draw_rows(1)[0]
    ids = pil_to_tensor(mask)[0].long()
    ids[:, 0] = IGNORE_INDEX
    return semantic(pil_to_tensor(image), ids)


def test_image_and_map_stay_together(recipe: TransformOptions, sample: Sample) -> None:
    torch.manual_seed(0)
    transform = TrainingTransform(recipe)
    flips, widths = set(), set()
    for _ in range(40):
        example = transform(sample)
        pixels, labels = example["pixel_values"], example["semantic_map"]
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


def test_an_example_holds_plain_tensors_and_what_the_sample_is_called(
    recipe: TransformOptions, sample: Sample
) -> None:
    for transform in (TrainingTransform(recipe), EvaluationTransform(recipe)):
        example = transform(sample)
        assert {key: type(value) for key, value in example.items()} == {
            "pixel_values": torch.Tensor,
            "semantic_map": torch.Tensor,
            "name": str,
            "image_id": int,
            "original_size": tuple,
        }
        assert example["pixel_values"].dtype == torch.float32
        assert (example["name"], example["image_id"], example["original_size"]) == ("street", 3, (40, 56))
    assert sample["image"].dtype == torch.uint8, "the sample itself must stay as it is"


def test_scale_1_fits_an_image_into_the_base_size(recipe: TransformOptions, sample: Sample) -> None:
    """40 x 56 fits into 60 x 70 at 1.25 times its size: 50 x 70; turned by 90 degrees, too."""
    still = dataclasses.replace(recipe, scale=(1, 1), flip=0, base_size=(60, 70), crop_size=(50, 70))
    labels = TrainingTransform(still)(sample)["semantic_map"]
    assert (labels[:, :1] == IGNORE_INDEX).all()
    assert (labels[:, 2:35] == 0).all()
    assert (labels[:, 35:] == 1).all()
    upright = semantic(sample["image"].mT, sample["semantic_map"].mT)
    turned = TrainingTransform(dataclasses.replace(still, crop_size=(70, 50)))(upright)
    assert torch.equal(turned["semantic_map"].mT, labels)


def test_the_base_size_is_the_crop_size_where_none_is_given(sample: Sample) -> None:
    still = TransformOptions(scale=(1, 1), crop_size=(20, 28), flip=0, photometric=False)
    labels = TrainingTransform(still)(sample)["semantic_map"]
    assert (labels[:, 1:14] == 0).all()
    assert (labels[:, 14:] == 1).all()


def test_padding_is_void_and_black(recipe: TransformOptions, sample: Sample) -> None:
    white = semantic(torch.full_like(sample["image"], 255), torch.ones_like(sample["semantic_map"]))
    example = TrainingTransform(dataclasses.replace(recipe, scale=(0.25, 0.25)))(white)
    void = example["semantic_map"] == IGNORE_INDEX
    assert 0.5 < void.float().mean() < 1
    black = -torch.tensor(recipe.image_mean) / torch.tensor(recipe.image_std)
    padding = example["pixel_values"][:, void]
    torch.testing.assert_close(padding, black[:, None].expand_as(padding))
    assert (example["pixel_values"][:, ~void] > 0).all()


def test_colours_change_but_labels_do_not(recipe: TransformOptions, sample: Sample) -> None:
    still = dataclasses.replace(recipe, scale=(1, 1), flip=0, base_size=(40, 56), crop_size=(40, 56))
    grey = semantic(sample["image"] // 2 + 60, sample["semantic_map"])
    plain = TrainingTransform(still)(grey)
    jittered = TrainingTransform(dataclasses.replace(still, photometric=True))(grey)
    assert torch.equal(plain["semantic_map"], jittered["semantic_map"])
    assert (plain["pixel_values"] - jittered["pixel_values"]).abs().max() > 0.05


def test_a_crop_without_labels_is_drawn_again(recipe: TransformOptions) -> None:
    """One labelled corner: most draws miss it, and where ten do, the crop is made round a labelled pixel."""
    torch.manual_seed(0)
    transform = TrainingTransform(dataclasses.replace(recipe, scale=(2, 2)))
    ids = torch.full((48, 64), IGNORE_INDEX)
    ids[:4, :4] = 1
    large = semantic(torch.zeros(3, 48, 64, dtype=torch.uint8), ids)
    crops = [transform(large) for _ in range(40)]
    assert all((crop["semantic_map"] != IGNORE_INDEX).any() for crop in crops)
    assert {crop["pixel_values"].shape for crop in crops} == {(3, 32, 40)}
    assert len({crop["semantic_map"].numpy().tobytes() for crop in crops}) > 10, "the pixel's place in the crop varies"
    panoptic = {"image": large["image"], "segment_map": tv_tensors.Mask(torch.where(ids == 1, 0, VOID))}
    panoptic |= {"labels": torch.tensor([1]), "is_crowd": torch.tensor([False])}
    assert all(len(transform(panoptic)["labels"]) == 1 for _ in range(40))
    shortest = dataclasses.replace(recipe, resize="shortest_edge", shortest_edges=[96], crop_size=(24, 24))
    crops = [TrainingTransform(shortest)(large)["semantic_map"] for _ in range(40)]
    assert all((crop != IGNORE_INDEX).any() and crop.shape == (24, 24) for crop in crops)


def test_a_labelled_crop_of_one_class_is_better_than_none(recipe: TransformOptions) -> None:
    """Half of the image is of one class and the other half unlabelled: no crop has two classes."""
    torch.manual_seed(0)
    ids = torch.full((48, 64), IGNORE_INDEX)
    ids[:, 32:] = 1
    half = semantic(torch.zeros(3, 48, 64, dtype=torch.uint8), ids)
    transform = TrainingTransform(dataclasses.replace(recipe, scale=(2, 2), cat_max_ratio=0.75))
    assert all((transform(half)["semantic_map"] == 1).any() for _ in range(40))


def test_a_map_without_any_label_is_cropped_all_the_same(recipe: TransformOptions, sample: Sample) -> None:
    nothing = sample | {"semantic_map": tv_tensors.Mask(torch.full((40, 56), IGNORE_INDEX))}
    assert TrainingTransform(recipe)(nothing)["semantic_map"].shape == (32, 40)


def test_a_crop_of_one_class_is_drawn_again_where_the_recipe_says(recipe: TransformOptions) -> None:
    """Class 1 is a twelfth of the image, on one side: most crops hold none of it."""
    ids = torch.zeros(48, 96, dtype=torch.long)
    ids[:, 88:] = 1
    large = semantic(torch.zeros(3, 48, 96, dtype=torch.uint8), ids)
    still = dataclasses.replace(recipe, scale=(1, 1), base_size=(48, 96), crop_size=(20, 20))

    def mixed(cat_max_ratio: float) -> int:
        torch.manual_seed(0)
        transform = TrainingTransform(dataclasses.replace(still, cat_max_ratio=cat_max_ratio))
        maps = [transform(large)["semantic_map"] for _ in range(60)]
        return sum(0.25 <= (ids == 1).float().mean().item() <= 0.75 for ids in maps)

    assert mixed(1.0) < 15
    assert mixed(0.75) > 20


def instances(boxes: list[list[int]], height: int = 60, width: int = 90, masks: bool = True) -> Sample:
    """Bright rectangles on black, whose masks fill their boxes; the last one is a crowd."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    stack = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for place, (left, top, right, bottom) in zip(stack, boxes):
        place[top:bottom, left:right] = True
        image[:, place] = 255
    sample = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes).float().view(-1, 4), format="XYXY", canvas_size=(height, width)
        ),
        "labels": torch.arange(len(boxes)),
        "is_crowd": torch.arange(len(boxes)) == len(boxes) - 1,
        "areas": stack.flatten(1).sum(1).float(),
        "name": "x",
        "image_id": 0,
    }
    return sample | ({"masks": tv_tensors.Mask(stack)} if masks else {})


BOXES = [[5, 5, 40, 30], [50, 10, 80, 50], [45, 52, 60, 58], [0, 40, 20, 60], [30, 32, 44, 50]]
CROWD = len(BOXES) - 1

SMALL_DETR = {"resize": "shortest_edge", "shortest_edges": [40, 60, 80], "longest_edge": 100}
RECIPES = {
    "jitter": TransformOptions(crop_size=(48, 64), base_size=(60, 90)),
    "large-scale jitter": TransformOptions(crop_size=(64, 64), scale=(0.1, 2.0)),
    "shortest edge": TransformOptions(**SMALL_DETR),
    "shortest edge, DETR's crop": TransformOptions(**SMALL_DETR, crop_first=1.0),
    "shortest edge, cropped": TransformOptions(**SMALL_DETR, crop_size=(50, 50)),
    "fixed": TransformOptions(resize="fixed", crop_size=(64, 64)),
}


@pytest.fixture
def small_detr_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "SHORTEST_EDGES_BEFORE_CROP", (50, 60, 70))
    monkeypatch.setattr(transforms, "SHORTEST_CROP", 30)
    monkeypatch.setattr(transforms, "LONGEST_CROP", 60)


def apply(recipe: TransformOptions, sample: Sample, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    return TrainingTransform(recipe)(sample)


@pytest.mark.usefixtures("small_detr_crop")
@pytest.mark.parametrize("name", RECIPES)
def test_boxes_and_masks_stay_with_the_picture(name: str) -> None:
    """Boxes moved by geometry, without masks, must lie round the masks that the same draw moves."""
    # Where an image is resized twice, a pixel after the first time may be three after the second.
    tolerance = 4 if "DETR" in name else 2
    lefts, kept = set(), set()
    for seed in range(40):
        masked = apply(RECIPES[name], instances(BOXES), seed)
        boxed = apply(RECIPES[name], instances(BOXES, masks=False), seed)
        height, width = masked["pixel_values"].shape[1:]
        assert masked["masks"].shape[1:] == (height, width)
        assert CROWD not in masked["labels"]
        assert len({len(masked[key]) for key in ("boxes", "labels", "is_crowd", "areas", "masks")}) == 1
        assert len({len(boxed[key]) for key in ("boxes", "labels", "is_crowd", "areas")}) == 1
        geometric = dict(zip(boxed["labels"].tolist(), boxed["boxes"], strict=True))
        tight = masks_to_boxes(masked["masks"]) + torch.tensor([0, 0, 1, 1])
        for label, box, drawn, mask, area in zip(
            masked["labels"].tolist(), masked["boxes"], tight, masked["masks"], masked["areas"], strict=True
        ):
            assert torch.equal(box, drawn)
            assert (geometric[label] - drawn).abs().max() <= tolerance
            assert area == mask.sum() > 0
            kept.add(label)
        inside = masked["masks"].any(0)
        if inside.sum() > 200:  # less is mostly blurred border
            assert (masked["pixel_values"][0] > 0)[inside].float().mean() > 0.8, "masks must lie on what is bright"
        assert (boxed["boxes"] >= 0).all()
        assert (boxed["boxes"] <= torch.tensor([width, height, width, height])).all()
        lefts |= {round(box[0].item()) for box in masked["boxes"]}
    assert kept == set(range(CROWD)), "no object may always be lost"
    assert len(lefts) > 3


@given(
    left=st.integers(0, 80),
    top=st.integers(0, 50),
    width=st.integers(1, 89),
    height=st.integers(1, 59),
    name=st.sampled_from(["jitter", "large-scale jitter", "shortest edge", "fixed"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_any_box_stays_with_its_mask(left: int, top: int, width: int, height: int, name: str, seed: int) -> None:
    boxes = [[left, top, min(90, left + width), min(60, top + height)], [0, 0, 1, 1]]
    masked, boxed = (apply(RECIPES[name], instances(boxes, masks=masks), seed) for masks in (True, False))
    for box, geometric in zip(masked["boxes"], boxed["boxes"]):
        assert (box - geometric).abs().max() <= 2
    assert len(masked["boxes"]) <= len(boxed["boxes"]) <= 1


def test_an_object_that_is_cropped_away_goes_with_all_its_fields() -> None:
    still = TransformOptions(base_size=(60, 90), scale=(1, 1), crop_size=(60, 40), flip=0, photometric=False)
    found = set()
    for seed in range(30):
        example = apply(still, instances([[0, 0, 10, 10], [80, 50, 90, 60], [0, 0, 5, 5]]), seed)
        assert len(example["labels"]) == len(example["masks"]) == len(example["boxes"]) <= 1
        found |= {
            (label, tuple(mask.sum().view(1).tolist()))
            for label, mask in zip(example["labels"].tolist(), example["masks"])
        }
        for box in example["boxes"]:
            assert box[2] <= 40
    assert {label for label, _ in found} <= {0, 1}
    assert found


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.usefixtures("small_detr_crop")
def test_a_picture_without_objects(name: str) -> None:
    example = apply(RECIPES[name], instances([]), 0)
    assert example["boxes"].shape == (0, 4)
    assert example["masks"].shape == (0, *example["pixel_values"].shape[1:])


@pytest.mark.usefixtures("small_detr_crop")
@pytest.mark.parametrize("name", RECIPES)
def test_segments_stay_with_the_picture(name: str) -> None:
    """Five grey levels tell the segments; void is black, and the last segment a crowd."""
    levels = torch.tensor([50, 100, 150, 200, 250])
    segment_map = torch.full((60, 90), VOID)
    for position, (left, top, right, bottom) in enumerate(BOXES):
        segment_map[top:bottom, left:right] = position
    image = torch.where(segment_map == VOID, 0, levels[segment_map]).to(torch.uint8).expand(3, -1, -1)
    sample = {
        "image": tv_tensors.Image(image),
        "segment_map": tv_tensors.Mask(segment_map),
        "labels": levels,
        "is_crowd": torch.arange(5) == CROWD,
    }
    recipe = dataclasses.replace(RECIPES[name], photometric=False, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    counts = set()
    for seed in range(15):
        example = apply(recipe, sample, seed)
        moved, labels = example["segment_map"], example["labels"]
        assert sorted(set(moved.unique().tolist()) - {VOID}) == list(range(len(labels)))
        assert len(example["is_crowd"]) == len(labels)
        assert 250 not in labels
        grey = (example["pixel_values"][0] * 255).round().long()
        seen = moved != VOID
        if seen.sum() > 200:  # less is mostly blurred border
            assert ((grey[seen] - labels[moved[seen]]).abs() <= 2).float().mean() > 0.6
        counts.add(len(labels))
    assert max(counts) == CROWD


STILL = {"base_size": (2, 3), "scale": (1, 1), "flip": 0.0, "photometric": False}
PLAIN = {"image_mean": (0, 0, 0), "image_std": (1, 1, 1)}


def numbered(**columns: Any) -> Sample:
    """2 x 3 pixels with the values 0, 1, 2 / 3, 4, 5, and what else a sample has."""
    image = torch.arange(6, dtype=torch.uint8).view(1, 2, 3).expand(3, -1, -1)
    return {"image": tv_tensors.Image(image), "name": "x", "image_id": 0} | columns


def grey(example: dict[str, Any]) -> list[list[int]]:
    return (example["pixel_values"][0] * 255).round().int().tolist()


def boxed(*boxes: list[float]) -> Sample:
    found = tv_tensors.BoundingBoxes(torch.tensor(boxes), format="XYXY", canvas_size=(2, 3))
    labels = torch.arange(len(boxes))
    return numbered(boxes=found, labels=labels, is_crowd=labels < 0, areas=torch.ones(len(boxes)))


TURNS = [
    ([[0, 1, 2], [3, 4, 5]], [0, 0.25, 1.5, 2]),
    ([[2, 5], [1, 4], [0, 3]], [0.25, 1.5, 2, 3]),
    ([[5, 4, 3], [2, 1, 0]], [1.5, 0, 3, 1.75]),
    ([[3, 0], [4, 1], [5, 2]], [0, 0, 1.75, 1.5]),
]
"""The pixels of `numbered` and a box of it, (0, 0.25, 1.5, 2), after 0 to 3 quarter turns counterclockwise."""


@pytest.mark.parametrize("quarters", range(4))
def test_a_turn_moves_every_pixel_and_every_side_of_a_box(quarters: int) -> None:
    pixels, box = TURNS[quarters]
    ids = torch.arange(6).view(2, 3)
    sample = boxed([0, 0.25, 1.5, 2]) | {"semantic_map": tv_tensors.Mask(ids), "masks": tv_tensors.Mask(ids[None] > 2)}
    turned = transforms.turn(sample, quarters)
    assert turned["image"].tolist() == [pixels] * 3
    assert turned["semantic_map"].tolist() == pixels
    assert turned["masks"].int().tolist() == [[[int(value > 2) for value in row] for row in pixels]]
    assert turned["boxes"].tolist() == [box]
    assert turned["boxes"].canvas_size == turned["image"].shape[-2:]
    assert {key: type(value) for key, value in turned.items()} == {key: type(value) for key, value in sample.items()}


def test_quarter_turns_come_as_often_and_keep_the_size_of_the_crop() -> None:
    """Fitted into 2 x 3 whichever way it lies, and padded to 3 x 3."""
    recipe = TransformOptions(**STILL, **PLAIN, crop_size=(3, 3), rotate="quarter_turns")
    torch.manual_seed(0)
    transform = TrainingTransform(recipe)
    found = [
        transform(numbered(semantic_map=tv_tensors.Mask(torch.arange(6).view(2, 3))))["semantic_map"]
        for _ in range(80)
    ]
    assert {tuple(ids.shape) for ids in found} == {(3, 3)}
    seen = [[[i for i in row if i != IGNORE_INDEX] for row in ids.tolist()] for ids in found]
    counts = [sum([row for row in ids if row] == pixels for ids in seen) for pixels, _ in TURNS]
    assert sum(counts) == 80
    assert min(counts) >= 10


def test_a_vertical_flip_moves_pixels_and_boxes() -> None:
    recipe = TransformOptions(**STILL, **PLAIN, crop_size=(2, 3), vertical_flip=1.0)
    example = TrainingTransform(recipe)(boxed([0, 0.25, 1.5, 1.5]))
    assert grey(example) == [[3, 4, 5], [0, 1, 2]]
    assert example["boxes"].tolist() == [[0, 0.5, 1.5, 1.75]]
    both = TrainingTransform(dataclasses.replace(recipe, flip=1.0))(boxed([0, 0.25, 1.5, 1.5]))
    assert grey(both) == [[5, 4, 3], [2, 1, 0]]
    assert both["boxes"].tolist() == [[1.5, 0.5, 3, 1.75]]


def test_boxes_are_drawn_round_turned_masks() -> None:
    """A pixel of a mask at the top right; the box in the file is wrong and goes."""
    mask = torch.zeros(1, 2, 3, dtype=torch.bool)
    mask[0, 0, 2] = True
    recipe = TransformOptions(**STILL, crop_size=(2, 3), vertical_flip=1.0)
    example = TrainingTransform(recipe)(boxed([0, 0, 3, 2]) | {"masks": tv_tensors.Mask(mask)})
    assert example["boxes"].tolist() == [[2, 1, 3, 2]]
    assert example["areas"].tolist() == [1]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.usefixtures("small_detr_crop")
def test_what_is_not_asked_for_draws_no_random_number(name: str) -> None:
    """The generator is left as a change of size and a horizontal flip alone leave it."""
    recipe = dataclasses.replace(RECIPES[name], photometric=False)
    assert (recipe.vertical_flip, recipe.rotate) == (0, "none")
    plain = apply(recipe, instances(BOXES), 3)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    transform = TrainingTransform(recipe)
    moved = v2.RandomHorizontalFlip(0.5)(transform.change_size(instances(BOXES)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(transforms._to_example(moved, (60, 90), recipe)["pixel_values"], plain["pixel_values"])


def test_true_is_the_standard_strength_of_colours() -> None:
    def pixels(photometric: bool | str, seed: int) -> torch.Tensor:
        recipe = TransformOptions(**STILL | {"photometric": photometric}, crop_size=(2, 3), **PLAIN)
        image = tv_tensors.Image(torch.tensor([[90, 130, 110], [100, 100, 120]], dtype=torch.uint8).expand(3, -1, -1))
        return apply(recipe, {"image": image}, seed)["pixel_values"]

    assert torch.equal(pixels(True, 0), pixels("standard", 0))
    strengths = ["light", "standard", "strong"]
    changes = [
        torch.stack([(pixels(strength, seed) - pixels(False, seed)).abs().mean() for seed in range(40)]).mean()
        for strength in strengths
    ]
    assert 0 < changes[0] < 0.7 * changes[1] < 0.7 * 0.7 * changes[2]


def test_the_size_of_detr_training_images() -> None:
    """60 x 90 at shortest edge 40, 60 or 80, of which 80 x 120 is over the longest edge and becomes 67 x 100."""
    sizes = {
        tuple(apply(RECIPES["shortest edge"], instances(BOXES), seed)["pixel_values"].shape) for seed in range(30)
    }
    assert sizes == {(3, 40, 60), (3, 60, 90), (3, 67, 100)}
    cropped = {
        apply(RECIPES["shortest edge, cropped"], instances(BOXES), seed)["pixel_values"].shape for seed in range(30)
    }
    assert cropped == {(3, 40, 50), (3, 50, 50)}


def test_detr_crops_some_images_before() -> None:
    """A crop of 384 to 600 of an image of 400 to 600 x 600 to 900 changes the shape; else it stays 2 : 3."""
    detr = TransformOptions(resize="shortest_edge", shortest_edges=[60], longest_edge=200, crop_first=0.5)
    sizes = [tuple(apply(detr, instances(BOXES), seed)["pixel_values"].shape[1:]) for seed in range(12)]
    assert 1 <= sizes.count((60, 90)) <= 11
    assert len(set(sizes)) > 3
    assert all(min(size) == 60 for size in sizes)


def test_fixed_images_do_not_keep_their_shape() -> None:
    still = dataclasses.replace(RECIPES["fixed"], flip=0, crop_size=(120, 90))
    example = apply(still, instances(BOXES, masks=False), 0)
    assert example["pixel_values"].shape == (3, 120, 90)
    assert example["boxes"][0].tolist() == [5, 10, 40, 60]


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"evaluation_resize": "none"}, (60, 90)),
        ({"evaluation_resize": "fixed"}, (32, 40)),
        ({"evaluation_resize": "shortest_edge", "shortest_edges": [20, 30]}, (30, 45)),
        ({"evaluation_resize": "shortest_edge", "shortest_edges": [100], "longest_edge": 120}, (80, 120)),
    ],
)
def test_evaluation_resizes_the_image_alone(fields: dict[str, Any], size: tuple[int, int]) -> None:
    recipe = TransformOptions(crop_size=(32, 40), **fields)
    sample = instances(BOXES)
    example = EvaluationTransform(recipe)(sample)
    assert example["pixel_values"].shape == (3, *size)
    assert evaluation_size(recipe, (60, 90)) == size
    assert example["original_size"] == (60, 90)
    for key in ("boxes", "labels", "is_crowd", "areas", "masks"):
        assert torch.equal(example[key], sample[key].as_subclass(torch.Tensor)), "crowds are kept, too"


def test_the_longest_and_thinnest_image_keeps_a_pixel() -> None:
    recipe = TransformOptions(
        crop_size=(32, 40), evaluation_resize="shortest_edge", shortest_edges=[4], longest_edge=10
    )
    assert evaluation_size(recipe, (1, 3000)) == (1, 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "resize=jitter, evaluation_resize=none need a crop_size"),
        ({"resize": "shortest_edge", "evaluation_resize": "fixed"}, "evaluation_resize=fixed need a crop_size"),
        ({"resize": "shortest_edge", "shortest_edges": []}, "at least 1 item"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TransformOptions(**fields)
