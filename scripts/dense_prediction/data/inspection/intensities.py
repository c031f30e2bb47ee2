"""Which numbers the pictures of a split hold, and which of them are to be black and white."""

import time
from dataclasses import dataclass

import numpy as np

from ..deep_pictures import DeepPicture, Picture, Range
from ..samples import Split, Stream


FEWEST, MOST = 16, 200
"""Pictures that are looked at: the first number where all of them have 8 bits, which then nothing is asked of."""

SECONDS = 6.0

NUMBERS = 10_000
"""That are taken of each picture, so that all of them count alike."""

PERCENTILES = 0.5, 99.5
"""As nnU-Net clips CT: broken pixels, dust and reflections are fewer, and what there is to see is more."""


@dataclass(frozen=True)
class Intensities:
    """What was found.

    Attributes:
        pictures: that were looked at.
        deep: how many of them have more than 8 bits; where there are some, all else is said of these alone.
        kind: "8 bits", "16 bits", "32 bits" or "floats".
        lowest, highest: of all numbers.
        low, high: their `PERCENTILES`.
    """

    pictures: int
    deep: int
    kind: str
    lowest: float
    highest: float
    low: float
    high: float

    def range(self, choice: str) -> Range:
        """What is black and white: for `auto` the percentiles, unless nothing lies between them, for `range` all."""
        low, high = (self.low, self.high) if choice == "auto" else (self.lowest, self.highest)
        if low >= high:
            low, high = self.lowest, self.highest
        return (low, high) if low < high else (low, low + 1)


def look_at_intensities(split: Split | Stream) -> Intensities | None:
    """The numbers of pictures from all over a split, or of a stream's first; None where none can be read."""
    end, pictures = time.monotonic() + SECONDS, list[np.ndarray]()
    deep = list[np.ndarray]()
    for place, index in enumerate(_places(split)):
        picture = split.picture(index)
        if picture is not None:
            (deep if isinstance(picture, DeepPicture) else pictures).append(_some_numbers(picture))
        if time.monotonic() > end or (place + 1 >= FEWEST and not deep):
            break
    if not (found := deep or pictures):
        return None
    kinds = {numbers.dtype.kind + str(8 * min(4, numbers.dtype.itemsize)) for numbers in found}
    numbers = np.concatenate([each.astype(np.float64) for each in found])
    low, high = (_short(value) for value in np.percentile(numbers, PERCENTILES))
    return Intensities(
        pictures=len(deep) + len(pictures),
        deep=len(deep),
        kind=_KINDS[max(kinds, key=list(_KINDS).index)],
        lowest=_short(numbers.min()),
        highest=_short(numbers.max()),
        low=low,
        high=high,
    )


_KINDS = {"u8": "8 bits", "u16": "16 bits", "i32": "32 bits", "f32": "floats"}
"""By numpy's letters and bits, from the narrowest on."""


def _places(split: Split | Stream) -> list[int]:
    if isinstance(split, Stream):
        return list(range(MOST))
    # A generator of its own: nothing of what a training draws may change.
    return np.random.default_rng(0).permutation(len(split))[:MOST].tolist()


def _some_numbers(picture: Picture) -> np.ndarray:
    """From all over it, without what is no number."""
    pixels = picture.pixels if isinstance(picture, DeepPicture) else np.asarray(picture)
    numbers = pixels.reshape(-1)
    numbers = numbers[:: max(1, numbers.size // NUMBERS)]
    return numbers[np.isfinite(numbers)] if numbers.dtype.kind == "f" else numbers


def _short(value: float) -> float:
    """Six digits, which nobody sees the difference of."""
    return float(f"{value:.6g}")
