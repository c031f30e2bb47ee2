"""The entries of one long list in a JSON file, found without holding them, and read again when they are asked for.

As Python objects COCO's annotations take gigabytes, of which every loading process comes to own a copy, as text half a
gigabyte. Here they stay in the file, and two numbers say where each of them is.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import orjson

from ...errors import UserError
from .text_files import is_marked, read_json, with_each_key_once


T = TypeVar("T")

CHUNK = 2**25
"""Bytes that are searched at once."""

BATCH = 200
"""Entries that are parsed at once: more would not fit into the processor's cache."""


class Entries(Protocol):
    """JSON values that can be asked for one by one, in any process."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Any]:
        """Those at some places."""


class PackedRecords:
    """A list of JSON values in one block of memory, which forked loading processes share."""

    def __init__(self, records: Sequence[Any]) -> None:
        texts = [json.dumps(record).encode() for record in records]
        self._bounds = np.cumsum([0, *(len(text) for text in texts)])
        self._text = np.frombuffer(b"".join(texts), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> Any:
        start, end = self._bounds[index : index + 2]
        return json.loads(self._text[start:end].tobytes())

    def read(self, indices: Sequence[int]) -> list[Any]:
        """Those at some places."""
        return [self[index] for index in indices]


class FileEntries:
    """JSON values that stay in their file.

    Args:
        bounds: (N, 2) where each begins and ends, in bytes.
        stamp: of the file before they were found.
    """

    def __init__(self, path: Path, bounds: np.ndarray, stamp: tuple[int, int]) -> None:
        self.path = path.absolute()
        self.bounds = bounds
        self.stamp = stamp

    def __len__(self) -> int:
        return len(self.bounds)

    def read(self, indices: Sequence[int]) -> list[Any]:
        """Those at some places.

        Raises:
            UserError: the file is not as it was.
        """
        if not len(indices):
            return []
        try:
            if _stamp(self.path) != self.stamp:
                raise UserError(f"{self.path} has changed since it was read: start again")
            # Opened each time, since processes that share an open file would move each other's place in it.
            with self.path.open("rb") as file:
                return [json.loads(_between(file, *self.bounds[index].tolist())) for index in indices]
        except OSError as error:
            raise UserError(f"cannot read {self.path} again: {error.strerror}") from error


def read_entries(path: Path, part: str, look: Callable[[Iterator[Any]], T]) -> tuple[Any, T | None, Entries | None]:
    """The value in a JSON file, and the entries of its list `part`.

    Args:
        look: is given all entries one after the other, in which whole numbers of more than 64 bits may be floats.

    Returns:
        What the file holds, whose list may hold something else; what `look` returned; and the entries, to be read
        again. Where the value is no object with such a list, it is whole, and the others are None.

    Raises:
        UserError: as `text_files.read_json`.
    """
    try:
        stamp = _stamp(path)
        content, bounds, data = _split(path, part)
        return content, look(_parsed(data, bounds)), FileEntries(path, bounds[:, :2], stamp)
    except (OSError, ValueError, RecursionError):
        # In another encoding, with NaN, or damaged: slowly, with all that is to be said of it.
        content = read_json(path)
    listed = content.get(part) if isinstance(content, dict) else None
    return (content, look(iter(listed)), PackedRecords(listed)) if isinstance(listed, list) else (content, None, None)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _between(file: Any, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _split(path: Path, part: str) -> tuple[Any, np.ndarray, bytes]:
    """The file's value with an empty list for each entry, where these are, see `_find`, and all that the file holds.

    Raises:
        ValueError: it has to be read in another way.
    """
    data = path.read_bytes()
    if is_marked(data):
        raise ValueError
    bounds = _find(data, part)
    edges = [0, *bounds[:, :2].flatten().tolist(), len(data)]
    gaps = [data[start:end] for start, end in zip(edges[::2], edges[1::2])]
    content = json.loads(b"[]".join(gaps).decode(), object_pairs_hook=with_each_key_once)
    if len(content[part]) != len(bounds):  # there is something else between them
        raise ValueError
    return content, bounds, data


def _parsed(data: bytes, bounds: np.ndarray) -> Iterator[Any]:
    """The entries at some places.

    Raises:
        ValueError: one is no JSON, or has a key twice, of which orjson would keep the last.
    """
    for first in range(0, len(bounds), BATCH):
        batch = bounds[first : first + BATCH]
        text = b"[%b]" % data[batch[0, 0] : batch[-1, 1]]
        entries = orjson.loads(text)
        # An object of as many keys as there are colons in it holds no other object, and no key twice.
        lengths = np.fromiter(map(len, entries), dtype=np.int64, count=len(batch))
        if any(_count_keys(entries[at]) != batch[at, 2] for at in (lengths != batch[:, 2]).nonzero()[0]):
            json.loads(text, object_pairs_hook=with_each_key_once)
        yield from entries


def _count_keys(value: Any) -> int:
    """Of objects in objects and lists, but for lists that begin with a number, as most do; too few is no harm."""
    if type(value) is dict:
        return len(value) + sum(_count_keys(each) for each in value.values() if type(each) in _NESTED)
    if type(value) is list and value and type(value[0]) in _NESTED:
        return sum(map(_count_keys, value))
    return 0


_NESTED = (dict, list)

_QUOTE, _BACKSLASH, _COLON, _OPENING, _CLOSING = range(1, 6)
_KINDS = np.zeros(256, dtype=np.uint8)
_KINDS[list(b'"\\:{[}]')] = [_QUOTE, _BACKSLASH, _COLON, _OPENING, _OPENING, _CLOSING, _CLOSING]


def _find(data: bytes, part: str) -> np.ndarray:
    """(N, 3) of the objects and lists in the list `part` of a JSON object: first byte, byte after the last, and keys.

    Raises:
        ValueError: there is not one such list.
    """
    starts, ends, lists = [np.empty((0, 2), int)], [np.empty((0, 2), int)], []
    inside, depth, keys = False, 0, 0  # of text in quotes; of brackets; so far
    for first in range(0, len(data), CHUNK):
        places, inside = _marks(data, first, inside)
        kinds = _KINDS[np.frombuffer(data, dtype=np.uint8)[places]]
        steps = (kinds == _OPENING).astype(int) - (kinds == _CLOSING)
        depths, counts = depth + steps.cumsum(), keys + (kinds == _COLON).cumsum()
        begins, stops = (steps > 0) & (depths == 3), (steps < 0) & (depths == 2)
        starts.append(np.stack([places[begins], counts[begins]], 1))
        ends.append(np.stack([places[stops] + 1, counts[stops]], 1))
        lists += [(place, 1) for place in places[(steps > 0) & (depths == 2)].tolist()]
        lists += [(place, 0) for place in places[(steps < 0) & (depths == 1)].tolist()]
        if len(depths):
            depth, keys = int(depths[-1]), int(counts[-1])
    start, end = _list_called(data, part, sorted(lists))
    begins, stops = (np.concatenate(each) for each in (starts, ends))
    begins, stops = (each[(each[:, 0] > start) & (each[:, 0] <= end)] for each in (begins, stops))
    if len(begins) != len(stops):
        raise ValueError
    return np.stack([begins[:, 0], stops[:, 0], stops[:, 1] - begins[:, 1]], 1)


def _marks(data: bytes, first: int, inside: bool) -> tuple[np.ndarray, bool]:
    """Where in a chunk there are brackets and colons that are not in quotes, and whether its end is."""
    kinds = _KINDS[np.frombuffer(data, dtype=np.uint8)[first : first + CHUNK]]
    places = (kinds != 0).nonzero()[0]
    kinds, places = kinds[places], places + first
    quotes = kinds == _QUOTE
    if (kinds == _BACKSLASH).any() or data[first - 1 : first] == b"\\":
        escaped = [at for at in quotes.nonzero()[0].tolist() if _is_escaped(data, int(places[at]))]
        quotes[escaped] = False
    within = (quotes.cumsum() + inside) % 2 == 1
    return places[~within & (kinds >= _COLON)], bool(within[-1]) if len(within) else inside


def _is_escaped(data: bytes, place: int) -> bool:
    """Whether an odd number of backslashes stands before a quote."""
    start = place
    while start and data[start - 1] == _ESCAPE:
        start -= 1
    return (place - start) % 2 == 1


_ESCAPE = ord("\\")


def _list_called(data: bytes, part: str, edges: list[tuple[int, int]]) -> tuple[int, int]:
    """Where the list `part` begins and ends.

    Args:
        edges: where the values of the outermost object begin (1) and end (0).
    """
    name = re.compile(rb'(?<!\\)"%b"\s*:\s*$' % part.encode())
    pairs = [
        (start, end)
        for (start, begins), (end, again) in zip(edges, edges[1:])
        if begins and not again and data[start : start + 1] == b"[" and name.search(data[max(0, start - 200) : start])
    ]
    if len(pairs) != 1:
        raise ValueError
    return pairs[0]
