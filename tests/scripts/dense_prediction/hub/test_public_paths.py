"""What results.json says of a machine once it is on the Hub."""

import json
from pathlib import Path

import pytest

from dense_prediction.errors import UserError
from dense_prediction.hub.public_paths import without_folders, write_public


LOCAL = {
    "name": "semantic_segmentation/roads/upernet",
    "model": "/srv/outputs/roads/best_model",
    "overrides": ["data.path=/data/roads", "evaluation.flip=true", "output=outputs/x"],
    "command": ["/usr/bin/vit-comer train", "/srv/roads.yaml", "data.path=/data/roads", "--output=/srv/x", "a/b"],
    "curve": [{"step": 6, "loss": 0.5}],
    "evaluations": [{"class_iou": {"/m/01g317": 0.5}}],
    "recipe": {
        "data": {
            "path": "/data/roads",
            "images": {"train": "images/training", "validation": "/mnt/images/validation"},
            "annotations": {"train": "/mnt/coco/instances_train2017.json"},
            "labels": ["/m/01g317", "sky"],
            "ignore_index": 255,
        },
        "backbone": {
            "config": "configuration/backbones/vit-comer-s.json",
            "trunk": "timm/deit_small_patch16_224.fb_in1k",
            "trunk_weights": "/srv/weights/model.safetensors",
            "checkpoint": "org/vit-comer-s",
        },
        "output": "/srv/outputs/roads",
        "resume": None,
    },
}


def test_absolute_paths_keep_their_last_part_only(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(LOCAL))
    write_public(tmp_path / "results.json", tmp_path / "public.json")
    text = (tmp_path / "public.json").read_text()
    assert "/home" not in text and "/mnt" not in text and "/data/" not in text and "/srv" not in text
    public = json.loads(text)
    assert public["model"] == "best_model"
    assert public["overrides"] == ["data.path=roads", "evaluation.flip=true", "output=outputs/x"]
    assert public["command"] == ["vit-comer train", "roads.yaml", "data.path=roads", "--output=x", "a/b"]
    recipe = public["recipe"]
    assert recipe["data"]["path"] == recipe["output"] == "roads"
    assert recipe["data"]["images"] == {"train": "images/training", "validation": "validation"}
    assert recipe["data"]["annotations"] == {"train": "instances_train2017.json"}
    assert recipe["backbone"]["trunk_weights"] == "model.safetensors"


def test_everything_else_stays_as_it_is() -> None:
    public, recipe = without_folders(LOCAL), LOCAL["recipe"]
    for key in ("name", "curve", "evaluations"):
        assert public[key] == LOCAL[key]
    for key in ("labels", "ignore_index"):
        assert public["recipe"]["data"][key] == recipe["data"][key]
    for key in ("config", "trunk", "checkpoint"):
        assert public["recipe"]["backbone"][key] == recipe["backbone"][key]
    relative = {"data": {"path": "./datasets/roads"}, "output": "outputs/roads", "resume": None}
    assert without_folders(relative) == relative


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(UserError, match="is no result file: it holds a list"):
        write_public(tmp_path / "results.json", tmp_path / "public.json")
