"""The server's answer to an upgrade, watched before trio-websocket sees it.

trio-websocket waits for ever after an end of the stream in the middle of an answer, and for the rest of a refusal's
body; what it does not like about an acceptance it keeps to itself. So the head is read here first: an acceptance is
passed on as it came, and everything else is told at once.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Final

import h11
import trio

from engine.protocol.failures import UpgradeRefused
from engine.protocol.refusals import refusal

__all__ = ["AnswerHead", "RefusalReader", "objection"]

_MAX_HEAD: Final = 16 * 1024
_MAX_BODY: Final = 16 * 1024
_BODY_GRACE: Final = 0.2
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")  # RFC 9112 section 2.2 admits a bare line feed
_ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class AnswerHead:
    """Collects the bytes of an answer until they show what it is. No I/O.

    Attributes:
        accepted: The whole head of an acceptance, once it is there.
        behind: The bytes that came behind that head: the connection's first frames.
        refused: All that came of another answer, from the beginning of its final head, once that head is whole.
        nonsense: The fault of an answer that is none.
    """

    def __init__(self) -> None:
        self._received = bytearray()
        self.accepted: bytes | None = None
        self.behind: bytes = b""
        self.refused: bytes | None = None
        self.nonsense: str | None = None

    @property
    def decided(self) -> bool:
        """Whether it is known what the answer is."""
        return self.accepted is not None or self.refused is not None or self.nonsense is not None

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        head = self._received
        searched = max(0, len(head) - 3)
        head += data
        while b"HTTP/".startswith(head[:5]) and (end := _HEAD_END.search(head, searched)) is not None:
            if head[8:12] == b" 101":
                self.accepted, self.behind = bytes(head[: end.end()]), bytes(head[end.end() :])
                return
            if head[8:10] != b" 1":
                self.refused = bytes(head)
                return
            del head[: end.end()]  # an interim answer: the real one follows
            searched = 0
        if not b"HTTP/".startswith(head[:5]):
            self.nonsense = "is not HTTP"
        elif len(head) > _MAX_HEAD:
            self.nonsense = "has an endless head"


class RefusalReader:
    """Parses a refusal with h11, giving its body a moment to arrive.

    Args:
        received: The bytes that came so far, from the beginning of the head.

    """

    def __init__(self, received: bytes) -> None:
        self._received = received
        self._head: tuple[int, tuple[tuple[str, str], ...]] | None = None
        self._body = bytearray()

    @property
    def refused(self) -> UpgradeRefused | None:
        """The refusal, as far as it is understood; None before its head is, or if that is not HTTP."""
        if self._head is None:
            return None
        status, headers = self._head
        return UpgradeRefused(status, headers, bytes(self._body), said=refusal(status, headers, bytes(self._body)))

    async def read(self, stream: trio.abc.Stream) -> None:
        """Read what comes promptly of the rest. If cancelled, ``refused`` knows what came before."""
        parser = _parser()
        try:
            parser.receive_data(self._received)
            with trio.move_on_after(_BODY_GRACE):
                while len(self._body) < _MAX_BODY:
                    event = parser.next_event()
                    if event is h11.NEED_DATA:
                        parser.receive_data(bytes(await stream.receive_some(_MAX_BODY)))
                    elif isinstance(event, h11.Response):
                        self._head = event.status_code, tuple(_fields(event.headers))
                    elif isinstance(event, h11.Data):
                        self._body += event.data[: _MAX_BODY - len(self._body)]
                    else:
                        break
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what was understood so far is the answer


def _parser() -> h11.Connection:
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "unused"), ("Upgrade", "websocket")]))
    parser.send(h11.EndOfMessage())
    return parser


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def objection(request: bytes, acceptance: bytes) -> str:
    """Say what is wrong with an acceptance that trio-websocket did not take (RFC 6455 section 4.1).

    Args:
        request: The head of the upgrade request.
        acceptance: The head of the answer.
    """
    parser = _parser()
    try:
        parser.receive_data(acceptance)
        event = parser.next_event()
    except h11.RemoteProtocolError:
        return "is not valid HTTP"
    if not isinstance(event, h11.InformationalResponse):
        return "is not valid"
    fields: dict[str, list[str]] = {}
    for name, value in _fields(event.headers):
        fields.setdefault(name, []).append(value)
    if "upgrade" not in _tokens(fields, "connection"):
        return "has no 'Connection: Upgrade'"
    if _tokens(fields, "upgrade") != ["websocket"]:
        return "has no 'Upgrade: websocket'"
    accepts = fields.get("sec-websocket-accept", [])
    if not accepts:
        return "has no Sec-WebSocket-Accept"
    if accepts != [_accept_token(request)]:
        return "has a Sec-WebSocket-Accept that does not belong to the request's key"
    if "sec-websocket-protocol" in fields:
        return "names a subprotocol that was not asked for"
    if "sec-websocket-extensions" in fields:
        return "names an extension that was not asked for"
    return "is not valid"


def _tokens(fields: dict[str, list[str]], name: str) -> list[str]:
    return [token.strip().lower() for value in fields.get(name, []) for token in value.split(",")]


def _accept_token(request: bytes) -> str:
    key = re.search(rb"(?im)^sec-websocket-key:[ \t]*(\S+)", request)
    given = key[1] if key is not None else b""
    return base64.b64encode(hashlib.sha1(given + _ACCEPT_GUID).digest()).decode()  # noqa: S324 - RFC 6455's choice
