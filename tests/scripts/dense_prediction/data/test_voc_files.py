"""Lists, XML files and pictures of Pascal VOC as tools and other systems write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_prediction.data.loading import load_data
from dense_prediction.errors import UserError
from test_data_folders import CAT, DETECTION, DOG, SEMANTIC, voc_recipe, write_picture, write_voc


GREY = np.full((8, 10, 3), 128, dtype=np.uint8)


def write_named(folder: Path, names: list[str], text: bytes | None = None, suffix: str = ".jpg") -> None:
    """Pictures of both tasks, and lists of their names or of `text`."""
    write_voc(folder, CAT)
    mask = (folder / "SegmentationClass" / "2007_000001.png").read_bytes()
    for name in names:
        write_picture(folder / "JPEGImages" / f"{name}{suffix}", GREY)
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{CAT}</annotation>")
        (folder / "SegmentationClass" / f"{name}.png").write_bytes(mask)
    for task in ("Main", "Segmentation"):
        path = folder / "ImageSets" / task / "trainval.txt"
        path.write_bytes(text if text is not None else "\n".join(names).encode())


def stems(folder: Path, task: Any = DETECTION, **fields: Any) -> list[str]:
    labels = ["cat", "dog"] if task is DETECTION else ["background", "cat", "dog"]
    samples = load_data(voc_recipe(folder, labels=labels, **fields), task).train
    return [Path(sample["name"]).name for sample in samples]


@pytest.mark.parametrize("task", [DETECTION, SEMANTIC], ids=lambda task: task.name)
@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".tif"])
def test_pictures_with_other_suffixes(tmp_path: Path, task: Any, suffix: str) -> None:
    write_named(tmp_path, ["a.1", "b"], suffix=suffix)
    assert stems(tmp_path, task) == [f"a.1{suffix}", f"b{suffix}"]


def test_the_picture_that_the_annotation_names(tmp_path: Path) -> None:
    """Where none has the annotation's own name; what tools write there is often wrong."""
    write_named(tmp_path, ["a"])
    annotation = tmp_path / "Annotations" / "a.xml"
    annotation.write_text(f"<annotation><filename>photo%201.png</filename>{CAT}</annotation>")
    write_picture(tmp_path / "JPEGImages" / "photo 1.png", GREY)
    write_picture(tmp_path / "JPEGImages" / "a.bmp", GREY)
    assert stems(tmp_path) == ["a.jpg"], "the usual suffix comes first"
    (tmp_path / "JPEGImages" / "a.bmp").unlink()
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    assert stems(tmp_path) == ["photo 1.png"]
    annotation.write_text(f"<annotation><filename>absent.png</filename>{CAT}</annotation>")
    with pytest.raises(UserError, match=r"JPEGImages/a.jpg does not exist"):
        stems(tmp_path)


@pytest.mark.parametrize("task", [DETECTION, SEMANTIC], ids=lambda task: task.name)
@pytest.mark.parametrize(
    "text",
    [
        "a b\r\nc\r\n",
        "a b\rc",
        "\n  a b \t\n\n\nc\n  ",
        "a b.jpg\nc.jpg\n",
        "\ufeffa b\nc\n",
    ],
)
def test_lists_of_any_system(tmp_path: Path, task: Any, text: str) -> None:
    write_named(tmp_path, ["a b", "c"], text.encode())
    assert stems(tmp_path, task) == ["a b.jpg", "c.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_lists_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    write_named(tmp_path, ["straße 1", "c"], "straße 1\nc\n".encode(encoding))
    assert stems(tmp_path) == ["straße 1.jpg", "c.jpg"]


def test_a_list_of_one_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A name and a flag: 1, and 0 for what is difficult, if the picture shows the class, -1 if not."""
    write_named(tmp_path, ["000001", "000002", "c d"], b"000001 -1\n000002  1\nc d  0\n")
    main = tmp_path / "ImageSets" / "Main"
    (main / "trainval.txt").rename(main / "cat_trainval.txt")
    splits = {"train_split": "cat_trainval", "validation_split": "cat_trainval"}
    assert stems(tmp_path, **splits) == ["000002.jpg", "c d.jpg"]
    assert "cat_trainval.txt: the 2 of 3 pictures that show its class are taken" in caplog.text


def test_names_that_end_like_flags(tmp_path: Path) -> None:
    write_named(tmp_path, ["photo 1", "photo 0"])
    assert stems(tmp_path) == ["photo 1.jpg", "photo 0.jpg"]
    assert stems(tmp_path, SEMANTIC) == ["photo 1.jpg", "photo 0.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("declared", ["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-8"?>'])
def test_annotations_in_any_encoding(tmp_path: Path, encoding: str, declared: str) -> None:
    write_voc(tmp_path, CAT)
    text = f"{declared}\n<annotation>\r\n{CAT.replace('cat', ' Käse ')}</annotation>"
    (tmp_path / "Annotations" / "2007_000001.xml").write_bytes(text.encode(encoding))
    data = load_data(voc_recipe(tmp_path, labels=["Käse", "dog"]), DETECTION)
    assert data.train[0]["labels"].tolist() == [0]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (CAT.replace(">6<", ">inf<"), "the box of an object is .*inf.*, expected four numbers"),
        (CAT.replace(">6<", ">nan<"), "has no area"),
        (CAT.replace(">6<", ">1e400<"), "the box of an object is"),
        (CAT.replace(">6<", "><"), "has no box of four numbers"),
        (DOG.replace("<name>dog</name>", ""), "unknown category ''"),
        ("<object>" * 200_000, "is not XML"),
    ],
    ids=range(6),
)
def test_malformed_annotations(tmp_path: Path, objects: str, message: str) -> None:
    data = load_data(write_voc(tmp_path, objects), DETECTION)
    with pytest.raises(UserError, match=message) as caught:
        data.train[0]
    assert "2007_000001.xml" in str(caught.value)


def test_annotations_that_cannot_be_read(tmp_path: Path) -> None:
    data = load_data(write_voc(tmp_path, CAT), DETECTION)
    path = tmp_path / "Annotations" / "2007_000001.xml"
    path.rename(path.with_suffix(".XML"))
    with pytest.raises(UserError, match=r"2007_000001.xml does not exist, but .*2007_000001.XML does"):
        data.train[0]
    path.mkdir()
    with pytest.raises(UserError, match=r"2007_000001.xml cannot be read: Is a directory"):
        data.train[0]
