"""What a trained model sees in images, as pictures and as JSON: `vit-comer predict MODEL_FOLDER IMAGE ...`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm import tqdm

from dense_prediction.atomic_files import write_text
from dense_prediction.command_line import ArgumentParser, run, watch, without_their_progress_bars
from dense_prediction.errors import UserError, named
from dense_prediction.prediction.annotated_images import AnnotatedImages, coco_results
from dense_prediction.prediction.found_tables import (
    CLASS_COLUMNS,
    CLASSES_CSV,
    OBJECT_COLUMNS,
    OBJECTS_CSV,
    Row,
    class_rows,
    label_image,
    object_rows,
    to_csv,
)
from dense_prediction.prediction.image_files import (
    LABELS_SUFFIX,
    OVERLAY_SUFFIX,
    find_images,
    make_folder,
    output_stems,
)


if TYPE_CHECKING:
    from dense_prediction.batches.types import Prediction
    from dense_prediction.prediction.trained_model import TrainedModel


JSON_SUFFIX = ".prediction.json"
RESULTS = "coco_results.json"

KINDS = ("overlay", "json", "labels", "csv")
"""Of what can be written."""

DESCRIPTION = """\
Show what a trained model sees in images: classes, segments or boxes drawn over each picture, with a legend, the same
as JSON and as an image of ids, and tables of what was found in all of them.

  vit-comer predict outputs/my_run photo.jpg       # photo.overlay.png, photo.prediction.json, photo.labels.png, tables
  vit-comer predict outputs/my_run pictures/ --output found/ --write csv                  # the tables alone
  vit-comer predict outputs/my_run/best_model holiday_pictures/ --output found/
  vit-comer predict outputs/my_run/best_model frames/ --output found/ --legend all      # frames of a video
  vit-comer predict outputs/my_run/best_model val/ --output found/ --annotations val.json --score-threshold 0

A folder's images, also those in its folders, are taken in natural order (frame_2 before frame_10). A class has the
same colour in all of them; with --legend all or none, frames of one size give overlays of one size, for example for
ffmpeg. Images are read as RGB, turned as their EXIF data say, and may have any size from 32 pixels.

predicted_objects.csv has a row for each object or segment: picture, number, class, score, box and area in pixels (of
the mask or, where there is none, of the box). predicted_classes.csv has one for each picture and class, found or not:
count (not of semantic segmentation), area, and the area's share of the picture. Both are written into --output or,
without it, into the folder that is named first (or that of the picture that is). photo.labels.png holds in each pixel
the category_id of its class or, of objects and segments, their number in the table, 0 for none: 8 bits, or 16 where
ids are larger than 255. Boxes alone have none.

In the drawing small objects have thin outlines with nothing inside, and neither more than 20 objects nor those of a
model of one class have names, which would hide them: the legend tells the classes.

The JSON holds one entry of "annotations" for each object (or class): "category_id" as the training data have it,
"category", "score", "bbox" as x, y, width, height, and "segmentation" as COCO's compressed RLE, which
pycocotools.mask.decode reads. With --annotations there is also coco_results.json with the results of all images, which
COCO(FILE.json).loadRes reads. An image that cannot be read is named, the others are done all the same, and the exit
code is 1.
"""


@dataclass(frozen=True)
class Found:
    """What was seen in one image: rows of both tables, and the results that COCO's tools read."""

    objects: list[Row]
    classes: list[Row]
    results: list[dict[str, Any]]


