"""Datasets of the `datasets` library and drawn shapes; every bad sample is reported by its name or skipped."""

import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torchvision.ops import masks_to_boxes

from dense_prediction.data.bad_samples import BadSample
from dense_prediction.data.formats import drawn_shapes as shapes
from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.formats.folders import FoldersOptions
from dense_prediction.data.formats.synthetic_shapes import ShapesSplit, SyntheticShapesOptions
from dense_prediction.data.images import read_rgb
from dense_prediction.data.loading import CheckedSplit, load_data
from dense_prediction.data.samples import IGNORE_INDEX, Sample
from dense_prediction.data.tables.row_splits import RowSplit
from dense_prediction.data.tables.rows import ObjectsReader, SemanticReader, decode_picture
from dense_prediction.data.tensors import to_tensors
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.tasks import Task
from miniature import ROOT, draw_rows


CAMVID = ROOT.parent / "shared" / "data" / "camvid"
OPTIONS = DatasetsOptions(path="unused", labels=["black", "white"], ignore_index=11)
SEMANTIC, DETECTION = TASKS["semantic_segmentation"], TASKS["object_detection"]


def png(pixels: np.ndarray, turned: int = 1) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def cell(picture: bytes | None) -> dict[str, Any] | None:
    return None if picture is None else {"bytes": picture, "path": None}


def rows_of(column: str, feature: Any, image: bytes | None, value: Any) -> datasets.Dataset:
    """One row called `street_007`."""
    features = datasets.Features({"image": datasets.Image(), column: feature, "name": datasets.Value("string")})
    columns = {"image": [cell(image)], column: [value], "name": ["street_007"]}
    return datasets.Dataset.from_dict(columns, features, split=datasets.Split.TRAIN)


def labelled(rows: datasets.Dataset) -> RowSplit:
    return RowSplit(rows, SemanticReader(OPTIONS, rows.features, ("image", "label")))


def with_objects(rows: datasets.Dataset, box_format: str = "xywh", labels: list[str] | None = None) -> RowSplit:
    options = DatasetsOptions(path="unused", labels=labels)
    return RowSplit(rows, ObjectsReader(options, rows.features, ("image", "objects"), box_format))


def split_of(image: bytes | None, label: bytes) -> RowSplit:
    return labelled(rows_of("label", datasets.Image(), image, cell(label)))


IMAGE = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
IDS = np.array([[0, 1, 1, 0, 11, 11]] * 4, dtype=np.uint8)


def test_a_sample_has_the_image_and_void_at_the_ignore_index() -> None:
    sample = to_tensors(split_of(png(IMAGE), png(IDS))[0])
    assert sample["image"].shape == (3, 4, 6)
    assert sample["image"].dtype == torch.uint8
    assert (sample["name"], sample["image_id"]) == ("sample 0 of train (street_007)", 0)
    assert sample["semantic_map"].dtype == torch.int64
    assert sample["semantic_map"].tolist() == [[0, 1, 1, 0, IGNORE_INDEX, IGNORE_INDEX]] * 4


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (png(IMAGE), png(IDS + 2), r"label holds ids \[2, 3, 13\], allowed are 0\.\.1 .* and 11"),
        (png(IMAGE)[:60], png(IDS), "image cannot be decoded"),
        (b"not an image", png(IDS), "image cannot be decoded: no known image format$"),
        (None, png(IDS), "image is empty"),
        (png(IMAGE), png(IDS)[:50], "label cannot be decoded"),
        (png(IMAGE), png(IDS[:, :3]), r"label has shape \(4, 3\), expected .* \(4, 6\)"),
        (png(IMAGE), png(IMAGE), r"label has shape \(4, 6, 3\)"),
        (png(IMAGE), png(np.full((4, 6), 11, dtype=np.uint8)), "no pixel is labelled"),
        (png(IMAGE, turned=6), png(IDS[:, :3]), r"label has shape \(4, 3\), expected .* \(4, 6\)"),
    ],
    ids=range(9),
)
def test_a_bad_sample_is_reported_by_its_name(image: bytes | None, label: bytes, message: str) -> None:
    with pytest.raises(BadSample, match=message) as caught:
        split_of(image, label)[0]
    assert "sample 0 of train (street_007)" in str(caught.value)


def write_parquet(folder: Path, rows: datasets.Dataset) -> None:
    for split in ("train", "validation"):
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    datasets.config.HF_DATASETS_CACHE = folder / "cache"


