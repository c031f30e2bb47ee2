"""The maps of a plain ViT and of ViT-CoMer side by side: `vit-comer features --model DIR IMAGE`."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from dense_prediction.command_line import ArgumentParser, parse_fields, run, watch, without_their_progress_bars
from dense_prediction.errors import named
from dense_prediction.models.saved_models import intensity_of
from dense_prediction.models.simple_feature_pyramid import STRIDES
from dense_prediction.prediction.feature_maps import backbone_maps, plain_maps, to_colors
from dense_prediction.prediction.feature_pages import Row, draw_page
from dense_prediction.prediction.feature_sources import (
    IMAGENET,
    FeatureSource,
    Statistics,
    backbone_on,
    from_folder,
    untrained,
)
from dense_prediction.prediction.image_files import FEATURES_SUFFIX, find_images, make_folder, output_stems, read_image
from modeling_vit_comer.trunk_sources import image_statistics


DESCRIPTION = """\
Show the feature maps at 1/4, 1/8, 1/16 and 1/32 of the image's size, of a plain ViT and of ViT-CoMer (Figure 6 of the
paper): the first three principal components of the channels are red, green and blue.

  vit-comer features --model outputs/my_run/best_model photo.jpg             # photo.features.png
  vit-comer features --model outputs/comer/best_model --plain outputs/pyramid/best_model photo.jpg
  vit-comer features photo.jpg --trunk timm/vit_small_patch14_dinov2.lvd142m

The upper row is the plain ViT: the ViT inside the model, which sees the image without the convolutional branch, its
last map resized to each level; with --plain, the maps of a model that was trained with a simple feature pyramid. In
each row a colour is the same direction of the features at all four levels; rows cannot be compared by colour, only by
what they tell apart. ViT-CoMer's own weights are random with --trunk: train first to see what it learns.
"""


@without_their_progress_bars()
def main() -> None:
    arguments = parse_arguments()
    stems = output_stems(find_images(arguments.images), arguments.output)
    source, plain = open_sources(arguments, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    make_folder(arguments.output)
    for path, stem in watch(stems.items(), "looking", unit="image", shown=len(stems) > 1):
        image = fit(read_image(path, intensity_of(source.processor)), arguments.longest_side)
        page = stem.with_name(stem.name + FEATURES_SUFFIX)
        with named([str(path)]):
            rows = show(source, plain, image)
        make_folder(page.parent)
        draw_page(image, rows).save(page)
        tqdm.write(str(page))


def open_sources(arguments: argparse.Namespace, device: torch.device) -> tuple[FeatureSource, FeatureSource | None]:
    """What is shown below, and, where one is given, the model of the row above it."""
    plain = None if arguments.plain is None else from_folder(arguments.plain, device)
    if arguments.model is not None:
        return from_folder(arguments.model, device), plain
    fields = parse_fields(arguments.fields)
    backbone = backbone_on(arguments.trunk, fields)
    backbone.to(device)  # type: ignore[arg-type]  # transformers wraps `to` in a type that forgets its `self`
    return untrained(backbone, find_statistics(arguments.trunk, fields)), plain


def find_statistics(trunk: str, fields: dict[str, Any]) -> Statistics:
    """How images were normalised for a trunk, ImageNet's values where nothing says it."""
    try:
        statistics = image_statistics(trunk, fields.get("trunk_config"))
    except OSError:  # a folder of transformers without an image processor
        statistics = None
    if statistics is None:
        print("how the trunk's images were normalised is not known: ImageNet's values are taken", file=sys.stderr)
    return statistics or IMAGENET


def show(source: FeatureSource, plain: FeatureSource | None, image: Image.Image) -> list[Row]:
    """The plain ViT, and below it the backbone that is to be looked at."""
    pixel_values = source.prepare(image)
    below = source.name, to_colors(backbone_maps(source.backbone, pixel_values))
    if plain is None:
        return [("plain ViT", to_colors(plain_maps(source.backbone, pixel_values))), below]
    return [(plain.name, to_colors(backbone_maps(plain.backbone, plain.prepare(image)))), below]


def fit(image: Image.Image, longest: int) -> Image.Image:
    """The image with a longest side of about `longest`, whole cells of the coarsest map high and wide."""
    cell, factor = max(STRIDES.values()), longest / max(image.size)
    return image.resize([max(1, round(factor * side / cell)) * cell for side in image.size])


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", metavar="IMAGE_OR_FOLDER", type=Path, nargs="+", help="pictures, or folders of them")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", metavar="FOLDER", type=Path, help="a best_model folder of train.py, or the folder of a backbone"
    )
    source.add_argument("--trunk", metavar="NAME", help="a pretrained plain ViT, as build_backbone.py takes it")
    parser.add_argument(
        "--fields", metavar="field=value", nargs="+", default=[], help="of --trunk: fields of ViTCoMerConfig"
    )
    parser.add_argument("--plain", metavar="FOLDER", type=Path, help="a model with a plain ViT, for the upper row")
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, help="where the pictures are written (default: beside each image)"
    )
    parser.add_argument(
        "--longest-side",
        metavar="PIXELS",
        type=int,
        default=640,
        help="what images are resized to (default: 640)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
