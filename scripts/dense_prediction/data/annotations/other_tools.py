"""What tools write that no format reads: what it is called, and how it becomes something that is read."""

import re
from dataclasses import dataclass
from pathlib import Path


BEGINNING = 1 << 16
"""Bytes of a file that are looked at."""


@dataclass(frozen=True)
class Kind:
    """One way to write annotations.

    Attributes:
        endings: of the names of its files.
        title: what people call it.
        sign: what stands near the beginning of its files; nothing where the ending says enough.
        advice: what to do with it.
    """

    endings: tuple[str, ...]
    title: str
    sign: str
    advice: str


_AS_COCO = "write them as COCO JSON, or as YOLO's text files with a data.yaml"
_AS_PNG = "save a PNG for each picture, with a number for each class, in a folder masks"

KINDS = [
    Kind(
        (".json",),
        "labelme's JSON",
        r'"shapes"\s*:\s*\[',
        "convert it with examples/instance_segmentation/labelme2coco.py of https://github.com/wkentaro/labelme",
    ),
    Kind(
        (".json",),
        "JSON of VIA (VGG Image Annotator)",
        r'"_via_|"shape_attributes"|"base64_img_data"',
        "open it in VIA, and take Annotation > Export Annotations (COCO format)",
    ),
    Kind(
        (".json",),
        "Supervisely's JSON",
        r'"classTitle"|"classes"\s*:\s*\[\s*\{\s*"(title|name|id)"[^]]*"shape"',
        "export the project as COCO, or with its app Export as masks",
    ),
    Kind((".json",), "CreateML's JSON", r'"coordinates"\s*:\s*\{', "export COCO or YOLO instead"),
    Kind(
        (".json",),
        "Label Studio's JSON",
        r'"(from_name|to_name|rectanglelabels|polygonlabels|brushlabels|completions)"',
        "export COCO or YOLO instead",
    ),
    Kind(
        (".json",),
        "Datumaro's JSON",
        r'"label_id"|"items"\s*:\s*\[',
        "convert it with `datum convert -if datumaro -i DIR -f coco -o OUT -- --save-media`",
    ),
    Kind(
        (".json",),
        "polygons of Cityscapes",
        r'"imgHeight"',
        "its masks gtFine/*_labelIds.png are read, put them beside",
    ),
    Kind((".json",), "JSON of BDD100K or Scalabel", r'"box2d"|"poly2d"', _AS_COCO),
    Kind((".json",), "JSON with boxes that no tool is known to write", r'"(xmin|bbox|x1)"', _AS_COCO),
    Kind(
        (".xml",),
        "CVAT's XML (CVAT for images)",
        r"<annotations>[\s\S]*<(image|meta|track)\b",
        "export COCO 1.0, Ultralytics YOLO or Pascal VOC instead",
    ),
    Kind(
        (".xml",),
        "XML of Aperio ImageScope",
        r"<Annotations\b[\s\S]*<(Region|Annotation)\b",
        "draw its outlines as masks: a PNG for each picture, with a number for each object, in a folder masks",
    ),
    Kind((".xml",), "XML of LabelMe", r"<object>[\s\S]*<polygon>", _AS_COCO),
    Kind(
        (".csv",),
        "CSV of VIA (VGG Image Annotator)",
        r"region_shape_attributes",
        "open it in VIA, and take Annotation > Export Annotations (COCO format)",
    ),
    Kind((".csv",), "CSV with run lengths (Kaggle)", r"(?i)encodedpixels|\brle", f"decode them: {_AS_PNG}"),
    Kind(
        (".csv", ".txt"),
        "CSV of boxes",
        r"(?i)\A[^\n]*\b(x_?min|x_?1|bbox|left)\b|\A[^\n,]+\.(jpe?g|png|tiff?|bmp)(,-?[\d.]+){4}",
        _AS_COCO,
    ),
    Kind(
        (".txt",),
        "text files of KITTI",
        r"\A[A-Za-z_]+ -?[\d.]+ -?\d( -?[\d.]+){12}",
        "convert them with `datum convert -if kitti -i DIR -f coco -o OUT -- --save-media`",
    ),
    Kind(
        (".txt",),
        "text files of DOTA, with turned boxes",
        r"\A(imagesource|gsd)|\A(-?[\d.]+ ){8}[A-Za-z]",
        _AS_COCO,
    ),
    Kind((".tfrecord", ".record"), "TFRecord", "", "export COCO or YOLO instead"),
    Kind((".mat",), "MATLAB's files", "", f"if they hold masks, {_AS_PNG}; else {_AS_COCO}"),
    Kind((".npy", ".npz"), "NumPy's files", "", f"if they hold masks, {_AS_PNG}; else {_AS_COCO}"),
    Kind((".h5", ".hdf5"), "HDF5", "", f"if they hold masks, {_AS_PNG}; else {_AS_COCO}"),
    Kind((".geojson", ".ndjson"), "GeoJSON or lines of JSON", "", _AS_COCO),
]


def kind_of(file: Path) -> Kind | None:
    """What a file is that is not read; None where nothing is known of it."""
    kinds = [kind for kind in KINDS if file.name.casefold().endswith(kind.endings)]
    beginning = _beginning(file) if any(kind.sign for kind in kinds) else ""
    return next((kind for kind in kinds if not kind.sign or re.search(kind.sign, beginning)), None)


def _beginning(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(BEGINNING).decode("utf-8", errors="replace").lstrip("\ufeff")
    except OSError:
        return ""
