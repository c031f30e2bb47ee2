"""What the `datasets` library reads: parquet files, image folders with metadata, data sets on the Hub."""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..annotations.numbers import whole_number
from ..bad_samples import BadSample
from ..images import open_picture
from .candidates import Candidate, as_splits, classes_in_words, in_words, split_keys
from .mask_values import Classes, classes_of_look, look_at
from .names import ROLES, split_of, words_of
from .survey import Survey


if TYPE_CHECKING:
    import datasets

TITLE = "table of the datasets library"

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

MOST_ROWS = 200
"""That are looked at."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(source: str) -> bool:
    """Whether a text is called as data sets on the Hub are."""
    return _HUB_ID.fullmatch(source) is not None and not source.startswith((".", "/", "~"))


def recognize_tables(survey: Survey) -> list[Candidate]:
    """Parquet or arrow files, or the metadata of an image folder."""
    if not survey.paths(".parquet", ".arrow") and not any(map(_names_files, _metadata(survey))):
        return []
    return recognize_rows(str(survey.root))


def _metadata(survey: Survey) -> Iterator[Path]:
    yield from (survey.root / path for path in survey.named(*METADATA))


def _names_files(metadata: Path) -> bool:
    """Whether a file of this name is that of an image folder, and not a table of patients or of cars."""
    with metadata.open("rb") as file:
        return metadata.suffix == ".parquet" or b"file_name" in file.readline()


def recognize_rows(path: str) -> list[Candidate]:
    """What `datasets.load_dataset` reads at a path: rows with maps of classes, with objects, or with both."""
    # Not at the top: the library takes a second to import.
    from ..tables.row_splits import load_rows
    from ..tables.rows import is_picture

    dataset = load_rows(path, streaming=False)
    by_split: dict[str | None, str] = {split_of(name): name for name in dataset}
    splits = as_splits(by_split)
    counts: dict[str, int | None] = {split: len(dataset[name]) for split, name in splits.items()}
    words = in_words(counts)
    rows = dataset[splits["train"]]
    pictures = [name for name, feature in rows.features.items() if is_picture(feature)]
    images = [name for name in pictures if not _has_role(name, "masks")] or pictures
    if not images:
        return [
            Candidate("datasets", TITLE, words=words, missing=f"no column has pictures: {', '.join(rows.features)}")
        ]
    data = {"path": path, "format": "datasets", "image_column": images[0]} | split_keys(splits)
    data |= {f"{split}_split": name for split, name in splits.items()}
    found = [*_maps(rows, data, words, images[0], pictures), *_objects(rows, data, words)]
    missing = f"no column has objects with bbox and category, or maps of classes: {', '.join(rows.features)}"
    return found or [Candidate("datasets", TITLE, words=words, missing=missing)]


def _maps(
    rows: "datasets.Dataset", data: dict[str, Any], words: str, image: str, pictures: list[str]
) -> Iterator[Candidate]:
    from ..tables.rows import class_names

    others = [name for name in pictures if name != image]
    lists = [name for name, feature in rows.features.items() if _depth(feature) == 2 and _is_of_numbers(feature)]
    columns = sorted([*others, *lists], key=lambda name: not _has_role(name, "masks"))
    if not columns:
        return
    column, title = columns[0], f"{TITLE} with maps in {columns[0]!r}"
    fields = data | {"label_column": column}
    if known := class_names(rows.features[column]):
        classes = Classes(known, words=" of the column")
    else:
        classes = classes_of_look(look_at(_masks(rows, column, column in pictures)), None)
    yield classes.candidate("datasets", title, fields, words)


def _objects(rows: "datasets.Dataset", data: dict[str, Any], words: str) -> Iterator[Candidate]:
    from ..tables.rows import BOX_FIELDS, CATEGORY_FIELDS, class_names, object_features

    for column, feature in rows.features.items():
        fields = object_features(feature)
        box, category = (
            next((name for name in names if name in fields), None) for names in (BOX_FIELDS, CATEGORY_FIELDS)
        )
        if box is None or category is None:
            continue
        known = class_names(fields[category])
        labels = known or _categories(rows, column, category)
        title, said = f"{TITLE} with objects in {column!r}", "" if known else ", as its rows call them"
        if not labels:
            yield Candidate("datasets", title, words=words, missing="no row has an object")
            return
        fields = data | {"objects_column": column} | ({} if known else {"labels": labels})
        yield Candidate("datasets", title, ("object_detection",), fields, f"{words}, {classes_in_words(labels)}{said}")
        return


def _categories(rows: "datasets.Dataset", column: str, category: str) -> list[str]:
    """The names that rows themselves write; `class 1`, ... for numbers without names."""
    from ..tables.rows import as_list

    found = set[Any]()
    for objects in rows.select_columns([column])[:][column]:
        found.update(each.get(category) for each in as_list(objects, column))
    found.discard(None)
    try:
        return [f"class {number}" for number in range(max(map(whole_number, found), default=-1) + 1)]
    except ValueError:
        return sorted(map(str, found))


def _masks(rows: "datasets.Dataset", column: str, is_picture: bool) -> Iterator[Image.Image]:
    """Some of the maps."""
    import datasets

    chosen = rows.select_columns([column])
    chosen = chosen.cast_column(column, datasets.Image(decode=False)) if is_picture else chosen
    for index in range(0, len(chosen), max(1, -(-len(chosen) // MOST_ROWS))):
        value = chosen[index][column]
        if not is_picture:
            yield Image.fromarray(np.array(value, dtype=np.int32))
            continue
        try:
            yield open_picture(BytesIO(value["bytes"]) if value["bytes"] else Path(value["path"]), column)
        except (BadSample, TypeError):
            continue  # it is met again when its sample is read


def _has_role(name: str, role: str) -> bool:
    return not ROLES[role].isdisjoint(words_of(name))


def _depth(feature: Any) -> int:
    """Of lists in lists."""
    depth = 0
    while hasattr(feature, "feature") and not isinstance(feature, dict):
        feature, depth = feature.feature, depth + 1
    return depth


def _is_of_numbers(feature: Any) -> bool:
    while hasattr(feature, "feature"):
        feature = feature.feature
    return "int" in str(getattr(feature, "dtype", ""))
