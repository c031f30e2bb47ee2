"""What the commands leave in a log: plain lines, and the names of the samples at which a model failed."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from PIL import Image

import finetune_with_trainer
import predict
import train
import visualize_features
from dense_prediction.experiment import Experiment
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.training.huggingface.building import build_trainer
from dense_prediction.training.loop import TrainingRun
from miniature import ROOT
from scripts_in_process import last_error, run_script


RUN = ["training.steps=4", "training.evaluate_every=2", "training.log_every=2"]


def test_no_command_returns_the_carriage(recipe_file: Path, tmp_path: Path) -> None:
    """Which a bar does, and a log keeps; a run has one line for each point of its curve."""
    pictures = [tmp_path / f"{number}.png" for number in range(2)]
    for path in pictures:
        Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(path)
    model = tmp_path / "train" / "best_model"
    commands: list[tuple[ModuleType, list[Any]]] = [
        (train, [recipe_file, f"output={tmp_path / 'train'}", *RUN]),
        (finetune_with_trainer, [recipe_file, f"output={tmp_path / 'finetune'}", *RUN]),
        (evaluate, [recipe_file, "--model", model]),
        (predict, [model, *pictures]),
        (visualize_features, ["--model", model, *pictures]),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for script, arguments in commands:
        command = [sys.executable, ROOT / "scripts" / f"{script.__name__}.py", *arguments]
        ended = subprocess.run(list(map(str, command)), capture_output=True, env=environment, check=False)
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert b"\r" not in ended.stdout + ended.stderr, script.__name__
        assert b"it/s" not in ended.stderr and b"100%" not in ended.stderr, ended.stderr
        if script is train:
            lines = [line for line in ended.stderr.decode().splitlines() if line.startswith("step ")]
            assert [line.partition(":")[0] for line in lines] == ["step 2/4", "step 4/4"]
            assert "loss " in lines[0] and " images/s" in lines[0]
        if script is finetune_with_trainer:
            assert ended.stdout.count(b"'loss':") == 2


class Broken(RuntimeError):
    """What a model may end in."""


def fail(*args: Any, **kwargs: Any) -> None:
    raise Broken("no such kernel")


def notes(caught: pytest.ExceptionInfo[Broken]) -> str:
    return "; ".join(caught.value.__notes__)


@pytest.mark.parametrize("trainer", ["train", "finetune"])
def test_a_failure_in_training_names_the_samples(
    trainer: str, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(recipe_file, [f"output={tmp_path / 'run'}", *RUN])
    run = TrainingRun(recipe) if trainer == "train" else build_trainer(recipe, {})
    stream = run.experiment.training_stream()
    monkeypatch.setattr(Experiment, "loss_inputs", fail)
    with pytest.raises(Broken) as caught:
        run.train()
    assert notes(caught) == f"at {stream[0]['name']}, {stream[1]['name']}"


@pytest.mark.parametrize("method", ["predict", "glance"])
def test_a_failure_in_an_evaluation_names_the_sample(
    method: str, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(load_recipe(recipe_file, [f"output={tmp_path / 'run'}", *RUN]))
    monkeypatch.setattr(type(run.experiment.viewer), method, fail)
    with pytest.raises(Broken) as caught:
        run.experiment.draw(run.accelerator, run.model) if method == "glance" else run._measure()
    assert notes(caught) == f"at {run.experiment.validation[0]['name']}"


def test_out_of_memory_names_the_samples(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def need_more(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    run = TrainingRun(load_recipe(recipe_file, [f"output={tmp_path / 'other'}", *RUN]))
    name = run.experiment.training_stream()[0]["name"]
    monkeypatch.setattr(Experiment, "loss_inputs", need_more)
    assert run_script(train, recipe_file, f"output={tmp_path / 'run'}", *RUN) == 1
    error = last_error(capsys)
    assert error.startswith("out of memory at step 0") and f"(at {name}, " in error


def test_features_and_predictions_name_the_picture(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_script(train, recipe_file, f"output={tmp_path / 'run'}", *RUN) == 0
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    model, picture = tmp_path / "run" / "best_model", tmp_path / "a.png"
    monkeypatch.setattr(visualize_features, "show", fail)
    with pytest.raises(Broken) as caught:
        run_script_with_traceback(visualize_features, "--model", model, picture)
    assert notes(caught) == f"at {picture}"
    monkeypatch.setattr("dense_prediction.prediction.trained_model.predict_image", fail)
    with pytest.raises(Broken) as caught:
        run_script_with_traceback(predict, model, picture)
    assert notes(caught) == f"at {picture}"


def run_script_with_traceback(script: ModuleType, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        script.main()
