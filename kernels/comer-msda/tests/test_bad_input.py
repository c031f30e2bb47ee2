"""What must not crash nor pass unseen: wrong sizes and dtypes, extreme numbers, odd layouts."""

from types import ModuleType
from typing import Any

import pytest
import torch

from reference import num_tokens, random_classic_inputs, random_inputs


LEVELS = [8, 12, 4, 6, 2, 3]
HEADS, DIM, POINTS = 2, 8, 4
SAMPLES = HEADS * 3 * POINTS


def fused_inputs(device: torch.device, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(x.float().to(device) for x in random_inputs(LEVELS, HEADS, DIM, POINTS, batch))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": torch.zeros(2, 126, 16, dtype=torch.int64)}, "must be float32, float16, bfloat16 or float64"),
        ({"value": torch.zeros(126, 16)}, r"value must be \(batch, tokens, heads \* head_dim\), got \(126, 16\)"),
        ({"value": torch.zeros(2, 126, 0)}, "heads must divide the 0 channels"),
        ({"heads": 3}, "heads must divide the 16 channels of value, got 3"),
        ({"heads": 0}, "heads must divide the 16 channels of value, got 0"),
        ({"heads": -2}, "got -2"),
        ({"points": 0}, "levels \\* points must be from 1 to 256"),
        ({"points": 2**62, "level_sizes": [63, 1, 61, 1, 1, 1, 1, 1]}, "levels \\* points must be from 1 to 256"),
        ({"points": 2**40}, "levels \\* points must be from 1 to 256"),
        ({"points": 3}, "projection must have size"),
        ({"projection": torch.zeros(2, 126, 71)}, r"must have size \(2, 126, 72\), got \(2, 126, 71\)"),
        ({"projection": torch.zeros(1, 126, 72)}, "projection must have size"),
        ({"projection": torch.zeros(2, 126, 72, dtype=torch.bfloat16)}, "projection must have the dtype of value"),
        ({"projection": torch.zeros(2, 126, 72, device="meta")}, "inputs must be on one device, got .* and meta"),
        ({"level_sizes": []}, "level_sizes must be height, width of 1 to 8 levels"),
        ({"level_sizes": [8, 12, 4]}, "level_sizes must be height, width"),
        ({"level_sizes": [1, 1] * 9}, "of 1 to 8 levels"),
        ({"level_sizes": [8, 12, 4, 6, 2, 2]}, r"hold 124 tokens, but value has 126"),
        ({"level_sizes": [8, 12, 4, 6, -2, -3]}, "from 1 to 2\\^24"),
        ({"level_sizes": [8, 12, 4, 6, 0, 0]}, "from 1 to 2\\^24"),
        ({"level_sizes": [2**62, 4, 2**62, 4, 2, 3]}, "from 1 to 2\\^24"),
    ],
)
def test_fused_errors(kernel: ModuleType, device: torch.device, changes: dict[str, Any], message: str) -> None:
    value, projection = fused_inputs(device)
    arguments = {"value": value, "projection": projection, "level_sizes": LEVELS, "heads": HEADS, "points": POINTS}
    for name, change in changes.items():
        movable = isinstance(change, torch.Tensor) and change.device.type != "meta"
        arguments[name] = change.to(device) if movable else change
    with pytest.raises(RuntimeError, match=message):
        kernel.comer_msda(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": torch.zeros(2, 126, 16)}, r"value must be \(batch, tokens, heads, head_dim\)"),
        ({"sampling_locations": torch.zeros(2, 5, 2, 3, 4)}, "sampling_locations must be"),
        ({"sampling_locations": torch.zeros(2, 5, 2, 2, 4, 2)}, "sampling_locations must have size"),
        ({"sampling_locations": torch.zeros(2, 5, 2, 3, 4, 3)}, "sampling_locations must have size"),
        ({"sampling_locations": torch.zeros(2, 5, 2, 3, 4, 2, dtype=torch.float16)}, "must be float32"),
        ({"attention_weights": torch.zeros(2, 4, 2, 3, 4)}, "attention_weights must have size"),
        ({"attention_weights": torch.zeros(2, 5, 2, 3, 4, dtype=torch.float64)}, "must be float32"),
        ({"level_sizes": [8, 12, 4, 6]}, "hold 120 tokens"),
    ],
)
def test_classic_errors(kernel: ModuleType, device: torch.device, changes: dict[str, Any], message: str) -> None:
    names = ("value", "sampling_locations", "attention_weights")
    inputs = random_classic_inputs(LEVELS, HEADS, DIM, POINTS, queries=5, batch=2)
    arguments = {name: x.float().to(device) for name, x in zip(names, inputs)} | {"level_sizes": LEVELS}
    arguments |= {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in changes.items()}
    with pytest.raises(RuntimeError, match=message):
        kernel.multi_scale_deformable_attention(**arguments)


