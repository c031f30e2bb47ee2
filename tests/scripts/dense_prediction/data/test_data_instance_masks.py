"""Instances from masks that tell them apart: numbers with all their bits, files of single objects, other masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dense_prediction.data.formats.instance_masks import InstanceMasksOptions
from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from test_data_folders import write_picture


BOXES, MASKS = TASKS["object_detection"], TASKS["instance_segmentation"]
NUMBERS = np.array([[0, 0, 0, 0, 0, 0], [7, 7, 0, 300, 300, 0], [7, 7, 0, 0, 44, 44], [0, 0, 0, 0, 44, 0]])
"""Three objects, of which the third has the number 7 + 37, and the second one that does not fit into 8 bits."""


def options(folder: Path, **fields: Any) -> InstanceMasksOptions:
    places = {"images": {"train": "images"}, "masks": {"train": "masks"}, "validation_share": 0.5}
    return InstanceMasksOptions(path=str(folder), **(places | fields))


def write(folder: Path, mask: np.ndarray, names: tuple[str, ...] = ("a", "b"), ending: str = ".png") -> None:
    for name in names:
        write_picture(folder / "images" / f"{name}.png", np.zeros((*NUMBERS.shape, 3), dtype=np.uint8))
        write_picture(folder / "masks" / f"{name}{ending}", mask)


@pytest.mark.parametrize(
    ("kind", "ending"), [("uint16", ".png"), ("uint16", ".tif"), ("int32", ".tif"), ("float32", ".tif")]
)
def test_numbers_have_all_their_bits(kind: str, ending: str, tmp_path: Path) -> None:
    write(tmp_path, NUMBERS.astype(kind), ending=ending)
    data = load_data(options(tmp_path, mask_suffix=ending), MASKS)
    assert (data.labels, data.things, data.category_ids) == (["object"], {0}, None)
    sample = data.train[0]
    assert sample["boxes"].tolist() == [[0, 1, 2, 3], [4, 2, 6, 4], [3, 1, 5, 2]], "in the order of their numbers"
    assert sample["areas"].tolist() == [4, 3, 2] and sample["labels"].tolist() == [0, 0, 0]
    assert sample["masks"][2].tolist() == (NUMBERS == 300).tolist()
    assert data.train.glance is not None and data.train.glance(0).objects == ["object"] * 3


def test_boxes_alone(tmp_path: Path) -> None:
    write(tmp_path, NUMBERS.astype(np.uint16))
    sample = load_data(options(tmp_path, labels=["nucleus"]), BOXES).train[0]
    assert "masks" not in sample and sample["areas"].tolist() == [4, 3, 2], "of the pixels, not of the boxes"


def test_colours_are_numbers_too(tmp_path: Path) -> None:
    colours = np.zeros((*NUMBERS.shape, 3), dtype=np.uint8)
    colours[0, 0], colours[1, 1], colours[2, 2] = [1, 0, 0], [0, 1, 0], [0, 0, 1]
    write(tmp_path, colours)
    assert load_data(options(tmp_path), MASKS).train[0]["masks"].sum((1, 2)).tolist() == [1, 1, 1]


def test_a_mask_without_objects(tmp_path: Path) -> None:
    write(tmp_path, np.zeros(NUMBERS.shape, dtype=np.uint16))
    sample = load_data(options(tmp_path), MASKS).train[0]
    assert sample["boxes"].shape == (0, 4) and sample["masks"].shape == (0, *NUMBERS.shape)


def test_files_of_single_objects(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / "images" / f"{name}.png", np.zeros((*NUMBERS.shape, 3), dtype=np.uint8))
        for number in (7, 44):
            write_picture(tmp_path / "masks" / name / f"{number}.png", (255 * (number == NUMBERS)).astype(np.uint8))
        write_picture(tmp_path / "masks" / name / "empty.png", np.zeros(NUMBERS.shape, dtype=np.uint8))
        (tmp_path / "masks" / name / "Thumbs.db").write_text("")
    data = load_data(options(tmp_path, objects="files"), MASKS)
    assert sorted(data.train[0]["boxes"].tolist()) == [[0, 1, 2, 3], [4, 2, 6, 4]]
    (tmp_path / "masks" / "a").rename(tmp_path / "masks" / "c")
    data = load_data(options(tmp_path, objects="files"), MASKS)
    with pytest.raises(UserError, match=r"masks.a, the folder of the masks, cannot be read: No such file"):
        [split[0] for split in (data.train, data.validation)]
    (tmp_path / "masks" / "b").rename(tmp_path / "masks" / "d")
    with pytest.raises(UserError, match="no image in .* has a folder of masks in .*: a.png would have one"):
        load_data(options(tmp_path, objects="files"), MASKS)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (NUMBERS.T.astype(np.uint16), r"a.png has height and width \(6, 4\), its image .*a.png has \(4, 6\)"),
        (NUMBERS + 0.5, "holds float32 values, expected whole numbers"),
    ],
    ids=range(2),
)
def test_masks_of_other_pictures(mask: np.ndarray, message: str, tmp_path: Path) -> None:
    write(tmp_path, mask.astype(np.float32) if mask.dtype.kind == "f" else mask, ending=".tif")
    with pytest.raises(UserError, match=message.replace("a.png has h", "tif has h")):
        load_data(options(tmp_path, mask_suffix=".tif"), MASKS).train[0]


@pytest.mark.parametrize("mask", [NUMBERS, NUMBERS.T], ids=["stored", "upright"])
def test_a_picture_that_is_turned(mask: np.ndarray, tmp_path: Path) -> None:
    """As of all formats, the mask's size decides between stored and upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path, mask.astype(np.uint16))
    for name in ("a", "b"):
        picture = Image.fromarray(np.zeros((*NUMBERS.shape, 3), dtype=np.uint8))
        picture.save(tmp_path / "images" / f"{name}.png", exif=exif)
    assert load_data(options(tmp_path), MASKS).train[0]["image"].shape == (3, *mask.shape)


def test_one_class_alone(tmp_path: Path) -> None:
    write(tmp_path, NUMBERS.astype(np.uint16))
    with pytest.raises(UserError, match=r"data.labels=\['a', 'b'\]: masks that tell objects apart are of one class"):
        load_data(options(tmp_path, labels=["a", "b"]), MASKS)
