"""How every script starts and how it ends on a user's mistake: a clear message on stderr and a non-zero exit code."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import yaml
from tqdm import tqdm

from .errors import UserError


Item = TypeVar("Item")

SECONDS_PER_LINE = 30.0
"""Between two lines in place of a bar."""

_SECRET = re.compile(r"token|password|secret|api_?key|credential", re.IGNORECASE)
_HIDDEN = "..."

_command: list[str] | None = None


class ArgumentParser(argparse.ArgumentParser):
    """argparse that reports a bad command line as a `UserError`: one line, without the usage text before it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def parse_fields(fields: list[str]) -> dict[str, Any]:
    """`field=value` arguments, the values as YAML.

    Raises:
        UserError: one has no `=`, or its value is no YAML.
    """
    values = {}
    for field in fields:
        name, separator, text = field.partition("=")
        if not separator:
            raise UserError(f"expected field=value, got {field!r}; for example drop_path_rate=0.3")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"{name}: cannot read the value {text!r}") from error
    return values


def run(main: Callable[[], None]) -> NoReturn:
    """Call `main` and leave the process with 0, 1 after a `UserError`, or 130 after Ctrl-C."""
    global _command
    _command = list(sys.argv)
    try:
        main()
    except UserError as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        _command = None
    sys.exit(0)


def command() -> list[str] | None:
    """The command that this process runs, without what is secret in it; None where Python calls the library."""
    return None if _command is None else without_secrets(_command)


def without_secrets(arguments: list[str]) -> list[str]:
    """`--hub_token VALUE`, `--hub_token=VALUE` and `some.token=VALUE` without the value, and so with other secrets."""
    shown: list[str] = []
    follows = False
    for argument in arguments:
        name, separator, _ = argument.partition("=")
        is_secret = bool(_SECRET.search(name.rpartition("/")[2]))
        if follows and not argument.startswith("--"):
            shown.append(_HIDDEN)
        else:
            shown.append(f"{name}={_HIDDEN}" if is_secret and separator else argument)
        follows = is_secret and not separator and argument.startswith("-")
    return shown


def is_watched() -> bool:
    """Whether somebody sees the bars; in a file, each of their states would be left behind."""
    return sys.stderr.isatty()


def watch(items: Iterable[Item], description: str, unit: str = "it", shown: bool = True) -> Iterable[Item]:
    """The items, with a bar that is gone at the end, or, where nobody watches, with a plain line now and then."""
    if is_watched():
        return tqdm(items, description, unit=unit, leave=False, disable=not shown)
    return _with_lines(items, description, unit) if shown else items


def _with_lines(items: Iterable[Item], description: str, unit: str) -> Iterator[Item]:
    total = f"/{len(items)}" if isinstance(items, Sized) else ""
    last = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - last >= SECONDS_PER_LINE:
            last = time.monotonic()
            tqdm.write(f"{description}: {number}{total} {unit}", file=sys.stderr)
        yield item


@contextmanager
def without_their_progress_bars() -> Iterator[None]:
    """transformers' bars for reading and writing weights would break up ours, those of `datasets` would fill a log.

    For what comes after the arguments are read: transformers takes a second to import, and a typo should be answered
    at once.
    """
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # and those of downloads from the Hub
    if not is_watched():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when `datasets` is imported
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _message(error: UserError) -> str:
    """Without the traceback before it with which an error arrives that was raised in a data-loading worker."""
    return str(error).rpartition(f"{UserError.__module__}.{UserError.__qualname__}: ")[2].strip()
