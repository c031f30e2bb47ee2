"""The same colours for the same classes in every picture."""

import colorsys


Color = tuple[int, int, int]

UNLABELLED: Color = (0, 0, 0)
GOLDEN_RATIO = 0.618034
SHADES = 6
DARKEST = 0.75
"""Of the colour of an object, of which there may be no more to see than a line on a dark ground."""


def class_color(label: int) -> Color:
    """The same well-separated colour for the same id everywhere; class 0 is grey, as it is often the background."""
    if label == 0:
        return (128, 128, 128)
    return _rgb(label * GOLDEN_RATIO, 0.9 - 0.3 * (label % 2), 1 - 0.2 * (label % 3))


def object_color(label: int, index: int = 0) -> Color:
    """The colour of a class of objects, of which none is the background.

    Args:
        index: how many objects of the class came before; each of the next few has its own shade.
    """
    red, green, blue = class_color(label + 1)
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    step = index % SHADES
    return _rgb(hue + 0.03 * step, saturation * (1 - 0.1 * step), max(DARKEST, value * (1 - 0.08 * step)))


def text_color(background: Color) -> Color:
    """Black or white, whichever is easier to read on `background`."""
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def _rgb(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
