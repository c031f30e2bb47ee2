"""What COCO's JSON files get wrong is a bad sample of its picture, or one line before the first step."""

import json
from pathlib import Path
from typing import Any

import pytest

from dense_prediction.data.annotations.numbers import is_number, whole_number
from dense_prediction.data.annotations.text_files import read_json, read_lines
from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from test_data_coco import (
    ANNOTATIONS,
    CATEGORIES,
    DETECTION,
    HEIGHT,
    INSTANCES,
    MASK,
    PANOPTIC,
    SEGMENTS,
    WIDTH,
    panoptic_recipe_of,
    recipe_of,
    write_coco,
    write_json,
    write_panoptic,
)


NAN, INF = float("nan"), float("inf")
SQUARE = [4, 2, 12, 2, 12, 10, 4, 10]


def polygon(**changes: Any) -> dict[str, Any]:
    """With other coordinates at the positions `x0` to `x7`."""
    return MASK | {"segmentation": [[changes.get(f"x{place}", number) for place, number in enumerate(SQUARE)]]}


def run_length(**fields: Any) -> dict[str, Any]:
    return MASK | {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 600]} | fields}


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (polygon(x2=NAN), "annotation 2: a coordinate of a polygon is nan, expected .* at most 300"),
        (polygon(x2=INF), "a coordinate of a polygon is inf"),
        (polygon(x2=1e12), "a coordinate of a polygon is 1000000000000.0"),
        (polygon(x7=-(10**400)), "a coordinate of a polygon is -1"),
        (polygon(x0=True), "a coordinate of a polygon is True"),
        (polygon(x0="4"), "a coordinate of a polygon is '4'"),
        (polygon(x0=None), "a coordinate of a polygon is None"),
        (MASK | {"segmentation": [SQUARE, "words"]}, "a polygon needs an even number of coordinates, .*: 'words'"),
        (MASK | {"segmentation": [list("abcdef")]}, "a coordinate of a polygon is 'a'"),
        (MASK | {"segmentation": [[-299, 0, 299, 0] * 4000]}, "the outline of a polygon is longer than"),
        (run_length(size=20), r"run lengths for height and width 20, not \[20, 30\]"),
        (run_length(size=None), r"run lengths for height and width None"),
        (run_length(counts=None), "run lengths are None, expected a list of numbers or a string"),
        (run_length(counts={}), "run lengths are {}"),
        (run_length(counts=[0, None]), r"run lengths \[0, None\]: expected a whole number"),
        (run_length(counts=[0, "600", 0.5]), "run lengths .*: expected a whole number"),
        (run_length(counts="o" * 100_000), "run lengths 'ooo.*: a number has more than 35 bits"),
        (MASK | {"category_id": [7]}, r"annotation 2: category_id is \[7\], expected a whole number"),
        (MASK | {"category_id": True}, "category_id is True, expected a whole number"),
        (MASK | {"category_id": NAN}, "category_id is nan, expected a whole number"),
        (MASK | {"category_id": "cat"}, "category_id is 'cat', expected a whole number"),
        (MASK | {"area": NAN}, "annotation 2: the area of an object is nan, expected a number of pixels"),
        (MASK | {"area": True}, "the area of an object is True"),
        (MASK | {"area": -1}, "the area of an object is -1"),
        (MASK | {"area": 10**400}, "the area of an object is 1"),
        (MASK | {"bbox": [1, 1, INF, 2]}, r"the box of an object is \[1, 1, inf, 2\], expected four numbers"),
        (MASK | {"bbox": [1, 1, True, 2]}, "the box of an object is"),
        (MASK | {"bbox": {"x": 1}}, "the box of an object is {'x': 1}"),
        (MASK | {"iscrowd": [1]}, r"an object is a crowd \[1\], expected 0 or 1"),
        (MASK | {"id": [[9]], "area": "12"}, r"annotation \[\[9\]\]: the area"),
    ],
    ids=range(30),
)
def test_a_malformed_annotation_is_a_bad_sample_of_its_picture(
    tmp_path: Path, annotation: dict[str, Any], message: str
) -> None:
    write_coco(tmp_path, [ANNOTATIONS[0], annotation])
    with pytest.raises(UserError, match=message) as caught:
        load_data(recipe_of(tmp_path), INSTANCES).train[0]
    assert "a.png" in str(caught.value)
    data = load_data(recipe_of(tmp_path, bad_samples="skip"), INSTANCES)
    assert (data.train[0], data.train.num_skipped) == (None, 1)
    assert data.train[1] is not None


