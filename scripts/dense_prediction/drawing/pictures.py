"""What was found or annotated in one image, drawn over it."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.samples import IGNORE_INDEX
from .annotations import Arrays, resize, to_arrays
from .colors import UNLABELLED, Color, class_color, object_color, text_color


OPACITY = 0.55
SMALL = 384
"""Pictures that fit twice or more into a square of this side are enlarged: text has to fit into them."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """Widths in pixels that look alike on pictures of every size."""

    line: int
    text: int

    @classmethod
    def for_size(cls, size: tuple[int, int]) -> "Style":
        side = (size[0] * size[1]) ** 0.5
        return cls(line=max(1, round(side / 280)), text=max(11, round(side / 42)))

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        # Of a size, which the other kind of font, of pixels, cannot be had in.
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(self.text))


Draw = Callable[[Image.Image, Arrays, Sequence[str], Style], Image.Image]
"""An RGB picture, arrays of its size, and class names in the order of their ids -> the picture with all that on it."""


def draw(image: Image.Image, annotation: Mapping[str, Any], labels: Sequence[str], draw_arrays: Draw) -> Image.Image:
    """An RGB picture of a prediction, or of a sample's targets, over its image.

    Args:
        annotation: of the image's size.
        draw_arrays: how the task draws it.

    Returns:
        A picture of the image's size, or, of small images, of a whole multiple of it.
    """
    picture, arrays = enlarge(image.convert("RGB"), to_arrays(annotation))
    return draw_arrays(picture, arrays, labels, Style.for_size(picture.size))


def enlarge(image: Image.Image, arrays: Arrays) -> tuple[Image.Image, Arrays]:
    """Small pictures become large enough to look at, by whole multiples so that every pixel stays sharp."""
    factor = SMALL // max(image.size)
    return resize(image, arrays, factor) if factor > 1 else (image, arrays)


def draw_semantic_map(image: Image.Image, arrays: Arrays, labels: Sequence[str], style: Style) -> Image.Image:
    """The colours of the classes over the image; of `semantic_map` (H, W)."""
    return Image.blend(image, colorize(arrays["semantic_map"]), OPACITY)


def paint_semantic_map(image: Image.Image, arrays: Arrays, labels: Sequence[str], style: Style) -> Image.Image:
    """The pure colours of the classes; of `semantic_map` (H, W)."""
    return colorize(arrays["semantic_map"])


def colorize(class_map: np.ndarray) -> Image.Image:
    """(H, W) class ids -> an RGB image; unlabelled pixels are black."""
    palette = np.array([class_color(label) for label in range(IGNORE_INDEX)] + [UNLABELLED], dtype=np.uint8)
    return Image.fromarray(palette[class_map])


def draw_segments(image: Image.Image, arrays: Arrays, labels: Sequence[str], style: Style) -> Image.Image:
    """Every segment of `segment_map` in a shade of its class, with its name inside where there is room."""
    segment_map, colors = arrays["segment_map"], _object_colors(arrays["labels"])
    palette = np.array([*colors, UNLABELLED], dtype=np.uint8)  # void, -1, is the last
    pixels = np.array(Image.blend(image, Image.fromarray(palette[segment_map]), OPACITY))
    pixels[_borders(segment_map, max(1, style.line // 2))] = 255  # on both sides of a border
    picture = Image.fromarray(pixels)
    for segment, label in enumerate(arrays["labels"].tolist()):
        place = _room(segment_map == segment, labels[label], style)
        if place is not None:
            _write(picture, place, labels[label], colors[segment], style)
    return picture


def draw_objects(image: Image.Image, arrays: Arrays, labels: Sequence[str], style: Style) -> Image.Image:
    """Of `boxes` and `labels`, and `masks`, `scores` and `is_crowd` where there are any.

    Masks, then boxes, then names, so that no name is covered; of each the small ones over the large ones.
    """
    colors, boxes = _object_colors(arrays["labels"]), arrays["boxes"].reshape(-1, 4)
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")
    if "masks" in arrays:
        image = _draw_masks(image, [(arrays["masks"][index], colors[index]) for index in order], style)
    else:
        image = image.copy()
    pen = ImageDraw.Draw(image)
    for index in order:
        x1, y1, x2, y2 = boxes[index].tolist()
        pen.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=colors[index], width=style.line)
    for index, name in zip(order, _names(arrays, order, labels), strict=True):
        place = boxes[index][0], boxes[index][1] - sum(style.font.getmetrics())
        _write(image, place, name, colors[index], style)
    return image


def _draw_masks(image: Image.Image, masks: Sequence[tuple[np.ndarray, Color]], style: Style) -> Image.Image:
    """Each mask tinted, with a border in its full colour."""
    pixels = np.array(image)
    for mask, color in masks:
        place = _extent(mask, style.line)
        part, inside = pixels[place], mask[place]
        part[inside] = ((1 - OPACITY) * part[inside] + OPACITY * np.array(color)).astype(np.uint8)
        part[inside & _borders(inside, style.line)] = color
    return Image.fromarray(pixels)


def _object_colors(labels: np.ndarray) -> list[Color]:
    """Of each object, shaded by how many of its class came before."""
    seen: dict[int, int] = defaultdict(int)
    colors = []
    for label in labels.tolist():
        colors.append(object_color(label, seen[label]))
        seen[label] += 1
    return colors


def _names(arrays: Arrays, order: np.ndarray, labels: Sequence[str]) -> Iterator[str]:
    """Class, score and whether it is a crowd."""
    for index in order:
        name = labels[arrays["labels"][index]]
        if "scores" in arrays:
            name += f" {arrays['scores'][index]:.2f}"
        yield name + (" (crowd)" if "is_crowd" in arrays and arrays["is_crowd"][index] else "")


def _borders(ids: np.ndarray, width: int) -> np.ndarray:
    """(H, W) bool: pixels from which another id is seen at a distance of `width` up, down, left or right."""
    borders = np.zeros(ids.shape, dtype=bool)
    vertical, horizontal = ids[width:] != ids[:-width], ids[:, width:] != ids[:, :-width]
    borders[width:] |= vertical
    borders[:-width] |= vertical
    borders[:, width:] |= horizontal
    borders[:, :-width] |= horizontal
    return borders


def _extent(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that holds a mask, `margin` pixels larger at every side."""
    places = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    rows, columns = (slice(max(0, at[0] - margin), at[-1] + 1 + margin) if len(at) else slice(0) for at in places)
    return rows, columns


def _room(mask: np.ndarray, name: str, style: Style) -> Point | None:
    """Where in a mask a name can stand, its upper left corner; None where it is larger than the mask."""
    rows, columns = np.nonzero(mask)
    width, height = style.font.getlength(name), style.text
    if len(rows) < width * height:
        return None
    middle = int(np.median(rows))
    return float(np.median(columns[rows == middle])) - width / 2, middle - height / 2


def _write(image: Image.Image, place: Point, name: str, color: Color, style: Style) -> None:
    """A name on a plate of its colour, moved until it lies in the picture."""
    font = style.font
    width, height = round(font.getlength(name)) + 2 * style.line, sum(font.getmetrics())
    left = max(0, min(round(place[0]), image.width - width))
    top = max(0, min(round(place[1]), image.height - height))
    pen = ImageDraw.Draw(image)
    pen.rectangle((left, top, left + width, top + height), fill=color)
    pen.text((left + style.line, top), name, fill=text_color(color), font=font)
