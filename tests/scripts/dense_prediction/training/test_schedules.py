"""How long a run is, and its learning rate."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from dense_prediction.errors import UserError
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.recipes.schema import Recipe, TrainingOptions
from dense_prediction.training.schedules import build_scheduler, rate_share, training_steps
from miniature import ROOT


STEPWISE = ["optimization.schedule=multi_step"]
DETECTORS = ROOT / "configuration" / "recipes" / "object_detection" / "coco"
COCO_IMAGES = 118287


def rates(recipe: Recipe, steps: int) -> list[list[float]]:
    """The learning rates of both groups of an optimizer at each step of a run, and at the one after the last."""
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [first], "lr": 0.2}, {"params": [second], "lr": 0.02}])
    scheduler = build_scheduler(optimizer, recipe, steps)
    curve = []
    for _ in range(steps + 1):
        curve.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    return curve


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optimization.schedule=poly"], [0, 0.5, 1, 0.75, 0.5, 0.25, 0]),
        (["optimization.schedule=cosine"], [0, 0.5, 1, 0.853553, 0.5, 0.146447, 0]),
        (["optimization.schedule=constant"], [0, 0.5, 1, 1, 1, 1, 1]),
        (["optimization.warmup_start_factor=0.2"], [0.2, 0.6, 1, 0.75, 0.5, 0.25, 0]),
        ([*STEPWISE, "optimization.milestones=[3/6,5/6]"], [0, 0.5, 1, 0.1, 0.1, 0.01, 0.01]),
        (
            [*STEPWISE, "optimization.milestones=[0.6667]", "optimization.milestone_factor=0.5"],
            [0, 0.5, 1, 1, 0.5, 0.5, 0.5],
        ),
        (
            [*STEPWISE, "optimization.milestones=[2/3]", "training.steps=null", "training.epochs=3"],
            [0, 0.5, 1, 1, 0.1, 0.1, 0.1],
        ),
    ],
    ids=lambda value: ",".join(map(str, value)) if isinstance(value, list) else None,
)
def test_schedules(recipe_file: Path, overrides: list[str], expected: list[float]) -> None:
    recipe = load_recipe(recipe_file, ["optimization.warmup_steps=2", *overrides])
    for found, share in zip(rates(recipe, 6), expected, strict=True):
        assert found == pytest.approx([0.2 * share, 0.02 * share], abs=1e-7)


def drops(recipe: Recipe, steps: int) -> list[int]:
    """The steps after the warm-up at which the learning rate falls."""
    shares = [rate_share(recipe.optimization, step, steps) for step in range(steps)]
    first = recipe.optimization.warmup_steps + 1
    return [step for step in range(first, steps) if shares[step] < shares[step - 1]]


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("rt_detr_vit-comer-s_1x", [8, 11]),
        ("rt_detr_vit-comer-s_3x", [27, 33]),
        ("deformable_detr_vit-comer-l_beitv2_16e", [8]),
    ],
)
def test_coco_drops_after_the_official_epochs(name: str, epochs: list[int]) -> None:
    recipe = load_recipe(DETECTORS / f"{name}.yaml")
    steps = training_steps(recipe.training, COCO_IMAGES, num_processes=8)
    assert drops(recipe, steps) == [math.ceil(epoch * COCO_IMAGES / 16) for epoch in epochs]


def test_a_shorter_run_drops_in_proportion() -> None:
    """A milestone that is an epoch, 8 or 11, would end nearly all of the learning at step 8 or 11."""
    recipe = load_recipe(DETECTORS / "rt_detr_vit-comer-s_1x.yaml", ["training.steps=2000", "training.epochs=null"])
    assert drops(recipe, 2000) == [1333, 1833]


def test_no_warmup_starts_at_the_peak(recipe_file: Path) -> None:
    assert rates(load_recipe(recipe_file), 6)[0] == [0.2, 0.02]


def test_the_schedule_goes_on_from_its_state(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["optimization.schedule=cosine", "optimization.warmup_steps=2"])
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_scheduler(optimizer, recipe, 6)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    resumed = build_scheduler(torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0), recipe, 6)
    resumed.load_state_dict(scheduler.state_dict())
    optimizer.step()
    scheduler.step()
    resumed.optimizer.step()
    resumed.step()
    assert resumed.get_last_lr() == scheduler.get_last_lr()


def training(**fields: int) -> TrainingOptions:
    return TrainingOptions(evaluate_every=1, checkpoint_every=1, **fields)


@pytest.mark.parametrize(
    ("samples", "processes", "expected"),
    [(12, 1, 6), (12, 3, 2), (13, 1, 7), (1, 1, 1)],
)
def test_epochs_show_every_sample(samples: int, processes: int, expected: int) -> None:
    counted = training(epochs=3, batch_size=2, gradient_accumulation=3)
    steps = training_steps(counted, samples, processes)
    assert steps == expected
    assert (steps - 1) * 6 * processes < 3 * samples <= steps * 6 * processes


def test_steps_need_no_length() -> None:
    assert training_steps(training(steps=7, batch_size=2), None, 4) == 7
    with pytest.raises(UserError, match=r"training.epochs needs .* known length: set training.steps"):
        training_steps(training(epochs=7, batch_size=2), None, 4)


def test_a_warmup_longer_than_the_epochs_is_refused(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["training.steps=null", "training.epochs=1", "optimization.warmup_steps=9"])
    with pytest.raises(UserError, match="warmup_steps=9 must be below the run's 9 steps"):
        rates(recipe, 9)
