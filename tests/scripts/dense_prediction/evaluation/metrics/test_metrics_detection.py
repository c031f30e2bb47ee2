"""Average precision against pycocotools' COCOeval, on random and on adversarial cases."""

import contextlib
import io
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from dense_prediction.errors import UserError
from dense_prediction.evaluation.metrics.metric import Annotation
from dense_prediction.evaluation.tasks import TASKS


coco = pytest.importorskip("pycocotools.coco")
cocoeval = pytest.importorskip("pycocotools.cocoeval")
coco_mask = pytest.importorskip("pycocotools.mask")

LABELS = ["cat", "dog", "bird"]
SIZE = (150, 180)
SUMMARY = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5, "ar100": 8}
"""Places of the numbers in what pycocotools prints."""

Pair = tuple[Annotation, Annotation]
"""A prediction and the targets of one image."""


def boxes(rng: np.random.Generator, count: int) -> torch.Tensor:
    """(count, 4) x1, y1, x2, y2 of all three size classes, whole numbers, so that float32 holds them exactly."""
    sides = rng.integers(4, 140, (count, 2))
    corners = rng.integers(0, [SIZE[1] - 140, SIZE[0] - 140], (count, 2))
    return torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()


def masks(rng: np.random.Generator, boxes: torch.Tensor) -> torch.Tensor:
    """(N, H, W) bool: each box with a tenth of its pixels missing."""
    grid_y, grid_x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    inside = (grid_x >= x1) & (grid_x < x2) & (grid_y >= y1) & (grid_y < y2)
    return inside & torch.from_numpy(rng.random(inside.shape) < 0.9)


def targets(rng: np.random.Generator, image_id: int, count: int, crowds: float = 0.0) -> Annotation:
    place = boxes(rng, count)
    area = (place[:, 2:] - place[:, :2]).prod(1)
    return {
        "name": f"image {image_id}",
        "image_id": image_id,
        "original_size": SIZE,
        "boxes": place,
        "labels": torch.from_numpy(rng.integers(0, len(LABELS), count)),
        "is_crowd": torch.from_numpy(rng.random(count) < crowds),
        "areas": area * torch.from_numpy(rng.uniform(0.5, 1, count)).float(),  # not that of the box: a polygon's
        "masks": masks(rng, place),
    }


def prediction(rng: np.random.Generator, truth: Annotation, extra: int) -> Annotation:
    """The truth moved by a few pixels, some of it with another class, and `extra` boxes at random places."""
    count = len(truth["labels"])
    moved = truth["boxes"] + torch.from_numpy(rng.integers(-4, 5, (count, 4))).float()
    place = torch.cat([moved, boxes(rng, extra)])
    labels = torch.cat([truth["labels"], torch.from_numpy(rng.integers(0, len(LABELS), extra))])
    changed = torch.from_numpy(rng.random(len(labels)) < 0.2)
    return {
        "boxes": place,
        "scores": torch.from_numpy(rng.random(len(place))).float(),
        "labels": labels.where(~changed, (labels + 1) % len(LABELS)),
        "masks": masks(rng, place),
    }


def random_pairs(seed: int) -> list[Pair]:
    rng = np.random.default_rng(seed)
    truths = [targets(rng, image_id, int(rng.integers(0, 8)), crowds=0.25) for image_id in (7, 3, 12, 5)]
    return [(prediction(rng, truth, int(rng.integers(0, 6))), truth) for truth in truths]


def without_predictions(pair: Pair) -> Pair:
    return {key: value[:0] for key, value in pair[0].items()}, pair[1]


def without_truth(pair: Pair) -> Pair:
    found, truth = pair
    empty = {key: truth[key][:0] for key in ("boxes", "labels", "is_crowd", "areas", "masks")}
    return found, truth | empty


def changed(pair: Pair, side: int, **columns: torch.Tensor) -> Pair:
    pair = list(pair)
    pair[side] = pair[side] | columns
    return tuple(pair)


