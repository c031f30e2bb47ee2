"""What a trained model sees in images, as pictures and as JSON: `vit-comer predict MODEL_FOLDER IMAGE ...`."""

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dense_prediction.atomic_files import write_text
from dense_prediction.command_line import ArgumentParser, run, watch, without_their_progress_bars
from dense_prediction.errors import UserError, named
from dense_prediction.prediction.annotated_images import AnnotatedImages, coco_results
from dense_prediction.prediction.image_files import (
    OVERLAY_SUFFIX,
    find_images,
    make_folder,
    output_stems,
)


if TYPE_CHECKING:
    from dense_prediction.prediction.trained_model import TrainedModel


JSON_SUFFIX = ".prediction.json"
RESULTS = "coco_results.json"

DESCRIPTION = """\
Show what a trained model sees in images: classes, segments or boxes drawn over each picture, with a legend, and the
same as JSON.

  vit-comer predict outputs/my_run/best_model photo.jpg         # photo.overlay.png, photo.prediction.json
  vit-comer predict outputs/my_run/best_model holiday_pictures/ --output found/
  vit-comer predict outputs/my_run/best_model frames/ --output found/ --legend all      # frames of a video
  vit-comer predict outputs/my_run/best_model val/ --output found/ --annotations val.json --score-threshold 0

A folder's images, also those in its folders, are taken in natural order (frame_2 before frame_10). A class has the
same colour in all of them; with --legend all or none, frames of one size give overlays of one size, for example for
ffmpeg. Images are read as RGB, turned as their EXIF data say, and may have any size from 32 pixels.

The JSON holds one entry of "annotations" for each object (or class): "category_id" as the training data have it,
"category", "score", "bbox" as x, y, width, height, and "segmentation" as COCO's compressed RLE, which
pycocotools.mask.decode reads. With --annotations there is also coco_results.json with the results of all images, which
COCO(FILE.json).loadRes reads. An image that cannot be read is named, the others are done all the same, and the exit
code is 1.
"""


@dataclass(frozen=True)
class Writer:
    """Writes what a trained model sees."""

    model: "TrainedModel"
    legend: str
    annotated: AnnotatedImages | None

    def __call__(self, path: Path, stem: Path) -> list[dict[str, Any]]:
        """Write the overlay and the JSON of one image, and return its results if a file lists it.

        Raises:
            UserError: the image cannot be read or predicted, or a file cannot be written.
        """
        model = self.model
        image = model.to_rgb(path) if self.annotated is None else self.annotated.read(path, model.intensity)
        with named([str(path)]):
            prediction = self.model.predict(image, name=str(path))
        described = self.model.describe(path, prediction, (image.height, image.width))
        if self.annotated is not None:
            described = self.annotated.identify(path, described)
        picture = self.model.draw(image, prediction, self.legend)
        make_folder(stem.parent)
        try:
            picture.save(add_suffix(stem, OVERLAY_SUFFIX))
            add_suffix(stem, JSON_SUFFIX).write_text(json.dumps(described) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write what was found in {path}: {error}") from error
        return [] if self.annotated is None else coco_results(described)


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
    found = predict_all(Writer(model, arguments.legend, annotated), stems)
    for path in found:
        print(add_suffix(stems[path], OVERLAY_SUFFIX))
    if annotated is not None:
        results = arguments.output / RESULTS
        write_text(results, json.dumps(list(chain.from_iterable(found.values()))) + "\n")
        print(results)
    if failed := [str(path) for path in stems if path not in found]:
        raise UserError(f"{len(failed)} of {len(stems)} images failed: {', '.join(failed)}")


def predict_all(write: Writer, stems: dict[Path, Path]) -> dict[Path, list[dict[str, Any]]]:
    """The results of every image, with a line on stderr for each that fails; the only one raises instead."""
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
    arguments = parser.parse_args()
    if arguments.annotations is not None and arguments.output is None:
        parser.error(f"--annotations needs --output FOLDER, where {RESULTS} is written")
    return arguments


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in 0 to 1, got {text}")
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return value


if __name__ == "__main__":
    run(main)
