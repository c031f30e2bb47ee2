"""`scripts/benchmark.py`: all formulations really run, and the file says what was measured."""

import json
import statistics
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import benchmark
from dense_prediction.errors import UserError
from dense_prediction.models.simple_feature_pyramid import SimpleFeaturePyramid
from modeling_vit_comer import deformable_attention, deformable_attention_backend, interaction, kernel_choice


def call_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    num_threads = torch.get_num_threads()
    try:
        benchmark.main()
    finally:
        torch.set_num_threads(num_threads)


def test_formulations_end() -> None:
    """Each computes in its way for as long as it lasts, also where an error ends it."""
    ours = deformable_attention.deformable_attention_torch, interaction.checkpoint
    chosen = deformable_attention_backend("cpu")
    with benchmark.FORMULATIONS["grid_sample"]():
        assert deformable_attention.deformable_attention_torch is benchmark.grid_sample_attention
        assert interaction.checkpoint is benchmark.call_directly
        assert deformable_attention_backend("cpu") == "torch"
    with pytest.raises(ZeroDivisionError), benchmark.FORMULATIONS["grid_sample"]():
        raise ZeroDivisionError
    assert (deformable_attention.deformable_attention_torch, interaction.checkpoint) == ours
    assert deformable_attention_backend("cpu") == chosen
    with pytest.raises(ZeroDivisionError), benchmark.FORMULATIONS["embedding_bag"]():
        assert (deformable_attention.deformable_attention_torch, interaction.checkpoint) == ours
        assert deformable_attention_backend("cpu") == "torch"
        raise ZeroDivisionError
    with benchmark.FORMULATIONS["kernel"]():
        assert deformable_attention_backend("cpu") == chosen
    assert deformable_attention_backend("cpu") == chosen


def test_timed_under_its_formulation() -> None:
    """And nothing of it is left when the turns are over."""
    seen = []

    def step(model: torch.nn.Module, images: torch.Tensor) -> None:
        seen.append(deformable_attention.deformable_attention_torch is benchmark.grid_sample_attention)

    names = ("grid_sample", "embedding_bag")
    contenders = {name: benchmark.Contender(benchmark.FORMULATIONS[name], torch.nn.Identity()) for name in names}
    benchmark.time_by_turns(step, contenders, torch.empty(0), repeats=1)
    assert seen == [True, False, True, False]
    assert deformable_attention.deformable_attention_torch is not benchmark.grid_sample_attention


def test_result_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    formulations = benchmark.available_formulations()
    output = tmp_path / "results" / "benchmark.json"
    options = ["--preset", "vit-comer-demo", "--size", "64", "--repeats", "2", "--threads", "1"]
    call_main(monkeypatch, *options, "--output", str(output))
    result = json.loads(output.read_text())
    assert result["attention"] == "preset"
    memory = result["training_peak_memory_mib"]
    assert list(memory) == formulations
    for name, ratio in result["training_peak_memory_ratio"].items():
        assert ratio == pytest.approx(memory[name] / memory["grid_sample"], abs=1e-3)

    measured = {"forward": {*formulations, "simple_feature_pyramid"}, "training_step": set(formulations)}
    for step, names in measured.items():
        rounds = result[step]["rounds"]
        assert rounds.keys() == names
        assert all(len(seconds["wall_s"]) == 2 and min(seconds["wall_s"]) > 0 for seconds in rounds.values())
        for name, speedup in result[step]["speedup"]["wall_s"].items():
            pairs = zip(rounds["grid_sample"]["wall_s"], rounds[name]["wall_s"])
            assert speedup == pytest.approx(statistics.median(a / b for a, b in pairs), abs=0.01)
        assert result[step]["speedup"]["wall_s"].keys() == set(formulations) - {"grid_sample"}
    assert result["forward"]["over_simple_feature_pyramid"]["cpu_s"].keys() == set(formulations)

    table = capsys.readouterr().out
    assert all(name in table for name in measured["forward"])


def test_kernel_is_left_out_where_none_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel_choice, "LOCAL_KERNEL", tmp_path)
    assert benchmark.available_formulations() == ["embedding_bag", "grid_sample"]
    assert "without the native kernel" in capsys.readouterr().out
    assert benchmark.environment(threads=1)["kernel"] is None


def test_unknown_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no preset 'vit-comer-xl'; there are vit-comer-b"):
        call_main(monkeypatch, "--preset", "vit-comer-xl", "--output", str(tmp_path / "result.json"))


@pytest.mark.parametrize(("attention", "plain_gmac", "ratio"), [("global", 35.3, 2.11), ("preset", 31.0, 2.27)])
def test_multiply_adds_of_both_sides(attention: str, plain_gmac: float, ratio: float) -> None:
    """ViT-CoMer-S at 512 x 512 and its trunk with the simple pyramid, as counted in the official code."""
    with benchmark.FORMULATIONS["embedding_bag"](), torch.device("meta"):
        backbone = benchmark.build_backbone("vit-comer-s", attention).eval()
        images = torch.empty(1, 3, 512, 512)
        gmac = [count_gmac(model, images) for model in (backbone, SimpleFeaturePyramid(backbone.trunk))]
    assert gmac[1] == pytest.approx(plain_gmac, abs=0.05)
    assert gmac[0] / gmac[1] == pytest.approx(ratio, abs=0.005)


def count_gmac(model: torch.nn.Module, images: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return counter.get_total_flops() / 2e9


def test_simple_feature_pyramid_maps() -> None:
    """Strides 4 to 32 for any size, from the patch tokens only, with the backbone's own weights."""
    backbone = benchmark.build_backbone("vit-comer-demo", "preset").eval()
    pyramid = SimpleFeaturePyramid(backbone.trunk)
    with torch.no_grad():
        maps = pyramid(torch.randn(2, 3, 70, 96))
    sizes = [(18, 24), (9, 12), (5, 6), (3, 3)]
    assert [feature_map.shape for feature_map in maps] == [(2, 64, *size) for size in sizes]
    assert pyramid.trunk.layers[0].block.attn.qkv.weight is backbone.trunk.layers[0].block.attn.qkv.weight
