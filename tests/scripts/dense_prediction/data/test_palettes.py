"""Masks whose colours stand for classes, which the recipe names."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.loading import load_data
from dense_prediction.data.samples import IGNORE_INDEX
from dense_prediction.data.tables.row_splits import RowSplit
from dense_prediction.data.tables.rows import SemanticReader
from dense_prediction.errors import UserError
from dense_prediction.recipes.loading import load_recipe, resolve
from test_data_folders import SEMANTIC, ade_recipe, voc_recipe, write_ade, write_picture, write_voc


ROAD, SKY, VOID = (128, 64, 128), (70, 130, 180), (0, 0, 0)
COLOURS = np.array([[ROAD, SKY, VOID, SKY, (1, 2, 3)]] * 4, dtype=np.uint8)
PALETTE = {"road": ROAD, "sky": [SKY, (1, 2, 3)], 255: VOID}
FIELDS: dict[str, Any] = {"labels": ["road", "sky"], "reduce_labels": False, "palette": PALETTE}
MAP = [[0, 1, IGNORE_INDEX, 1, 1]] * 4


def write_colours(folder: Path, mask: Image.Image) -> None:
    write_ade(folder, stems=("b",))
    for part in ("training", "validation"):
        mask.save(folder / "annotations" / part / "b.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_in_folders(tmp_path: Path, mode: str) -> None:
    """Whatever the file keeps them as: the numbers of a P file's own palette say nothing."""
    image = Image.fromarray(COLOURS)
    write_colours(tmp_path, image.quantize(5) if mode == "P" else image.convert(mode))
    data = load_data(ade_recipe(tmp_path, **FIELDS), SEMANTIC)
    assert data.train[0]["semantic_map"].tolist() == MAP


def test_ids_of_a_palette_are_those_of_masks_of_ids(tmp_path: Path) -> None:
    """With data.reduce_labels, 0 is no class and 1 the first; names are classes in any case."""
    write_colours(tmp_path, Image.fromarray(COLOURS))
    palette = {1: ROAD, "sky": [SKY, (1, 2, 3)], 0: VOID}
    recipe = ade_recipe(tmp_path, **FIELDS | {"reduce_labels": True, "palette": palette})
    assert load_data(recipe, SEMANTIC).train[0]["semantic_map"].tolist() == MAP


def test_colours_in_voc(tmp_path: Path) -> None:
    write_voc(tmp_path, "")
    pixels = np.tile(COLOURS, (2, 2, 1))
    write_picture(tmp_path / "SegmentationClass" / "2007_000001.png", pixels)
    data = load_data(voc_recipe(tmp_path, labels=["road", "sky"], palette=PALETTE), SEMANTIC)
    assert data.train[0]["semantic_map"].tolist() == [row * 2 for row in MAP] * 2


def test_colours_in_rows() -> None:
    data = io.BytesIO()
    Image.fromarray(COLOURS).save(data, "PNG")
    cell = {"bytes": data.getvalue(), "path": None}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": [cell], "label": [cell]}, features)
    options = DatasetsOptions(path="unused", labels=["road", "sky"], palette=PALETTE)
    split = RowSplit(rows, SemanticReader(options, rows.features, ("image", "label")))
    assert split[0]["semantic_map"].tolist() == MAP


def test_a_colour_that_the_palette_does_not_name(tmp_path: Path) -> None:
    write_colours(tmp_path, Image.fromarray(COLOURS))
    recipe = ade_recipe(tmp_path, **FIELDS | {"palette": {"road": ROAD, 255: VOID}})
    message = r"b.png: label has 2 colours that data.palette does not name: \[\[1, 2, 3\], \[70, 130, 180\]\]"
    with pytest.raises(UserError, match=message):
        load_data(recipe, SEMANTIC).train[0]


def test_colours_without_a_palette(tmp_path: Path) -> None:
    write_colours(tmp_path, Image.fromarray(COLOURS))
    with pytest.raises(UserError, match=r"label has shape \(4, 5, 3\), .*needs data.palette={CLASS: \[red, green"):
        load_data(ade_recipe(tmp_path, **FIELDS | {"palette": None}), SEMANTIC).train[0]


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        ({"tree": ROAD}, "data.palette: 'tree' is no class of data.labels and no id; the classes are road, sky"),
        ({"road": ROAD, "sky": ROAD}, r"data.palette: the colour \[128, 64, 128\] stands for two classes"),
        ({}, "data.palette names no colour"),
    ],
)
def test_a_palette_that_contradicts_the_labels(tmp_path: Path, palette: dict[Any, Any], message: str) -> None:
    write_colours(tmp_path, Image.fromarray(COLOURS))
    with pytest.raises(UserError, match=message):
        load_data(ade_recipe(tmp_path, **FIELDS | {"palette": palette}), SEMANTIC)


def test_a_palette_in_a_recipe(tmp_path: Path) -> None:
    """As YAML has it, on the command line, and as a run writes it down, where ids have become words."""
    write_colours(tmp_path, Image.fromarray(COLOURS))
    said = "data.palette={road: [128, 64, 128], 1: [[70, 130, 180], [1, 2, 3]], 255: [0, 0, 0]}"
    name = "semantic_segmentation/ade20k/upernet_vit-comer-s"
    places = ["data.images={train: images/training, validation: images/validation}"]
    places += ["data.masks={train: annotations/training, validation: annotations/validation}"]
    more = ["data.labels=[road, sky]", "data.reduce_labels=false", f"data.path={tmp_path}", *places]
    recipe = load_recipe(name, [said, *more])
    assert load_data(recipe.data, SEMANTIC).train[0]["semantic_map"].tolist() == MAP
    written = json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert load_data(resolve(written).data, SEMANTIC).train[0]["semantic_map"].tolist() == MAP
    with pytest.raises(UserError, match="data.palette.road"):
        load_recipe(name, ["data.palette={road: [128, 64, 256]}", *more])
