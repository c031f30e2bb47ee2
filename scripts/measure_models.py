"""Count the parameters and multiply-accumulates of the backbone presets, or of the trained heads."""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dense_prediction.command_line import ArgumentParser, run, watch, without_their_progress_bars
from dense_prediction.errors import UserError
from dense_prediction.hub.backbone_facts import COUNTED, Facts, measure_backbone, measure_model
from dense_prediction.hub.trained_heads import build_head, read_heads, read_results
from modeling_vit_comer import ViTCoMerConfig
from modeling_vit_comer.presets import preset_names


DESCRIPTION = """\
Count parameters and multiply-accumulates at 512 x 512, and list strides and channels, as the cards quote them. Nothing
is timed: the numbers are the same on every machine.

  python scripts/measure_models.py --output hub_cards/results/backbones.json
  python scripts/measure_models.py --heads --output hub_cards/results/heads.json
"""


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--presets", nargs="+", metavar="NAME", help="of configuration/backbones (default: all)")
    what.add_argument(
        "--heads", action="store_true", help="instead of them, the trained heads of hub_cards/heads.yaml"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="where to write the result")
    return parser.parse_args()


def measure_presets(names: list[str]) -> dict[str, Facts]:
    if unknown := sorted(set(names) - set(preset_names())):
        raise UserError(f"no preset {unknown[0]!r}; there are {', '.join(preset_names())}")
    return {
        name: measure_backbone(ViTCoMerConfig.from_preset(name)) for name in watch(names, "measuring", unit="preset")
    }


def measure_heads() -> dict[str, Facts]:
    first_runs = {name: next(iter(read_results(head.runs).values())) for name, head in read_heads().items()}
    return {
        name: measure_model(build_head(result)) for name, result in watch(first_runs.items(), "measuring", unit="head")
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    libraries = {name: version(name) for name in ("torch", "transformers", "timm")}
    models = {"heads": measure_heads()} if arguments.heads else {"backbones": measure_presets(arguments.presets)}
    return {"counted": COUNTED, "versions": libraries} | models


@without_their_progress_bars()
def main() -> None:
    arguments = parse_arguments()
    arguments.presets = arguments.presets or preset_names()
    result = measure(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"Written to {arguments.output}")


if __name__ == "__main__":
    run(main)
