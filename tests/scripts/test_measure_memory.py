"""`scripts/measure_memory.py`: what its sources are, and that what it measures is memory."""

from pathlib import Path

import pytest
import torch

import measure_memory
from measure_memory import MIB, SOURCES, arguments_of, extra_memory
from modeling_vit_comer.trunk_sources import find_trunk


needs_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")


@needs_linux
def test_extra_memory_is_the_peak() -> None:
    """Also of what is gone again at the end, and none where nothing is held."""
    extra = extra_memory(lambda: [torch.ones(100 * MIB, dtype=torch.uint8).max() for _ in range(10)])
    assert 90 * MIB < extra["anonymous"] < 250 * MIB
    assert extra["resident"] >= 90 * MIB
    assert extra_memory(lambda: None)["anonymous"] < 20 * MIB


def test_sources_are_trunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_memory, "TIMM_NAME", "vit_tiny_patch16_224")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    monkeypatch.setattr(measure_memory, "TRANSFORMERS_CONFIG", small)
    measure_memory.save_sources(tmp_path)
    found = {}
    for name in SOURCES:
        trunk, arguments = arguments_of(name, tmp_path)
        found[name] = find_trunk(trunk, arguments.get("trunk_config")).has_weights
    assert found == {name: name != "trunk_config" for name in SOURCES}
