"""Files and folders that are replaced at once: whoever is killed meanwhile leaves the old or the new one, complete."""

import os
import shutil
from pathlib import Path


def replace_folder(new: Path, final: Path) -> None:
    """Give the complete folder `new` the name `final`; what had the name goes only then.

    Between two renames there is no `final`, but `final.previous` is complete.
    """
    previous = final.with_name(f"{final.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if final.exists():
        final.rename(previous)
    new.rename(final)
    shutil.rmtree(previous, ignore_errors=True)


def discard_folder(folder: Path) -> None:
    """Delete a folder that must not be seen half deleted."""
    discarded = folder.with_name(f"{folder.name}.discarded")
    shutil.rmtree(discarded, ignore_errors=True)
    if folder.exists():
        folder.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """As `Path.write_text`, at once."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
