"""YOLO's data sets: a YAML file, or text files beside pictures and a list of names."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import UserError
from ..annotations.text_files import read_lines, read_text
from ..bad_samples import BadSample
from ..formats.yolo import BOX, DESCRIPTIONS, IMAGES, LABELS, SPLITS, Description, YoloObject, label_file
from .candidates import OUTLINED, Candidate, as_splits, classes_in_words, in_words, split_keys
from .names import place_of, split_of
from .survey import Survey, join


NAMES = (
    "classes.txt",
    "obj.names",
    "_darknet.labels",
    "labels.txt",
    "names.txt",
    "predefined_classes.txt",
    "coco.names",
)
"""How the tools call a list of class names, one a line."""

LOOKED_AT = 50
"""Text files from all over a split."""

TITLE = "YOLO"


def recognize_yolo(survey: Survey) -> list[Candidate]:
    """By a YAML file with names, else by the text files."""
    for path in survey.paths(".yaml", ".yml"):
        if any(split in _content(survey.root / path) for split in SPLITS) or path in DESCRIPTIONS:
            return [_described(survey, path)]
    candidate = _undescribed(survey)
    return [candidate] if candidate is not None else []


def _content(file: Path) -> dict[str, Any]:
    """What a YAML file with names says; nothing of others."""
    try:
        content = yaml.load(read_text(file), yaml.BaseLoader)
    except (UserError, yaml.YAMLError, ValueError, RecursionError, OSError):
        return {}
    return content if isinstance(content, dict) and "names" in content else {}


def _described(survey: Survey, path: str) -> Candidate:
    file = survey.root / path
    try:
        description = Description.read(file)
        pictures = {split: _pictures(description, split) for split in description.places}
    except UserError as error:
        return Candidate("yolo", TITLE, words=path, missing=str(error))
    known = {"val": "validation", "valid": "validation"}
    named: dict[str | None, str] = {known.get(split, split): split for split in pictures if pictures[split]}
    splits = as_splits(named)
    if not splits:
        return Candidate(
            "yolo", TITLE, words=path, missing="none of its splits has pictures, or none is to learn from"
        )
    if "kpt_shape" in read_text(file):
        return Candidate("yolo", "YOLO poses", words=path, missing="there is no task of key points")
    keys = split_keys(splits) | {f"{split}_split": name for split, name in splits.items()}
    data = {"path": str(file), "format": "yolo"} | keys
    counts: dict[str, int | None] = {split: len(pictures[name]) for split, name in splits.items()}
    return _candidate(path, data, counts, list(description.names.values()), pictures[splits["train"]])


def _pictures(description: Description, split: str) -> list[Path]:
    """Those of a split; none of one that is named and is not there, as tools leave out what was not exported."""
    try:
        return description.images(split, f"{split}_split")
    except UserError:
        if split == "train":
            raise
        return []


def _undescribed(survey: Survey) -> Candidate | None:
    """Pictures with text files beside them or in labels/, and a list of names anywhere."""
    labelled: dict[str | None, list[str]] = {}
    texts = {join(folder, name) for folder, files in survey.with_ending(".txt").items() for name in files}
    for folder, names in survey.pictures.items() if texts else ():
        if any(join(place, text) in texts for place in _places_of_texts(folder) for text in map(_text_of, names)):
            labelled.setdefault(split_of(folder), []).append(folder)
    if not labelled:
        return _elsewhere(survey)
    every = {folder for folders in labelled.values() for folder in folders}
    splits = as_splits({split: _common(folders, every.difference(folders)) for split, folders in labelled.items()})
    pictures = {split: _below(survey, folder) for split, folder in splits.items()}
    if not _are_objects([path for paths in pictures.values() for path in paths]):
        return None
    counts: dict[str, int | None] = {split: len(paths) for split, paths in pictures.items()}
    lists = survey.named(*NAMES)
    if not lists:
        missing = "nothing names the classes: add classes.txt with a name a line, or a data.yaml with names"
        return Candidate("yolo", TITLE, words=in_words(counts), missing=missing)
    labels = read_lines(survey.root / lists[0])
    others = survey.num_pictures - sum(map(len, pictures.values()))
    places = {split: folder or "." for split, folder in splits.items()}
    data = {"path": str(survey.root), "format": "yolo", "images": places, "labels": labels} | split_keys(splits)
    file = f"{lists[0]}, {others:,} other pictures are left out" if others else lists[0]
    return _candidate(file, data, counts, labels, pictures["train"])


def _elsewhere(survey: Survey) -> Candidate | None:
    """Text files of objects that lie where no picture is looked for."""
    stems = {_stem(name) for names in survey.pictures.values() for name in names}
    found = [path for path in survey.paths(".txt") if _stem(path.rpartition("/")[2]) in stems]
    if not found or not all(_lines(survey.root / path) and _is_readable(survey.root / path) for path in found[:5]):
        return None
    missing = f"{found[0]} is neither beside its picture nor in labels/ where that is in images/: put them so"
    return Candidate("yolo", TITLE, words=f"{len(found):,} text files", missing=missing)


def _candidate(
    file: str, data: dict[str, Any], counts: Mapping[str, int | None], names: list[str], pictures: Sequence[Path]
) -> Candidate:
    boxes, polygons = _count_shapes(pictures)
    tasks = ("object_detection",) if boxes > polygons else OUTLINED
    shapes = "polygons" if polygons > boxes else "boxes"
    words = f"{file}, {in_words(counts)}, {shapes} of {classes_in_words(names)}"
    if 0 < boxes <= polygons:
        data["boxes_as_outlines"], words = True, f"{words}; some have a box alone, which is taken for their outline"
    return Candidate("yolo", TITLE, tasks, data, words)


def _places_of_texts(folder: str) -> list[str]:
    """As `label_file` looks for them."""
    before, images, after = f"/{folder}/".rpartition(f"/{IMAGES}/")
    return [folder, f"{before}/{LABELS}/{after}".strip("/")] if images else [folder]


def _text_of(picture: str) -> str:
    return f"{_stem(picture)}.txt"


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _common(folders: list[str], others: Iterable[str]) -> str:
    """The folder of a split's pictures, in which those of no other split are."""
    common = os.path.commonpath(folders)
    is_shared = any(not common or folder == common or folder.startswith(f"{common}/") for folder in others)
    return place_of(folders[0]) if is_shared else common


def _below(survey: Survey, folder: str) -> list[Path]:
    start = f"{folder}/" if folder else ""
    return [
        survey.root / join(place, name)
        for place, names in survey.pictures.items()
        if place == folder or place.startswith(start)
        for name in names
    ]


def _are_objects(pictures: Sequence[Path]) -> bool:
    """Whether the text files hold objects, and are no texts about the pictures."""
    files = [file for picture in pictures if os.path.isfile(file := label_file(picture))][:LOOKED_AT]
    return any(_lines(file) for file in files) and all(_is_readable(file) for file in files[:5])


def _is_readable(file: Path) -> bool:
    try:
        for line in _lines(file):
            YoloObject.parse(line, line)
    except BadSample:
        return False
    return True


def _lines(file: Path) -> list[str]:
    try:
        return read_lines(file)
    except UserError:
        return []


def _count_shapes(pictures: Sequence[Path]) -> tuple[int, int]:
    """Boxes and polygons in some of the text files."""
    files = [label_file(picture) for picture in pictures[:: max(1, len(pictures) // LOOKED_AT)]]
    lengths = [len(line.split()) - 1 for file in files if os.path.isfile(file) for line in _lines(file)]
    return sum(length == BOX for length in lengths), sum(length > BOX for length in lengths)
