"""Images and masks in folders as ADE20K has them, and Pascal VOC."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from dense_prediction.data.formats.folders import FoldersOptions
from dense_prediction.data.formats.voc import VocOptions
from dense_prediction.data.loading import load_data
from dense_prediction.data.samples import IGNORE_INDEX
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS


SEMANTIC, DETECTION = TASKS["semantic_segmentation"], TASKS["object_detection"]
IDS = np.array([[0, 1, 2, 3, 255]] * 4, dtype=np.uint8)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_ade(folder: Path, suffix: str = ".png", stems: tuple[str, ...] = ("b", "nested/a.1")) -> FoldersOptions:
    for part in ("training", "validation"):
        for stem in stems:
            write_picture(folder / "images" / part / f"{stem}.jpg", np.zeros((4, 5, 3), dtype=np.uint8))
            write_picture(folder / "annotations" / part / f"{stem}{suffix}", IDS)
    return ade_recipe(folder)


def ade_recipe(folder: Path, **fields: Any) -> FoldersOptions:
    defaults: dict[str, Any] = {
        "path": str(folder),
        "images": {"train": "images/training", "validation": "images/validation"},
        "masks": {"train": "annotations/training", "validation": "annotations/validation"},
        "labels": ["wall", "sky", "tree"],
        "reduce_labels": True,
    }
    return FoldersOptions(**(defaults | fields))


def test_images_and_masks_are_matched_by_stem(tmp_path: Path) -> None:
    data = load_data(write_ade(tmp_path), SEMANTIC)
    assert (len(data.train), len(data.validation)) == (2, 2)
    assert data.category_ids == [1, 2, 3], "as the files have them, 0 being no class"
    images = tmp_path / "images" / "training"
    assert [sample["name"] for sample in data.train] == [str(images / "b.jpg"), str(images / "nested" / "a.1.jpg")]
    sample = data.train[1]
    assert sample["image"].shape == (3, 4, 5)
    assert sample["semantic_map"].tolist() == [[IGNORE_INDEX, 0, 1, 2, IGNORE_INDEX]] * 4


def test_a_suffix_of_the_masks(tmp_path: Path) -> None:
    write_ade(tmp_path, "_labelTrainIds.png")
    with pytest.raises(UserError, match=r"b.jpg would have b.png; set data.mask_suffix \(now .png\)"):
        load_data(ade_recipe(tmp_path), SEMANTIC)
    fields = {"labels": ["a", "b", "c", "d"], "reduce_labels": False, "mask_suffix": "_labelTrainIds.png"}
    data = load_data(ade_recipe(tmp_path, **fields), SEMANTIC)
    assert data.train[0]["semantic_map"].tolist() == [[0, 1, 2, 3, IGNORE_INDEX]] * 4
    assert data.category_ids is None


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (IDS + 1, r"holds ids \[4\], allowed are 1\.\.3 \(data.labels\) and 255 .* and 0 \(data.reduce_labels\)"),
        (np.zeros((4, 5), dtype=np.uint8), "no pixel is labelled"),
        (IDS.T, r"label has shape \(5, 4\)"),
        (None, "b.png does not exist"),
    ],
    ids=range(4),
)
def test_a_bad_mask_is_reported_by_its_file(tmp_path: Path, ids: np.ndarray | None, message: str) -> None:
    recipe = write_ade(tmp_path)
    mask = tmp_path / "annotations" / "training" / "b.png"
    mask.unlink()
    if ids is not None:
        write_picture(mask, ids)
    with pytest.raises(UserError, match=message) as caught:
        load_data(recipe, SEMANTIC).train[0]
    assert "b.png" in str(caught.value)


def test_two_images_of_one_mask_are_refused(tmp_path: Path) -> None:
    recipe = write_ade(tmp_path)
    write_picture(tmp_path / "images" / "training" / "b.png", np.zeros((4, 5, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"b.jpg and b.png in .*training would both have the mask b.png"):
        load_data(recipe, SEMANTIC)


def test_folders_that_are_links_are_read(tmp_path: Path) -> None:
    recipe = write_ade(tmp_path)
    for part in ("images", "annotations"):
        folder = tmp_path / part / "training" / "nested"
        folder.rename(tmp_path / f"elsewhere_{part}")
        folder.symlink_to(tmp_path / f"elsewhere_{part}")
    assert len(load_data(recipe, SEMANTIC).train) == 2


TURNED = Image.Exif()
TURNED[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees to the right


@pytest.mark.parametrize(
    ("orientation", "left", "right"),
    [("stored", [255, 0], [255, 0]), ("upright", [255, 255], [0, 0]), ("auto", [255, 255], [0, 0])],
)
def test_turned_pictures(tmp_path: Path, orientation: str, left: list[int], right: list[int]) -> None:
    """White above, black below as the pixels are stored; where size does not tell, upright is what people look at."""
    write_ade(tmp_path, stems=("b",))
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2] = 255
    Image.fromarray(pixels).save(tmp_path / "images" / "training" / "b.png", exif=TURNED)
    (tmp_path / "images" / "training" / "b.jpg").unlink()
    write_picture(tmp_path / "annotations" / "training" / "b.png", IDS[:, :4])
    image = load_data(ade_recipe(tmp_path, exif_orientation=orientation), SEMANTIC).train[0]["image"]
    assert ([*map(int, image[0, [0, 3], 3])], [*map(int, image[0, [0, 3], 0])]) == (left, right)
    assert ade_recipe(tmp_path).exif_orientation == "auto"


def test_a_damaged_image_is_reported_by_its_file(tmp_path: Path) -> None:
    recipe = write_ade(tmp_path)
    image = tmp_path / "images" / "training" / "b.jpg"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(UserError, match=r"b\.jpg cannot be decoded"):
        load_data(recipe, SEMANTIC).train[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": None}, "the dataset does not name its classes: list them in data.labels"),
        ({"masks": {}}, "data.masks says no place for this split; set data.masks.train=PATH"),
        ({"images": {"train": "annotations/empty"}}, "data.train_split=train: the split is empty"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    write_ade(tmp_path)
    (tmp_path / "annotations" / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        load_data(ade_recipe(tmp_path, **fields), SEMANTIC)


BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>6</xmax><ymax>4</ymax></bndbox>"
CAT = f"<object><name>cat</name><difficult>0</difficult>{BOX}<part><name>head</name>{BOX}</part></object>"
DOG = f"<object><name>dog</name><difficult>1</difficult>{BOX.replace('>6<', '>99<')}</object>"


def write_voc(folder: Path, objects: str) -> VocOptions:
    """One picture, 2007_000001, of 8 x 10 pixels in the split trainval of both tasks."""
    stem = "2007_000001"
    write_picture(folder / "JPEGImages" / f"{stem}.jpg", np.zeros((8, 10, 3), dtype=np.uint8))
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{objects}</annotation>")
    for task in ("Main", "Segmentation"):
        (folder / "ImageSets" / task).mkdir(parents=True)
        (folder / "ImageSets" / task / "trainval.txt").write_text(f"{stem}\n")
    mask = Image.fromarray(np.array([[0, 1] * 4 + [2, 255]] * 8, dtype=np.uint8), mode="P")
    mask.putpalette(list(range(256)) * 3)
    (folder / "SegmentationClass").mkdir()
    mask.save(folder / "SegmentationClass" / f"{stem}.png")
    return voc_recipe(folder)


def voc_recipe(folder: Path, **fields: Any) -> VocOptions:
    splits = {"train_split": "trainval", "validation_split": "trainval"}
    return VocOptions(**({"path": str(folder), "labels": ["cat", "dog"]} | splits | fields))


def test_voc_boxes(tmp_path: Path) -> None:
    unknown = "<size><width>0</width><height></height></size>"
    data = load_data(write_voc(tmp_path, unknown + CAT + DOG), DETECTION)
    assert (data.labels, data.things) == (["cat", "dog"], {0, 1})
    sample = data.train[0]
    assert sample["boxes"].tolist() == [[1, 2, 6, 4], [1, 2, 10, 4]], "VOC counts pixels from 1"
    assert sample["labels"].tolist() == [0, 1]
    assert sample["is_crowd"].tolist() == [False, True], "difficult objects are not to be found"
    assert sample["areas"].tolist() == [10, 18]
    assert sample["name"].endswith("2007_000001.jpg")


def test_voc_masks(tmp_path: Path) -> None:
    write_voc(tmp_path, "")
    data = load_data(voc_recipe(tmp_path, labels=["background", "cat", "dog"]), SEMANTIC)
    assert data.train[0]["semantic_map"].tolist() == [[0, 1] * 4 + [2, IGNORE_INDEX]] * 8


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (f"<size><width>20</width><height>16</height></size>{CAT}", r"\(8, 10\), but was annotated as \(16.0, 20.0\)"),
        ("<size><width>wide</width></size>", "its height and width are '0' and 'wide'"),
        (CAT.replace("cat", "Cat"), "unknown category 'Cat'"),
        (CAT.replace(">2<", ">20<").replace(">6<", ">30<"), "has no area"),
        (CAT.replace("xmin", "left"), "an object of category 'cat' has no box of four numbers"),
        ("<object>", "is not XML"),
    ],
    ids=range(6),
)
def test_a_bad_voc_file_is_reported(tmp_path: Path, objects: str, message: str) -> None:
    data = load_data(write_voc(tmp_path, objects), DETECTION)
    with pytest.raises(UserError, match=message) as caught:
        data.train[0]
    assert "2007_000001." in str(caught.value)


def test_voc_files_that_are_missing(tmp_path: Path) -> None:
    data = load_data(write_voc(tmp_path, CAT), DETECTION)
    with pytest.raises(UserError, match="data.train_split=train: .*Main has no train.txt, it has trainval"):
        load_data(voc_recipe(tmp_path, train_split="train"), DETECTION)
    (tmp_path / "Annotations" / "2007_000001.xml").unlink()
    with pytest.raises(UserError, match=r"2007_000001\.xml does not exist"):
        data.train[0]


@pytest.mark.parametrize(
    "pixels",
    [
        np.array([[0, 9, 128, 250, 255]] * 4, dtype=np.uint8),
        np.array([[[0, 0, 0], [3, 9, 2], [128, 130, 120], [250, 251, 249], [255] * 3]] * 4, dtype=np.uint8),
        np.array([[0, 127, 128, 4000, 65535]] * 4, dtype=np.uint16),
        np.array([[False, False, True, True, True]] * 4),
    ],
    ids=["grey", "colours", "16 bits", "1 bit"],
)
def test_a_number_that_parts_two_classes(pixels: np.ndarray, tmp_path: Path) -> None:
    write_ade(tmp_path)
    for part in ("training", "validation"):
        for stem in ("b", "nested/a.1"):
            write_picture(tmp_path / "annotations" / part / f"{stem}.png", pixels)
    fields: dict[str, Any] = {"labels": ["no", "yes"], "reduce_labels": False, "foreground_from": 128}
    data = load_data(ade_recipe(tmp_path, **fields), SEMANTIC)
    assert data.train[0]["semantic_map"].tolist() == [[0, 0, 1, 1, 1]] * 4
    glance = data.train.glance
    assert glance is not None and glance(0).pixels == {0: 8, 1: 12}


@pytest.mark.parametrize(
    "fields",
    [{"labels": ["a", "b", "c"]}, {"reduce_labels": True}, {"foreground_255": True}, {"palette": {"no": (0, 0, 0)}}],
    ids=str,
)
def test_a_number_parts_two_classes_and_nothing_else(fields: dict[str, Any], tmp_path: Path) -> None:
    write_ade(tmp_path)
    given = {"labels": ["no", "yes"], "reduce_labels": False, "foreground_from": 128} | fields
    with pytest.raises(UserError, match="data.foreground_from=128 is for two classes that a number parts"):
        load_data(ade_recipe(tmp_path, **given), SEMANTIC)


def test_several_patterns_and_files_that_show_the_same_as_others(tmp_path: Path) -> None:
    """Each file takes the first pattern that fits; what is called after an image with a mask is none itself."""
    for part, word in (("training", "training"), ("validation", "test")):
        for name in (f"1_{word}", f"1_{word}_more"):
            write_picture(tmp_path / "images" / part / f"{name}.png", np.zeros((4, 5, 3), dtype=np.uint8))
        write_picture(tmp_path / "annotations" / part / f"1_{word}_mask.png", IDS)
    patterns = {"image_stem": "*_training|*_test|*", "mask_suffix": "_training_mask.png|_test_mask.png|.png"}
    data = load_data(ade_recipe(tmp_path, **patterns), SEMANTIC)
    assert [[Path(sample["name"]).name for sample in split] for split in (data.train, data.validation)] == [
        ["1_training.png"],
        ["1_test.png"],
    ]
