"""Images and masks in folders: maps of classes, and masks that tell objects apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..formats.voc_files import LISTS
from ..images import DAMAGED
from .candidates import OUTLINED, Candidate, as_splits, classes_in_words, in_words, split_keys
from .class_files import ClassFile, find_class_file
from .mask_values import NOT_NAMED, Classes, Look, are_lossy, classes_of_look, look_at, read_some
from .names import role_of, split_of, words_of
from .pairing import Names, Pair, is_mask_name, pairs_of
from .survey import Survey, join


OBJECT = "object"
"""What the one class of masks is called that tell objects apart and name none."""

ONE_CLASS = f"1 class ({OBJECT}){NOT_NAMED}"

NUMBERED = "instance masks, a number for each object"

INSTANCE_TASKS = ("instance_segmentation", "object_detection")

OBJECTS, CLASSES_OF_VOC = "SegmentationObject", "SegmentationClass"

VOC_BORDERS = [255, 224 * 65536 + 224 * 256 + 192]
"""Round objects: the number in files with a palette, and the colour of others."""

CLASSES = {"class", "semantic", "ids"}
"""What folders and files of masks are called that hold numbers of classes."""

CITYSCAPES = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road"),
    *("sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole"),
    *("polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck"),
    *("bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
"""https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/helpers/labels.py"""

STREET = {CITYSCAPES.index(name) for name in ("vegetation", "sky", "person", "car")}
"""Ids of which one is in nearly all of its pictures, and that tools which copy its folders give to few classes."""

MOST_COMPARED = 5
"""Pictures whose sizes are compared with those of their masks."""

LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".gif")
"""How the names of files end that may be masks where no word says so."""

PER_OBJECT = 1.2
"""Masks of a picture, for folders of masks to be files of single objects."""


def recognize_masks(survey: Survey) -> list[Candidate]:
    """Masks of classes, of numbered objects or of single objects."""
    if (single := _single_objects(survey)) is not None:
        return [single]
    objects, pairs = _objects_of_voc(survey), _pairs(survey)
    if not pairs:
        return objects or _unmatched(survey)
    if wrong := _of_another_size(survey, pairs):
        return [Candidate("folders", "images and masks", words=_in_words(survey, pairs), missing=wrong)]
    paths = [survey.root / mask for pair in pairs.values() for _, mask in pair.files()]
    look = look_at(read_some(paths), are_lossy(paths))
    file = find_class_file(survey) or _of_cityscapes(pairs, look)
    classes = classes_of_look(look, file)
    if not classes.missing and _are_called_classes(pairs) or classes.are_named:
        look = replace(look, varied=False, most=0)  # which tells no objects apart
    return [_classes(survey, pairs, look, classes), *(objects or [_numbers(survey, pairs, look)])]


def _objects_of_voc(survey: Survey) -> list[Candidate]:
    """Numbers of objects in the folder that VOC, CVAT and labelme have beside the one of classes."""
    masks = {folder: names for folder, names in survey.pictures.items() if folder.rpartition("/")[2] == OBJECTS}
    images = {folder: names for folder, names in survey.pictures.items() if role_of(folder) == "images"}
    pairs = pairs_of(images, masks) if masks and images else {}
    if not pairs:
        return []
    data = _of_objects(survey, pairs) | {"void_numbers": VOC_BORDERS}
    words, file = f"{OBJECTS}, {_in_words(survey, pairs)}", find_class_file(survey)
    classes = {split: pair.others.path.replace(OBJECTS, CLASSES_OF_VOC) for split, pair in pairs.items()}
    if file is None or not all(folder in survey.pictures for folder in classes.values()):
        return [Candidate("instance_masks", NUMBERED, INSTANCE_TASKS, data, f"{words}, {ONE_CLASS}")]
    things = [name for name in file.names if name not in ("background", "border")]
    data |= {"labels": things, "classes": classes}
    if file.colours:
        found: dict[Any, list[int]] = {name: list(colour) for name, colour in zip(file.names, file.colours)}
        data["palette"] = {name: found[name] for name in things} | {0: [0, 0, 0], 255: [224, 224, 192]}
    words = f"{words}, {classes_in_words(things)} of {file.path}"
    return [Candidate("instance_masks", NUMBERED, INSTANCE_TASKS, data, words)]


def _of_objects(survey: Survey, pairs: Mapping[str, Pair]) -> dict[str, Any]:
    return {"format": "instance_masks", "labels": [OBJECT]} | _data(survey, pairs)


def _of_cityscapes(pairs: Mapping[str, Pair], look: Look) -> ClassFile | None:
    """The names that Cityscapes gives to its ids, which no file in it says."""
    is_called = all(pair.suffix.endswith("_gtFine_labelIds.png") for pair in pairs.values())
    is_known = look.ids <= {*range(len(CITYSCAPES)), 255} and not look.ids.isdisjoint(STREET)
    return ClassFile("Cityscapes", list(CITYSCAPES)) if is_called and is_known else None


def _are_called_classes(pairs: Mapping[str, Pair]) -> bool:
    """Whether names say that masks hold the numbers of classes: `SegmentationClass`, `_gtFine_labelIds.png`."""
    names = (f"{pair.others.path}/{pair.suffix}" for pair in pairs.values())
    words = [set(words_of(part)) for name in names for part in name.split("/")]
    return any(CLASSES & each and "instance" not in each for each in words)


def _unmatched(survey: Survey) -> list[Candidate]:
    """Folders of masks whose names lead to no picture."""
    masks = [folder for folder in survey.pictures if role_of(folder) == "masks" and not _is_of_voc(survey, folder)]
    others = [folder for folder in survey.pictures if folder not in masks and not _is_of_voc(survey, folder)]
    images = [folder for folder in others if role_of(folder) == "images"] or others
    if not masks or not images:
        return []
    one, other = (join(folder, survey.pictures[folder][0]) for folder in (images[0], masks[0]))
    missing = f"their names do not belong together, such as {one} and {other}: call them alike"
    return [Candidate("folders", "images and masks", missing=missing)]


def _of_another_size(survey: Survey, pairs: Mapping[str, Pair]) -> str:
    """What is wrong where no mask that is looked at is as large as its picture, which may have been turned."""
    wrong = ""
    for image, mask in next(iter(pairs.values())).files()[:MOST_COMPARED]:
        one, other = (_size_of(survey.root / path) for path in (image, mask))
        if one is None or other is None or one in (other, other[::-1]):
            return ""
        wrong = wrong or f"its masks are not as large as the pictures: {mask} has {other} pixels, {image} has {one}"
    return wrong


def _size_of(path: Path) -> tuple[int, int] | None:
    """Width and height, from the beginning of a file."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except DAMAGED:
        return None


