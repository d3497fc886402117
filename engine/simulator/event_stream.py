"""The writing of events into an HTTP body (WHATWG HTML, section 9.2.5 "Parsing an event stream"), quirks included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import wire

if TYPE_CHECKING:
    from .quirks import Quirks

__all__ = ["EventWriter"]

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done", "error"})


class EventWriter:
    """Turns events into the bytes of one stream."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks
        self._owed = b""  # the blank line that a terminal went without

    def event(self, event: dict[str, Any]) -> bytes:
        """Return the lines of one event."""
        name = event.get("type", "message") if self._quirks.event_names else None
        text = json.dumps(event, ensure_ascii=False, indent=1) if self._quirks.data_lines else wire.dumps(event)
        last = self._quirks.unterminated and event.get("type") in _TERMINAL and not self._quirks.done_marker
        return self._lines(text.encode(), name, ended=not last)

    def data(self, payload: str | bytes) -> bytes:
        """Return the lines of an event without a name, whatever its data."""
        return self._lines(payload.encode() if isinstance(payload, str) else payload, None)

    def comment(self, text: str) -> bytes:
        """Return a comment and the blank line after it."""
        return self._take_owed() + f": {text}{2 * self._quirks.newline}".encode()

    def done(self) -> bytes:
        """Return the marker that some servers end their streams with."""
        return self._lines(b"[DONE]", None, ended=not self._quirks.unterminated)

    def _lines(self, data: bytes, name: str | None, *, ended: bool = True) -> bytes:
        newline = self._quirks.newline.encode()
        colon = b": " if self._quirks.space else b":"
        lines = [b": simulated"] if self._quirks.comments else []
        if name is not None:
            lines.append(b"event" + colon + name.encode())
        lines += [b"data" + colon + line for line in data.split(b"\n")]
        written = self._take_owed() + newline.join([*lines, b""])
        if ended:
            return written + newline
        self._owed = newline
        return written

    def _take_owed(self) -> bytes:
        owed, self._owed = self._owed, b""
        return owed
