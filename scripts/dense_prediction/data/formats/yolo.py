"""Detection, instances and painted maps as YOLO tools have them: a YAML file, and a text file of objects a picture.

The layouts of Ultralytics (https://docs.ultralytics.com/datasets/detect and .../datasets/segment), Roboflow and CVAT.
"""

import os  # whose questions, unlike those of a Path, do not raise where a name is too long
from collections.abc import Iterator
from dataclasses import dataclass as plain_dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ..annotations.coco_masks import FEWEST_COORDINATES, decode_segmentation
from ..annotations.file_names import files_below, leads_out, locate
from ..annotations.instances import Instance, OutlinesOptions, instance_fields, to_corners
from ..annotations.numbers import short, whole_number
from ..annotations.text_files import read_lines, read_text
from ..bad_samples import BadSample
from ..images import is_picture_name, read_picture
from ..options import SplitPlaces, it_has, some
from ..painted_maps import PaintedOptions
from ..samples import Glance, Sample, Source, UncheckedSplit, new_sample


DESCRIPTIONS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
"""How the tools call the YAML file."""

IMAGES, LABELS = "images", "labels"
"""The last folder of that name in a picture's path is the other one in that of its text file."""

SPLITS = ("train", "val", "valid", "validation", "test")

BOX = 4

SLACK = 0.05
"""How far outside of the picture a coordinate may be, as a share of it; tools round, and crop after drawing."""


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class YoloOptions(SplitPlaces, OutlinesOptions, PaintedOptions):
    """The folder of the YAML file, or that file; its splits are the keys train, val and test.

    With `images`, no YAML file is asked: they say where the splits are, and `labels` names the classes.
    """

    tasks: ClassVar[tuple[str, ...]] = ("instance_segmentation", "object_detection", "semantic_segmentation")

    format: Literal["yolo"] = "yolo"
    validation_split: str = Field(default="val", description="split to measure and to choose the best model on")

    def open_objects(self, masks: bool) -> Source:
        """The pictures that the YAML file names for each split, with the classes that it names."""
        description = self._description()
        labels = self.class_names(list(description.names.values()))
        if strangers := [label for label in labels if label not in description.names.values()]:
            raise UserError(
                f"data.labels: {some(strangers, 5)} is no class of {description.file}, it has "
                f"{some(list(description.names.values()))}"
            )
        ids = {name: number for number, name in description.names.items()}

        def open_split(key: str) -> UncheckedSplit:
            images = description.images(getattr(self, key), key)
            return YoloSplit(images, description, labels, masks, self)

        return Source(labels, frozenset(range(len(labels))), open_split, [ids[label] for label in labels])

    def _description(self) -> "Description":
        if not self.images:
            return Description.read(self._file())
        names, folder = dict(enumerate(self.class_names(None))), self.root_folder()
        return Description(folder, folder, names, {split: [place] for split, place in self.images.items()})

    def _file(self) -> Path:
        path = Path(self.path).expanduser()
        if path.is_file():
            return path
        folder = self.root_folder()
        found = [folder / name for name in DESCRIPTIONS if (folder / name).is_file()]
        found = found or sorted(file for ending in ("*.yaml", "*.yml") for file in folder.glob(ending))
        if len(found) != 1 and not (found and found[0].name in DESCRIPTIONS):
            raise UserError(
                f"data.path={self.path}: expected a data.yaml with train, val and names in {folder.absolute()}"
                f"{it_has(file.name for file in found)}; set data.path to the file"
            )
        return found[0]


