"""One damaged data set for each reader, from its kind and a source of random numbers."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from dense_prediction.data.formats.coco import CocoOptions
from dense_prediction.data.formats.coco_panoptic import CocoPanopticOptions
from dense_prediction.data.formats.folders import FoldersOptions
from dense_prediction.data.formats.instance_masks import InstanceMasksOptions
from dense_prediction.data.formats.voc import VocOptions
from dense_prediction.data.formats.yolo import YoloOptions
from dense_prediction.data.images import as_seen, open_picture, read, read_rgb, shown
from dense_prediction.errors import UserError
from dense_prediction.evaluation.tasks import TASKS
from dense_prediction.prediction.image_files import read_image
from fuzz_checks import read_all
from fuzz_mutations import changed_json, damaged, json_text
from fuzz_pictures import SIDE, picture
from fuzz_rows import read_datasets


SPLITS = ("train", "validation")


def read_pictures(folder: Path, random: Random) -> bool:
    """One file, read in each way that the library has."""
    path, data = folder / "a.png", picture(random)
    path.write_bytes(data)
    ways: list[Callable[[], Image.Image]] = [
        lambda: read(path),
        lambda: read_rgb(path, random.choice(["auto", "stored", "upright"])),
        lambda: shown(as_seen(open_picture(io.BytesIO(data), "a"), "upright", "a"), (0, 100), "a"),
        lambda: read_image(path),
    ]
    return sum(_is_sound(way, stored=position == 0) for position, way in enumerate(ways)) > 0


def _is_sound(way: Callable[[], Image.Image], stored: bool) -> bool:
    """False where the picture is refused."""
    try:
        image = way()
    except UserError as error:
        assert str(error).strip()
        return False
    assert image.width > 0 and image.height > 0
    assert stored or image.mode == "RGB"
    return True


CATEGORIES = [
    {"id": 7, "name": "dog", "isthing": 1, "supercategory": "animal"},
    {"id": 3, "name": "cat", "isthing": 0, "supercategory": "animal"},
]
IMAGES = [{"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE} for number in (41, 42, 43)]
MASKS: list[Any] = [
    [[1, 1, 6, 1, 6, 6, 1, 6], [0, 0, 3, 0, 3, 3]],
    {"size": [SIDE, SIDE], "counts": [8, 30, 26]},
    {"size": [SIDE, SIDE], "counts": "0P2"},
]
ANNOTATIONS = [
    {
        "id": number,
        "image_id": 41 + number % 2,
        "category_id": (3, 7)[number % 2],
        "bbox": [1, 1, 5, 5.5],
        "area": 20.5,
    }
    | {"iscrowd": number % 2, "segmentation": MASKS[number % 3]}
    for number in range(6)
]
SEGMENTS = [{"id": 1, "category_id": 7, "iscrowd": 0}, {"id": 258, "category_id": 3, "area": 10}]


def read_coco(folder: Path, random: Random) -> bool:
    content = {"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS}
    places = _write_coco(folder, random, content)
    task = random.choice(["object_detection", "instance_segmentation"])
    return read_all(CocoOptions(**places, bad_samples=random.choice(["skip", "refuse"])), TASKS[task])


def read_coco_panoptic(folder: Path, random: Random) -> bool:
    annotations = [{"image_id": image["id"], "file_name": image["file_name"]} for image in IMAGES]
    annotations = [annotation | {"segments_info": SEGMENTS} for annotation in annotations]
    content = {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations}
    places = _write_coco(folder, random, content)
    numbers = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    numbers[:4, :, 0], numbers[4:7] = 1, [2, 1, 0]
    for image in IMAGES:
        write(folder / "masks" / image["file_name"], _saved(numbers), random)
    options = CocoPanopticOptions(
        **places, masks=dict.fromkeys(SPLITS, "masks"), bad_samples=random.choice(["skip", "refuse"])
    )
    return read_all(options, TASKS["panoptic_segmentation"])


def _write_coco(folder: Path, random: Random, content: dict[str, Any]) -> dict[str, Any]:
    """The places of its parts for the options."""
    for image in IMAGES:
        write(folder / "images" / image["file_name"], _saved(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)), random)
    data = json_text(changed_json(content, random, random.choice([0, 1, 1, 1, 2, 5])), random)
    write(folder / "a.json", data, random)
    whole = json_text(content, Random(0)) if random.random() < 0.5 else data
    write(folder / "b.json", whole, random)
    return {
        "path": str(folder),
        "images": dict.fromkeys(SPLITS, "images"),
        "annotations": {"train": "a.json", "validation": "b.json"},
    }


def write(path: Path, data: bytes, random: Random) -> None:
    """A file, or now and then what is not expected in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match random.randrange(150):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path.name)
        case 2:
            path.write_bytes(b"")
        case 3:
            pass
        case 4:
            path.write_bytes(damaged(data, random, data))
        case 5:
            path.write_bytes(picture(random))
        case _:
            path.write_bytes(data)


