"""Pascal VOC's folders, and XML files beside pictures or in a folder near them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ..bad_samples import BadSample
from ..formats.voc import categories_in
from ..formats.voc_files import BOXES, IMAGES, LISTS, MASKS, parse_xml, read_stems
from .candidates import Candidate, as_splits, classes_in_words, in_words, split_keys
from .class_files import find_class_file
from .mask_values import Classes, classes_of
from .names import split_of
from .pairing import pairs_of
from .survey import Survey, join


TITLE = "Pascal VOC"

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Of the masks of VOC2007 to VOC2012, whose folders do not say them."""

MOST_LOOKED_AT = 20
"""XML files, to see whether they are such."""


def recognize_voc(survey: Survey) -> list[Candidate]:
    """Boxes of XML files, and masks of VOC's own folders."""
    found = [candidate for root in _roots(survey) for candidate in _of_tree(survey, root)]
    if not any("object_detection" in candidate.tasks for candidate in found):
        found += _of_xml(survey)
    return found


def _roots(survey: Survey) -> list[str]:
    """Folders that hold VOC's folders, those with lists of their splits first."""
    parts = [folder.rpartition("/") for folder in survey.folders]
    roots = {above for above, _, name in parts if name in (BOXES, MASKS)}
    return sorted(roots, key=lambda root: (not _lists(survey, root, "Main"), root))


def _lists(survey: Survey, root: str, kind: str) -> dict[str, str]:
    """The name of the list of each split: VOC's own, or what is called so; `trainval` where nothing else is learnt."""
    names = survey.folders.get(join(root, f"{LISTS}/{kind}"), [])
    stems = [PurePosixPath(name).stem for name in names if name.endswith(".txt")]
    usual = {"train": ("train", "trainval"), "validation": ("val", "valid", "validation"), "test": ("test",)}
    found: dict[str | None, str] = {
        split: name for split, known in usual.items() for name in known[::-1] if name in stems
    }
    if found.get("train") == "train" and "validation" not in found and "trainval" in stems:
        found["train"] = "trainval"
    others: dict[str | None, str] = {split_of(name): name for name in stems if len(stems) == 1}
    return as_splits(found or others)


def _of_tree(survey: Survey, root: str) -> list[Candidate]:
    found = []
    if join(root, BOXES) in survey.folders and (lists := _lists(survey, root, "Main")):
        found.append(_boxes_of_lists(survey, root, lists))
    if join(root, MASKS) in survey.folders and (lists := _lists(survey, root, "Segmentation")):
        found.append(_masks_of_lists(survey, root, lists))
    return found


def _boxes_of_lists(survey: Survey, root: str, lists: Mapping[str, str]) -> Candidate:
    folder = survey.root / root
    stems = {split: read_stems(folder / LISTS / "Main" / f"{name}.txt", folder) for split, name in lists.items()}
    counts: dict[str, int | None] = {split: len(names) for split, names in stems.items()}
    names = _categories(survey, _that_are_there(survey, join(root, BOXES), stems, ".xml"))
    data = {"path": str(folder), "format": "voc", "labels": names} | _list_keys(lists)
    return _boxes(data, f"{join(root, LISTS)}/Main, {in_words(counts)}", names)


def _that_are_there(survey: Survey, folder: str, stems: Mapping[str, Iterable[str]], ending: str) -> list[str]:
    """The files that lists name, as far as the folder holds them: a list may name what no file can be called."""
    known = set(survey.folders[folder])
    return [join(folder, name) for each in stems.values() for stem in each if (name := f"{stem}{ending}") in known]


def _list_keys(lists: Mapping[str, str]) -> dict[str, Any]:
    return split_keys(lists) | {f"{split}_split": name for split, name in lists.items()}


def _masks_of_lists(survey: Survey, root: str, lists: Mapping[str, str]) -> Candidate:
    folder = survey.root / root
    stems = {
        split: read_stems(folder / LISTS / "Segmentation" / f"{name}.txt", folder) for split, name in lists.items()
    }
    counts: dict[str, int | None] = {split: len(names) for split, names in stems.items()}
    if not any((folder / IMAGES).is_dir() for _ in lists):
        missing = f"there is no folder {join(root, IMAGES)} of the pictures: export them with the masks"
        return Candidate("voc", f"{TITLE} masks", words=in_words(counts), missing=missing)
    if folder.name.startswith("VOC20") and find_class_file(survey) is None:
        classes = Classes(list(VOC_CLASSES), words=", which VOC has")
    else:
        paths = _that_are_there(survey, join(root, MASKS), stems, ".png")
        classes = classes_of(survey, [survey.root / path for path in paths])
    return classes.candidate("voc", f"{TITLE} masks", {"path": str(folder)} | _list_keys(lists), in_words(counts))


def _of_xml(survey: Survey) -> list[Candidate]:
    """XML files in any folders."""
    files = survey.with_ending(".xml")
    if not files or not _are_annotations(survey, files):
        return []
    pairs = pairs_of(survey.pictures, files, by_stems=True)
    count = sum(map(len, files.values()))
    if not pairs:
        missing = "no picture has the name of one: put the pictures beside them, or into images/"
        return [Candidate("voc", TITLE, words=f"{count:,} XML files", missing=missing)]
    matched = [other for pair in pairs.values() for _, other in pair.files()]
    names = _categories(survey, matched)
    counts: dict[str, int | None] = {split: len(pair.matched) for split, pair in pairs.items()}
    data: dict[str, Any] = {"path": str(survey.root), "format": "voc", "labels": names} | split_keys(pairs)
    data["images"] = {split: pair.images.path or "." for split, pair in pairs.items()}
    data["annotations"] = {split: pair.others.path or "." for split, pair in pairs.items()}
    others = survey.num_pictures - len(matched)
    words = f"XML files, {in_words(counts)}" + (f", {others:,} other pictures are left out" if others else "")
    return [_boxes(data, words, names)]


def _boxes(data: dict[str, Any], words: str, names: list[str]) -> Candidate:
    if not names:
        return Candidate("voc", TITLE, words=words, missing="no XML file holds an object")
    return Candidate("voc", TITLE, ("object_detection",), data, f"{words}, {classes_in_words(names)}")


def _are_annotations(survey: Survey, files: Mapping[str, list[str]]) -> bool:
    """Whether XML files are of VOC's kind: other tools and programs write XML too."""
    paths = [join(folder, name) for folder, names in files.items() for name in names]
    looked = paths[:: max(1, len(paths) // MOST_LOOKED_AT)]
    return sum(_is_annotation(survey, path) for path in looked) * 2 > len(looked)


def _is_annotation(survey: Survey, path: str) -> bool:
    try:
        root = parse_xml(survey.root / path)
    except BadSample:
        return False
    return root.tag == "annotation" and root.find("object/polygon") is None


def _categories(survey: Survey, paths: Iterable[str]) -> list[str]:
    """The names of the objects in XML files, in the order of the alphabet."""
    found = Counter[str]()
    for path in paths:
        try:
            found.update(categories_in(parse_xml(survey.root / path)))
        except BadSample:
            continue  # it is met again when its sample is read
    return sorted(name for name in found if name)
