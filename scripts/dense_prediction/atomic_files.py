"""Files and folders that are replaced at once: whoever is killed meanwhile leaves the old or the new one, complete."""

import errno
import os
import shutil
from pathlib import Path


LEFTOVERS = (".partial", ".previous", ".discarded")
"""How the names end of what a kill leaves beside the file or folder that was being replaced."""


def replace_folder(new: Path, final: Path) -> None:
    """Give the complete folder `new` the name `final`; what had the name goes only then.

    Between two renames there is no `final`, but `final.previous` is complete.
    """
    flush_folder(new)  # before the rename, lest a power cut leave the name with empty files behind it
    previous = final.with_name(f"{final.name}.previous")
    if final.exists():
        shutil.rmtree(previous, ignore_errors=True)
        final.rename(previous)
    new.rename(final)
    flush(final.parent)
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
    flush(partial)
    os.replace(partial, path)
    flush(path.parent)


def flush_folder(folder: Path) -> None:
    """`flush` all that is in a folder, and the folder."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself before the call returns."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows opens no folders, and keeps their names safe itself
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of network drives, for folders
            raise
    finally:
        os.close(descriptor)
