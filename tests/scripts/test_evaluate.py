"""scripts/evaluate.py as a user runs it: its numbers for every task, what it refuses, and on two processes."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image
from transformers import PreTrainedModel

import dense_prediction
from dense_prediction import experiment
from dense_prediction.batches.types import PredictionOptions
from dense_prediction.data.formats.synthetic_shapes import SyntheticShapesOptions
from dense_prediction.data.loading import Data, load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tables import to_table
from dense_prediction.evaluation.tasks import TASKS, find_task
from dense_prediction.experiment import Experiment
from dense_prediction.models.building import check_fits
from dense_prediction.models.saved_models import read_model
from dense_prediction.prediction import evaluating
from dense_prediction.prediction.trained_model import load_model, predict_image
from dense_prediction.recipes.loading import load_recipe
from miniature import ROOT, draw_rows
from miniature_heads import LABELS, THINGS
from scripts_in_process import HEAD_OF_TASK, last_error, run_script, save_model


PANOPTIC = TASKS["panoptic_segmentation"]
SAMPLES = 3
DATA = SyntheticShapesOptions(max_validation_samples=SAMPLES)

Folders = dict[str, Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, backbone_file: Path) -> Folders:
    """A model for each task with the classes of the drawn shapes."""
    folders = {}
    for task in HEAD_OF_TASK:
        data = load_data(DATA, find_task(task))
        folder = tmp_path_factory.mktemp(task)
        folders[task] = save_model(folder, task, backbone_file, data.labels, sorted(data.things))
    return folders


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory, backbone_file: Path) -> Folders:
    """A recipe file for each task, of which nothing but its data and transforms is meant to be used."""
    folder = tmp_path_factory.mktemp("recipes")
    paths = {}
    for task in HEAD_OF_TASK:
        tree = {
            "task": task,
            "data": {"path": "synthetic_shapes", "max_validation_samples": SAMPLES},
            "transforms": {"crop_size": [64, 64]},
            "backbone": {"config": str(backbone_file)},
            "head": {"name": "upernet"},
            "optimization": {"learning_rate": 1.0e-3},
            "training": {"steps": 6, "batch_size": 2, "evaluate_every": 6, "checkpoint_every": 2},
        }
        paths[task] = folder / f"{task}.yaml"
        paths[task].write_text(yaml.safe_dump(tree))
    return paths


@pytest.fixture(scope="module")
def panoptic_model(tmp_path_factory: pytest.TempPathFactory, backbone_file: Path) -> PreTrainedModel:
    """Knows the classes of `LABELS`."""
    folder = save_model(tmp_path_factory.mktemp("panoptic"), "panoptic_segmentation", backbone_file)
    return read_model(folder, torch.device("cpu"))[0]


@pytest.mark.parametrize("task", HEAD_OF_TASK)
def test_the_numbers_are_those_of_the_predictions(
    task: str, models: Folders, recipes: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "numbers.json"
    assert run_script(evaluate, recipes[task], "seed=1", "--model", models[task], "--output", output, "seed=2") == 0
    data = load_data(DATA, find_task(task))
    model, processor = read_model(models[task], torch.device("cpu"))
    metric = TASKS[task].metric(data.labels, data.things)
    for index in range(SAMPLES):
        sample = data.validation[index]
        image = to_pil_image(sample["image"])
        found = predict_image(model, processor, image, PredictionOptions(things=data.things))
        metric.update(found, sample | {"original_size": (image.height, image.width)})
    expected = metric.compute()
    written = json.loads(output.read_text())
    assert written["metrics"] == expected
    assert written["recipe"]["data"]["max_validation_samples"] == SAMPLES
    assert written["versions"]["torch"] in torch.__version__
    assert (written["task"], written["split"], written["overrides"]) == (task, "validation", ["seed=1", "seed=2"])
    shown = capsys.readouterr().out
    assert f"{SAMPLES} pictures" in shown
    assert to_table(expected) in shown
    assert str(output) in shown
    confusion = metric.confusion()
    assert written["confusion"] == json.loads(json.dumps(confusion.plain()))
    assert str(output.with_suffix(".confusion.png")) in shown
    assert Image.open(output.with_suffix(".confusion.png")).width > 100
    for mistake in confusion.mistakes()[:5]:
        assert f"{mistake.true} -> {mistake.found}: {mistake.amount:,} {confusion.unit}" in shown


def test_a_run_needs_nothing_else(
    models: Folders, recipes: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder says which model, which data and which changes; it is not started again."""
    task = "semantic_segmentation"
    recipe = load_recipe(recipes[task], ["data.max_validation_samples=2", "overwrite=true", f"output={tmp_path}"])
    (tmp_path / "results.json").write_text(json.dumps({"recipe": dataclasses.asdict(recipe)}))
    shutil.copytree(models[task], tmp_path / "best_model")
    assert run_script(evaluate, tmp_path, "--output", tmp_path / "run.json", "seed=1") == 0
    said = ["--model", models[task], "data.max_validation_samples=2", "--output", tmp_path / "said.json"]
    assert run_script(evaluate, recipes[task], *said) == 0
    run, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("run", "said"))
    assert run["metrics"] == other["metrics"]
    assert (run["pictures"], run["model"], run["overrides"]) == (2, str(tmp_path / "best_model"), ["seed=1"])
    assert load_recipe(tmp_path).overwrite is False
    assert load_model(tmp_path).labels == load_model(models[task]).labels
    assert dense_prediction.evaluate(tmp_path)["metrics"] == run["metrics"]
    capsys.readouterr()
    (tmp_path / "results.json").unlink()
    assert run_script(evaluate, tmp_path) == 1
    assert "is a folder without results.json, which a training writes at its first evaluation" in last_error(capsys)
    assert run_script(evaluate, recipes[task]) == 1
    assert last_error(capsys).startswith("--model FOLDER is needed, unless RECIPE is the output folder of a run")