def ties(pair: Pair) -> Pair:
    return changed(pair, 0, scores=torch.full_like(pair[0]["scores"], 0.5))


def duplicates(pair: Pair) -> Pair:
    return {key: torch.cat([value, value]) for key, value in pair[0].items()}, pair[1]


def all_crowds(pair: Pair) -> Pair:
    return changed(pair, 1, is_crowd=torch.ones_like(pair[1]["is_crowd"]))


def one_class(pair: Pair) -> Pair:
    return changed(changed(pair, 0, labels=0 * pair[0]["labels"]), 1, labels=0 * pair[1]["labels"])


def no_extent(pair: Pair) -> Pair:
    """Boxes of no width and empty masks, found and true."""
    for side in (0, 1):
        place, shapes = pair[side]["boxes"].clone(), pair[side]["masks"].clone()
        place[::2, 2] = place[::2, 0]
        shapes[::2] = False
        pair = changed(pair, side, boxes=place, masks=shapes)
    return pair


def more_than_a_hundred(pair: Pair) -> Pair:
    rng = np.random.default_rng(1)
    return changed(one_class((prediction(rng, pair[1], 130), pair[1])), 1)


def outside(pair: Pair) -> Pair:
    return changed(pair, 0, boxes=pair[0]["boxes"] - 300)


CASES = {
    "random": lambda pair: pair,
    "no predictions": without_predictions,
    "no truth": without_truth,
    "neither": lambda pair: without_predictions(without_truth(pair)),
    "equal scores": ties,
    "duplicates": duplicates,
    "equal duplicates": lambda pair: duplicates(ties(pair)),
    "all crowds": all_crowds,
    "one class": one_class,
    "no extent": no_extent,
    "more than a hundred": more_than_a_hundred,
    "equal, more than a hundred": lambda pair: ties(more_than_a_hundred(pair)),
    "outside the picture": outside,
}


def with_pycocotools(pairs: list[Pair], kind: str) -> tuple[np.ndarray, list[float]]:
    """The numbers that `summarize` prints, and the AP of each class; -1 where nothing could be measured."""
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": targets["image_id"], "height": SIZE[0], "width": SIZE[1]} for _, targets in pairs],
        "categories": [{"id": label} for label in range(len(LABELS))],
        "annotations": [row for _, targets in pairs for row in rows_of(targets, targets["image_id"])],
    }
    for number, row in enumerate(truth.dataset["annotations"], start=1):
        row["id"] = number
    results = [row for found, targets in pairs for row in rows_of(found, targets["image_id"])]
    for row in results:
        row.pop("bbox" if kind == "segm" else "segmentation")  # else the size of a mask is that of its box
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(results) if results else empty_results(truth)
        evaluation = cocoeval.COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    by_class = [precision[:, :, label] for label in range(len(LABELS))]
    return evaluation.stats, [float(p[p > -1].mean()) if (p > -1).any() else -1.0 for p in by_class]


def empty_results(truth: Any) -> Any:
    found = coco.COCO()
    found.dataset = truth.dataset | {"annotations": []}
    found.createIndex()
    return found


