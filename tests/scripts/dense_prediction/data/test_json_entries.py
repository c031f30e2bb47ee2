"""The entries of a long list are found in a file without holding them, whatever stands round and in them."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dense_prediction.data.annotations import json_entries
from dense_prediction.data.annotations.json_entries import FileEntries, PackedRecords, read_entries
from dense_prediction.errors import UserError


def read(path: Path) -> tuple[Any, list[Any] | None, Any]:
    return read_entries(path, "annotations", list)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


AWKWARD = ['"', "\\", '\\"', "{", "}", "[", "]", ":", ",", "ä", "\u2028", '"annotations": [{', "annotations"]
texts = st.lists(st.sampled_from(AWKWARD)).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
entries = st.dictionaries(texts, values, max_size=3) | st.lists(values, max_size=3)


@given(
    before=st.dictionaries(texts.filter(lambda text: text != "annotations"), values, max_size=2),
    annotations=st.lists(entries, max_size=5),
    chunk=st.integers(1, 60),
    batch=st.integers(1, 3),
    indent=st.sampled_from([None, 1]),
    ascii=st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_entries_in_any_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, Any],
    annotations: list[Any],
    chunk: int,
    batch: int,
    indent: int | None,
    ascii: bool,
) -> None:
    monkeypatch.setattr(json_entries, "CHUNK", chunk)
    monkeypatch.setattr(json_entries, "BATCH", batch)
    content = before | {"annotations": annotations, "after": [{"annotations": [{"a": 1}]}]}
    path = write(tmp_path / "a.json", json.dumps(content, indent=indent, ensure_ascii=ascii))
    kept, looked, found = read(path)
    assert isinstance(found, FileEntries)
    assert kept == content | {"annotations": [[]] * len(annotations)}
    assert looked == annotations
    assert len(found) == len(annotations)
    order = list(reversed(range(len(annotations))))
    assert found.read(order) == annotations[::-1]


UNUSUAL = {
    "NaN": '{"annotations": [{"a": NaN}]}',
    "a number": '{"annotations": [{"a": 1}, 2, {"a": 3}]}',
    "UTF-16": '{"annotations": [{"a": "ä"}]}'.encode("utf-16"),
    "a mark of UTF-8": b'\xef\xbb\xbf{"annotations": [{"a": 1}]}',
    "half a letter": '{"annotations": [{"a": "\\ud800"}]}',
    "Windows": '{"annotations": [{"a": "ä"}]}'.encode("cp1252"),
    "an escaped name": '{"\\u0061nnotations": [{"a": 1}]}',
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_files_are_read_slowly(name: str, tmp_path: Path) -> None:
    _, looked, found = read(write(tmp_path / "a.json", UNUSUAL[name]))
    assert isinstance(found, PackedRecords)
    assert repr(found.read(range(len(found)))) == repr(looked)
    assert len(found) == (3 if name == "a number" else 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"annotations": [{"a": 1, "b": {"c": 2}, "a": 3}]}', "an object has the key 'a' twice"),
        ('{"annotations": [{"b": [{"c": 2, "c": 3}]}]}', "an object has the key 'c' twice"),
        ('{"annotations": [{"b": [1, {"c": 2, "c": 3}]}]}', "an object has the key 'c' twice"),
        ('{"annotations": [{"a": 1}], "annotations": []}', "an object has the key 'annotations' twice"),
        ('{"annotations": [{"a": 1}, {"a": 01}]}', "is not JSON: Expecting ',' delimiter: line 1 column 35"),
        ('{"annotations": [{"a": 1} {"a": 1}]}', "is not JSON: Expecting ',' delimiter: line 1 column 27"),
        ('{"annotations": [{"a": 1]}, {"a": 1}]}', "is not JSON: Expecting ',' delimiter: line 1 column 25"),
        ('{"annotations": [{"a": 1}', "is not JSON: Expecting ',' delimiter"),
        ('{"annotations": [{"a": 1}]} {', "is not JSON: Extra data"),
        ('{"annotations": [{"a": "1}]}', "is not JSON: Unterminated string"),
        ("[" * 100_000, "is nested too deeply"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_as_of_any(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "a.json", text))


def test_a_file_without_such_a_list(tmp_path: Path) -> None:
    for content in ({"annotations": {"a": [{}]}}, {"images": []}, [1], 5):
        path = write(tmp_path / "a.json", json.dumps(content))
        assert read(path) == (content, None, None)
    with pytest.raises(UserError, match="cannot read .*absent"):
        read(tmp_path / "absent.json")


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"annotations": [{"a": 1}]}')
    _, _, found = read(path)
    write(path, '{"annotations": [{"a": 12}]}')
    with pytest.raises(UserError, match=r"a.json has changed since it was read: start again"):
        found.read([0])
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*a.json again: No such file"):
        found.read([0])


def test_another_process_is_handed_places_alone(tmp_path: Path) -> None:
    annotations = [{"number": number, "segmentation": [[0.25] * 500]} for number in range(100)]
    path = write(tmp_path / "a.json", json.dumps({"annotations": annotations}))
    _, _, found = read(path)
    handed = pickle.dumps(found)
    assert len(handed) < path.stat().st_size / 50
    assert pickle.loads(handed).read([7, 3]) == [annotations[7], annotations[3]]
