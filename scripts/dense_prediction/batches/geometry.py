"""From maps of a padded, resized image back to the image as it was."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate

from .types import Batch


Size = tuple[int, int]

CHUNK_ELEMENTS = 2**26
"""How many numbers at full size are held at once: 256 MiB in float32."""


@dataclass(frozen=True)
class Geometry:
    """Sizes (height, width) of one image: as it was, resized for the model, and padded to the size of its batch."""

    original: Size
    resized: Size
    padded: Size

    def restore(self, maps: torch.Tensor) -> torch.Tensor:
        """(channels, h, w) of any resolution, over the padded image -> (channels, *original)."""
        height, width = self.resized
        return _resize(_resize(maps, self.padded)[:, :height, :width], self.original)

    def restore_in_chunks(self, maps: torch.Tensor) -> Iterator[torch.Tensor]:
        """The same, a few channels at a time, so that memory does not grow with their number."""
        pixels = max(height * width for height, width in (self.original, self.padded))
        for chunk in maps.split(max(1, CHUNK_ELEMENTS // pixels)):
            yield self.restore(chunk)


def size_of(maps: torch.Tensor) -> Size:
    """The height and width of (..., h, w)."""
    height, width = maps.shape[-2:]
    return height, width


def geometries(batch: Batch) -> list[Geometry]:
    """The sizes of every image in a batch."""
    padded = size_of(batch["pixel_values"])
    return [
        Geometry(tuple(target["original_size"]), (int(mask[:, 0].sum()), int(mask[0].sum())), padded)
        for target, mask in zip(batch["targets"], batch["pixel_mask"], strict=True)
    ]


def _resize(maps: torch.Tensor, size: Size) -> torch.Tensor:
    if maps.shape[-2:] == size:
        return maps
    return interpolate(maps[None].float(), size=size, mode="bilinear", align_corners=False)[0]