def test_class_names_come_from_the_features(tmp_path: Path) -> None:
    """Labels may also be rows of class ids, with the names in the dataset's features."""
    names = datasets.List(datasets.List(datasets.ClassLabel(names=["sky", "road"])))
    write_parquet(tmp_path, rows_of("label", names, png(IMAGE), [[0, 1, 1, 0, 0, 1]] * 4))
    data = load_data(DatasetsOptions(path=str(tmp_path)), SEMANTIC)
    assert data.labels == ["sky", "road"]
    assert data.things == frozenset()
    assert data.train[0]["semantic_map"].tolist() == [[0, 1, 1, 0, 0, 1]] * 4


OBJECT = {
    "bbox": datasets.List(datasets.Value("float32")),
    "category": datasets.ClassLabel(names=["cat", "dog"]),
    "area": datasets.Value("float32"),
    "is_crowd": datasets.Value("bool"),
}
CAT = {"bbox": [1, 1, 2, 2], "category": 0, "area": 3.5, "is_crowd": False}
DOGS = {"bbox": [-1, 2, 4, 9], "category": 1, "area": None, "is_crowd": True}


def columns_of(objects: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [fields[key] for fields in objects] for key in OBJECT}


@pytest.mark.parametrize(
    ("feature", "objects"),
    [
        (datasets.List(OBJECT), [CAT, DOGS]),
        ({key: datasets.List(feature) for key, feature in OBJECT.items()}, columns_of([CAT, DOGS])),
    ],
    ids=["list of objects", "lists of fields"],
)
def test_objects_in_a_column(tmp_path: Path, feature: Any, objects: Any) -> None:
    write_parquet(tmp_path, rows_of("objects", feature, png(IMAGE), objects))
    data = load_data(DatasetsOptions(path=str(tmp_path)), DETECTION)
    assert (data.labels, data.things) == (["cat", "dog"], {0, 1})
    sample = data.train[0]
    assert sample["boxes"].tolist() == [[1, 1, 3, 3], [0, 2, 3, 4]], "what lies outside must be cut off"
    assert sample["boxes"].dtype == torch.float32
    assert sample["boxes"].canvas_size == (4, 6)
    assert sample["labels"].tolist() == [0, 1]
    assert sample["is_crowd"].tolist() == [False, True]
    assert sample["areas"].tolist() == [3.5, 6], "where no area is given, the box's counts"


@pytest.mark.parametrize(
    ("box_format", "box"), [("xywh", [1, 1, 2, 3]), ("xyxy", [1, 1, 3, 4]), ("cxcywh", [2, 2.5, 2, 3])]
)
def test_box_formats(box_format: str, box: list[float]) -> None:
    rows = rows_of("objects", datasets.List(OBJECT), png(IMAGE), [CAT | {"bbox": box}])
    assert with_objects(rows, box_format)[0]["boxes"].tolist() == [[1, 1, 3, 4]]


def test_a_picture_without_objects_is_no_bad_sample() -> None:
    rows = rows_of("objects", datasets.List(OBJECT), png(IMAGE), [])
    sample = to_tensors(with_objects(rows)[0])
    assert [tuple(sample[key].shape) for key in ("boxes", "labels", "is_crowd", "areas")] == [(0, 4), (0,), (0,), (0,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [7, 1, 2, 2]}, r"box \[7\.0, 1\.0, 2\.0, 2\.0\] \(xywh\) has no area in the picture of 6 x 4"),
        ({"bbox": [1, 1, 0, 2]}, "has no area"),
        ({"bbox": [1, 1, -1, 2]}, "has no area"),
        ({"bbox": [1, 1, float("nan"), 2]}, "has no area"),
        ({"bbox": [1, 1, 2]}, r"the box of an object is \[1\.0, 1\.0, 2\.0\], expected four numbers"),
        ({"category": 2}, "unknown category 2"),
        ({"category": -1}, "unknown category -1"),
        ({"category": None}, "unknown category None"),
        ({"bbox": None}, "the box of an object is None, expected four numbers"),
    ],
    ids=range(9),
)
def test_a_bad_object_is_reported_by_its_picture(change: dict[str, Any], message: str) -> None:
    numbers = OBJECT | {"category": datasets.Value("int64")}
    rows = rows_of("objects", datasets.List(numbers), png(IMAGE), [CAT, CAT | change])
    split = with_objects(rows, labels=["cat", "dog"])
    with pytest.raises(BadSample, match=message) as caught:
        split[0]
    assert "sample 0 of train (street_007)" in str(caught.value)


