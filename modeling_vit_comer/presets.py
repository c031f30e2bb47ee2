"""The backbones of the published sizes by name, from any folder: `ViTCoMerConfig.from_preset("vit-comer-t")`."""

import difflib
from importlib.util import find_spec
from pathlib import Path


def configuration_folder() -> Path:
    """The folder with `backbones/`, `labels/` and `recipes/` that belongs to the package that Python finds.

    An installed package has it inside, a checkout has it beside the package. A copy of this file that came with a
    model from the Hub has neither, and takes those of the package if that is installed, too.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = find_spec("modeling_vit_comer")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        for folder in (package / "configuration", package.parent / "configuration"):
            if (folder / "backbones").is_dir():
                return folder
    raise FileNotFoundError(
        "presets and recipes are files of the package vit-comer, which the code of a model on the Hub does not bring: "
        "`pip install vit-comer`, or `pip install -e .` in a checkout"
    )


def preset_names() -> list[str]:
    """The names that `preset_path` knows, in alphabetical order."""
    return sorted(path.stem for path in (configuration_folder() / "backbones").glob("*.json"))


def preset_path(name: str) -> Path:
    """The JSON file of a preset.

    Raises:
        FileNotFoundError: the package is not installed.
        ValueError: there is no such preset.
    """
    names = preset_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise ValueError(f"there is no preset {name!r}; {hint}")
    return configuration_folder() / "backbones" / f"{name}.json"
