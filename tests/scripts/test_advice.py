"""What the messages advise works: each is provoked, what it says is done, and the same command then goes through.

With `resume=auto` where the run had got so far, and over again where the message says `overwrite=true`.
"""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from PIL import Image

import finetune_with_trainer
import train
from dense_prediction.data.bad_samples import HINT, BadSample
from dense_prediction.data.formats.synthetic_shapes import ShapesSplit
from dense_prediction.evaluation.views import Viewer
from dense_prediction.experiment import Experiment
from dense_prediction.recipes.schema import TrainingOptions
from dense_prediction.training.checkpoints import last_checkpoint
from dense_prediction.training.processes.step_size import smaller_passes
from dense_prediction.training.trackers import LOGGER_TYPE_TO_CLASS
from scripts_in_process import last_error, run_script


TRAINERS = pytest.mark.parametrize("script", [train, finetune_with_trainer], ids=lambda script: script.__name__)
RESUMED = ["training.evaluate_every=6", "training.checkpoint_every=2", "training.log_every=1"]


@pytest.fixture(scope="module")
def head_name(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "upernet")


def advised(message: str) -> list[str]:
    """The `key=value` in it, as they are written, but for those that leave the value to the reader."""
    found = re.findall(r"\b([a-z_]+(?:\.[a-z_]+)*=(?!\.\.\.)[^\s,;:()]+)", message)
    return [each for each in found if each.rpartition("=")[2] != "FOLDER"]


def fail_after(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int, fail: Callable[[], BaseException]
) -> None:
    """Let a method fail at a call, and at each that follows."""
    original, counted = getattr(owner, name), iter(range(calls))

    def limited(*args: Any, **kwargs: Any) -> Any:
        if next(counted, None) is None:
            raise fail()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, limited)


def out_of_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory")


