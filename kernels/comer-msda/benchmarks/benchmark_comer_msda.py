"""Workloads for `kernels benchmark`: both operators, at the sizes of ViT-CoMer-S and B and an image of 512 x 512.

    pip install "kernels[benchmark]"
    kernels benchmark ./kernels/comer-msda

`kernels` loads this file by itself, from a folder or from the Hub: it needs nothing else of this project. Each
workload is checked against `grid_sample`, whose time is shown beside it.
"""

from collections.abc import Callable

import torch
from kernels.benchmark import Benchmark
from torch.nn import functional as F


POINTS = 4
STRIDES = (8, 16, 32)

Tensors = tuple[torch.Tensor, ...]


def pyramid(height: int, width: int) -> list[int]:
    """Flat level sizes at strides 8, 16 and 32 of an image, as ViT-CoMer has them."""
    return [size // stride for stride in STRIDES for size in (height, width)]


def pairs(level_sizes: list[int]) -> list[tuple[int, int]]:
    return list(zip(level_sizes[::2], level_sizes[1::2]))


def random_problem(level_sizes: list[int], heads: int, head_dim: int, batch: int = 1) -> Tensors:
    """Values (batch, tokens, heads * head_dim) and projection (batch, tokens, heads * samples * 3), in float32.

    All numbers are bfloat16's too. Values are from -1 to 1; offsets are normally distributed with a deviation of 2
    pixels, but odd multiples of 1/16: centres of pixels, where derivatives jump, are at multiples of 1/8.
    """
    tokens = sum(height * width for height, width in pairs(level_sizes))
    samples = heads * len(pairs(level_sizes)) * POINTS
    value = 2 * torch.rand(batch, tokens, heads * head_dim) - 1
    offsets = (2 * (16 * torch.randn(batch, tokens, 2 * samples)).floor() + 1) / 16
    logits = torch.randn(batch, tokens, samples)
    return value.bfloat16().float(), torch.cat([offsets, logits], dim=-1).bfloat16().float()


def cell_centres(level_sizes: list[int]) -> torch.Tensor:
    """x and y from 0 to 1 of each token's own cell: (tokens, 2), in float64."""
    centres = []
    for size in pairs(level_sizes):
        y, x = ((torch.arange(side, dtype=torch.float64) + 0.5) / side for side in size)
        centres.append(torch.cartesian_prod(y, x).flip(-1))
    return torch.cat(centres)


def locations_and_weights(
    projection: torch.Tensor, centres: torch.Tensor, sizes: torch.Tensor, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the layers of transformers compute from the projection before their operator.

    Args:
        projection: (batch, tokens, heads * levels * points * 3).
        centres: (tokens, 2), x and y.
        sizes: (levels, 2), height and width.

    Returns:
        Locations (batch, tokens, heads, levels, points, 2), weights (batch, tokens, heads, levels, points).
    """
    shape = (heads, sizes.shape[0], POINTS)
    offsets, logits = projection.split([2 * projection.shape[-1] // 3, projection.shape[-1] // 3], dim=-1)
    # (batch, tokens, heads * samples * 2) -> (batch, tokens, heads, levels, points, 2)
    offsets = offsets.unflatten(-1, (*shape, 2))
    weights = logits.unflatten(-1, (heads, -1)).softmax(-1).unflatten(-1, shape[1:])
    return centres[:, None, None, None] + offsets / sizes.flip(-1)[:, None], weights


def grid_sample_attention(
    value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor, level_sizes: list[int]
) -> torch.Tensor:
    """The classic operator by `grid_sample`, level by level."""
    batch, _, heads, head_dim = value.shape
    levels, queries, output = pairs(level_sizes), locations.shape[1], 0
    for index, rows in enumerate(value.split([height * width for height, width in levels], dim=1)):
        # (batch, height * width, heads, head_dim) -> (batch * heads, head_dim, height, width)
        feature_map = rows.permute(0, 2, 3, 1).reshape(batch * heads, head_dim, *levels[index])
        # (batch, queries, heads, points, 2) -> (batch * heads, queries, points, 2)
        grid = (2 * locations[:, :, :, index] - 1).transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(feature_map, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        attention = weights[:, :, :, index].transpose(1, 2).flatten(0, 1)
        output = output + (sampled * attention[:, None]).sum(-1)
    # (batch * heads, head_dim, queries) -> (batch, queries, heads * head_dim)
    return output.view(batch, heads * head_dim, queries).transpose(1, 2)


def flat(tensors: Tensors) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


class Workloads:
    """The workloads that all benchmarks below have. `kernels` sets `kernel` and `device`."""

    seed = 0
    image = (512, 512)
    heads, head_dim = 6, 64
    dtype = torch.float32

    def setup(self) -> None:
        self.level_sizes = pyramid(*self.image)
        problem = random_problem(self.level_sizes, self.heads, self.head_dim)
        self.inputs = tuple(x.to(self.device, self.dtype).requires_grad_() for x in self.prepare(*problem))
        # Small, so that gradients in bfloat16 are off by less than the 1e-2 that `kernels` allows.
        self.cotangent = ((torch.rand_like(problem[0]) - 0.5) / 2).to(self.device, self.dtype)

    def prepare(self, value: torch.Tensor, projection: torch.Tensor) -> Tensors:
        """The operator's inputs."""
        raise NotImplementedError

    def attend(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The operator."""
        raise NotImplementedError

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The same by `grid_sample`."""
        raise NotImplementedError

    def differentiate(self, attend: Callable[..., torch.Tensor], inputs: Tensors) -> Tensors:
        return torch.autograd.grad(attend(*inputs), inputs, self.cotangent.to(inputs[0].dtype))

    def benchmark_forward(self) -> None:
        with torch.no_grad():
            self.out = self.attend(*self.inputs)

    def verify_forward(self) -> torch.Tensor:
        with torch.no_grad():
            return self.reference(*(x.float() for x in self.inputs)).to(self.dtype)

    def benchmark_forward_backward(self) -> None:
        self.gradients = self.differentiate(self.attend, self.inputs)

    def verify_forward_backward(self) -> torch.Tensor:
        self.out = flat(self.gradients)
        inputs = tuple(x.detach().float().requires_grad_() for x in self.inputs)
        return flat(self.differentiate(self.reference, inputs)).to(self.dtype)


class FusedOperator(Workloads, Benchmark):
    """`comer_msda` at the size of ViT-CoMer-S."""

    def prepare(self, value: torch.Tensor, projection: torch.Tensor) -> Tensors:
        return value, projection

    def attend(self, value: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
        return self.kernel.comer_msda(value, projection, self.level_sizes, self.heads, POINTS)

    def reference(self, value: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
        centres, sizes = cell_centres(self.level_sizes).to(value), value.new_tensor(pairs(self.level_sizes))
        samples = locations_and_weights(projection, centres, sizes, self.heads)
        return grid_sample_attention(value.unflatten(-1, (self.heads, -1)), *samples, self.level_sizes)


class FusedOperatorBFloat16(FusedOperator):
    dtype = torch.bfloat16


class FusedOperatorB(FusedOperator):
    """At the size of ViT-CoMer-B."""

    heads, head_dim = 12, 32


class ClassicOperator(Workloads, Benchmark):
    """`multi_scale_deformable_attention` on the same problem; softmax and locations are not measured."""

    def prepare(self, value: torch.Tensor, projection: torch.Tensor) -> Tensors:
        centres, sizes = cell_centres(self.level_sizes).to(value), value.new_tensor(pairs(self.level_sizes))
        samples = locations_and_weights(projection, centres, sizes, self.heads)
        return value.unflatten(-1, (self.heads, -1)), *samples

    def attend(self, value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return self.kernel.multi_scale_deformable_attention(value, locations, weights, self.level_sizes)

    def reference(self, value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return grid_sample_attention(value, locations, weights, self.level_sizes)


class ClassicOperatorB(ClassicOperator):
    heads, head_dim = 12, 32