@plain_dataclass(frozen=True)
class Description:
    """What the YAML file says.

    Attributes:
        names: class names by the numbers that the text files have, in their order.
        places: what it says of each split: a folder or a list of pictures, or several of them.
    """

    file: Path
    root: Path
    names: dict[int, str]
    places: dict[str, list[str]]

    @classmethod
    def read(cls, file: Path) -> "Description":
        """The file at a path.

        Raises:
            UserError: it is no such file.
        """
        try:
            # Whose values are all text: a class may be called no, which is false to others.
            content = yaml.load(read_text(file), yaml.BaseLoader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise UserError(f"{file} is not YAML: {' '.join(str(error).split())[:200]}") from error
        if not isinstance(content, dict):
            raise UserError(f"{file} must hold train, val and names, got {short(content)}")
        places = {split: _places(content[split], f"{file}: {split}") for split in SPLITS if content.get(split)}
        return cls(file, _root(file, content.get("path")), _names(content.get("names"), file), places)

    def images(self, split: str, key: str) -> list[Path]:
        """The pictures of a split, in the order of their names or of its list.

        Raises:
            UserError: the file does not name the split, or what it names is not there.
        """
        if split not in self.places:
            raise UserError(f"data.{key}={split}: {self.file} has no such split{it_has(self.places)}")
        images = [image for place in self.places[split] for image in self._images_at(self._find(place))]
        if images and not any(os.path.isfile(label_file(image)) for image in images):
            raise UserError(
                f"data.{key}={split}: none of {len(images)} pictures has a text file: {images[0]} would have "
                f"{label_file(images[0])}"
            )
        return images

    def _find(self, place: str) -> Path:
        """A folder or a list, below the folder of the YAML file wherever the tool that wrote it has had that.

        Roboflow writes ../train/images of what stands beside the file.
        """
        parts = PurePosixPath(place.replace("\\", "/")).parts
        inside = [part for part in parts if part not in ("..", ".", "/")]
        endings = [inside[start:] for start in range(len(inside))]
        # A folder images by itself may be that of all splits.
        kept = [ending for ending in endings if ending != [IMAGES] or inside == [IMAGES]] or [inside]
        for folder in dict.fromkeys((self.root, self.file.parent)):
            for ending in kept:
                if os.path.exists(found := folder.joinpath(*ending)):
                    return found
        raise UserError(f"{self.file}: it names {place}, and {self.root.absolute()} has no such folder or list")

    def _images_at(self, place: Path) -> Iterator[Path]:
        if os.path.isdir(place):
            yield from sorted(path for path in files_below(place) if is_picture_name(path.name))
            return
        for line in read_lines(place):
            yield self._listed(line.removeprefix("./"), place)

    def _listed(self, name: str, place: Path) -> Path:
        """A picture of a list, below the folder of the YAML file or of the list; CVAT writes data/ before its name."""
        found = locate(self.root, name, f"a line of {place}")
        parts = PurePosixPath(name).parts
        for folder in (self.root, place.parent):
            for start in range(len(parts)):
                other = locate(folder, "/".join(parts[start:]), f"a line of {place}")
                if os.path.exists(other):
                    return other
        return found


def _root(file: Path, said: Any) -> Path:
    """The folder that all else is in. A path of another machine, and one that leads out, is that of the file."""
    if isinstance(said, str) and not leads_out(said) and os.path.isdir(file.parent / said):
        return file.parent / said
    return file.parent


def _places(said: Any, name: str) -> list[str]:
    places = [said] if isinstance(said, str) else said
    if not isinstance(places, list) or not all(isinstance(place, str) and place for place in places):
        raise UserError(f"{name} must be a folder or a list of pictures, or several, got {short(said)}")
    return places


def _names(said: Any, file: Path) -> dict[int, str]:
    pairs = dict(enumerate(said)) if isinstance(said, list) else said
    if not isinstance(pairs, dict) or not pairs or not all(isinstance(name, str) and name for name in pairs.values()):
        raise UserError(f"{file}: names must be a list of class names, or number: name, got {short(said)}")
    try:
        return dict(sorted((whole_number(key), name) for key, name in pairs.items()))
    except ValueError as error:
        raise UserError(f"{file}: names must be a list, or begin with numbers, got {short(list(pairs))}") from error


class YoloSplit:
    """Pictures, each with a text file of its objects.

    Args:
        description: with the class names by the numbers in the text files.
        masks: read the polygons as masks too.
    """

    def __init__(
        self,
        images: list[Path],
        description: Description,
        labels: list[str],
        masks: bool,
        options: YoloOptions,
    ) -> None:
        self.images, self.root = images, description.root
        self.names, self.labels = description.names, labels
        self.left_out = {number for number, name in self.names.items() if name not in labels}
        self.masks = masks
        self.orientation, self.boxes_as_outlines = options.exif_orientation, options.boxes_as_outlines

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path = self.images[index]
        image = read_picture(path, self.orientation)
        size = image.height, image.width
        kept = [each for each in self._objects(path) if each.number not in self.left_out]
        instances = [self._instance(each, size) for each in kept]
        objects = instance_fields(instances, size, str(path), "xyxy", masks=self.masks)
        return new_sample(image, str(path), index) | objects

    def glance(self, index: int) -> Glance:
        """Of which classes its objects are."""
        return Glance([self.names.get(each.number) for each in self._objects(self.images[index])])

    def picture_names(self) -> list[str]:
        """What each picture is called below the folder of all."""
        return [os.path.relpath(image, self.root).replace(os.sep, "/") for image in self.images]

    def _objects(self, image: Path) -> list["YoloObject"]:
        """What the text file says; a picture without one shows nothing. Equal lines are one object."""
        file = label_file(image)
        if not os.path.isfile(file):
            return []
        try:
            lines = read_lines(file)
        except UserError as error:
            raise BadSample(str(error)) from error
        return [YoloObject.parse(line, f"{file}: {short(line)}") for line in dict.fromkeys(lines)]

    def _instance(self, each: "YoloObject", size: tuple[int, int]) -> Instance:
        name = self.names.get(each.number)
        label = self.labels.index(name) if name in self.labels else None
        mask = each.mask(size, self.boxes_as_outlines) if self.masks else None
        return Instance(each.box(size), label, each.number if name is None else name, mask=mask)


def label_file(image: Path) -> Path:
    """.../images/train/a.jpg -> .../labels/train/a.txt; where there is no such file, a.txt beside the picture."""
    beside, parts = image.with_suffix(".txt"), list(image.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == IMAGES]
    if not places:
        return beside
    parts[places[-1]] = LABELS
    file = Path(*parts).with_suffix(".txt")
    # All of the data may be in a folder that is called images.
    return beside if os.path.isfile(beside) and not os.path.isfile(file) else file


@plain_dataclass(frozen=True)
class YoloObject:
    """One line: a class, and a box (centre, width, height) or a polygon, in shares of the picture.

    Attributes:
        name: what a message calls it.
    """

    number: int
    coordinates: tuple[float, ...]
    name: str

    @classmethod
    def parse(cls, line: str, name: str) -> "YoloObject":
        """A line of a text file.

        Raises:
            BadSample: it is none of the two.
        """
        first, *others = line.split()
        try:
            number, coordinates = whole_number(float(first)), tuple(map(float, others))
        except (ValueError, OverflowError) as error:
            raise BadSample(f"{name}: expected the number of a class and coordinates") from error
        is_polygon = len(coordinates) >= FEWEST_COORDINATES and len(coordinates) % 2 == 0
        if len(coordinates) != BOX and not is_polygon:
            raise BadSample(
                f"{name}: {len(coordinates)} numbers after the class, expected {BOX} of a box, or an even number of "
                f"{FEWEST_COORDINATES} or more of a polygon"
            )
        if not all(-SLACK <= value <= 1 + SLACK for value in coordinates):  # also when one is NaN
            raise BadSample(f"{name}: coordinates must be shares of the picture's width and height, 0 to 1")
        return cls(number, coordinates, name)

    def box(self, size: tuple[int, int]) -> list[float]:
        """Left, top, right and bottom in pixels of a picture of height and width `size`."""
        height, width = size
        if len(self.coordinates) == BOX:
            corners = to_corners(np.array([self.coordinates]), "cxcywh")[0]
        else:
            x, y = self.coordinates[::2], self.coordinates[1::2]
            corners = np.array([min(x), min(y), max(x), max(y)])
        return (corners * [width, height, width, height]).tolist()

    def mask(self, size: tuple[int, int], boxes_as_outlines: bool = False) -> np.ndarray:
        """(H, W) bool.

        Raises:
            BadSample: it is a box, which is no outline.
        """
        if len(self.coordinates) == BOX and boxes_as_outlines:
            left, top, right, bottom = self.box(size)
            return decode_segmentation([[left, top, right, top, right, bottom, left, bottom]], size, self.name)
        if len(self.coordinates) == BOX:
            raise BadSample(
                f"{self.name}: it is a box, and instances need polygons: export them, or learn task=object_detection"
            )
        height, width = size
        polygon = [value * side for value, side in zip(self.coordinates, (width, height) * len(self.coordinates))]
        return decode_segmentation([polygon], size, self.name)
