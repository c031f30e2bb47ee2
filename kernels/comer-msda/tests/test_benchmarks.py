"""Both benchmarks run and say what was measured; no time is judged here."""

import json
import statistics
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


kernels = pytest.importorskip("kernels")
command = pytest.importorskip("kernels.cli.benchmark")

PROJECT = Path(__file__).resolve().parents[1]
BENCHMARKS = PROJECT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import benchmark_comer_msda  # noqa: E402, found by the line above
import compare  # noqa: E402


CLASSES = [
    "ClassicOperator",
    "ClassicOperatorB",
    "FusedOperator",
    "FusedOperatorB",
    "FusedOperatorBFloat16",
]


def run_workloads(
    monkeypatch: pytest.MonkeyPatch, kernel: ModuleType, device: torch.device, benchmark_class: type
) -> dict[str, Any]:
    """As `kernels benchmark ./kernels/comer-msda`, at a tiny size; that loads for the device of torch's build only."""
    monkeypatch.setattr(kernels, "get_local_kernel", lambda path: kernel)
    monkeypatch.setattr(command, "_backend", lambda: SimpleNamespace(name=device.type))
    monkeypatch.setattr(benchmark_class, "image", (64, 96))
    results, _ = command.run_benchmark_class(
        benchmark_class, iterations=2, warmup=0, repo_id=str(PROJECT), is_local=True, revision="local"
    )
    return results


def test_the_command_finds_the_workloads() -> None:
    (script,) = command.discover_benchmark_scripts("comer-msda", PROJECT)
    assert [found.__name__ for found in command.discover_benchmark_classes(script, PROJECT)] == CLASSES


@pytest.mark.parametrize("name", CLASSES)
def test_workloads_agree_with_grid_sample(
    monkeypatch: pytest.MonkeyPatch, kernel: ModuleType, device: torch.device, name: str
) -> None:
    results = run_workloads(monkeypatch, kernel, device, getattr(benchmark_comer_msda, name))
    assert {workload: result.verified for workload, result in results.items()} == {
        "forward": True,
        "forward_backward": True,
    }


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch, kernel: ModuleType, device: torch.device) -> None:
    wrong = SimpleNamespace(
        __name__="wrong", comer_msda=lambda value, projection, *sizes: kernel.comer_msda(value, 2 * projection, *sizes)
    )
    with pytest.raises(RuntimeError, match="Verification failed for forward"):
        run_workloads(monkeypatch, wrong, device, benchmark_comer_msda.FusedOperator)


def call_compare(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    threads = torch.get_num_threads()
    try:
        compare.main()
    finally:
        torch.set_num_threads(threads)


def test_comparison(monkeypatch: pytest.MonkeyPatch, kernel: ModuleType, device: torch.device, tmp_path: Path) -> None:
    monkeypatch.delenv("LOCAL_KERNELS", raising=False)
    output = tmp_path / "results" / "comparison.json"
    options = ["--device", device.type, "--cases", "T@64x96", "--repeats", "3", "--output", str(output)]
    call_compare(monkeypatch, *options)
    result = json.loads(output.read_text())
    assert result["device"] == device.type
    assert result["environment"]["threads"] == 1
    assert result["environment"]["torch"] == torch.__version__

    rows = {tuple(row[name] for name in ROW_NAMES): row for row in result["results"]}
    assert len(rows) == len(result["results"])
    assert rows.keys() == expected_rows(device)
    for key, row in rows.items():
        assert len(row["rounds_ms"]) == 3
        assert 0 < row["min_ms"] <= row["median_ms"]
        is_ours = row["implementation"] != "transformers"
        theirs = rows.get((*key[:4], "transformers", row["dtype"])) or rows[(*key[:4], "transformers", "float32")]
        ratio = statistics.median(a / b for a, b in zip(theirs["rounds_ms"], row["rounds_ms"]))
        assert row["times_faster_than"] == ({"transformers": pytest.approx(ratio, rel=0.02)} if is_ours else {})
        if is_ours or row["dtype"] == "float32":
            assert row["relative_error"] < (1e-5 if row["dtype"] == "float32" else 1e-2)
        assert (row["h200_floor_us"] is not None) == (row["implementation"] == "fused" and device.type == "cuda")


ROW_NAMES = ("batch", "step", "l2_cache", "input", "implementation", "dtype")


def expected_rows(device: torch.device) -> set[tuple[Any, ...]]:
    on_cuda = device.type == "cuda"
    measured = [("projection", name) for name in ("fused", "torch", "classic", "transformers")]
    measured += [("locations", name) for name in ("classic", "transformers")]
    kinds = {(*pair, "float32") for pair in measured}
    kinds |= {(*pair, "bfloat16") for pair in measured if on_cuda or pair[1] == "fused"}
    return {
        (batch, step, cache, *kind)
        for batch in ((1, 8) if on_cuda else (1,))
        for step in ("forward", "forward_backward")
        for cache in (("cold", "warm") if on_cuda else (None,))
        for kind in kinds
    }


@pytest.mark.parametrize(
    ("case", "dtype", "expected"),
    [
        ("S@512x512", torch.bfloat16, {"hbm": 2.5, "l1": 6.7, "issue": 11.8, "atomics": 180}),
        ("S@512x512", torch.float32, {"hbm": 4.9, "l1": 13.4, "issue": 13.5, "atomics": 180}),
        ("B@512x512", torch.bfloat16, {"hbm": 3.0, "l1": 6.7, "issue": 11.8, "atomics": 180}),
        ("L@896x896", torch.bfloat16, {"hbm": 12.3, "l1": 27.3, "issue": 48, "atomics": 736}),
        ("S@800x1280", torch.bfloat16, {"hbm": 9.6, "l1": 26.1, "issue": 46, "atomics": 704}),
    ],
)
def test_floors(case: str, dtype: torch.dtype, expected: dict[str, float]) -> None:
    """Worked out by hand when the kernel was designed."""
    assert compare.h200_floor_us(compare.Case.parse(case), 1, dtype) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "XL@512x512"], "'XL@512x512' is not like S@512x512, with one of T, S, B, L"),
        (["--cases", "S@512"], "'S@512' is not like S@512x512"),
        (["--cases", "S@512x500"], "'S@512x500': height and width must be multiples of 32"),
        (["--repeats", "0"], "must be at least 1"),
    ],
)
def test_bad_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        call_compare(monkeypatch, *arguments)
    assert message in capsys.readouterr().err


def test_without_a_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compare, "PROJECT", tmp_path)
    with pytest.raises(SystemExit, match="`make kernel` builds"):
        call_compare(monkeypatch, "--cases", "T@64x64")