def _saved(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


XML = """<?xml version="1.0" encoding="utf-8"?>
<annotation><filename>a.png</filename><size><width>8</width><height>8</height></size>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>6</xmax><ymax>7.5</ymax></bndbox></object>
<object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></object>
</annotation>"""

WORDS = [
    "",
    "nan",
    "inf",
    "-1",
    "1e400",
    "9" * 5000,
    "a",
    "../a",
    "/etc/passwd",
    "C:\\a",
    "a\0b",
    "a b",
    "b.jpg",
    "&amp;",
    "&x;",
]
"""In the place of what an XML file or a list says."""

NESTED = ["<object>" * 50000, "<a>" * 300 + "</a>" * 300, '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">]>']


def read_voc(folder: Path, random: Random) -> bool:
    names = ["a", "b c", "ü"]
    for name in names:
        write(folder / "JPEGImages" / f"{name}{random.choice(['.jpg', '.png', '.JPG'])}", GREY, random)
        write(folder / "Annotations" / f"{name}.xml", _xml(random), random)
        write(folder / "SegmentationClass" / f"{name}.png", _mask(random), random)
    for kind in ("Main", "Segmentation"):
        lines = [*names, random.choice(WORDS)]
        if random.random() < 0.3:
            lines = [f"{line} {random.choice(['-1', ' 0', ' 1'])}" for line in lines]
        text = random.choice(["\n", "\r\n", "\r", " \n\n"]).join(lines).encode(random.choice(ENCODINGS))
        for split in SPLITS:
            write(folder / "ImageSets" / kind / f"{split}.txt", text, random)
    options = VocOptions(path=str(folder), labels=["cat", "dog"], palette=random.choice([None, None, PALETTE]))
    return read_all(options, TASKS[random.choice(["object_detection", "semantic_segmentation"])])


def _xml(random: Random) -> bytes:
    text = XML
    for _ in range(random.choice([0, 1, 1, 2])):
        value = random.choice(re.findall(r">([^<>]+)<", text))
        text = text.replace(f">{value}<", f">{random.choice(WORDS)}<", random.choice([1, 9]))
    if random.random() < 0.1:
        place = random.choice([match.end() for match in re.finditer(">", text)])
        text = text[:place] + random.choice(NESTED) + text[place:]
    return damaged(text.encode(), random) if random.random() < 0.2 else text.encode(random.choice(ENCODINGS))


def read_folders(folder: Path, random: Random) -> bool:
    for place in ("a", "b c", "sub/ü", "._a", "@eaDir/a"):
        write(folder / "images" / f"{place}{random.choice(['.png', '.JPG', '.tif'])}", GREY, random)
        write(folder / "masks" / f"{place}.png", _mask(random), random)
    if random.random() < 0.1:
        (folder / "images" / "loop").symlink_to(folder / "images")
    options = FoldersOptions(
        path=str(folder),
        images=dict.fromkeys(SPLITS, "images"),
        masks=dict.fromkeys(SPLITS, "masks"),
        labels=["cat", "dog"],
        ignore_index=random.choice([255, 0, 7]),
        reduce_labels=random.random() < 0.3,
        palette=random.choice([None, None, PALETTE]),
        bad_samples=random.choice(["skip", "refuse"]),
    )
    return read_all(options, TASKS["semantic_segmentation"])


def read_instance_masks(folder: Path, random: Random) -> bool:
    numbers, files = random.choice([0, 1]), random.choice(["numbers", "files"])
    for name in ("sub/ü", "._a"):
        write(folder / "images" / f"{name}{random.choice(['.png', '.JPG', '.tif'])}", GREY, random)
        place = f"masks/{name}.png" if files == "numbers" else f"masks/{name}/{numbers}.png"
        mask = _mask(random)
        write(folder / place, damaged(mask, random) if random.random() < 0.2 else mask, random)
    options = InstanceMasksOptions(
        path=str(folder),
        images=dict.fromkeys(SPLITS, "images"),
        masks=dict.fromkeys(SPLITS, "masks"),
        objects=files,
        bad_samples=random.choice(["skip", "refuse"]),
    )
    return read_all(options, TASKS[random.choice(options.tasks)])


YOLO = {
    "data.yaml": "path: .\ntrain: train/images\nval: ../val.txt\nnames:\n  0: cat\n  1: dog\n",
    "val.txt": "train/images/a.png\r\ntrain/images/b c.png\n",
    "train/labels/a.txt": "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.9 0.1 0.9 0.9\n",
    "train/labels/b c.txt": "1 0.2 0.2 0.4 0.4\n",
}


def read_yolo(folder: Path, random: Random) -> bool:
    for name in ("a", "b c", "._a"):
        write(folder / "train" / "images" / f"{name}.png", GREY, random)
    for name, text in YOLO.items():
        for _ in range(random.choice([0, 0, 0, 1, 2])):
            text = text.replace(random.choice(text.split()), random.choice(WORDS), random.choice([1, 9]))
        data = text.encode(random.choice(ENCODINGS))
        write(folder / name, damaged(data, random) if random.random() < 0.1 else data, random)
    task = random.choice(["object_detection", "instance_segmentation"])
    options = YoloOptions(path=str(folder), bad_samples=random.choice(["skip", "refuse"]))
    return read_all(options, TASKS[task])


PALETTE = {"cat": (0, 0, 0), 1: [(1, 1, 1), (255, 0, 0)]}
GREY = _saved(np.full((SIDE, SIDE, 3), 128, dtype=np.uint8))
ENCODINGS = ["utf-8"] * 5 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"]


def _mask(random: Random) -> bytes:
    """Of ids or colours, in any mode, or a picture that is none."""
    ids = np.random.default_rng(0).integers(0, random.choice([2, 2, 3, 256]), (SIDE, SIDE), dtype=np.uint8)
    match random.randrange(12):
        case 0:
            return picture(random)
        case 1:
            return _saved(np.stack([ids] * 3, axis=-1))
        case 2:
            return _saved(ids.astype(np.uint16))
        case 3:
            return _saved(ids.astype(np.int32))
        case 4:
            return _saved(ids.astype(bool))
        case _:
            return _saved(ids)


READERS: dict[str, Callable[[Path, Random], bool]] = {
    "images": read_pictures,
    "coco": read_coco,
    "coco_panoptic": read_coco_panoptic,
    "voc": read_voc,
    "folders": read_folders,
    "instance_masks": read_instance_masks,
    "yolo": read_yolo,
    "datasets": read_datasets,
}