def test_the_evaluation_knows_what_is_countable_and_how_to_pad(
    models: Folders, recipes: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which the numbers of untrained models say nothing."""
    told: list[Any] = []

    def watch(experiment: Experiment, *arguments: Any) -> Any:
        told.append((experiment.viewer.options.things, experiment.size_divisor % 48, experiment.recipe.data.workers))
        return experiment.new_metric().compute()

    monkeypatch.setattr(Experiment, "measure", watch)
    task = "panoptic_segmentation"
    changes = ["transforms.size_divisor=48", "data.workers=1"]
    assert run_script(evaluate, recipes[task], *changes, "--model", models[task]) == 0
    assert told == [(frozenset({1, 2, 3, 4}), 0, 1)]


def test_the_table_has_a_line_for_each_number_and_class() -> None:
    numbers = {"mask_ap": 0.25, "box_ap": None, "class_mask_ap": {"dog": 1.0, "traffic light": None}}
    numbers["class_box_ap"] = {"dog": 0.5, "traffic light": 0.0}
    assert to_table(numbers).splitlines() == [
        "mask_ap  0.2500",
        "box_ap        -",
        "",
        "class          mask_ap  box_ap",
        "dog             1.0000  0.5000",
        "traffic light        -  0.0000",
    ]


def test_the_split_is_the_one_that_was_asked_for(
    models: Folders, recipes: Folders, capsys: pytest.CaptureFixture[str], dataset_folder: Path, tmp_path: Path
) -> None:
    task = "semantic_segmentation"
    labels = load_data(DATA, find_task(task)).labels
    data = [f"data.path={dataset_folder}", f"data.labels={json.dumps(labels)}", "data.test_split=train"]
    counts = {"validation": 2, "test": 1}
    for split, count in counts.items():
        assert run_script(evaluate, recipes[task], *data, "--model", models[task], "--split", split) == 0
        assert f"{split} split: {count} pictures, 0 skipped, " in capsys.readouterr().out
    assert run_script(evaluate, recipes[task], *data[:2], "--model", models[task], "--split", "test") == 1
    assert "set data.test_split=NAME" in last_error(capsys)


def test_bad_samples_are_counted(
    models: Folders, recipes: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, (image, mask) in enumerate(draw_rows(3)):
        for folder, picture in (("images", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"{index}.png")
    (tmp_path / "images" / "1.png").write_bytes(b"\x89PNG nothing")
    task = "semantic_segmentation"
    data = [f"data.path={tmp_path}", "data.format=folders", "data.images={train: images, validation: images}"]
    data += [
        "data.masks={train: masks, validation: masks}",
        f"data.labels={json.dumps(load_data(DATA, find_task(task)).labels)}",
    ]
    assert run_script(evaluate, recipes[task], *data, "--model", models[task]) == 1
    assert "data.bad_samples=skip" in last_error(capsys)
    output = tmp_path / "numbers.json"
    arguments = [*data, "data.bad_samples=skip", "--model", models[task], "--output", output]
    assert run_script(evaluate, recipes[task], *arguments) == 0
    assert "validation split: 3 pictures, 1 skipped, " in capsys.readouterr().out
    written = json.loads(output.read_text())
    assert (written["pictures"], written["skipped"]) == (3, 1)


def test_views_and_windows_reach_the_model(
    models: Folders, recipes: Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    widths: list[int] = []

    def load_and_watch(*arguments: Any) -> Any:
        model, processor = read_model(*arguments)
        model.register_forward_pre_hook(
            lambda module, args, kwargs: widths.append(kwargs["pixel_values"].shape[-1]), with_kwargs=True
        )
        return model, processor

    monkeypatch.setattr(evaluating, "read_model", load_and_watch)
    arguments = [recipes["semantic_segmentation"], "--model", models["semantic_segmentation"]]
    one = "data.max_validation_samples=1"
    assert run_script(evaluate, *arguments, one, "evaluation.scales=[0.5, 1.0]", "evaluation.flip=true") == 0
    assert widths == [32, 32, 64, 64]
    widths.clear()
    assert run_script(evaluate, *arguments, one, "evaluation.window=[64, 48]", "evaluation.stride=[64, 16]") == 0
    assert widths == [48, 48]


MISTAKES = {
    "task": (["task=object_detection"], "trained for semantic_segmentation, the recipe's task is object_detection"),
    "mean": (
        ["transforms.image_mean=[0.5, 0.5, 0.5]"],
        "transforms.image_mean=[0.5, 0.5, 0.5], but the model was trained with [0.485, 0.456, 0.406]",
    ),
    "views": (
        ["task=object_detection", "evaluation.flip=true"],
        "evaluation.scales, flip and window are for semantic",
    ),
    "typo": (["evaluation.fip=true"], "did you mean evaluation.flip"),
    "split": (["--split", "train"], "invalid choice: 'train'"),
    "output": (["--output", "."], "--output . is a folder: name a file in it"),
    "model": (["--model", "absent"], "absent is no model folder: it has no config.json"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_in_one_line(
    models: Folders, recipes: Folders, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    task = "semantic_segmentation"
    assert run_script(evaluate, recipes[task], "--model", models[task], *arguments) == 1
    assert message in last_error(capsys)


@pytest.mark.parametrize("name", ["mean", "no test split"])
def test_what_a_recipe_alone_tells_is_said_before_the_data_are_read(
    name: str,
    models: Folders,
    recipes: Folders,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_split = (["--split", "test", "data.test_split=null"], "the recipe names no test split; set data.test_split")
    arguments, message = (MISTAKES | {"no test split": no_split})[name]
    monkeypatch.setattr(experiment, "load_data", lambda *arguments: pytest.fail("the data are read"))
    task = "semantic_segmentation"
    assert run_script(evaluate, recipes[task], "--model", models[task], *arguments) == 1
    assert message in last_error(capsys)


def test_a_precision_that_the_device_has_not_is_refused(
    models: Folders, recipes: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "semantic_segmentation"
    assert run_script(evaluate, recipes[task], "--model", models[task], "training.mixed_precision=fp16") == 1
    assert last_error(capsys).startswith("training.mixed_precision=fp16 cannot be used here: it needs a GPU")


def test_the_end_of_the_memory_ends_with_advice(
    models: Folders, recipes: Folders, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failure: Exception = torch.OutOfMemoryError("CUDA out of memory")

    def fail(*arguments: Any, **fields: Any) -> None:
        raise failure

    monkeypatch.setattr(Experiment, "measure", fail)
    arguments = [recipes["semantic_segmentation"], "--model", models["semantic_segmentation"]]
    assert run_script(evaluate, *arguments) == 1
    assert "out of memory; measure smaller pictures (transforms.evaluation_resize" in last_error(capsys)
    failure = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        run_script(evaluate, *arguments)


DIFFERENCES = {
    "name": (["sky", "tree", "car"], "class 1 is 'dog' to the model and 'tree' in the data"),
    "order": (["sky", "car", "dog"], "class 1 is 'dog' to the model and 'car' in the data"),
    "fewer": (["sky", "dog"], "class 2 is 'car' to the model and nothing in the data: the model was trained with 3"),
    "more": (["sky", "dog", "car", "tree"], "class 3 is nothing to the model and 'tree' in the data"),
}


@pytest.mark.parametrize(("labels", "message"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_other_classes_are_refused(labels: list[str], message: str, panoptic_model: PreTrainedModel) -> None:
    data = Data([], [], None, labels, frozenset(THINGS))
    with pytest.raises(UserError, match=message):
        check_fits(panoptic_model, data, TASKS["panoptic_segmentation"])


def test_what_is_countable_must_agree(panoptic_model: PreTrainedModel) -> None:
    check_fits(panoptic_model, Data([], [], None, LABELS, frozenset(THINGS)), TASKS["panoptic_segmentation"])
    with pytest.raises(UserError, match="sky, car: countable either to the model or in the data"):
        check_fits(panoptic_model, Data([], [], None, LABELS, frozenset({0, 1})), TASKS["panoptic_segmentation"])


def test_classes_are_compared_before_anything_is_measured(
    models: Folders, recipes: Folders, dataset_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "semantic_segmentation"
    data = [f"data.path={dataset_folder}", "data.labels=[black, white]"]
    assert run_script(evaluate, recipes[task], *data, "--model", models[task]) == 1
    assert "class 0 is 'background' to the model and 'black' in the data" in last_error(capsys)


def test_two_processes_give_the_same_numbers(models: Folders, recipes: Folders, tmp_path: Path) -> None:
    """Started as `accelerate launch` starts them on several GPUs."""
    task = "semantic_segmentation"
    arguments = [recipes[task], "--model", models[task], "--output"]
    assert run_script(evaluate, *arguments, tmp_path / "alone.json") == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [str(part) for part in [*launch, evaluate.__file__, *arguments, tmp_path / "together.json"]]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    ended = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(f"{SAMPLES} pictures") == 1, "one process speaks"
    alone, together = (json.loads((tmp_path / name).read_text()) for name in ("alone.json", "together.json"))
    assert (alone["processes"], together["processes"]) == (1, 2)
    assert together["metrics"] == alone["metrics"]


def test_no_library_of_the_scripts_wants_the_package_that_the_script_hides() -> None:
    """`python scripts/x.py` finds scripts/evaluate.py where a library imports the package `evaluate`."""
    names = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if path.stem != "evaluate")
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import {', '.join(names)}, tensorboard"
    program += (
        "; import dense_prediction.data.loading, dense_prediction.evaluation.metrics; print('evaluate' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "False"), ended.stderr
