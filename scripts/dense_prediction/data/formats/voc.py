"""Pascal VOC: a box for each object in XML files, or masks of class ids whose borders are void.

XML files of the same kind are also read from any folders, as labelImg and Roboflow write them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal
from xml.etree import ElementTree

from pydantic import Field
from pydantic.dataclasses import dataclass

from ...errors import UserError
from ...options import FORBID_UNKNOWN
from ...tasks import Task
from ..annotations.file_names import files_below, is_litter, locate
from ..annotations.instances import Instance, ObjectsOptions, check_size, instance_fields, is_left_out, spellings
from ..annotations.semantic_maps import SemanticIds, SemanticOptions
from ..bad_samples import BadSample
from ..images import read_picture
from ..options import SplitPlaces, it_has
from ..samples import Glance, Sample, Source, new_sample
from .folders import MaskSplit, names_below
from .voc_files import BOXES, IMAGES, LISTS, MaskPairs, image_file, parse_xml, read_stems


CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True, config=FORBID_UNKNOWN)
class VocOptions(SplitPlaces, SemanticOptions, ObjectsOptions):
    """The folder VOC2007 or VOC2012, whose splits are the lists in ImageSets, such as train, val and trainval.

    With `annotations`, the boxes of a split are those of all XML files in a folder, its images in that of `images`.
    """

    tasks: ClassVar[tuple[str, ...]] = ("semantic_segmentation", "object_detection")

    format: Literal["voc"] = "voc"
    annotations: dict[str, str] = Field(
        default_factory=dict, description="folder of the XML files of each split, below path, in the place of lists"
    )

    def open(self, task: Task) -> Source:
        """Its masks or its boxes."""
        return _open_masks(self) if "semantic_map" in task.columns else _open_boxes(self)


class VocBoxes:
    """Detection samples; objects marked as difficult are crowds: neither learnt nor missed.

    Args:
        places: the folders of the images and of the XML files.
        stems: of the XML files, below their folder.
    """

    def __init__(
        self, places: tuple[Path, Path], stems: Sequence[str], labels: list[str], options: VocOptions
    ) -> None:
        self.images, self.annotations = places
        self.stems = stems
        self.labels, self.spellings = labels, spellings(labels)
        self.orientation, self.crowds = options.exif_orientation, options.crowds

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> Sample:
        annotation, path = self._annotation(index)
        kept = [element for element in _objects(annotation) if not is_left_out(_name(element), self.spellings)]
        objects = [self._instance(element, path) for element in kept]
        image_path = image_file(self.images, self.stems[index], annotation.findtext("filename", "").strip())
        annotated = _annotated_size(annotation, path)
        image = read_picture(image_path, self.orientation, annotated)
        size = image.height, image.width
        check_size(size, annotated, image_path)
        boxes = instance_fields(objects, size, str(path), "xyxy")
        return new_sample(image, str(image_path), index) | boxes

    def glance(self, index: int) -> Glance:
        """Of which categories its objects are."""
        objects = list(_objects(self._annotation(index)[0]))
        found = [_name(element) or None for element in objects if not self._is_crowd(element)]
        return Glance(found, crowds=len(objects) - len(found))

    def picture_names(self) -> Sequence[str]:
        """What each image is called."""
        return self.stems

    def _annotation(self, index: int) -> tuple[ElementTree.Element, Path]:
        """What is said of a picture, and the file that says it."""
        stem = self.stems[index]
        path = locate(self.annotations, f"{stem}.xml", f"the annotation of {stem!r}")
        return parse_xml(path), path

    def _is_crowd(self, element: ElementTree.Element) -> bool:
        return self.crowds == "ignore" and element.findtext("difficult", "0").strip() == "1"

    def _instance(self, element: ElementTree.Element, path: Path) -> Instance:
        category = _name(element)
        label = self.labels.index(category) if category in self.labels else None
        try:
            left, top, right, bottom = (float(element.findtext(f"bndbox/{corner}", "")) for corner in CORNERS)
        except ValueError as error:
            raise BadSample(f"{path}: an object of category {category!r} has no box of four numbers") from error
        # The first pixel is number 1, and the last one belongs to the box.
        box = (left - 1, top - 1, right, bottom)
        return Instance(box, label, category, is_crowd=self._is_crowd(element))


def _open_boxes(options: VocOptions) -> Source:
    root, labels = options.root_folder(), options.class_names(None)

    def open_split(key: str) -> VocBoxes:
        if not options.annotations:
            places = root / IMAGES, root / BOXES
            return VocBoxes(places, _stems(options, root / LISTS / "Main", key), labels, options)
        places = options.place("images", key), options.place("annotations", key)
        files = sorted(file for file in files_below(places[1]) if file.suffix.lower() == ".xml")
        return VocBoxes(places, [name[: -len(".xml")] for name in names_below(places[1], files)], labels, options)

    return Source(labels, frozenset(range(len(labels))), open_split)


def _open_masks(options: VocOptions) -> Source:
    root, labels = options.root_folder(), options.class_names(None)
    ids = SemanticIds.of(options, labels)

    def open_split(key: str) -> MaskSplit:
        pairs = MaskPairs(root, _stems(options, root / LISTS / "Segmentation", key))
        return MaskSplit(pairs, ids, options.exif_orientation, pairs.stems)

    return Source(labels, frozenset(), open_split, options.category_ids(labels))


def categories_in(annotation: ElementTree.Element) -> list[str]:
    """What the objects of an XML file are called; an object without a name is called nothing."""
    return [_name(element) for element in _objects(annotation)]


def _objects(annotation: ElementTree.Element) -> Iterator[ElementTree.Element]:
    return annotation.iter("object")


def _name(element: ElementTree.Element) -> str:
    """The category of an object."""
    return element.findtext("name", "").strip()


def _annotated_size(annotation: ElementTree.Element, path: Path) -> tuple[float, float]:
    """Height and width; 0 where tools have left them out."""
    height, width = (annotation.findtext(f"size/{side}") or "0" for side in ("height", "width"))
    try:
        return float(height), float(width)
    except ValueError as error:
        raise BadSample(f"{path}: its height and width are {height!r} and {width!r}") from error


def _stems(options: VocOptions, folder: Path, key: str) -> list[str]:
    path = folder / f"{getattr(options, key)}.txt"
    if not path.is_file():
        names = it_has(sorted(file.stem for file in folder.glob("*.txt") if not is_litter(file.name)))
        raise UserError(f"data.{key}={getattr(options, key)}: {folder.absolute()} has no {path.name}{names}")
    return read_stems(path, options.root_folder())