def _classes(survey: Survey, pairs: Mapping[str, Pair], look: Look, classes: Classes) -> Candidate:
    title, words = "images and masks", _in_words(survey, pairs)
    if look.are_objects and not classes.are_named:
        return Candidate("folders", title, words=words, missing="its masks tell objects apart, and no classes")
    return classes.candidate("folders", title, _data(survey, pairs), words)


def _numbers(survey: Survey, pairs: Mapping[str, Pair], look: Look) -> Candidate:
    words = _in_words(survey, pairs)
    if not look.may_be_objects:
        missing = "its masks tell classes apart, and no objects: each would need a number of its own"
        return Candidate("instance_masks", NUMBERED, words=words, missing=missing)
    data = _of_objects(survey, pairs)
    return Candidate("instance_masks", NUMBERED, INSTANCE_TASKS, data, f"{words}, {ONE_CLASS}")


def _in_words(survey: Survey, pairs: Mapping[str, Pair]) -> str:
    counts: dict[str, int | None] = {split: len(pair.matched) for split, pair in pairs.items()}
    alone = sum(len(pair.images.files) - len(pair.matched) for pair in pairs.values())
    masks = {mask for pair in pairs.values() for _, mask in pair.files()}
    others = survey.num_pictures - sum(len(pair.images.files) for pair in pairs.values()) - len(masks)
    words = in_words(counts) + (f", {alone:,} more have no mask" if alone else "")
    return words + (f", {others:,} other pictures are left out" if others > 0 else "")


def _data(survey: Survey, pairs: Mapping[str, Pair]) -> dict[str, Any]:
    image_stem, suffix = next(iter(pairs.values())).pattern
    data: dict[str, Any] = {
        "path": str(survey.root),
        "images": {split: pair.images.path or "." for split, pair in pairs.items()},
        "masks": {split: pair.others.path or "." for split, pair in pairs.items()},
        "mask_suffix": suffix,
    }
    return data | ({} if image_stem == "*" else {"image_stem": image_stem}) | split_keys(pairs)


def _pairs(survey: Survey) -> dict[str, Pair]:
    """Masks in folders of their own, else beside their pictures."""
    pictures = {folder: names for folder, names in survey.pictures.items() if not _is_of_voc(survey, folder)}
    masks = {folder: names for folder, names in pictures.items() if role_of(folder) == "masks"}
    images = {folder: names for folder, names in pictures.items() if folder not in masks}
    pairs = pairs_of(images, masks) if masks and images else {}
    return pairs or _beside(pictures)


