"""What files a folder holds, looked at once and without opening them."""

import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from ...errors import UserError
from ..annotations.file_names import is_litter
from ..images import is_picture_name
from .names import role_of, split_of


MOST_FILES = 2_000_000
"""In a folder that is looked through; one with more is no data set, but a disk."""


@dataclass(frozen=True)
class Survey:
    """The files below a folder, without those of systems and programs.

    Attributes:
        root: the folder, or the only one in it.
        folders: the names of the files in each folder, in their order; `a/b` below the root, which is "".
        chosen: a file below the root that was given in the folder's place, or nothing.
    """

    root: Path
    folders: dict[str, list[str]]
    chosen: str = ""

    @classmethod
    def of(cls, folder: Path, chosen: str = "") -> "Survey":
        """Look through a folder; a superfluous one round the data is passed over.

        Raises:
            UserError: it holds no file, or too many.
        """
        folders: dict[str, list[str]] = {}
        count, real = 0, dict[str, str]()
        for parent, below, names in os.walk(folder, followlinks=True):
            real[parent] = place = os.path.realpath(parent)
            if any(real.get(str(above)) == place for above in Path(parent).parents):
                below.clear()  # a link to a folder above
                continue
            below[:] = sorted(name for name in below if not is_litter(name))
            kept = sorted(name for name in names if not is_litter(name))
            count += len(kept)
            if count > MOST_FILES:
                raise UserError(f"{folder} holds more than {MOST_FILES:,} files: give the folder of one data set")
            if kept:
                folders["" if parent == str(folder) else Path(parent).relative_to(folder).as_posix()] = kept
        if not folders:
            raise UserError(f"{folder} holds no file: give the folder of the data")
        survey = cls(folder, folders, chosen)
        return survey if chosen else survey._unwrapped()

    def _unwrapped(self) -> "Survey":
        """Without folders that hold nothing but one other, and say nothing of a split or of what is in them."""
        outer = os.path.commonpath(list(self.folders)) if "" not in self.folders else ""
        parts: list[str] = []
        for part in PurePosixPath(outer).parts:
            if role_of(part) or split_of(part):
                break
            parts.append(part)
        start = len("/".join(parts)) + 1 if parts else 0
        return Survey(self.root.joinpath(*parts), {name[start:]: files for name, files in self.folders.items()})

    @cached_property
    def pictures(self) -> dict[str, list[str]]:
        """Of each folder that holds some, the pictures in it."""
        found = {folder: [name for name in names if _is_picture(name)] for folder, names in self.folders.items()}
        return {folder: names for folder, names in found.items() if names}

    @cached_property
    def num_pictures(self) -> int:
        return sum(map(len, self.pictures.values()))

    @cached_property
    def places_of_pictures(self) -> dict[str, list[str]]:
        """The folders of the pictures of each name."""
        places: dict[str, list[str]] = {}
        for folder, names in self.pictures.items():
            for name in names:
                places.setdefault(name, []).append(folder)
        return places

    def with_ending(self, *endings: str) -> dict[str, list[str]]:
        """Of each folder that holds some, the files whose names end so, in any case."""
        found = {
            folder: [name for name in names if name.casefold().endswith(endings)]
            for folder, names in self.folders.items()
        }
        return {folder: names for folder, names in found.items() if names}

    def paths(self, *endings: str) -> list[str]:
        """The same as paths below the root, those nearest to it first."""
        if self.chosen.casefold().endswith(endings):
            return [self.chosen]
        found = [join(folder, name) for folder, names in self.with_ending(*endings).items() for name in names]
        return sorted(found, key=lambda path: (path.count("/"), path))

    def named(self, *names: str) -> list[str]:
        """The paths of files that are called so, in any case, those nearest to the root first."""
        return [path for path in self.paths(*names) if path.rpartition("/")[2].casefold() in names]


def join(folder: str, name: str) -> str:
    """The path of a file below the root."""
    return f"{folder}/{name}" if folder else name


def _is_picture(name: str) -> bool:
    return _has_picture_ending(os.path.splitext(name)[1].casefold())


@cache
def _has_picture_ending(ending: str) -> bool:
    return is_picture_name(f"a{ending}")
