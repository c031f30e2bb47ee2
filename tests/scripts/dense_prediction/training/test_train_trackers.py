"""Trackers, and the bar that a run is watched on."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from dense_prediction.training.progress import Progress
from dense_prediction.training.trackers import flat_numbers
from miniature import ROOT
from scripts_in_process import run_script


def test_tensorboard_holds_the_curve_and_the_evaluations(recipe_file: Path, tmp_path: Path) -> None:
    arguments = ["training.steps=2", "training.evaluate_every=1", "training.trackers=[tensorboard]"]
    assert run_script(train, recipe_file, f"output={tmp_path}", *arguments) == 0
    events = EventAccumulator(str(tmp_path / "logs" / "vit-comer")).Reload()
    for name in ("training/loss", "training/learning_rate", "training/images_per_second", "validation/mean_iou"):
        assert [event.step for event in events.Scalars(name)] == [1, 2], name
    assert "validation/class_iou/star" in events.Tags()["scalars"]


def test_trackio_holds_the_curve_and_the_evaluations(recipe_file: Path, tmp_path: Path) -> None:
    """In a process of its own: where trackio writes is settled when it is imported, and it leaves a server running."""
    output, database = tmp_path / "run", tmp_path / "trackio"
    arguments = [f"output={output}", "training.steps=2", "training.evaluate_every=1", "training.trackers=[trackio]"]
    settings = {"TRACKIO_DIR": str(database), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "scripts/train.py", recipe_file, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    with sqlite3.connect(database / "vit-comer.db") as connection:
        rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    points = [(step, name, value) for step, metrics in rows for name, value in json.loads(metrics).items()]
    results = json.loads((output / "results.json").read_text())
    for name, wanted in (("training/loss", results["curve"]), ("validation/mean_iou", results["evaluations"])):
        key = name.partition("/")[2]
        found = [(step, value) for step, logged, value in points if logged == name]
        assert found == [(point["step"], pytest.approx(point[key])) for point in wanted], name


def test_what_could_not_be_measured_is_not_tracked() -> None:
    numbers = {"mean_iou": 0.5, "class_iou": {"cat": None, "dog": 0.25}}
    assert flat_numbers(numbers, "validation") == {"validation/mean_iou": 0.5, "validation/class_iou/dog": 0.25}


def test_the_bar_shows_loss_rate_speed_memory_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # pytest's workers have 80, which some versions of tqdm cut the line to
    monkeypatch.setattr("dense_prediction.training.progress.is_watched", lambda: True)
    seconds = iter([10.0, 12.0, 12.0])
    monkeypatch.setattr("dense_prediction.training.progress.time.perf_counter", lambda: next(seconds))
    with Progress(4, 1, torch.device("cpu"), shown=True) as progress:
        progress.advance(6)
        measured = progress.report(0.5, 1e-3)
    assert measured["images_per_second"] == 3.0
    assert measured["memory_gib"] > 0
    line = capsys.readouterr().err.split("\r")[-1]
    assert "2/4 [" in line
    assert "loss 0.5000, lr 1.00e-03, 3.0 images/s, " in line
