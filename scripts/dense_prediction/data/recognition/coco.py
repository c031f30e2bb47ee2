"""COCO's JSON files: which there are, of which split they are, and where their pictures are."""

import json
import mmap
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import UserError
from ..annotations.numbers import short
from ..annotations.text_files import read_json
from ..options import some
from .candidates import OUTLINED, Candidate, as_splits, classes_in_words, in_words, split_keys
from .names import split_of
from .survey import Survey


MOST_JSONS = 200
"""That are looked into; a tool that writes one for each picture writes another format."""

NAMED = "name them train.json and val.json, say, or give the folder of one"

LOOKED_AT = 1_000
"""Pictures of a file that are looked for."""

_PARTS = ("info", "licenses", "images", "annotations", "categories")

_OUTLINE, _CATEGORY = re.compile(rb'"segmentation"\s*:\s*[\[{]\s*["\[]'), re.compile(rb'"category_id"')

_OPENS = re.compile(rb'"\s*:\s*[\[{]')


@dataclass(frozen=True)
class CocoJson:
    """What one file says, but for its annotations, which may be most of a gigabyte.

    Attributes:
        path: below the root.
        names: of its pictures.
        classes: the names of its categories.
        panoptic: whether its annotations are lists of segments; otherwise they are objects.
        objects: how many annotations there are.
        outlines: how many of them have polygons or run lengths.
    """

    path: str
    names: list[str]
    classes: list[str]
    panoptic: bool
    objects: int
    outlines: int


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of a file are.

    Attributes:
        folder: below the root.
        by_last_part: whether the file's names are to be taken by their last parts alone.
        missing: how many of those that were looked for are not there.
    """

    folder: str
    by_last_part: bool
    missing: int


def recognize_coco(survey: Survey) -> list[Candidate]:
    """Objects and, as another format, segments."""
    paths = survey.paths(".json")[:MOST_JSONS]
    files = [file for path in paths if (file := look_into(survey.root, path)) is not None]
    objects = [file for file in files if not file.panoptic]
    segments = [file for file in files if file.panoptic]
    found = [_objects(survey, objects)] if objects else []
    return found + ([_segments(survey, segments)] if segments else [])


def _objects(survey: Survey, files: list[CocoJson]) -> Candidate:
    new = _Reading(survey, "coco", "COCO JSON", files)
    if new.missing:
        return new.candidate(())
    if not all(file.outlines for file in new.splits.values()):
        return new.candidate(("object_detection",), words=", boxes without outlines")
    objects, outlines = (sum(getattr(file, what) for file in new.splits.values()) for what in ("objects", "outlines"))
    boxes = f"{objects - outlines:,} of {objects:,} objects have a box and no outline"
    if outlines * 2 < objects:
        return new.candidate(("object_detection",), words=f"; {boxes}")
    if outlines >= objects:
        return new.candidate(OUTLINED)
    return new.candidate(OUTLINED, {"boxes_as_outlines": True}, f"; {boxes}: it is taken for that")


def _segments(survey: Survey, files: list[CocoJson]) -> Candidate:
    new = _Reading(survey, "coco_panoptic", "COCO panoptic JSON", files)
    if new.missing:
        return new.candidate(())
    masks = {split: _mask_folder(survey, file) for split, file in new.splits.items()}
    if lost := [new.splits[split].path for split, folder in masks.items() if folder is None]:
        new.missing = f"there is no folder with the PNGs of {lost[0]}"
        return new.candidate(())
    return new.candidate(
        ("panoptic_segmentation",), {"masks": {split: folder or "." for split, folder in masks.items()}}
    )


class _Reading:
    """The files of one kind, each taken for a split."""

    def __init__(self, survey: Survey, format: str, title: str, files: list[CocoJson]) -> None:
        self.survey, self.format, self.title = survey, format, title
        self.splits: dict[str, CocoJson] = {}
        self.missing = ""
        by_split: dict[str | None, CocoJson] = {}
        for file in files:
            split = split_of(file.path)
            by_split[split] = _better(by_split.get(split), file)
        several = [file.path for file in files if file not in by_split.values() and not _is_other(file, by_split)]
        self.files = files
        if several:
            self.missing = f"{some([file.path for file in files], 5)} may be of one split: {NAMED}"
            return
        self.splits = as_splits(by_split)
        self.pictures = {split: find_pictures(survey, file) for split, file in self.splits.items()}
        self._check_pictures()

    def candidate(self, tasks: tuple[str, ...], fields: dict[str, Any] | None = None, words: str = "") -> Candidate:
        if self.missing:
            return Candidate(self.format, self.title, words=self._words(self.files), missing=self.missing)
        places = {split: found.folder or "." for split, found in self.pictures.items() if found is not None}
        data = {
            "path": str(self.survey.root),
            "format": self.format,
            "images": places,
            "annotations": {split: file.path for split, file in self.splits.items()},
            **(fields or {}),
            **split_keys(self.splits),
        }
        if any(found.by_last_part for found in self.pictures.values() if found is not None):
            data["file_names"] = "last_parts"
        return Candidate(self.format, self.title, tasks, data, self._words(self.splits.values()) + words)

    def _words(self, files: Iterable[CocoJson]) -> str:
        counts: dict[str, int | None] = {split: len(file.names) for split, file in self.splits.items()}
        listed = some([file.path for file in files], 5)
        classes = next((file.classes for file in files), [])
        return ", ".join(filter(None, [listed, in_words(counts), classes_in_words(classes), self._lost()]))

    def _lost(self) -> str:
        lost = sum(found.missing for found in getattr(self, "pictures", {}).values() if found is not None)
        return f"{lost:,} pictures are not there" if lost and not self.missing else ""

    def _check_pictures(self) -> None:
        for split, found in self.pictures.items():
            if found is None:
                file = self.splits[split]
                self.missing = (
                    f"none of the {len(file.names):,} pictures that {file.path} lists is in the folder, such as "
                    f"{short(file.names[0])}: put them there"
                )
                return


def _better(first: CocoJson | None, second: CocoJson) -> CocoJson:
    """Of two files of a split that of the objects: COCO has captions and keypoints beside it."""
    if first is None or ("instances" in second.path and "instances" not in first.path):
        return second
    return first


def _is_other(file: CocoJson, chosen: dict[str | None, CocoJson]) -> bool:
    """Whether a file is passed over because the one that is taken is called instances."""
    return any("instances" in other.path for other in chosen.values()) and "instances" not in file.path


def look_into(root: Path, path: str) -> CocoJson | None:
    """What a file says; None if it is none of COCO's."""
    try:
        return _read_parts(root / path, path)
    except (UserError, ValueError, OSError, RecursionError):
        return None


