"""Pascal VOC's folders and XML files, laid out as the tools write them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dense_prediction.errors import UserError
from written_sets import CORNERS, HEIGHT, WIDTH, draw, found_in, mask, names_of, opened, write, xml


def voc(folder: Path, lists: dict[str, str]) -> None:
    """http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html"""
    for name in ("a", "b", "c"):
        draw(folder / "JPEGImages" / f"{name}.jpg")
        write(folder / "Annotations" / f"{name}.xml", xml(f"{name}.jpg"))
        draw(folder / "SegmentationClass" / f"{name}.png", mask(0, 1))
    for kind in ("Main", "Segmentation"):
        for split, names in lists.items():
            write(folder / "ImageSets" / kind / f"{split}.txt", "".join(f"{name}\n" for name in names))


LISTS = {"train": "a", "val": "b", "trainval": "ab", "test": "c"}


def test_the_lists_are_the_splits(tmp_path: Path) -> None:
    voc(tmp_path / "VOCdevkit" / "VOC2007", LISTS)
    write(tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "dog_train.txt", "a  1\n")
    found = found_in(tmp_path)
    assert found.words.startswith(
        "Pascal VOC: ImageSets/Main, train 1, validation 1 and test 1 pictures, 1 class (dog)"
    )
    data = opened(found)
    assert (names_of(data.train), names_of(data.validation)) == (["a.jpg"], ["b.jpg"])
    assert data.test is not None and names_of(data.test) == ["c.jpg"]
    assert data.train[0]["boxes"].tolist() == CORNERS


def test_lists_that_name_what_no_file_is_called(tmp_path: Path) -> None:
    """They are looked up, and met again when their samples are read."""
    voc(tmp_path, LISTS)
    write(tmp_path.parent / "outside.xml", xml("a.jpg", "elsewhere"))
    for kind in ("Main", "Segmentation"):
        write(tmp_path / "ImageSets" / kind / "train.txt", f"a\n{'9' * 5000}\na\0b\n../../outside\n")
    assert found_in(tmp_path).data["labels"] == ["dog"]
    assert found_in(tmp_path, "semantic_segmentation").data["labels"] == ["background", "foreground"]


def test_trainval_where_nothing_else_is_learnt(tmp_path: Path) -> None:
    voc(tmp_path, {"trainval": "abc"})
    found = found_in(tmp_path)
    assert (found.data["train_split"], found.data["validation_share"]) == ("trainval", 0.2)
    data = opened(found)
    assert len(data.train) + len(data.validation) == 3 and min(len(data.train), len(data.validation)) > 0


def test_the_repository_of_a_data_set(tmp_path: Path) -> None:
    """https://github.com/Shenggan/BCCD_Dataset: VOC's folders one down, beside programs and example pictures."""
    voc(tmp_path / "BCCD", LISTS)
    draw(tmp_path / "example.jpg")
    write(tmp_path / "scripts" / "split.py", "")
    write(tmp_path / "test.csv", "a,b\n")
    found = found_in(tmp_path)
    assert found.data["path"] == str(tmp_path / "BCCD")
    assert len(opened(found).train) == 1


def without_lists(folder: Path) -> None:
    """https://github.com/cosmicad/dataset"""
    voc(folder, {})


def labelimg(folder: Path) -> None:
    """https://github.com/HumanSignal/labelImg: XML files beside the pictures, or in a folder near them."""
    for name in ("a", "b", "c"):
        draw(folder / f"{name}.jpg")
        write(folder / f"{name}.xml", xml(f"{name}.jpg"))


def two_folders(folder: Path) -> None:
    """https://github.com/datitran/raccoon_dataset"""
    for name in ("a", "b", "c"):
        draw(folder / "images" / f"{name}.jpg")
        write(folder / "annotations" / f"{name}.xml", xml(f"{name}.jpg"))
    write(folder / "data" / "train_labels.csv", "filename,width\n")


def label_studio(folder: Path) -> None:
    """https://github.com/HumanSignal/label-studio-converter, convert_to_voc: Annotations/ and images/."""
    for name in ("a", "b", "c"):
        draw(folder / "images" / f"{name}.png")
        write(folder / "Annotations" / f"{name}.xml", xml(name))


