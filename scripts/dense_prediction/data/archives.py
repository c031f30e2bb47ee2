"""Zip files as labelling tools export them, unpacked once into a cache."""

import hashlib
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import constants

from ..errors import UserError
from .annotations.file_names import is_litter, leads_out


MOST_MEMBERS = 2_000_000

LARGEST_RATIO, FREE_RATIO = 200, 2**30
"""How many times more than it takes an archive may hold, if that is more than so many bytes."""

KEPT_FREE = 2**28
"""Bytes of the disk."""

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
)
"""What `zipfile` meets damaged files with, and with RuntimeError files of which it wants a password."""


def is_archive(path: Path) -> bool:
    """Whether a file is called as a zip file."""
    return path.suffix.casefold() == ".zip"


def unpack(file: Path) -> Path:
    """The folder with what a zip file holds, beside the cache of Hugging Face; the same file is unpacked once.

    Raises:
        UserError: it cannot be read, or a member leads out of the folder, is a link or of an absurd size.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file)
            folder = cache_folder() / f"{_short(file.stem)}-{_fingerprint(members)}"
            if not folder.is_dir():
                _extract(archive, members, folder, file)
    except DAMAGED as error:
        raise UserError(f"{file} is no zip file that can be read: {error}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be unpacked into {cache_folder()}: {error.strerror or error}") from error
    return folder


def cache_folder() -> Path:
    """Where archives are unpacked: `vit_comer/archives` beside the Hub's own cache, below HF_HOME."""
    return Path(constants.HF_HOME) / "vit_comer" / "archives"


def _members(archive: zipfile.ZipFile, file: Path) -> list[zipfile.ZipInfo]:
    """The files in it, without those of systems.

    Raises:
        UserError: for what nobody packs who means well.
    """
    members = [member for member in archive.infolist() if not member.is_dir() and not _is_litter(member)]
    if len(members) > MOST_MEMBERS:
        raise UserError(f"{file} holds {len(members):,} files, at most {MOST_MEMBERS:,} are unpacked: give a folder")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if leads_out(member.filename):
            raise UserError(f"{file}: its member {member.filename!r:.200} leads out of the folder: pack it anew")
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{file}: its member {member.filename!r:.200} is a link or no file: pack the file itself")
    size, packed = sum(member.file_size for member in members), sum(member.compress_size for member in members)
    if size > FREE_RATIO and size > LARGEST_RATIO * packed:
        raise UserError(f"{file} would become {size:,} bytes of {packed:,}: that is no data set; unpack it yourself")
    return members


def _extract(archive: zipfile.ZipFile, members: Iterable[zipfile.ZipInfo], folder: Path, file: Path) -> None:
    """Into a folder beside, which is renamed once it is complete."""
    size = sum(member.file_size for member in members)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if size + KEPT_FREE > free:
        raise UserError(f"{file} needs {size:,} bytes, and {folder.parent} has {free:,} left; set HF_HOME elsewhere")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for member in members:
            target = partial.joinpath(*_parts(member.filename))
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 2**20)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # which another process has unpacked meanwhile
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _parts(name: str) -> list[str]:
    """Of a path, which Windows may have written with backslashes."""
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]


def _is_litter(member: zipfile.ZipInfo) -> bool:
    return any(is_litter(part) for part in _parts(member.filename) if part != "..")


def _fingerprint(members: Iterable[zipfile.ZipInfo]) -> str:
    """Of the names and contents, as far as their checksums tell."""
    digest = hashlib.sha256()
    for member in members:
        digest.update(f"{member.filename}\0{member.CRC}\0{member.file_size}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _short(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)[:40]
