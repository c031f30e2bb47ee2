"""YOLO's data sets, laid out as the tools' documentation and exports have them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dense_prediction.data.formats.yolo import YoloOptions
from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS


HEIGHT, WIDTH = 20, 40
DETECTION, INSTANCES = TASKS["object_detection"], TASKS["instance_segmentation"]
BOX = "1 0.5 0.25 0.25 0.5"
POLYGON = "0 0.25 0.5 0.75 0.5 0.75 1.0 0.25 1.0"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def draw(path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path, **options)


def ultralytics(folder: Path) -> YoloOptions:
    """https://docs.ultralytics.com/datasets/detect and https://docs.ultralytics.com/datasets/segment"""
    write(
        folder / "coco8.yaml",
        "path: ../datasets/coco8 # dataset root dir\ntrain: images/train # train images (relative to 'path')\n"
        "val: images/val\ntest: # test images (optional)\n\nnames:\n  0: person\n  1: no\n",
    )
    return pictures(folder, "{kind}/{split}", "val")


def roboflow(folder: Path) -> YoloOptions:
    """https://roboflow.com/formats/yolo, and what its exports hold beside that."""
    write(
        folder / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['person', 'no']\n\n"
        "roboflow:\n  workspace: mine\n  license: CC BY 4.0\n",
    )
    return pictures(folder, "{split}/{kind}", "valid")


def cvat(folder: Path) -> YoloOptions:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-yolo-ultralytics"""
    write(
        folder / "data.yaml",
        "path:  ./ # dataset root dir\ntrain: train.txt  # train images (relative to 'path')\nval: val.txt\n\n"
        "names:\n  0: person\n  1: no\n",
    )
    for split in ("train", "val"):
        write(folder / f"{split}.txt", f"images/{split}/a.png\r\nimages/{split}/empty.jpg\r\n")
    return pictures(folder, "{kind}/{split}", "val")


def beside(folder: Path) -> YoloOptions:
    """Text files in the pictures' own folder, as the first YOLO tools had them."""
    write(folder / "dataset.yaml", "train: /content/mine/train\nval: val\nnames: [person, no]\n")
    return pictures(folder, "{split}", "val")


def pictures(folder: Path, places: str, validation: str) -> YoloOptions:
    for split in ("train", validation):
        images, labels = (folder / places.format(kind=kind, split=split) for kind in ("images", "labels"))
        draw(images / "a.png")
        draw(images / "empty.jpg")
        write(images / ".DS_Store", "")
        write(labels / "a.txt", f"{BOX}\n{POLYGON}\r\n\n{BOX}\n")
    return YoloOptions(path=str(folder))


LAYOUTS = [ultralytics, roboflow, cvat, beside]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout(layout: Any, tmp_path: Path) -> None:
    data = load_data(layout(tmp_path), DETECTION)
    assert (data.labels, data.things, data.category_ids) == (["person", "no"], {0, 1}, [0, 1])
    for split in (data.train, data.validation):
        assert len(split) == 2
        assert [Path(sample["name"]).name for sample in split] == ["a.png", "empty.jpg"]
        assert split[0]["boxes"].tolist() == [[15, 0, 25, 10], [10, 10, 30, 20]]
        assert split[0]["labels"].tolist() == [1, 0]
        assert split[1]["boxes"].shape == (0, 4), "a picture without a text file shows nothing"
        assert split.glance(0).objects == ["no", "person"]


def test_polygons_are_masks(tmp_path: Path) -> None:
    options = ultralytics(tmp_path)
    write(tmp_path / "labels" / "train" / "a.txt", POLYGON)
    sample = load_data(options, INSTANCES).train[0]
    expected = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    expected[0, 10:, 10:30] = True
    assert torch.equal(sample["masks"].as_subclass(torch.Tensor), expected)
    write(tmp_path / "labels" / "train" / "a.txt", BOX)
    with pytest.raises(UserError, match=r"a.txt: '1 0.5 0.25 0.25 0.5': it is a box, and instances need polygons"):
        load_data(options, INSTANCES).train[0]


