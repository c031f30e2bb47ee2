"""A page of feature maps: for each backbone a row of the image and its four levels."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.pictures import Style
from ..models.simple_feature_pyramid import STRIDES


Row = tuple[str, Sequence[np.ndarray]]
"""A name, and colours (h, w, 3) uint8 at the strides 4, 8, 16 and 32."""


def draw_page(image: Image.Image, rows: Sequence[Row]) -> Image.Image:
    """Every map as large as the image, a pixel of the map a sharp rectangle, with a title above it."""
    cells = [[("image", image), *_titled(name, maps, image.size)] for name, maps in rows]
    style = Style.for_size((2 * image.width, 2 * image.height))  # of a page that is larger than the image
    gap, line = 3 * style.line, 2 * style.text
    width, height = image.width + gap, image.height + line + gap
    page = Image.new("RGB", (len(cells[0]) * width - gap, len(cells) * height - gap), "white")
    pen = ImageDraw.Draw(page)
    for row, columns in enumerate(cells):
        for column, (title, picture) in enumerate(columns):
            pen.text((column * width + gap, row * height + line // 5), title, fill="black", font=style.font)
            page.paste(picture, (column * width, row * height + line))
    return page


def _titled(name: str, maps: Sequence[np.ndarray], size: tuple[int, int]) -> list[tuple[str, Image.Image]]:
    pictures = [Image.fromarray(colors).resize(size, Image.Resampling.NEAREST) for colors in maps]
    return [(f"{name} 1/{stride}", picture) for stride, picture in zip(STRIDES.values(), pictures)]
