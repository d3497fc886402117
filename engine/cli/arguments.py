"""The arguments of commands that serve: their types, which go together, and what they share.

Without click, so that a test server needs nothing but the library.
"""

from __future__ import annotations

import argparse
import ipaddress
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

__all__ = [
    "MISUSED",
    "Parser",
    "ServingFailed",
    "add_process_options",
    "check_host",
    "filled",
    "forbid",
    "from_zero",
    "positive",
    "require",
]

MISUSED: Final = 2


class ServingFailed(Exception):
    """The command cannot go on.

    Attributes:
        code: The exit code.
    """

    def __init__(self, message: str, code: int = MISUSED) -> None:
        super().__init__(message)
        self.code = code


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise ServingFailed(f"{message.rstrip('.')}. Try {self.prog} --help.")


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a program that starts the server finds it, and ends it."""
    add = parser.add_argument_group("the process").add_argument
    add("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    add("--port", type=_port, default=0, help="the port to listen on; 0, the default, picks a free one")
    add("--allow-remote", action="store_true", help="allow a --host that other machines can reach")
    add("--json", action="store_true", help="print JSON lines; the first, printed once it listens, says where it is")
    add("--ready-file", type=Path, metavar="PATH", help="write that first line into this file too")
    add("--exit-with-parent", action="store_true", help="end when standard input ends, as it does with its parent")
    add(
        "--redact", action="append", type=_pattern, default=[], metavar="REGEX",
        help="leave what this finds out of every file that is written; may be given more than once",
    )  # fmt: skip


# --- types -----------------------------------------------------------------------------------------------------------


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    return text


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def positive(text: str) -> float:
    """Take a number above 0."""
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"it has to be more than 0, not {text}")
    return number


def from_zero(text: str) -> float:
    """Take a number that is not below 0."""
    number = _number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"it has to be 0 or more, not {text}")
    return number


def filled(text: str) -> str:
    """Take a text that is not empty: an environment variable that is not set makes an empty one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


# --- options together ------------------------------------------------------------------------------------------------


def require(given: argparse.Namespace, option: str, other: str) -> None:
    """Refuse an option that means nothing without another one.

    Raises:
        ServingFailed: the one was given, and the other was not.
    """
    if _given(given, option) and not _given(given, other):
        raise ServingFailed(f"{option} means nothing without {other}")


def forbid(given: argparse.Namespace, option: str, others: Iterable[str]) -> None:
    """Refuse options that mean nothing beside another one.

    Raises:
        ServingFailed: that one was given, and one of the others too.
    """
    for other in others:
        if _given(given, option) and _given(given, other):
            raise ServingFailed(f"{other} means nothing with {option}")


def _given(given: argparse.Namespace, option: str) -> bool:
    return getattr(given, option.removeprefix("--").replace("-", "_")) not in (None, False, [])


def check_host(given: argparse.Namespace) -> None:
    """Refuse to listen where others can reach it, unless that is wanted.

    Raises:
        ServingFailed: it is not.
    """
    if given.allow_remote or given.host == "localhost":
        return
    try:
        if ipaddress.ip_address(given.host).is_loopback:
            return
    except ValueError:
        pass
    raise ServingFailed(f"{given.host} is not a loopback address; to serve other machines too, add --allow-remote")
