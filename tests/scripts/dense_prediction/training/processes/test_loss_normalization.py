"""Two passes of one picture are one batch of two: the same gradient and the same loss, of every head and trainer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dense_prediction.recipes.loading import load_recipe
from dense_prediction.training.huggingface.building import build_trainer
from dense_prediction.training.loop import TrainingRun
from miniature import ROOT
from miniature_heads import HEADS_AND_TASKS
from step_gradients import Step, first_step, recipe_of


HEADS = list(dict(reversed(HEADS_AND_TASKS)).items())
MECHANISMS = ("upernet", "detr", "mask2former", "rt_detr", "d_fine", "deimv2")
"""A head for each way in which a loss is divided."""
LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")


def assert_same(found: Step, expected: Step) -> None:
    """Relative to the whole gradient, and far closer than float32 could tell."""
    assert found.keys() == expected.keys()
    whole = torch.cat([value.flatten() for name, value in expected.items() if name != "loss"]).norm()
    differences = [(found[name] - value).norm() / whole for name, value in expected.items() if name != "loss"]
    assert torch.stack(differences).norm() < 1e-9
    assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("trainer", "head", "task"),
    [("loop", *each) for each in HEADS_AND_TASKS] + [("huggingface", *each) for each in HEADS],
)
def test_accumulated_gradient_is_that_of_the_larger_batch(
    trainer: str, head: str, task: str, backbone_file: Path, tmp_path: Path
) -> None:
    objects = [2, 1]
    larger, accumulated = (
        first_step(recipe_of(head, task, backbone_file, tmp_path / name, *shape), objects, trainer)
        for name, shape in (("larger", (2, 1)), ("accumulated", (1, 2)))
    )
    assert_same(accumulated, larger)


@pytest.mark.parametrize(("head", "task"), [each for each in HEADS if each[0] != "upernet"])
@pytest.mark.parametrize("objects", [[1, 0, 0], [0, 0, 0]], ids=["one", "none"])
def test_passes_without_an_object(
    head: str, task: str, objects: list[int], backbone_file: Path, tmp_path: Path
) -> None:
    """UperNet never sees one: a picture that has lost its labels gives its place to another."""
    larger, accumulated = (
        first_step(recipe_of(head, task, backbone_file, tmp_path / name, *shape), objects)
        for name, shape in (("larger", (3, 1)), ("accumulated", (1, 3)))
    )
    assert_same(accumulated, larger)


@pytest.mark.parametrize(("accumulation", "objects"), [pytest.param(1, "21", marks=pytest.mark.slow), (2, "2102")])
def test_so_it_is_over_processes(accumulation: int, objects: str, backbone_file: Path, tmp_path: Path) -> None:
    labelled = objects.replace("0", "1")  # as UperNet sees it
    names = [f"{head}/{dict(HEADS)[head]}/{labelled if head == 'upernet' else objects}" for head in MECHANISMS]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / folder) for folder in (".", "scripts", "tests/scripts"))
    command = [*LAUNCH, ROOT / "tests/scripts/step_gradients.py", tmp_path, "1", str(accumulation), backbone_file]
    ended = subprocess.run(
        [sys.executable, *command, *names], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    for name in names:
        head, task, numbers = name.split("/")
        recipe = recipe_of(head, task, backbone_file, tmp_path / "one" / head, 2 * accumulation, 1)
        larger = first_step(recipe, [int(number) for number in numbers])
        assert_same(torch.load(tmp_path / f"{head}_{task}_{numbers}.pt"), larger)


def test_counting_leaves_no_trace(backbone_file: Path, tmp_path: Path) -> None:
    """Of the passes that DEIMv2 counts its matches in, neither batch norms nor the random numbers know."""
    recipe_of("deimv2", "object_detection", backbone_file, tmp_path / "run", 1, 2)
    run = TrainingRun(load_recipe(tmp_path / "run.yaml", ["head.config.num_denoising=4"]))  # whose noise is drawn
    batches, model = list(run.batches), run.model.train()
    before = [buffer.clone() for buffer in model.buffers()]
    torch.manual_seed(5)
    run.normalization.begin(model, batches)
    drawn = torch.rand(1)
    assert all(torch.equal(buffer, value) for buffer, value in zip(model.buffers(), before, strict=True))
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    model(**run.experiment.loss_inputs(batches[0]))
    assert any(not torch.equal(buffer, value) for buffer, value in zip(model.buffers(), before, strict=True))


def test_the_batches_of_a_step_wait_on_the_cpu(backbone_file: Path, tmp_path: Path) -> None:
    """Accelerate moves those that come from a loader with a device."""
    recipe = recipe_of("upernet", "semantic_segmentation", backbone_file, tmp_path / "run", 1, 2)
    assert TrainingRun(recipe).batches.device is None
    trainer = build_trainer(load_recipe(tmp_path / "run.yaml", ["overwrite=true"]), {})
    assert trainer.get_train_dataloader().device is None
    assert trainer.get_eval_dataloader().device is not None
