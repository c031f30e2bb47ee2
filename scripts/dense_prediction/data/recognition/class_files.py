"""Files in which tools write the names of classes, and perhaps the number or colour that stands for each in masks."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..annotations.text_files import read_json, read_lines
from .survey import Survey


Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassFile:
    """What such a file says.

    Attributes:
        path: below the root.
        names: in its order.
        ids: the number of each in masks; nothing where it says none.
        colours: the same of red, green and blue.
        zero_is_void: 0 in masks is no class.
    """

    path: str
    names: list[str]
    ids: list[int] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    zero_is_void: bool = False


def find_class_file(survey: Survey) -> ClassFile | None:
    """The one nearest to the root that can be read."""
    for name, read in READERS.items():
        for path in survey.named(name):
            try:
                return read(survey.root / path, path)
            except (UserError, ValueError, KeyError, TypeError, AttributeError, csv.Error, json.JSONDecodeError):
                continue  # a file of this name that holds something else
    return None


def _labelmap(file: Path, path: str) -> ClassFile:
    """CVAT's: label:red,green,blue:parts:actions."""
    rows = [line.split(":") for line in read_lines(file) if not line.startswith("#")]
    return _checked(ClassFile(path, [row[0] for row in rows], colours=[_colour(row[1].split(",")) for row in rows]))


def _pixel_values(file: Path, path: str) -> ClassFile:
    """Roboflow's: Pixel Value, Class."""
    rows = list(csv.reader(read_lines(file), skipinitialspace=True))[1:]
    return _checked(ClassFile(path, [row[1].strip() for row in rows], ids=[int(row[0]) for row in rows]))


def _coloured_table(file: Path, path: str) -> ClassFile:
    """CamVid's: name, r, g, b."""
    rows = list(csv.reader(read_lines(file), skipinitialspace=True))[1:]
    return _checked(ClassFile(path, [row[0].strip() for row in rows], colours=[_colour(row[1:4]) for row in rows]))


def _coloured_list(file: Path, path: str) -> ClassFile:
    """CamVid's, and CVAT's for it: red green blue name."""
    rows = [line.split(maxsplit=3) for line in read_lines(file)]
    return _checked(ClassFile(path, [row[3] for row in rows], colours=[_colour(list(row[:3])) for row in rows]))


def _machine_colours(file: Path, path: str) -> ClassFile:
    """Supervisely's: {name: [red, green, blue]}, with a number in each of the three."""
    content: dict[str, Any] = read_json(file)
    colours = [_colour(value) for value in content.values()]
    if all(red == green == blue for red, green, blue in colours):
        return _checked(ClassFile(path, list(content), ids=[red for red, _, _ in colours]))
    return _checked(ClassFile(path, list(content), colours=colours))


def _ade20k(file: Path, path: str) -> ClassFile:
    """ADE20K's table: Idx, Ratio, Train, Val, Stuff, Name."""
    rows = [line.split("\t") for line in read_lines(file)][1:]
    return _checked(ClassFile(path, [row[-1] for row in rows], ids=[int(row[0]) for row in rows], zero_is_void=True))


def _list(file: Path, path: str) -> ClassFile:
    """A name a line; a number before it, as in `0: cat`, is its place."""
    names = [re.sub(r"^\d+\s*[:.,]\s*", "", line) for line in read_lines(file)]
    names = [name for name in names if name not in ("__ignore__", "_ignore_")]  # labelme's
    return _checked(ClassFile(path, ["background" if name == "_background_" else name for name in names]))


READERS: dict[str, Callable[[Path, str], ClassFile]] = {
    "labelmap.txt": _labelmap,
    "_classes.csv": _pixel_values,
    "class_dict.csv": _coloured_table,
    "label_class_dict.csv": _coloured_table,
    "class_dict_seg.csv": _coloured_table,
    "label_colors.txt": _coloured_list,
    "obj_class_to_machine_color.json": _machine_colours,
    "objectinfo150.txt": _ade20k,
    "classes.txt": _list,
    "class_names.txt": _list,
    "labels.txt": _list,
    "codes.txt": _list,
    "names.txt": _list,
}
"""By how the files are called, those that say more before the others."""


def _colour(values: list[Any]) -> Colour:
    red, green, blue = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError("no colour")
    return red, green, blue


def _checked(file: ClassFile) -> ClassFile:
    if not file.names or not all(file.names) or len(set(file.ids)) < len(file.ids):
        raise ValueError("no names, or a number twice")
    return file
