"""Images and masks in folders: how they are called, what their values stand for, and masks of single objects."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dense_prediction.errors import UserError
from written_sets import HEIGHT, WIDTH, coco, draw, found_in, mask, names_of, opened, write


SEMANTIC, INSTANCES = "semantic_segmentation", "instance_segmentation"

PLACES = [
    ("images/{split}/{name}.jpg", "masks/{split}/{name}.png", ("train", "validation", "test")),
    ("{split}/images/{name}.jpg", "{split}/masks/{name}.png", ("train", "valid", "test")),
    ("imgs/{split}/{name}.jpg", "labels/{split}/{name}.png", ("train", "val")),
    ("{split}_images/{name}.tif", "{split}_gt/{name}.tif", ("training", "testing", "validation")),
    ("{split}/{name}.png", "{split}annot/{name}.png", ("train", "val", "test")),  # SegNet's CamVid
    ("images/{split}/{name}.jpg", "annotations/{split}/{name}.png", ("training", "validation")),  # ADE20K
    ("leftImg8bit/{split}/b/{name}_leftImg8bit.png", "gtFine/{split}/b/{name}_gtFine_labelIds.png", ("train", "val")),
    ("{split}/{name}.jpg", "{split}/{name}_mask.png", ("train", "valid", "test")),
    ("data/{split}/image/img_{name}.png", "data/{split}/ground truth/mask_{name}.png", ("train", "val")),
    ("{split}/{name}.jpg", "{split}/{name}.png", ("train", "val")),
    ("my set/{split}/imgs/{name}.jpg", "my set/{split}/segmentations/{name}_seg.png", ("train", "dev")),
]


@pytest.mark.parametrize(("images", "masks", "splits"), PLACES, ids=[f"{a} {b}" for a, b, _ in PLACES])
def test_how_folders_and_files_are_called(images: str, masks: str, splits: tuple[str, ...], tmp_path: Path) -> None:
    for split in splits:
        for name in ("1", "2"):
            draw(tmp_path / images.format(split=split, name=f"{split[:3]}_{name}"))
            draw(tmp_path / masks.format(split=split, name=f"{split[:3]}_{name}"), mask(0, 1, 2, 2))
    draw((tmp_path / images.format(split=splits[0], name="")).parent / "._1.png")
    found = found_in(tmp_path, SEMANTIC)
    assert "validation 2" in found.words and found.words.endswith("by the ids up to 2, which no file names")
    data = opened(found, SEMANTIC)
    assert data.labels == ["background", "class 1", "class 2"]
    assert [len(data.train), len(data.validation)] == [2, 2]
    assert (data.test is None) == (not any(split.startswith("test") for split in splits))
    assert data.train[0]["semantic_map"][0].tolist() == mask(0, 1, 2, 2)[0].tolist()
    assert "val" in names_of(data.validation)[0] or "dev" in names_of(data.validation)[0]


def test_folders_of_the_same_kind_are_read_together(tmp_path: Path) -> None:
    """As Supervisely's data sets, ds0 and ds1, of one project; the names may even be the same."""
    for split in ("train", "val"):
        for place in range(3):
            draw(tmp_path / split / f"ds{place}" / "img" / "1.png")
            draw(tmp_path / split / f"ds{place}" / "masks_machine" / "1.png", mask(0, 1))
            draw(tmp_path / split / f"ds{place}" / "masks_human" / "1.png", np.stack([mask(0, 9)] * 3, -1))
    found = found_in(tmp_path, SEMANTIC)
    assert "train 3 and validation 3 pictures" in found.words
    assert (found.data["image_stem"], found.data["mask_suffix"]) == ("img/*", "../masks_machine/*.png")
    data = opened(found, SEMANTIC)
    assert [len(data.train), len(data.validation)] == [3, 3]
    assert data.train[2]["semantic_map"].unique().tolist() == [0, 1]
    shared = opened(found, SEMANTIC, validation_share=0.4)
    assert len(shared.train) + len(shared.validation) == 3


