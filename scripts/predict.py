"""What a trained model sees in images, as pictures and as JSON: `vit-comer predict MODEL_FOLDER IMAGE ...`."""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from dense_prediction.command_line import ArgumentParser, run, without_their_progress_bars
from dense_prediction.errors import UserError
from dense_prediction.prediction.image_files import (
    OVERLAY_SUFFIX,
    find_images,
    make_folder,
    output_stems,
    read_image,
)


if TYPE_CHECKING:
    from dense_prediction.prediction.trained_model import TrainedModel


JSON_SUFFIX = ".prediction.json"

DESCRIPTION = """\
Show what a trained model sees in images: classes, segments or boxes drawn over each picture, with a legend, and the
same as JSON.

  vit-comer predict outputs/my_run/best_model photo.jpg         # photo.overlay.png, photo.prediction.json
  vit-comer predict outputs/my_run/best_model holiday_pictures/ --output found/
  vit-comer predict outputs/my_run/best_model frames/ --output found/ --legend all      # frames of a video

A folder's images are taken in natural order (frame_2 before frame_10). A class has the same colour in all of them;
with --legend all or none, frames of one size give overlays of one size, for example for ffmpeg. Images are read as
RGB, turned as their EXIF data say, and may have any size from 32 pixels.

The JSON holds one entry of "annotations" for each object (or class): "category_id", "category", "score", "bbox" as
x, y, width, height, and "segmentation" as COCO's compressed RLE, which pycocotools.mask.decode reads. An image that
cannot be read is named, the others are done all the same, and the exit code is 1.
"""


@dataclass(frozen=True)
class Writer:
    """Writes what a trained model sees."""

    model: "TrainedModel"
    legend: str

    def __call__(self, path: Path, stem: Path) -> None:
        """Write the overlay and the JSON of one image.

        Raises:
            UserError: the image cannot be read or predicted, or a file cannot be written.
        """
        image = read_image(path)
        try:
            prediction = self.model.predict(image, name=str(path))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        described = self.model.describe(path, prediction, (image.height, image.width))
        picture = self.model.draw(image, prediction, self.legend)
        try:
            picture.save(add_suffix(stem, OVERLAY_SUFFIX))
            add_suffix(stem, JSON_SUFFIX).write_text(json.dumps(described) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write what was found in {path}: {error}") from error


def main() -> None:
    arguments = parse_arguments()
    predict(arguments, output_stems(find_images(arguments.images), arguments.output))


@without_their_progress_bars()
def predict(arguments: argparse.Namespace, stems: dict[Path, Path]) -> None:
    # Not before the arguments are read, because torch takes seconds.
    from dense_prediction.prediction.trained_model import load_model

    options = {"threshold": arguments.score_threshold, "max_detections": arguments.max_detections}
    write = Writer(load_model(arguments.model, **options), arguments.legend)
    make_folder(arguments.output)
    failed = predict_all(write, stems)
    for path, stem in stems.items():
        if path not in failed:
            print(add_suffix(stem, OVERLAY_SUFFIX))
    if failed:
        raise UserError(f"{len(failed)} of {len(stems)} images failed: {', '.join(map(str, failed))}")


def predict_all(write: Writer, stems: dict[Path, Path]) -> list[Path]:
    """Every image, with a line on stderr for each that fails; returns those. The failure of the only image raises."""
    failed = []
    for path, stem in tqdm(stems.items(), "predicting", unit="image", disable=len(stems) == 1):
        try:
            write(path, stem)
        except UserError as error:
            if len(stems) == 1:
                raise
            tqdm.write(f"error: {error}", file=sys.stderr)
            failed.append(path)
    return failed


def add_suffix(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_FOLDER", type=Path, help="the best_model folder that train.py wrote")
    parser.add_argument("images", metavar="IMAGE_OR_FOLDER", type=Path, nargs="+", help="pictures, or folders of them")
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, help="where everything is written (default: beside each image)"
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
    return parser.parse_args()


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
