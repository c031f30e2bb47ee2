"""Widths and letters that look alike on pictures and on objects of every size."""

from dataclasses import dataclass
from typing import cast

from PIL import ImageFont


SMALLEST_TEXT = 11
"""Pixels; smaller letters cannot be read."""


@dataclass(frozen=True)
class Style:
    """Widths in pixels that look alike on pictures of every size."""

    line: int
    text: int

    @classmethod
    def for_size(cls, size: tuple[int, int]) -> "Style":
        side = (size[0] * size[1]) ** 0.5
        return cls(line=max(1, round(side / 280)), text=max(SMALLEST_TEXT, round(side / 42)))

    def for_object(self, width: float, height: float) -> "Style":
        """Thinner and smaller where an object is small, so that its lines and its name do not hide it."""
        line, text = round(min(width, height) / 10), round(max(width, height) / 6)
        return Style(line=min(self.line, max(1, line)), text=min(self.text, max(SMALLEST_TEXT, text)))

    def is_small(self, width: float, height: float) -> bool:
        """Whether a line inside an object of this extent would leave little of it to be seen."""
        return min(width, height) < 10 * self.line

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        # Of a size, which the other kind of font, of pixels, cannot be had in.
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(self.text))
