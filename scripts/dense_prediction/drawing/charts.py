"""The curve of a run as a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from .colors import Color


SCALE = 2
"""Charts are drawn so many times larger and made smaller, which makes slanted lines smooth."""

PANEL = (560, 300)
MARGIN = (64, 34, 18, 34)
"""Left, top, right and bottom, in pixels."""

TEXT = 12
INK: Color = (40, 40, 40)
GRID: Color = (225, 225, 225)
FAINT: Color = (170, 195, 230)
STRONG: Color = (31, 90, 180)

WIDE_RANGE = 30
"""If the largest of some positive numbers is that many times the smallest, they stand on a logarithmic scale."""

MOST_POINTS = 60
"""Of a curve that is drawn as it is; a longer one is faint below its mean."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Where numbers stand between two ends, of which a logarithmic one has the logarithms."""

    low: float
    high: float
    is_log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], may_be_log: bool = False) -> "Axis":
        low, high = min(values), max(values)
        if may_be_log and low > 0 and high > WIDE_RANGE * low:
            return cls(math.log10(low), math.log10(high), is_log=True)
        return cls(low, high) if high > low else cls(low, low + 1)

    def place(self, value: float) -> float:
        """0 at one end, 1 at the other."""
        return ((math.log10(value) if self.is_log else value) - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6, are_whole: bool = False) -> list[float]:
        """Round numbers along it."""
        if self.is_log:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            candidates = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
            return [value for value in candidates if self.low <= math.log10(value) <= self.high]
        rough = (self.high - self.low) / most
        step = 10.0 ** math.floor(math.log10(rough))
        step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= rough)
        step = max(step, 1) if are_whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [count * step for count in range(first, last + 1)]


def curve(losses: Sequence[Point], scores: Sequence[Point], name: str, best_step: int | None = None) -> Image.Image:
    """Two panels: the loss over the steps, and what was measured.

    Args:
        losses: (step, loss).
        scores: (step, score); what could not be measured is left out.
        name: of the score.
        best_step: of the scores, marked.

    Raises:
        ValueError: there is neither.
    """
    last = max(step for step, _ in [*losses, *scores])
    panels = []
    if losses:
        panels.append(Panel("loss", Axis.of([0, last]), Axis.of([loss for _, loss in losses], may_be_log=True)))
        panels[-1].plot(losses)
    if scores:
        panels.append(Panel(f"validation {name}", Axis.of([0, last]), Axis.of([0, *(score for _, score in scores)])))
        panels[-1].plot(scores)
        for step, score in scores:
            if step == best_step:
                panels[-1].mark(step, score)
    page = Image.new("RGB", (PANEL[0] * len(panels), PANEL[1]), "white")
    for place, panel in enumerate(panels):
        page.paste(panel.finished(), (place * PANEL[0], 0))
    return page


class Panel:
    """Axes, and points that are drawn between them."""

    def __init__(self, title: str, across: Axis, up: Axis) -> None:
        self.across, self.up = across, up
        self.page = Image.new("RGB", (SCALE * PANEL[0], SCALE * PANEL[1]), "white")
        self.pen = ImageDraw.Draw(self.page)
        self.font = ImageFont.load_default(SCALE * TEXT)
        self._draw_axes()
        self._write((SCALE * MARGIN[0], 8 * SCALE), f"{title} (logarithmic)" if up.is_log else title)

    def plot(self, points: Sequence[Point]) -> None:
        """A line through the points; of very many, their running mean above them."""
        if len(points) <= MOST_POINTS:
            self._line(points, STRONG, 2)
            for x, y in (self._place(*point) for point in points):
                self.pen.ellipse((x - 2 * SCALE, y - 2 * SCALE, x + 2 * SCALE, y + 2 * SCALE), fill=STRONG)
        else:
            self._line(points, FAINT, 1)
            self._line(_smooth(points, len(points) // 20), STRONG, 2)

    def mark(self, step: float, value: float) -> None:
        """A ring round a point, and its value."""
        x, y = self._place(step, value)
        self.pen.ellipse((x - 5 * SCALE, y - 5 * SCALE, x + 5 * SCALE, y + 5 * SCALE), outline=INK, width=SCALE)
        self._write((min(x, self.page.width - 40 * SCALE), y + 9 * SCALE), f"{value:.4f}", anchor="mt")

    def finished(self) -> Image.Image:
        return self.page.resize(PANEL, Image.Resampling.LANCZOS)

    def _draw_axes(self) -> None:
        left, bottom = SCALE * MARGIN[0], self.page.height - SCALE * MARGIN[3]
        for value in self.up.ticks():
            _, y = self._place(0, value)
            self.pen.line((left, y, self.page.width - SCALE * MARGIN[2], y), fill=GRID, width=SCALE)
            self._write((left - 6 * SCALE, y), f"{value:.4g}", anchor="rm")
        for step in self.across.ticks(are_whole=True):
            x = left + self.across.place(step) * self._width
            self._write((x, bottom + 6 * SCALE), f"{step:g}", anchor="mt")

    @property
    def _width(self) -> float:
        return self.page.width - SCALE * (MARGIN[0] + MARGIN[2])

    def _place(self, step: float, value: float) -> Point:
        height = self.page.height - SCALE * (MARGIN[1] + MARGIN[3])
        x = SCALE * MARGIN[0] + self.across.place(step) * self._width
        return x, SCALE * MARGIN[1] + (1 - self.up.place(value)) * height

    def _line(self, points: Sequence[Point], color: Color, width: int) -> None:
        if len(points) > 1:
            self.pen.line([self._place(*point) for point in points], fill=color, width=SCALE * width, joint="curve")

    def _write(self, place: Point, text: str, anchor: str = "la") -> None:
        self.pen.text(place, text, fill=INK, font=self.font, anchor=anchor)


def _smooth(points: Sequence[Point], reach: int) -> list[Point]:
    """Each the mean of those at most `reach` away."""
    smoothed = []
    for place, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, place - reach) : place + reach + 1]]
        smoothed.append((step, sum(near) / len(near)))
    return smoothed
