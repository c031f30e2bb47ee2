"""The one command, `vit-comer`: each of its words runs the script of that name."""

import sys
from collections.abc import Callable
from importlib import import_module

from dense_prediction.command_line import run
from dense_prediction.errors import UserError


COMMANDS = {
    "train": ("train", "train a model as a recipe says"),
    "finetune": ("finetune_with_trainer", "the same with HF's Trainer and its flags"),
    "evaluate": ("evaluate", "measure a trained model"),
    "predict": ("predict", "show what a trained model sees in pictures"),
    "features": ("visualize_features", "show the feature maps of a plain ViT and of ViT-CoMer side by side"),
    "build-backbone": ("build_backbone", "build a backbone on a pretrained plain ViT"),
    "convert": ("convert_official_checkpoint", "convert a checkpoint of the official code"),
    "push": ("push_to_hub", "publish a model on the Hub"),
    "benchmark": ("benchmark", "measure the speed and memory of a backbone on this machine"),
}
"""What a person types -> the script, and what it does."""


def main() -> None:
    """Run the script that the first argument names, on the other arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}; there are {', '.join(COMMANDS)}")
    script, _ = COMMANDS[name]
    sys.argv = [f"vit-comer {name}", *sys.argv[2:]]
    find_script(script)()


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  vit-comer {name.ljust(width)}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["Dense prediction with ViT-CoMer. Each command has its own --help.", "", *lines])


def find_script(name: str) -> Callable[[], None]:
    """Its `main`, from beside this file: part of a package where it is installed, else from the folder itself.

    Raises:
        UserError: a package is missing that an extra of ours would have brought.
    """
    package = f"{__package__}." if __package__ else ""
    try:
        return import_module(f"{package}{name}").main
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed: pip install 'vit-comer[train]' brings all it needs"
        ) from error


def start() -> None:
    """The console command."""
    run(main)


if __name__ == "__main__":
    start()
