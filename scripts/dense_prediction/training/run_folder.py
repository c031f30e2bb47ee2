"""What a run makes in its output folder, and the manifest there that lists it: nothing else is ever removed.

A folder that version 0.1.0 wrote has no manifest. It is known by what only a run writes, and gets one.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..atomic_files import LEFTOVERS, discard_folder, replace_folder, write_text
from ..errors import UserError
from ..recipes.runs import BEST_MODEL, RECIPE, RESULTS
from ..reporting.files import REPORT_FILES
from .checkpoints import FOLDER, OWN_NAME
from .run_state import STATE_FILE
from .trackers import PROJECT


MANIFEST = ".vit-comer-run.json"
LAST_MODEL = "last_model"
PICTURE = "predictions.png"
"""Of the best model."""
PICTURES = "predictions"
"""Folder with the picture of every evaluation."""
LOGS = "logs"
"""Folder for trackers that write files."""

MADE = (FOLDER, BEST_MODEL, LAST_MODEL, PICTURES, PICTURE, RECIPE, RESULTS, *REPORT_FILES)
"""By every run of `scripts/train.py`."""
MADE_BY_TRAINER = (
    PICTURE,
    RESULTS,
    *REPORT_FILES,
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "trainer_state.json",
    "training_args.bin",
    *(f"{name}_results.json" for name in ("all", "train", "eval", "test")),
)
"""By every run of HF's Trainer, beside its checkpoints."""
CARD = "README.md"
"""Of a run of HF's Trainer that is pushed."""
TRAINER_CHECKPOINT = re.compile(r"checkpoint-\d+")

_NAMES = {*MADE, *MADE_BY_TRAINER, LOGS, CARD}
_NEWER = {RESULTS, *REPORT_FILES}
"""What only more than its name shows to be of version 0.1.0, and what that did not make."""

_INSIDE = {FOLDER: OWN_NAME, PICTURES: re.compile(r"step_\d+\.png")}
"""Folders of ours in which others may have put something too, and what in them is ours."""
_OF_SYSTEMS = {"Thumbs.db", "desktop.ini", "lost+found"}


def made(output: Path) -> set[str] | None:
    """The names in a folder that are a run's own, or None if it holds no run."""
    listed = (_read(output / MANIFEST) or {}).get("made")
    if not isinstance(listed, list):
        return _made_before(output)
    # A manifest that was edited must not have other things removed.
    return {str(name) for name in listed if str(name) in _NAMES or TRAINER_CHECKPOINT.fullmatch(str(name))}


def claim(output: Path, names: Iterable[str]) -> None:
    """Add what a run is about to make to the manifest."""
    output.mkdir(parents=True, exist_ok=True)
    _write_manifest(output, {*(made(output) or ()), *names})


def check_folder(output: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which a run would get mixed up with what is not a run's own.

    Args:
        names: what the run is going to make there.

    Raises:
        UserError: it holds other things and no run, or one of the names belongs to something else.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output} is a file: choose a folder with output=...")
    own = made(output)
    foreign = [] if own is not None else _contents(output)
    if foreign:
        raise UserError(
            f"{output} holds {foreign[0]!r} and no run: give an empty folder or another one with output=..."
        )
    for name in names:
        if name not in (own or ()) and (taken := _existing(output / name)):
            raise UserError(
                f"{taken} is not of a run, which would replace it: move it, or choose another folder with output=..."
            )


def clear_output(output: Path, names: Iterable[str] = ()) -> None:
    """Remove what earlier runs made in the folder, and nothing else; `names` is what the next one is about to make."""
    claim(output, ())  # a folder without a manifest is known by things that go now
    # Checkpoints first: who is killed meanwhile must not find one that has lost its best model.
    for name in sorted(made(output) or (), key=lambda name: not name.startswith("checkpoint")):
        _discard(output / name)
    _write_manifest(output, names)


def carry_best(checkpoint: Path, output: Path) -> None:
    """Copy a run's best model so far and its picture, which are beside its checkpoints, into another folder."""
    folder = checkpoint.resolve().parent
    if folder.name != FOLDER:
        return
    if (folder.parent / PICTURE).is_file():
        shutil.copy(folder.parent / PICTURE, output / PICTURE)
    if (folder.parent / BEST_MODEL).is_dir():
        partial = output / f"{BEST_MODEL}.partial"
        shutil.copytree(folder.parent / BEST_MODEL, partial)
        replace_folder(partial, output / BEST_MODEL)


def _made_before(output: Path) -> set[str] | None:
    """What version 0.1.0 made in a folder, or None if there is neither a checkpoint of it nor its results."""
    states = [*output.glob(f"{FOLDER}/step_*/{STATE_FILE}"), *output.glob(f"checkpoint-*/{STATE_FILE}")]
    found = {path.relative_to(output).parts[0] for path in states if says(path, "recipe", "state")}
    ours = {name for name in found if name == FOLDER or TRAINER_CHECKPOINT.fullmatch(name)}
    if says(output / RESULTS, "recipe", "curve", "evaluations"):
        ours.add(RESULTS)
    if not ours:
        return None
    of_trainer = any(TRAINER_CHECKPOINT.fullmatch(name) for name in ours) or (output / "training_args.bin").exists()
    likely = {BEST_MODEL, LAST_MODEL, PICTURES, PICTURE, *(MADE_BY_TRAINER if of_trainer else ())} - _NEWER
    if (output / LOGS / PROJECT).is_dir():
        likely.add(LOGS)
    return ours | {name for name in likely if _existing(output / name)}


def says(path: Path, *keys: str) -> bool:
    """Whether there is a JSON file with such keys."""
    content = _read(path)
    return content is not None and content.keys() >= set(keys)


def _read(path: Path) -> dict[str, object] | None:
    """The mapping in a JSON file, or None if it is another or none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_manifest(output: Path, names: Iterable[str]) -> None:
    write_text(output / MANIFEST, json.dumps({"version": 1, "made": sorted(set(names))}, indent=1) + "\n")


def _contents(output: Path) -> list[str]:
    """What somebody has put into a folder: not what file systems and desktops leave there."""
    names = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    return [name for name in names if not name.startswith(".") and name not in _OF_SYSTEMS]


def _existing(path: Path) -> Path | None:
    """The path, or what would be left of it by a kill, whichever is there."""
    candidates = (path, *(path.with_name(path.name + ending) for ending in LEFTOVERS))
    return next((candidate for candidate in candidates if os.path.lexists(candidate)), None)


def _discard(path: Path) -> None:
    """Remove something of ours; of a folder that others may share, what in it is ours."""
    inside = _INSIDE.get(path.name)
    if path.is_file() or (path.is_symlink() and inside is None):
        path.unlink()
    elif inside is None:
        discard_folder(path)
    elif path.is_dir():
        _discard_inside(path, inside)
    for ending in LEFTOVERS:
        _remove(path.with_name(path.name + ending))


def _discard_inside(folder: Path, own: re.Pattern[str]) -> None:
    for path in folder.iterdir():
        if own.fullmatch(path.name):
            _discard(path)
    if not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def _remove(path: Path) -> None:
    """What a kill has left: half of it may be gone already."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
