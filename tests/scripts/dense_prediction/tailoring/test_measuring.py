"""A step is measured with the samples, the model and the loss of the run that follows."""

from pathlib import Path

import pytest
import torch

from dense_prediction.data.inspection.looking import Inspection
from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import find_task
from dense_prediction.experiment import Opened
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.tailoring import measuring
from dense_prediction.tailoring.case import Device
from dense_prediction.tailoring.measuring import _seconds, _Span, find_device, measure_cost


def test_seconds_of_both_precisions_and_of_an_evaluation(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    data = load_data(recipe.data, find_task(recipe.task))
    cost = measure_cost(recipe, Opened(data, Inspection(recipe.data, {})), Device(has_bf16=True))
    assert cost.seconds.keys() == {"no", "bf16"}
    assert all(0 < seconds < 60 for seconds in [*cost.seconds.values(), cost.evaluation])


def test_a_slow_step_is_not_measured_again(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(recipe_file)
    data = load_data(recipe.data, find_task(recipe.task))
    monkeypatch.setattr(measuring, "PATIENCE", 1e-9)
    steps = []
    learn = measuring._Bench._learn
    monkeypatch.setattr(measuring._Bench, "_learn", lambda *arguments: steps.append(learn(*arguments)))
    measure_cost(recipe, Opened(data, Inspection(recipe.data, {})), Device())
    assert len(steps) == 1


def test_other_programs_do_not_decide_which_precision_is_faster() -> None:
    """In the second span the process had half of a core; both are as slow as they were together."""
    seconds = _seconds({"no": _Span(2.0, 2.0), "bf16": _Span(2.0, 1.0)}, is_cpu=True)
    assert seconds == pytest.approx({"no": 8 / 3, "bf16": 4 / 3})
    assert _seconds({"no": _Span(2.0, 0.1), "bf16": _Span(1.0, 0.1)}, is_cpu=False) == {"no": 2.0, "bf16": 1.0}


def test_out_of_memory_is_one_line(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    recipe = load_recipe(recipe_file)
    data = load_data(recipe.data, find_task(recipe.task))
    monkeypatch.setattr(measuring._Bench, "_learn", fail)
    with pytest.raises(UserError, match="make them smaller with transforms.crop_size"):
        measure_cost(recipe, Opened(data, Inspection(recipe.data, {})), Device())


def test_the_device_is_this_machine() -> None:
    device = find_device()
    assert device.memory > 0.1 and device.cores >= 1 and device.processes == 1
    assert device.is_cpu == (not torch.cuda.is_available())
