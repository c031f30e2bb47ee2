"""Text, lines and JSON in files, whatever system and encoding they come from."""

import codecs
import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

from ...errors import UserError


_logger = logging.getLogger(__name__)

# The longer ones first: that of UTF-32 begins as that of UTF-16 does.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path) -> str:
    """What a text file holds, in UTF-8, in what its first bytes tell, or else in the encoding of old Windows.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        return decode(path.read_bytes(), path)
    except OSError as error:
        raise UserError(f"cannot read {path.absolute()}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in {error.encoding}: {error.reason}") from error


def decode(data: bytes, path: Path) -> str:
    """As `read_text`, of what a file holds.

    Raises:
        UnicodeDecodeError: its first bytes tell an encoding that it is not in.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), _unmarked(data))
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise
    _logger.warning("%s is not UTF-8: read as Windows-1252", path)
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # which knows every byte


def read_lines(path: Path) -> list[str]:
    """The lines of a list, without what surrounds them and without empty ones; they may end as on any system."""
    lines = (line.strip() for line in re.split(r"\r\n|\r|\n", read_text(path)))
    return [line for line in lines if line]


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: it cannot be read, is no JSON, or an object has a key twice.
    """
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path} is empty: expected JSON")
    try:
        return json.loads(text, object_pairs_hook=with_each_key_once)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path} is not JSON of a data set: it is nested too deeply") from error


def is_marked(data: bytes) -> bool:
    """Whether the first bytes of a file tell another encoding than plain UTF-8."""
    return data.startswith(tuple(_MARKS)) or _unmarked(data) != "utf-8"


def _unmarked(data: bytes) -> str:
    """Of text whose first two characters are ASCII, as those of JSON and of most lists are."""
    if data[:1] == b"\0":
        return "utf-16-be"
    return "utf-16-le" if data[1:2] == b"\0" else "utf-8"


def with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would keep the last of them, and forget a whole list of annotations."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {twice!r} twice")
    return values
