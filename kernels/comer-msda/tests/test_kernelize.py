"""The layers through `kernels.kernelize`, in every mode, without a way back to the original."""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from reference import classic_reference, fused_reference, pairs, random_classic_inputs, random_inputs


kernels = pytest.importorskip("kernels")

LEVELS = [8, 12, 4, 6, 2, 3]
MODES = [
    kernels.Mode.INFERENCE,
    kernels.Mode.TRAINING,
    kernels.Mode.INFERENCE | kernels.Mode.TORCH_COMPILE,
    kernels.Mode.TRAINING | kernels.Mode.TORCH_COMPILE,
]


class MultiScaleDeformableAttention(nn.Module):
    """The signature of transformers' class."""

    def forward(
        self,
        value: torch.Tensor,
        value_spatial_shapes: torch.Tensor,
        value_spatial_shapes_list: list[tuple],
        level_start_index: torch.Tensor,
        sampling_locations: torch.Tensor,
        attention_weights: torch.Tensor,
        im2col_step: int,
    ) -> torch.Tensor:
        raise AssertionError("the kernel should have run")


class MultiScaleDeformableSelfAttention(nn.Module):
    """The four linear layers and the signature of ViT-CoMer's class."""

    num_heads, num_points = 2, 4

    def __init__(self) -> None:
        super().__init__()
        self.sampling_offsets, self.attention_weights = nn.Linear(16, 48), nn.Linear(16, 24)
        self.value_proj, self.output_proj = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, query: torch.Tensor, value: torch.Tensor, shape: Any) -> torch.Tensor:
        raise AssertionError("the kernel should have run")


def kernelized(kernel: ModuleType, layer: nn.Module, mode: Any, device: torch.device) -> nn.Module:
    name = type(layer).__name__
    kernels.replace_kernel_forward_from_hub(type(layer), name)
    repository = kernels.LocalLayerRepository(repo_path=Path(kernel.__file__).parent, layer_name=name)
    with kernels.use_kernel_mapping({name: {device.type: repository}}, inherit_mapping=False):
        return kernels.kernelize(layer.to(device), mode=mode, device=device.type, use_fallback=False)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_classic_layer(kernel: ModuleType, device: torch.device, mode: Any) -> None:
    layer = kernelized(kernel, MultiScaleDeformableAttention(), mode, device)
    inputs = [x.float() for x in random_classic_inputs(LEVELS, 2, 8, 4, queries=9)]
    value, locations, weights = (x.to(device).requires_grad_() for x in inputs)
    output = layer(value, None, pairs(LEVELS), None, locations, weights, 64)
    torch.testing.assert_close(output.cpu(), classic_reference(*inputs, LEVELS), rtol=1e-4, atol=1e-5)
    output.sum().backward()
    assert all(x.grad is not None for x in (value, locations, weights))


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_self_attention_layer(kernel: ModuleType, device: torch.device, mode: Any) -> None:
    layer = kernelized(kernel, MultiScaleDeformableSelfAttention(), mode, device)
    query, _ = (x.float().to(device) for x in random_inputs(LEVELS, 2, 8, 4))
    output = layer(query, query, SimpleNamespace(levels=pairs(LEVELS)))
    projection = torch.cat([layer.sampling_offsets(query), layer.attention_weights(query)], dim=-1)
    attended = fused_reference(layer.value_proj(query).cpu(), projection.cpu(), LEVELS, 2, 4)
    torch.testing.assert_close(output, layer.output_proj(attended.to(device)), rtol=1e-4, atol=1e-5)
    output.sum().backward()
    assert layer.sampling_offsets.weight.grad is not None
