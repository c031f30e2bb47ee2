"""Colour images by what a trained model sees in them: `python scripts/predict.py MODEL_FOLDER IMAGE_OR_FOLDER ...`."""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from dense_prediction.command_line import ArgumentParser, run
from dense_prediction.drawing import overlay, with_legend
from dense_prediction.errors import UserError
from dense_prediction.prediction import load_model, predict_map


OVERLAY_SUFFIX = ".overlay.png"

DESCRIPTION = """\
Colour images by the classes that a trained model sees in them.

  python scripts/predict.py outputs/my_run/best_model photo.jpg            # writes photo.overlay.png
  python scripts/predict.py outputs/my_run/best_model holiday_pictures/    # one overlay beside each picture
"""


def main() -> None:
    arguments = parse_arguments()
    paths = find_images(arguments.images)
    model, processor = load_model(arguments.model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    labels = [model.config.id2label[label] for label in range(model.config.num_labels)]
    for path in tqdm(paths, "predicting", unit="image", disable=len(paths) == 1):
        image = read_image(path)
        class_map = predict_map(model, processor, image)
        with_legend(overlay(image, class_map), [class_map], labels).save(path.with_suffix(OVERLAY_SUFFIX))
    for path in paths:
        print(path.with_suffix(OVERLAY_SUFFIX))


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_FOLDER", type=Path, help="the best_model folder that train.py wrote")
    parser.add_argument("images", metavar="IMAGE_OR_FOLDER", type=Path, nargs="+", help="pictures, or folders of them")
    return parser.parse_args()


def find_images(paths: list[Path]) -> list[Path]:
    """The given files, and the images directly in the given folders but for overlays written before.

    Raises:
        UserError: a path does not exist, or there is nothing to do.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no image or folder {path}")
        found += _images_in(path) if path.is_dir() else [path]
    if not found:
        raise UserError(f"no image in {', '.join(str(path) for path in paths)}")
    return found


def _images_in(folder: Path) -> list[Path]:
    known = Image.registered_extensions()
    files = (file for file in sorted(folder.iterdir()) if file.suffix.lower() in known)
    return [file for file in files if not file.name.endswith(OVERLAY_SUFFIX)]


def read_image(path: Path) -> Image.Image:
    """An RGB image, turned as its EXIF data say."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"cannot read {path} as an image: {error}") from error


if __name__ == "__main__":
    run(main)