def rows_of(annotation: Annotation, image_id: int) -> list[dict[str, Any]]:
    rows = []
    for index, (x1, y1, x2, y2) in enumerate(annotation["boxes"].double().tolist()):
        row = {
            "image_id": image_id,
            "category_id": int(annotation["labels"][index]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": coco_mask.encode(np.asfortranarray(annotation["masks"][index].numpy().astype(np.uint8))),
        }
        if "scores" in annotation:
            row["score"] = float(annotation["scores"][index])
        else:
            row |= {"area": float(annotation["areas"][index]), "iscrowd": int(annotation["is_crowd"][index])}
        rows.append(row)
    return rows


def assert_equal_to_pycocotools(numbers: dict[str, Any], pairs: list[Pair], name: str, kind: str) -> None:
    stats, by_class = with_pycocotools(pairs, kind)
    for key, place in SUMMARY.items():
        expected = None if stats[place] == -1 else pytest.approx(stats[place], abs=1e-12)
        assert numbers[f"{name}_{key}"] == expected, (name, key)
    for label, ap in zip(LABELS, by_class, strict=True):
        expected = None if ap == -1 else pytest.approx(ap, abs=1e-12)
        assert numbers[f"class_{name}_ap"][label] == expected, (name, label)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_average_precision_equals_pycocotools(case: str, seed: int) -> None:
    pairs = [CASES[case](pair) for pair in random_pairs(seed)]
    metric = TASKS["instance_segmentation"].metric(LABELS, frozenset())
    for pair in pairs:
        metric.update(*pair)
    numbers = metric.compute()
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        assert_equal_to_pycocotools(numbers, pairs, name, kind)
    if case == "random":
        assert 0 < numbers["mask_ap"] < 1
        assert numbers["mask_ap"] != numbers["box_ap"]


def test_detection_is_the_boxes_alone() -> None:
    pairs = random_pairs(0)
    both, alone = (
        TASKS["instance_segmentation"].metric(LABELS, frozenset()),
        TASKS["object_detection"].metric(LABELS, frozenset()),
    )
    for found, truth in pairs:
        both.update(found, truth)
        alone.update(*({k: v for k, v in side.items() if k != "masks"} for side in (found, truth)))
    numbers = both.compute()
    assert alone.compute() == {key: value for key, value in numbers.items() if "box" in key}


@pytest.mark.parametrize("change", [ties, duplicates])
def test_the_number_of_processes_changes_nothing(change: Any) -> None:
    """Bit for bit, also where equal scores leave the order of the images open."""
    pairs = [change(pair) for pair in random_pairs(1)]
    alone = TASKS["instance_segmentation"].metric(LABELS, frozenset())
    for pair in pairs:
        alone.update(*pair)
    merged = TASKS["instance_segmentation"].metric(LABELS, frozenset())
    for process in (1, 0):
        part = TASKS["instance_segmentation"].metric(LABELS, frozenset())
        for pair in pairs[process::2]:
            part.update(*pair)
        merged.merge(pickle.loads(pickle.dumps(part.state)))
    assert merged.compute() == alone.compute()
    with pytest.raises(ValueError, match=r"ids \[3, 5, 7, 12\] are measured twice"):
        merged.merge(alone.state)


def test_computing_twice_gives_the_same() -> None:
    metric = TASKS["instance_segmentation"].metric(LABELS, frozenset())
    for pair in random_pairs(2):
        metric.update(*pair)
    assert metric.compute() == metric.compute()


def test_masks_are_kept_small() -> None:
    metric = TASKS["instance_segmentation"].metric(LABELS, frozenset())
    found, truth = random_pairs(0)[0]
    solid = torch.zeros(50, 1000, 1000, dtype=torch.bool)
    solid[:, 100:900, 100:900] = True
    columns = {"boxes": torch.ones(50, 4), "scores": torch.ones(50), "labels": torch.zeros(50, dtype=torch.long)}
    metric.update({**columns, "masks": solid}, truth | {"original_size": (1000, 1000)})
    assert len(pickle.dumps(metric.state)) < solid.numel() / 100


@pytest.mark.parametrize("column", ["scores", "boxes"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_predictions_that_are_no_numbers_are_reported_with_the_image(column: str, bad: float) -> None:
    found, truth = next(pair for pair in random_pairs(0) if len(pair[0]["boxes"]))
    found[column].view(-1)[0] = bad
    with pytest.raises(UserError, match=f"{truth['name']}: the model's {column} are no numbers"):
        TASKS["object_detection"].metric(LABELS, frozenset()).update(found, truth)


def test_a_label_that_is_no_class_is_refused() -> None:
    found, truth = next(pair for pair in random_pairs(0) if len(pair[0]["boxes"]))
    found["labels"][0] = len(LABELS)
    with pytest.raises(ValueError, match="allowed are 0..2"):
        TASKS["object_detection"].metric(LABELS, frozenset()).update(found, truth)
