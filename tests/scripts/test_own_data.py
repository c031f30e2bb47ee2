"""`vit-comer train TASK --data FOLDER`: recognised, derived, trained; and never derived a second time."""

import json
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from PIL import Image

import predict
import train
from dense_prediction import train as train_in_python
from dense_prediction.batches.streams import EvaluationSet
from dense_prediction.data.samples import Split
from dense_prediction.experiment import Experiment
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.recipe_file import read_settings
from dense_prediction.tailoring import planning
from dense_prediction.tailoring.case import Cost
from dense_prediction.training.loop import TrainingRun
from miniature_heads import FIELDS
from scripts_in_process import last_error, run_script


SEMANTIC = "semantic_segmentation"


def draw(folder: Path, count: int, seed: int = 0) -> None:
    """Pictures with bright squares, and their masks of 0 and 1."""
    random = np.random.default_rng(seed)
    for index in range(count):
        ids = np.zeros((72, 96), dtype=np.uint8)
        row, column = random.integers(0, 48, 2)
        ids[row : row + 24, column : column + 24] = 1
        pixels = random.integers(0, 60, (72, 96, 3), dtype=np.uint8) + 180 * ids[..., None]
        for kind, picture in (("images", Image.fromarray(pixels)), ("masks", Image.fromarray(ids))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            picture.save(folder / kind / f"{seed}_{index}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "squares"
    for seed, (split, count) in enumerate({"train": 6, "validation": 2}.items()):
        draw(tmp_path / split, count, seed)
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / split / kind).rename(folder / kind / split)
    return folder


@pytest.fixture
def typed(backbone_file: Path) -> list[str]:
    """A tiny model, and few steps of it."""
    head = json.dumps(FIELDS["upernet"])
    return [f"backbone.config={backbone_file}", "backbone.trunk=null", f"head.config={head}", "training.steps=4"]


def results_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


def test_one_command_from_pictures_to_a_model(
    data: Path, typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_script(train, SEMANTIC, "--data", data.relative_to(tmp_path), *typed) == 0
    output = tmp_path / "outputs" / SEMANTIC / "squares"
    shown = capsys.readouterr().out
    assert 'data.format="folders"  # images and masks: ' in shown and "transforms.crop_size=[64, 64]  # " in shown
    recipe, settings = load_recipe(output), read_settings(output)
    assert recipe.transforms.base_size == (72, 96)
    assert "training.steps" not in {setting.key for setting in settings}
    assert all(setting.reason in shown for setting in settings) and len(settings) > 10
    assert results_of(output)["finished"] and results_of(output)["recipe"]["name"] == f"{SEMANTIC}/squares"
    monkeypatch.chdir(data)
    assert run_script(evaluate, output) == 0
    assert run_script(predict, output, data / "images" / "validation", "--output", tmp_path / "found") == 0


def test_in_python_and_with_a_recipe(data: Path, recipe_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    results = train_in_python(recipe_file, {"output": str(output), "training.steps": 2}, data=data)
    assert results["recipe"]["data"]["path"] == str(data) and results["recipe"]["data"]["format"] == "folders"
    assert results["recipe"]["transforms"]["crop_size"] == [64, 64], "the recipe's own"
    assert [setting.key for setting in read_settings(output)] == ["data.format"], "nothing was derived"


def test_what_is_derived_after_the_data_are_opened_holds_for_them(
    data: Path, typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an evaluation would take long, fewer pictures are measured, and those alone."""
    draw(tmp_path / "more", 16, seed=9)
    for kind in ("images", "masks"):
        for path in (tmp_path / "more" / kind).iterdir():
            path.rename(data / kind / "validation" / path.name)
    slow = Cost({"no": 0.1}, evaluation=1000.0)
    monkeypatch.setattr(planning, "measure_cost", lambda *arguments: slow)
    measured: list[int] = []
    evaluation_set = Experiment.evaluation_set

    def count(experiment: Experiment, split: Split) -> EvaluationSet:
        measured.append(len(split))
        return evaluation_set(experiment, split)

    monkeypatch.setattr(Experiment, "evaluation_set", count)
    output = tmp_path / "out"
    assert run_script(train, SEMANTIC, "--data", data, f"output={output}", *typed) == 0
    assert load_recipe(output).data.max_validation_samples == 16
    assert results_of(output)["recipe"]["data"]["max_validation_samples"] == 16
    assert measured == [16]


def stop_in_step(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    look_back = TrainingRun._look_back

    def stop(run: TrainingRun) -> None:
        if run.state.step == step:
            raise KeyboardInterrupt
        look_back(run)

    monkeypatch.setattr(TrainingRun, "_look_back", stop)


def never(*arguments: object) -> None:
    raise AssertionError("derived a second time")


def test_a_resumed_run_derives_nothing_anew(
    data: Path, typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even with more pictures than there were."""
    output = tmp_path / "out"
    command = [SEMANTIC, "--data", data, f"output={output}", *typed]
    with monkeypatch.context() as stopped:
        stop_in_step(3, stopped)
        assert run_script(train, *command) == 130
    written = (output / "recipe.yaml").read_text()
    draw(tmp_path / "more", 20, seed=7)
    for kind in ("images", "masks"):
        for path in (tmp_path / "more" / kind).iterdir():
            path.rename(data / kind / "train" / path.name)
    monkeypatch.setattr(planning, "tailor", never)
    assert run_script(train, *command) == 1
    assert "continue it with resume=auto" in last_error(capsys)
    assert run_script(train, SEMANTIC, "--data", data, f"output={output}", "resume=auto", "seed=5") == 1
    assert "seed=5 (was 0)" in last_error(capsys)
    assert run_script(train, SEMANTIC, "--data", data, f"output={output}", "resume=auto") == 0
    assert results_of(output)["step"] == 4
    assert (output / "recipe.yaml").read_text() == written


def test_a_folder_alone_goes_on_before_anything_was_measured(
    data: Path, typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as stopped:
        stop_in_step(2, stopped)
        assert (
            run_script(train, SEMANTIC, "--data", data, f"output={output}", *typed, "training.evaluate_every=4") == 130
        )
    assert not (output / "results.json").exists()
    monkeypatch.setattr(planning, "tailor", never)
    moved = tmp_path / "moved"
    output.rename(moved)
    assert run_script(train, moved, "resume=auto") == 0
    assert results_of(moved)["step"] == 4 and not output.exists()
    assert len(read_settings(moved)) > 10


def test_before_the_first_checkpoint_a_run_begins_again_as_it_was(
    data: Path, typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless something else is typed, on which other settings depend."""
    output = tmp_path / "out"
    command = [SEMANTIC, "--data", data, f"output={output}", *typed]
    with monkeypatch.context() as stopped:
        stop_in_step(1, stopped)
        assert run_script(train, *command) == 130
    with monkeypatch.context() as patched:
        patched.setattr(planning, "tailor", never)
        stop_in_step(1, patched)
        assert run_script(train, *command) == 130
        with pytest.raises(AssertionError, match="a second time"):
            run_script(train, *command, "training.batch_size=2")
    assert run_script(train, *command, "training.batch_size=2") == 0
    assert load_recipe(output).training.samples_per_step == 2


def test_a_run_that_is_given_up_is_derived_anew(data: Path, typed: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [SEMANTIC, "--data", data, f"output={output}", *typed]
    assert run_script(train, *command) == 0
    assert run_script(train, *command, "training.steps=2", "overwrite=true") == 0
    assert results_of(output)["step"] == 2 and load_recipe(output).training.evaluate_every == 1


def test_a_folder_of_other_things_is_refused_before_anything_is_measured(
    data: Path, typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "plan", never)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.doc").write_text("")
    assert run_script(train, SEMANTIC, "--data", data, f"output={tmp_path / 'taken'}", *typed) == 1
    assert "holds 'thesis.doc' and no run" in last_error(capsys)
    assert not (tmp_path / "taken" / "recipe.yaml").exists()


def test_an_ordinary_recipe_is_written_too_and_removed_with_its_run(recipe_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run_script(train, recipe_file, f"output={output}", "training.steps=1") == 0
    assert load_recipe(output / "recipe.yaml").training.steps == 1
    assert run_script(train, output, "training.steps=2", "overwrite=true") == 0
    assert load_recipe(output / "recipe.yaml").training.steps == 2