@pytest.mark.parametrize("feature", [datasets.List, datasets.LargeList], ids=["list", "large list"])
def test_categories_by_their_names(feature: type) -> None:
    """Names of another spelling are unknown."""
    named = OBJECT | {"category": datasets.Value("string")}
    objects = [CAT | {"category": "dog"}, CAT | {"category": "cat"}]
    rows = rows_of("objects", feature(named), png(IMAGE), objects)
    assert with_objects(rows, labels=["cat", "dog"])[0]["labels"].tolist() == [1, 0]
    rows = rows_of("objects", feature(named), png(IMAGE), [CAT | {"category": "Dog"}])
    with pytest.raises(BadSample, match="unknown category 'Dog'"):
        with_objects(rows, labels=["cat", "dog"])[0]


def test_boxes_that_are_no_pixels_are_refused() -> None:
    rows = rows_of("objects", datasets.List(OBJECT), png(IMAGE), [CAT | {"bbox": [0.5, 0.5, 0.4, 0.5]}])
    with pytest.raises(BadSample, match=r"street_007.*all lie in 0\.\.1: they must be in pixels"):
        with_objects(rows)[0]


@pytest.mark.parametrize(
    "feature",
    [datasets.Value("binary"), {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}],
    ids=["bytes", "bytes and path"],
)
def test_pictures_in_a_file_that_is_not_of_the_library(feature: Any) -> None:
    """As pandas and pyarrow write them: nothing says that they are pictures."""
    pictures = png(IMAGE), png(IDS)
    image, label = map(cell, pictures) if isinstance(feature, dict) else pictures
    features = datasets.Features({"image": feature, "label": feature})
    rows = datasets.Dataset.from_dict({"image": [image], "label": [label]}, features)
    assert labelled(rows)[0]["semantic_map"].tolist() == [[0, 1, 1, 0, IGNORE_INDEX, IGNORE_INDEX]] * 4


@pytest.mark.parametrize(
    ("kind", "label", "message"),
    [
        ("int64", [[0, 1], [0]], "the rows of the label have different lengths"),
        ("int64", [[0, None]], "label holds object values, expected whole numbers"),
        ("float64", [[0.5, 1.0]], "label holds float64 values, expected whole numbers"),
    ],
    ids=["ragged", "missing", "fractions"],
)
def test_ids_in_lists_must_be_a_rectangle_of_whole_numbers(kind: str, label: list[Any], message: str) -> None:
    feature = datasets.List(datasets.List(datasets.Value(kind)))
    rows = rows_of("label", feature, png(np.zeros((1, 2, 3), dtype=np.uint8)), label)
    with pytest.raises(BadSample, match=message) as caught:
        labelled(rows)[0]
    assert "street_007" in str(caught.value)


@pytest.mark.parametrize("turned", [0, 1, 9])
def test_orientations_that_say_nothing(turned: int) -> None:
    """Some cameras write 0."""
    assert split_of(png(IMAGE, turned), png(IDS))[0]["image"].size == (6, 4)


def test_a_file_beside_the_dataset(tmp_path: Path) -> None:
    """A cell may hold a path in place of bytes."""
    (tmp_path / "a.png").write_bytes(png(IMAGE))
    value = {"bytes": None, "path": str(tmp_path / "a.png")}
    assert np.array_equal(np.asarray(decode_picture(value, "refuse", "row 0")), IMAGE)
    with pytest.raises(BadSample, match=r"row 0: .*b\.png does not exist"):
        decode_picture(value | {"path": str(tmp_path / "b.png")}, "refuse", "row 0")


def test_lists_of_fields_must_be_equally_long() -> None:
    feature = {key: datasets.List(feature) for key, feature in OBJECT.items()}
    rows = rows_of("objects", feature, png(IMAGE), columns_of([CAT]) | {"category": [0, 1]})
    with pytest.raises(BadSample, match=r"street_007.*different lengths: .*'bbox': 1, 'category': 2"):
        with_objects(rows)[0]


