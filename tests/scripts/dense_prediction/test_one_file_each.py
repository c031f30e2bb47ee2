"""A format of data, a head and a task are added by one file each, and then trained, measured, drawn and written."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import toy_format  # noqa: F401, a format is found by being a class of options
from PIL import Image
from toy_head import HEAD
from toy_task import TASK

from dense_prediction import evaluate, load_model, train
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models import heads
from dense_prediction.recipes.loading import load_recipe


TOYS = {
    "task": "worst_class",
    "data.format": "toy",
    "data.path": "toy",
    "data.pictures": 3,
    "head": {"name": "toy", "config": {}},
    "training.steps": 2,
    "training.evaluate_every": 2,
}


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_registered", {})
    heads.register("toy", dataclasses.replace(HEAD, tasks=("semantic_segmentation", "worst_class")))
    monkeypatch.setitem(TASKS, TASK.name, TASK)


def test_toys_are_trained_measured_drawn_and_written(toys: None, recipe_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    results = train(recipe_file, TOYS | {"output": str(output)})
    assert (results["task"], results["best"]["metric"], results["step"]) == ("worst_class", "worst_iou", 2)
    assert results["recipe"]["data"]["pictures"] == 3
    assert Image.open(output / "predictions.png").width > 300

    measured = evaluate(recipe_file, output / "best_model", overrides=TOYS)
    assert (measured["pictures"], measured["metrics"]) == (2, {"worst_iou": results["best"]["worst_iou"]})

    model = load_model(output / "best_model")
    picture = Image.fromarray(np.full((64, 64, 3), 7, dtype=np.uint8))
    prediction = model.predict(picture)
    annotations = model.describe(Path("a.png"), prediction, (64, 64))["annotations"]
    assert sum(each["pixels"] for each in annotations) == 64 * 64
    assert {each["category"] for each in annotations} <= {"dark", "bright"}
    drawn = {color for _, color in model.draw(picture, prediction, legend="none").getcolors()}
    bright = bool((prediction["semantic_map"] == 1).any())
    assert drawn <= {(7, 7, 7), (255, 255, 255)} and ((255, 255, 255) in drawn) == bright
    json.dumps(annotations)


def test_without_them_they_are_refused(recipe_file: Path) -> None:
    with pytest.raises(UserError, match="task=worst_class cannot be learnt, there are semantic_segmentation, "):
        train(recipe_file, {key: value for key, value in TOYS.items() if key != "head"})
    with pytest.raises(UserError, match="which is no head"):
        load_recipe(recipe_file, ["head.name=toy"])
    with pytest.raises(
        UserError, match=r"unknown key 'data.pictures' for data.format=synthetic_shapes; .*=toy has it"
    ):
        load_recipe(recipe_file, ["data.pictures=3"])
