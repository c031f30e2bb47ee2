"""What damages files: bytes that are cut, flipped and swapped, and JSON whose values have become others."""

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any


HOSTILE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.0,
    0.5,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    10**30,
    1e12,
    -1e12,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    ".",
    "..",
    "1",
    "-7",
    "1.0",
    "ten",
    "nan",
    "\0",
    "a\nb",
    "\ud800",
    "ä" * 300,
    "../outside.png",
    "C:\\outside.png",
    "zz0",
    "o" * 5000,
    [],
    {},
    [[]],
    [None],
    [1, 2],
    [1, 2, 3, 4],
    ["a", "b", "c", "d", "e", "f"],
    [0, 0, 10**400, 1, 1, 1],
    {"size": [8, 8], "counts": None},
    {"size": None, "counts": []},
    {"size": [8, 8], "counts": [64, "0"]},
    {"a": {"b": [{}]}},
]
"""Values of every JSON type, at the ends of their ranges, as well-meant nonsense and as malice."""

RAW = ["NaN", "-Infinity", "1e400", "-1e400", "9" * 4000, "9" * 5000, "[" * 3000, '{"a":' * 3000, "1,", "tru", "'a'"]
"""What JSON text may hold in the place of a value."""

WORDS = [0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000]


def damaged(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """`data` after one to three kinds of damage; `other` is what may get into it."""
    for _ in range(random.randint(1, 3)):
        data = random.choice(DAMAGES)(data, random, other)
    return data


def _cut(data: bytes, random: Random, other: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def _flip(data: bytes, random: Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(data), random.choice([1, 1, 2, 8, 64]))):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _flip_early(data: bytes, random: Random, other: bytes) -> bytes:
    """In the header, where sizes and types stand."""
    return _flip(data[:64], random, other) + data[64:]


def _overwrite(data: bytes, random: Random, other: bytes) -> bytes:
    start = random.randint(0, len(data))
    return data[:start] + random.randbytes(random.choice([1, 4, 16])) + data[start + 4 :]


def _set_word(data: bytes, random: Random, other: bytes) -> bytes:
    """A number that is a size or an offset, if it hits one."""
    size, order = random.choice([1, 2, 4]), random.choice(["little", "big"])
    start = random.randint(0, max(0, min(len(data), 200) - size))
    word = (random.choice(WORDS) & (256**size - 1)).to_bytes(size, order)
    return data[:start] + word + data[start + size :]


def _drop(data: bytes, random: Random, other: bytes) -> bytes:
    start = random.randint(0, len(data))
    return data[:start] + data[start + random.choice([1, 2, 16, 100]) :]


def _repeat(data: bytes, random: Random, other: bytes) -> bytes:
    start = random.randint(0, len(data))
    return data[:start] + data[max(0, start - random.choice([1, 8, 100])) :]


def _splice(data: bytes, random: Random, other: bytes) -> bytes:
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


DAMAGES: list[Callable[[bytes, Random, bytes], bytes]] = [
    _cut,
    _flip,
    _flip_early,
    _overwrite,
    _set_word,
    _drop,
    _repeat,
    _splice,
]


def changed_json(value: Any, random: Random, times: int = 1) -> Any:
    """A copy of a JSON value in which so many places hold something else, lack a key or stand in another's place."""
    value = copy.deepcopy(value)
    for _ in range(times):
        places = list(_places(value))
        if places:
            _change(*random.choice(places), random)
    return value


def json_text(value: Any, random: Random) -> bytes:
    """A JSON file, which is sometimes damaged as text or written in another encoding."""
    text = json.dumps(value)
    if random.random() < 0.15:
        numbers = [place for place, character in enumerate(text) if character in ":,["]
        place = random.choice(numbers) + 1 if numbers else 0
        text = text[:place] + random.choice(RAW) + text[place + random.randint(0, 3) :]
    data = text.encode(random.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"]))
    return damaged(data, random, data) if random.random() < 0.15 else data


def _places(value: Any) -> Any:
    """The container and the key of each value inside."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _change(container: Any, key: Any, random: Random) -> None:
    match random.randrange(8):
        case 0:
            del container[key]
        case 1:
            container[key] = [copy.deepcopy(container[key])]
        case 2:
            container[key] = str(container[key])
        case 3 if isinstance(container[key], int | float) and abs(container[key]) < 1e300:  # whose product is a float
            container[key] *= random.choice([-1, 1.5, 1e6, 1e12, float("inf")])
        case 4 if isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        case _:
            container[key] = copy.deepcopy(random.choice(HOSTILE))