@pytest.mark.parametrize(("size", "dtype"), [((2, 126, 15), torch.float32), ((2, 126, 16), torch.float64)])
def test_wrong_gradient(kernel: ModuleType, device: torch.device, size: tuple[int, ...], dtype: torch.dtype) -> None:
    gradient = torch.zeros(size, dtype=dtype, device=device)
    with pytest.raises(RuntimeError, match="grad_output must have"):
        kernel.layers.ops.comer_msda_backward(gradient, *fused_inputs(device), LEVELS, HEADS, POINTS, False)


def test_empty_batch(kernel: ModuleType, device: torch.device) -> None:
    inputs = [x[:0].requires_grad_() for x in fused_inputs(device)]
    output = kernel.comer_msda(*inputs, LEVELS, HEADS, POINTS)
    assert output.shape == (0, num_tokens(LEVELS), HEADS * DIM)
    gradients = torch.autograd.grad(output.sum(), inputs)
    assert [x.shape for x in gradients] == [x.shape for x in inputs]


def test_no_queries(kernel: ModuleType, device: torch.device) -> None:
    inputs = random_classic_inputs(LEVELS, HEADS, DIM, POINTS, queries=0, batch=2)
    inputs = [x.float().to(device).requires_grad_() for x in inputs]
    output = kernel.multi_scale_deformable_attention(*inputs, LEVELS)
    assert output.shape == (2, 0, HEADS * DIM)
    grad_value, *_ = torch.autograd.grad(output.sum(), inputs)
    assert torch.equal(grad_value, torch.zeros_like(grad_value))


def test_strides_do_not_matter(kernel: ModuleType, device: torch.device) -> None:
    """Transposed, sliced and expanded inputs and gradients."""
    value, projection = fused_inputs(device)
    transposed = value.transpose(1, 2).contiguous().transpose(1, 2)
    sliced = torch.cat([projection, projection], dim=-1)[..., : projection.shape[-1]]
    inputs = [[x.requires_grad_() for x in pair] for pair in ((value, projection), (transposed, sliced))]
    outputs = [kernel.comer_msda(*pair, LEVELS, HEADS, POINTS) for pair in inputs]
    assert torch.equal(*outputs)
    cotangents = [torch.ones_like(value), torch.ones(1, device=device).expand_as(value)]
    gradients = [torch.autograd.grad(*call) for call in zip(outputs, inputs, cotangents)]
    assert all(torch.equal(*pair) for pair in zip(*gradients))


@pytest.mark.parametrize("offset", [1e3, -1e30, 3e38, float("inf"), -float("inf")])
def test_far_samples_are_zero(kernel: ModuleType, device: torch.device, offset: float) -> None:
    value, projection = fused_inputs(device)
    projection[..., : 2 * SAMPLES] = offset
    inputs = [x.requires_grad_() for x in (value, projection)]
    output = kernel.comer_msda(*inputs, LEVELS, HEADS, POINTS)
    assert torch.equal(output, torch.zeros_like(output))
    for gradient in torch.autograd.grad(output.sum(), inputs):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_nan_offset_stays_where_it_is(kernel: ModuleType, device: torch.device) -> None:
    value, projection = fused_inputs(device)
    clean = kernel.comer_msda(value, projection, LEVELS, HEADS, POINTS)
    projection[0, 5, 0] = torch.nan
    output = kernel.comer_msda(value, projection, LEVELS, HEADS, POINTS)
    assert output[0, 5, :DIM].isnan().all()
    output[0, 5, :DIM] = clean[0, 5, :DIM]
    assert torch.equal(output, clean)


def test_location_on_the_border(kernel: ModuleType, device: torch.device) -> None:
    """A location exactly one pixel outside has weight zero, and the derivative towards the pixel inside."""
    value = torch.ones(1, 4, 1, 1, device=device)
    # x = -0.25 is pixel -1 of two, y = 0.25 is line 0.
    locations = torch.tensor([-0.25, 0.25], device=device).view(1, 1, 1, 1, 1, 2).requires_grad_()
    output = kernel.multi_scale_deformable_attention(
        value, locations, torch.ones(1, 1, 1, 1, 1, device=device), [2, 2]
    )
    (gradient,) = torch.autograd.grad(output.sum(), locations)
    assert output.item() == 0
    assert gradient.flatten().tolist() == [2.0, 0.0]


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_extreme_logits(kernel: ModuleType, device: torch.device, value: float) -> None:
    """As torch's softmax: NaN where it says NaN, zero weight for minus infinity."""
    inputs = fused_inputs(device)
    inputs[1][0, 7, 2 * SAMPLES] = value
    output = kernel.comer_msda(*inputs, LEVELS, HEADS, POINTS)
    assert output[0, 7, :DIM].isnan().all() == (value != -torch.inf)
    assert output.isfinite().sum() == output.numel() - (0 if value == -torch.inf else DIM)