@pytest.mark.parametrize(
    "layout", [without_lists, labelimg, two_folders, label_studio], ids=lambda layout: layout.__name__
)
def test_without_splits(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    found = found_in(tmp_path)
    assert "XML files, train 3 pictures, about 20% of train held back" in found.words
    data = opened(found)
    assert sorted(names_of(data.train) + names_of(data.validation))[0][0] == "a"
    assert data.train[0]["boxes"].tolist() == CORNERS and data.labels == ["dog"]
    assert min(len(data.train), len(data.validation)) > 0


def test_roboflow(tmp_path: Path) -> None:
    """https://roboflow.com/formats/pascal-voc-xml: a folder a split, XML files beside the pictures."""
    for split in ("train", "valid", "test"):
        draw(tmp_path / split / f"{split}_jpg.rf.01.jpg")
        write(tmp_path / split / f"{split}_jpg.rf.01.xml", xml(f"{split}_jpg.rf.01.jpg", f"in {split}"))
    found = found_in(tmp_path)
    assert found.data["labels"] == ["in test", "in train", "in valid"]
    assert found.data["annotations"] == {"train": "train", "validation": "valid", "test": "test"}
    assert names_of(opened(found).validation) == ["valid_jpg.rf.01.jpg"]


def cvat_masks(folder: Path, images: bool = True) -> None:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-smask"""
    write(folder / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:10,10,128::\ndog:9,0,0::")
    write(folder / "ImageSets" / "Segmentation" / "default.txt", "a\nb\n")
    for name in ("a", "b"):
        colours = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        colours[:, 10:] = [10, 10, 128]
        draw(folder / "SegmentationClass" / f"{name}.png", colours)
        draw(folder / "SegmentationObject" / f"{name}.png", colours)
        if images:
            draw(folder / "JPEGImages" / f"{name}.jpg")


def test_masks_of_cvat(tmp_path: Path) -> None:
    cvat_masks(tmp_path)
    found = found_in(tmp_path, "semantic_segmentation")
    assert found.words.endswith("3 classes (background, cat, dog) of labelmap.txt")
    data = opened(found, "semantic_segmentation")
    assert data.train[0]["semantic_map"][0].tolist() == [0] * 10 + [1] * 30
    assert (len(data.train), len(data.validation)) == (1, 1)


def test_masks_of_cvat_without_the_pictures(tmp_path: Path) -> None:
    cvat_masks(tmp_path, images=False)
    with pytest.raises(UserError, match="Pascal VOC masks: .*, but there is no folder JPEGImages of the pictures"):
        found_in(tmp_path, "semantic_segmentation")


def test_masks_of_voc_itself(tmp_path: Path) -> None:
    """Nothing in the folders names its classes."""
    voc(tmp_path / "VOC2012", LISTS)
    found = found_in(tmp_path, "semantic_segmentation")
    assert found.data["labels"][:3] == ["background", "aeroplane", "bicycle"] and len(found.data["labels"]) == 21
    assert opened(found, "semantic_segmentation").train[0]["semantic_map"].unique().tolist() == [0, 1]


def test_more_pictures_than_xml_files(tmp_path: Path) -> None:
    """https://www.robots.ox.ac.uk/~vgg/data/pets: XML files of some pictures, and trimaps, which show no objects."""
    for name in "abcde":
        draw(tmp_path / "images" / f"{name}.jpg")
        draw(tmp_path / "annotations" / "trimaps" / f"{name}.png", mask(1, 2, 3, 3))
    for name in "ab":
        write(tmp_path / "annotations" / "xmls" / f"{name}.xml", xml(f"{name}.jpg"))
    found = found_in(tmp_path)
    assert "XML files, train 2 pictures, about 20% of train held back for validation, 8 other pictures" in found.words
    assert found_in(tmp_path, "semantic_segmentation").data["masks"] == {"train": "annotations/trimaps"}
    with pytest.raises(UserError, match="not instance_segmentation; its masks tell classes apart, and no objects"):
        found_in(tmp_path, "instance_segmentation")


def test_xml_files_without_their_pictures(tmp_path: Path) -> None:
    labelimg(tmp_path)
    for picture in tmp_path.glob("*.jpg"):
        picture.rename(tmp_path / f"other_{picture.name}")
    with pytest.raises(UserError, match="Pascal VOC: 3 XML files, but no picture has the name of one: put the pict"):
        found_in(tmp_path)


def test_xml_of_other_programs(tmp_path: Path) -> None:
    """https://docs.cvat.ai/docs/dataset_management/formats/format-cvat"""
    draw(tmp_path / "images" / "a.png")
    write(tmp_path / "annotations.xml", "<annotations><version>1.1</version></annotations>")
    with pytest.raises(UserError, match="holds 1 pictures and no annotations .*; annotations.xml is not VOC's XML$"):
        found_in(tmp_path)
