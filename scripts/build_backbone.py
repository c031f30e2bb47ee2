"""Build a ViT-CoMer backbone on a pretrained plain ViT: a folder that `from_pretrained` reads."""

import argparse
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import enable_progress_bars
from transformers import ViTImageProcessor

from dense_prediction.command_line import ArgumentParser, parse_fields, run, without_their_progress_bars
from dense_prediction.errors import UserError
from modeling_vit_comer import ViTCoMerBackbone
from modeling_vit_comer.trunk_sources import image_statistics


DESCRIPTION = """\
Build a ViT-CoMer backbone on a pretrained plain ViT and save it: the trunk's weights, ViT-CoMer's own, which are
random until you train them, and the config. ViTCoMerBackbone.from_pretrained(DIR) reads the folder, without the
trunk's repository; its preprocessor_config.json normalises images as the trunk was pretrained.

  vit-comer build-backbone --trunk timm/vit_small_patch14_dinov2.lvd142m --output vit-comer-s-dinov2
  vit-comer build-backbone --trunk facebook/dinov2-with-registers-base --output DIR --freeze-trunk
  vit-comer build-backbone --trunk my_vit/ --output DIR drop_path_rate=0.3 'depths=[2, 4, 4, 2]'

A trunk is a name of timm, a model on the Hub or in a folder (timm's or transformers' format), or a safetensors file
together with trunk_config='{architecture: vit_small_patch16_224, model_args: {img_size: 592}}'. Fields are those of
ViTCoMerConfig.
"""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trunk", required=True, metavar="NAME", help="the pretrained plain ViT")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write, new or empty")
    parser.add_argument("--freeze-trunk", action="store_true", help="train all but the trunk from now on")
    parser.add_argument(
        "--patch-resample",
        choices=["pi", "bilinear"],
        default="pi",
        help="how a patch kernel of another size becomes 16 x 16 (default: %(default)s)",
    )
    parser.add_argument("fields", nargs="*", metavar="field=value", help="of the config, the value as YAML")
    return parser.parse_args()


def build(arguments: argparse.Namespace, fields: dict[str, Any]) -> ViTCoMerBackbone:
    try:
        return ViTCoMerBackbone.from_trunk(arguments.trunk, patch_resample=arguments.patch_resample, **fields)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise UserError(" ".join(str(error).split())) from error


def save_image_processor(arguments: argparse.Namespace, fields: dict[str, Any]) -> None:
    try:
        statistics = image_statistics(arguments.trunk, fields.get("trunk_config"), fields.get("num_channels"))
    except OSError:
        statistics = None
    if statistics is None:
        print("how the trunk's images were normalised is not known: no preprocessor_config.json is written")
        return
    mean, std = statistics
    ViTImageProcessor(do_resize=False, image_mean=mean, image_std=std).save_pretrained(arguments.output)
    print(f"images are normalised with mean {mean} and standard deviation {std}")


@without_their_progress_bars()
def main() -> None:
    arguments = parse_arguments()
    if arguments.output.exists() and (not arguments.output.is_dir() or any(arguments.output.iterdir())):
        raise UserError(f"{arguments.output} is there already: give a new or an empty folder.")
    enable_progress_bars()
    fields = parse_fields(arguments.fields) | ({"freeze_trunk": True} if arguments.freeze_trunk else {})
    backbone = build(arguments, fields)
    backbone.save_pretrained(arguments.output)
    save_image_processor(arguments, fields)
    trunk = sum(parameter.numel() for parameter in backbone.trunk.parameters())
    print(
        f"{trunk:,} parameters of the trunk and {backbone.num_parameters() - trunk:,} new ones in {arguments.output}"
    )


if __name__ == "__main__":
    run(main)
