"""Bytes of a ``text/event-stream`` to its events (WHATWG HTML, section 9.2.6 "Interpreting an event stream").

Lines are found in the bytes, before anything is decoded: in UTF-8 no byte of a longer character is a line end, so it
does not matter where the peer's chunks are torn; and text in JSON may hold U+0085, U+2028 and U+2029, at which
`str.splitlines` would split while the standard does not.
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

__all__ = ["BOM", "OversizedEvent", "SseDecoder", "SseEvent"]

BOM: Final = b"\xef\xbb\xbf"
_LINE_ENDS: Final = (b"\n", b"\r")


@frozen
class SseEvent:
    """One event that has data.

    Attributes:
        event: Its name; ``"message"`` where the stream gives none, as the standard has it.
        data: Its data lines, joined by line feeds. What was not UTF-8 is U+FFFD. Not in the repr.
    """

    event: str
    data: str = field(repr=False)


class OversizedEvent(Exception):
    """A line, or all lines of an event, are longer than the bound. Nothing more can be decoded of this stream.

    Attributes:
        limit: The bound, in bytes.
        before: The events that ended in the same bytes before the one that is too long.
    """

    def __init__(self, limit: int, before: tuple[SseEvent, ...] = ()) -> None:
        super().__init__(f"an event of the stream is longer than {limit} bytes")
        self.limit: Final = limit
        self.before: Final = before


class SseDecoder:
    """Takes the body of one stream as it comes and gives its events. An event that the stream does not end is dropped.

    Comments, ``id``, ``retry`` and unknown fields are skipped: the service uses none of them, and a response cannot be
    resumed from where it broke off.

    Args:
        max_event_bytes: The most bytes that the lines of one event may have, line ends not counted. No line, comments
            included, may be longer. What the decoder holds is bounded by it, however the bytes come.

    Attributes:
        comments: The number of comments so far, and of blank lines that end no data. Servers that have nothing to say
            write them to show that they live.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._limit = max_event_bytes
        self._partial = bytearray()  # a line whose end has not come
        self._held = 0  # bytes of the event's lines so far
        self._name = b""
        self._data: list[bytes] = []
        self._after_cr = False
        self._at_start = True
        self._failed = False
        self.comments: int = 0

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes and return the events they complete.

        Raises:
            OversizedEvent: An event, or what has come of one, is too long; likewise whenever called again.
        """
        if self._failed:
            raise OversizedEvent(self._limit)
        if self._after_cr and data:
            # The feeds have torn a CRLF, which is one line end.
            self._after_cr = False
            if data[0] == 0x0A:
                data = data[1:]
        if not data:
            return []
        # Unlike that of str, splitlines() of bytes knows CR, LF and CRLF only.
        lines = data.splitlines()
        ended = data.endswith(_LINE_ENDS)
        if ended or len(lines) > 1:
            if self._partial:
                self._partial += lines[0]
                lines[0] = bytes(self._partial)
            self._after_cr = data.endswith(b"\r")
            self._partial = bytearray() if ended else bytearray(lines.pop())
        else:
            # Appended in place, so that a line which comes byte by byte is copied once.
            self._partial += data
            lines = []
        events, within = self._take(lines)
        if not within or self._held + len(self._partial) > self._limit:
            self._failed = True
            self._partial.clear()
            self._data.clear()
            raise OversizedEvent(self._limit, tuple(events))
        return events

    def _take(self, lines: list[bytes]) -> tuple[list[SseEvent], bool]:
        """Take whole lines; returns the events they end, and whether all of them are within the bound."""
        events: list[SseEvent] = []
        name, data, held, limit = self._name, self._data, self._held, self._limit
        try:
            for line in lines:
                if held + len(line) > limit:
                    return events, False
                if self._at_start:
                    self._at_start = False
                    line = line.removeprefix(BOM)
                if line.startswith(b"data:"):
                    held += len(line)
                    data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                elif line.startswith(b"event:"):
                    held += len(line)
                    name = line[7:] if line.startswith(b"event: ") else line[6:]
                elif not line:
                    if data:
                        text = data[0] if len(data) == 1 else b"\n".join(data)
                        kind = name.decode("utf-8", "replace") if name else "message"
                        events.append(SseEvent(kind, text.decode("utf-8", "replace")))
                        data.clear()
                    else:
                        self.comments += 1
                    name, held = b"", 0
                elif line.startswith(b"error:"):  # llama.cpp, whose errors had no data
                    held += len(line)
                    name = b"error"
                    data.append(line[6:].strip())
                elif line == b"data":
                    held += len(line)
                    data.append(b"")
                elif line == b"event":
                    name = b""
                elif line.startswith(b":"):
                    self.comments += 1
        finally:
            self._name, self._held = name, held
        return events, True
