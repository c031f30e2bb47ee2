"""What the names of folders and files say: of which split something is, and whether it is pictures or masks."""

import re
from functools import lru_cache


SPLITS = {
    "train": {"train", "training", "trn", "tr", "trainval"},
    "validation": {"val", "valid", "validation", "validate", "dev", "eval"},
    "test": {"test", "testing", "tst", "ts"},
}
"""How people call the splits."""

ROLES = {
    "images": {
        "image",
        "images",
        "img",
        "imgs",
        "picture",
        "pictures",
        "photo",
        "photos",
        "jpegimages",
        "pngimages",
        "rgb",
        "input",
    }
    | {"inputs", "raw", "original", "originals", "originalimages", "frames", "im", "imagery"},
    "masks": {"mask", "masks", "label", "labels", "gt", "groundtruth", "truth", "annotation", "annotations", "annot"}
    | {"annots", "anno", "annos", "ann", "target", "targets", "seg", "segs", "segmentation", "segmentations", "segm"}
    | {"lab", "labs", "lbl", "lbls", "labeled", "labelled", "semantic", "semantics"}
    | {"segmentationclass", "labelids", "trainids", "xml", "xmls", "manual", "trimaps", "outputs", "output"},
}
"""How they call pictures, and what is said of them."""

PLAIN = {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "jpegimages", "pngimages"}
"""Those that say that pictures are there, also in a data set that is called after its masks: Kvasir-SEG/images."""

GLUED_TO_SPLITS = {"crop", "crops", "data", "dataset", "set"} | {word for words in ROLES.values() for word in words}
"""What stands after the name of a split without anything between: traincrop, trainannot."""

GLUED_TO_NAMES = ("annot", "masks", "labels", "groundtruth")
"""What stands after any name: defaultannot."""

WORDS = {word for words in (*SPLITS.values(), *ROLES.values()) for word in words}


@lru_cache(maxsize=100_000)
def words_of(name: str) -> tuple[str, ...]:
    """The words in a name: `trainMasks_2017` -> train, masks.

    >>> words_of("stage1_train"), words_of("trainannot"), words_of("ground_truth")
    (('stage', 'train'), ('train', 'annot'), ('groundtruth',))
    """
    name = re.sub(r"ground[_\- ]*truth", "groundtruth", name, flags=re.IGNORECASE)
    parts = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    return tuple(word for part in parts for word in _unglued(part))


def split_of(path: str) -> str | None:
    """Of which split something is, as the last part of its path says that says one.

    >>> split_of("annotations/instances_val2017"), split_of("images/a")
    ('validation', None)
    """
    for part in reversed(path.split("/")):
        found = {split for split, known in SPLITS.items() if not known.isdisjoint(words_of(part))}
        if len(found) == 1:
            return found.pop()
    return None


def role_of(path: str) -> str | None:
    """Whether a path says that pictures or masks are there; masks where it says both in one part, or pictures above.

    >>> role_of("train/images"), role_of("label_images"), role_of("train"), role_of("Kvasir-SEG/images")
    ('images', 'masks', None, 'images')
    """
    parts = [set(words_of(part)) for part in reversed(path.split("/"))]
    for words in parts:
        if not ROLES["masks"].isdisjoint(words):
            return "masks"
        if not PLAIN.isdisjoint(words):
            return "images"
    return next(("images" for words in parts if not ROLES["images"].isdisjoint(words)), None)


def subject_of(path: str) -> tuple[str, ...]:
    """The other words of a path, which pictures and their masks have in common."""
    return tuple(word for part in path.split("/") for word in words_of(part) if word not in WORDS)


def place_of(folder: str) -> str:
    """The part of a folder's path up to the last that says something: `leftImg8bit/train/aachen` -> without aachen."""
    parts = folder.split("/")
    said = [place for place, part in enumerate(parts) if not WORDS.isdisjoint(words_of(part))]
    return "/".join(parts[: said[-1] + 1]) if said else ""


def _unglued(word: str) -> tuple[str, ...]:
    """`trainannot` and `defaultannot` as two words."""
    if word in WORDS:
        return (word,)
    for split in sorted((name for known in SPLITS.values() for name in known), key=len, reverse=True):
        rest = word.removeprefix(split)
        if rest != word and len(split) > 2 and rest in GLUED_TO_SPLITS:
            return split, rest
    glued = next((role for role in GLUED_TO_NAMES if word.endswith(role)), None)
    return (word,) if glued is None else (word.removesuffix(glued), glued)
