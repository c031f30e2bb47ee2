"""YOLO's data sets, laid out as the tools write them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dense_prediction.errors import UserError
from written_sets import CORNERS, YOLO_BOX, coco, draw, found_in, names_of, opened, write


POLYGON = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"


def pictures(folder: Path, places: str, splits: tuple[str, ...], line: str = YOLO_BOX) -> None:
    for split in splits:
        for name in ("a", "b"):
            draw(folder / places.format(kind="images", split=split) / f"{split}_{name}.jpg")
            write(folder / places.format(kind="labels", split=split) / f"{split}_{name}.txt", f"{line}\n")


def ultralytics(folder: Path) -> None:
    """https://docs.ultralytics.com/datasets/detect"""
    text = (
        "path: ../datasets/coco8\ntrain: images/train\nval: images/val\ntest: # none\n\nnames:\n  0: cat\n  1: dog\n"
    )
    write(folder / "coco8.yaml", text)
    pictures(folder, "{kind}/{split}", ("train", "val"))


def roboflow(folder: Path) -> None:
    """https://roboflow.com/formats/yolov8-pytorch-txt"""
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    write(folder / "data.yaml", text)
    write(folder / "README.dataset.txt", "# mine\n")
    pictures(folder, "{split}/{kind}", ("train", "valid", "test"))


def roboflow_darknet(folder: Path) -> None:
    """https://roboflow.com/formats/yolo-darknet-txt"""
    pictures(folder, "{split}", ("train", "valid", "test"))
    for split in ("train", "valid", "test"):
        write(folder / split / "_darknet.labels", "cat\ndog\n")


def cvat_darknet(folder: Path) -> None:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-yolo"""
    write(folder / "obj.data", "classes = 2\nnames = data/obj.names\ntrain = data/train.txt\nvalid = data/valid.txt\n")
    write(folder / "obj.names", "cat\ndog\n")
    pictures(folder, "obj_{split}_data", ("train", "valid"))
    for split in ("train", "valid"):
        write(folder / f"{split}.txt", f"data/obj_{split}_data/{split}_a.jpg\ndata/obj_{split}_data/{split}_b.jpg\n")


def plain(folder: Path) -> None:
    """Folders of the splits in images/ and labels/, with a list of names."""
    write(folder / "classes.txt", "cat\ndog\n")
    pictures(folder, "{kind}/{split}", ("train", "val", "test"))


SPLIT = [ultralytics, roboflow, roboflow_darknet, cvat_darknet, plain]


@pytest.mark.parametrize("layout", SPLIT, ids=lambda layout: layout.__name__)
def test_a_folder_a_split(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    found = found_in(tmp_path)
    assert "train 2" in found.words and "validation 2" in found.words
    assert found.words.startswith("YOLO: ") and found.words.endswith("boxes of 2 classes (cat, dog)")
    data = opened(found)
    assert data.labels == ["cat", "dog"]
    assert [name[:3] for split in (data.train, data.validation) for name in names_of(split)] == ["tra"] * 2 + [
        "val"
    ] * 2
    assert data.train[0]["boxes"].tolist() == CORNERS and data.train[0]["labels"].tolist() == [1]
    assert (data.test is not None) == (layout in (roboflow, roboflow_darknet, plain))


def label_studio(folder: Path) -> None:
    """https://github.com/HumanSignal/label-studio-converter, convert_to_yolo: no split, and names in classes.txt."""
    pictures(folder, "{kind}", ("one",))
    write(folder / "classes.txt", "cat\ndog\n")
    write(folder / "notes.json", '{"categories": [{"id": 0, "name": "cat"}], "info": {"contributor": "Label Studio"}}')


def labelimg(folder: Path) -> None:
    """https://github.com/HumanSignal/labelImg: text files beside the pictures."""
    pictures(folder, "", ("one",))
    write(folder / "classes.txt", "cat\ndog\n")


