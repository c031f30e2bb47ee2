"""A look at the data before the first step: what is not there is said, and a run without anything to learn refused."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from dense_prediction.data.annotations.semantic_maps import SemanticIds
from dense_prediction.data.formats.coco import CocoOptions
from dense_prediction.data.formats.coco_panoptic import CocoPanopticOptions
from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.formats.folders import FoldersOptions
from dense_prediction.data.formats.synthetic_shapes import SyntheticShapesOptions
from dense_prediction.data.formats.voc import VocOptions
from dense_prediction.data.inspection import looking
from dense_prediction.data.inspection.findings import check, describe
from dense_prediction.data.inspection.looking import Inspection, inspect
from dense_prediction.data.loading import load_data
from dense_prediction.data.options import DataOptions
from dense_prediction.data.samples import IGNORE_INDEX, VOID
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.tasks import Task


SEMANTIC, DETECTION = TASKS["semantic_segmentation"], TASKS["object_detection"]
INSTANCES, PANOPTIC = TASKS["instance_segmentation"], TASKS["panoptic_segmentation"]
KEYS = ("train_split", "validation_split")
SIDE = 8

Write = Callable[..., DataOptions]


def looked(options: DataOptions, task: Task, *keys: str) -> Inspection:
    """What a training would find, after the checks."""
    data = load_data(options, task)
    found = inspect(options, task, data, keys or KEYS)
    check(found, data.labels)
    return found


def warnings_of(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


def stripes(*values: int) -> np.ndarray:
    """A map of columns of these ids."""
    return np.repeat(np.array([values], dtype=np.uint8), SIDE, axis=0).repeat(SIDE // len(values), axis=1)


# Label maps, in folders, in VOC's and in rows


def picture(side: int = SIDE) -> Image.Image:
    return Image.new("RGB", (side, side))


def write_folders(folder: Path, train: list[np.ndarray], validation: list[np.ndarray], **fields: Any) -> DataOptions:
    for split, maps in (("train", train), ("validation", validation)):
        for part in ("images", "masks"):
            (folder / part / split).mkdir(parents=True)
        for index, ids in enumerate(maps):
            picture().save(folder / "images" / split / f"{index:04d}.png")
            Image.fromarray(ids).save(folder / "masks" / split / f"{index:04d}.png")
    places = {part: {split: f"{part}/{split}" for split in ("train", "validation")} for part in ("images", "masks")}
    return FoldersOptions(**{"path": str(folder), "labels": ["background", "crack"]} | places | fields)


def write_voc_maps(folder: Path, train: list[np.ndarray], validation: list[np.ndarray], **fields: Any) -> DataOptions:
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for split, maps in (("train", train), ("val", validation)):
        for index, ids in enumerate(maps):
            picture().save(folder / "JPEGImages" / f"{split}_{index}.jpg")
            Image.fromarray(ids).save(folder / "SegmentationClass" / f"{split}_{index}.png")
        names = "\n".join(f"{split}_{index}" for index in range(len(maps)))
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    return VocOptions(
        **{"path": str(folder), "labels": ["background", "crack"], "validation_split": "val"} | fields,
    )


def write_rows(folder: Path, train: list[np.ndarray], validation: list[np.ndarray], **fields: Any) -> DataOptions:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    for split, maps in (("train", train), ("validation", validation)):
        columns = {"image": [picture() for _ in maps], "label": [Image.fromarray(ids) for ids in maps]}
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    return DatasetsOptions(**{"path": str(folder), "labels": ["background", "crack"]} | fields)


def write_stream(folder: Path, train: list[np.ndarray], validation: list[np.ndarray], **fields: Any) -> DataOptions:
    return write_rows(folder, train, validation, streaming=True, **fields)


WITH_MAPS = pytest.mark.parametrize(
    "write", [write_folders, write_voc_maps, write_rows, write_stream], ids=lambda write: write.__name__
)


@WITH_MAPS
def test_black_and_white_masks_are_read_as_two_classes(tmp_path: Path, write: Write) -> None:
    """By one rule for all splits, also for a mask that is all black or all white; it is said and can be read off."""
    maps = [stripes(0, 255), stripes(0), stripes(255)]
    options = write(tmp_path, maps, [stripes(255, 0)])
    found = looked(options, SEMANTIC)
    assert found.options == replace(options, foreground_255=True)
    data = load_data(found.options, SEMANTIC)
    assert [sorted(data.train[i]["semantic_map"].unique().tolist()) for i in range(3)] == [[0, 1], [0], [1]]
    assert data.validation[0]["semantic_map"][0].tolist() == [1] * 4 + [0] * 4
    assert found.facts["train_split"].by_class == {"background": 96, "crack": 96}
    (line,) = [line for line in describe(found, options, data.labels) if "foreground_255" in line]
    assert "255 is read as the class 'crack' in all splits" in line
    assert not [line for line in describe(found, found.options, data.labels) if "foreground_255" in line]


def test_a_bad_mask_does_not_change_what_255_is(tmp_path: Path) -> None:
    """Of which nothing can be read in any case; an own id for void does not either."""
    maps = [stripes(0, 255), stripes(0, 7), stripes(0, 255, 11, 11)]
    options = write_folders(tmp_path, maps, [stripes(0, 255)], bad_samples="skip", ignore_index=11)
    found = looked(options, SEMANTIC)
    assert found.options == replace(options, foreground_255=True)
    assert (found.facts["train_split"].bad, found.facts["train_split"].by_class) == (
        1,
        {"background": 48, "crack": 48},
    )


@WITH_MAPS
def test_255_stays_void_beside_other_ids(tmp_path: Path, write: Write) -> None:
    options = write(tmp_path, [stripes(0, 255), stripes(0, 1)], [stripes(0, 1, 255, 255)])
    found = looked(options, SEMANTIC)
    assert found.options == options
    sample = load_data(found.options, SEMANTIC).validation[0]
    assert sorted(sample["semantic_map"].unique().tolist()) == [0, 1, IGNORE_INDEX]


@WITH_MAPS
@pytest.mark.parametrize(
    ("train", "validation", "fields", "message"),
    [
        (
            [stripes(0, 128, 255, 0)],
            [stripes(0, 1)],
            {},
            r"train.* hold the ids 0, 128, 255 .*has 128\), allowed are 0\.\.1 \(data.labels\) and 255",
        ),
        (
            [stripes(0, 1, 2, 0)],
            [stripes(0, 1)],
            {},
            r"hold the ids 0, 1, 2 .*name the class of every id in data.labels",
        ),
        (
            [stripes(0, 255)],
            [stripes(0, 255)],
            {"labels": ["background", "crack", "hole"]},
            r"one class, background; .*hold the ids 0, 255 .*allowed are 0\.\.2 .*with two names in data.labels, 255",
        ),
        (
            [stripes(0, 255)],
            [stripes(0, 255)],
            {"foreground_255": False},
            "nothing to be learnt: .*data.foreground_255=tr",
        ),
        (
            [stripes(0, 255)],
            [stripes(0, 1)],
            {},
            r"validation|val.*hold the ids 0, 1 .*allowed are 0 and 255 \(data.for",
        ),
        (
            [stripes(0, 1)],
            [stripes(0, 255)],
            {},
            r"val.*nothing to be measured: .*one class, background; .*ids 0, 255",
        ),
        ([stripes(255)], [stripes(0, 1)], {}, "nothing to be learnt: no pixel is of a class .*ids 255"),
        ([stripes(0, 1)], [stripes(255)], {}, "val.*nothing to be measured: no pixel is of a class"),
        ([stripes(0, 255)], [stripes(1, 2)], {"reduce_labels": True}, "nothing to be learnt: .*ids from 1 on"),
        ([stripes(0)], [stripes(0, 1)], {}, "nothing to be learnt: all labelled pixels are of one class, background"),
    ],
    ids=range(10),
)
def test_maps_of_other_ids_are_refused(
    tmp_path: Path,
    write: Write,
    train: list[np.ndarray],
    validation: list[np.ndarray],
    fields: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        looked(write(tmp_path, train, validation, **fields), SEMANTIC)


def test_one_name_for_two_classes_is_refused(tmp_path: Path) -> None:
    options = write_folders(tmp_path, [stripes(0, 1)], [stripes(0, 1)], labels=["crack"])
    with pytest.raises(UserError, match=r"got 1 \(crack\): .* data.labels=\[background, crack\]"):
        load_data(options, SEMANTIC)


def test_255_as_a_class_needs_two_classes(tmp_path: Path) -> None:
    options = write_folders(
        tmp_path, [stripes(0, 255)], [stripes(0, 255)], foreground_255=True, labels=["a", "b", "c"]
    )
    with pytest.raises(UserError, match="data.foreground_255=true is for two classes .* got 3"):
        load_data(options, SEMANTIC)


def test_masks_of_one_bit_are_two_classes(tmp_path: Path) -> None:
    options = write_folders(tmp_path, [stripes(0, 1).astype(bool)], [stripes(0, 1).astype(bool)])
    found = looked(options, SEMANTIC)
    assert found.options == options
    assert found.facts["train_split"].by_class == {"background": 32, "crack": 32}


def test_a_mask_that_breaks_the_rule_is_a_bad_sample(tmp_path: Path) -> None:
    """A look at some masks may miss the one that has a 1: then it is named, and never read otherwise than the rest."""
    options = write_folders(tmp_path, [stripes(0, 1)], [stripes(0, 1)], foreground_255=True)
    with pytest.raises(
        UserError, match=r"0000.png: label holds ids \[1\], allowed are 0 and 255 \(data.foreground_255"
    ):
        load_data(options, SEMANTIC).train[0]


def test_absent_classes_and_void_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = ["road", "sky", "car", "cow"]
    maps = [np.array([[0, 1, 255, 255, 255, 255, 255, 255]] * SIDE, dtype=np.uint8)]
    looked(write_folders(tmp_path, maps, [stripes(0, 2)], labels=labels), SEMANTIC)
    text = warnings_of(caplog)
    assert "data.train_split=train: no pixel of car, cow\n" in text
    assert "data.validation_split=validation: no pixel of sky, cow\n" in text
    assert "data.train_split=train: 75% of the pixels are void" in text
    assert "validation has 32 pixels (car 32), of which the training split has nothing: they cannot be learnt" in text


def test_well_formed_maps_warn_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = write_folders(tmp_path, [stripes(0, 1)] * 3, [stripes(0, 1, 255, 1)])
    found = looked(options, SEMANTIC)
    assert not caplog.records
    assert list(describe(found, options, ["background", "crack"])) == [
        "data.train_split=train: looked at all 3 masks: 2 of 2 classes, 0.0% void",
        "data.validation_split=validation: looked at all 1 masks: 2 of 2 classes, 25.0% void",
    ]


def test_a_sample_from_all_over_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many masks, or as many as there is time for; and it is said."""
    maps = [stripes(0, 0)] * 15 + [stripes(0, 1)] * 15
    options = write_folders(tmp_path, maps, [stripes(0, 1)])
    monkeypatch.setattr(looking, "MOST_FILES", 10)
    found = looked(options, SEMANTIC)
    assert (found.facts["train_split"].looked_at, found.facts["train_split"].is_whole) == (10, False)
    assert 0 < found.facts["train_split"].by_class["crack"] < 10 * SIDE * SIDE / 2
    assert "looked at 10 of 30 masks" in next(describe(found, options, ["background", "crack"]))
    data, clock = load_data(options, SEMANTIC), iter(range(100))
    ids = SemanticIds.of(options, data.labels)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert len(looking.look(data.train, skip=False, seconds=4, ids=ids).glances) == 5


