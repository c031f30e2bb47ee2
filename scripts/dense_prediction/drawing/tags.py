"""Names on plates of their colours, where they hide neither each other nor what they name."""

import numpy as np
from PIL import Image, ImageDraw

from .colors import Color, text_color
from .styles import Style


MOST_TAGGED = 20
"""Objects of a picture; among more of them names hide what they name."""

MOST_HIDDEN = 0.3
"""Of any object's box, by a name."""

Point = tuple[float, float]
Box = tuple[float, float, float, float]


def are_tagged(num_labels: int, num_objects: int) -> bool:
    """Whether the objects of a picture get names: not many, and not those of the only class, which a legend tells."""
    return num_labels > 1 and num_objects <= MOST_TAGGED


class Tags:
    """Writes the names of the objects in a picture.

    Args:
        boxes: (N, 4) x and y of two corners, of all objects in it.
    """

    def __init__(self, image: Image.Image, boxes: np.ndarray) -> None:
        self.size = image.size
        self.pen = ImageDraw.Draw(image)
        self.objects = boxes.reshape(-1, 4).astype(float)
        self.taken: list[Box] = []

    def write_beside(self, box: Box, name: str, color: Color, style: Style) -> None:
        """A name at a side of a box where it hides nothing; if there is none, the colour has to tell the class."""
        left, top, right, bottom = box
        width, height = plate(name, style)
        corners = [(x, y) for x in (left, right - width) for y in (top - height, bottom + 1)]
        for corner in (*corners, (left, top), (left, bottom - height)):
            place = self._inside(corner, width, height)
            if self._is_free(place):
                self.write(place, name, color, style)
                return

    def write(self, place: Box, name: str, color: Color, style: Style) -> None:
        """A name on a plate of its colour."""
        self.taken.append(place)
        left, top, right, bottom = place
        self.pen.rectangle((left, top, right - 1, bottom - 1), fill=color)
        self.pen.text((left + style.line, top), name, fill=text_color(color), font=style.font)

    def write_at(self, corner: Point, name: str, color: Color, style: Style) -> None:
        """A name whose upper left corner is there, moved until it lies in the picture."""
        self.write(self._inside(corner, *plate(name, style)), name, color, style)

    def _inside(self, corner: Point, width: int, height: int) -> Box:
        left = max(0, min(round(corner[0]), self.size[0] - width))
        top = max(0, min(round(corner[1]), self.size[1] - height))
        return left, top, left + width, top + height

    def _is_free(self, place: Box) -> bool:
        if any(_shared(place, np.array([other]))[0] > 0 for other in self.taken):
            return False
        sides = (self.objects[:, 2:] - self.objects[:, :2]).clip(min=1)
        return bool((_shared(place, self.objects) <= MOST_HIDDEN * sides.prod(1)).all())


def plate(name: str, style: Style) -> tuple[int, int]:
    """Width and height of a name's plate."""
    return round(style.font.getlength(name)) + 2 * style.line, sum(style.font.getmetrics())


def _shared(place: Box, boxes: np.ndarray) -> np.ndarray:
    """(N,) pixels that a place shares with each of (N, 4) boxes."""
    upper_left = np.maximum(boxes[:, :2], place[:2])
    lower_right = np.minimum(boxes[:, 2:], place[2:])
    return (lower_right - upper_left).clip(min=0).prod(1)
