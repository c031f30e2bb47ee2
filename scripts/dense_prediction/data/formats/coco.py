"""Detection and instance segmentation from COCO's JSON files."""

from pathlib import Path
from typing import Any

from ..bad_samples import BadSample
from ..images import read_rgb
from ..instances import Instance, check_size, instance_fields
from ..options import DataOptions
from ..samples import Sample, Split, new_sample
from ..source import Source, split_path
from .coco_json import CocoFile, coco_labels, image_path
from .coco_masks import decode_segmentation


class CocoSplit:
    """The images of one JSON file.

    Args:
        masks: read the segmentations too.
    """

    def __init__(self, file: CocoFile, images: Path, labels: list[str], masks: bool, recipe: DataOptions) -> None:
        self.records = file.records(recipe.bad_samples == "skip")
        self.images = images
        self.labels = file.category_labels(labels)
        self.masks = masks
        self.orientation = recipe.exif_orientation

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        fields, annotations = self.records[index]
        path = image_path(self.images, fields)
        image = read_rgb(path, self.orientation)
        size = image.height, image.width
        check_size(size, (fields.get("height"), fields.get("width")), path)
        instances = [self._instance(annotation, size, path) for annotation in annotations]
        objects = instance_fields(instances, size, str(path), masks=self.masks)
        return new_sample(image, str(path), fields["id"]) | objects

    def _instance(self, annotation: dict[str, Any], size: tuple[int, int], path: Path) -> Instance:
        name = f"{path}: annotation {annotation.get('id')}"
        box, category = annotation.get("bbox"), annotation.get("category_id")
        if box is None or category is None:
            raise BadSample(f"{name} has no bbox or no category_id")
        return Instance(
            box,
            self.labels.get(category),
            category,
            annotation.get("iscrowd", False),
            annotation.get("area"),
            decode_segmentation(annotation.get("segmentation"), size, name) if self.masks else None,
        )


def open_coco(recipe: DataOptions, task: str) -> Source:
    """The JSON files that `data.annotations` names for each split, with the folders of `data.images`.

    Raises:
        UserError: a file or folder is missing or damaged, or the class names contradict the categories.
    """
    train = CocoFile(split_path(recipe, "annotations", "train_split"))
    labels = coco_labels(recipe, task, train)
    masks = task == "instance_segmentation"

    def open_split(key: str) -> Split:
        file = train if key == "train_split" else CocoFile(split_path(recipe, "annotations", key))
        return CocoSplit(file, split_path(recipe, "images", key), labels, masks, recipe)

    return Source(labels, frozenset(range(len(labels))), open_split)
