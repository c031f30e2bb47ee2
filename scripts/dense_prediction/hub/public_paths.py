"""Numbers go to the Hub without the folders of the machine that they were measured on."""

import json
from pathlib import Path
from typing import Any

from ..atomic_files import write_text
from .result_files import read_json


def write_public(results: Path, target: Path) -> None:
    """Write results.json anew, of each absolute path only the last part.

    Raises:
        UserError: the file is no JSON object.
    """
    write_text(target, json.dumps(without_folders(read_json(results)), indent=1) + "\n")


def without_folders(tree: dict[str, Any]) -> dict[str, Any]:
    """Values of mappings, overrides and the command; not other lists, where a class may be called /m/01g317."""
    public = {
        key: without_folders(value) if isinstance(value, dict) else public_path(value) for key, value in tree.items()
    }
    for key in ("overrides", "command"):
        if isinstance(tree.get(key), list):
            public[key] = [public_override(argument) for argument in tree[key]]
    return public


def public_path(value: Any) -> Any:
    """Hub ids and relative paths stay as they are, and so does whatever is no text."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def public_override(override: str) -> str:
    """`key=value`, `--flag=value`, or a path by itself."""
    key, separator, value = override.partition("=")
    return f"{key}={public_path(value)}" if separator else public_path(override)
