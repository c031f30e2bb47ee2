"""Which folder holds what is said of which pictures, and how the names of both belong together."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import PurePosixPath

from ..formats.folders import OR, mask_of
from .candidates import as_splits
from .names import ROLES, place_of, role_of, split_of, subject_of, words_of
from .survey import join


FEWEST = 0.5
"""The share of pictures that must have a mask; what has none is met when its sample is read."""

COMPARED = 500
"""Pictures by whose names a pattern is found."""

Names = Mapping[str, Sequence[str]]
"""The names of files in each folder below the root."""


@dataclass(frozen=True)
class Place:
    """A folder of pictures, or of what is said of them, with all that is below it.

    Attributes:
        path: below the root.
        files: below the place.
    """

    path: str
    files: list[str]

    @property
    def split(self) -> str | None:
        return split_of(self.path)

    @property
    def role(self) -> str | None:
        return role_of(self.path)


@dataclass(frozen=True)
class Pair:
    """The pictures of a split and what is said of them.

    Attributes:
        image_stem: what the stem of a picture is called, with a * for what both have in common.
        suffix: what stands after that in the name of the other file, or a name with a * in its place.
        matched: the pictures that have such a file, each with it, below their places.
    """

    images: Place
    others: Place
    image_stem: str
    suffix: str
    matched: list[tuple[str, str]]

    @property
    def pattern(self) -> tuple[str, str]:
        return self.image_stem, self.suffix

    def files(self) -> list[tuple[str, str]]:
        """Those that belong together, below the root."""
        return [(join(self.images.path, image), join(self.others.path, other)) for image, other in self.matched]

    def by(self, image_stem: str, suffix: str) -> "Pair":
        """The same files by another pattern."""
        matched = list(_matched(self.images.files, set(self.others.files), image_stem, suffix))
        return replace(self, image_stem=image_stem, suffix=suffix, matched=matched)


def places_of(names: Names) -> list[Place]:
    """Folders by what their paths say; one whose files are all in one folder of it is that folder."""
    found: dict[str, list[str]] = {}
    for folder, files in names.items():
        found.setdefault(place_of(folder), []).extend(join(folder, name) for name in files)
    places = []
    for path, files in found.items():
        folders = {file.rpartition("/")[0] for file in files}
        path = folders.pop() if len(folders) == 1 else path
        start = len(path) + 1 if path else 0
        places.append(Place(path, [file[start:] for file in files]))
    return places


def pairs_of(pictures: Names, others: Names, by_stems: bool = False) -> dict[str, Pair]:
    """For each split the pictures and what is said of them, in folders of their own or in one.

    Args:
        by_stems: files belong together by equal stems alone, and there may be many more pictures.
    """
    image_places, other_places = places_of(pictures), places_of(others)
    found: dict[str | None, list[Pair]] = {}
    for place in sorted(other_places, key=lambda place: (not SHOWN.isdisjoint(words_of(place.path)), place.path)):
        pairs = [pair for images in image_places if (pair := _pair(images, place, by_stems)) is not None]
        if pairs:
            best = max(pairs, key=lambda pair: (_kinship(pair, place), len(pair.matched)))
            found.setdefault(place.split or best.images.split, []).append(best)
    return _of_one_pattern(as_splits(_together(_by_hand(found))))


def _by_hand(found: Mapping[str | None, list[Pair]]) -> Mapping[str | None, list[Pair]]:
    """Those that people have drawn, where there are such: others say where a camera sees anything (DRIVE, HRF)."""
    drawn = {split: [pair for pair in pairs if _is_by_hand(pair)] for split, pairs in found.items()}
    return {split: pairs for split, pairs in drawn.items() if pairs} or found


def _is_by_hand(pair: Pair) -> bool:
    return "manual" in words_of(PurePosixPath(pair.others.path).name)


def _together(found: Mapping[str | None, list[Pair]]) -> dict[str | None, Pair]:
    """One pair for each split: of `1/images` with `1/masks` and `2/images` with `2/masks` all, else the largest."""
    joined = {split: _joined(pairs) for split, pairs in found.items()}
    several = any(len({pair.images.path for pair in pairs}) > 1 for pairs in found.values())
    whole = {split: pair for split, pair in joined.items() if pair is not None}
    if several and len(whole) == len(found):
        return whole
    return {split: max(pairs, key=lambda pair: len(pair.matched)) for split, pairs in found.items()}


def _joined(pairs: Sequence[Pair]) -> Pair | None:
    """Pairs of folders that are called alike, each two in a folder of their own, as one; None of others."""
    first = pairs[0]
    images, others = (PurePosixPath(place.path).name for place in (first.images, first.others))
    alike = [pair for pair in pairs if PurePosixPath(pair.others.path).name == others]
    if any(not _are_called(pair, images, others) or pair.pattern != first.pattern for pair in alike):
        return None
    root = os.path.commonpath([os.path.dirname(pair.images.path) for pair in alike])
    suffix = first.suffix if "*" in first.suffix else f"*{first.suffix}"
    whole = Pair(
        _place_in(root, [pair.images for pair in alike]),
        _place_in(root, [pair.others for pair in alike]),
        f"{images}/{first.image_stem}",
        f"../{others}/{suffix}",
        [],
    )
    return whole.by(*whole.pattern)


def _are_called(pair: Pair, images: str, others: str) -> bool:
    one, other = PurePosixPath(pair.images.path), PurePosixPath(pair.others.path)
    return one.parent == other.parent and (one.name, other.name) == (images, others) and images != others


def _place_in(root: str, places: Iterable[Place]) -> Place:
    """The files of several places as those of one above them."""
    paths = [join(place.path, name) for place in places for name in place.files]
    return Place(root, [posixpath.relpath(path, root or ".") for path in paths])


def _of_one_pattern(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """All splits by one pattern, or by several of which each file takes the first that fits; what is learnt stays."""
    patterns = {pair.pattern for pair in pairs.values()}
    if len(patterns) < 2:
        return dict(pairs)
    listed = sorted(patterns, key=lambda pattern: (-len(pattern[0]), pattern))  # * fits all
    together = OR.join(stem for stem, _ in listed), OR.join(suffix for _, suffix in listed)
    choices = [{split: pair.by(*pattern) for split, pair in pairs.items()} for pattern in [*listed, together]]
    sizes = [{split: len(pair.matched) for split, pair in choice.items()} for choice in choices]
    best = max(range(len(choices)), key=lambda place: (sizes[place]["train"] > 0, sum(sizes[place].values())))
    return {split: pair for split, pair in choices[best].items() if pair.matched}


SHOWN = {
    "human",
    "color",
    "colors",
    "colour",
    "colours",
    "colored",
    "rgb",
    "visual",
    "overlay",
    "instances",
    "vis",
} | {*("instance", "visualization", "visualisation", "visualized", "visualised")}
"""What folders of masks are called that were made for the eye, or of single objects, beside those of classes."""


def _kinship(pair: Pair, place: Place) -> tuple[bool, ...]:
    """How well the paths of both fit."""
    return (
        pair.images.split == place.split,
        subject_of(pair.images.path) == subject_of(place.path),
        PurePosixPath(pair.images.path).parent == PurePosixPath(place.path).parent,
        pair.images.role == "images",
    )


def _pair(images: Place, others: Place, by_stems: bool) -> Pair | None:
    if images.split is not None and others.split is not None and images.split != others.split:
        return None
    if images.role == "masks" and images.path != others.path and others.role != "masks":
        return None
    match = match_names(images.files, others.files, by_stems)
    if match is None:
        return None
    image_stem, suffix, matched = match
    return Pair(images, others, image_stem, suffix, matched)


def match_names(
    images: Sequence[str], others: Sequence[str], by_stems: bool = False
) -> tuple[str, str, list[tuple[str, str]]] | None:
    """The pattern by which most pictures have another file: `*` and `.png`, `*_img` and `_masks.tif`, `img_*`, ...

    Returns:
        What the stem of a picture is, what its other file ends with or is called, and the pairs; None for too few.
    """
    known = set(others)
    step = max(1, len(images) // COMPARED)
    some = images[::step]
    kinds = [_by_endings(others)]
    if not by_stems:
        usual = [*_by_endings(others), *_by_suffixes(some, others), *_by_affixes(images, others)]
        kinds = [iter(usual), _by_last_words(some, others[:: max(1, len(others) // COMPARED)])]
    for patterns in kinds:
        counts = {pattern: len(list(_matched(some, known, *pattern))) for pattern in patterns}
        best = max(counts, key=lambda pattern: counts[pattern], default=("", ""))
        most = len([name for name in some if _fits(name, best[0])])
        if counts and counts[best] >= max(1, FEWEST * (min(most, len(others)) if by_stems else most)):
            return (*best, list(_matched(images, known, *best)))
    return None


def _matched(images: Iterable[str], known: set[str], image_stem: str, suffix: str) -> Iterator[tuple[str, str]]:
    for image in images:
        other = mask_of(image, image_stem, suffix)
        if other is not None and other in known:
            yield image, other


def _fits(image: str, image_stem: str) -> bool:
    return mask_of(image, image_stem, "") is not None


def _by_endings(others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The same stem with an ending."""
    endings = Counter(os.path.splitext(name)[1] for name in others)
    yield from (("*", ending) for ending, _ in endings.most_common(4))


