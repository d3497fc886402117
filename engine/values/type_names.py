"""The names of types, as the texts of errors say them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["kind_of", "with_article"]

_VOWEL: Final = re.compile(
    r"""
    [AEFHILMNORSX][A-Z]                      # spelled letter by letter: an SSLContext, a URL
    | (?i: (?! eu | one | uni) (?: [aeio] | un | up))  # an int, an UnknownEvent; a UserMessage, a Union
    """,
    re.VERBOSE,
)


def kind_of(value: object) -> str:
    """Return a value's type with its article, as the text of an error names it: ``"an int"``."""
    return "None" if value is None else with_article(type(value).__name__)


def with_article(name: str) -> str:
    """Return the name of a type with ``a`` or ``an`` before it, by how it is spoken."""
    return f"{'an' if _VOWEL.match(name.lstrip('_')) else 'a'} {name}"
