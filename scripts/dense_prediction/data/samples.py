"""What a sample is, whatever it was read from, and what sets of samples there are."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .deep_pictures import Picture


if TYPE_CHECKING:
    import torch

IGNORE_INDEX = 255
"""The id of unlabelled pixels in every semantic map that leaves this package, whatever it was in the files."""

VOID = -1
"""The same in segment maps."""

Sample = dict[str, Any]
"""`image`; `name`, str; `image_id`, int; and the columns of its task. A format reads a `Picture` and arrays, of
which `tensors.to_tensors` makes what `load_data` gives: `image` as tv_tensors.Image (3, H, W) uint8, and

- semantic segmentation: `semantic_map`, Mask (H, W) int64 of class ids and `IGNORE_INDEX`;
- detection: `boxes`, BoundingBoxes (N, 4) float32 XYXY; `labels`, (N,) int64; `is_crowd`, (N,) bool; `areas`, (N,)
  float32; instance segmentation also `masks`, Mask (N, H, W) bool;
- panoptic segmentation: `segment_map`, Mask (H, W) int64 of positions in `labels` and `VOID`; `labels`, (K,) int64;
  `is_crowd`, (K,) bool.
"""


@dataclass(frozen=True)
class Glance:
    """What is annotated of one picture, read without the picture.

    Attributes:
        objects: the categories of its objects or segments that are no crowds, None for one that the data do not name.
        crowds: how many more are marked as crowds.
        pixels: of a label map: how many pixels have each of the ids in the file.
        name: of a label map, as messages call it.
    """

    objects: Sequence[str | None] = ()
    crowds: int = 0
    pixels: Mapping[int, int] = field(default_factory=dict)
    name: str = ""


class UncheckedSplit(Protocol):
    """What a format reads: a finite set of samples in any order, of which a bad one raises `BadSample`.

    With a method `glance`, from an index to a `Glance` or `BadSample`, it can be looked at before a training; with
    `picture_names`, the name of each picture below its folder, a share of it stays the same when pictures are added.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


class Split(Protocol):
    """A finite set of samples that can be read in any order; None is a bad sample that is to be skipped."""

    glance: Callable[[int], Glance] | None
    """What is annotated of a sample, or `BadSample`; None where a format cannot tell without the picture."""
    peek: Callable[[int], Sample | None] | None
    """As reading a sample, but a bad one is neither refused nor counted; None where looking ahead is slow."""
    skipped: "torch.Tensor"
    """Which samples have been passed over so far: a bool for each, in the memory that loading processes share."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample | None: ...

    def picture(self, index: int) -> Picture | None:
        """The picture of a sample before its numbers become colours; None of a bad sample."""

    @property
    def num_skipped(self) -> int:
        """How many different samples have been passed over so far."""


class EndlessSamples(Protocol):
    """The sample at each position of a stream that does not end."""

    def __getitem__(self, position: int) -> Sample | None: ...


class Stream(ABC):
    """A split that is fast in its own order alone, that of `shuffled` or that of the indices, and skips bad samples.

    `len` may have to read all of it.
    """

    glance: Callable[[int], Glance] | None = None
    peek: Callable[[int], Sample | None] | None = None
    skipped: "torch.Tensor"
    """As of a split, but a sample has the place that its name leads to."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample | None: ...

    @abstractmethod
    def picture(self, index: int) -> Picture | None:
        """As of a split; None also after the end."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether there is no sample, which is known from the first."""

    def glances(self) -> Iterator[Callable[[], Glance]]:
        """As `glance` of a split, of one sample after the other, from the first on."""
        return iter(())

    @abstractmethod
    def shuffled(self, seed: int) -> EndlessSamples:
        """An endless stream in which every epoch is another order of all samples."""

    @property
    @abstractmethod
    def num_skipped(self) -> int:
        """How many different samples have been passed over so far."""


@dataclass(frozen=True)
class Source:
    """A dataset whose splits can be opened.

    Attributes:
        labels: class names in the order of their ids.
        things: ids of the countable classes.
        open_split: the name of a field of the recipe that names a split, such as `train_split` -> that split.
        category_ids: what the files call each class, in the order of `labels`; None where that is its id.
    """

    labels: list[str]
    things: frozenset[int]
    open_split: Callable[[str], UncheckedSplit | Stream]
    category_ids: list[int] | None = None


class FirstSamples:
    """The first `length` samples of a split."""

    def __init__(self, split: Split, length: int) -> None:
        self.split = split
        self.length = min(length, len(split))
        self.glance, self.peek, self.skipped = split.glance, split.peek, split.skipped

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample | None:
        return self.split[index]

    def picture(self, index: int) -> Picture | None:
        """As of the whole split."""
        return self.split.picture(index)

    @property
    def num_skipped(self) -> int:
        """As of the whole split."""
        return self.split.num_skipped


def new_sample(image: Picture, name: str, image_id: int) -> Sample:
    """The part of a sample that every task has."""
    return {"image": image, "name": name, "image_id": image_id}
