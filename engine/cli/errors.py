"""Failures as the command line tells them: one line, safe to show on a terminal, without the key."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from engine.values.errors import RequestRejected, ResponseFailed
from engine.values.problems import ConfigurationError, EngineError

__all__ = ["DONE", "FAILED", "INTERRUPTED", "MISUSED", "CommandFailed", "describe", "neutralise", "one_line", "redact"]

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it

_SHORT: Final = 8
_WORDS: Final = 300
_LINE: Final = 1000

# C0 but tab and line feed, delete, C1. Carriage return counts: it lets a text overwrite the line it stands on.
_NEUTRAL: Final = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}


class CommandFailed(Exception):
    """A command could not do its work for a reason outside the library.

    Attributes:
        code: The exit code it deserves.
    """

    def __init__(self, message: str, *, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def neutralise(text: str) -> str:
    """Replace every control character but newline and tab by a visible stand-in.

    What a model writes may hold escape sequences that retitle, recolour or type into the terminal it is shown on.
    """
    return text.translate(_NEUTRAL)


def one_line(text: str, limit: int = _LINE) -> str:
    """Return ``text`` as one line of at most ``limit`` characters, without control and formatting characters."""
    plain = "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character) not in {"Cc", "Cf", "Cs"}
    )
    line = " ".join(plain.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def redact(text: str, secret: str | None) -> str:
    """Take ``secret`` out of ``text``: a server may quote the key it refuses.

    A short one, as servers without keys are given ("x"), is taken out as a word only: letters are no secret.
    """
    if not secret:
        return text
    found = re.escape(secret)
    return re.sub(found if len(secret) >= _SHORT else rf"(?<!\w){found}(?!\w)", "(key)", text)


def describe(error: Exception, secret: str | None = None) -> str:
    """Say in one line what went wrong, with the server's own words where it gave any.

    Args:
        error: The exception.
        secret: The key, which must not be shown whatever the server writes.
    """
    told = error.args[0] if isinstance(error, (RequestRejected, ResponseFailed)) else error  # its words come below
    text = str(told) or type(error).__name__
    words = error.message if isinstance(error, (RequestRejected, ResponseFailed)) else ""
    parts = [one_line(redact(text, secret))]
    if words:
        parts.append(one_line(redact(words, secret), _WORDS))
    if isinstance(error, EngineError) and not isinstance(error, ConfigurationError):
        parts.insert(0, type(error).__name__)
    return ": ".join(parts)