def test_masks_and_pictures_that_do_not_fit(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    draw(tmp_path / "masks" / "x1.png", mask(0, 1))
    with pytest.raises(UserError, match="images and masks, but their names do not belong together, such as images/a"):
        found_in(tmp_path, SEMANTIC)
    draw(tmp_path / "masks" / "a.png", mask(0, 1)[:10])
    message = r"are not as large as the pictures: masks/a.png has \(40, 10\) pixels, images/a.png has \(40, 20\)$"
    with pytest.raises(UserError, match=message):
        found_in(tmp_path, SEMANTIC)


def test_without_splits(tmp_path: Path) -> None:
    for name in "abcde":
        draw(tmp_path / "image" / f"{name}.jpg")
        draw(tmp_path / "label" / f"{name}.png", mask(0, 1))
    found = found_in(tmp_path, SEMANTIC)
    assert "train 5 pictures, about 20% of train held back for validation" in found.words
    data = opened(found, SEMANTIC)
    assert len(data.train) + len(data.validation) == 5 and len(data.validation) > 0
    assert not {*names_of(data.train)} & {*names_of(data.validation)}


VALUES = [
    (mask(0, 1), ["background", "foreground"], "for 0 and 1, which no file names", [0, 1]),
    (mask(0, 255), ["background", "foreground"], "for 0 and 255, which no file names", [0, 1]),
    (mask(0, 1, 255, 255), ["background", "foreground"], "for 0 and 1, which no file names", [0, 1, 255]),
    (mask(0, 128), ["background", "foreground"], "by their shades, which no file names", [0, 1]),
    (
        mask(0, 100, 200, 200),
        ["background", "class 100", "class 200"],
        "by their shades, which no file names",
        [0, 1, 2],
    ),
    (
        mask(0, 2, 3, 3),
        ["background", "class 1", "class 2", "class 3"],
        "by the ids up to 3, which no",
        [0, 2, 3],
    ),
    (mask(1, 3), ["class 1", "class 2", "class 3"], "by the ids from 1 to 3, which no file names", [0, 2]),
    (np.stack([mask(0, 255)] * 3, -1), ["background", "foreground"], "by their shades", [0, 1]),
    (np.stack([mask(0, 9), mask(0, 0), mask(0, 7)], -1), ["background", "class 1"], "by their colours, which", [0, 1]),
    (mask(0, 1, kind=np.bool_), ["background", "foreground"], "for 0 and 1, which no file names", [0, 1]),
    (mask(0, 1, kind=np.uint16), ["background", "foreground"], "for 0 and 1, which no file names", [0, 1]),
]


@pytest.mark.parametrize(("pixels", "labels", "words", "ids"), VALUES, ids=range(len(VALUES)))
def test_what_values_stand_for(
    pixels: np.ndarray, labels: list[str], words: str, ids: list[int], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        draw(tmp_path / "images" / f"{name}.jpg")
        draw(tmp_path / "masks" / f"{name}.png", pixels)
    found = found_in(tmp_path, SEMANTIC)
    assert words in found.words and found.data["labels"] == labels
    assert opened(found, SEMANTIC).train[0]["semantic_map"].unique().tolist() == ids


def roboflow(folder: Path) -> None:
    """Roboflow's "Semantic Segmentation Masks", as https://github.com/luxonis/luxonis-ml reads them."""
    write(folder / "_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n2, dog\n")


def supervisely(folder: Path) -> None:
    """https://github.com/supervisely-ecosystem/export-as-masks: the numbers of classes, from 1 on."""
    write(folder / "obj_class_to_machine_color.json", '{"cat": [1, 1, 1], "dog": [2, 2, 2]}')


def labelme(folder: Path) -> None:
    """https://github.com/wkentaro/labelme/tree/main/examples/semantic_segmentation: class_names.txt"""
    write(folder / "class_names.txt", "__ignore__\n_background_\ncat\ndog\n")


def a_list(folder: Path) -> None:
    """A name a line; the background has none."""
    write(folder / "classes.txt", "cat\ndog\n")


def codes(folder: Path) -> None:
    """fastai's CamVid: https://docs.fast.ai/tutorial.vision.html#segmentation---with-data-block-api"""
    write(folder / "codes.txt", "background\ncat\ndog\nbird\n")


@pytest.mark.parametrize("layout", [roboflow, supervisely, labelme, a_list, codes], ids=lambda layout: layout.__name__)
def test_files_with_names(layout: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(tmp_path / "images" / f"{name}.jpg")
        draw(tmp_path / "masks" / f"{name}.png", mask(0, 1, 2, 2))
    layout(tmp_path)
    found = found_in(tmp_path, SEMANTIC)
    assert found.data["labels"][:3] == ["background", "cat", "dog"]
    assert " of " in found.words and found.words.endswith((".csv", ".json", ".txt"))


def test_a_list_for_masks_without_the_background(tmp_path: Path) -> None:
    """Where no pixel is 0 and the last is as many as there are names, the first name is 1."""
    draw(tmp_path / "images" / "a.jpg")
    draw(tmp_path / "masks" / "a.png", mask(1, 2))
    a_list(tmp_path)
    found = found_in(tmp_path, SEMANTIC)
    assert (found.data["labels"], found.data["reduce_labels"]) == (["cat", "dog"], True)


def test_ade20k(tmp_path: Path) -> None:
    """http://sceneparsing.csail.mit.edu: ADEChallengeData2016, in whose masks 0 is no class."""
    for split in ("training", "validation"):
        draw(tmp_path / "ADEChallengeData2016" / "images" / split / f"ADE_{split}.jpg")
        draw(tmp_path / "ADEChallengeData2016" / "annotations" / split / f"ADE_{split}.png", mask(0, 1, 2, 2))
    table = (
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.15\t11664\t1172\t1\twall\n2\t0.1\t6046\t612\t1\tbuilding, edifice\n"
    )
    write(tmp_path / "ADEChallengeData2016" / "objectInfo150.txt", table)
    data = opened(found_in(tmp_path, SEMANTIC), SEMANTIC)
    assert data.labels == ["wall", "building, edifice"]
    assert data.train[0]["semantic_map"].unique().tolist() == [0, 1, 255]


def test_a_table_of_colours(tmp_path: Path) -> None:
    """https://www.kaggle.com/datasets/carlolepelaars/camvid: class_dict.csv"""
    colours = np.stack([mask(64, 0, 9, 9), mask(128, 128, 9, 9), mask(64, 192, 9, 9)], -1)
    for split in ("train", "val"):
        draw(tmp_path / split / "a.png")
        draw(tmp_path / f"{split}_labels" / "a_L.png", colours)
    write(tmp_path / "class_dict.csv", "name,r,g,b\nAnimal,64,128,64\nBicyclist,0,128,192\nVoid,9,9,9\n")
    found = found_in(tmp_path, SEMANTIC)
    assert found.data["mask_suffix"] == "_L.png"
    assert found.words.endswith("3 classes (Animal, Bicyclist, Void) of class_dict.csv")
    assert opened(found, SEMANTIC).train[0]["semantic_map"].unique().tolist() == [0, 1, 2]


def test_the_masks_that_were_made_for_the_eye_are_left(tmp_path: Path) -> None:
    """https://github.com/supervisely-ecosystem/export-as-masks: masks_human beside masks_machine."""
    for name in ("a", "b"):
        draw(tmp_path / "ds0" / "img" / f"{name}.jpg")
        draw(tmp_path / "ds0" / "masks_human" / f"{name}.png", np.stack([mask(0, 9)] * 3, -1))
        draw(tmp_path / "ds0" / "masks_machine" / f"{name}.png", mask(0, 1))
    supervisely(tmp_path)
    assert found_in(tmp_path, SEMANTIC).data["masks"] == {"train": "ds0/masks_machine"}


REFUSED = [
    (
        np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8),
        ".jpg",
        "as JPEG blurs them: save",
    ),
    (
        np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        ".png",
        "800 different values: save one",
    ),
    (mask(7, 7), ".png", "all of its masks are of one value"),
    (mask(0, 40000, kind=np.uint16), ".png", r"its masks hold the ids 0, 40000, and 0 to 253 can be classes"),
]


@pytest.mark.parametrize(("pixels", "ending", "message"), REFUSED, ids=range(len(REFUSED)))
def test_masks_that_are_none(pixels: np.ndarray, ending: str, message: str, tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    draw(tmp_path / "masks" / f"a{ending}", pixels)
    with pytest.raises(UserError, match=f"images and masks: train 1 pictures.*, but .*{message}"):
        found_in(tmp_path, SEMANTIC)


def objects(count: int, first: int = 1) -> np.ndarray:
    """(H, W) uint16 with objects of 2 x 2 pixels."""
    numbers = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
    for place in range(count):
        numbers[2:4, 3 * place : 3 * place + 2] = first + place
    return numbers


def cellpose(folder: Path) -> None:
    """https://cellpose.readthedocs.io/en/latest/train.html: wells_000_img.tif and wells_000_masks.tif"""
    for place in range(4):
        draw(folder / f"wells_00{place}_img.tif")
        draw(folder / f"wells_00{place}_masks.tif", objects(5 + place, first=300 * (place > 1) + 1))
        write(folder / f"wells_00{place}_img_seg.npy", "")


def cellpose_gui(folder: Path) -> None:
    """https://cellpose.readthedocs.io/en/latest/outputs.html: masks are saved as NAME_cp_masks.png"""
    for place in range(4):
        draw(folder / f"{place}.png")
        draw(folder / f"{place}_cp_masks.png", objects(5 + place))


def stardist(folder: Path) -> None:
    """https://github.com/stardist/stardist/blob/main/examples/2D/1_data.ipynb: images/ and masks/ of train and test"""
    for split in ("train", "test"):
        for place in range(4):
            draw(folder / "dsb2018" / split / "images" / f"{place}a.tif")
            draw(folder / "dsb2018" / split / "masks" / f"{place}a.tif", objects(5 + place))


@pytest.mark.parametrize("layout", [cellpose, cellpose_gui, stardist], ids=lambda layout: layout.__name__)
def test_a_number_for_each_object(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    found = found_in(tmp_path, INSTANCES)
    assert found.words.startswith("instance masks, a number for each object: train 4 ")
    data = opened(found, INSTANCES)
    assert (data.labels, len(data.train) + len(data.validation)) == (["object"], 4)
    counts = sorted(
        len(split[index]["masks"]) for split in (data.train, data.validation) for index in range(len(split))
    )
    assert counts == [5, 6, 7, 8]
    assert (data.test is not None) == (layout is stardist)
    with pytest.raises(UserError, match="serves instance_segmentation and object_detection, not semantic.*no classes"):
        found_in(tmp_path, SEMANTIC)


def one_object(place: int) -> np.ndarray:
    """The mask of a single one of three."""
    return (255 * (objects(3) == place + 1)).astype(np.uint8)


def data_science_bowl(folder: Path) -> None:
    """https://www.kaggle.com/c/data-science-bowl-2018/data: stage1_train/ID/images/ID.png and ID/masks/"""
    for name in ("0a", "1b", "2c"):
        draw(folder / "stage1_train" / name / "images" / f"{name}.png")
        for place in range(3):
            draw(
                folder / "stage1_train" / name / "masks" / f"{place}{place}.png",
                (255 * (objects(3) == place + 1)).astype(np.uint8),
            )
    draw(folder / "stage1_test" / "3d" / "images" / "3d.png")
    write(folder / "stage1_train_labels.csv", "ImageId,EncodedPixels\n")


def a_folder_a_picture(folder: Path) -> None:
    """images/a.png and masks/a/*.png"""
    for name in ("0a", "1b", "2c"):
        draw(folder / "images" / f"{name}.png")
        for place in range(3):
            draw(folder / "masks" / name / f"{place}{place}.png", one_object(place))


@pytest.mark.parametrize("layout", [data_science_bowl, a_folder_a_picture], ids=lambda layout: layout.__name__)
def test_a_file_for_each_object(layout: Callable[[Path], None], tmp_path: Path) -> None:
    layout(tmp_path)
    found = found_in(tmp_path, INSTANCES)
    assert found.words.startswith("instance masks, a file for each object: train 3 pictures")
    assert "9 masks, 1 class (object), which no file names" in found.words
    data = opened(found, INSTANCES)
    assert (len(data.train) + len(data.validation), data.train[0]["boxes"].tolist()) == (
        3,
        [[0, 2, 2, 4], [3, 2, 5, 4], [6, 2, 8, 4]],
    )
    painted = opened(found_in(tmp_path, SEMANTIC), SEMANTIC)
    assert (painted.labels, painted.train[0]["semantic_map"].unique().tolist()) == (["background", "object"], [0, 1])
    with pytest.raises(UserError, match="serves instance_.* and object_detection and semantic_s.*, not panoptic_s"):
        found_in(tmp_path, "panoptic_segmentation")


def test_masks_of_classes_show_no_instances(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(tmp_path / "images" / f"{name}.jpg")
        draw(tmp_path / "masks" / f"{name}.png", mask(0, 255))
    message = "it serves semantic_segmentation, not instance_segmentation; its masks tell classes apart"
    with pytest.raises(UserError, match=message):
        found_in(tmp_path, INSTANCES)


def test_annotations_say_more_than_masks(tmp_path: Path) -> None:
    """Where COCO's JSON and masks of objects are in one folder, the JSON, which names classes, is taken."""
    for place in range(3):
        draw(tmp_path / "images" / f"{place}.png")
        draw(tmp_path / "masks" / f"{place}.png", objects(5 + place))
    assert found_in(tmp_path, "object_detection").data["format"] == "instance_masks"
    write(tmp_path / "annotations.json", coco([f"{place}.png" for place in range(3)]))
    assert found_in(tmp_path, "object_detection").data["format"] == "coco"


def test_masks_without_a_background_show_no_instances(tmp_path: Path) -> None:
    for name, values in (("a", (1, 2)), ("b", (1, 2, 3, 4)), ("c", (1, 2, 3, 4, 5))):
        draw(tmp_path / "images" / f"{name}.png")
        draw(tmp_path / "masks" / f"{name}.png", mask(*values))
    with pytest.raises(UserError, match="its masks tell classes apart, and no objects"):
        found_in(tmp_path, INSTANCES)
