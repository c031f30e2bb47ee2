"""Small data sets in folders, and what is recognised of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from dense_prediction.data.loading import Data as LoadedData
from dense_prediction.data.loading import load_data
from dense_prediction.data.recognition import Found, recognize
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.recipes.schema import Data


HEIGHT, WIDTH = 20, 40
BOX = [10, 5, 20, 10]
"""x, y, width and height of the object that each picture has."""
CORNERS = [[10, 5, 30, 15]]
YOLO_BOX = "1 0.5 0.5 0.5 0.5"
OUTLINE = [10, 5, 30, 5, 30, 15, 10, 15]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def draw(path: Path, pixels: Any = None, **options: Any) -> None:
    """A grey picture, or one of these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8) if pixels is None else pixels
    Image.fromarray(pixels).save(path, **options)


def mask(*values: int, kind: type[np.generic] = np.uint8) -> np.ndarray:
    """(H, W) of vertical stripes of these values, equally wide."""
    return np.repeat(np.array(values, dtype=kind), WIDTH // len(values))[None].repeat(HEIGHT, axis=0)


def coco(names: Sequence[str], classes: Sequence[str] = ("cat", "dog"), outlines: bool = True) -> str:
    """COCO's JSON, in which each picture shows one object of the last class."""
    images = [{"id": place, "file_name": name, "height": HEIGHT, "width": WIDTH} for place, name in enumerate(names)]
    categories = [{"id": place, "name": name, "supercategory": ""} for place, name in enumerate(classes, 1)]
    fields = {"bbox": BOX, "area": 200, "iscrowd": 0, "segmentation": [OUTLINE] if outlines else []}
    annotations = [
        {"id": place, "image_id": place, "category_id": len(classes)} | fields for place in range(len(names))
    ]
    return json.dumps({"info": {}, "images": images, "annotations": annotations, "categories": categories})


def xml(name: str, category: str = "dog") -> str:
    """One object in VOC's XML."""
    left, top, width, height = BOX
    corners = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + width}</xmax><ymax>{top + height}</ymax>"
    return (
        f"<annotation><folder>x</folder><filename>{name}</filename><size><width>{WIDTH}</width>"
        f"<height>{HEIGHT}</height><depth>3</depth></size><object><name>{category}</name><pose>Unspecified</pose>"
        f"<truncated>0</truncated><difficult>0</difficult><bndbox>{corners}</bndbox></object></annotation>"
    )


def found_in(source: Path, task: str = "object_detection", format: str | None = None) -> Found:
    return recognize(str(source), TASKS[task], format)


def opened(found: Found, task: str = "object_detection", **fields: Any) -> LoadedData:
    """The data that were recognised, through the options of a recipe."""
    return load_data(TypeAdapter(Data).validate_python(found.data | fields), TASKS[task])


def names_of(split: Any) -> list[str]:
    """The last parts of the names of its pictures."""
    return [Path(split[index]["name"]).name for index in range(len(split))]
