"""`scripts/benchmark.py`: both formulations really run, and the file says what was measured."""

import json
import sys
from pathlib import Path

import pytest

import benchmark
from dense_prediction.errors import UserError
from modeling_vit_comer import deformable_attention, interaction


@pytest.fixture(autouse=True)
def formulation_restored():
    yield
    benchmark.use_embedding_bag()


def call_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    benchmark.main()


def test_formulations_replace_each_other() -> None:
    ours = deformable_attention.deformable_attention_torch, interaction.checkpoint
    benchmark.use_grid_sample()
    assert deformable_attention.deformable_attention_torch is benchmark.grid_sample_attention
    assert interaction.checkpoint is benchmark.call_directly
    benchmark.use_embedding_bag()
    assert (deformable_attention.deformable_attention_torch, interaction.checkpoint) == ours


def test_result_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "results" / "benchmark.json"
    options = ["--preset", "vit-comer-demo", "--size", "64", "--repeats", "2", "--threads", "1"]
    call_main(monkeypatch, *options, "--output", str(output))
    result = json.loads(output.read_text())
    memory = result["training_peak_memory_mib"]
    assert result["training_peak_memory_ratio"] == pytest.approx(
        memory["embedding_bag"] / memory["grid_sample"], abs=1e-3
    )
    for step in ("forward", "training_step"):
        rounds = result[step]["rounds"]
        assert rounds.keys() == {"embedding_bag", "grid_sample"}
        assert all(len(seconds["wall_s"]) == 2 and min(seconds["wall_s"]) > 0 for seconds in rounds.values())


def test_unknown_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no preset 'vit-comer-xl'; there are vit-comer-b"):
        call_main(monkeypatch, "--preset", "vit-comer-xl", "--output", str(tmp_path / "result.json"))
