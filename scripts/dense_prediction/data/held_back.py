"""A share of the training split that is held back for measuring, where the data have no validation split."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from ..errors import UserError
from .samples import Glance, Sample, UncheckedSplit


_EXPORTED = re.compile(r"(?:_(?:jpe?g|png|bmp|tiff?|webp))?\.rf\.\w+$", re.IGNORECASE)
"""What Roboflow writes after the name of a picture, one for each of its augmented copies: `_jpg.rf.<hash>`."""

_COPY = re.compile(
    r"(?:[-_. ](?:aug|augmented|augmentation|crop|cropped|tile|patch|flip|flipped|hflip|vflip|mirror|mirrored|rot"
    r"|rotate|rotated|copy)(?:[-_]?\d+)*)+$",
    re.IGNORECASE,
)
"""What programs write after the name of a picture that they have cut or changed: `_crop_0_512`, `_aug3`, `_flip`."""


class Part:
    """Some samples of a split."""

    def __init__(self, split: UncheckedSplit, indices: Sequence[int]) -> None:
        self.split = split
        self.indices = indices
        glance = getattr(split, "glance", None)
        if glance is not None:
            self.glance = self._glance

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.split[self.indices[index]]

    def _glance(self, index: int) -> Glance:
        glance: Glance = self.split.glance(self.indices[index])  # type: ignore[attr-defined]  # it is asked for above
        return glance


def hold_back(split: UncheckedSplit, share: float) -> tuple[Part, Part]:
    """What is learnt, and what is held back of a split, both in its order.

    A picture's side follows from its name alone, so that it stays where it is when others are added; only where one
    side would be empty, the nearest source goes there. Pictures made from one, by their names, stay together.

    Args:
        share: of all pictures, how many are held back, about.

    Raises:
        UserError: there are fewer than two pictures.
    """
    if len(split) < 2:
        raise UserError(f"data.validation_share={share} needs at least 2 pictures of training, there is {len(split)}")
    places = [_place(source) for source in _sources(picture_names(split))]
    limit = share
    if min(places) >= limit:
        limit = _after(min(places), places)
    elif max(places) < limit:
        limit = max(places)
    held = [index for index, place in enumerate(places) if place < limit]
    learnt = [index for index, place in enumerate(places) if place >= limit]
    return Part(split, learnt), Part(split, held)


def picture_names(split: UncheckedSplit) -> list[str]:
    """What each picture is called, by the split's own `picture_names` or by its place."""
    names = getattr(split, "picture_names", None)
    return [str(index) for index in range(len(split))] if names is None else list(names())


def source_of(name: str) -> str:
    """The name of the picture that a picture was made from, without its ending: that of its own where nothing tells.

    >>> source_of("a/IMG_7_jpg.rf.0a1b2c.jpg"), source_of("scan_crop_0_512.png")
    ('a/IMG_7', 'scan')
    """
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    folder, slash, last = name.rpartition("/")
    stem = _EXPORTED.sub("", last.rpartition(".")[0] or last)
    return folder + slash + (_COPY.sub("", stem) or stem)


def _sources(names: list[str]) -> list[str]:
    """Those of the pictures; their own names where all would be one."""
    sources = [source_of(name) for name in names]
    if len(set(sources)) > 1:
        return sources
    # Two pictures may even have one name, and still there must be two sides.
    return names if len(set(names)) == len(names) else [f"{name} {place}" for place, name in enumerate(names)]


def _place(source: str) -> float:
    """A number from 0 to below 1 that follows from a text alone, on any machine."""
    return int.from_bytes(hashlib.sha256(source.encode("utf-8", "replace")).digest()[:6], "big") / 2**48


def _after(lowest: float, places: list[float]) -> float:
    """The next one."""
    return min((place for place in places if place > lowest), default=1.0)
