"""What a trained model sees in images, as pictures and as JSON: `python scripts/predict.py MODEL_FOLDER IMAGE ...`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from dense_prediction.batches.types import Prediction, PredictionOptions
from dense_prediction.command_line import ArgumentParser, run
from dense_prediction.drawing.pages import with_legend
from dense_prediction.drawing.pictures import draw
from dense_prediction.errors import UserError
from dense_prediction.failures import is_out_of_memory
from dense_prediction.models.building import things_of
from dense_prediction.models.trained_labels import labels_of
from dense_prediction.prediction.coco_output import describe
from dense_prediction.prediction.image_files import OVERLAY_SUFFIX, find_images, make_folder, output_stems, read_image
from dense_prediction.prediction.saved_models import load_model, predict_image


JSON_SUFFIX = ".prediction.json"

SCORE_THRESHOLD = 0.5
"""Of boxes and instances. Panoptic segmentation has its own, which the official evaluation uses."""

DESCRIPTION = """\
Show what a trained model sees in images: classes, segments or boxes drawn over each picture, with a legend, and the
same as JSON.

  python scripts/predict.py outputs/my_run/best_model photo.jpg         # photo.overlay.png, photo.prediction.json
  python scripts/predict.py outputs/my_run/best_model holiday_pictures/ --output found/
  python scripts/predict.py outputs/my_run/best_model frames/ --output found/ --legend all      # frames of a video

A folder's images are taken in natural order (frame_2 before frame_10). A class has the same colour in all of them;
with --legend all or none, frames of one size give overlays of one size, for example for ffmpeg. Images are read as
RGB, turned as their EXIF data say, and may have any size from 32 pixels.

The JSON holds one entry of "annotations" for each object (or class): "category_id", "category", "score", "bbox" as
x, y, width, height, and "segmentation" as COCO's compressed RLE, which pycocotools.mask.decode reads. An image that
cannot be read is named, the others are done all the same, and the exit code is 1.
"""


@dataclass(frozen=True)
class Predictor:
    """A trained model, and how its predictions are written."""

    model: PreTrainedModel
    processor: BaseImageProcessor
    options: PredictionOptions
    legend: str

    def __call__(self, path: Path, stem: Path) -> None:
        """Write the overlay and the JSON of one image.

        Raises:
            UserError: the image cannot be read or predicted, or a file cannot be written.
        """
        image = read_image(path)
        prediction = self._predict(path, image)
        labels = labels_of(self.model)
        described = describe(path, prediction, labels, (image.height, image.width))
        picture = add_legend(draw(image, prediction, labels), prediction, labels, self.legend)
        try:
            picture.save(add_suffix(stem, OVERLAY_SUFFIX))
            add_suffix(stem, JSON_SUFFIX).write_text(json.dumps(described) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write what was found in {path}: {error}") from error

    def _predict(self, path: Path, image: Image.Image) -> Prediction:
        try:
            return predict_image(self.model, self.processor, image, self.options)
        except (ValueError, UserError) as error:  # the model itself refuses the image's size
            raise UserError(f"{path}: {error}") from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"{path}: {image.width} x {image.height} pixels are too many for the memory; make the image smaller, "
                "or use the CPU in place of a GPU with CUDA_VISIBLE_DEVICES= in front of the command"
            ) from error


def main() -> None:
    arguments = parse_arguments()
    stems = output_stems(find_images(arguments.images), arguments.output)
    model, processor = load_model(arguments.model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    predictor = Predictor(model, processor, choose_options(model, arguments.score_threshold), arguments.legend)
    make_folder(arguments.output)
    failed = predict_all(predictor, stems)
    for path, stem in stems.items():
        if path not in failed:
            print(add_suffix(stem, OVERLAY_SUFFIX))
    if failed:
        raise UserError(f"{len(failed)} of {len(stems)} images failed: {', '.join(map(str, failed))}")


def predict_all(predictor: Predictor, stems: dict[Path, Path]) -> list[Path]:
    """Every image, with a line on stderr for each that fails; returns those. The failure of the only image raises."""
    failed = []
    for path, stem in tqdm(stems.items(), "predicting", unit="image", disable=len(stems) == 1):
        try:
            predictor(path, stem)
        except UserError as error:
            if len(stems) == 1:
                raise
            tqdm.write(f"error: {error}", file=sys.stderr)
            failed.append(path)
    return failed


def choose_options(model: PreTrainedModel, threshold: float | None) -> PredictionOptions:
    """What becomes a prediction; a threshold of the user's also holds for panoptic segments."""
    things = things_of(model)
    if threshold is None:
        return PredictionOptions(score_threshold=SCORE_THRESHOLD, things=things)
    return PredictionOptions(score_threshold=threshold, object_threshold=threshold, things=things)


def add_legend(picture: Image.Image, prediction: Prediction, labels: Sequence[str], legend: str) -> Image.Image:
    match legend:
        case "none":
            return picture
        case "found":
            return with_legend(picture, [prediction], labels)
    ids = torch.arange(len(labels))
    every_class = {"semantic_map": ids[None]} if "semantic_map" in prediction else {"labels": ids}
    return with_legend(picture, [every_class], labels)


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


if __name__ == "__main__":
    run(main)
