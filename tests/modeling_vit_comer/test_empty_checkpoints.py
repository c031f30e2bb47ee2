"""A checkpoint without a trunk's weights: what stands in for them is first values, and never memory as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from families import SIZES, TIMM, TRANSFORMERS, images, timm_family, transformers_family
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig
from tiny import tiny_config


DIFFERENTIAL = {
    "model_type": "timm_wrapper",
    "architecture": "vit_dlittle_patch16_reg1_gap_256",
    "model_args": SIZES,
}
"""Its attention has vectors of its own, which no other family has."""


@pytest.fixture
def uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


def config_of(name: str) -> ViTCoMerConfig:
    if name == "differential":
        trunk_config = DIFFERENTIAL
    elif name in TIMM:
        trunk_config = timm_family(name).trunk_config
    else:
        trunk_config = transformers_family(name.removeprefix("hf ")).trunk_config
    return tiny_config(trunk_config=trunk_config, depths=[2])


def load(folder: Path) -> ViTCoMerBackbone:
    torch.manual_seed(1)
    return ViTCoMerBackbone.from_pretrained(folder)


@pytest.mark.usefixtures("uninitialised_memory_is_nan")
@pytest.mark.parametrize("name", [*TIMM, *(f"hf {name}" for name in TRANSFORMERS), "differential"])
def test_first_values(name: str, tmp_path: Path) -> None:
    """Each value is finite and as large as in a model that was just built, and the same after the same seed."""
    config = config_of(name)
    config.save_pretrained(tmp_path)
    save_file({"spatial_pyramid.level_embed": torch.ones(3, 32)}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, again, fresh = load(tmp_path), load(tmp_path), ViTCoMerBackbone(config)
    assert loaded.spatial_pyramid.level_embed.eq(1).all()
    torch.testing.assert_close(loaded.state_dict(), again.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(dict(loaded.named_buffers()), dict(fresh.named_buffers()))
    for (path, value), expected in zip(loaded.named_parameters(), fresh.parameters(), strict=True):
        assert value.isfinite().all(), path
        if value.ndim == 1 and path.startswith("trunk."):
            is_random = name == "differential" and ".lambda_" in path  # in a fresh model alone
            torch.testing.assert_close(value, torch.zeros_like(value) if is_random else expected, msg=path)
        elif value.numel() > 64 and path.startswith("trunk."):
            torch.testing.assert_close(value.std(), expected.std(), rtol=0.35, atol=1e-6, msg=path)
    with torch.no_grad():
        assert all(feature_map.isfinite().all() for feature_map in loaded(images()).feature_maps)


def test_a_fresh_model_keeps_its_draws() -> None:
    """The frequencies of timm's mixed rotary positions are random, and stay those of its constructor."""
    config = config_of("rotary, one a block")
    first, second = (ViTCoMerBackbone(config).trunk.embeddings.rope.freqs for _ in range(2))
    assert not torch.equal(first, second)
