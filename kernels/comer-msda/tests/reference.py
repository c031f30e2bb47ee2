"""Both operators in a few lines of torch, by `grid_sample`, to be evaluated in float64; and inputs for them."""

import torch
from torch.nn import functional as F


IMAGES = [(512, 512), (896, 896), (800, 1280)]
SIZES = {"T": (6, 32), "S": (6, 64), "B": (12, 32), "L": (16, 32)}
"""Heads and channels of a head in the paper's sizes."""
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Relative error at these sizes, against float64."""


def pyramid(height: int, width: int) -> list[int]:
    """Flat level sizes at strides 8, 16 and 32 of an image, as ViT-CoMer has them."""
    return [size // stride for stride in (8, 16, 32) for size in (height, width)]


def pairs(level_sizes: list[int]) -> list[tuple[int, int]]:
    return list(zip(level_sizes[::2], level_sizes[1::2]))


def num_tokens(level_sizes: list[int]) -> int:
    return sum(height * width for height, width in pairs(level_sizes))


def random_inputs(
    level_sizes: list[int],
    heads: int,
    head_dim: int,
    points: int,
    batch: int = 1,
    dtype: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and a projection with offsets of some pixels, none of them where a derivative jumps.

    It jumps at the centres of pixels, which offsets rounded to half precision often hit: a multiple of 1/8.
    """
    generator = torch.Generator().manual_seed(0)
    tokens, samples = num_tokens(level_sizes), heads * points * (len(level_sizes) // 2)
    value = torch.randn(batch, tokens, heads * head_dim, generator=generator, dtype=torch.float64)
    offsets = 2 * torch.randn(batch, tokens, 2 * samples, generator=generator, dtype=torch.float64)
    logits = torch.randn(batch, tokens, samples, generator=generator, dtype=torch.float64)
    offsets = offsets.to(dtype)
    offsets = torch.where(8 * offsets == (8 * offsets).round(), offsets + 1 / 16, offsets)
    return value.to(dtype), torch.cat([offsets, logits.to(dtype)], dim=-1)


def random_classic_inputs(
    level_sizes: list[int], heads: int, head_dim: int, points: int, queries: int, batch: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, locations (some outside) and weights, in float64."""
    generator = torch.Generator().manual_seed(0)
    levels = len(level_sizes) // 2
    options = {"generator": generator, "dtype": torch.float64}
    value = torch.randn(batch, num_tokens(level_sizes), heads, head_dim, **options)
    locations = 1.4 * torch.rand(batch, queries, heads, levels, points, 2, **options) - 0.2
    weights = torch.randn(batch, queries, heads, levels * points, **options).softmax(-1)
    return value, locations, weights.unflatten(-1, (levels, points))


def classic_reference(
    value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor, level_sizes: list[int]
) -> torch.Tensor:
    batch, _, heads, head_dim = value.shape
    queries, output = locations.shape[1], 0
    lengths = [height * width for height, width in pairs(level_sizes)]
    for level, (height, width) in enumerate(pairs(level_sizes)):
        rows = value.split(lengths, dim=1)[level]
        # (batch, height * width, heads, head_dim) -> (batch * heads, head_dim, height, width)
        feature_map = rows.permute(0, 2, 3, 1).reshape(batch * heads, head_dim, height, width)
        # (batch, queries, heads, points, 2) -> (batch * heads, queries, points, 2)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(feature_map, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        attention = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)
        output = output + (sampled * attention[:, None]).sum(-1)
    # (batch * heads, head_dim, queries) -> (batch, queries, heads * head_dim)
    return output.view(batch, heads * head_dim, queries).transpose(1, 2)


def fused_reference(
    value: torch.Tensor,
    projection: torch.Tensor,
    level_sizes: list[int],
    heads: int,
    points: int,
    queries: torch.Tensor | None = None,
) -> torch.Tensor:
    """The fused operator; for the tokens `queries` only, where given."""
    batch, tokens, _ = value.shape
    levels = len(level_sizes) // 2
    queries = torch.arange(tokens) if queries is None else queries
    projection = projection[:, queries]
    split = heads * levels * points * 2
    # (batch, queries, heads * levels * points * 2) -> (batch, queries, heads, levels, points, 2)
    offsets = projection[..., :split].unflatten(-1, (heads, levels, points, 2))
    weights = projection[..., split:].unflatten(-1, (heads, levels * points)).softmax(-1)
    sizes = value.new_tensor([[width, height] for height, width in pairs(level_sizes)])
    locations = cell_centres(level_sizes, value)[queries][:, None, None, None] + offsets / sizes[:, None]
    heads_of_value = value.unflatten(-1, (heads, -1))
    return classic_reference(heads_of_value, locations, weights.unflatten(-1, (levels, points)), level_sizes)


def cell_centres(level_sizes: list[int], like: torch.Tensor) -> torch.Tensor:
    """x and y from 0 to 1 of each token's own cell: (tokens, 2)."""
    centres = []
    for height, width in pairs(level_sizes):
        y = (torch.arange(height).to(like) + 0.5) / height
        x = (torch.arange(width).to(like) + 0.5) / width
        centres.append(torch.cartesian_prod(y, x).flip(-1))
    return torch.cat(centres)


def relative_error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return ((ours.cpu().double() - exact).norm() / exact.norm()).item()
