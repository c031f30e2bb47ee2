"""Convert a checkpoint of the official ViT-CoMer code to a folder that `from_pretrained` reads."""

import argparse
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import timm.data
import torch
from transformers import ViTImageProcessor

from dense_prediction.command_line import ArgumentParser, run
from dense_prediction.errors import UserError
from modeling_vit_comer import ViTCoMerBackbone, ViTCoMerConfig
from modeling_vit_comer.conversion import (
    FLAVOURS,
    config_from_official,
    convert_official_state_dict,
    split_detector,
)


PRESETS = Path(__file__).parents[1] / "configuration" / "backbones"

DESCRIPTION = """\
Convert a checkpoint of the official ViT-CoMer code (mmdet or mmseg, .pth) to a folder that
ViTCoMerBackbone.from_pretrained reads and push_to_hub.py publishes: config, weights, code and image processor.

  vit-comer convert --checkpoint mask_rcnn.pth --flavour detection \\
      --preset vit-comer-s-dinov2 --output vit-comer-s-dinov2

The backbone is taken out of a whole detector or segmenter; its other parts are named and left out. A model that is
none of the presets is described by the arguments of the official backbone: a JSON file with what the official config
has in backbone=dict(...), given as --model-kwargs. The image processor only normalises, as img_norm_cfg of the
official config does: --normalization.
"""

NORMALIZATIONS = {
    "imagenet": (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD),
    "half": (timm.data.IMAGENET_INCEPTION_MEAN, timm.data.IMAGENET_INCEPTION_STD),
}
"""Mean and standard deviation of R, G, B in 0..1."""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the official .pth file")
    parser.add_argument("--flavour", choices=FLAVOURS, required=True, help="which official code made it")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--preset", help=f"a published size: {', '.join(preset_names())}")
    model.add_argument("--model-kwargs", type=Path, metavar="FILE.json", help="arguments of the official backbone")
    parser.add_argument(
        "--normalization",
        choices=NORMALIZATIONS,
        default="imagenet",
        help="img_norm_cfg: imagenet is mean [123.675, 116.28, 103.53], half (AugReg) is 127.5 (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder to write, new or empty")
    return parser.parse_args()


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("vit-comer-*.json"))


def read_checkpoint(path: Path) -> Mapping[str, torch.Tensor]:
    """The state dict of a .pth file, read without running any code that the file may hold."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with warnings.catch_warnings(action="ignore"):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no plain checkpoint of weights: it holds objects whose loading could run code, or it is cut "
            "off. Save its state_dict alone in the environment that made it, with torch.save, and convert that."
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is damaged or no .pth file. Copy it again: {first_line(error)}") from error
    state_dict = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not state_dict or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise UserError(f"{path} holds no state_dict: expected a mapping of names to tensors.")
    return state_dict


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def build_config(arguments: argparse.Namespace) -> ViTCoMerConfig:
    if arguments.preset is None:
        return config_from_official(arguments.flavour, **read_kwargs(arguments.model_kwargs))
    if arguments.preset not in preset_names():
        raise UserError(f"no preset {arguments.preset!r}; there are {', '.join(preset_names())}")
    config = ViTCoMerConfig.from_pretrained(PRESETS / f"{arguments.preset}.json")
    flavour = "segmentation" if config.vit_feature_fusion == "per_stage" else "detection"
    if flavour != arguments.flavour:
        raise UserError(f"preset {arguments.preset} is of flavour {flavour}, not {arguments.flavour}")
    return config


def read_kwargs(path: Path) -> dict:
    try:
        kwargs = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(kwargs, dict):
        raise UserError(f"{path} must hold a JSON object of the official backbone's arguments.")
    return kwargs


def report_left_out(keys: list[str]) -> None:
    parts = sorted({key.split(".")[0] for key in keys})
    if parts:
        print(f"left out, not of the backbone: {len(keys)} weights of {', '.join(parts)}")


def main() -> None:
    arguments = parse_arguments()
    if arguments.output.exists() and (not arguments.output.is_dir() or any(arguments.output.iterdir())):
        raise UserError(f"{arguments.output} is there already: give a new or an empty folder.")
    state_dict, left_out = split_detector(read_checkpoint(arguments.checkpoint))
    try:
        config = build_config(arguments)
        weights = convert_official_state_dict(state_dict, config)
    except ValueError as error:
        raise UserError(str(error)) from error
    backbone = ViTCoMerBackbone(config)
    backbone.load_state_dict(weights, strict=True)
    backbone.save_pretrained(arguments.output)
    mean, std = NORMALIZATIONS[arguments.normalization]
    ViTImageProcessor(do_resize=False, image_mean=mean, image_std=std).save_pretrained(arguments.output)
    report_left_out(left_out)
    print(f"{backbone.num_parameters():,} parameters written to {arguments.output}")


if __name__ == "__main__":
    run(main)
