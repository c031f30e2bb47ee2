"""What was found or annotated in one image, drawn over it."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..data.samples import IGNORE_INDEX
from .annotations import Arrays, resize, to_arrays
from .colors import UNLABELLED, Color, class_color, object_color
from .styles import Style
from .tags import Point, Tags, are_tagged


OPACITY = 0.55
OUTERMOST: Color = (0, 0, 0)
"""Round a box, whose colour is a bright one, so that it is seen on a bright ground too."""

SMALL = 384
"""Pictures that fit twice or more into a square of this side are enlarged: text has to fit into them."""

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
    # On both sides of a border, but not on a small segment, which would be gone.
    width = max(1, style.line // 2)
    sides = np.bincount((segment_map + 1).ravel(), minlength=len(colors) + 1)[1:] ** 0.5
    is_small = np.array([*(style.is_small(side, side) for side in sides), False])
    pixels[_borders(segment_map, width) & ~is_small[segment_map]] = 255
    picture = Image.fromarray(pixels)
    if are_tagged(len(labels), len(colors)):
        tags = Tags(picture, np.zeros((0, 4)))
        for segment, label in enumerate(arrays["labels"].tolist()):
            place = _room(segment_map == segment, labels[label], style)
            if place is not None:
                tags.write_at(place, labels[label], colors[segment], style)
    return picture


def draw_objects(image: Image.Image, arrays: Arrays, labels: Sequence[str], style: Style) -> Image.Image:
    """Of `boxes` and `labels`, and `masks`, `scores` and `is_crowd` where there are any.

    Masks or else boxes, then names, so that no name is covered; of each the small ones over the large ones. What is
    small has a thin outline round it and nothing inside.
    """
    colors, boxes = _object_colors(arrays["labels"]), _in_order(arrays["boxes"].reshape(-1, 4))
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")
    masks = arrays["masks"] if "masks" in arrays else np.zeros((len(boxes), 0), dtype=bool)
    picture = _draw_masks(image, [(masks[index], colors[index]) for index in order if masks[index].any()], style)
    pen = ImageDraw.Draw(picture)
    for index in order:
        if not masks[index].any():
            _draw_box(pen, boxes[index].tolist(), colors[index], style)
    if are_tagged(len(labels), len(boxes)):
        tags = Tags(picture, boxes)
        for index, name in zip(order[::-1], _names(arrays, order[::-1], labels), strict=True):
            sides = boxes[index, 2:] - boxes[index, :2]
            tags.write_beside(tuple(boxes[index].tolist()), name, colors[index], style.for_object(*sides))
    return picture


def _in_order(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) boxes whose first corner is the upper left one, whatever they were."""
    corners = boxes.reshape(-1, 2, 2)
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)


def _draw_box(pen: ImageDraw.ImageDraw, box: Sequence[float], color: Color, style: Style) -> None:
    """Its outline: inside of it, or round it if it is small; and a hair round that, to be seen on any ground."""
    left, top, right, bottom = box
    own = style.for_object(right - left, bottom - top)
    out = own.line if style.is_small(right - left, bottom - top) else 0
    hair = out + max(1, own.line // 4)
    pen.rectangle((left - hair, top - hair, right + hair, bottom + hair), outline=OUTERMOST, width=hair - out)
    pen.rectangle((left - out, top - out, right + out, bottom + out), outline=color, width=own.line)


def _draw_masks(image: Image.Image, masks: Sequence[tuple[np.ndarray, Color]], style: Style) -> Image.Image:
    """Each mask tinted, with a border in its full colour; of a small one the border alone, round it."""
    pixels = np.array(image)
    for mask, color in masks:
        side = mask.sum() ** 0.5
        width = style.for_object(side, side).line
        place = _extent(mask, width)
        part, inside = pixels[place], mask[place]
        borders = _borders(inside, width)
        if style.is_small(side, side):
            part[borders & ~inside] = color
        else:
            part[inside] = ((1 - OPACITY) * part[inside] + OPACITY * np.array(color)).astype(np.uint8)
            part[borders & inside] = color
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
