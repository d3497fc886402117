"""Cuts text messages out of the bytes of a WebSocket before the library sees them (RFC 6455 section 5). No I/O.

The library takes ten times as long for a small message as cutting and decoding it takes. It stays the judge of the
protocol all the same: what is not a text message of the plainest kind is passed to it as it came, and from the first
byte that might be objected to everything is. Nothing is refused here.

Of a message that is cut, its text so far is kept, decoded, and never its bytes; so nothing that is held is copied
twice. Where the library has to take over in the middle of one, it is given a beginning that says the same.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import Final

__all__ = ["FrameCutter"]

_TEXT: Final = 0x81  # with FIN; RFC 6455 section 5.2
_TEXT_BEGINS: Final = 0x01
_GOES_ON: Final = 0x00
_ENDS: Final = 0x80
_PING: Final = 0x89
_PONG: Final = 0x8A
_CONTROL: Final = frozenset({_PING, _PONG})
_OUTSIDE: Final = frozenset({_TEXT, _TEXT_BEGINS})
_INSIDE: Final = frozenset({_GOES_ON, _ENDS})
_FIN: Final = 0x80
_IN_TWO_BYTES: Final = 126
_IN_EIGHT_BYTES: Final = 127
_LENGTH_BYTES: Final = {_IN_TWO_BYTES: 2, _IN_EIGHT_BYTES: 8}
_LARGEST_CONTROL: Final = 125
_LARGEST_SHORT: Final = 125
_LARGEST_IN_TWO_BYTES: Final = 0xFFFF


class FrameCutter:
    """Takes what a server sends on an open connection and gives text messages, and what is left for the library.

    Args:
        max_message_bytes: The most that the frames of one message may announce together. The library counts
            characters, so that what is within the limit here is within the library's; what is over it is the
            library's to judge.

    Attributes:
        ended: Whether everything is passed on from now on.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._limit = max_message_bytes
        self._start = b""  # of a header, or of a Ping or Pong: 9 and 126 bytes at most
        self._parts: list[str] | None = None  # the message under way
        self._tail = b""  # of its bytes, the beginning of a character: 3 at most
        self._announced = 0  # bytes of its frames so far
        self._lacking = 0  # bytes of its current frame
        self._last = False  # whether its current frame has FIN
        self.ended: bool = False

    def feed(self, data: bytes) -> tuple[list[str], bytes]:
        """Take the next bytes; returns the messages they complete, and what is to be passed on after these."""
        if self.ended:
            return [], data
        if self._start:
            data, self._start = self._start + data, b""
        texts: list[str] = []
        passed: list[bytes] = []
        place, end = 0, len(data)
        try:
            while place < end:
                if self._lacking:
                    place = self._take(data, place, min(place + self._lacking, end), texts)
                    continue
                if self._parts is None:
                    place = _whole_texts(data, place, end, self._limit, texts)
                    if place == end:
                        break
                after = self._frame(data, place, end, texts, passed)
                if after < 0:
                    self._start = data[place:]
                    break
                place = after
        except _Objectionable as objection:
            place = objection.place
            passed.append(self._beginning())
            passed.append(data[place:])
            self.ended = True
        return texts, b"".join(passed)

    def _frame(self, data: bytes, place: int, end: int, texts: list[str], passed: list[bytes]) -> int:
        """Take the frame that begins at ``place``; returns where to go on, or -1 if too little of it has come."""
        first = data[place]
        control = first in _CONTROL
        if not control and first not in (_OUTSIDE if self._parts is None else _INSIDE):
            raise _Objectionable(place)
        size = data[place + 1] if place + 1 < end else 0
        if size > (_LARGEST_CONTROL if control else _IN_EIGHT_BYTES):
            raise _Objectionable(place)  # a control frame that is too long, or a mask
        payload = place + 2 + _LENGTH_BYTES.get(size, 0)
        if place + 1 >= end or payload > end:
            return -1
        if control:
            if payload + size > end:
                return -1
            passed.append(data[place : payload + size])
            return payload + size
        if size >= _IN_TWO_BYTES:
            shorter = _LARGEST_SHORT if size == _IN_TWO_BYTES else _LARGEST_IN_TWO_BYTES
            size = int.from_bytes(data[place + 2 : payload])
            if size <= shorter or size >> 63:
                raise _Objectionable(place)
        if self._announced + size > self._limit:
            raise _Objectionable(place)
        self._lacking = size
        self._last = bool(first & _FIN)
        begins, self._parts = self._parts is None, self._parts or []
        try:
            after = self._take(data, payload, min(payload + size, end), texts)
        except _Objectionable:
            self._lacking = 0  # the library is given the frame from its header on
            if begins:
                self._parts = None
            raise _Objectionable(place) from None
        if self._parts is not None:
            self._announced += size
        return after

    def _take(self, data: bytes, place: int, stop: int, texts: list[str]) -> int:
        """Take payload of the frame under way."""
        assert self._parts is not None
        ends = stop - place == self._lacking
        chunk = self._tail + data[place:stop]
        try:
            text, used = utf_8_decode(chunk, "strict", ends and self._last)
        except UnicodeDecodeError:
            raise _Objectionable(place) from None
        self._parts.append(text)
        self._tail = chunk[used:]
        self._lacking -= stop - place
        if ends and self._last:
            texts.append("".join(self._parts))
            self._parts = None
            self._announced = 0
        return stop

    def _beginning(self) -> bytes:
        """Frames that say what was taken of the message under way, for the library to go on from."""
        if self._parts is None:
            return b""
        payload = "".join(self._parts).encode() + self._tail
        begun = _head(_TEXT_BEGINS, len(payload)) + payload
        if self._lacking:
            begun += _head(_ENDS if self._last else _GOES_ON, self._lacking)
        self._parts = None
        return begun


class _Objectionable(Exception):
    """The library might object to what stands at ``place``, or has to take over there."""

    def __init__(self, place: int) -> None:
        self.place = place


def _whole_texts(data: bytes, place: int, end: int, limit: int, texts: list[str]) -> int:
    """Cut the plain messages that stand whole at ``place``, one behind the other; returns where the last one ends."""
    while place + 4 <= end and data[place] == _TEXT:
        size = data[place + 1]
        payload = place + 2
        if size == _IN_TWO_BYTES:
            size = data[place + 2] << 8 | data[place + 3]
            if size <= _LARGEST_SHORT:
                return place
            payload = place + 4
        elif size > _IN_TWO_BYTES:
            return place
        stop = payload + size
        if stop > end or size > limit:
            return place
        try:
            texts.append(data[payload:stop].decode())
        except UnicodeDecodeError:
            raise _Objectionable(place) from None
        place = stop
    return place


def _head(first: int, size: int) -> bytes:
    """The header of an unmasked frame."""
    if size <= _LARGEST_SHORT:
        return bytes((first, size))
    if size <= _LARGEST_IN_TWO_BYTES:
        return bytes((first, _IN_TWO_BYTES)) + size.to_bytes(2)
    return bytes((first, _IN_EIGHT_BYTES)) + size.to_bytes(8)
