"""Semantic maps that are painted from the outlines of objects, as labelling tools export them."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from dense_prediction.data.inspection.findings import check
from dense_prediction.data.inspection.looking import Inspection, inspect
from dense_prediction.data.loading import Data, load_data
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.recipes.schema import Data as AnyData
from written_sets import HEIGHT, WIDTH, coco, draw, found_in, opened, write


SEMANTIC = "semantic_segmentation"


def square(left: int, side: int) -> list[int]:
    """An outline that begins at the top."""
    return [left, 0, left + side, 0, left + side, side, left, side]


def write_coco(folder: Path, objects: list[tuple[int, list[int], bool]], classes: list[str]) -> Path:
    """One picture with objects of a category, an outline and whether they are a crowd; the same for validation."""
    for split in ("train", "val"):
        draw(folder / split / "a.png")
        content = json.loads(coco(["a.png"], classes))
        content["annotations"] = [
            {"id": place, "image_id": 0, "category_id": category, "segmentation": [outline], "bbox": [0, 0, 2, 2]}
            | ({"iscrowd": 1} if is_crowd else {})
            for place, (category, outline, is_crowd) in enumerate(objects, 1)
        ]
        write(folder / f"{split}.json", json.dumps(content))
    return folder


def painted(data: Data) -> np.ndarray:
    return data.train[0]["semantic_map"].numpy()


def test_the_smaller_of_two_lies_on_top(tmp_path: Path) -> None:
    """Whatever their order in the file; a crowd is of its class like all others."""
    objects = [(2, square(2, 4), False), (1, square(0, 10), False), (1, square(20, 8), True)]
    found = found_in(write_coco(tmp_path, objects, ["road", "car"]), SEMANTIC)
    assert found.words.endswith("; the outlines are painted as maps, what none of them covers is background")
    data = opened(found, SEMANTIC)
    assert (data.labels, data.things) == (["background", "road", "car"], frozenset())
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    expected[:10, :10] = expected[:8, 20:28] = 1
    expected[:4, 2:6] = 2
    assert (painted(data) == expected).all()


@pytest.mark.parametrize("labels", [["car"], ["background", "car"]], ids=str)
def test_classes_that_are_left_out_are_background(tmp_path: Path, labels: list[str]) -> None:
    """The first class may be named, as where a recipe is written from a trained model's classes."""
    objects = [(1, square(0, 10), False), (2, square(20, 4), False)]
    found = found_in(write_coco(tmp_path, objects, ["road", "car"]), SEMANTIC)
    data = opened(found, SEMANTIC, labels=labels)
    assert data.labels == ["background", "car"]
    assert np.unique(painted(data)[:, :20]).tolist() == [0]
    assert np.unique(painted(data)[:4, 20:24]).tolist() == [1]


@pytest.mark.parametrize("name", ["background", "Background", "_background_"])
def test_a_class_that_is_called_so_is_the_background(tmp_path: Path, name: str) -> None:
    """In any case, and as labelme2coco writes it."""
    objects = [(1, square(0, 10), False), (2, square(0, 4), False), (1, square(20, 4), False)]
    data = opened(found_in(write_coco(tmp_path, objects, ["leaf", name]), SEMANTIC), SEMANTIC)
    assert data.labels == ["leaf", name]
    assert np.unique(painted(data)[:4, :4]).tolist() == [1]
    assert np.unique(painted(data)[10:]).tolist() == [1]
    assert np.unique(painted(data)[:4, 20:24]).tolist() == [0]


def test_the_background_alone_is_not_all_classes(tmp_path: Path) -> None:
    found = found_in(write_coco(tmp_path, [(1, square(0, 10), False)], ["road"]), SEMANTIC)
    with pytest.raises(UserError, match=r"data.labels=\['background'\]: name the classes whose outlines are to be"):
        opened(found, SEMANTIC, labels=["background"])


def test_polygons_of_yolo(tmp_path: Path) -> None:
    for split in ("train", "val"):
        draw(tmp_path / split / "images" / "a.png")
        write(tmp_path / split / "labels" / "a.txt", "0 0 0 0.5 0 0.5 1 0 1\n")
    write(tmp_path / "data.yaml", "train: train/images\nval: val/images\nnames: [leaf]\n")
    data = opened(found_in(tmp_path, SEMANTIC), SEMANTIC)
    assert data.labels == ["background", "leaf"]
    assert (painted(data) == np.repeat([[1, 0]], WIDTH // 2, axis=1).repeat(HEIGHT, axis=0)).all()


def test_maps_are_taken_where_there_are_maps(tmp_path: Path) -> None:
    """CVAT and others export both."""
    write_coco(tmp_path, [(1, square(0, 10), False)], ["road"])
    for split in ("train", "val"):
        draw(tmp_path / "masks" / split / "a.png", np.eye(HEIGHT, WIDTH, dtype=np.uint8))
    assert found_in(tmp_path, SEMANTIC).data["format"] == "folders"


def test_boxes_cannot_be_painted(tmp_path: Path) -> None:
    write_coco(tmp_path, [], ["road"])
    for split in ("train", "val"):
        write(tmp_path / f"{split}.json", coco(["a.png"], ["road"], outlines=False))
    with pytest.raises(UserError, match="boxes without outlines; it serves object_detection, not semantic_segm"):
        found_in(tmp_path, SEMANTIC)


def looked_at(folder: Path) -> Inspection:
    """The training split of what a folder is recognised as."""
    options, task = TypeAdapter(AnyData).validate_python(found_in(folder, SEMANTIC).data), TASKS[SEMANTIC]
    return inspect(options, task, load_data(options, task), ["train_split"])


def test_pixels_are_counted_before_the_training(tmp_path: Path) -> None:
    facts = looked_at(write_coco(tmp_path, [(1, square(0, 10), False)], ["road"])).facts["train_split"]
    assert (facts.unit, facts.by_class) == ("pixels", {"background": HEIGHT * WIDTH - 100, "road": 100})


def test_outlines_of_the_background_alone_teach_nothing(tmp_path: Path) -> None:
    found = looked_at(write_coco(tmp_path, [(1, square(0, 10), False)], ["background", "leaf"]))
    message = (
        "one class, background \\(looked at all 1 masks\\): maps are painted from outlines of objects, and it has"
    )
    with pytest.raises(UserError, match=message):
        check(found, ["background", "leaf"])
