"""The server's side of WebSocket framing (RFC 6455), with permessage-deflate (RFC 7692) where it was asked for."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import attrs
from wsproto import events
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.extensions import PerMessageDeflate
from wsproto.handshake import server_extensions_handshake

__all__ = ["Ended", "Frames", "Pinged", "text_frame"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@attrs.frozen
class Pinged:
    """A ping that wants its pong."""

    payload: bytes


@attrs.frozen
class Ended:
    """The end of what can be received.

    Attributes:
        code: The peer's close code, 1005 where it gave none; or the one that says what was wrong with what it sent.
        reason: Its text.
        by_peer: Whether a Close frame came.
    """

    code: int
    reason: str | None
    by_peer: bool


Received: TypeAlias = "str | bytes | Pinged | Ended"


class Frames:
    """The reading of a connection's bytes.

    Args:
        limit: Characters or bytes a message may have.
        offers: The client's ``Sec-WebSocket-Extensions``.
        compress: Whether to agree to compression.
    """

    def __init__(self, limit: int, offers: str = "", *, compress: bool = True) -> None:
        deflate = PerMessageDeflate()
        supported = [deflate] if compress else []
        wanted = [offer.strip() for offer in offers.split(",") if offer.strip()]
        agreed = server_extensions_handshake(wanted, supported)  # type: ignore[arg-type]
        self.agreed: str | None = None if agreed is None else agreed.decode("ascii")
        self._connection = Connection(ConnectionType.SERVER, [] if agreed is None else [deflate])
        self._limit = limit
        self._parts: list[str | bytes] = []
        self._size = 0

    def upgrade(self, key: str, headers: Mapping[str, str]) -> bytes:
        """Return the head of the 101 (RFC 6455 section 4.2.2)."""
        # SHA-1 is what the RFC demands; it proves no more than that the server speaks WebSocket.
        accept = base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID).digest()).decode()  # noqa: S324
        fields = {"Upgrade": "WebSocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
        if self.agreed is not None:
            fields["Sec-WebSocket-Extensions"] = self.agreed
        lines = [f"{name}: {value}" for name, value in {**fields, **headers}.items()]
        return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode("latin-1")

    # --- receiving ---

    def receive(self, data: bytes) -> Iterator[Received]:
        """Yield what the bytes complete; nothing comes after `Ended`."""
        self._connection.receive_data(data)
        for event in self._connection.events():
            match event:
                case events.TextMessage() | events.BytesMessage():
                    self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                    self._size += len(event.data)
                    if self._size > self._limit:
                        yield Ended(1009, "message too big", by_peer=False)
                        return
                    if event.message_finished:
                        parts, self._parts, self._size = self._parts, [], 0
                        yield "".join(parts) if isinstance(parts[0], str) else b"".join(parts)  # type: ignore[arg-type]
                case events.Ping(payload):
                    yield Pinged(bytes(payload))
                case events.CloseConnection(code, reason):
                    yield Ended(int(code), reason, by_peer=self._connection.state is not ConnectionState.OPEN)
                    return

    # --- sending ---

    @property
    def open(self) -> bool:
        """Whether neither side has sent a Close frame."""
        return self._connection.state is ConnectionState.OPEN

    def message(self, payload: str | bytes) -> bytes:
        """Return a message's frame; nothing once the connection is closing."""
        if not self.open:
            return b""
        if self.agreed is None and isinstance(payload, str):
            return text_frame(payload)
        if isinstance(payload, str):
            return self._connection.send(events.TextMessage(data=payload))
        return self._connection.send(events.BytesMessage(data=payload))

    def ping(self) -> bytes:
        """Return a ping."""
        return self._connection.send(events.Ping(payload=b"ping")) if self.open else b""

    def pong(self, payload: bytes) -> bytes:
        """Return the answer to a ping."""
        return self._connection.send(events.Pong(payload=payload)) if self.open else b""

    def close(self, code: int, reason: str | None = None) -> bytes:
        """Return a Close frame, ours or the answer to the peer's; nothing if ours has been sent."""
        if self._connection.state not in {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}:
            return b""
        return self._connection.send(events.CloseConnection(code=code, reason=reason or None))


def text_frame(payload: str) -> bytes:
    """Return an unmasked text frame (RFC 6455 section 5.2)."""
    data = payload.encode("utf-8", "surrogatepass")
    if len(data) < 126:
        head = bytes([0x81, len(data)])
    elif len(data) < 65536:
        head = bytes([0x81, 126]) + len(data).to_bytes(2, "big")
    else:
        head = bytes([0x81, 127]) + len(data).to_bytes(8, "big")
    return head + data
