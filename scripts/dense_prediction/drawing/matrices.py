"""A table of shares as a picture: the darker a cell, the larger its share."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .charts import GRID, INK, SCALE, STRONG
from .colors import Color, text_color
from .styles import Style


MOST_NAMES = 30
"""Rows and columns that can be told from each other."""

LONGEST_NAME = 20
"""Letters."""

TEXT, GAP = 12, 8
LARGEST_CELL, SMALLEST_CELL, TABLE = 64, 24, 640
"""Pixels of a cell's side, and of the table where there is room."""


def matrix(
    shares: np.ndarray, counts: np.ndarray, rows: Sequence[str], columns: Sequence[str], titles: tuple[str, str]
) -> Image.Image:
    """A cell for each row and column, with its share and, where there is room, its count.

    Args:
        shares: (rows, columns) 0 to 1.
        counts: (rows, columns) integers.
        titles: what the rows and what the columns are.
    """
    side = max(SMALLEST_CELL, min(LARGEST_CELL, TABLE // len(columns)))
    font = Style(line=1, text=SCALE * TEXT).font
    names = [[_shorten(name) for name in each] for each in (rows, columns)]
    left, top = (round(max(map(font.getlength, each)) / SCALE) + TEXT + 3 * GAP for each in names)
    page = Image.new(
        "RGB", (SCALE * (left + side * len(columns) + GAP), SCALE * (top + side * len(rows) + GAP)), "white"
    )
    pen = ImageDraw.Draw(page)
    for row, column in np.ndindex(*shares.shape):
        x, y = SCALE * (left + side * column), SCALE * (top + side * row)
        cell = shares[row, column].item(), counts[row, column].item()
        _draw_cell(pen, (x, y, x + SCALE * side, y + SCALE * side), *cell)
    for row, name in enumerate(names[0]):
        pen.text((SCALE * (left - GAP), SCALE * (top + side * (row + 0.5))), name, fill=INK, font=font, anchor="rm")
    for column, name in enumerate(names[1]):
        _write_upwards(page, (SCALE * (left + side * (column + 0.5)), SCALE * (top - GAP)), name, font)
    pen.text((SCALE * (left + side * len(columns) / 2), SCALE * GAP), titles[1], fill=INK, font=font, anchor="mt")
    middle = SCALE * (top + side * len(rows) / 2) + font.getlength(titles[0]) / 2
    _write_upwards(page, (SCALE * (GAP + TEXT / 2), middle), titles[0], font)
    return page.resize((page.width // SCALE, page.height // SCALE), Image.Resampling.LANCZOS)


def most_telling(counts: np.ndarray, classes: int, number: int = MOST_NAMES) -> np.ndarray:
    """The places, in their order, of the classes with the most beside the diagonal; all if there are few.

    Args:
        counts: (rows, columns); after those of the classes may come others.
    """
    rows, columns, right = counts[:classes].sum(1), counts[:, :classes].sum(0), counts.diagonal()[:classes]
    return np.sort(np.argsort(2 * right - rows - columns, kind="stable")[:number])


def _draw_cell(pen: ImageDraw.ImageDraw, place: tuple[float, float, float, float], share: float, count: int) -> None:
    red, green, blue = (round(255 + (strong - 255) * share**0.7) for strong in STRONG)
    ground: Color = (red, green, blue)
    pen.rectangle(place, fill=ground, outline=GRID, width=SCALE)
    side = (place[2] - place[0]) / SCALE
    if count == 0:
        return
    lines = [("<1" if share < 0.005 else f"{100 * share:.0f}") + (" %" if side >= 36 else "")]
    if side >= 48:
        lines.append(_short_count(count))
    middle = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
    for line, text in enumerate(lines):
        font = ImageFont.load_default(SCALE * (TEXT if line == 0 else TEXT - 2))
        y = middle[1] + SCALE * 15 * (line - (len(lines) - 1) / 2)
        pen.text((middle[0], y), text, fill=text_color(ground), font=font, anchor="mm")


def _write_upwards(page: Image.Image, place: tuple[float, float], text: str, font: ImageFont.FreeTypeFont) -> None:
    """Text that begins at a place, turned by a quarter."""
    width, height = round(font.getlength(text)) + 1, sum(font.getmetrics())
    line = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(line).text((0, 0), text, fill=INK, font=font)
    page.paste(line.rotate(90, expand=True), (round(place[0] - height / 2), round(place[1] - width)))


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _short_count(count: int) -> str:
    """12, 3.4k, 56M."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
