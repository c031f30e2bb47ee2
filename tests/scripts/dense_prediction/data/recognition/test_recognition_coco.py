"""COCO's JSON, laid out as the tools write it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dense_prediction.errors import UserError
from written_sets import CORNERS, HEIGHT, WIDTH, coco, draw, found_in, names_of, opened, write, xml


Layout = Callable[[Path], None]
SPLITS = ("train", "validation", "test")


def coco_2017(folder: Path) -> None:
    """https://cocodataset.org/#download: folders of pictures, and annotations/ with other files beside instances."""
    for split in ("train2017", "val2017"):
        draw(folder / split / f"{split}.jpg")
        write(folder / "annotations" / f"instances_{split}.json", coco([f"{split}.jpg"]))
        for kind in ("densepose", "person_keypoints"):
            write(folder / "annotations" / f"{kind}_{split}.json", coco([f"{split}.jpg"], ["person"]))
        write(folder / "annotations" / f"captions_{split}.json", '{"images": [], "annotations": []}')


def roboflow(folder: Path) -> None:
    """https://rfdetr.roboflow.com/latest/learn/train/dataset-formats: a folder a split, with its JSON in it."""
    write(folder / "README.roboflow.txt", "provided by a Roboflow user")
    for split in ("train", "valid", "test"):
        draw(folder / split / f"{split}_jpg.rf.0a1b.jpg")
        write(folder / split / "_annotations.coco.json", coco([f"{split}_jpg.rf.0a1b.jpg"]))


def autogluon(folder: Path) -> None:
    """https://auto.gluon.ai/stable/tutorials/multimodal/object_detection/data_preparation/convert_data_to_coco_format.html"""
    for split in ("train", "val", "test"):
        draw(folder / "images" / f"{split}.jpg")
        write(folder / "annotations" / f"{split}_labels.json", coco([f"{split}.jpg"]))


def beside(folder: Path) -> None:
    """train.json, valid.json and test.json above the folders of the pictures, whose names begin with images/."""
    for split in ("train", "valid", "test"):
        draw(folder / "images" / f"{split}.jpg")
        write(folder / f"{split}.json", coco([f"images/{split}.jpg"]))


@pytest.mark.parametrize("layout", [coco_2017, roboflow, autogluon, beside], ids=lambda layout: layout.__name__)
def test_a_file_a_split(layout: Layout, tmp_path: Path) -> None:
    layout(tmp_path)
    found = found_in(tmp_path, "instance_segmentation")
    assert "validation_share" not in found.data
    assert ("test" in found.data["images"]) == (found.data.get("test_split") == "test") == (layout is not coco_2017)
    assert "train 1" in found.words and found.words.startswith("COCO JSON: ")
    assert found.words.endswith("2 classes (cat, dog)")
    data = opened(found, "instance_segmentation")
    assert data.labels == ["cat", "dog"]
    assert [name[:3] for split in (data.train, data.validation) for name in names_of(split)] == ["tra", "val"]
    assert data.train[0]["boxes"].tolist() == CORNERS
    assert data.train[0]["masks"].sum() == 200


def cvat(folder: Path) -> None:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-coco: images/, in the folder of a subset or not."""
    draw(folder / "images" / "default" / "a.png")
    draw(folder / "images" / "default" / "b.png")
    write(folder / "annotations" / "instances_default.json", coco(["a.png", "b.png"]))


def cvat_without_subset(folder: Path) -> None:
    draw(folder / "images" / "a.png")
    draw(folder / "images" / "b.png")
    write(folder / "annotations" / "instances_default.json", coco(["a.png", "b.png"]))


def label_studio(folder: Path) -> None:
    """https://labelstud.io/guide/export#COCO: result.json and images/, by the names of what was uploaded."""
    for name in ("a", "b"):
        draw(folder / "images" / f"0123abcd-{name}.png")
    write(folder / "result.json", coco(["images/0123abcd-a.png", "images/0123abcd-b.png"]))


