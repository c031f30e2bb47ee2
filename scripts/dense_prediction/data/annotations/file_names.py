"""File names as other systems write them, and files that no person has put where they are."""

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from ..bad_samples import BadSample


_LITTER = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}


def is_litter(name: str) -> bool:
    """Whether a system or a program has put a file or folder there: hidden ones, `._a.jpg`, `Thumbs.db`, `@eaDir`."""
    return name.startswith(".") or name.casefold() in _LITTER


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and its folders that persons have put there; links are followed, but not in circles."""
    real: dict[Path, str] = {}
    # Not rglob, which passes over folders that are links.
    for parent, folders, names in os.walk(folder, followlinks=True):
        real[Path(parent)] = place = os.path.realpath(parent)
        if any(real.get(above) == place for above in Path(parent).parents):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not is_litter(name)]
        yield from (Path(parent, name) for name in names if not is_litter(name))


def locate(folder: Path, name: Any, what: str) -> Path:
    """Where the file is that a data file names, below `folder`; as it is written if there is none.

    Names of other systems are tried too: with backslashes, with %20 for a space, and with each accent as a letter of
    its own or together with its letter.

    Args:
        what: whose file it is, such as image 42, for a message.

    Raises:
        BadSample: it is no name that a file can have, or leads out of the folder.
    """
    if not isinstance(name, str) or not is_file_name(name):
        raise BadSample(f"the file name of {what} is {name!r:.80}")
    spellings = list(dict.fromkeys(_spellings(name)))
    if any(leads_out(spelling) for spelling in spellings):
        raise BadSample(
            f"the file name of {what}, {name!r:.200}, leads out of {folder}: write it relative to that folder, "
            "without .. and without a leading /, drive or ~, and set the folder in the recipe to where the files are, "
            "or put a symbolic link there"
        )
    return _first_there(folder, spellings)


def spelt_in(folder: Path, name: str) -> Path:
    """As `locate`, of a name that is known to be good."""
    return _first_there(folder, list(dict.fromkeys(_spellings(name))))


def is_file_name(name: str) -> bool:
    """Whether a file can be called so: it is text without a null byte, and not the folder itself."""
    return can_be_written(name) and "\0" not in name and (name.strip(" ./\\") != "" or leads_out(name))


def can_be_written(text: str) -> bool:
    """Whether it is text throughout: JSON can hold halves of characters, which no file and no terminal can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def leads_out(name: str) -> bool:
    """Whether a name is absolute or goes up, on any system, as it is written: links are not looked at."""
    path = PureWindowsPath(name)  # which knows both kinds of slashes
    return bool(path.drive or path.root) or ".." in path.parts or bool(re.match(r"~[^/\\]*[/\\]|~$", name))


def near_it(path: Path) -> str:
    """`, but ... does` with a file whose name differs in case, suffix or folder, for a message's end; or nothing."""
    beside = sorted(with_stem(path.with_suffix("")), key=lambda other: _folded(other.name) != _folded(path.name))
    folders = [path.parent.parent, *_folders(path.parent)]
    elsewhere = (folder / path.name for folder in folders if os.path.isfile(folder / path.name))
    found = next(iter(beside), None) or next(elsewhere, None)
    return f", but {found} does" if found else ""


def with_stem(path: Path) -> list[Path]:
    """The files that are called as `path` is, without looking at case, and have a suffix; in the order of names."""
    try:
        stems = _listed(path.parent, os.stat(path.parent).st_mtime_ns)
    except (OSError, ValueError):
        return []
    return [path.parent / name for name in stems.get(_folded(path.name), [])]


def _spellings(name: str) -> Iterator[str]:
    for text in (name, name.replace("\\", "/")):
        for plain in (text, unquote(text)):
            yield plain
            yield unicodedata.normalize("NFC", plain)
            yield unicodedata.normalize("NFD", plain)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(maxsize=4)
def _listed(folder: Path, changed: int) -> dict[str, list[str]]:
    """The names of a folder's files by their stems; read again when the time of its last change is another."""
    stems: dict[str, list[str]] = {}
    for name in sorted(entry.name for entry in os.scandir(folder) if not is_litter(entry.name)):
        stems.setdefault(_folded(Path(name).stem), []).append(name)
    return stems


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except (OSError, ValueError):
        return []


def _first_there(folder: Path, names: list[str]) -> Path:
    paths = [folder / name for name in names]
    # Not Path.exists, which raises where a name is too long.
    return next((path for path in paths if os.path.exists(path)), paths[0])
