"""The server's side of a connection whose answers come from elsewhere: from another server, or from a cassette.

Unlike the simulator's own door it has no opinion: it hands on request heads, bodies and WebSocket messages as they are.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import attrs
import h11
import trio

from .errors import reason_phrase
from .frames import Ended, Frames, Pinged

__all__ = ["Backend", "Front", "Head", "HttpAnswer", "Relayed", "serve_backend"]

_logger = logging.getLogger(__name__)

_HEAD_BYTES: Final = 64 * 1024
_HEAD_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 2.0
_CONNECTIONS: Final = 1024
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, ssl.SSLError, h11.ProtocolError)


@attrs.frozen
class Head:
    """The head of a request.

    Attributes:
        method: Such as ``POST``.
        target: Path and query.
        headers: Its fields, names in lower case.
    """

    method: str
    target: str
    headers: Mapping[str, str] = attrs.field(repr=False)

    @property
    def upgrade(self) -> bool:
        """Whether it asks for a WebSocket."""
        return self.headers.get("upgrade", "").lower() == "websocket" and "sec-websocket-key" in self.headers


class Backend(Protocol):
    """The source of answers."""

    async def websocket(self, connection: int, head: Head, socket: Relayed) -> None:
        """Accept or refuse the upgrade, then answer messages until either side has ended it."""
        ...

    async def http(self, connection: int, head: Head, body: bytes, answer: HttpAnswer) -> None:
        """Answer a request. What is not ended in the end drops the connection."""
        ...


class HttpAnswer:
    """The answer to an HTTP request, sent piece by piece."""

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection) -> None:
        self._stream = stream
        self._connection = connection

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send the head; the body's length is told by chunks, whatever the fields say."""
        fields = [(n, v) for n, v in headers if n.lower() not in {"content-length", "transfer-encoding", "connection"}]
        head = h11.Response(status_code=status, headers=fields, reason=reason_phrase(status).encode())
        await self._send(self._connection.send(head))

    async def part(self, data: bytes) -> None:
        """Send a part of the body."""
        if data:
            await self._send(self._connection.send(h11.Data(data=data)))

    async def end(self) -> None:
        """Say that the body is complete."""
        await self._send(self._connection.send(h11.EndOfMessage()))

    async def whole(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Send head, body and end."""
        await self.begin(status, headers)
        await self.part(body)
        await self.end()

    async def _send(self, data: bytes | None) -> None:
        if data:
            await self._stream.send_all(data)


class Relayed:
    """A WebSocket to be accepted or refused, then read and written.

    Attributes:
        code: The close code, once it has ended.
        reason: Its text.
        by: The side that closed it.
    """

    def __init__(self, stream: trio.abc.Stream, head: Head, received: bytes, *, limit: int) -> None:
        self._stream = stream
        self._head = head
        self._received = received
        self._frames = Frames(limit, head.headers.get("sec-websocket-extensions", ""), compress=False)
        self._sending = trio.StrictFIFOLock()
        self._waiting: list[str | bytes] = []
        self._heard_end = trio.Event()
        self.accepted: bool = False
        self.code: int | None = None
        self.reason: str | None = None
        self.by: str | None = None

    async def accept(self, headers: Mapping[str, str]) -> None:
        """Upgrade."""
        await self._stream.send_all(self._frames.upgrade(self._head.headers["sec-websocket-key"], headers))
        self.accepted = True

    async def refuse(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Answer with another status; the connection is over then."""
        kept = [f"{name}: {value}" for name, value in headers if name.lower() not in _FRAMING]
        lines = [
            f"HTTP/1.1 {status} {reason_phrase(status)}",
            *kept,
            f"content-length: {len(body)}",
            "connection: close",
        ]
        await self._stream.send_all("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def receive(self) -> str | bytes | None:
        """Return the next message; None once the client has ended."""
        while not self._waiting:
            data, self._received = self._received, b""
            if not data:
                try:
                    data = bytes(await self._stream.receive_some(65536))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = b""
                if not data:
                    self._note(1006, None, "client")
                    self._heard_end.set()
                    return None
            for event in self._frames.receive(data):
                match event:
                    case Pinged(payload):
                        await self._send(self._frames.pong(payload))
                    case Ended(code, reason, by_peer):
                        self._note(code, reason, "client" if by_peer else "server")
                        self._heard_end.set()
                        with contextlib.suppress(*_GONE):
                            await self._send(self._frames.close(code, reason))
                        return None if not self._waiting else self._waiting.pop(0)
                    case _:
                        self._waiting.append(event)
        return self._waiting.pop(0)

    async def send(self, payload: str | bytes) -> None:
        """Send a message; nothing once it is closing."""
        await self._send(self._frames.message(payload))

    async def close(self, code: int, reason: str | None = None) -> None:
        """Close it, while another task receives; 1006 drops the connection."""
        self._note(code, reason, "server")
        if code != 1006:
            sendable = code if code not in {1005, 1015} else 1000
            with contextlib.suppress(*_GONE):
                await self._send(self._frames.close(sendable, reason))
            with trio.move_on_after(_CLOSE_SECONDS):
                await self._heard_end.wait()  # by the task that receives

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._stream.send_all(data)

    def _note(self, code: int, reason: str | None, by: str) -> None:
        if self.code is None:
            self.code, self.reason, self.by = code, reason, by


_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "content-encoding", "upgrade"})


