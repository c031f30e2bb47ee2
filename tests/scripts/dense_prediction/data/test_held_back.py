"""The share of the training pictures that is measured: by names alone, the same everywhere, never nothing."""

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.formats.synthetic_shapes import SyntheticShapesOptions
from dense_prediction.data.held_back import hold_back, source_of
from dense_prediction.data.loading import load_data
from dense_prediction.data.samples import Sample
from dense_prediction.data.tables.row_splits import _name_of
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from test_data_folders import ade_recipe, write_ade


SEMANTIC = TASKS["semantic_segmentation"]


class Named:
    """A split of pictures without pixels."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return {"name": self.names[index]}

    def picture_names(self) -> Sequence[str]:
        return self.names


def held(names: Sequence[str], share: float = 0.2) -> list[str]:
    """The names of the pictures that are held back, in their order; the others are all the rest, in theirs."""
    split = Named(names)
    learnt, measured = ([part[index]["name"] for index in range(len(part))] for part in hold_back(split, share))
    assert learnt == [name for name in names if name not in set(measured)]
    assert measured == [name for name in names if name in set(measured)]
    return measured


NAMES = [f"IMG_{number}.jpg" for number in range(1000)]


def test_the_share_is_kept_about() -> None:
    assert 160 < len(held(NAMES)) < 240
    assert 460 < len(held(NAMES, 0.5)) < 540
    assert set(held(NAMES)) < set(held(NAMES, 0.5)), "a larger share holds the smaller one"


def test_the_same_on_every_machine() -> None:
    assert held(NAMES[:40]) == [f"IMG_{number}.jpg" for number in HELD]


HELD = [0, 4, 13, 15, 18, 19, 21, 31, 34, 36, 39]


def test_pictures_stay_when_others_are_added_or_come_in_another_order() -> None:
    before, names = set(held(NAMES[:300])), list(NAMES)
    Random(0).shuffle(names)
    assert before == set(held(names)) & set(NAMES[:300])


@pytest.mark.parametrize("share", [1e-9, 0.2, 1 - 1e-9])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_no_side_is_empty(share: float, count: int) -> None:
    for start in range(0, 200, count):
        assert 0 < len(held(NAMES[start : start + count], share)) < count
    twins = ["a_aug1.png", "a_aug2.png"]
    assert len(held(twins, share)) == 1, "though they are of one source"
    assert [len(part) for part in hold_back(Named(["a.png", "a.png"]), share)] == [1, 1]


def test_one_picture_cannot_be_shared() -> None:
    with pytest.raises(UserError, match="data.validation_share=0.2 needs at least 2 pictures of training, there is 1"):
        hold_back(Named(["a.png"]), 0.2)


SOURCES = [
    ("a/IMG_7_jpg.rf.0a1b2c3d4e.jpg", "a/IMG_7"),
    ("IMG_7.jpg", "IMG_7"),
    ("IMG_7.JPG", "IMG_7"),
    ("scan_crop_0_512.png", "scan"),
    ("scan-tile-3.png", "scan"),
    ("scan_aug3_flip.png", "scan"),
    ("scan_hflip_png.rf.01.jpg", "scan"),
    ("a\\b_rot90.png", "a/b"),
    ("crop_1.png", "crop_1"),
    ("_crop_1.png", "_crop_1"),
    ("2024-05-01_0001.png", "2024-05-01_0001"),
    ("tile.png", "tile"),
    ("recrop_2.png", "recrop_2"),
    ("e\u0301.png", "\u00e9"),
]


@pytest.mark.parametrize(("name", "source"), SOURCES)
def test_what_a_picture_was_made_from(name: str, source: str) -> None:
    assert source_of(name) == source


def test_pictures_of_one_source_stay_together() -> None:
    names = [f"{stem}_jpg.rf.{copy:032x}.jpg" for stem in range(100) for copy in range(3)]
    sides = [{re.sub(r"_jpg.*", "", name) for name in part} for part in (held(names), set(names) - set(held(names)))]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_a_split_of_a_recipe(tmp_path: Path) -> None:
    """Learnt and measured are all pictures of the training split, each once; the test split stays."""
    write_ade(tmp_path, stems=tuple(f"nested/{number}" for number in range(30)))
    fields: dict[str, Any] = {"images": {"train": "images/training"}, "masks": {"train": "annotations/training"}}
    data = load_data(ade_recipe(tmp_path, **fields, validation_share=0.3), SEMANTIC)
    learnt, measured = (
        {split[index]["name"] for index in range(len(split))} for split in (data.train, data.validation)
    )
    assert len(learnt) + len(measured) == 30 and not learnt & measured
    assert len(measured) < len(learnt)
    assert data.train.glance is not None and data.train.glance(0).name.endswith(
        Path(data.train[0]["name"]).stem + ".png"
    )
    few = load_data(
        ade_recipe(tmp_path, **fields, validation_share=0.3, max_train_samples=4, max_validation_samples=2), SEMANTIC
    )
    assert (len(few.train), len(few.validation)) == (4, 2)
    assert few.train[0]["name"] == data.train[0]["name"]
    mask = tmp_path / "annotations" / "training" / "nested" / f"{Path(data.train[0]['name']).stem}.png"
    mask.write_text("")
    skipping = load_data(ade_recipe(tmp_path, **fields, validation_share=0.3, bad_samples="skip"), SEMANTIC)
    assert skipping.train[0] is None
    assert (skipping.train.num_skipped, skipping.validation.num_skipped) == (1, 0), "each counts its own"


def test_the_place_of_the_data_does_not_matter(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"images": {"train": "images/training"}, "masks": {"train": "annotations/training"}}
    sides = []
    for folder in ("here", "there/and/elsewhere"):
        write_ade(tmp_path / folder, stems=tuple(map(str, range(30))))
        data = load_data(ade_recipe(tmp_path / folder, **fields, validation_share=0.3), SEMANTIC)
        sides.append([Path(data.validation[index]["name"]).stem for index in range(len(data.validation))])
    assert sides[0] == sides[1]


def test_without_it_nothing_changes(tmp_path: Path) -> None:
    data = load_data(write_ade(tmp_path), SEMANTIC)
    assert (len(data.train), len(data.validation)) == (2, 2)


def test_a_format_without_names() -> None:
    data = load_data(SyntheticShapesOptions(validation_share=0.1), SEMANTIC)
    assert len(data.train) + len(data.validation) == 4000 and 300 < len(data.validation) < 500


def test_the_file_of_a_row_is_elsewhere_on_another_machine() -> None:
    rows = [{"image": {"path": f"{folder}/1.png", "bytes": None}} for folder in ("/volume_1/a", "/volume_2/b")]
    assert {_name_of(row, "image") for row in rows} == {"1.png"}


def test_rows_by_their_files_or_their_contents(tmp_path: Path) -> None:
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    images = [Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)) for shade in range(20)]
    labels = [Image.fromarray(np.eye(8, dtype=np.uint8))] * 20
    sides = []
    for order in (1, -1):
        rows = datasets.Dataset.from_dict({"image": images[::order], "label": labels}, features=columns)
        rows.to_parquet(tmp_path / str(order) / "data" / "train-00000-of-00001.parquet")
        options = DatasetsOptions(path=str(tmp_path / str(order)), labels=["a", "b"], validation_share=0.3)
        measured = load_data(options, SEMANTIC).validation
        sides.append({int(measured[index]["image"][0, 0, 0]) for index in range(len(measured))})
    assert sides[0] == sides[1] and 0 < len(sides[0]) < 20
    options = DatasetsOptions(path=str(tmp_path / "1"), labels=["a", "b"], validation_share=0.3, streaming=True)
    with pytest.raises(UserError, match="data.validation_share=0.3 needs data.streaming=false, or a split"):
        load_data(options, SEMANTIC)