def _read_parts(file: Path, path: str) -> CocoJson | None:
    # Mapped, as a copy of a file of half a gigabyte would stay in the process.
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        images, categories = _part(data, "images", file), _part(data, "categories", file)
        has_annotations = data.find(b'"annotations"') >= 0
        panoptic = data.find(b'"segments_info"') >= 0
        outlines = sum(1 for _ in _OUTLINE.finditer(data))
        objects = sum(1 for _ in _CATEGORY.finditer(data))
    if not isinstance(images, list) or not isinstance(categories, list) or not has_annotations:
        return None
    names = [entry["file_name"] for entry in images if isinstance(entry, dict) and _has_text(entry, "file_name")]
    classes = [entry["name"] for entry in categories if isinstance(entry, dict) and _has_text(entry, "name")]
    if not names or not classes:
        return None
    return CocoJson(path, names, classes, panoptic, objects, outlines)


def _part(data: mmap.mmap, part: str, file: Path) -> Any:
    """One list of the file, without parsing the others; of a file that is written otherwise, by parsing all of it."""
    starts = sorted((place, name) for name in _PARTS if (place := _start_of(data, name)) is not None)
    for place, name in starts:
        if name == part:
            end = min((other for other, _ in starts if other > place), default=len(data))
            text = data[place:end].partition(b":")[2].rstrip().rstrip(b",}").rstrip()
            with suppress(ValueError):
                return json.loads(text)
    content = read_json(file)
    return content.get(part) if isinstance(content, dict) else None


def _start_of(data: mmap.mmap, name: str) -> int | None:
    """Where a list or an object of that name begins."""
    key = b'"' + name.encode()
    place = data.find(key)
    while place >= 0:
        if _OPENS.match(data, place + len(key)):
            return place
        place = data.find(key, place + 1)
    return None


def _has_text(entry: dict[str, Any], key: str) -> bool:
    return isinstance(entry.get(key), str) and bool(entry[key].strip())


def find_pictures(survey: Survey, file: CocoJson) -> Pictures | None:
    """The folder below which most of a file's pictures are; None if there is none."""
    step = max(1, len(file.names) // LOOKED_AT)
    looked = [parts_of(name) for name in file.names[::step]]
    whole, last = Counter[str](), Counter[str]()
    for parts in looked:
        for folder in _folders_of(survey, parts[-1]) if parts else ():
            last[folder] += 1
            above = "/".join(parts[:-1])
            if not above:
                whole[folder] += 1
            elif f"/{folder}".endswith(f"/{above}"):
                whole[folder.removesuffix(above).rstrip("/")] += 1
    for votes, by_last_part in ((whole, False), (last, True)):
        if votes:
            folder = min(votes, key=lambda name: (-votes[name], _distance(name, file.path), name))
            if by_last_part and len({parts[-1] for parts in looked}) < len(looked):
                return None  # two pictures would be one
            return Pictures(folder, by_last_part, (len(looked) - votes[folder]) * step)
    return None


def _folders_of(survey: Survey, name: str) -> Sequence[str]:
    """Where pictures of a name are; Label Studio writes eight digits before the names of what was uploaded."""
    places = survey.places_of_pictures
    return places.get(name) or places.get(re.sub(r"^[0-9a-f]{8}-", "", name)) or ()


def parts_of(name: str) -> tuple[str, ...]:
    """Of a path as any system writes it."""
    return tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part != ".")


def _distance(folder: str, file: str) -> int:
    """How far a folder of pictures is from a JSON file; one of the file's split is nearer than all others."""
    above = file.rpartition("/")[0]
    if split_of(folder) not in (None, split_of(file)):
        return 1000
    shared = len([None for one, other in zip(folder.split("/"), above.split("/")) if one == other])
    is_same = split_of(folder) == split_of(file)
    return len(folder.split("/")) + len(above.split("/")) - 2 * shared - 500 * (is_same and split_of(file) is not None)


def _mask_folder(survey: Survey, file: CocoJson) -> str | None:
    """Where the PNGs of a panoptic file are: beside it or near it, in a folder that is called as it is."""
    stem = PurePosixPath(file.path).stem
    named = {PurePosixPath(name).with_suffix(".png").name for name in file.names[:50]}
    folders = [
        folder
        for folder, names in survey.with_ending(".png").items()
        if len(named.intersection(names)) * 2 > len(named)
    ]
    called = [folder for folder in folders if folder.rpartition("/")[2] == stem]
    masks = called or [folder for folder in folders if "panoptic" in folder.casefold()]
    return min(masks, key=lambda folder: _distance(folder, file.path), default=None)
