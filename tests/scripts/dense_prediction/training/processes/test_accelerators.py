"""What Accelerate would silently do otherwise than it was asked."""

from pathlib import Path

import pytest
import torch

from dense_prediction.errors import UserError
from dense_prediction.recipes.loading import load_recipe
from dense_prediction.training.loop import TrainingRun
from dense_prediction.training.processes import accelerators
from dense_prediction.training.processes.accelerators import check_machine, start_accelerator


CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_fp16_on_a_cpu_would_be_float32() -> None:
    with pytest.raises(UserError, match="fp16 cannot be used here: it needs a GPU; choose bf16 or no"):
        start_accelerator("fp16")
    check_machine("fp16", GPU, 1)
    check_machine("bf16", CPU, 1)


def test_processes_that_do_not_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were started, and each would run alone: set ACCELERATE_USE_CPU"):
        check_machine("no", CPU, 1)
    check_machine("no", CPU, 2)


def test_what_accelerate_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(mixed_precision: str) -> None:
        raise ValueError(f"{mixed_precision} needs another device")

    monkeypatch.setattr(accelerators, "Accelerator", refuse)
    with pytest.raises(UserError, match="=bf16 cannot be used here: bf16 needs another device"):
        start_accelerator("bf16")


def test_the_environment_does_not_change_how_many_passes_a_step_has(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `accelerate launch` sets it from a configuration file of its own."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    changes = ["training.steps=2", "training.gradient_accumulation=2", f"output={tmp_path}"]
    run = TrainingRun(load_recipe(recipe_file, changes))
    run.train()
    assert run.accelerator.gradient_accumulation_steps == 2
    steps = {int(state["step"]) for state in run.optimizer.state.values()}
    assert steps == {2}, "of the optimizer"
