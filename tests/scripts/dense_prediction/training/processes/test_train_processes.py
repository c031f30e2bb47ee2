"""Two processes learn what one learns from the same samples."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.models.backbones import build_backbone
from dense_prediction.models.building import build_model, encoder_of
from dense_prediction.models.heads import find_head, head_names
from dense_prediction.models.options import BackboneOptions
from dense_prediction.options import flatten
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.training import checkpoints
from dense_prediction.training.huggingface.arguments import training_arguments
from dense_prediction.training.loop import TrainingRun, build_accelerator
from dense_prediction.training.processes.unused_parameters import freeze_unused
from miniature import ROOT
from miniature_heads import LABELS, draw_batch
from scripts_in_process import run_script


LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
SURE = (
    # Adam's first steps would make large differences of the rounding errors in gradients of nearly 0.
    "optimization.learning_rate=1e-5",
    "backbone.overrides.drop_path_rate=0.0",
    "training.steps=6",
    "training.evaluate_every=4",
    "training.log_every=1",
    "training.gradient_checkpointing=true",
)
WITHOUT_DROPOUT = {
    "upernet": (),
    "deformable_detr": tuple(f"head.config.{name}=0.0" for name in ("dropout", "attention_dropout")),
}


class Stopped(Exception):
    """Ends a run after its first checkpoint."""


@pytest.fixture(scope="module", params=WITHOUT_DROPOUT)
def head_name(request: pytest.FixtureRequest) -> str:
    return request.param


def results_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


def measured(numbers: dict[str, Any]) -> dict[str, float]:
    return {name: number for name, number in flatten(numbers).items() if number is not None}


def test_a_run_goes_on_with_two_processes_and_with_one_again(
    recipe_file: Path, head_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses and measures are those of one process, with half as many samples in each; some pixels are void."""
    arguments = [*SURE, *WITHOUT_DROPOUT[head_name]]
    whole, broken = (f"output={tmp_path / name}" for name in ("whole", "broken"))
    assert run_script(train, recipe_file, whole, *arguments, "training.batch_size=4") == 0

    look_back = TrainingRun._look_back

    def stop(run: TrainingRun) -> None:
        if run.state.step == 3:
            raise Stopped
        look_back(run)

    monkeypatch.setattr(TrainingRun, "_look_back", stop)
    with pytest.raises(Stopped):
        TrainingRun(load_recipe(recipe_file, [broken, *arguments, "training.batch_size=4"])).train()
    monkeypatch.undo()
    assert checkpoints.last_checkpoint(tmp_path / "broken").name == "step_00000002"

    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    dying = [ROOT / "tests/scripts/stopping.py", "5"]
    command = [sys.executable, *LAUNCH, *dying, recipe_file, broken, *arguments, "resume=auto"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert checkpoints.last_checkpoint(tmp_path / "broken").name == "step_00000004", ended.stderr[-2000:]
    assert results_of(tmp_path / "broken")["processes"] == 2

    assert run_script(train, recipe_file, broken, *arguments, "training.batch_size=4", "resume=auto") == 0
    expected, results = (results_of(tmp_path / name) for name in ("whole", "broken"))
    assert [point["step"] for point in results["curve"]] == [1, 2, 3, 4, 5, 6]
    for numbers in ("curve", "evaluations"):
        for point, wanted in zip(results[numbers], expected[numbers], strict=True):
            assert measured(point) == pytest.approx(measured(wanted), rel=1e-5), numbers


@pytest.mark.parametrize("head_name", ["deformable_detr"], indirect=True)
def test_parameters_that_a_head_does_not_use_are_frozen(backbone_file: Path, head_name: str) -> None:
    backbone = build_backbone(BackboneOptions(config=str(backbone_file)), find_head(head_name).out_features)
    unused = freeze_unused(backbone)
    assert "norm.stage1.weight" in unused
    assert backbone.training
    sum(maps.sum() for maps in backbone(torch.randn(2, 3, 64, 64)).feature_maps).backward()
    frozen = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == set(unused)
    assert all(parameter.grad is not None for parameter in backbone.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("head_name", head_names(), indirect=True)
def test_both_trainers_expect_what_a_batch_without_objects_leaves_unused(recipe_file: Path) -> None:
    """DistributedDataParallel would end at the step after it."""
    recipe = load_recipe(recipe_file)
    head = find_head(recipe.head.name)
    backbone = build_backbone(recipe.backbone, head.out_features)
    model = build_model(recipe.head, backbone, LABELS, TASKS[recipe.task]).train()
    freeze_unused(encoder_of(model))
    batch = draw_batch(recipe.task, empty=(True, True))
    model(**head.loss_inputs(batch, TASKS[recipe.task])).loss.backward()
    leaves_out = any(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert build_accelerator(recipe).ddp_handler.find_unused_parameters == leaves_out
    assert training_arguments(recipe, {}).ddp_find_unused_parameters == leaves_out
