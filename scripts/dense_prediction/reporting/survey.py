"""What the pictures of a split are like, seen in some of them from all over it.

Nothing is drawn from a run's random numbers, and no bad sample is refused or counted: a run is the same with a report
and without it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from ..batches.options import TransformOptions
from ..batches.transforms import TrainingTransform
from ..data.samples import Sample, Split, Stream
from ..drawing.annotations import Arrays, to_arrays
from ..drawing.pages import fit_sheet


MOST_PICTURES = 120
SECONDS = 3.0
"""After which no more pictures are read."""

SHOWN = 12
"""On a contact sheet."""

Cell = tuple[Image.Image, Arrays, str]
"""A picture of a contact sheet, what is annotated in it, and its caption."""


@dataclass(frozen=True)
class Extreme:
    """A picture that stands out, and the number by which it does."""

    number: int
    cell: Cell


@dataclass
class Survey:
    """What was seen.

    Attributes:
        pictures: that the split has.
        sizes: how many pictures have each height and width.
        by_class: objects, segments or pixels of each class id, of those that are read.
        sides: of every object or segment the square root of its area (of its box or its mask) in pixels.
        levels: how many values of the pictures there are of each brightness, 0 to 255.
        shown: pictures from all over the split.
        learnt: the same as augmentation may change them; of the training split.
    """

    pictures: int
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    by_class: Counter[int] = field(default_factory=Counter)
    sides: list[float] = field(default_factory=list)
    levels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    shown: list[Cell] = field(default_factory=list)
    learnt: list[Cell] = field(default_factory=list)
    smallest: Extreme | None = None
    most_crowded: Extreme | None = None

    @property
    def looked_at(self) -> int:
        return self.sizes.total()

    @property
    def intensities(self) -> tuple[int, int, int, int] | None:
        """The lowest, the first and the last hundredth, and the highest of the pictures' 8-bit values."""
        if not self.levels.any():
            return None
        share = self.levels.cumsum() / self.levels.sum()
        present = np.flatnonzero(self.levels)
        low, high = (int(np.searchsorted(share, level)) for level in (0.01, 0.99))
        return int(present[0]), low, high, int(present[-1])

    def add(self, sample: Sample) -> None:
        """Count a sample."""
        height, width = sample["image"].shape[-2:]
        self.sizes[height, width] += 1
        if sample["image"].dtype == torch.uint8:
            self.levels += np.bincount(sample["image"][:, ::4, ::4].flatten().numpy(), minlength=256)
        by_class, sides = _contents(sample)
        self.by_class += by_class
        self.sides += sides
        is_map = "semantic_map" in sample
        crowd = len(by_class) if is_map else by_class.total()
        if self.smallest is None or height * width < self.smallest.number:
            self.smallest = Extreme(height * width, cell_of(sample))
        if self.most_crowded is None or crowd > self.most_crowded.number:
            self.most_crowded = Extreme(crowd, cell_of(sample))


def survey(
    split: Split | Stream, transforms: TransformOptions | None = None, seconds: float = SECONDS
) -> Survey | None:
    """Look at pictures from all over a split; None of a stream, which is read in its own order alone.

    Args:
        transforms: how its pictures are augmented, to show that too.
    """
    peek: Callable[[int], Sample | None] | None = getattr(split, "peek", None)
    if peek is None or isinstance(split, Stream):
        return None
    found, end = Survey(len(split)), time.monotonic() + seconds
    augment = None if transforms is None else Augmentation(transforms)
    for place, index in enumerate(spread(len(split), (SHOWN, MOST_PICTURES))):
        if time.monotonic() > end and place >= SHOWN // 2:
            break
        sample = peek(index)
        if sample is None:
            continue
        found.add(sample)
        if place < SHOWN:
            found.shown.append(cell_of(sample))
            if augment is not None:
                found.learnt.append(augment(sample))
    return found


def spread(length: int, numbers: Sequence[int]) -> Iterator[int]:
    """Indices from all over: first as many as the first number, then up to the second, each once."""
    remaining, done = list(range(length)), 0
    for number in numbers:
        wanted = min(number - done, len(remaining))
        chosen = [remaining[(2 * place + 1) * len(remaining) // (2 * wanted)] for place in range(wanted)]
        yield from chosen
        done += wanted
        remaining = sorted({*remaining} - {*chosen})


class Augmentation:
    """Shows what a training may see of a sample. Its random numbers are its own."""

    def __init__(self, options: TransformOptions) -> None:
        self.options, self.transform, self.drawn = options, TrainingTransform(options), 0

    def __call__(self, sample: Sample) -> Cell:
        self.drawn += 1
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.drawn)
            example = self.transform(sample)
        mean, std = (torch.tensor(each)[:, None, None] for each in (self.options.image_mean, self.options.image_std))
        image = ((example["pixel_values"] * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
        return cell_of(example | {"image": image})


def cell_of(sample: Sample) -> Cell:
    """A sample as small as a contact sheet shows it."""
    image, arrays = fit_sheet(to_pil_image(sample["image"]).convert("RGB"), to_arrays(sample))
    height, width = sample["image"].shape[-2:]
    return image, arrays, f"{sample['name'].rpartition('/')[2]}, {width} x {height}"


def _contents(sample: Sample) -> tuple[Counter[int], list[float]]:
    """How much of each class a sample holds, and the sides of its objects or segments; crowds are left out."""
    if "semantic_map" in sample:
        pixels = torch.bincount(sample["semantic_map"].flatten(), minlength=256)[:255]
        return Counter({label: int(pixels[label]) for label in pixels.nonzero().flatten().tolist()}), []
    kept = ~sample["is_crowd"]
    counts = Counter(sample["labels"][kept].tolist())
    if "segment_map" in sample:
        areas = torch.bincount((sample["segment_map"] + 1).flatten(), minlength=len(kept) + 1)[1:].float()
    elif "masks" in sample:
        areas = sample["masks"].flatten(1).sum(1).float()
    else:
        areas = (sample["boxes"][:, 2:] - sample["boxes"][:, :2]).prod(1)
    return counts, areas[kept].sqrt().tolist()
