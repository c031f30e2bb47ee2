"""Pages of pictures: legends, and rows of image | truth | prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..data.samples import IGNORE_INDEX
from .annotations import Arrays, confident, resize, to_arrays
from .colors import Color, class_color, object_color
from .pictures import Draw, enlarge
from .styles import Style


LARGEST_CELL = 800
"""Pictures with a longer side are made smaller for a page of several of them."""

SHEET_CELL = 340
"""Width and height of a cell of a contact sheet, in pixels."""

NARROWEST_CELL = 200
"""In which a caption has room."""

TITLES = ("image", "truth", "prediction")

Annotation = Mapping[str, Any]


def add_legend(picture: Image.Image, annotation: Annotation, labels: Sequence[str], legend: str) -> Image.Image:
    """`picture` above the classes that it shows ("found"), all classes ("all"), or nothing ("none").

    With "all" or "none" pictures of one size stay of one size, as the frames of a video have to.
    """
    match legend:
        case "none":
            return picture
        case "found":
            return with_legend(picture, [annotation], labels)
    ids = np.arange(len(labels))
    every_class = {"semantic_map": ids[None]} if "semantic_map" in annotation else {"labels": ids}
    return with_legend(picture, [every_class], labels)


def with_legend(picture: Image.Image, annotations: Sequence[Annotation], labels: Sequence[str]) -> Image.Image:
    """`picture` above colour and name of the classes in the predictions or targets that it shows."""
    shown = [to_arrays(annotation) for annotation in annotations]
    return _above_legend(picture, shown, labels, Style.for_size(picture.size))


def comparison(
    rows: Sequence[tuple[Image.Image, Annotation, Annotation]], labels: Sequence[str], draw_arrays: Draw
) -> Image.Image:
    """One row for each (image, truth, prediction), with titles and a legend; objects of low scores are left out."""
    cells, shown = [], []
    for image, *annotations in rows:
        pairs = [_fit(image.convert("RGB"), confident(to_arrays(annotation))) for annotation in annotations]
        cells.append([pairs[0][0], *(draw_arrays(*pair, labels, Style.for_size(pair[0].size)) for pair in pairs)])
        shown += [arrays for _, arrays in pairs]
    style = Style.for_size(cells[0][0].size)
    return _above_legend(_grid(cells, style), shown, labels, style)


def contact_sheet(
    cells: Sequence[tuple[Image.Image, Annotation, str]], labels: Sequence[str], draw_arrays: Draw, columns: int = 4
) -> Image.Image:
    """Pictures with what is annotated in them, side by side above their captions and a legend of their classes."""
    drawn, shown = [], []
    for image, annotation, caption in cells:
        picture, arrays = fit_sheet(image.convert("RGB"), to_arrays(annotation))
        drawn.append((draw_arrays(picture, arrays, labels, Style.for_size(picture.size)), caption))
        shown.append(arrays)
    style = Style(line=2, text=12)
    gap, line, columns = 8, sum(style.font.getmetrics()), min(columns, len(drawn))
    width = max(NARROWEST_CELL, *(picture.width for picture, _ in drawn))
    rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
    heights = [max(picture.height for picture, _ in row) + line + 2 * gap for row in rows]
    page = Image.new("RGB", (columns * (width + gap), sum(heights)), "white")
    pen, top = ImageDraw.Draw(page), 0
    for row, height in zip(rows, heights, strict=True):
        for column, (picture, caption) in enumerate(row):
            left = column * (width + gap)
            page.paste(picture, (left, top))
            pen.text((left, top + picture.height + 1), _cut(caption, width, style), fill="black", font=style.font)
        top += height
    return _above_legend(page, shown, labels, style)


def _cut(caption: str, width: int, style: Style) -> str:
    """As much of the end of a caption as there is room for: of paths, the file."""
    cut = caption
    while len(cut) > 1 and style.font.getlength(cut) > width:
        cut = f"…{cut[2:]}"
    return cut


def fit_sheet(image: Image.Image, arrays: Arrays) -> tuple[Image.Image, Arrays]:
    """Into a cell of a sheet: smaller, or enlarged by a whole multiple."""
    factor = SHEET_CELL / max(image.size)
    return (image, arrays) if 1 <= factor < 2 else resize(image, arrays, factor if factor < 1 else int(factor))


def _fit(image: Image.Image, arrays: Arrays) -> tuple[Image.Image, Arrays]:
    """Small pictures enlarged, large ones made smaller."""
    factor = LARGEST_CELL / max(image.size)
    return resize(image, arrays, factor) if factor < 1 else enlarge(image, arrays)


def _grid(cells: Sequence[Sequence[Image.Image]], style: Style) -> Image.Image:
    """Rows of equally wide columns below their titles."""
    width = max(cell.width for row in cells for cell in row)
    gap, line = 3 * style.line, 2 * style.text
    height = line + sum(row[0].height + gap for row in cells)
    page = Image.new("RGB", (len(TITLES) * (width + gap) - gap, height), "white")
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(TITLES):
        pen.text((column * (width + gap) + gap, line // 5), title, fill="black", font=style.font)
    top = line
    for row in cells:
        for column, cell in enumerate(row):
            page.paste(cell, (column * (width + gap), top))
        top += row[0].height + gap
    return page


def _above_legend(picture: Image.Image, shown: Sequence[Arrays], labels: Sequence[str], style: Style) -> Image.Image:
    panel = _legend(_entries(shown, labels), picture.width, style)
    page = Image.new("RGB", (picture.width, picture.height + panel.height), "white")
    page.paste(picture, (0, 0))
    page.paste(panel, (0, picture.height))
    return page


def _entries(shown: Sequence[Arrays], labels: Sequence[str]) -> list[tuple[str, Color]]:
    """Name and colour of the classes present, in the order of their ids."""
    maps = [arrays["semantic_map"].ravel() for arrays in shown if "semantic_map" in arrays]
    areas = {int(label) for class_map in maps for label in np.bincount(class_map).nonzero()[0]}
    objects = {int(label) for arrays in shown for label in arrays.get("labels", ())}
    entries = [(labels[label], class_color(label)) for label in sorted(areas - {IGNORE_INDEX})]
    return entries + [(labels[label], object_color(label)) for label in sorted(objects)]


def _legend(entries: Sequence[tuple[str, Color]], width: int, style: Style) -> Image.Image:
    """Colours and names, wrapped to `width` pixels."""
    line, gap = round(1.6 * style.text), style.text // 2
    places, x, y = [], gap, 0
    for name, color in entries:
        needed = round(line + style.font.getlength(name) + 2 * gap)
        if x > gap and x + needed > width:
            x, y = gap, y + line
        places.append((name, color, x, y))
        x += needed
    panel = Image.new("RGB", (width, y + line), "white")
    pen = ImageDraw.Draw(panel)
    for name, color, left, top in places:
        inset = (line - style.text) // 2
        pen.rectangle((left, top + inset, left + style.text, top + inset + style.text), fill=color, outline="black")
        pen.text((left + line, top + inset // 2), name, fill="black", font=style.font)
    return panel
