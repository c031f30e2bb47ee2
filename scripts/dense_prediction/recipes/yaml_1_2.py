"""YAML with the plain values of version 1.2: 1e-4 is a number, and `no` or 2024-05-01 are words.

PyYAML follows version 1.1, in which 1e-4 is a word, `no` is false and 2024-05-01 a date.
"""

import math
import re
from typing import Any

import yaml


_NUMBER = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_OTHERWISE = ("bool", "timestamp")
"""What version 1.1 takes more words for."""


class Loader(yaml.SafeLoader):
    """Reads it."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _OTHERWISE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), "tTfF")
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, "-+.0123456789")


class _Dumper(yaml.SafeDumper):
    """Quotes the words that either version takes for something else."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, "-+.0123456789")


def dump_value(value: Any) -> str:
    """A value on one line, as `Loader` reads it."""
    text = _dump(value)
    # A line break is kept as such unless the word is in double quotes.
    return text if "\n" not in text else _dump(value, default_style='"')


def _dump(value: Any, default_style: str | None = None) -> str:
    dumped = yaml.dump(
        value,
        Dumper=_Dumper,
        width=math.inf,
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        default_style=default_style,
    )
    return str(dumped).removesuffix("...\n").strip()
