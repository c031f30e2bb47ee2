"""Recipes that version 0.1.0 wrote down, with all keys of all formats, mean the same today."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dense_prediction.data.formats.coco import CocoOptions
from dense_prediction.data.formats.synthetic_shapes import SyntheticShapesOptions
from dense_prediction.errors import UserError
from dense_prediction.recipes.loading import load_recipe, resolve
from miniature import ROOT


FLAT = {
    "path": "./datasets/coco",
    "format": "coco",
    "train_split": "train",
    "validation_split": "validation",
    "test_split": None,
    "image_column": "image",
    "label_column": "label",
    "objects_column": "objects",
    "box_format": "xywh",
    "images": {"train": "train2017", "validation": "val2017"},
    "masks": {},
    "mask_suffix": ".png",
    "annotations": {"train": "train.json", "validation": "validation.json"},
    "labels": "configuration/labels/ade20k.txt",
    "ignore_index": 255,
    "reduce_labels": False,
    "bad_samples": "skip",
    "exif_orientation": "stored",
    "streaming": False,
    "shuffle_buffer": 1000,
    "max_train_samples": None,
    "max_validation_samples": 64,
    "workers": 4,
}
TREE = {
    "name": "object_detection/coco/mine",
    "task": "object_detection",
    "data": FLAT,
    "transforms": {"resize": "shortest_edge"},
    "backbone": {"config": "configuration/backbones/vit-comer-s.json", "overrides": {}},
    "head": {"name": "detr", "config": {}},
    "optimization": {"learning_rate": 1e-4},
    "training": {"steps": 6, "batch_size": 2, "evaluate_every": 6, "checkpoint_every": 2},
    "output": "outputs/elsewhere",
}
ADE20K = (ROOT / "configuration" / "labels" / "ade20k.txt").read_text().split("\n")[:-1]


@pytest.fixture(autouse=True)
def in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def write(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "some_file.json"
    path.write_text(json.dumps(tree))
    return path


def test_a_resolved_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, TREE))
    assert (recipe.name, recipe.output) == ("object_detection/coco/mine", "outputs/elsewhere")
    assert type(recipe.data) is CocoOptions
    assert recipe.data.labels == ADE20K
    kept = dataclasses.asdict(recipe.data)
    old = kept.keys() & FLAT.keys() - {"labels"}
    assert {key: FLAT[key] for key in old} == {key: kept[key] for key in old}
    assert kept["crowds"] == "ignore", "a key of today says what went without saying"
    assert recipe.backbone.config == "vit-comer-s"
    assert resolve(TREE) == recipe
    assert resolve(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe, "today's form stays as it is"
    with pytest.raises(UserError, match="name is not to be set"):
        load_recipe(tmp_path / "some_file.json", ["name=other"])


def test_the_path_names_what_has_no_name(tmp_path: Path) -> None:
    """Of such a file another keeps the values, and not the name."""
    path = write(tmp_path, {key: value for key, value in TREE.items() if key != "name"})
    assert load_recipe(path).name == "some_file"
    (tmp_path / "mine.yaml").write_text(f"base: [{write(tmp_path, TREE).name}]")
    assert load_recipe(tmp_path / "mine.yaml").name == "mine"


@pytest.mark.parametrize(("key", "value"), [("streaming", True), ("masks", {"train": "x"}), ("reduce_labels", True)])
def test_keys_of_another_format_said_nothing(tmp_path: Path, key: str, value: object) -> None:
    """A run wrote down all keys, also those that somebody had typed in vain; a person is told of them."""
    changed = TREE | {"data": FLAT | {key: value}}
    assert resolve(changed) == resolve(TREE)
    assert load_recipe(write(tmp_path, changed)) == resolve(TREE)
    del changed["name"]
    with pytest.raises(UserError, match=f"unknown key 'data.{key}' for data.format=coco"):
        load_recipe(write(tmp_path, changed))
    with pytest.raises(UserError, match=f"unknown key 'data.{key}' for data.format=coco"):
        load_recipe(write(tmp_path, TREE), [f"data.{key}={json.dumps(value)}"])


def test_drawn_shapes_were_named_by_their_path() -> None:
    data = FLAT | {"path": "synthetic_shapes", "labels": None}
    for name in ("datasets", "coco"):
        assert type(resolve(TREE | {"data": data | {"format": name}}).data) is SyntheticShapesOptions


def test_paths_were_relative_to_the_working_folder(tmp_path: Path) -> None:
    """A file there comes before one of the package, unless they are the same."""
    Path("names.txt").write_text("cat\ndog\n")
    for tree in (TREE, {key: value for key, value in TREE.items() if key != "name"}):
        path = write(tmp_path, tree | {"data": FLAT | {"labels": "names.txt"}})
        assert load_recipe(path).data.labels == ["cat", "dog"]

    own = Path("configuration/backbones/vit-comer-s.json")
    own.parent.mkdir(parents=True)
    own.write_bytes((ROOT / own).read_bytes())
    assert resolve(TREE).backbone.config == "vit-comer-s"
    own.write_text("{}")
    assert resolve(TREE).backbone.config == str(own)
    Path("configuration/labels").mkdir()
    Path("configuration/labels/ade20k.txt").write_text("cow\n")
    assert resolve(TREE).data.labels == ["cow"]


def test_paths_of_other_backbones_stay() -> None:
    for config in ("configuration/backbones/absent.json", "/elsewhere/vit-comer-s.json", None):
        assert resolve(TREE | {"backbone": {"config": config}}).backbone.config == config
