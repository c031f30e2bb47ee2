"""How every script starts and how it ends on a user's mistake: a clear message on stderr and a non-zero exit code."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml

from .errors import UserError


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
    try:
        main()
    except UserError as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


@contextmanager
def without_their_progress_bars() -> Iterator[None]:
    """transformers' bars for reading and writing weights would break up ours.

    For what comes after the arguments are read: transformers takes a second to import, and a typo should be answered
    at once.
    """
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _message(error: UserError) -> str:
    """Without the traceback before it with which an error arrives that was raised in a data-loading worker."""
    return str(error).rpartition(f"{UserError.__module__}.{UserError.__qualname__}: ")[2].strip()