class OneIsBad:
    """Four samples, of which number 2 is damaged."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, int]:
        if index == 2:
            raise BadSample("b.jpg is damaged")
        return {"index": index}


def test_a_bad_sample_is_refused_with_advice() -> None:
    split = CheckedSplit(OneIsBad(), skip=False)
    assert split[1] == {"index": 1}
    with pytest.raises(UserError, match=r"b\.jpg is damaged; repair it.*data\.bad_samples=skip") as caught:
        split[2]
    assert type(caught.value) is UserError, "the command line names no other class"


def test_a_bad_sample_is_skipped_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    split = CheckedSplit(OneIsBad(), skip=True)
    assert split.num_skipped == 0
    with caplog.at_level(logging.WARNING):
        assert [split[index] for index in (0, 1, 2, 3, 2)] == [{"index": 0}, {"index": 1}, None, {"index": 3}, None]
    assert [record.message for record in caplog.records] == ["skipped, 1 so far: b.jpg is damaged"]
    assert split.num_skipped == 1


def test_the_recipe_says_what_becomes_of_bad_samples(tmp_path: Path) -> None:
    write_parquet(tmp_path, rows_of("label", datasets.Image(), png(IMAGE)[:60], cell(png(IDS))))
    fields = {"path": str(tmp_path), "labels": ["black", "white"], "ignore_index": 11}
    with pytest.raises(UserError, match="street_007.*image cannot be decoded"):
        load_data(DatasetsOptions(**fields), SEMANTIC).train[0]
    data = load_data(DatasetsOptions(**fields, bad_samples="skip", max_validation_samples=1), SEMANTIC)
    assert data.train[0] is data.validation[0] is None
    assert (data.train.num_skipped, data.validation.num_skipped) == (1, 1)


def test_the_first_samples() -> None:
    data = load_data(SyntheticShapesOptions(max_train_samples=3, max_validation_samples=2), SEMANTIC)
    assert (len(data.train), len(data.validation)) == (3, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "./absent"}, r"there is no folder .*/absent; set data.path=FOLDER"),
        ({"train_split": "trian"}, "data.train_split=trian: .* has no such split, it has train, validation"),
        ({"test_split": "test"}, "data.test_split=test: .* has no such split, it has train, validation"),
        ({"label_column": "mask"}, "has no column 'mask', it has image, label"),
        ({"labels": None}, "the dataset does not name its classes: list them in data.labels"),
        ({"labels": ["one"]}, "data.labels must name 2 to 254 classes, got 1"),
        ({"labels": ["one", "two", "one"]}, "every class needs a name of its own, got several one"),
    ],
)
def test_what_cannot_be_found_is_said(dataset_folder: Path, fields: dict[str, Any], message: str) -> None:
    defaults = {"path": str(dataset_folder), "labels": ["black", "white"]}
    with pytest.raises(UserError, match=message):
        load_data(DatasetsOptions(**(defaults | fields)), SEMANTIC)


def test_a_task_that_a_format_has_no_samples_for() -> None:
    with pytest.raises(UserError, match=r"format=folders has no samples for task=object_detection; .*coco.* have"):
        load_data(FoldersOptions(path="unused"), DETECTION)


def test_a_folder_is_read(dataset_folder: Path) -> None:
    fields = {"labels": ["black", "white"], "max_validation_samples": 1, "test_split": "validation"}
    data = load_data(DatasetsOptions(path=str(dataset_folder), **fields), SEMANTIC)
    assert (len(data.train), len(data.validation), len(data.test)) == (1, 1, 2)
    assert data.labels == ["black", "white"]
    image, semantic_map = data.train[0]["image"], data.train[0]["semantic_map"]
    assert image[0, :, :28].max() == 0
    assert image[0, :, 28:].min() == 255
    assert torch.equal(semantic_map, torch.from_numpy(np.array(draw_rows(1)[0][1])).long())


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the CamVid copy beside the repository")
def test_camvid_has_the_labels_of_its_recipe(tmp_path: Path) -> None:
    datasets.config.HF_DATASETS_CACHE = tmp_path
    path = ROOT / "configuration/recipes/semantic_segmentation/camvid/upernet_vit-comer-s.yaml"
    data = load_data(load_recipe(path, [f"data.path={CAMVID}"]).data, SEMANTIC)
    assert (len(data.train), len(data.validation), len(data.labels)) == (367, 101, 11)
    sample = data.validation[0]
    ids = sample["semantic_map"]
    assert sample["image"].shape[1:] == ids.shape == (360, 480)
    assert set(ids.unique().tolist()) <= {*range(11), IGNORE_INDEX}
    road = data.labels.index("Road")
    assert (ids[300:] == road).float().mean() > 0.5, "the street must lie at the bottom"


def test_shapes_depend_on_seed_and_index_alone() -> None:
    def pixels(seed: int, index: int) -> list[bytes]:
        return [picture.tobytes() for picture in shapes.draw_sample(seed, index, 64)]

    first = pixels(0, 3)
    np.random.default_rng().random(10)
    assert pixels(0, 3) == first
    assert pixels(0, 4) != first
    assert pixels(1, 3) != first


def test_colour_does_not_reveal_the_class() -> None:
    colors, counts = defaultdict(list), np.zeros(len(shapes.LABELS))
    for index in range(400):
        image, mask = (np.asarray(picture) for picture in shapes.draw_sample(0, index, 48))
        counts += np.bincount(mask.ravel(), minlength=len(counts))
        for label in np.unique(mask):
            colors[label].append(image[mask == label].mean(0))
    assert (counts / counts.sum() > 0.03).all(), "every class must be worth learning"
    means = np.array([np.mean(colors[label], axis=0) for label in sorted(colors)])
    assert np.ptp(means, axis=0).max() < 20, f"of 255; mean colours of the classes: {means.round()}"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_shapes_serve_every_task(task: Task) -> None:
    data = load_data(SyntheticShapesOptions(test_split="test"), task)
    names = {split[0]["name"] for split in (data.train, data.validation, data.test)}
    assert len(names) == 3, "no split may hold another's samples"
    assert {data.labels[thing] for thing in data.things} == (set() if task == SEMANTIC else set(shapes.LABELS[1:]))


def truths(index: int) -> Callable[[str], Sample]:
    samples = {name: to_tensors(ShapesSplit(0, 100, task.columns)[index]) for name, task in TASKS.items()}
    assert all(torch.equal(sample["image"], samples[SEMANTIC.name]["image"]) for sample in samples.values())
    return lambda name: samples[name]


def test_the_tasks_tell_the_same_of_a_picture() -> None:
    counts = set()
    for index in range(30):
        sample = truths(index)
        instances, panoptic = sample("instance_segmentation"), sample("panoptic_segmentation")
        semantic_map = sample(SEMANTIC.name)["semantic_map"]
        painted = torch.zeros_like(semantic_map)
        for mask, label in zip(instances["masks"], instances["labels"], strict=True):
            painted[mask] = label + 1
        assert torch.equal(painted, semantic_map)
        assert torch.equal(panoptic["labels"][panoptic["segment_map"]], semantic_map)
        assert torch.equal(instances["boxes"], masks_to_boxes(instances["masks"]) + torch.tensor([0, 0, 1, 1]))
        assert torch.equal(instances["areas"], instances["masks"].flatten(1).sum(1).float())
        assert instances["masks"].sum(0).max() == 1, "no pixel may belong to two shapes"
        assert torch.equal(sample("object_detection")["boxes"], instances["boxes"])
        assert "masks" not in sample("object_detection")
        counts.add(len(instances["labels"]))
    assert counts == {1, 2}


def test_a_hidden_shape_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_silhouette", lambda rng, label, size: np.ones((size, size), dtype=bool))
    assert all(len(shapes.draw_shapes(0, index, 8)[1]) == 1 for index in range(10))


def test_shapes_are_drawn_as_ever() -> None:
    """Measured numbers of earlier runs stay comparable only while a seed draws the same pictures."""
    image, mask = shapes.draw_sample(0, 0, 64)
    assert hashlib.sha256(mask.tobytes()).hexdigest().startswith("bb300c2ef1dc68f6")
    np.testing.assert_allclose(np.asarray(image).mean((0, 1)), [133.05, 134.05, 134.82], atol=0.02)


def test_deep_pictures(tmp_path: Path) -> None:
    """16 bits become 8 as they are seen; numbers of 32 bits are no colours."""
    levels = np.array([[0, 256 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.asarray(read_rgb(tmp_path / "deep.png", "stored"))[0, :, 0].tolist() == [0, 100, 255]
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(UserError, match=r"float.tiff has no colours: its mode is F, 32 bits a pixel"):
        read_rgb(tmp_path / "float.tiff", "stored")
