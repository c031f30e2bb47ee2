"""COCO's JSON files: boxes, masks in three notations, panoptic PNGs; what is wrong in them is reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision.ops import masks_to_boxes

from dense_prediction.data.annotations.coco_masks import run_lengths
from dense_prediction.data.bad_samples import BadSample
from dense_prediction.data.formats import coco
from dense_prediction.data.formats.coco import CocoOptions
from dense_prediction.data.formats.coco_json import PackedRecords
from dense_prediction.data.formats.coco_panoptic import CocoPanopticOptions
from dense_prediction.data.loading import Data, load_data
from dense_prediction.data.samples import VOID
from dense_prediction.data.tensors import to_tensors
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.tasks import Task
from miniature import ROOT


COCO_MINI = ROOT.parent / "shared" / "data" / "coco_mini"
HEIGHT, WIDTH = 20, 30
DETECTION, INSTANCES = TASKS["object_detection"], TASKS["instance_segmentation"]
PANOPTIC = TASKS["panoptic_segmentation"]

# Out of order, and with a gap: class ids are positions among the sorted category ids.
CATEGORIES = [{"id": 7, "name": "dog", "isthing": 1}, {"id": 3, "name": "cat", "isthing": 0}]


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """Lengths of the runs of 0 and 1 by turns, down the columns."""
    pixels = mask.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], pixels, [1 - pixels[-1]]])))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], changes])).tolist()}


POLYGON = rectangle(2, 4, 10, 12)
STRING = rectangle(12, 20, 20, 30)
NUMBERS = rectangle(0, 20, 5, 26)
ANNOTATIONS = [
    {"id": 1, "category_id": 7, "bbox": [4, 2, 8, 8], "segmentation": [[4, 2, 12, 2, 12, 10, 4, 10]], "area": 60.5},
    {"id": 2, "category_id": 3, "bbox": [20, 12, 40, 40], "segmentation": compressed(STRING), "iscrowd": 0},
    {"id": 3, "category_id": 3, "bbox": [20, 0, 6, 5], "segmentation": uncompressed(NUMBERS), "iscrowd": 1},
]


def write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_coco(folder: Path, annotations: list[dict[str, Any]], **image: Any) -> CocoOptions:
    """Image 42, called a.png, and image 43, without annotations, as training and validation split."""
    for name in ("a.png", "b.png"):
        write_picture(folder / "pictures" / name, np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    images = [{"id": 42, "file_name": "a.png", "height": HEIGHT, "width": WIDTH} | image]
    images.append({"id": 43, "file_name": "b.png"})
    content = {
        "images": images,
        "categories": CATEGORIES,
        "annotations": [{"image_id": 42} | annotation for annotation in annotations],
    }
    write_json(folder / "instances.json", content)
    return recipe_of(folder)


def places_of(folder: Path) -> dict[str, Any]:
    return {
        "path": str(folder),
        "images": {"train": "pictures", "validation": "pictures"},
        "annotations": {"train": "instances.json", "validation": "instances.json"},
    }


def recipe_of(folder: Path, **fields: Any) -> CocoOptions:
    return CocoOptions(**(places_of(folder) | fields))


def panoptic_recipe_of(folder: Path) -> CocoPanopticOptions:
    return CocoPanopticOptions(**places_of(folder), masks={"train": "segments", "validation": "segments"})


def test_all_notations_of_masks(tmp_path: Path) -> None:
    data = load_data(write_coco(tmp_path, ANNOTATIONS), INSTANCES)
    assert (data.labels, data.things, data.category_ids) == (["cat", "dog"], {0, 1}, [3, 7])
    sample = data.train[0]
    assert (sample["image_id"], sample["name"]) == (42, str(tmp_path / "pictures" / "a.png"))
    assert sample["masks"].dtype == torch.bool
    assert np.array_equal(sample["masks"].numpy(), np.stack([POLYGON, STRING, NUMBERS]))
    assert sample["boxes"].tolist() == [[4, 2, 12, 10], [20, 12, 30, 20], [20, 0, 26, 5]]
    assert sample["labels"].tolist() == [1, 0, 0]
    assert sample["is_crowd"].tolist() == [False, False, True]
    assert sample["areas"].tolist() == [60.5, 80, 30], "the annotation's own area, else that of the mask"


def test_detection_reads_no_masks(tmp_path: Path) -> None:
    annotations = [annotation | {"segmentation": "unreadable"} for annotation in ANNOTATIONS]
    data = load_data(write_coco(tmp_path, annotations), DETECTION)
    sample = data.train[0]
    assert "masks" not in sample
    assert sample["boxes"].tolist() == [[4, 2, 12, 10], [20, 12, 30, 20], [20, 0, 26, 5]]


@pytest.mark.parametrize("task", [DETECTION, INSTANCES], ids=lambda task: task.name)
def test_an_image_without_annotations(tmp_path: Path, task: Task) -> None:
    sample = load_data(write_coco(tmp_path, ANNOTATIONS), task).train[1]
    assert sample["image_id"] == 43
    assert sample["boxes"].shape == (0, 4)
    assert "masks" not in sample or sample["masks"].shape == (0, HEIGHT, WIDTH)


def test_the_recipe_may_order_the_labels(tmp_path: Path) -> None:
    write_coco(tmp_path, ANNOTATIONS)
    data = load_data(recipe_of(tmp_path, labels=["dog", "cat"]), DETECTION)
    assert data.train[0]["labels"].tolist() == [0, 1, 1]
    with pytest.raises(UserError, match="data.labels: cow is no category of .*instances.json, it has cat, dog"):
        load_data(recipe_of(tmp_path, labels=["dog", "cow"]), DETECTION)


MASK = ANNOTATIONS[1]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (MASK | {"category_id": 5}, "unknown category 5"),
        (MASK | {"bbox": [30, 0, 5, 5]}, r"box \[30, 0, 5, 5\] \(xywh\) has no area in the picture of 30 x 20 pixels"),
        (MASK | {"bbox": [3, 3, 0, 5]}, "has no area"),
        (MASK | {"bbox": None, "segmentation": None}, "neither polygons nor run lengths"),
        (MASK | {"bbox": 5}, "the box of an object is 5, expected four numbers"),
        (MASK | {"area": "12"}, "the area of an object is '12', expected a number"),
        (MASK | {"iscrowd": "0"}, "an object is a crowd '0', expected 0 or 1"),
        ({"id": 9, "bbox": [1, 1, 2, 2]}, "annotation 9 has no bbox or no category_id"),
        (MASK | {"segmentation": []}, r"annotation 2: a segmentation is neither polygons nor run lengths: \[\]"),
        (MASK | {"segmentation": None}, "neither polygons nor run lengths"),
        (MASK | {"segmentation": [[1, 1, 5, 5]]}, "a polygon needs an even number of coordinates, at least 6"),
        (MASK | {"segmentation": [[1, 1, 5, 5, 1, 5, 3]]}, "a polygon needs an even number"),
        (MASK | {"segmentation": [[1, 1, 1, 1, 1, 1]]}, "has an empty mask"),
        (MASK | {"segmentation": [[40, 1, 50, 1, 50, 9]]}, "has an empty mask"),
        (MASK | {"segmentation": compressed(rectangle(0, 0, 0, 0))}, "has an empty mask"),
        (MASK | {"segmentation": compressed(STRING.T)}, r"height and width \[30, 20\], not \[20, 30\]"),
        (MASK | {"segmentation": {"size": [20, 30], "counts": [5, 9]}}, "run lengths add up to 14 of 600 pixels"),
        (MASK | {"segmentation": {"size": [20, 30], "counts": [700, -100]}}, "run lengths add up to 600"),
        (MASK | {"segmentation": {"size": [20, 30], "counts": "zz0"}}, "annotation 2: run lengths add up to"),
        (MASK | {"segmentation": compressed(STRING) | {"counts": compressed(STRING)["counts"][:-1]}}, "add up to"),
    ],
    ids=range(20),
)
def test_a_bad_annotation_is_reported_by_its_picture(tmp_path: Path, annotation: dict[str, Any], message: str) -> None:
    data = load_data(write_coco(tmp_path, [ANNOTATIONS[0], annotation]), INSTANCES)
    with pytest.raises(UserError, match=message) as caught:
        data.train[0]
    assert "a.png" in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"file_name": "absent.png"}, "absent.png does not exist"),
        ({"file_name": "damaged.png"}, "damaged.png cannot be decoded"),
        ({"file_name": None}, "the file name of image 42 is None"),
        (
            {"height": WIDTH, "width": HEIGHT},
            r"a.png has height and width \(20, 30\), but was annotated as \(30, 20\)",
        ),
    ],
)
def test_a_bad_image_is_reported(tmp_path: Path, image: dict[str, Any], message: str) -> None:
    recipe = write_coco(tmp_path, ANNOTATIONS, **image)
    picture = (tmp_path / "pictures" / "a.png").read_bytes()
    (tmp_path / "pictures" / "damaged.png").write_bytes(picture[:45])
    with pytest.raises(UserError, match=message):
        load_data(recipe, DETECTION).train[0]


def test_annotations_of_unknown_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(tmp_path, [*ANNOTATIONS, {"image_id": 99, "category_id": 3, "bbox": [1, 1, 2, 2]}])
    message = r"instances.json: 1 annotations belong to images that it does not list, such as \[99\]"
    with pytest.raises(UserError, match=message + ".*data.bad_samples=skip"):
        load_data(recipe_of(tmp_path), DETECTION)
    data = load_data(recipe_of(tmp_path, bad_samples="skip"), DETECTION)
    assert "99" in caplog.text
    assert len(data.train[0]["labels"]) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold images, annotations and categories, got a list"),
        ({"images": []}, "has no list of categories, it has images"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no file_name"),
        ({"images": [], "categories": [], "annotations": [{}]}, r"annotations\[0\] has no image_id"),
        (
            {"images": [{"id": 1, "file_name": name} for name in "ab"], "categories": [], "annotations": []},
            r"1 ids of images are given more than once, such as \[1\]",
        ),
        (
            {"images": [], "categories": [{"id": 7, "name": name} for name in ("cat", "dog")], "annotations": []},
            r"1 ids of categories are given more than once, such as \[7\]",
        ),
        (
            {"images": [{"id": "a_0", "file_name": "a"}], "categories": [], "annotations": []},
            r"ids of images must be whole numbers, but 1 are not: \['a_0'\]",
        ),
    ],
)
def test_a_json_file_of_another_kind(tmp_path: Path, content: Any, message: str) -> None:
    write_coco(tmp_path, ANNOTATIONS)
    write_json(tmp_path / "instances.json", content)
    with pytest.raises(UserError, match=message) as caught:
        load_data(recipe_of(tmp_path), DETECTION)
    assert "instances.json" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "absent"}, "data.path=absent: there is no folder .*/absent"),
        ({"annotations": {}}, "data.train_split=train: data.annotations says no place for this split"),
        (
            {"annotations": {"train": "absent.json"}},
            "data.annotations.train=absent.json: .*absent.json does not exist",
        ),
        ({"images": {"train": "absent"}}, "data.images.train=absent: .*absent does not exist"),
        ({"validation_split": "val"}, "data.validation_split=val: .* set data.annotations.val=PATH .* it has train"),
    ],
)
def test_places_that_are_wrong(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    write_coco(tmp_path, ANNOTATIONS)
    with pytest.raises(UserError, match=message):
        load_data(recipe_of(tmp_path, **fields), DETECTION)


def test_the_places_of_all_splits_are_found_before_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_coco(tmp_path, ANNOTATIONS)
    monkeypatch.setattr(coco, "CocoFile", lambda *arguments: pytest.fail("a file is read"))
    for fields, message in (
        ({"validation_split": "val"}, "data.validation_split=val: data.annotations says no place"),
        ({"test_split": "test"}, "data.test_split=test: data.annotations says no place"),
    ):
        with pytest.raises(UserError, match=message):
            load_data(recipe_of(tmp_path, **fields), DETECTION)


def test_run_lengths_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for share in (0.001, 0.01, 0.1, 0.5, 0.9):
        mask = rng.random((97, 103)) < share
        assert run_lengths(compressed(mask)["counts"]) == uncompressed(mask)["counts"]


def test_packed_records_come_back() -> None:
    records = [{"a": [1, 2.5, "ä"]}, [], "x", None]
    packed = PackedRecords(records)
    assert [packed[index] for index in (3, 0, 1, 2)] == [None, {"a": [1, 2.5, "ä"]}, [], "x"]
    assert len(packed) == 4


SEGMENTS = [{"id": 70000, "category_id": 7, "iscrowd": 0}, {"id": 300, "category_id": 3, "iscrowd": 1}]


def write_panoptic(folder: Path, segments: list[dict[str, Any]], numbers: np.ndarray | None = None) -> Data:
    if numbers is None:
        numbers = 70000 * POLYGON + 300 * STRING
    write_picture(folder / "pictures" / "a.png", np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    colors = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1)
    write_picture(folder / "segments" / "a_segments.png", colors.astype(np.uint8))
    content = {
        "images": [{"id": 42, "file_name": "a.png"}],
        "categories": CATEGORIES,
        "annotations": [{"image_id": 42, "file_name": "a_segments.png", "segments_info": segments}],
    }
    write_json(folder / "instances.json", content)
    return load_data(panoptic_recipe_of(folder), PANOPTIC)


def test_panoptic_pictures(tmp_path: Path) -> None:
    data = write_panoptic(tmp_path, SEGMENTS)
    assert (data.labels, data.things, data.category_ids) == (["cat", "dog"], {1}, [3, 7])
    sample = data.train[0]
    expected = np.where(POLYGON, 0, np.where(STRING, 1, VOID))
    assert sample["segment_map"].dtype == torch.int64
    assert np.array_equal(sample["segment_map"].numpy(), expected)
    assert sample["labels"].tolist() == [1, 0]
    assert sample["is_crowd"].tolist() == [False, True]
    assert sample["image_id"] == 42


@pytest.mark.parametrize(
    ("segments", "numbers", "message"),
    [
        (SEGMENTS[:1], None, r"shows segments \[300\] that its annotation does not list"),
        ([*SEGMENTS, {"id": 5, "category_id": 3}], None, r"shows no pixel of the segments \[5\]"),
        ([SEGMENTS[0] | {"category_id": 4}, SEGMENTS[1]], None, "has no id or an unknown category: .*4"),
        ([SEGMENTS[0], {"category_id": 3}], None, "has no id or an unknown category"),
        ([], np.zeros((HEIGHT, WIDTH)), "shows no segment"),
        (SEGMENTS, (70000 * POLYGON + 300 * STRING).T, r"has height and width \(30, 20\), its image \(20, 30\)"),
    ],
    ids=range(6),
)
def test_bad_segments(tmp_path: Path, segments: list[Any], numbers: np.ndarray | None, message: str) -> None:
    data = write_panoptic(tmp_path, segments, numbers)
    with pytest.raises(UserError, match=message) as caught:
        data.train[0]
    assert "a_segments.png" in str(caught.value)


def test_an_image_without_its_panoptic_annotation(tmp_path: Path) -> None:
    write_panoptic(tmp_path, SEGMENTS)
    content = json.loads((tmp_path / "instances.json").read_text()) | {"annotations": []}
    write_json(tmp_path / "instances.json", content)
    with pytest.raises(UserError, match="a.png has 0 annotations, expected one"):
        load_data(panoptic_recipe_of(tmp_path), PANOPTIC).train[0]


def test_categories_must_say_what_is_countable(tmp_path: Path) -> None:
    write_panoptic(tmp_path, SEGMENTS)
    content = json.loads((tmp_path / "instances.json").read_text())
    del content["categories"][0]["isthing"]
    write_json(tmp_path / "instances.json", content)
    with pytest.raises(UserError, match="the category dog does not say whether it isthing"):
        load_data(panoptic_recipe_of(tmp_path), PANOPTIC)


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="needs the coco_mini copy beside the repository")
def test_coco_mini_is_read_completely() -> None:
    """All but one picture, in which an object is too small for a pixel; boxes lie round the masks."""
    files = {"train": "instances_train.json", "validation": "instances_val.json"}
    recipe = recipe_of(COCO_MINI, images={"train": "train", "validation": "val"}, annotations=files)
    data = load_data(recipe, INSTANCES)
    assert (len(data.train), len(data.validation), len(data.labels)) == (221, 134, 80)
    objects, crowds, bad, far = 0, 0, [], []
    for split in (data.train.split, data.validation.split):
        for index in range(len(split)):
            try:
                sample = to_tensors(split[index])
            except BadSample as error:
                bad.append(str(error))
                continue
            plain = ~sample["is_crowd"]
            tight = masks_to_boxes(sample["masks"][plain]) + torch.tensor([0, 0, 1, 1])
            far += (sample["boxes"].as_subclass(torch.Tensor)[plain] - tight).abs().amax(1).tolist()
            objects, crowds = objects + len(plain), crowds + int((~plain).sum())
    assert len(bad) == 1
    assert "000000000542.jpg" in bad[0]
    assert "empty mask" in bad[0]
    assert (objects, crowds) == (3233, 36)
    assert np.quantile(far, 0.98) <= 2, "annotated boxes must fit the masks"
