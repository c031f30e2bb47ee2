"""train.py as a user runs it: for every task, and what a run leaves behind."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file

import train
from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import find_task
from dense_prediction.experiment import Experiment
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import task_of, things_of
from dense_prediction.models.heads import head_of
from dense_prediction.models.options import BackboneOptions
from dense_prediction.models.saved_models import read_model
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.training.loop import TrainingRun
from scripts_in_process import run_script


CPU = torch.device("cpu")
CASES = {
    "upernet": "semantic_segmentation",
    "mask2former": "panoptic_segmentation",
    "mask2former instances": "instance_segmentation",
    "deformable_detr": "object_detection",
}
SEMANTIC = {"upernet": "semantic_segmentation"}
PRIMARY = {
    "semantic_segmentation": "mean_iou",
    "panoptic_segmentation": "panoptic_quality",
    "instance_segmentation": "mask_ap",
    "object_detection": "box_ap",
}
SHORT = ("training.steps=4", "training.evaluate_every=2")

only_semantic = pytest.mark.parametrize("case", SEMANTIC, indirect=True)


def results_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def head_name(case: str) -> str:
    return case.split()[0]


@pytest.fixture(scope="module")
def task(case: str) -> str:
    return CASES[case]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    """The output folder of a whole run."""
    output = tmp_path_factory.mktemp("finished")
    assert run_script(train, recipe_file, f"output={output}", *SHORT) == 0
    return output


def test_results_tell_the_whole_run(finished: Path, task: str, recipe_file: Path) -> None:
    results = results_of(finished)
    assert [point["step"] for point in results["curve"]] == [1, 2, 3, 4]
    assert [point["learning_rate"] for point in results["curve"]] == pytest.approx(
        [1e-3 * (4 - i) / 4 for i in range(4)]
    )
    evaluations = {numbers["step"]: numbers[PRIMARY[task]] for numbers in results["evaluations"]}
    assert evaluations.keys() == {2, 4}
    best = max(evaluations.values())
    assert results["best"] == {
        "step": next(step for step, score in evaluations.items() if score == best),
        "metric": PRIMARY[task],
        PRIMARY[task]: best,
    }
    assert results["task"] == results["recipe"]["task"] == task
    assert results["recipe"]["training"]["steps"] == 4
    assert (results["finished"], results["seed"], results["processes"]) == (True, 0, 1)
    assert results["seconds"] > 0
    assert results["device"]
    assert torch.__version__.startswith(results["versions"]["torch"])


def test_every_evaluation_leaves_a_picture(finished: Path) -> None:
    pictures = sorted((finished / "predictions").iterdir())
    assert [picture.name for picture in pictures] == ["step_00000002.png", "step_00000004.png"]
    assert all(Image.open(picture).width > 300 for picture in pictures)
    best = finished / "predictions" / f"step_{results_of(finished)['best_step']:08d}.png"
    assert (finished / "predictions.png").read_bytes() == best.read_bytes()


def test_nothing_half_done_is_left(finished: Path) -> None:
    names = {"best_model", "last_model", "checkpoints", "predictions", "predictions.png", "recipe.yaml"}
    names.add("results.json")
    names |= {"report.html", "curve.png", "confusion.png"}
    names.add(".vit-comer-run.json")
    assert {path.name for path in finished.iterdir()} == names
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["step_00000004"]


def test_the_best_model_measures_what_the_run_reported(finished: Path, recipe_file: Path, task: str) -> None:
    """Read from its folder alone."""
    recipe, results = load_recipe(recipe_file), results_of(finished)
    data = load_data(recipe.data, find_task(recipe.task))
    model, processor = read_model(finished / "best_model", CPU)
    assert (task_of(model), things_of(model)) == (task, data.things)
    assert list(model.config.id2label.values()) == data.labels
    assert processor.do_resize is False
    experiment = Experiment(recipe, head_of(model))
    numbers = experiment.measure(Accelerator(), model, experiment.validation)
    expected = next(numbers for numbers in results["evaluations"] if numbers["step"] == results["best_step"])
    assert {"step": results["best_step"]} | numbers == expected


def test_the_last_model_is_that_of_the_last_step(finished: Path) -> None:
    weights = load_file(finished / "checkpoints/step_00000004/model.safetensors")
    saved = read_model(finished / "last_model", CPU)[0].state_dict()
    assert len(weights) > 100
    assert all(torch.equal(saved[name], value) for name, value in weights.items())


@only_semantic
def test_accumulation_averages_the_loss_once(recipe_file: Path, dataset_folder: Path, tmp_path: Path) -> None:
    """Twice the same batch must give the loss and the gradient of that batch once."""
    sample = [f"data.path={dataset_folder}", "data.labels=[black, white]", "transforms.base_size=[40, 56]"]
    still = [
        "transforms.crop_size=[40, 56]",
        "transforms.scale=[1, 1]",
        "transforms.flip=0",
        "transforms.photometric=false",
    ]
    plain = [
        "backbone.overrides.drop_path_rate=0.0",
        "optimization.max_grad_norm=null",
        "head.config.use_auxiliary_head=false",
    ]
    one_step = ["training.steps=1", "training.checkpoint_every=1", "training.evaluate_every=1"]
    moments, losses = [], []
    for passes in (1, 2):
        output = tmp_path / str(passes)
        accumulate = [f"output={output}", f"training.gradient_accumulation={passes}"]
        assert run_script(train, recipe_file, *sample, *still, *plain, *one_step, *accumulate) == 0
        optimizer = torch.load(output / "checkpoints/step_00000001/optimizer.bin", weights_only=True)
        moments.append([state["exp_avg"] for state in optimizer["state"].values()])
        losses.append(results_of(output)["curve"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1])
    for once, twice in zip(*moments, strict=True):
        torch.testing.assert_close(once, twice)


def test_trunk_weights_and_checkpoints_reach_the_model(backbone_file: Path, tmp_path: Path) -> None:
    fields = {"config": str(backbone_file)}
    source = build_backbone(BackboneOptions(**fields))
    timm_names = {
        re.sub(r"^layers\.(\d+)\.block\.", r"blocks.\1.", name).removeprefix("embeddings."): value
        for name, value in source.trunk.state_dict().items()
    }
    save_file(timm_names, tmp_path / "trunk.safetensors")
    loaded = build_backbone(BackboneOptions(**fields, trunk_weights=str(tmp_path / "trunk.safetensors")))
    expected = source.trunk.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.trunk.state_dict().items())

    source.save_pretrained(tmp_path / "backbone")
    again = build_backbone(BackboneOptions(checkpoint=str(tmp_path / "backbone"), overrides={"drop_path_rate": 0.1}))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in again.state_dict().items())
    assert again.config.drop_path_rate == 0.1

    del timm_names["pos_embed"]
    save_file(timm_names, tmp_path / "trunk.safetensors")
    with pytest.raises(UserError, match="does not fit the trunk of the config: .*pos_embed"):
        build_backbone(BackboneOptions(**fields, trunk_weights=str(tmp_path / "trunk.safetensors")))


@only_semantic
def test_checkpointed_activations_and_frozen_trunk(recipe_file: Path, tmp_path: Path) -> None:
    """Both are seen by the backbone inside the head, and the frozen trunk comes out as it went in."""
    overrides = ["training.gradient_checkpointing=true", "backbone.freeze_trunk=true", f"output={tmp_path}"]
    run = TrainingRun(load_recipe(recipe_file, [*overrides, "training.steps=1"]))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    checkpointed = [
        module for module in run.model.backbone.modules() if getattr(module, "gradient_checkpointing", False)
    ]
    assert checkpointed
    run.train()
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if ".trunk." in name]


@only_semantic
def test_the_average_of_the_weights_is_measured_and_saved(recipe_file: Path, tmp_path: Path) -> None:
    arguments = [f"output={tmp_path}", "optimization.ema_decay=0.5", *SHORT]
    assert run_script(train, recipe_file, *arguments) == 0
    checkpoint = tmp_path / "checkpoints/step_00000004"
    weights, average = (load_file(checkpoint / f"{name}.safetensors") for name in ("model", "average"))
    saved = read_model(tmp_path / "last_model", CPU)[0].state_dict()
    assert all(torch.equal(saved[name], average[f"module.{name}"]) for name in saved)
    assert int(average["n_averaged"]) == 4
    assert not all(torch.equal(saved[name], weights[name]) for name in saved)
    expected = results_of(tmp_path)["evaluations"][-1]["mean_iou"]
    run = TrainingRun(load_recipe(recipe_file, [*arguments, "resume=auto"]))
    assert run._measure()["mean_iou"] == expected


@only_semantic
def test_early_stopping(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After two evaluations in a row that are no better; a run that has stopped does not go on when resumed."""
    scores = {1: 0.1, 2: 0.3, 3: 0.3, 4: 0.2, 5: 0.9}
    monkeypatch.setattr(TrainingRun, "_measure", lambda run: {"mean_iou": scores[run.state.step]})
    arguments = [f"output={tmp_path}", "training.evaluate_every=1", "training.early_stopping=2"]
    for resume in ([], ["resume=auto"]):
        assert run_script(train, recipe_file, *arguments, *resume) == 0
        results = results_of(tmp_path)
        assert [numbers["step"] for numbers in results["evaluations"]] == [1, 2, 3, 4]
        assert (results["step"], results["best_step"], results["finished"]) == (4, 2, True)


def test_the_help_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(train, "--help") == 0
    text = capsys.readouterr().out
    for key in ("training.early_stopping", "training.trackers", "optimization.ema_decay", "evaluation.flip"):
        assert f"\n  {key} " in text
