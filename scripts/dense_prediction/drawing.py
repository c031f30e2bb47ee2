"""Pictures of semantic maps: overlays, legends and rows of image | truth | prediction."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .data import IGNORE_INDEX


Color = tuple[int, int, int]

UNLABELLED: Color = (0, 0, 0)
OPACITY = 0.55
GAP = 6
FONT_SIZE = 14
LINE_HEIGHT = 22
SMALLEST_CELL = 192
GOLDEN_RATIO = 0.618034


def class_color(label: int) -> Color:
    """The same well-separated colour for the same id everywhere; class 0 is grey, as it is often the background."""
    if label == 0:
        return (128, 128, 128)
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_RATIO % 1, 0.9 - 0.3 * (label % 2), 1 - 0.2 * (label % 3))
    return round(255 * red), round(255 * green), round(255 * blue)


def colorize(class_map: np.ndarray) -> Image.Image:
    """(H, W) class ids -> an RGB image; unlabelled pixels are black."""
    palette = np.array([class_color(label) for label in range(IGNORE_INDEX)] + [UNLABELLED], dtype=np.uint8)
    return Image.fromarray(palette[class_map])


def overlay(image: Image.Image, class_map: np.ndarray) -> Image.Image:
    """`image` tinted by the colours of its (H, W) class map."""
    return Image.blend(image.convert("RGB"), colorize(class_map), OPACITY)


def legend(class_maps: Sequence[np.ndarray], labels: Sequence[str], width: int) -> Image.Image:
    """Colour and name of the classes present in the maps, wrapped to `width` pixels."""
    font = ImageFont.load_default(FONT_SIZE)
    present = sorted({int(label) for class_map in class_maps for label in np.unique(class_map)} - {IGNORE_INDEX})
    places, x, y = [], GAP, 0
    for label in present:
        needed = round(LINE_HEIGHT + font.getlength(labels[label]) + 2 * GAP)
        if x > GAP and x + needed > width:
            x, y = GAP, y + LINE_HEIGHT
        places.append((label, x, y))
        x += needed
    panel = Image.new("RGB", (width, y + LINE_HEIGHT), "white")
    draw = ImageDraw.Draw(panel)
    for label, left, top in places:
        draw.rectangle((left, top + 4, left + 14, top + 18), fill=class_color(label), outline="black")
        draw.text((left + LINE_HEIGHT, top + 3), labels[label], fill="black", font=font)
    return panel


def with_legend(picture: Image.Image, class_maps: Sequence[np.ndarray], labels: Sequence[str]) -> Image.Image:
    """`picture` above the legend of the maps it shows."""
    panel = legend(class_maps, labels, picture.width)
    page = Image.new("RGB", (picture.width, picture.height + GAP + panel.height), "white")
    page.paste(picture, (0, 0))
    page.paste(panel, (0, picture.height + GAP))
    return page


def comparison(rows: Sequence[tuple[Image.Image, np.ndarray, np.ndarray]], labels: Sequence[str]) -> Image.Image:
    """One row for each (image, truth, prediction), the two (H, W) maps in colours, with titles and a legend."""
    cells = [[_enlarge(cell) for cell in (image, colorize(truth), colorize(found))] for image, truth, found in rows]
    width = max(cell.width for row in cells for cell in row)
    height = sum(row[0].height + GAP for row in cells)
    page = Image.new("RGB", (3 * width + 2 * GAP, LINE_HEIGHT + height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(FONT_SIZE)
    for column, title in enumerate(("image", "truth", "prediction")):
        draw.text((column * (width + GAP) + GAP, 3), title, fill="black", font=font)
    top = LINE_HEIGHT
    for row in cells:
        for column, cell in enumerate(row):
            page.paste(cell, (column * (width + GAP), top))
        top += row[0].height + GAP
    return with_legend(page, [class_map for _, *maps in rows for class_map in maps], labels)


def _enlarge(cell: Image.Image) -> Image.Image:
    """Small pictures become large enough to look at, by whole multiples so that every pixel stays sharp."""
    factor = max(1, round(SMALLEST_CELL / cell.width))
    return cell.resize((factor * cell.width, factor * cell.height), Image.Resampling.NEAREST)