class Front:
    """Accepts connections for a backend.

    Args:
        backend: The source of answers.
        limit: Bytes that a message or a body may have.
        ssl_context: Serve TLS.
    """

    def __init__(
        self, backend: Backend, *, limit: int = 64 * 1024 * 1024, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._backend = backend
        self._limit = limit
        self._ssl_context = ssl_context
        self._count = 0
        self._open = 0

    async def serve(self, accepted: trio.abc.Stream) -> None:
        """Serve one connection until either side ends it. Nothing a client does raises."""
        connection, self._count = self._count, self._count + 1
        self._open += 1
        try:
            if self._open <= _CONNECTIONS:
                stream = accepted
                if self._ssl_context is not None:
                    stream = trio.SSLStream(accepted, self._ssl_context, server_side=True, https_compatible=True)
                await self._requests(connection, stream)
        except* (*_GONE, OSError):
            pass
        except* Exception:
            _logger.exception("a connection could not be served")
        finally:
            self._open -= 1
            await trio.aclose_forcefully(accepted)

    async def _requests(self, connection: int, stream: trio.abc.Stream) -> None:
        leftover: bytes | None = b""
        while leftover is not None:
            http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
            raw = bytearray(leftover)
            http.receive_data(bytes(leftover)) if leftover else None
            with trio.fail_after(_HEAD_SECONDS):
                request = await _next(stream, http, raw)
            if not isinstance(request, h11.Request):
                return
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
            head = Head(request.method.decode("ascii"), request.target.decode("ascii", "replace"), headers)
            if head.upgrade:
                rest = bytes(raw[raw.index(b"\r\n\r\n") + 4 :])
                await self._backend.websocket(connection, head, Relayed(stream, head, rest, limit=self._limit))
                return
            body = await self._body(stream, http)
            if body is None:
                return
            await self._backend.http(connection, head, body, HttpAnswer(stream, http))
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            leftover = bytes(http.trailing_data[0])

    async def _body(self, stream: trio.abc.Stream, http: h11.Connection) -> bytes | None:
        parts: list[bytes] = []
        while True:
            if http.they_are_waiting_for_100_continue:
                go_on = http.send(h11.InformationalResponse(status_code=100, headers=[]))
                await stream.send_all(go_on or b"")
            event = await _next(stream, http, None)
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                if sum(map(len, parts)) > self._limit:
                    await HttpAnswer(stream, http).whole(413, [], b"")
                    return None
            elif isinstance(event, h11.EndOfMessage):
                return b"".join(parts)
            else:
                return None


async def _next(stream: trio.abc.Stream, http: h11.Connection, raw: bytearray | None) -> Any:
    while True:
        event = http.next_event()
        if event is not h11.NEED_DATA:
            return event
        data = bytes(await stream.receive_some(65536))
        if raw is not None:
            raw += data
        http.receive_data(data)


async def serve_backend(
    backend: Backend,
    *,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    on_listening: Callable[[int], None],
) -> None:
    """Serve a backend on a port until cancelled.

    Raises:
        OSError: the port is taken.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    for surplus in listeners[1:]:
        await surplus.aclose()
    on_listening(listeners[0].socket.getsockname()[1])
    front = Front(backend, ssl_context=ssl_context)
    async with trio.open_nursery() as nursery:
        await trio.serve_listeners(front.serve, listeners[:1], handler_nursery=nursery)
