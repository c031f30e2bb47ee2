"""The torch formulation of the deformable attention, against transformers' grid_sample one and against itself."""

import pytest
import torch

from benchmark import grid_sample_attention
from modeling_vit_comer.deformable_attention import MultiScaleDeformableSelfAttention, deformable_attention_torch
from modeling_vit_comer.spatial_pyramid import PyramidShape


HEADS, POINTS, HEAD_DIM = 2, 4, 8
SHAPES = [PyramidShape(2, 2), PyramidShape(4, 10), PyramidShape(8, 6)]

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def random_inputs(shape: PyramidShape, batch: int = 2, dtype: torch.dtype = torch.float32) -> Inputs:
    """Values, offsets of up to several pixels, logits."""
    torch.manual_seed(0)
    samples = HEADS * 3 * POINTS
    sizes = (HEADS * HEAD_DIM, 2 * samples, samples)
    value, offsets, logits = (torch.randn(batch, shape.num_tokens, size, dtype=dtype) for size in sizes)
    return value.requires_grad_(), (3 * offsets).requires_grad_(), logits.requires_grad_()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_grid_sample_forward_and_backward(shape: PyramidShape) -> None:
    inputs = random_inputs(shape, dtype=torch.float64)
    ours, theirs = deformable_attention_torch(*inputs, shape, HEADS), grid_sample_attention(*inputs, shape, HEADS)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    cotangent = torch.randn_like(ours)
    for gradients in zip(torch.autograd.grad(ours, inputs, cotangent), torch.autograd.grad(theirs, inputs, cotangent)):
        torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def test_gradcheck() -> None:
    shape = PyramidShape(2, 2)
    inputs = random_inputs(shape, batch=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: deformable_attention_torch(*x, shape, HEADS), inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float16, 3e-4), (torch.bfloat16, 2.4e-3)]
)
def test_arithmetic_is_in_float32(dtype: torch.dtype, tolerance: float) -> None:
    """Against float64 on the same rounded inputs: what is lost is the rounding of the output, and no more.

    In float32 it is the rounding of locations: 2**-24 * 64 pixels of a map of white noise.
    """
    shape = PyramidShape(32, 32)
    inputs = [x.detach().to(dtype) for x in random_inputs(shape, batch=1)]
    exact = deformable_attention_torch(*(x.double() for x in inputs), shape, HEADS)
    ours = deformable_attention_torch(*inputs, shape, HEADS)
    assert ours.dtype == dtype
    assert (ours - exact).norm() / exact.norm() < tolerance


@pytest.mark.parametrize("offset", [1e3, -1e30, float("inf"), -float("inf")])
def test_far_samples_are_zero(offset: float) -> None:
    shape = PyramidShape(4, 4)
    value, offsets, logits = random_inputs(shape)
    with torch.no_grad():
        offsets.fill_(offset)
    output = deformable_attention_torch(value, offsets, logits, shape, HEADS)
    assert torch.equal(output, torch.zeros_like(output))
    assert all(x.isfinite().all() for x in torch.autograd.grad(output.sum(), (value, logits)))


def test_nan_stays_where_it_is() -> None:
    shape = PyramidShape(4, 4)
    value, offsets, logits = (x.detach() for x in random_inputs(shape))
    clean = deformable_attention_torch(value, offsets, logits, shape, HEADS)
    offsets[0, 5, 0] = torch.nan
    output = deformable_attention_torch(value, offsets, logits, shape, HEADS)
    assert output[0, 5, :HEAD_DIM].isnan().all()
    output[0, 5, :HEAD_DIM] = clean[0, 5, :HEAD_DIM]
    assert torch.equal(output, clean)


def test_initial_offsets_are_rings() -> None:
    layer = MultiScaleDeformableSelfAttention(hidden_size=32, num_heads=4, num_points=3, value_ratio=1.0)
    offsets = layer.initial_offsets().view(4, 3, 3, 2)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for point in range(3):
        expected = (point + 1) * directions[:, None].expand(-1, 3, -1)
        torch.testing.assert_close(offsets[:, :, point], expected, rtol=0, atol=1e-6)


def test_heads_must_divide_the_values() -> None:
    with pytest.raises(ValueError, match="multiple of deform_num_heads, got 3"):
        MultiScaleDeformableSelfAttention(hidden_size=32, num_heads=3, num_points=4, value_ratio=0.5)
