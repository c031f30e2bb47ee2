"""Synthetic images for demos and tests: shapes on a noisy background, the same on every machine for (seed, index).

Fill colour and texture are drawn independently of the class, so that a network has to learn the shapes.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw


LABELS = ("background", "circle", "square", "triangle", "star")

Array = np.ndarray


def draw_sample(seed: int, index: int, size: int) -> tuple[Image.Image, Image.Image]:
    """Image `index` of the endless set `seed`: an RGB image and an L mask of ids, both (size, size)."""
    image, shapes = draw_shapes(seed, index, size)
    mask = np.zeros((size, size), dtype=np.uint8)
    for label, inside in shapes:
        mask[inside] = label
    return image, Image.fromarray(mask)


def draw_shapes(seed: int, index: int, size: int) -> tuple[Image.Image, list[tuple[int, Array]]]:
    """The same image, and for each shape that can be seen its label and where it is seen, (size, size) bool."""
    rng = np.random.default_rng([seed, index])
    canvas = _gradient(rng, size)
    shapes: list[tuple[int, Array]] = []
    for _ in range(rng.integers(1, 3)):
        label = int(rng.integers(1, len(LABELS)))
        inside = _silhouette(rng, label, size)
        canvas[inside] = _texture(rng, size)[inside]
        shapes = [(below, seen & ~inside) for below, seen in shapes] + [(label, inside)]
    canvas += rng.normal(scale=rng.uniform(2, 10), size=canvas.shape)
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    return image, [(label, seen) for label, seen in shapes if seen.any()]


def _silhouette(rng: np.random.Generator, label: int, size: int) -> Array:
    """(size, size) bool: where a shape of class `label` lies, at a random place, size and angle."""
    centre = rng.uniform(0.25, 0.75, size=2)
    radius = rng.uniform(0.2, 0.3)
    angle = rng.normal(scale=0.3)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outline = (centre + radius * _OUTLINES[LABELS[label]] @ turn) * size
    image = Image.new("L", (size, size))
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in outline.tolist()], fill=1)
    return np.asarray(image, dtype=bool)


def _outline(distances: Sequence[float]) -> Array:
    """Corners (N, 2), as x, y, at these distances and equal angles round 0, scaled to the area of a unit circle."""
    angles = 2 * math.pi * (np.arange(len(distances)) + 0.5) / len(distances) + math.pi / 2
    corners = np.asarray(distances)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x, y = corners.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    return corners * math.sqrt(math.pi / area)


# Of equal area, so that neither the size of a shape nor the share of its pixels favours a class.
_OUTLINES: dict[str, Array] = {
    "circle": _outline([1.0] * 48),
    "square": _outline([1.0] * 4),
    "triangle": _outline([1.0] * 3),
    "star": _outline([0.4, 1.0] * 5),
}


def _color(rng: np.random.Generator) -> Array:
    return rng.uniform(0, 255, size=3)


def _gradient(rng: np.random.Generator, size: int) -> Array:
    """(size, size, 3) float: a linear blend of two random colours along a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    blend = (0.5 + 0.7 * (x * math.cos(angle) + y * math.sin(angle))).clip(0, 1)[..., None]
    return (1 - blend) * _color(rng) + blend * _color(rng)


def _stripes(rng: np.random.Generator, size: int) -> Array:
    angle, period = rng.uniform(0, math.pi), rng.uniform(4, 12)
    y, x = np.mgrid[0:size, 0:size]
    on = ((x * math.cos(angle) + y * math.sin(angle)) % period < period / 2)[..., None]
    return np.where(on, _color(rng), _color(rng))


def _plain(rng: np.random.Generator, size: int) -> Array:
    return np.broadcast_to(_color(rng), (size, size, 3))


_TEXTURES: tuple[Callable[[np.random.Generator, int], Array], ...] = (_plain, _gradient, _stripes)


def _texture(rng: np.random.Generator, size: int) -> Array:
    """(size, size, 3) float: a random filling, whatever the shape."""
    return _TEXTURES[rng.integers(len(_TEXTURES))](rng, size)