def label_studio_with_its_own_paths(folder: Path) -> None:
    """The same where the pictures are not exported: the server's own paths, and the files that were uploaded."""
    draw(folder / "pictures" / "a.png")
    draw(folder / "pictures" / "b.png")
    root = "../../label-studio/data/media/upload/1/"
    write(folder / "result.json", coco([f"{root}0123abcd-a.png", f"{root}4567cdef-b.png"]))


def windows(folder: Path) -> None:
    """Paths of the machine on which a script ran."""
    draw(folder / "data" / "a.png")
    draw(folder / "data" / "b.png")
    write(folder / "export.json", coco(["C:\\data\\mine\\a.png", "C:\\data\\mine\\b.png"]))


ONE_FILE = [cvat, cvat_without_subset, label_studio, label_studio_with_its_own_paths, windows]


@pytest.mark.parametrize("layout", ONE_FILE, ids=lambda layout: layout.__name__)
def test_one_file(layout: Layout, tmp_path: Path) -> None:
    layout(tmp_path)
    found = found_in(tmp_path)
    assert found.data["validation_share"] == 0.2
    assert "train 2 pictures, about 20% of train held back for validation" in found.words
    data = opened(found)
    assert [name[-5] for name in sorted(names_of(data.train) + names_of(data.validation))] == ["a", "b"]
    assert (len(data.train), len(data.validation)) == (1, 1)
    assert data.train[0]["boxes"].tolist() == data.validation[0]["boxes"].tolist() == CORNERS


def test_names_by_their_last_parts_alone_must_differ(tmp_path: Path) -> None:
    draw(tmp_path / "pictures" / "a.png")
    write(tmp_path / "result.json", coco(["/data/1/a.png", "/data/2/a.png"]))
    with pytest.raises(UserError, match="none of the 2 pictures that result.json lists is in the folder, such as '/d"):
        found_in(tmp_path)


def test_panoptic(tmp_path: Path) -> None:
    """https://cocodataset.org/#format-data: PNGs in a folder that is called as the JSON file."""
    coco_2017(tmp_path)
    for split in ("train2017", "val2017"):
        segments = [{"id": 1, "category_id": 1, "iscrowd": 0, "area": 800, "bbox": [0, 0, WIDTH, HEIGHT]}]
        content = json.loads(coco([f"{split}.jpg"])) | {
            "annotations": [{"image_id": 0, "file_name": f"{split}.png", "segments_info": segments}],
            "categories": [{"id": 1, "name": "sky", "isthing": 0}],
        }
        write(tmp_path / "annotations" / f"panoptic_{split}.json", json.dumps(content))
        draw(tmp_path / f"panoptic_{split}" / f"{split}.png", np.full((HEIGHT, WIDTH, 3), [1, 0, 0], dtype=np.uint8))
    found = found_in(tmp_path, "panoptic_segmentation")
    assert found.data["masks"] == {"train": "panoptic_train2017", "validation": "panoptic_val2017"}
    data = opened(found, "panoptic_segmentation")
    assert (data.labels, data.train[0]["segment_map"].max()) == (["sky"], 0)
    assert found_in(tmp_path, "object_detection").data["format"] == "coco"