def test_a_class_that_is_not_seen_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as there is time."""
    monkeypatch.setattr(looking, "MOST_FILES", 2)
    options = write_folders(tmp_path, [stripes(0)] * 29 + [stripes(0, 1)], [stripes(0, 1)] * 5)
    found = looked(options, SEMANTIC).facts
    assert found["train_split"].by_class["crack"] == SIDE * SIDE / 2
    assert found["train_split"].looked_at > 2
    assert found["validation_split"].looked_at == 2


def test_bad_masks_take_no_more_time_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = write_folders(tmp_path, [stripes(0, 9)] * 9, [stripes(0, 1)], bad_samples="skip")
    for mask in (tmp_path / "masks" / "train").iterdir():
        mask.write_bytes(b"no picture")
    data, clock = load_data(options, SEMANTIC), iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert looking.look(data.train, skip=True, seconds=4).bad == 5


def test_of_a_part_nobody_is_sure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A class that some masks do not show may be in the others."""
    options = write_folders(tmp_path, [stripes(0)] * 9 + [stripes(0, 1)], [stripes(0, 1)])
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(looking, "SECONDS", 2)
    looked(options, SEMANTIC)
    assert "no pixel of crack (looked at 2 of 10 masks)" in warnings_of(caplog)


def test_of_a_stream_the_first_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows what comes later."""
    monkeypatch.setattr(looking, "MOST_FILES", 2)
    facts = looked(write_object_stream(tmp_path, [[]] * 5, GOOD), DETECTION).facts["train_split"]
    assert (facts.pictures, facts.looked_at, facts.is_whole) == (None, 2, False)
    assert "nothing to be learnt was seen (looked at 2 of a stream)" in warnings_of(caplog)


def test_bad_samples_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maps = [stripes(0, 1), stripes(0, 7), stripes(0, 1)]
    options = write_folders(tmp_path, maps, [stripes(0, 1)], bad_samples="skip")
    (tmp_path / "masks" / "train" / "0002.png").write_bytes(b"no picture")
    facts = looked(options, SEMANTIC).facts["train_split"]
    assert (facts.looked_at, facts.bad, facts.unknown[0]) == (3, 2, [7])
    assert facts.by_class == {"background": 32, "crack": 32}
    assert "2 of 3 samples are bad and will be skipped" in warnings_of(caplog)
    with pytest.raises(UserError, match="0002.png cannot be decoded"):
        looked(replace(options, bad_samples="refuse"), SEMANTIC)


def test_the_first_samples_alone_are_looked_at(tmp_path: Path) -> None:
    options = write_folders(tmp_path, [stripes(0, 1), stripes(7, 7)], [stripes(0, 1)], max_train_samples=1)
    assert looked(options, SEMANTIC).facts["train_split"].pictures == 1


def test_a_look_changes_nothing_that_is_trained(tmp_path: Path) -> None:
    """Neither the order of a stream, nor what is drawn at random."""
    maps = [stripes(0, 1, value, value) for value in (0, 1)] * 20
    options = write_stream(tmp_path, maps, maps[:3])
    data, fresh = load_data(options, SEMANTIC), load_data(options, SEMANTIC)
    folders = write_folders(tmp_path / "folders", maps, maps[:3])
    before, state = torch.get_rng_state(), str(np.random.get_state(legacy=False))
    inspect(options, SEMANTIC, data, KEYS)
    inspect(folders, SEMANTIC, load_data(folders, SEMANTIC), KEYS)
    assert torch.equal(torch.get_rng_state(), before)
    assert str(np.random.get_state(legacy=False)) == state
    streams = [split.shuffled(0) for split in (data.train, fresh.train)]
    for position in range(45):
        first, second = (stream[position]["semantic_map"] for stream in streams)
        assert torch.equal(first, second)
    assert torch.equal(data.validation[0]["semantic_map"], fresh.validation[0]["semantic_map"])


def test_drawn_shapes_are_not_looked_at() -> None:
    assert looked(SyntheticShapesOptions(), SEMANTIC).facts == {}


# Objects, in COCO's files, in VOC's and in rows

CATEGORIES = ["cat", "cow", "dog"]
BOX = [1, 1, 4, 4]


def coco_file(objects: list[list[tuple[str, int]]], categories: list[str]) -> dict[str, Any]:
    """Each picture's objects, as pairs of a category and iscrowd."""
    ids = {name: 5 * place + 2 for place, name in enumerate(categories)}
    flat = [(image, name, crowd) for image, listed in enumerate(objects) for name, crowd in listed]
    return {
        "images": [
            {"id": image, "file_name": f"{image}.png", "height": SIDE, "width": SIDE} for image in range(len(objects))
        ],
        "categories": [{"id": number, "name": name, "isthing": 1} for name, number in ids.items()],
        "annotations": [
            {"id": place, "image_id": image, "category_id": ids[name], "bbox": BOX, "iscrowd": crowd, "area": 16}
            | {"segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
            for place, (image, name, crowd) in enumerate(flat)
        ],
    }


def write_coco(folder: Path, train: Any, validation: Any, names: Any = (CATEGORIES, CATEGORIES), **fields: Any) -> Any:
    (folder / "pictures").mkdir()
    for image in range(max(len(train), len(validation))):
        picture().save(folder / "pictures" / f"{image}.png")
    for split, objects, categories in zip(("train", "validation"), (train, validation), names, strict=True):
        (folder / f"{split}.json").write_text(json.dumps(coco_file(objects, categories)))
    places = {"images": dict.fromkeys(("train", "validation"), "pictures")}
    places["annotations"] = {split: f"{split}.json" for split in ("train", "validation")}
    return CocoOptions(**{"path": str(folder)} | places | fields)


def write_panoptic(
    folder: Path, train: Any, validation: Any, names: Any = (CATEGORIES, CATEGORIES), **fields: Any
) -> Any:
    """Every object is a stripe, and what lies beside is void."""
    (folder / "pictures").mkdir()
    for split, objects, categories in zip(("train", "validation"), (train, validation), names, strict=True):
        (folder / split).mkdir()
        content = coco_file(objects, categories)
        ids = {category["name"]: category["id"] for category in content["categories"]}
        content["annotations"] = []
        for image, listed in enumerate(objects):
            picture().save(folder / "pictures" / f"{image}.png")
            colors = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
            for place in range(len(listed)):
                colors[place, :, 0] = place + 1
            Image.fromarray(colors).save(folder / split / f"{image}.png")
            segments = [
                {"id": place + 1, "category_id": ids[name], "iscrowd": crowd}
                for place, (name, crowd) in enumerate(listed)
            ]
            content["annotations"].append(
                {"image_id": image, "file_name": f"{image}.png", "segments_info": segments},
            )
        (folder / f"{split}.json").write_text(json.dumps(content))
    places = {"images": dict.fromkeys(("train", "validation"), "pictures")}
    places["annotations"] = {split: f"{split}.json" for split in ("train", "validation")}
    places["masks"] = {split: split for split in ("train", "validation")}
    return CocoPanopticOptions(**{"path": str(folder)} | places | fields)


def write_voc(folder: Path, train: Any, validation: Any, names: Any = None, **fields: Any) -> DataOptions:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    for split, objects in (("train", train), ("val", validation)):
        for image, listed in enumerate(objects):
            text = "".join(
                f"<object><name>{name}</name><difficult>{crowd}</difficult>{box}</object>" for name, crowd in listed
            )
            (folder / "Annotations" / f"{split}{image}.xml").write_text(f"<annotation>{text}</annotation>")
            picture().save(folder / "JPEGImages" / f"{split}{image}.jpg")
        listed = "\n".join(f"{split}{image}" for image in range(len(objects)))
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(listed)
    return VocOptions(**{"path": str(folder), "labels": CATEGORIES, "validation_split": "val"} | fields)


def write_object_rows(folder: Path, train: Any, validation: Any, names: Any = None, **fields: Any) -> DataOptions:
    fields_of = {"bbox": datasets.List(datasets.Value("float32")), "category": datasets.ClassLabel(names=CATEGORIES)}
    fields_of["iscrowd"] = datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(), "objects": datasets.List(fields_of)})
    for split, objects in (("train", train), ("validation", validation)):
        rows = [[{"bbox": BOX, "category": name, "iscrowd": crowd} for name, crowd in listed] for listed in objects]
        columns = {"image": [picture() for _ in rows], "objects": rows}
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    return DatasetsOptions(**{"path": str(folder)} | fields)


