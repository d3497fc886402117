"""Text that can be written as UTF-8: what JSON's escapes can smuggle in, and Python strings can hold, made well-formed.

A character beyond U+FFFF is two code units in JSON's escapes (RFC 8259 section 7), and a server or a caller that cuts
text by code units sends half of one. Two halves that meet are the character; a half that stays alone is U+FFFD, as a
decoder of UTF-8 would have it.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["REPLACEMENT", "Halves", "is_well_formed", "well_formed", "well_formed_value"]

REPLACEMENT: Final = "\ufffd"
"""The substitute for half a character."""


def well_formed(text: str) -> str:
    """Return the text with halves that meet joined, and those that stay alone replaced."""
    if is_well_formed(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_well_formed(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def well_formed_value(value: Any) -> Any:
    """Return a parsed JSON value with all its text well-formed: the value itself where nothing is wrong with it."""
    return value if _holds_well_formed(value) else _rebuilt(value)


def _holds_well_formed(value: Any) -> bool:
    pending = [value]  # a stack rather than recursion: how deep values nest is the peer's choice
    while pending:
        each = pending.pop()
        if each.__class__ is str:
            if not (each.isascii() or is_well_formed(each)):  # nearly all of it is ASCII
                return False
        elif each.__class__ is dict:
            pending.extend(each)
            pending.extend(each.values())
        elif each.__class__ is list:
            pending.extend(each)
    return True


def _rebuilt(value: Any) -> Any:
    try:
        return _joined(value)
    except RecursionError:
        return value  # the encoder joins what is sent back


def _joined(value: Any) -> Any:
    if value.__class__ is str:
        return well_formed(value)
    if value.__class__ is dict:
        return {well_formed(name): _joined(each) for name, each in value.items()}
    return [_joined(each) for each in value] if value.__class__ is list else value


class Halves:
    """Joins text that comes in pieces, where a piece may end in half a character."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    @property
    def pending(self) -> bool:
        """Whether half a character waits for the other one."""
        return bool(self._half)

    def join(self, piece: str) -> str:
        """Take a piece and return what can be shown of it, with the half that waited before."""
        if not self._half and piece.isascii():
            return piece
        piece = self._half + piece
        self._half = ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._half, piece = piece[-1], piece[:-1]
        return well_formed(piece)

    def rest(self) -> str:
        """Give up waiting, and return what stands for the half that is left: nothing, or U+FFFD."""
        left, self._half = self._half, ""
        return REPLACEMENT if left else ""