def _by_suffixes(images: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What stands after the stem of a picture in the names of others."""
    last = [name.rpartition("/")[2] for name in others]
    suffixes = Counter[str]()
    for image in images[:5]:
        stem = PurePosixPath(image).stem
        suffixes.update(name[len(stem) :] for name in last if name.startswith(stem))
    yield from (("*", suffix) for suffix, _ in suffixes.most_common(6))


def _by_affixes(images: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What all pictures have before or after what tells them apart, and what the others have."""
    stems = [PurePosixPath(name).stem for name in images]
    other_stems = [PurePosixPath(name).stem for name in others]
    endings = [ending for ending, _ in Counter(os.path.splitext(name)[1] for name in others).most_common(2)]
    choices = product(_affixes(stems), _affixes(other_stems), endings)
    yield from ((f"{a}*{b}", f"{c}*{d}{ending}" if c else f"{d}{ending}") for (a, b), (c, d), ending in choices)


def _by_last_words(images: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """How each kind of files ends where several are in one folder: `*_rgb` and `_label.png`, and not `_fg.png`."""
    befores = ["", *(f"{after}" for _, after in _affixes([PurePosixPath(name).stem for name in images])[1:])]
    befores = list(dict.fromkeys([*_last_words(images), *befores]))
    befores.sort(key=lambda word: ROLES["images"].isdisjoint(words_of(word)))
    afters = sorted(_last_words(others), key=lambda word: not SHOWN.isdisjoint(words_of(word)))
    endings = [ending for ending, _ in Counter(os.path.splitext(name)[1] for name in others).most_common(2)]
    yield from ((f"*{before}", f"{after}{ending}") for before, after, ending in product(befores, afters, endings))


_LAST_WORDS = [re.compile(pattern) for pattern in (r"_[^_\W]+$", r"_[^_\W]+_[^_\W]+$")]

OF_A_KIND = 0.2
"""The share of a folder's files that must end alike, to be a kind of files."""


def _last_words(names: Sequence[str]) -> list[str]:
    """The last word or two of stems that many share, in the order of the alphabet."""
    stems = [PurePosixPath(name).stem for name in names]
    found = Counter(match.group() for stem in stems for word in _LAST_WORDS if (match := word.search(stem)))
    return sorted(word for word, count in found.items() if count > 1 and count >= OF_A_KIND * len(stems))


def _affixes(stems: Sequence[str]) -> list[tuple[str, str]]:
    """What all stems begin with and end with, cut after each separator, the shortest first."""
    if len(stems) < 2:
        return [("", "")]
    first, last = os.path.commonprefix(list(stems)), os.path.commonprefix([stem[::-1] for stem in stems])[::-1]
    befores = ["", *(first[: match.end()] for match in re.finditer(r"[^\W\d_]+(?=\d|$)|[\W_]+", first))]
    afters = ["", *(last[match.start() :] for match in reversed(list(re.finditer(r"[\W_]+|(?<=\d)[^\W\d_]", last))))]
    return [(one, other) for one in befores[:4] for other in afters[:3] if "*" not in one + other]


_MAY_BE_MASK = re.compile("|".join(sorted({word[:4] for word in ROLES["masks"]})))
"""A first look, as there may be a hundred thousand names."""


def is_mask_name(name: str) -> bool:
    """Whether a file that lies among pictures is called as a mask: `a_mask.png`, `a_cp_masks.tif`, `gt-7.png`."""
    if _MAY_BE_MASK.search(name.casefold()) is None:
        return False
    words = words_of(PurePosixPath(name).stem)
    return bool(words) and (words[-1] in ROLES["masks"] or words[0] in ROLES["masks"])