def write_object_stream(folder: Path, train: Any, validation: Any, names: Any = None, **fields: Any) -> DataOptions:
    return write_object_rows(folder, train, validation, streaming=True, **fields)


WRITERS = [write_coco, write_panoptic, write_voc, write_object_rows, write_object_stream]
WITH_OBJECTS = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)


def task_of(write: Write) -> Task:
    return PANOPTIC if write is write_panoptic else DETECTION


GOOD = [[("cat", 0), ("dog", 0)], [("cow", 0)], []]


@WITH_OBJECTS
def test_objects_are_counted_by_class(tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """All of them, and the most in one picture; crowds are counted by themselves."""
    objects = [*GOOD[:2], [("cat", 0), ("cat", 0), ("cat", 0), ("dog", 1)]]
    found = looked(write(tmp_path, objects, GOOD[:2]), task_of(write))
    facts = found.facts["train_split"]
    assert facts.by_class == {"cat": 4, "cow": 1, "dog": 1}
    assert (facts.crowds, facts.most, facts.unit, facts.left_out) == (1, 3, "objects", {})
    assert (facts.pictures, facts.is_whole) == (3, True)
    assert not caplog.records
    assert json.loads(json.dumps(facts.plain()))["by_class"] == facts.by_class


@WITH_OBJECTS
def test_one_class_of_objects_is_enough(tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    looked(write(tmp_path, GOOD, GOOD, labels=["cow"]), task_of(write))
    assert not caplog.records


@WITH_OBJECTS
def test_a_class_that_the_recipe_leaves_out(tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """Its objects go, the pictures stay, and one line says how many."""
    options = write(tmp_path, GOOD, GOOD, labels=["dog", "cat"])
    task = task_of(write)
    found = looked(options, task)
    data = load_data(options, task)
    assert [data.train[index]["labels"].tolist() for index in range(2)] == [[1, 0], []]
    if write is write_panoptic:
        assert data.train[0]["segment_map"][0, 0] == 0
        assert data.train[1]["segment_map"].unique().tolist() == [VOID], "what is left out is void"
    else:
        assert data.train[1]["boxes"].shape == (0, 4)
    (line, _) = describe(found, options, data.labels)
    assert line.endswith("2 objects of 2 of 2 classes, at most 2 in a picture, left out 1 object (cow 1)")
    assert not caplog.records


@WITH_OBJECTS
def test_nothing_but_what_is_left_out(tmp_path: Path, write: Write) -> None:
    options = write(tmp_path, GOOD, [[("cow", 0)] * 5] * 5, labels=["dog", "cat"])
    message = r"val.*nothing to be measured: 25 objects \(cow 25\) are no class, those are dog, cat \(data.labels\)"
    with pytest.raises(UserError, match=message):
        looked(options, task_of(write))


@WITH_OBJECTS
@pytest.mark.parametrize("part", ["learnt", "measured"])
def test_nothing_but_crowds(tmp_path: Path, write: Write, part: str) -> None:
    """As some exporters mark all objects; one key takes them for what they are."""
    crowds = [[("cat", 1)] * 4 + [("dog", 1)]] * 5
    options = write(tmp_path, *((crowds, GOOD) if part == "learnt" else (GOOD, crowds)))
    with pytest.raises(UserError, match=f"nothing to be {part}: all 25 objects are .* set data.crowds=objects"):
        looked(options, task_of(write))
    options = replace(options, crowds="objects")
    facts = looked(options, task_of(write)).facts["train_split" if part == "learnt" else "validation_split"]
    assert (facts.by_class["cat"], facts.crowds) == (20, 0)
    data = load_data(options, task_of(write))
    sample = (data.train if part == "learnt" else data.validation)[0]
    assert sample["is_crowd"].tolist() == [False] * 5


@WITH_OBJECTS
def test_nothing_at_all(tmp_path: Path, write: Write) -> None:
    options = write(tmp_path, [[], []], GOOD)
    with pytest.raises(UserError, match=r"nothing to be learnt: no object is annotated \(looked at all 2 pictures\)"):
        looked(options, task_of(write))


@WITH_OBJECTS
def test_classes_without_an_object(tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    looked(write(tmp_path, [[("cat", 0), ("cow", 1)]], [[("dog", 0)]]), task_of(write))
    text = warnings_of(caplog)
    assert "train_split=train: no object of cow, dog" in text
    assert ": no object of cat, cow" in text
    assert "has 1 object (dog 1), of which the training split has nothing" in text


@pytest.mark.parametrize("write", [write_coco, write_panoptic], ids=lambda write: write.__name__)
def test_a_category_of_the_validation_alone(tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """It is named before the first step, its objects are left out, and the first evaluation does not fail."""
    options = write(tmp_path, [[("cat", 0)]], [[("cat", 0), ("yak", 0)], [("yak", 0)]], (["cat"], ["cat", "yak"]))
    looked(options, task_of(write))
    assert "validation: 2 objects (yak 2) of categories that the training split does not name" in warnings_of(caplog)
    data = load_data(options, task_of(write))
    assert [data.validation[index]["labels"].tolist() for index in range(2)] == [[0], []]


@pytest.mark.parametrize("write", [write_coco, write_panoptic, write_voc], ids=lambda write: write.__name__)
def test_a_category_of_another_spelling(tmp_path: Path, write: Write) -> None:
    names = ([*CATEGORIES], ["Cat "])
    options = write(tmp_path, GOOD, [[("Cat ", 0)]], names)
    with pytest.raises(UserError, match="val.*: the category 'Cat ?' .1. is no class, but 'cat' is: spell both alike"):
        looked(options, task_of(write))


def test_objects_of_no_category_are_no_class(tmp_path: Path) -> None:
    """Whatever stands in the file, the look does not end in a traceback: the sample is reported when it is read."""
    options = write_coco(tmp_path, GOOD, GOOD)
    content = json.loads((tmp_path / "train.json").read_text())
    changes = [{"category_id": [1]}, {"category_id": 99}, {"category_id": None}, {"iscrowd": "yes"}, {"image_id": 0}]
    base = content["annotations"][0]
    content["annotations"] += [base | {"id": 50 + place} | change for place, change in enumerate(changes)]
    (tmp_path / "train.json").write_text(json.dumps(content))
    facts = looked(options, DETECTION).facts["train_split"]
    assert facts.by_class == {"cat": 3, "cow": 1, "dog": 1}


def test_instances_are_looked_at_as_boxes_are(tmp_path: Path) -> None:
    options = write_coco(tmp_path, GOOD, GOOD, labels=["dog", "cat"])
    assert looked(options, INSTANCES).facts["train_split"].left_out == {"cow": 1}
    assert load_data(options, INSTANCES).train[0]["masks"].shape == (2, SIDE, SIDE)


def test_all_of_coco_is_looked_at_in_seconds(tmp_path: Path) -> None:
    """118,000 pictures with 860,000 objects."""
    options = write_coco(tmp_path, GOOD, GOOD)
    content = json.loads((tmp_path / "train.json").read_text())
    images = [content["images"][0] | {"id": number} for number in range(118_000)]
    one = content["annotations"][0] | {"segmentation": []}
    content |= {"images": images, "annotations": [one | {"id": i, "image_id": i % 118_000} for i in range(860_000)]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = load_data(options, DETECTION)
    started = time.process_time()
    facts = inspect(options, DETECTION, data, ["train_split"]).facts["train_split"]
    assert time.process_time() - started < 8, "about one second"
    assert (facts.is_whole, facts.total, facts.most) == (True, 860_000, 8)


def test_class_labels_are_chosen_by_their_names(tmp_path: Path) -> None:
    """And where the recipe gives the ids other names, by their places."""
    options = write_object_rows(tmp_path, GOOD, GOOD, labels=["dog", "cat"])
    assert load_data(options, DETECTION).train[0]["labels"].tolist() == [1, 0]
    renamed = replace(options, labels=["Katze", "Kuh", "Hund"])
    assert load_data(renamed, DETECTION).train[0]["labels"].tolist() == [0, 2]


def test_a_map_has_all_classes_of_its_column(tmp_path: Path) -> None:
    names = datasets.List(datasets.List(datasets.ClassLabel(names=CATEGORIES)))
    features = datasets.Features({"image": datasets.Image(), "label": names})
    for split in ("train", "validation"):
        columns = {"image": [picture()], "label": [stripes(0, 1).tolist()]}
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    datasets.config.HF_DATASETS_CACHE = tmp_path / "cache"
    with pytest.raises(UserError, match=r"a map has all its classes, in the order of their ids: cat, cow, dog"):
        load_data(DatasetsOptions(path=str(tmp_path), labels=["cat", "dog"]), SEMANTIC)
    facts = looked(DatasetsOptions(path=str(tmp_path)), SEMANTIC).facts["train_split"]
    assert facts.by_class == {"cat": 32, "cow": 32, "dog": 0}
    assert asdict(facts)["unit"] == "pixels"
