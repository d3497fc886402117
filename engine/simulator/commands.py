"""What a WebSocket's writer does, in the order in which it was asked."""

from __future__ import annotations

from typing import TypeAlias

import attrs

__all__ = ["Abort", "Close", "Command", "Cut", "Frame", "Freeze", "Ping", "text_frame"]


@attrs.frozen
class Frame:
    """A whole frame; bytes make a binary one."""

    payload: str | bytes


@attrs.frozen
class Cut:
    """The beginning of a text frame, after which the connection is dropped."""

    payload: str
    fraction: float


@attrs.frozen
class Close:
    """A Close frame."""

    code: int
    reason: str


@attrs.frozen
class Abort:
    """The end without a word; ``reset`` discards what the peer has not read."""

    reset: bool


@attrs.frozen
class Ping:
    """A protocol ping."""


@attrs.frozen
class Freeze:
    """Silence from here on; in the outbox, so that what was sent before still leaves."""


Command: TypeAlias = "Frame | Cut | Close | Abort | Ping | Freeze"


def text_frame(payload: str) -> bytes:
    """Return an unmasked text frame (RFC 6455 section 5.2)."""
    data = payload.encode()
    if len(data) < 126:
        head = bytes([0x81, len(data)])
    elif len(data) < 65536:
        head = bytes([0x81, 126]) + len(data).to_bytes(2, "big")
    else:
        head = bytes([0x81, 127]) + len(data).to_bytes(8, "big")
    return head + data