def test_boxes_alone_serve_no_instances(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    write(tmp_path / "a.json", coco(["a.png"], outlines=False))
    message = "boxes without outlines; it serves object_detection, not instance_segmentation$"
    with pytest.raises(UserError, match=message):
        found_in(tmp_path, "instance_segmentation")


def mixed(folder: Path, boxes: int) -> None:
    """Three objects, of which some have a box and no outline, as CVAT writes rectangles among polygons."""
    content = json.loads(coco([f"{name}.png" for name in "abc"]))
    for annotation, outline in zip(content["annotations"][:boxes], ([], None, [])):
        annotation["segmentation"] = outline
    for name in "abc":
        draw(folder / "images" / f"{name}.png")
    write(folder / "annotations" / "instances_default.json", json.dumps(content))


def test_some_boxes_among_outlines_fill_their_boxes(tmp_path: Path) -> None:
    mixed(tmp_path, boxes=1)
    found = found_in(tmp_path, "instance_segmentation")
    assert found.data["boxes_as_outlines"] is True
    assert found.words.endswith("; 1 of 3 objects have a box and no outline: it is taken for that")
    data = opened(found, "instance_segmentation")
    for split in (data.train, data.validation):
        for index in range(len(split)):
            sample = split[index]
            assert sample["masks"].sum() == 200 and sample["boxes"].tolist() == CORNERS
    refused = opened(found, "instance_segmentation", boxes_as_outlines=False)
    with pytest.raises(UserError, match="a segmentation is neither polygons nor run lengths"):
        [split[index] for split in (refused.train, refused.validation) for index in range(len(split))]


def test_boxes_with_a_few_outlines_serve_no_instances(tmp_path: Path) -> None:
    mixed(tmp_path, boxes=2)
    with pytest.raises(UserError, match="2 of 3 objects have a box and no outline; it serves object_detection, not"):
        found_in(tmp_path, "instance_segmentation")
    assert len(opened(found_in(tmp_path)).train) > 0


def test_files_of_no_split(tmp_path: Path) -> None:
    for name in ("monday", "tuesday"):
        draw(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.json", coco([f"{name}.png"]))
    with pytest.raises(UserError, match="but monday.json, tuesday.json may be of one split: name them train.json an"):
        found_in(tmp_path)
    assert found_in(tmp_path / "tuesday.json").data["annotations"] == {"train": "tuesday.json"}, "which was meant"


def test_a_test_file_is_no_validation(tmp_path: Path) -> None:
    for split in ("train", "test"):
        draw(tmp_path / "images" / f"{split}.png")
        draw(tmp_path / "images" / f"{split}2.png")
        write(tmp_path / f"{split}.json", coco([f"{split}.png", f"{split}2.png"]))
    found = found_in(tmp_path)
    assert (found.data["test_split"], found.data["validation_share"]) == ("test", 0.2)
    data = opened(found)
    assert data.test is not None
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1, 1, 2]


def test_the_file_that_is_given(tmp_path: Path) -> None:
    autogluon(tmp_path)
    found = found_in(tmp_path / "annotations" / "val_labels.json")
    assert found.data["path"] == str(tmp_path)
    assert found.data["annotations"] == {"train": "annotations/val_labels.json"}
    assert found.data["images"] == {"train": "images"}


def test_pictures_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / "train.json", coco(["a.png", "b.png"]))
    with pytest.raises(UserError, match="but none of the 2 pictures that train.json lists is in the folder, such as "):
        found_in(tmp_path)
    draw(tmp_path / "b.png")
    assert "1 pictures are not there" in found_in(tmp_path).words


def test_json_that_is_not_cocos(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    write(tmp_path / "a.json", '{"pictures": ["a.png"], "owner": "nobody"}')
    with pytest.raises(UserError, match="holds 1 pictures and no annotations .*; a.json is not COCO's JSON$"):
        found_in(tmp_path)


def test_two_formats_in_one_folder(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    write(tmp_path / "a.json", coco(["a.png", "b.png"]))
    write(tmp_path / "a.xml", xml("a.png"))
    write(tmp_path / "b.xml", xml("b.png"))
    with pytest.raises(UserError, match="choose with data.format=coco or data.format=voc: COCO JSON: a.json.*; Pasc"):
        found_in(tmp_path)
    assert found_in(tmp_path, format="coco").data["format"] == "coco"
    assert found_in(tmp_path, format="voc").data["format"] == "voc"
    assert found_in(tmp_path, "instance_segmentation").data["format"] == "coco", "which alone serves it"
    with pytest.raises(UserError, match="is not recognised as data.format=yolo; it is COCO JSON"):
        found_in(tmp_path, format="yolo")
    with pytest.raises(UserError, match="data.format=cocoa: expected one of coco, coco_panoptic"):
        found_in(tmp_path, format="cocoa")


def test_a_large_file_is_not_parsed_as_a_whole(tmp_path: Path) -> None:
    """Its annotations are skipped: here they would not even be JSON."""
    draw(tmp_path / "a.png")
    content = coco(["a.png"])
    start = content.index('"annotations": [') + len('"annotations": [')
    write(tmp_path / "train.json", content[:start] + "broken" + " " * 2**20 + content[start:])
    assert "train 1 pictures" in found_in(tmp_path).words
