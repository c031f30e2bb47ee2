"""Damaged data sets of the `datasets` library: rows in memory, files of parquet, folders of pictures with metadata."""

import io
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.loading import CheckedSplit, Data
from dense_prediction.data.tables.row_splits import RowSplit
from dense_prediction.data.tables.rows import ObjectsReader, SemanticReader
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.tasks import Task
from fuzz_checks import read_all, read_split
from fuzz_mutations import HOSTILE, changed_json, damaged, json_text
from fuzz_pictures import SIDE, picture


SEMANTIC, DETECTION = TASKS["semantic_segmentation"], TASKS["object_detection"]

OBJECTS = [
    {"bbox": [1.0, 1.0, 5.0, 5.5], "category": 0, "area": 20.5, "is_crowd": False},
    {"bbox": [0.0, 2.0, 8.0, 4.0], "category": 1, "area": None, "iscrowd": 1},
]


@cache
def png(side: int = SIDE) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.eye(side, dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def read_datasets(folder: Path, random: Random) -> bool:
    """Mostly in memory, as a data set that is opened from files takes a hundred times as long."""
    task = random.choice([SEMANTIC, DETECTION])
    way = random.choices([_in_memory, _parquet, _image_folder], [40, 1, 1])[0]
    return way(folder, task, random)


def _in_memory(folder: Path, task: Task, random: Random) -> bool:
    table = pyarrow.table(_columns(task, random))
    rows = datasets.Dataset(table, split=datasets.Split.TRAIN)
    options = DatasetsOptions(path=str(folder), labels=["cat", "dog"])
    if task is SEMANTIC:
        reader: Any = SemanticReader(options, rows.features, ("image", "label"))
    else:
        reader = ObjectsReader(options, rows.features, ("image", "objects"), random.choice(["xywh", "xyxy", "cxcywh"]))
    split = CheckedSplit(RowSplit(rows, reader), skip=random.random() < 0.5)
    return read_split(split, Data(split, split, None, reader.labels, reader.things), task) > 0


def _columns(task: Task, random: Random) -> dict[str, pyarrow.Array]:
    """Two rows, whose types are those that arrow sees in them."""
    cells = [_cell(random) for _ in range(2)]
    if task is SEMANTIC:
        labels = [random.choice([_cell(random), [[0, 1] * 4] * SIDE]) for _ in range(2)]
        labels = labels if type(labels[0]) is type(labels[1]) else [labels[0]] * 2
        columns = {"image": cells, "label": changed_json_of(labels, random)}
    else:
        objects: Any = [OBJECTS, OBJECTS[:1]]
        if random.random() < 0.3:
            objects = [{key: [one.get(key) for one in some] for key in OBJECTS[0]} for some in objects]
        columns = {"image": cells, "objects": changed_json_of(objects, random)}
    if random.random() < 0.05:
        columns.pop(random.choice(list(columns)))
    return {name: as_array(values) for name, values in columns.items()}


def changed_json_of(values: list[Any], random: Random) -> list[Any]:
    if any(isinstance(value, dict) and "bytes" in value for value in values):
        return values
    return changed_json(values, random, random.choice([0, 1, 1, 2]))[:2] or [None]


def as_array(values: list[Any]) -> pyarrow.Array:
    """Two values of a column; as text where they have no type in common."""
    values = (values + [None, None])[:2]
    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowException, OverflowError, UnicodeError, ValueError):
        return pyarrow.array([ascii(value) for value in values])


def _cell(random: Random) -> dict[str, Any] | None:
    match random.randrange(10):
        case 0:
            return {"bytes": picture(random), "path": None}
        case 1:
            return {"bytes": damaged(png(), random), "path": "a.png"}
        case 2:
            paths = [path for path in HOSTILE if isinstance(path, str) and "\ud800" not in path]
            return {"bytes": None, "path": random.choice(paths)}
        case 3:
            return {"bytes": b"", "path": None}
        case _:
            return {"bytes": png(), "path": None}


def _parquet(folder: Path, task: Task, random: Random) -> bool:
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(_columns(task, random)), data)
    for split in ("train", "validation"):
        content = damaged(data.getvalue(), random, png()) if random.random() < 0.4 else data.getvalue()
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / f"{split}-00000-of-00001.parquet").write_bytes(content)
    return _open(folder, task, random)


def _image_folder(folder: Path, task: Task, random: Random) -> bool:
    for split in ("train", "validation"):
        (folder / split).mkdir()
        for name in ("a.png", "b.png"):
            (folder / split / name).write_bytes(picture(random) if random.random() < 0.2 else png())
        rows = [{"file_name": name, "objects": OBJECTS} for name in ("a.png", "b.png")]
        rows = changed_json(rows, random, random.choice([0, 1, 2]))
        text = "\n".join(json.dumps(row) for row in rows).encode()
        (folder / split / "metadata.jsonl").write_bytes(json_text(rows, random) if random.random() < 0.2 else text)
    return _open(folder, task, random)


def _open(folder: Path, task: Task, random: Random) -> bool:
    # Of this child process alone.
    datasets.disable_progress_bars()
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    options = DatasetsOptions(
        path=str(folder),
        labels=["cat", "dog"],
        streaming=random.random() < 0.3,
        shuffle_buffer=2,
        bad_samples=random.choice(["skip", "refuse"]),
    )
    return read_all(options, task)