def results(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


# Memory


@TRAINERS
def test_out_of_memory_at_a_batch_of_four(
    script: ModuleType,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Down to one picture, which UperNet learns from too, and on from the checkpoint each time."""
    output = tmp_path / "run"
    command = [recipe_file, f"output={output}", *RESUMED, "training.steps=6"]
    size, accumulation, ended_at = 4, 1, []
    while size > 1:
        with monkeypatch.context() as patched:
            fail_after(patched, Experiment, "loss_inputs", 2 * accumulation, out_of_memory)
            given = [f"training.batch_size={size}", f"training.gradient_accumulation={accumulation}"]
            assert run_script(script, *command, *given, "resume=auto") == 1
        message = last_error(capsys)
        assert "out of memory" in message
        assert "; halve training.batch_size and double training.gradient_accumulation, or set" in message
        size, accumulation = size // 2, accumulation * 2
        folders = [last_checkpoint(output), *output.glob("checkpoint-*")]
        ended_at.append(max(int(re.split("[_-]", path.name)[-1]) for path in folders if path))
    assert ended_at == [2, 4]
    given = [f"training.batch_size={size}", f"training.gradient_accumulation={accumulation}"]
    extra = [each for each in advised(message) if each != "resume=auto"]
    assert extra == ["training.gradient_checkpointing=true"]
    assert run_script(script, *command, *given, *extra, "resume=auto") == 0
    assert results(output)["step"] == 6


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "checkpointing", "ways"),
    [
        (
            3,
            2,
            False,
            "set training.batch_size=1 and training.gradient_accumulation=6, or set training.gradient_check",
        ),
        (6, 1, True, "halve training.batch_size and double training.gradient_accumulation"),
        (1, 8, False, "set training.gradient_checkpointing=true"),
        (1, 8, True, "make the pictures smaller (transforms.crop_size, or shortest_edges and longest_edge) and start"),
    ],
)
def test_nothing_is_advised_that_cannot_be_done(
    batch_size: int, accumulation: int, checkpointing: bool, ways: str
) -> None:
    training = TrainingOptions(
        steps=1,
        batch_size=batch_size,
        gradient_accumulation=accumulation,
        gradient_checkpointing=checkpointing,
        evaluate_every=1,
        checkpoint_every=1,
    )
    said = smaller_passes(training)
    assert said.startswith(ways)
    assert ("batch_size" in said) == (batch_size > 1) and ("gradient_checkpointing" in said) == (not checkpointing)


@TRAINERS
def test_out_of_memory_in_an_evaluation(
    script: ModuleType,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Smaller passes would not help it, smaller windows do, and the run goes on with them."""
    command = [recipe_file, f"output={tmp_path / 'run'}", "training.steps=2", "training.evaluate_every=2"]
    with monkeypatch.context() as patched:
        fail_after(patched, Viewer, "predict", 0, out_of_memory)
        assert run_script(script, *command) == 1
    message = last_error(capsys)
    assert "halve" not in message and "(evaluation.window and stride)" in message
    windows = ["evaluation.window=[32, 32]", "evaluation.stride=[32, 32]", "transforms.evaluation_resize=fixed"]
    assert run_script(script, *command, *windows, "resume=auto") == 0


# Steps


def test_the_accumulation_that_is_advised(
    recipe_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Followed, the warning is gone; a run that has begun cannot follow it, and is not told."""
    command = [recipe_file, f"output={tmp_path / 'run'}", "training.steps=2", "training.evaluate_every=2"]
    meant = "training.samples_per_step=8"
    with caplog.at_level(logging.WARNING):
        assert run_script(train, *command, meant) == 0
    (record,) = [each for each in caplog.records if each.name.endswith("step_size")]
    accumulation, samples = advised(record.getMessage())[-2:]
    assert (accumulation, samples) == ("training.gradient_accumulation=4", "training.samples_per_step=2")
    for advice, resume in (([meant, accumulation], "overwrite=true"), ([meant, accumulation], "resume=auto")):
        caplog.clear()
        assert run_script(train, *command, *advice, resume) == 0
        assert not [each for each in caplog.records if each.name.endswith("step_size")]
    caplog.clear()
    assert run_script(train, *command, samples, "overwrite=true") == 0
    assert run_script(train, *command, meant, "resume=auto") == 0
    assert not [each for each in caplog.records if each.name.endswith("step_size")]


@TRAINERS
@pytest.mark.parametrize(
    "advice", ["optimization.learning_rate=1e-5", "optimization.max_grad_norm=0.1", "training.mixed_precision=no"]
)
def test_a_loss_that_is_no_number(
    advice: str,
    script: ModuleType,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [recipe_file, f"output={tmp_path / 'run'}", *RESUMED, "training.steps=4"]
    with monkeypatch.context() as patched:
        diverge(patched)
        assert run_script(script, *command) == 1
    message = last_error(capsys)
    assert message.startswith("the loss is nan") and advice.partition("=")[0] in message
    assert run_script(script, *command, advice, *[each for each in advised(message) if "overwrite" in each]) == 0


def diverge(patched: pytest.MonkeyPatch) -> None:
    """From the third step on all pictures are NaN."""
    loss_inputs, steps = Experiment.loss_inputs, iter(range(2))

    def diverged(self: Experiment, batch: dict[str, Any]) -> dict[str, Any]:
        inputs = loss_inputs(self, batch)
        if next(steps, None) is None:
            inputs["pixel_values"] = inputs["pixel_values"] * torch.nan
        return inputs

    patched.setattr(Experiment, "loss_inputs", diverged)


# Folders


@TRAINERS
@pytest.mark.parametrize("advice", ["resume=auto", "overwrite=true", "output={}/other"])
def test_a_folder_that_holds_a_run(
    advice: str, script: ModuleType, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [recipe_file, "training.steps=2", "training.evaluate_every=2"]
    output = f"output={tmp_path / 'run'}"
    assert run_script(script, *command, output) == 0
    assert run_script(script, *command, output) == 1
    message = last_error(capsys)
    assert advice.partition("=")[0] + "=" in message
    changed = [advice.format(tmp_path)] if "{}" in advice else [output, advice]
    assert run_script(script, *command, *changed) == 0


def test_a_run_of_another_recipe(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has changed is named with the value before: set to that again, the run goes on."""
    command = [recipe_file, f"output={tmp_path / 'run'}", "training.steps=2", "training.evaluate_every=2"]
    assert run_script(train, *command) == 0
    assert run_script(train, *command, "resume=auto", "seed=3", "training.batch_size=4") == 1
    before = re.findall(r"([a-z_.]+)=\S+ \(was (\S+)\)", last_error(capsys))
    assert dict(before) == {"seed": "0", "training.batch_size": "2"}
    assert run_script(train, *command, "resume=auto", *(f"{key}={value}" for key, value in before)) == 0


# Data


@TRAINERS
def test_a_bad_sample_late_in_a_run(
    script: ModuleType,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [recipe_file, f"output={tmp_path / 'run'}", *RESUMED, "training.steps=6"]
    shapes, read = ShapesSplit.__getitem__, []

    def damaged(split: ShapesSplit, index: int) -> dict[str, Any]:
        read.append(index)
        if split.length > 2 and len(read) % 9 == 0:
            raise BadSample(f"shape {index} is damaged")
        return shapes(split, index)

    monkeypatch.setattr(ShapesSplit, "__getitem__", damaged)
    assert run_script(script, *command) == 1
    message = last_error(capsys)
    assert message.endswith(HINT) and advised(message) == ["data.bad_samples=skip"]
    assert run_script(script, *command, *advised(message), "resume=auto") == 0


# Heads


@pytest.mark.parametrize("head_name", ["rt_detr"], indirect=True)
def test_images_that_are_too_small_for_the_queries(
    head_name: str, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [recipe_file, f"output={tmp_path / 'run'}", "training.steps=1", "training.evaluate_every=1"]
    small = ["head.config.num_queries=200", "data.max_validation_samples=1"]
    assert run_script(train, *command, *small) == 1
    message = last_error(capsys)
    (queries,) = advised(message)
    side = re.search(r"(\d+) x \1 is enough", message)[1]
    assert run_script(train, *command, *small, queries) == 0
    larger = [
        f"transforms.crop_size=[{side}, {side}]",
        "transforms.resize=fixed",
        "transforms.evaluation_resize=fixed",
    ]
    assert run_script(train, *command, *small, *larger, "overwrite=true") == 0


# The classes and pictures of a model


def test_a_model_that_was_normalised_otherwise(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ["transforms.image_mean=[0.5,0.5,0.5]", "transforms.image_std=[0.5,0.5,0.5]"]
    short = ["training.steps=1", "training.evaluate_every=1"]
    assert run_script(train, recipe_file, f"output={tmp_path}", *other, *short) == 0
    command = [recipe_file, "--model", tmp_path / "best_model"]
    advice: list[str] = []
    for _ in range(2):
        assert run_script(evaluate, *command, *advice) == 1
        key, value = re.search(
            r"(transforms\.\w+)=.*trained with (\[.*\]); set it to that", last_error(capsys)
        ).groups()
        advice.append(f"{key}={value}")
    assert run_script(evaluate, *command, *advice) == 0


def test_packages_of_trackers_have_their_names(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pip install NAME`: what is missing is named as it is on PyPI."""
    missing = [name for name in LOGGER_TYPE_TO_CLASS if name not in ("all", "tensorboard", "trackio")]
    for name in map(str, missing):
        assert run_script(train, recipe_file, f"training.trackers=[{name}]") == 1
        assert re.search(rf"pip install {name}$", last_error(capsys))
        assert name in {"wandb", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab"}


def test_the_suffix_of_masks(recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which the message cannot know: it says which name was looked for, and what the suffix is now."""
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    picture[:, 32:] = 255
    for split in ("training", "validation"):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "data" / "images" / split / "a.jpg")
        Image.fromarray(picture[..., 0] // 255).save(tmp_path / "data" / "masks" / split / "a_mask.png")
    data = f"data={{format: folders, path: {tmp_path / 'data'}, labels: [dark, bright]"
    places = "{train: %s/training, validation: %s/validation}"
    data += f", images: {places % ('images', 'images')}, masks: {places % ('masks', 'masks')}"
    command = [recipe_file, f"output={tmp_path / 'run'}", "training.steps=1", "training.evaluate_every=1"]
    assert run_script(train, *command, data + "}") == 1
    message = last_error(capsys)
    assert "a.jpg would have a.png; set data.mask_suffix (now .png)" in message
    assert run_script(train, *command, data + ", mask_suffix: _mask.png}") == 0