def written(folder: Path, part: str, changes: dict[str, Any], place: int = 0) -> None:
    """`instances.json` with other fields in one entry of a part."""
    write_coco(folder, ANNOTATIONS)
    content = json.loads((folder / "instances.json").read_text())
    content[part][place] = content[part][place] | changes if changes else None
    write_json(folder / "instances.json", content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": None}, r"ids of images must be whole numbers, but 1 are not: \[None\]; number them from 1"),
        ({"id": [1]}, r"ids of images must be whole numbers, but 1 are not: \[\[1\]\]"),
        ({"id": 10**30}, "ids of images must be whole numbers"),
        ({"file_name": ["a.png"]}, r"the file name of image 42 is \['a.png'\]"),
        ({"file_name": "a\0.png"}, r"the file name of image 42 is 'a\\x00.png'"),
        ({"file_name": "\ud800.png"}, r"the file name of image 42 is '\\ud800.png'"),
        ({"file_name": ""}, "the file name of image 42 is ''"),
        ({"file_name": "a" * 5000}, "cannot be decoded: File name too long"),
        ({"height": "tall"}, r"images\[0\]: height is 'tall', expected a whole number"),
        ({"width": NAN}, r"images\[0\]: width is nan, expected a whole number"),
        ({"width": [30]}, r"images\[0\]: width is \[30\]"),
        ({}, r"images\[0\]: it is None, expected an object of JSON"),
    ],
    ids=range(12),
)
def test_a_malformed_image_is_a_bad_sample(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    written(tmp_path, "images", changes)
    with pytest.raises(UserError, match=message):
        load_data(recipe_of(tmp_path), DETECTION).train[0]
    written(tmp_path, "images", changes)
    content = json.loads((tmp_path / "instances.json").read_text())
    write_json(tmp_path / "instances.json", content | {"annotations": []})
    data = load_data(recipe_of(tmp_path, bad_samples="skip"), DETECTION)
    assert (data.train[0], data.train[1]["image_id"], data.train.num_skipped) == (None, 43, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_id": [42]},
            r"annotations\[1\] \(id 2\) has the image_id \[42\]; so 1 annotations belong to no image",
        ),
        ({"image_id": "a_0"}, r"annotations\[1\] \(id 2\) has the image_id 'a_0'"),
        ({"image_id": True}, "has the image_id True"),
        ({}, r"annotations\[1\] is None, expected an object of JSON"),
    ],
    ids=range(4),
)
def test_an_annotation_of_no_image(
    tmp_path: Path, changes: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no fault of any sample: refused before the first step, or passed over and said."""
    written(tmp_path, "annotations", changes, place=1)
    with pytest.raises(UserError, match=message + ".*data.bad_samples=skip"):
        load_data(recipe_of(tmp_path), DETECTION)
    data = load_data(recipe_of(tmp_path, bad_samples="skip"), DETECTION)
    assert len(data.train[0]["labels"]) == 2
    assert "belong to no image" in caplog.text


@pytest.mark.parametrize("skip", ["skip", "refuse"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "dog"}, r"ids of categories must be whole numbers, but 1 are not: \['dog'\]"),
        ({"name": None}, r"categories\[0\]: name is None, expected text, in quotes"),
        ({"name": 5}, r"categories\[0\]: name is 5, expected text, in quotes"),
        ({"name": "\ud800"}, r"categories\[0\]: name is '\\ud800'"),
        ({"isthing": "no"}, r"categories\[0\]: isthing is 'no', expected 0 or 1"),
        ({}, r"categories\[0\]: it is None"),
    ],
    ids=range(6),
)
def test_a_malformed_category_is_no_bad_sample(
    tmp_path: Path, changes: dict[str, Any], message: str, skip: str
) -> None:
    written(tmp_path, "categories", changes)
    with pytest.raises(UserError, match=message) as caught:
        load_data(recipe_of(tmp_path, bad_samples=skip), DETECTION)
    assert "instances.json" in str(caught.value)


def test_a_file_without_categories(tmp_path: Path) -> None:
    write_coco(tmp_path, [])
    content = json.loads((tmp_path / "instances.json").read_text())
    write_json(tmp_path / "instances.json", content | {"categories": []})
    with pytest.raises(UserError, match="the dataset does not name its classes"):
        load_data(recipe_of(tmp_path), DETECTION)


def test_ids_as_words_and_floats(tmp_path: Path) -> None:
    """In images, annotations and categories alike."""
    write_coco(tmp_path, ANNOTATIONS)
    content = json.loads((tmp_path / "instances.json").read_text())
    for number, part in (("image_id", "annotations"), ("category_id", "annotations"), ("id", "images")):
        for place, entry in enumerate(content[part]):
            entry[number] = str(entry[number]) if place % 2 else float(entry[number])
    content["categories"][0]["id"] = "7"
    content["images"][0] |= {"height": "20", "width": 30.0}
    write_json(tmp_path / "instances.json", content)
    sample = load_data(recipe_of(tmp_path), INSTANCES).train[0]
    assert (sample["image_id"], sample["labels"].tolist()) == (42, [1, 0, 0])


def test_no_image_has_an_id_that_is_a_number(tmp_path: Path) -> None:
    """Also where bad samples are skipped: none would be left, and nobody would learn why."""
    write_coco(tmp_path, ANNOTATIONS)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["images"] = [image | {"id": f"x{image['id']}"} for image in content["images"]]
    write_json(tmp_path / "instances.json", content)
    with pytest.raises(UserError, match=r"2 are not: \['x42', 'x43'\]; number them from 1, and name the same numbers"):
        load_data(recipe_of(tmp_path, bad_samples="skip"), DETECTION)


@pytest.mark.parametrize("task", [DETECTION, INSTANCES], ids=lambda task: task.name)
@pytest.mark.parametrize("absent", [None, []])
def test_where_only_a_mask_is_given_the_box_is_round_it(tmp_path: Path, task: Any, absent: Any) -> None:
    write_coco(tmp_path, [annotation | {"bbox": absent} for annotation in ANNOTATIONS])
    sample = load_data(recipe_of(tmp_path), task).train[0]
    assert sample["boxes"].tolist() == [[4, 2, 12, 10], [20, 12, 30, 20], [20, 0, 26, 5]]
    empty = MASK | {"bbox": absent, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [600]}}
    for annotation, message in ((empty, "has no bbox, and an empty mask"), ({"category_id": 3}, "annotation None")):
        write_coco(tmp_path, [annotation])
        with pytest.raises(UserError, match=message):
            load_data(recipe_of(tmp_path), task).train[0]


def with_root(folder: Path, **changes: Any) -> None:
    """As Roboflow exports: category 0 stands for the data set."""
    write_coco(folder, ANNOTATIONS)
    content = json.loads((folder / "instances.json").read_text())
    root = {"id": 0, "name": "animals", "supercategory": "none"} | changes
    content["categories"] = [root, *(category | {"supercategory": "animals"} for category in CATEGORIES)]
    write_json(folder / "instances.json", content)


def test_a_root_category_is_no_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_root(tmp_path)
    data = load_data(recipe_of(tmp_path), DETECTION)
    assert (data.labels, data.train[0]["labels"].tolist()) == (["cat", "dog"], [1, 0, 0])
    assert "'animals' stands for all its categories and is no class: left out" in caplog.text
    named = load_data(recipe_of(tmp_path, labels=["animals", "dog", "cat"]), DETECTION)
    assert named.labels == ["animals", "dog", "cat"], "the recipe decides"


@pytest.mark.parametrize("changes", [{"supercategory": "thing"}, {"name": "beings"}, {"id": 7, "name": "animals"}])
def test_a_category_that_is_no_root_or_is_used_is_a_class(tmp_path: Path, changes: dict[str, Any]) -> None:
    with_root(tmp_path, **changes)
    if changes.get("id") == 7:
        content = json.loads((tmp_path / "instances.json").read_text())
        content["categories"][1]["id"] = 8
        write_json(tmp_path / "instances.json", content)
    assert len(load_data(recipe_of(tmp_path), DETECTION).labels) == 3


@pytest.mark.parametrize("number", [0, 0.0, "0"])
def test_a_root_category_of_which_there_is_an_object_is_a_class(tmp_path: Path, number: Any) -> None:
    with_root(tmp_path)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["annotations"][0]["category_id"] = number
    write_json(tmp_path / "instances.json", content)
    assert load_data(recipe_of(tmp_path), DETECTION).labels == ["animals", "cat", "dog"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file_name": None}, "the file name of the segments of .*a.png is None"),
        ({"file_name": 5}, "the file name of the segments of .*a.png is 5"),
        ({"segments_info": None}, "segments_info is None, expected a list"),
        ({"segments_info": {}}, "segments_info is {}, expected a list"),
        ({"segments_info": [None]}, "segments_info.0 is None, expected an object of JSON"),
        ({"segments_info": [{"id": [1], "category_id": 3}]}, r"segments_info.0.id is \[1\], expected a whole number"),
        ({"segments_info": [{"id": 1, "category_id": [3]}]}, r"category_id is \[3\], expected a whole number"),
        ({"segments_info": [*SEGMENTS, SEGMENTS[0]]}, "lists a segment twice"),
        ({"segments_info": [*SEGMENTS, {"id": 0, "category_id": 3}]}, "or 0, which stands for none"),
        ({"segments_info": [SEGMENTS[0] | {"iscrowd": "yes"}]}, "an object is a crowd 'yes', expected 0 or 1"),
    ],
    ids=range(10),
)
def test_malformed_segments_are_bad_samples(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    write_panoptic(tmp_path, SEGMENTS)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["annotations"][0] |= fields
    write_json(tmp_path / "instances.json", content)
    with pytest.raises(UserError, match=message):
        load_data(panoptic_recipe_of(tmp_path), PANOPTIC).train[0]


def test_an_outline_that_leaves_the_picture_is_drawn(tmp_path: Path) -> None:
    """As ever, up to ten times its size."""
    write_coco(tmp_path, [MASK | {"segmentation": [[-290, 2, 299, 2, 299, 10, -290, 10]]}])
    masks = load_data(recipe_of(tmp_path), INSTANCES).train[0]["masks"]
    assert masks[0, 2:10].all() and not masks[0, :2].any() and not masks[0, 10:].any()


ROWS = json.dumps({"images": [], "name": "käse"}, ensure_ascii=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_json_and_lists_in_any_encoding(tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(ROWS.encode(encoding))
    assert read_json(path)["name"] == "käse"
    assert ("read as Windows-1252" in caplog.text) == (encoding == "cp1252")
    path.write_bytes("a b \r\n\tkäse\r\r\n\n c.d\n".encode(encoding))
    assert read_lines(path) == ["a b", "käse", "c.d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.json is empty: expected JSON"),
        (" \n", "a.json is empty"),
        (ROWS[:20], "a.json is not JSON: "),
        ('{"a": [1, 2,]}', "a.json is not JSON: "),
        ('{"a": 1, "a": 2}', "a.json is not JSON: an object has the key 'a' twice"),
        ("[" * 100_000, "a.json is not JSON of a data set: it is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "a.json is not JSON: .*4300 digits"),
    ],
    ids=range(7),
)
def test_text_that_is_no_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / "a.json")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read /.*: Is a directory"):
        read_json(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="cannot read /.*/loop: Too many levels of symbolic links"):
        read_json(tmp_path / "loop")
    (tmp_path / "odd").write_bytes("ab".encode("utf-16") + b"\0")
    with pytest.raises(UserError, match="odd is no text in utf-16"):
        read_lines(tmp_path / "odd")


def test_numbers() -> None:
    assert [whole_number(value) for value in (5, 5.0, "5", " -7 ", 2**63 - 1)] == [5, 5, 5, -7, 2**63 - 1]
    for value in (True, None, 0.5, NAN, INF, "5.0", "", "٥", [5], 2**63, "9" * 5000):
        with pytest.raises(ValueError, match="expected a whole number"):
            whole_number(value)
    assert [is_number(value) for value in (5, -0.5, 1e9)] == [True] * 3
    assert not any(is_number(value) for value in (True, None, "5", NAN, INF, 10**400, [5]))