@dataclass(frozen=True)
class Writer:
    """Writes what a trained model sees.

    Attributes:
        kinds: of `KINDS`, what is written.
    """

    model: "TrainedModel"
    legend: str
    annotated: AnnotatedImages | None
    kinds: Sequence[str]

    def __call__(self, path: Path, stem: Path) -> Found:
        """Write what belongs to one image, and return what belongs to all.

        Raises:
            UserError: the image cannot be read or predicted, or a file cannot be written.
        """
        model = self.model
        image = model.to_rgb(path) if self.annotated is None else self.annotated.read(path, model.intensity)
        with named([str(path)]):
            prediction = self.model.predict(image, name=str(path))
        described = self.model.describe(path, prediction, (image.height, image.width))
        objects, classes = object_rows(path, described), class_rows(path, described, self.has_objects)
        if self.annotated is not None:
            described = self.annotated.identify(path, described)
        pictures = self._pictures(image, prediction)
        make_folder(stem.parent)
        try:
            for suffix, picture in pictures.items():
                picture.save(add_suffix(stem, suffix))
            if "json" in self.kinds:
                add_suffix(stem, JSON_SUFFIX).write_text(json.dumps(described) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write what was found in {path}: {error}") from error
        return Found(objects, classes, [] if self.annotated is None else coco_results(described))

    @property
    def has_objects(self) -> bool:
        """Whether what the model finds can be counted."""
        return "labels" in self.model.task.columns

    def _pictures(self, image: Image.Image, prediction: "Prediction") -> dict[str, Image.Image]:
        """By their suffixes."""
        pictures = {}
        if "overlay" in self.kinds:
            pictures[OVERLAY_SUFFIX] = self.model.draw(image, prediction, self.legend)
        if "labels" in self.kinds and (ids := label_image(prediction, self.model.category_ids)) is not None:
            pictures[LABELS_SUFFIX] = ids
        return pictures


def main() -> None:
    arguments = parse_arguments()
    images = find_images(arguments.images)
    annotated = None
    if arguments.annotations is not None:
        annotated = AnnotatedImages(arguments.annotations, images)
        images = {path: images[path] for path in annotated.entries}
    predict(arguments, output_stems(images, arguments.output), annotated)


@without_their_progress_bars()
def predict(arguments: argparse.Namespace, stems: dict[Path, Path], annotated: AnnotatedImages | None) -> None:
    # Not before the arguments are read, because torch takes seconds.
    from dense_prediction.prediction.trained_model import load_model

    options = {"threshold": arguments.score_threshold, "max_detections": arguments.max_detections}
    model = load_model(arguments.model, **options)
    if annotated is not None:
        annotated.check_labels(model.labels)
    make_folder(arguments.output)
    writer = Writer(model, arguments.legend, annotated, arguments.write)
    found = predict_all(writer, stems)
    if "overlay" in arguments.write:
        for path in found:
            print(add_suffix(stems[path], OVERLAY_SUFFIX))
    if "csv" in arguments.write:
        write_tables(table_folder(arguments), list(found.values()), writer.has_objects)
    if annotated is not None:
        results = arguments.output / RESULTS
        write_text(results, json.dumps([each for seen in found.values() for each in seen.results]) + "\n")
        print(results)
    if failed := [str(path) for path in stems if path not in found]:
        raise UserError(f"{len(failed)} of {len(stems)} images failed: {', '.join(failed)}")


def table_folder(arguments: argparse.Namespace) -> Path:
    """Where the tables of all images go: beside the first one if no other place was asked for."""
    first: Path = arguments.images[0]
    return arguments.output or (first if first.is_dir() else first.parent)


def write_tables(folder: Path, found: Sequence[Found], has_objects: bool) -> None:
    """Both tables, or of what cannot be counted that of the classes alone.

    Raises:
        UserError: the folder cannot be written into.
    """
    tables = {CLASSES_CSV: to_csv(CLASS_COLUMNS, (row for seen in found for row in seen.classes))}
    if has_objects:
        tables = {OBJECTS_CSV: to_csv(OBJECT_COLUMNS, (row for seen in found for row in seen.objects))} | tables
    for name, text in tables.items():
        try:
            write_text(folder / name, text)
        except OSError as error:
            raise UserError(f"cannot write {folder / name}: {error}") from error
        print(folder / name)


def predict_all(write: Writer, stems: dict[Path, Path]) -> dict[Path, Found]:
    """What was found in every image, with a line on stderr for each that fails; the only one raises instead."""
    found = {}
    for path, stem in watch(stems.items(), "predicting", unit="image", shown=len(stems) > 1):
        try:
            found[path] = write(path, stem)
        except UserError as error:
            if len(stems) == 1:
                raise
            tqdm.write(f"error: {error}", file=sys.stderr)
    return found


def add_suffix(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", metavar="MODEL_FOLDER", type=Path, help="what train.py wrote, OUTPUT or OUTPUT/best_model"
    )
    parser.add_argument("images", metavar="IMAGE_OR_FOLDER", type=Path, nargs="+", help="pictures, or folders of them")
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, help="where everything is written (default: beside each image)"
    )
    parser.add_argument(
        "--annotations",
        metavar="FILE.json",
        type=Path,
        help="a COCO JSON that lists the images: also write coco_results.json, with its ids (needs --output)",
    )
    parser.add_argument(
        "--score-threshold",
        metavar="SCORE",
        type=share,
        help="leave out objects and segments with a lower score, 0 to 1 (default: 0.5, of panoptic segmentation 0.8)",
    )
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=count,
        default=100,
        help="keep the best N boxes or instances of an image (default: %(default)s)",
    )
    parser.add_argument(
        "--legend",
        choices=["found", "all", "none"],
        default="found",
        help="the classes below an overlay: those found in it, all that the model knows, or none (default: found)",
    )
    parser.add_argument(
        "--write",
        metavar="KINDS",
        type=kinds,
        default=KINDS,
        help=f"what is written, separated by commas: {', '.join(KINDS)} (default: all)",
    )
    arguments = parser.parse_args()
    if arguments.annotations is not None and arguments.output is None:
        parser.error(f"--annotations needs --output FOLDER, where {RESULTS} is written")
    return arguments


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in 0 to 1, got {text}")
    return value


def kinds(text: str) -> list[str]:
    chosen = text.split(",")
    if strangers := [kind for kind in chosen if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"there is no {strangers[0]!r}, choose from {', '.join(KINDS)}")
    return chosen


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return value


if __name__ == "__main__":
    run(main)
