"""The parts of callers' values that texts and reprs may show."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import attrs

__all__ = ["changed_only", "show_content", "size_only", "token", "worded"]

_shown: Final[ContextVar[bool]] = ContextVar("engine.show_content", default=False)
_VARIABLE: Final = "SESSION_ENGINE_SHOW_CONTENT"

_TOKEN: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z")


def token(value: object) -> str:
    """Return ``value`` if it looks like an identifier, else a placeholder.

    Servers choose their error codes, so a code goes into an exception text only when it cannot carry a sentence.
    """
    return value if isinstance(value, str) and _TOKEN.match(value) else "(not shown)"


@contextmanager
def show_content() -> Iterator[None]:
    """Let reprs show what messages, events and tools say, inside a block: ``with engine.show_content():``.

    Errors then end with the server's own words. For tests and notebooks, where a comparison that fails should show what
    differs. It holds for the task that enters the block and for what that task starts. In the environment,
    ``SESSION_ENGINE_SHOW_CONTENT=1`` does it for a whole process. Keys and header values are never shown.
    """
    token = _shown.set(True)
    try:
        yield
    finally:
        _shown.reset(token)


def size_only(value: Any) -> str:
    """Stand in for a value in a repr: how much of it there is, nothing of what it says, unless that is wanted."""
    if value is None:
        return "None"
    return repr(value) if _is_shown() else f"<{len(value)}>"


def worded(text: str, words: str) -> str:
    """Return an error's text, with the server's own words behind it where they may be shown."""
    return f"{text}: {words}" if words and _is_shown() else text


def _is_shown() -> bool:
    return _shown.get() or os.environ.get(_VARIABLE) == "1"


def changed_only(value: attrs.AttrsInstance) -> str:
    """Return a repr of settings that holds only those which are not at their defaults."""
    shown = []
    for each in attrs.fields(type(value)):
        item = getattr(value, each.name)
        if each.repr and item != each.default:
            shown.append(f"{each.name}={each.repr(item) if callable(each.repr) else repr(item)}")
    return f"{type(value).__name__}({', '.join(shown)})"
