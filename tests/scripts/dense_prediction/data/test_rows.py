"""Rows of the `datasets` library as strangers' data sets have them, and what is wrong in them."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from dense_prediction.data.bad_samples import BadSample
from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.loading import load_data
from dense_prediction.data.tables.rows import decode_picture
from dense_prediction.errors import UserError
from test_data import CAT, DETECTION, IDS, IMAGE, OBJECT, SEMANTIC, labelled, png, rows_of, with_objects, write_parquet


INT = datasets.Value("int64")


def renamed(fields: dict[str, Any], box: str, category: str) -> dict[str, Any]:
    rest = {key: value for key, value in fields.items() if key not in ("bbox", "category")}
    return rest | {box: fields["bbox"], category: fields["category"]}


@pytest.mark.parametrize("box", ["bbox", "bboxes", "box", "boxes"])
@pytest.mark.parametrize("category", ["category", "categories", "label", "labels"])
def test_other_names_of_the_fields(box: str, category: str) -> None:
    feature = datasets.List(renamed(OBJECT, box, category))
    rows = rows_of("objects", feature, png(IMAGE), [renamed(CAT, box, category)])
    split = with_objects(rows)
    assert split.reader.labels == ["cat", "dog"]
    assert split[0]["labels"].tolist() == [0]
    assert split[0]["boxes"].tolist() == [[1, 1, 3, 3]]


def test_the_usual_name_comes_first() -> None:
    rows = rows_of("objects", datasets.List(OBJECT | {"label": INT}), png(IMAGE), [CAT | {"label": 1}])
    assert with_objects(rows)[0]["labels"].tolist() == [0]


def test_fields_of_no_known_name() -> None:
    rows = rows_of("objects", datasets.List(renamed(OBJECT, "rectangle", "kind")), png(IMAGE), [])
    with pytest.raises(UserError, match="has no bbox and no category, it has area, is_crowd, rectangle, kind"):
        with_objects(rows)


@pytest.mark.parametrize(
    ("kind", "category", "label"),
    [
        ("float64", 1.0, 1),
        ("int64", 1, 1),
        ("float64", 0.5, None),
        ("bool", True, None),
        ("string", "1", 1),
        ("string", "", None),
    ],
)
def test_categories_as_numbers(kind: str, category: Any, label: int | None) -> None:
    """Of a column that has once had gaps they are floats; some tools write them as text."""
    feature = datasets.List(OBJECT | {"category": datasets.Value(kind)})
    rows = rows_of("objects", feature, png(IMAGE), [CAT | {"category": category}])
    split = with_objects(rows, labels=["cat", "dog"])
    if label is None:
        with pytest.raises(BadSample, match=f"unknown category {category!r}"):
            split[0]
    else:
        assert split[0]["labels"].tolist() == [label]


@pytest.mark.parametrize(
    ("feature", "objects", "message"),
    [
        (datasets.List(OBJECT), [CAT, None], "an object is empty"),
        (datasets.List(OBJECT), [CAT | {"area": float("nan")}], "the area of an object is nan, expected a number"),
        (datasets.List(OBJECT), [CAT | {"area": float("inf")}], "the area of an object is inf"),
        (datasets.List(OBJECT), [CAT | {"bbox": [1, 1, float("inf"), 1]}], "the box of an object is .*inf"),
        (datasets.List(OBJECT), [CAT | {"bbox": [1, None, 1, 1]}], r"the box of an object is \[1.0, None"),
        (
            {"bbox": datasets.List(datasets.List(INT)), "category": INT},
            {"bbox": [[1, 1, 2, 2]], "category": 1},
            "category of its objects is no list",
        ),
    ],
    ids=range(6),
)
def test_malformed_objects(feature: Any, objects: Any, message: str) -> None:
    rows = rows_of("objects", feature, png(IMAGE), objects)
    with pytest.raises(BadSample, match=message) as caught:
        with_objects(rows, labels=["cat", "dog"])[0]
    assert "street_007" in str(caught.value)


@pytest.mark.parametrize("path", ["../a.png", "a/../../a.png", "a\0.png"])
def test_paths_in_cells_that_lead_out(path: str) -> None:
    with pytest.raises(BadSample, match=r"row 0: its file is '.*': expected a path without \.\."):
        decode_picture({"bytes": None, "path": path}, "refuse", "row 0")


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    for path in (str(tmp_path), "a" * 5000):
        with pytest.raises(BadSample, match="row 0: cannot read .*(Is a directory|File name too long)"):
            decode_picture({"bytes": None, "path": path}, "refuse", "row 0")


def test_a_column_that_holds_no_pictures() -> None:
    rows = rows_of("label", datasets.Image(), png(IMAGE), None).rename_columns({"image": "x", "name": "image"})
    rows = rows.map(lambda row: {"number": 1}).rename_columns({"image": "name", "number": "image"})
    with pytest.raises(UserError, match="column 'image' holds no pictures, set data.image_column"):
        labelled(rows)


def write_image_folder(folder: Path, names: list[str]) -> DatasetsOptions:
    for split in ("train", "validation"):
        for name in ("a.png", "._a.png", "@eaDir/a.png", ".ipynb_checkpoints/a.png", "Thumbs.db", "desktop.ini"):
            (folder / split / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / split / name).write_bytes(png(IMAGE))
        objects = [{"bbox": [1, 1, 2, 2], "category": 0}]
        lines = [json.dumps({"file_name": name, "objects": objects}) for name in names]
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    datasets.config.HF_DATASETS_CACHE = folder.parent / "cache"
    return DatasetsOptions(path=str(folder), labels=["cat", "dog"])


def test_folders_of_images(tmp_path: Path) -> None:
    """With what no person has put there, and with a name that leads out."""
    data = load_data(write_image_folder(tmp_path / "good", ["a.png"]), DETECTION)
    assert [Path(sample["name"].split("(")[1][:-1]).name for sample in data.train] == ["a.png"]
    Image.fromarray(IMAGE).save(tmp_path / "outside.png")
    with pytest.raises(UserError, match=r"neither a folder nor a Hub dataset that can be read: .*outside.png"):
        load_data(write_image_folder(tmp_path / "bad", ["../../outside.png"]), DETECTION)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_damaged_parquet_file(tmp_path: Path, streaming: bool) -> None:
    """A streamed one is found out when it is read: that too is one line."""
    write_parquet(tmp_path, rows_of("label", datasets.Image(), png(IMAGE), {"bytes": png(IDS), "path": None}))
    path = next((tmp_path / "data").glob("validation*"))
    path.write_bytes(path.read_bytes()[:-20])
    options = DatasetsOptions(path=str(tmp_path), labels=["a", "b"], ignore_index=11, streaming=streaming)
    with pytest.raises(UserError, match="cannot be read|can be read: .*Parquet"):
        data = load_data(options, SEMANTIC)
        data.validation[0]
