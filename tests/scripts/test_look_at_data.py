"""Both trainers and the evaluation look at the data first, and mean the same by what they have seen."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import finetune_with_trainer
import predict
import train
from dense_prediction import experiment, load_model
from dense_prediction.experiment import Experiment
from dense_prediction.prediction.evaluating import Measurement
from dense_prediction.recipes.loading import load_recipe
from miniature import ROOT
from scripts_in_process import last_error, run_script


SIDE = 64
SHORT = ("training.steps=2", "training.evaluate_every=2", "training.checkpoint_every=2")
SCRIPTS = pytest.mark.parametrize("script", [train, finetune_with_trainer], ids=lambda script: script.__name__)


def draw(path: Path, left: int, right: int) -> None:
    """An id on either side, and a picture whose right half is white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.full((SIDE, SIDE), left, dtype=np.uint8)
    ids[:, SIDE // 2 :] = right
    Image.fromarray(ids).save(path)


@pytest.fixture
def recipe(tmp_path: Path, recipe_file: Path) -> Path:
    """On masks of 0 and 255 with two classes."""
    splits = ("train", "validation", "test")
    for split in splits:
        for index in range(3):
            draw(tmp_path / "images" / split / f"{index}.png", 0, 255)
            draw(tmp_path / "masks" / split / f"{index}.png", 0, 255)
    tree = yaml.safe_load(recipe_file.read_text())
    places = {part: {split: f"{part}/{split}" for split in splits} for part in ("images", "masks")}
    tree["data"] = {"path": str(tmp_path), "format": "folders", "labels": ["background", "crack"], **places}
    tree["data"]["test_split"] = "test"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@SCRIPTS
def test_white_is_a_class_in_all_that_follows(
    script: Any, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    flags = ["--do_predict", "true"] if script is finetune_with_trainer else []
    assert run_script(script, recipe, f"output={output}", *SHORT, *flags) == 0
    assert "255 is read as the class 'crack' in all splits" in capsys.readouterr().err
    results = read(output / "results.json")
    assert results["recipe"]["data"]["foreground_255"] is True
    assert results["data"]["train_split"]["by_class"] == {"background": 3 * SIDE**2 // 2, "crack": 3 * SIDE**2 // 2}
    assert 0 < results["evaluations"][-1]["mean_iou"] < 1
    if flags:
        assert read(output / "test_results.json")["test_mean_iou"] < 1

    assert run_script(script, recipe, f"output={output}", *SHORT, "resume=auto") == 0, "the rule is no other recipe"
    model = output / ("best_model" if script is train else "")
    for split in ("validation", "test"):
        arguments = ["--model", model, "--split", split, "--output", tmp_path / "numbers.json"]
        assert run_script(evaluate, recipe, *arguments) == 0
        measured = read(tmp_path / "numbers.json")
        assert measured["metrics"]["class_iou"]["crack"] is not None
        assert measured["metrics"]["mean_iou"] < 1
        assert measured["recipe"]["data"]["foreground_255"] is True
        assert measured["data"].keys() == {f"{split}_split"}


@SCRIPTS
def test_twelve_bits_are_seen_in_all_that_follows(
    script: Any, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their whites are 4095 of 65535, which would be black."""
    for path in (tmp_path / "images").glob("*/*.png"):
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 16 + 15).save(path)
    output = tmp_path / "run"
    assert run_script(script, recipe, f"output={output}", *SHORT) == 0
    assert "pictures of 16 bits hold 15 to 4095" in capsys.readouterr().err
    assert read(output / "results.json")["recipe"]["data"]["intensity"] == [15, 4095]
    assert run_script(script, recipe, f"output={output}", *SHORT, "resume=auto") == 0, "no other recipe"

    model = output / ("best_model" if script is train else "")
    assert read(model / "preprocessor_config.json")["intensity"] == [15, 4095]
    numbers = tmp_path / "numbers.json"
    assert run_script(evaluate, recipe, "--model", model, "--output", numbers) == 0
    assert read(numbers)["metrics"]["mean_iou"] == read(output / "results.json")["evaluations"][-1]["mean_iou"]
    assert read(numbers)["recipe"]["data"]["intensity"] == [15, 4095]
    assert run_script(evaluate, recipe, "--model", model, "data.intensity=[0, 4095]") == 1
    assert "data.intensity=[0.0, 4095.0], but the model was trained with [15.0, 4095.0]" in last_error(capsys)

    picture = tmp_path / "images" / "test" / "0.png"
    assert run_script(predict, model, picture, "--output", tmp_path / "found", "--legend", "none") == 0
    drawn = np.asarray(Image.open(tmp_path / "found" / "0.overlay.png").convert("L")).astype(int)
    assert drawn[:, -8:].mean() > drawn[:, :8].mean() + 60, "the white half is lighter in the overlay"
    trained = load_model(model)
    given = trained.predict(np.asarray(Image.open(picture)))["semantic_map"]
    assert torch.equal(trained.predict(picture)["semantic_map"], given)


@SCRIPTS
def test_nothing_to_learn_ends_a_run_before_its_first_step(
    script: Any, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mask in (tmp_path / "masks" / "train").iterdir():
        draw(mask, 255, 255)
    assert run_script(script, recipe, f"output={tmp_path / 'run'}", *SHORT) == 1
    assert "data.train_split=train: there is nothing to be learnt" in last_error(capsys)
    assert not (tmp_path / "run" / "results.json").exists()


def test_nothing_to_measure_ends_an_evaluation(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script(train, recipe, f"output={tmp_path / 'run'}", *SHORT) == 0
    for mask in (tmp_path / "masks" / "test").iterdir():
        draw(mask, 7, 7)
    assert run_script(evaluate, recipe, "--model", tmp_path / "run" / "best_model", "--split", "test") == 1
    assert "data.test_split=test: the label files hold the ids 7" in last_error(capsys)


@SCRIPTS
def test_skipped_samples_are_counted_and_said(
    script: Any,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of each split by itself, in the results and in the last lines; more than a tenth also at once."""
    for split, name in (("train", "0.png"), ("validation", "1.png"), ("test", "1.png"), ("test", "2.png")):
        draw(tmp_path / "masks" / split / name, 0, 7)
    output, skip = tmp_path / "run", "data.bad_samples=skip"
    flags = ["--do_predict", "true"] if script is finetune_with_trainer else []
    steps = ["training.steps=4", "training.evaluate_every=4", "training.checkpoint_every=2"]
    assert run_script(script, recipe, f"output={output}", skip, *steps, *flags) == 0
    results = read(output / "results.json")
    assert results["skipped"] == {"train": 1, "validation": 1} | ({"test": 2} if flags else {})
    said = "skipped  1 bad samples of train, 1 bad samples of validation"
    assert said + (", 2 bad samples of test" if flags else "") in capsys.readouterr().out
    loud = [record.getMessage() for record in caplog.records if "SKIPPED" in record.getMessage()]
    assert loud[0].startswith("data.train_split=train: 1 of "), "at the first log"
    assert [text.partition(" (")[0] for text in loud[1:3]] == [
        "data.train_split=train: 1 of 3 samples are bad and were SKIPPED",
        "data.validation_split=validation: 1 of 3 samples are bad and were SKIPPED",
    ]
    caplog.clear()
    model = output / ("best_model" if script is train else "")
    arguments = ["--model", model, "--split", "test", "--output", tmp_path / "numbers.json", skip]
    assert run_script(evaluate, recipe, *arguments) == 0
    assert read(tmp_path / "numbers.json")["skipped"] == 2
    assert "3 pictures, 2 skipped" in capsys.readouterr().out
    assert "data.test_split=test: 2 of 3 samples are bad and were SKIPPED" in caplog.text

    assert run_script(script, recipe, f"output={output}", skip, *steps, "resume=auto") == 0
    assert read(output / "results.json")["skipped"]["train"] == 1, "also after it was resumed"


@SCRIPTS
def test_of_good_data_nothing_is_said(
    script: Any, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run_script(script, recipe, f"output={tmp_path / 'run'}", "data.bad_samples=skip", *SHORT) == 0
    assert not any(read(tmp_path / "run" / "results.json")["skipped"].values())
    assert "skipped" not in capsys.readouterr().out
    assert "SKIPPED" not in caplog.text


def test_processes_count_a_sample_once(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which more than one of them has met in different epochs."""
    built = Experiment(load_recipe(recipe, ["data.bad_samples=skip"]))
    built.data.train.skipped[[0, 2]] = True
    monkeypatch.setattr(experiment, "gather_object", lambda own: [*own, {"train": [1, 2]}])
    assert built.count_skipped("train") == {"train": 3}


@pytest.mark.parametrize(("score", "warns"), [(None, True), (0.0, False)])
def test_a_score_of_nothing_is_said_to_be_none(
    score: float | None, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a format that cannot be looked at before."""
    experiment = SimpleNamespace(new_metric=lambda: SimpleNamespace(primary="mean_iou"))
    main = SimpleNamespace(is_main_process=True)
    measured = SimpleNamespace(experiment=experiment, numbers={"mean_iou": score}, accelerator=main, split="test")
    Measurement._warn_of_nothing(measured)
    assert ("mean_iou is null: nothing in the test split was there to be found" in caplog.text) == warns


def test_several_processes_are_told_what_the_first_has_seen(recipe: Path, tmp_path: Path) -> None:
    """It looks alone, and they go on or end alike."""
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
    command = [sys.executable, *launch, ROOT / "scripts" / "train.py", recipe, *SHORT]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    output = tmp_path / "run"
    done = subprocess.run(
        [*command, f"output={output}", "training.batch_size=1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("looked at all 3 masks: 2 of 2 classes") == 2, "a line for each split"
    results = read(output / "results.json")
    assert results["processes"] == 2
    assert 0 < results["evaluations"][-1]["mean_iou"] < 1

    for mask in (tmp_path / "masks" / "train").iterdir():
        draw(mask, 255, 255)
    done = subprocess.run(
        [*command, f"output={tmp_path / 'other'}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("error: data.train_split=train: there is nothing to be learnt") == 2, done.stderr[-2000:]