def test_pictures_are_turned_as_the_tools_show_them(tmp_path: Path) -> None:
    """Shares of the picture fit both; the tools draw on what a person sees."""
    options, exif = ultralytics(tmp_path), Image.Exif()
    exif[0x0112] = 6
    draw(tmp_path / "images" / "train" / "a.png", exif=exif)
    assert load_data(options, DETECTION).train[0]["image"].shape == (3, WIDTH, HEIGHT)


def test_classes_are_chosen_by_their_names(tmp_path: Path) -> None:
    roboflow(tmp_path)
    data = load_data(YoloOptions(path=str(tmp_path / "data.yaml"), labels=["no"]), DETECTION)
    assert data.category_ids == [1]
    assert data.train[0]["labels"].tolist() == [0], "objects of the other class are left out"
    with pytest.raises(UserError, match=r"data.labels: cat is no class of .*data.yaml, it has person, no"):
        load_data(YoloOptions(path=str(tmp_path), labels=["cat"]), DETECTION)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.5", "an object is of the unknown category 2"),
        ("1 0.5 0.5 0.5", "3 numbers after the class, expected 4 of a box, or an even number of 6 or more"),
        ("1 0.5 0.5 0.5 0.5 0.9", "5 numbers after the class"),
        ("1 10 10 20 20", "coordinates must be shares of the picture's width and height"),
        ("1 0.5 0.5 nan 0.5", "coordinates must be shares"),
        ("dog 0.5 0.5 0.5 0.5", "expected the number of a class and coordinates"),
        ("1 0.5 0.5 0.5 inf", "coordinates must be shares"),
        ("1e400 0.5 0.5 0.5 0.5", "expected the number of a class"),
        ("1 0.5 0.5 0 0.5", "has no area"),
    ],
)
def test_malformed_lines(line: str, message: str, tmp_path: Path) -> None:
    options = ultralytics(tmp_path)
    write(tmp_path / "labels" / "train" / "a.txt", f"{BOX}\n{line}")
    with pytest.raises(UserError, match=message) as caught:
        load_data(options, DETECTION).train[0]
    assert "a.txt" in str(caught.value) or "a.png" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must hold train, val and names, got "),
        ("train: images/train\nval: images/val\n", "names must be a list of class names, or number: name, got None"),
        ("train: images/train\nnames: [a]\n", "data.validation_split=val: .* has no such split, it has train"),
        (
            "train: images/nowhere\nval: images/val\nnames: [a]",
            "names images/nowhere, and .* has no such folder or list",
        ),
        ("train: pictures\nval: images/val\nnames: [a, b]", "train_split=train: none of 1 pictures has a text file"),
        ("train: {a: b}\nval: images/val\nnames: [a, b]", "train must be a folder or a list of pictures, or several"),
        ("names: {a: b}\n", "names must be a list, or begin with numbers"),
        ("train: [", "is not YAML"),
        ("train: lists/train.txt\nval: images/val\nnames: [a, b]", "the file name of a line of .*leads out of"),
    ],
)
def test_descriptions_that_say_something_else(text: str, message: str, tmp_path: Path) -> None:
    ultralytics(tmp_path)
    write(tmp_path / "coco8.yaml", text)
    write(tmp_path / "lists" / "train.txt", "../../elsewhere/a.png")
    draw(tmp_path / "pictures" / "c.png")
    with pytest.raises(UserError, match=message):
        load_data(YoloOptions(path=str(tmp_path)), DETECTION)


def test_a_folder_without_a_description(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a data.yaml with train, val and names in"):
        load_data(YoloOptions(path=str(tmp_path)), DETECTION)
    for name in ("a.yaml", "b.yaml"):
        write(tmp_path / name, "names: [a]")
    with pytest.raises(UserError, match="it has a.yaml, b.yaml; set data.path to the file"):
        load_data(YoloOptions(path=str(tmp_path)), DETECTION)
