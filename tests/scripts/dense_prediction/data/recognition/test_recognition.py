"""Folders as a whole: zip files, tables, superfluous folders, litter, and what is none of them."""

import json
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from dense_prediction.data.recognition import recognize
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from written_sets import BOX, CORNERS, coco, draw, found_in, mask, opened, write


SEMANTIC = "semantic_segmentation"


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")


def zipped(folder: Path, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder.parent))
    return file


def test_a_zip_file_and_a_folder_with_it_alone(tmp_path: Path) -> None:
    draw(tmp_path / "mine" / "images" / "a.png")
    draw(tmp_path / "mine" / "images" / "b.png")
    write(tmp_path / "mine" / "annotations" / "instances_default.json", coco(["a.png", "b.png"]))
    file = zipped(tmp_path / "mine", tmp_path / "download" / "mine.zip")
    write(tmp_path / "download" / ".DS_Store", "")
    found = found_in(file)
    assert found == found_in(tmp_path / "download") and found.words.startswith("COCO JSON: annotations/instances_def")
    assert Path(found.data["path"]).is_relative_to(tmp_path / "cache")
    assert opened(found).train[0]["boxes"].tolist() == CORNERS


def test_litter_and_superfluous_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        draw(tmp_path / "outer" / "inner" / "images" / split / "a.png")
        draw(tmp_path / "outer" / "inner" / "masks" / split / "a.png", mask(0, 1))
        draw(tmp_path / "outer" / "inner" / "images" / split / "._a.png")
        write(tmp_path / "outer" / "inner" / "masks" / split / "Thumbs.db", "")
    draw(tmp_path / "outer" / "__MACOSX" / "inner" / "a.png")
    write(tmp_path / "outer" / "@eaDir" / "a.xml", "<annotation/>")
    found = found_in(tmp_path / "outer", SEMANTIC)
    assert found.data["path"] == str(tmp_path / "outer" / "inner")
    assert found.words.startswith("images and masks: train 1 and validation 1 pictures, 2 classes")


def test_a_link_to_a_folder_above(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png")
    draw(tmp_path / "masks" / "a.png", mask(0, 1))
    (tmp_path / "images" / "loop").symlink_to(tmp_path)
    assert "train 1 pictures" in found_in(tmp_path, SEMANTIC).words


def test_metadata_of_an_image_folder(tmp_path: Path) -> None:
    """https://huggingface.co/docs/datasets/image_dataset#object-detection"""
    lines = []
    for name in ("1", "2", "3"):
        draw(tmp_path / "mine" / "train" / f"000{name}.png")
        lines.append(
            json.dumps({"file_name": f"000{name}.png", "objects": {"bbox": [BOX], "categories": [int(name) % 2]}})
        )
    write(tmp_path / "mine" / "train" / "metadata.jsonl", "\n".join(lines))
    found = found_in(tmp_path / "mine")
    assert found.words.startswith(
        "table of the datasets library with objects in 'objects': train 3 pictures, about 20%"
    )
    assert found.words.endswith("2 classes (class 0, class 1), as its rows call them")
    data = opened(found)
    assert data.train[0]["boxes"].tolist() == CORNERS and len(data.train) + len(data.validation) == 3


def test_parquet_files_with_maps(tmp_path: Path) -> None:
    columns = datasets.Features(
        {"image": datasets.Image(), "annotation": datasets.Image(), "name": datasets.Value("string")}
    )
    for split, count in (("train", 3), ("validation", 2)):
        pictures = [Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8))] * count
        masks = [Image.fromarray(mask(0, 1, 2, 2))] * count
        rows = {"image": pictures, "annotation": masks, "name": [f"{split}{place}" for place in range(count)]}
        file = tmp_path / "mine" / "data" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=columns).to_parquet(file)
    found = found_in(tmp_path / "mine", SEMANTIC)
    assert found.data["label_column"] == "annotation" and "validation_share" not in found.data
    assert found.data["labels"] == ["background", "class 1", "class 2"]
    data = opened(found, SEMANTIC)
    assert (len(data.train), len(data.validation)) == (3, 2)
    with pytest.raises(UserError, match="with maps in 'annotation'.*; it serves semantic_segmentation, not object"):
        found_in(tmp_path / "mine")


def test_names_of_classes_in_a_table(tmp_path: Path) -> None:
    objects = {"bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4))}
    objects |= {"category": datasets.List(datasets.ClassLabel(names=["cat", "dog"]))}
    columns = datasets.Features({"image": datasets.Image(), "objects": objects})
    rows = {"image": [Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8))] * 2}
    rows |= {"objects": [{"bbox": [BOX], "category": [1]}] * 2}
    file = tmp_path / "mine" / "data" / "train-00000-of-00001.parquet"
    datasets.Dataset.from_dict(rows, features=columns).to_parquet(file)
    found = found_in(tmp_path / "mine")
    assert "labels" not in found.data and found.words.endswith("2 classes (cat, dog)")
    assert opened(found).train[0]["labels"].tolist() == [1]


def test_what_holds_no_data(tmp_path: Path) -> None:
    write(tmp_path / "code" / "a.py", "")
    with pytest.raises(UserError, match=r"code holds no pictures \(a.py\): give the folder in which pictures and"):
        found_in(tmp_path / "code")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no file: give the folder of the data"):
        found_in(tmp_path / "empty")
    with pytest.raises(UserError, match="nowhere does not exist: give a folder, a zip file or the id of a Hub data"):
        found_in(tmp_path / "nowhere")
    draw(tmp_path / "pictures" / "cat" / "a.png")
    with pytest.raises(UserError, match="pictures holds 1 pictures and no annotations of them: expected COCO JSON,"):
        found_in(tmp_path / "pictures")


def test_every_message_is_one_line(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    write(tmp_path / "data.yaml", "names: [a]\ntrain: 'a\n\n  b'\n")
    with pytest.raises(UserError) as caught:
        found_in(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_id_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as every table is; here without a network."""
    rows = datasets.Dataset.from_dict({"image": [None], "objects": [{"bbox": [BOX], "category": ["cat"]}]})
    rows = rows.cast_column("image", datasets.Image())
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda path, streaming: asked.append(path) or {"train": rows})
    found = recognize("someone/cats", TASKS["object_detection"])
    assert asked == ["someone/cats"] and (found.data["path"], found.data["labels"]) == ("someone/cats", ["cat"])


def test_a_table_of_patients_is_no_metadata_of_an_image_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kaggle's sets have a metadata.csv of other things, and reading all pictures as rows takes minutes."""
    draw(tmp_path / "images" / "a.png")
    draw(tmp_path / "masks" / "a.png", mask(0, 1))
    write(tmp_path / "metadata.csv", "id,age\na,55\n")
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **options: pytest.fail("read as a table"))
    assert found_in(tmp_path, SEMANTIC).data["format"] == "folders"
