"""The average of the weights: its numbers, its counters, and that it survives a checkpoint."""

import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dense_prediction.recipes.schema import OptimizationOptions
from dense_prediction.training.ema import build_average, ema_decay


WARM = OptimizationOptions(learning_rate=1.0, ema_decay=0.75, ema_warmup_steps=3)


def tiny_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def train_step(model: nn.Module, average: AveragedModel) -> None:
    """Changes weights and buffers."""
    model(torch.rand(2, 3, 4, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter))
    average.update_parameters(model)


def test_no_decay_means_no_average() -> None:
    assert build_average(tiny_model(), OptimizationOptions(learning_rate=1.0)) is None


@pytest.mark.parametrize("warmup", [0, 3])
def test_weights_and_statistics_are_averaged_and_counters_copied(warmup: int) -> None:
    model = tiny_model()
    recipe = OptimizationOptions(learning_rate=1.0, ema_decay=0.75, ema_warmup_steps=warmup)
    average = build_average(model, recipe)
    expected = {}
    for step in range(5):
        train_step(model, average)
        keep = 0.75 * (1 - math.exp(-step / warmup)) if warmup else 0.75
        for key, value in model.state_dict().items():
            new = step == 0 or not value.is_floating_point()
            expected[key] = value.clone() if new else keep * expected[key] + (1 - keep) * value
    found = average.module.state_dict()
    torch.testing.assert_close(found, expected)
    assert found["1.num_batches_tracked"] == 5
    assert not torch.equal(found["1.running_mean"], model[1].running_mean)


def test_the_average_neither_trains_nor_shares_the_weights() -> None:
    model = tiny_model()
    average = build_average(model, WARM)
    assert not average.module[1].training
    assert model[1].training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = average.module[0].weight.clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(average.module[0].weight, before)


def test_the_decay_grows() -> None:
    assert [ema_decay(updates, 0.5, 0) for updates in (0, 9)] == [0.5, 0.5]
    assert ema_decay(0, 0.5, 10) == 0
    assert ema_decay(10, 0.5, 10) == pytest.approx(0.5 * (1 - 1 / math.e))
    assert ema_decay(1000, 0.5, 10) == pytest.approx(0.5)


def test_a_resumed_average_equals_an_unbroken_one(tmp_path: Path) -> None:
    model = tiny_model()
    average = build_average(model, WARM)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(model)
    accelerator.register_for_checkpointing(average)
    for _ in range(2):
        train_step(model, average)
    accelerator.save_state(str(tmp_path))
    for _ in range(2):
        train_step(model, average)
    unbroken = {key: value.clone() for key, value in average.state_dict().items()}
    accelerator.load_state(str(tmp_path))
    assert average.n_averaged == 2
    for _ in range(2):
        train_step(model, average)
    torch.testing.assert_close(dict(average.state_dict()), unbroken, rtol=0, atol=0)


def test_the_average_of_a_prepared_model_computes_in_its_precision() -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model = accelerator.prepare(tiny_model())
    average = build_average(accelerator.unwrap_model(model), WARM)
    train_step(accelerator.unwrap_model(model), average)
    model.eval()
    images = torch.rand(1, 3, 4, 4)
    assert torch.equal(average.module[0].weight, accelerator.unwrap_model(model)[0].weight)
    assert torch.equal(average.module(images), model(images))
    with torch.no_grad():
        average.module[0].weight.zero_()
    assert not torch.equal(average.module(images), model(images)), "the copy must run its own weights"
