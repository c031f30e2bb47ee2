"""Relative position tables of BEiT, and the bias that they give for any window."""

import torch
from timm.models.beit import gen_relative_position_index
from torch import nn
from torch.nn import functional as F


CLASS_ROWS = 3
"""Last rows of a BEiT's relative position table: from the class token, to it, and from it to itself."""


def relative_position_bias(
    table: torch.Tensor, old_window: tuple[int, int], new_window: tuple[int, int], num_prefix_tokens: int
) -> torch.Tensor:
    """Bias of the attention logits of a window (Bao et al. 2021, arXiv 2106.08254).

    Args:
        table: ((2 * old height - 1) * (2 * old width - 1) [+ 3], heads).
        num_prefix_tokens: 1 with a class token, whose rows are the table's last three; 0 without.

    Returns:
        (1, heads, tokens, tokens), with `num_prefix_tokens` + new height * width tokens.
    """
    table = resize_relative_table(table, old_window, new_window)
    index = gen_relative_position_index(new_window).to(table.device)
    first = 1 - num_prefix_tokens
    # (tokens, tokens, heads) -> (1, heads, tokens, tokens)
    return F.embedding(index[first:, first:], table).permute(2, 0, 1).contiguous().unsqueeze(0)


def resize_relative_table(
    table: torch.Tensor, old_window: tuple[int, int], new_window: tuple[int, int]
) -> torch.Tensor:
    """A relative position table for another window; rows of a class token stay as they are."""
    if tuple(old_window) == tuple(new_window):
        return table
    old_size, new_size = ([2 * side - 1 for side in window] for window in (old_window, new_window))
    num_offsets = old_size[0] * old_size[1]
    dtype = torch.promote_types(table.dtype, torch.float32)
    height, width = (geometric_weights(*sizes).to(table.device, dtype) for sizes in zip(old_size, new_size))
    offsets = table[:num_offsets].to(dtype).unflatten(0, old_size)
    # (new height, old height), (new width, old width), (old height, old width, heads) -> (new height * width, heads)
    resized = torch.einsum("yi,xj,ijh->yxh", height, width, offsets).flatten(0, 1)
    return torch.cat([resized.to(table.dtype), table[num_offsets:]])


def geometric_weights(old_size: int, new_size: int) -> torch.Tensor:
    """Weights (new_size, old_size) of linear interpolation between offsets in geometric progression.

    Both sizes are odd, with offset 0 in the middle. The old offsets are spread over the new ones with steps that grow
    by a constant ratio, so that near offsets keep their values: what BEiT does for a larger image, and timm's
    `resize_rel_pos_bias_table` after it, whose numbers these are.
    """
    half, new_half = old_size // 2, new_size // 2
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > new_half:
            high = ratio
        else:
            low = ratio
    distances = [sum(ratio**k for k in range(step)) for step in range(1, half + 1)]
    old = torch.tensor([-distance for distance in reversed(distances)] + [0.0] + distances)
    new = torch.arange(-new_half, new_half + 1, dtype=old.dtype)
    right = torch.bucketize(new, old).clamp(max=old_size - 1)
    left = (right - 1).clamp(min=0)
    share = ((new - old[left]) / (old[right] - old[left]).clamp(min=1e-6)).clamp(0, 1)[:, None]
    return F.one_hot(left, old_size) * (1 - share) + F.one_hot(right, old_size) * share


class RelativePositionBias(nn.Module):
    """A relative position table that gives its bias for any window."""

    def __init__(self, window: tuple[int, int], num_heads: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.window, self.num_prefix_tokens = (window[0], window[1]), num_prefix_tokens
        num_rows = (2 * window[0] - 1) * (2 * window[1] - 1) + CLASS_ROWS * num_prefix_tokens
        self.table = nn.Parameter(torch.zeros(num_rows, num_heads))

    def forward(self, window: tuple[int, int]) -> torch.Tensor:
        """(1, heads, tokens, tokens) for the tokens of a window of that height and width."""
        return relative_position_bias(self.table, self.window, window, self.num_prefix_tokens)

    def fit(self, table: torch.Tensor) -> torch.Tensor:
        """A pretrained table of a square window as this one, see `fit_relative_table`."""
        return (
            table
            if table.shape == self.table.shape
            else fit_relative_table(table, self.window, self.num_prefix_tokens)
        )


def fit_relative_table(table: torch.Tensor, window: tuple[int, int], num_prefix_tokens: int) -> torch.Tensor:
    """A pretrained table of a square window for another window, with or without the rows of a class token.

    Raises:
        ValueError: its number of rows is that of no square window, or it has no rows of the class token to keep.
    """
    num_rows = table.shape[0]
    side = (round(num_rows**0.5) + 1) // 2
    num_offsets = (2 * side - 1) ** 2
    if num_rows not in (num_offsets, num_offsets + CLASS_ROWS):
        raise ValueError(
            f"A relative position table has {num_rows} rows: not (2 * side - 1) ** 2 of a square window, with or "
            f"without the {CLASS_ROWS} rows of the class token."
        )
    if num_prefix_tokens and num_rows == num_offsets:
        raise ValueError(
            f"A relative position table has {num_rows} rows, none of the class token: use_prefix_tokens=False."
        )
    return resize_relative_table(table if num_prefix_tokens else table[:num_offsets], (side, side), window)
