"""Weights and inputs of the official models whose outputs are kept, rebuilt from their names; and the full goldens."""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.conversion import config_from_official, convert_official_state_dict


FIXTURES = Path(__file__).parents[1] / "fixtures"
SHARED = Path(__file__).parents[3] / "shared"

FLAVOURS = {"comer_det": "detection", "comer_seg": "segmentation", "comer_codetr": "co_detr"}

TOLERANCE = 2e-5
"""Of max|difference| / std: ten times what one thread against two makes, a fifth of the smallest mistake tried."""


def uniform(name: str, shape: list[int] | torch.Size) -> torch.Tensor:
    """Uniform in [0, 1), seeded by the name alone."""
    generator = torch.Generator("cpu").manual_seed(zlib.crc32(name.encode()))
    return torch.rand(math.prod(shape), generator=generator).reshape(tuple(shape))


def unit_variance(name: str, shape: list[int] | torch.Size) -> torch.Tensor:
    return (2 * uniform(name, shape) - 1) * 3**0.5


def official_weight(key: str, shape: list[int]) -> torch.Tensor:
    """The weight that the official model of that key was given."""
    name, noise = key.rsplit(".", 1)[-1], unit_variance(key, shape)
    fan_in = math.prod(shape[1:])
    if name == "num_batches_tracked":
        return torch.tensor(7)
    if name == "running_var":
        return 0.5 + uniform(key, shape)
    if name in ("gamma", "gamma1", "gamma2", "gamma_1", "gamma_2"):
        return 0.5 + 0.25 * noise
    if name in ("pos_embed", "level_embed", "relative_position_bias_table"):
        return 0.5 * noise
    if key.endswith("sampling_offsets.bias"):
        return 1.5 * noise
    if key.endswith("sampling_offsets.weight"):
        return 0.5 * noise / math.sqrt(fan_in)
    if name == "weight":
        return 1 + 0.2 * noise if len(shape) == 1 else noise / math.sqrt(fan_in)
    return 0.1 * noise


def official_fill(shapes: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:
    return {key: official_weight(key, shape) for key, shape in shapes.items()}


def build_backbone(flavour: str, kwargs: Mapping, state_dict: Mapping[str, torch.Tensor]) -> ViTCoMerBackbone:
    """Our backbone of an official model, in eval mode, with its weights."""
    config = config_from_official(flavour, **kwargs)
    backbone = ViTCoMerBackbone(config)
    backbone.load_state_dict(convert_official_state_dict(state_dict, config), strict=True)
    return backbone.eval()


def kept_model(name: str) -> dict:
    return json.loads((FIXTURES / "official_models.json").read_text())[name]


def golden_file(name: str) -> Path:
    path = SHARED / "golden" / name
    if not path.exists():
        pytest.skip(f"the full golden {name} is not on this machine; tests/fixtures guard parity here")
    return path


def load_golden(name: str) -> tuple[ViTCoMerBackbone, dict[str, torch.Tensor]]:
    """The backbone of a full golden, and the golden's tensors."""
    path = golden_file(f"{name}.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    state_dict = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    return build_backbone(FLAVOURS[metadata["flavour"]], json.loads(metadata["kwargs"]), state_dict), tensors


def relative_error(ours: torch.Tensor, official: torch.Tensor) -> float:
    return ((ours - official).abs().max() / official.std()).item()