def _is_of_voc(survey: Survey, folder: str) -> bool:
    """Whether lists of VOC's say which masks of a folder are of which split."""
    above, _, name = folder.rpartition("/")
    return name.startswith("Segmentation") and join(above, f"{LISTS}/Segmentation") in survey.folders


def _beside(pictures: Names) -> dict[str, Pair]:
    """`a.jpg` and `a_mask.png`, or `a.jpg` and `a.png`."""
    called = {folder: [name for name in names if is_mask_name(name)] for folder, names in pictures.items()}
    for find in (_of_second_ending, _of_one_suffix):
        if not any(called.values()):
            called = {folder: find(names) for folder, names in pictures.items()}
    masks = {folder: names for folder, names in called.items() if names}
    images = {
        folder: [name for name in names if name not in set(called[folder])]
        for folder, names in pictures.items()
        if folder in masks
    }
    return pairs_of({folder: names for folder, names in images.items() if names}, masks)


def _of_second_ending(names: Sequence[str]) -> list[str]:
    """The PNGs or TIFFs of a folder in which each JPEG has one."""
    stems = Counter(name.rpartition(".")[0] for name in names)
    lossless = [name for name in names if name.casefold().endswith(LOSSLESS)]
    return lossless if names and set(stems.values()) == {2} and len(lossless) * 2 == len(names) else []


def _of_one_suffix(names: Sequence[str]) -> list[str]:
    """What is called as most pictures with the same after it, the first of several: `a_1stHO.png` beside `a.jpg`."""
    stems = {_stem(name) for name in names}
    parts = [(name, *_stem(name).rpartition("_")[::2]) for name in names if name.casefold().endswith(LOSSLESS)]
    after = Counter(last for _, first, last in parts if first in stems)
    most = max(after.values(), default=0)
    suffix = min((last for last, count in after.items() if count == most), default="")
    found = [name for name, first, last in parts if first in stems and last == suffix]
    return found if len(found) * (len(after) + 2) > len(names) else []


def _single_objects(survey: Survey) -> Candidate | None:
    """A file for each object: `ID/images/ID.png` with `ID/masks/*.png`, or `images/a.png` with `masks/a/*.png`."""
    by_split: dict[str | None, dict[str, int]] = {}
    places: dict[str | None, tuple[str, str]] = {}
    for folder, names in survey.pictures.items():
        above, _, last = folder.rpartition("/")
        if last == "images" and above and _is_of_one(names, survey.pictures.get(join(above, "masks"), [])):
            place = above.rpartition("/")[0]
            found = {join(folder, name): len(survey.pictures[join(above, "masks")]) for name in names}
            split = split_of(place)
            by_split.setdefault(split, {}).update(found)
            places[split] = (place, place)
        elif (masks := _folders_of_masks(survey, folder, names)) is not None:
            split = split_of(folder) or split_of(masks)
            by_split[split] = {name: len(survey.pictures.get(join(masks, _stem(name)), [])) for name in names}
            places[split] = (folder, masks)
    splits = as_splits(by_split)
    pictures, objects = sum(map(len, splits.values())), sum(sum(found.values()) for found in splits.values())
    if not splits or objects < PER_OBJECT * pictures:
        return None
    of_split = as_splits(places)
    data = {
        "path": str(survey.root),
        "format": "instance_masks",
        "objects": "files",
        "labels": [OBJECT],
        "images": {split: images or "." for split, (images, _) in of_split.items()},
        "masks": {split: masks or "." for split, (_, masks) in of_split.items()},
    }
    counts: dict[str, int | None] = {split: len(found) for split, found in splits.items()}
    words = f"{in_words(counts)}, {objects:,} masks, {ONE_CLASS}"
    title = "instance masks, a file for each object"
    return Candidate("instance_masks", title, OUTLINED, data | split_keys(splits), words)


def _is_of_one(names: list[str], masks: list[str]) -> bool:
    """Whether a folder holds one picture, and another the masks of its objects, none of which is called as it is."""
    return len(names) == 1 and bool(masks) and _stem(names[0]) not in map(_stem, masks)


def _folders_of_masks(survey: Survey, folder: str, names: list[str]) -> str | None:
    """The folder that has a folder of masks for most pictures of a folder."""
    first = _stem(names[0])
    for other in survey.pictures:
        above, _, last = other.rpartition("/")
        if last == first and above != folder and role_of(above) == "masks":
            found = [name for name in names if join(above, _stem(name)) in survey.pictures]
            if len(found) * 2 > len(names):
                return above
    return None


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