def training_alone(folder: Path) -> None:
    """A YAML file whose val folder was not exported."""
    write(folder / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\n")
    pictures(folder, "{split}/{kind}", ("train",))


@pytest.mark.parametrize("layout", [label_studio, labelimg, training_alone], ids=lambda layout: layout.__name__)
def test_without_a_validation_split(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    found = found_in(tmp_path)
    assert found.data["validation_share"] == 0.2
    data = opened(found)
    assert len({*names_of(data.train), *names_of(data.validation)}) == 2
    assert data.train[0]["boxes"].tolist() == data.validation[0]["boxes"].tolist() == CORNERS


def test_all_of_it_in_a_folder_called_images(tmp_path: Path) -> None:
    """The text files beside the pictures are read, though there might be a folder labels."""
    labelimg(tmp_path / "images")
    assert opened(found_in(tmp_path / "images")).train[0]["boxes"].tolist() == CORNERS


def test_polygons_serve_instances_and_boxes_do_not(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    with pytest.raises(UserError, match="boxes of 2 classes.*; it serves object_detection, not instance_segmentation"):
        found_in(tmp_path, "instance_segmentation")
    pictures(tmp_path, "{kind}/{split}", ("train", "val"), POLYGON)
    found = found_in(tmp_path, "instance_segmentation")
    assert "polygons of 2 classes" in found.words
    assert opened(found, "instance_segmentation").train[0]["masks"].sum() == 200


def test_lists_that_name_what_no_file_is_called(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    write(tmp_path / "coco8.yaml", "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    write(tmp_path / "train.txt", f"images/train/train_a.jpg\n{'9' * 5000}.jpg\n")
    assert "train 2 and validation 2 pictures" in found_in(tmp_path).words


def test_what_is_missing(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "classes.txt").unlink()
    message = "YOLO: train 2, validation 2 and test 2 pictures, but nothing names the classes: add classes.txt with"
    with pytest.raises(UserError, match=message):
        found_in(tmp_path)
    write(tmp_path / "data.yaml", "train: nowhere\nval: images/val\nnames: [cat, dog]\n")
    with pytest.raises(UserError, match="YOLO: data.yaml, but .*it names nowhere, and .* has no such folder or list"):
        found_in(tmp_path)
    write(tmp_path / "data.yaml", "train: images/train\nval: images/val\nkpt_shape: [17, 3]\nnames: [cat, dog]\n")
    with pytest.raises(UserError, match="YOLO poses: data.yaml, but there is no task of key points"):
        found_in(tmp_path)


def test_texts_that_are_elsewhere(tmp_path: Path) -> None:
    """https://www.makesense.ai exports the text files alone."""
    draw(tmp_path / "pictures" / "a.jpg")
    write(tmp_path / "labels_my-project_2024" / "a.txt", YOLO_BOX)
    with pytest.raises(UserError, match="YOLO: 1 text files, but labels_my.*a.txt is neither beside its picture nor"):
        found_in(tmp_path)
    write(tmp_path / "data.yaml", "names: [a\n")
    with pytest.raises(UserError, match="YOLO: data.yaml, but .*data.yaml is not YAML"):
        found_in(tmp_path)


def test_folders_of_the_same_kind_are_read_together(tmp_path: Path) -> None:
    for place in range(3):
        pictures(tmp_path / f"video{place}", "{kind}", ("one",))
    write(tmp_path / "classes.txt", "cat\ndog\n")
    data = opened(found_in(tmp_path))
    assert len(data.train) + len(data.validation) == 6


def test_texts_about_pictures_are_no_objects(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.txt", "A cat on a mat.\n")
    with pytest.raises(UserError, match="holds 2 pictures and no annotations of them: expected COCO JSON"):
        found_in(tmp_path)


def test_coco_and_yolo_of_the_same_pictures(tmp_path: Path) -> None:
    label_studio(tmp_path)
    write(tmp_path / "result.json", coco(["images/one_a.jpg", "images/one_b.jpg"]))
    with pytest.raises(UserError, match="in several ways, choose with data.format=coco or data.format=yolo: COCO"):
        found_in(tmp_path)
    assert found_in(tmp_path, format="yolo").data["format"] == "yolo"


def test_boxes_among_polygons_are_taken_for_outlines(tmp_path: Path) -> None:
    """As Roboflow exports objects of both kinds: https://docs.ultralytics.com/datasets/segment"""
    write(tmp_path / "data.yaml", "names: [cat, dog]\ntrain: images/train\n")
    polygon = "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
    for name, line in (("a", YOLO_BOX), ("b", polygon), ("c", polygon)):
        draw(tmp_path / "images" / "train" / f"{name}.jpg")
        write(tmp_path / "labels" / "train" / f"{name}.txt", line)
    found = found_in(tmp_path, "instance_segmentation")
    assert found.words.endswith(
        "polygons of 2 classes (cat, dog); some have a box alone, which is taken for their outline"
    )
    data = opened(found, "instance_segmentation")
    for split in (data.train, data.validation):
        for index in range(len(split)):
            assert split[index]["masks"].sum() == 200 and split[index]["boxes"].tolist() == CORNERS
    refused = opened(found, "instance_segmentation", boxes_as_outlines=False)
    with pytest.raises(UserError, match="it is a box, and instances need polygons"):
        [split[index] for split in (refused.train, refused.validation) for index in range(len(split))]


def test_a_list_whose_lines_begin_with_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-yolo-ultralytics: data/ before all names."""
    write(tmp_path / "data.yaml", "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\n")
    write(tmp_path / "train.txt", "data/images/train/a.jpg\ndata/images/train/b.jpg\n")
    for name in "ab":
        draw(tmp_path / "images" / "train" / f"{name}.jpg")
        write(tmp_path / "labels" / "train" / f"{name}.txt", YOLO_BOX)
    data = opened(found_in(tmp_path))
    assert data.train[0]["boxes"].tolist() == data.validation[0]["boxes"].tolist() == CORNERS
