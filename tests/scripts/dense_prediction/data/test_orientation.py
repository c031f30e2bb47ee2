"""A picture that EXIF turns is read as it was annotated, whatever the format."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import ExifTags, Image

from dense_prediction.data.formats.coco import CocoOptions
from dense_prediction.data.formats.coco_panoptic import CocoPanopticOptions
from dense_prediction.data.formats.datasets_library import DatasetsOptions
from dense_prediction.data.formats.folders import FoldersOptions
from dense_prediction.data.formats.voc import VocOptions
from dense_prediction.data.loading import load_data
from dense_prediction.data.options import DataOptions
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS


Size = tuple[int, int]
"""Height and width."""

WIDE, TALL, SQUARE = (4, 6), (6, 4), (4, 4)
QUARTER, HALF = 6, 3
"""EXIF's numbers of turns by 90 and by 180 degrees."""


def turned_picture(path: Path, size: Size, turn: int) -> None:
    """Bright in the first column, as it is stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels, exif = np.zeros((*size, 3), dtype=np.uint8), Image.Exif()
    pixels[:, 0] = 255
    exif[ExifTags.Base.Orientation] = turn
    Image.fromarray(pixels).save(path, exif=exif)


def coco(folder: Path, annotated: Size | None) -> DataOptions:
    sides = {} if annotated is None else {"height": annotated[0], "width": annotated[1]}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}
    content = {
        "images": [{"id": 1, "file_name": "a.png"} | sides],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [box],
    }
    (folder / "a.json").write_text(json.dumps(content))
    both = ("train", "validation")
    return CocoOptions(path=str(folder), images=dict.fromkeys(both, "."), annotations=dict.fromkeys(both, "a.json"))


def panoptic(folder: Path, annotated: Size | None) -> DataOptions:
    """The size is that of the PNG."""
    colors = np.zeros((*(annotated or SQUARE), 3), dtype=np.uint8)
    colors[..., 0] = 1
    (folder / "segments").mkdir()
    Image.fromarray(colors).save(folder / "segments" / "a.png")
    segments = {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1}]}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}],
        "annotations": [segments],
    }
    (folder / "a.json").write_text(json.dumps(content))
    both = ("train", "validation")
    places = {"images": ".", "annotations": "a.json", "masks": "segments"}
    return CocoPanopticOptions(path=str(folder), **{key: dict.fromkeys(both, at) for key, at in places.items()})


def folders(folder: Path, annotated: Size | None) -> DataOptions:
    (folder / "masks").mkdir()
    ids = np.zeros(annotated or SQUARE, dtype=np.uint8)
    Image.fromarray(ids).save(folder / "masks" / "a.png")
    (folder / "pictures").mkdir()
    (folder / "a.png").rename(folder / "pictures" / "a.png")
    both = ("train", "validation")
    places = {"images": dict.fromkeys(both, "pictures"), "masks": dict.fromkeys(both, "masks")}
    return FoldersOptions(path=str(folder), labels=["a", "b"], **places)


def voc(folder: Path, annotated: Size | None) -> DataOptions:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    with Image.open(folder / "a.png") as image:
        image.save(folder / "JPEGImages" / "a.jpg", exif=image.getexif(), quality=95)
    size = "" if annotated is None else f"<size><height>{annotated[0]}</height><width>{annotated[1]}</width></size>"
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
    text = f"<annotation>{size}<object><name>cat</name>{box}</object></annotation>"
    (folder / "Annotations" / "a.xml").write_text(text)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a")
    return VocOptions(path=str(folder), labels=["cat"], validation_split="train")


def write_rows(folder: Path, columns: dict[str, object], features: dict[str, object]) -> DataOptions:
    picture = {"bytes": (folder / "a.png").read_bytes(), "path": None}
    features = datasets.Features({"image": datasets.Image()} | features)
    (folder / "rows").mkdir()
    rows = datasets.Dataset.from_dict(
        {"image": [picture]} | {key: [value] for key, value in columns.items()}, features
    )
    for split in ("train", "validation"):
        rows.to_parquet(folder / "rows" / f"{split}-00000-of-00001.parquet")
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    return DatasetsOptions(path=str(folder / "rows"), labels=["cat", "dog"])


def label_rows(folder: Path, annotated: Size | None) -> DataOptions:
    ids = np.zeros(annotated or SQUARE, dtype=np.int64).tolist()
    return write_rows(folder, {"label": ids}, {"label": datasets.List(datasets.List(datasets.Value("int64")))})


def object_rows(folder: Path, annotated: Size | None) -> DataOptions:
    fields = {"bbox": datasets.List(datasets.Value("float32")), "category": datasets.Value("int64")}
    columns: dict[str, object] = {"objects": [{"bbox": [0, 0, 2, 2], "category": 0}]}
    features: dict[str, object] = {"objects": datasets.List(fields)}
    if annotated is not None:
        columns |= {"height": annotated[0], "width": annotated[1]}
        features |= {"height": datasets.Value("int64"), "width": datasets.Value("int64")}
    return write_rows(folder, columns, features)


FORMATS = {
    coco: "object_detection",
    panoptic: "panoptic_segmentation",
    folders: "semantic_segmentation",
    voc: "object_detection",
    label_rows: "semantic_segmentation",
    object_rows: "object_detection",
}
BY_BOXES = (coco, voc, object_rows)
"""Formats whose annotation need not say a size."""


CASES = {
    "stored": (WIDE, QUARTER, WIDE, False),
    "upright": (WIDE, QUARTER, TALL, True),
    "square": (SQUARE, QUARTER, SQUARE, True),
    "180 degrees": (WIDE, HALF, WIDE, True),
    "unknown": (WIDE, QUARTER, None, True),
    "not turned": (WIDE, 1, WIDE, False),
}


@pytest.mark.parametrize(
    ("write", "stored", "turn", "annotated", "is_upright"),
    [
        pytest.param(write, *case, id=f"{write.__name__}, {name}")
        for name, case in CASES.items()
        for write in (BY_BOXES if name == "unknown" else FORMATS)
    ],
)
def test_the_annotated_size_decides(
    tmp_path: Path, write: object, stored: Size, turn: int, annotated: Size | None, is_upright: bool
) -> None:
    turned_picture(tmp_path / "a.png", stored, turn)
    options = write(tmp_path, annotated)
    image = load_data(options, TASKS[FORMATS[write]]).train[0]["image"]
    assert image.shape[1:] == (stored if turn != QUARTER or not is_upright else stored[::-1])
    bright = image[0] > 128
    first_column_now = bright[0] if turn == QUARTER else bright[:, -1]
    assert (first_column_now if is_upright else bright[:, 0]).all()


# Columns of rows may describe what the picture was made from.
@pytest.mark.parametrize(
    "write", [write for write in FORMATS if write is not object_rows], ids=lambda write: write.__name__
)
def test_a_size_that_never_fits_is_a_bad_sample(tmp_path: Path, write: object) -> None:
    turned_picture(tmp_path / "a.png", WIDE, QUARTER)
    with pytest.raises(UserError, match="height and width"):
        load_data(write(tmp_path, (9, 9)), TASKS[FORMATS[write]]).train[0]
