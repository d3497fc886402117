"""One accepted connection: TLS, request heads, and whether they ask for a WebSocket or for an HTTP answer."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import h11
import trio

from .errors import reason_phrase
from .http import HttpExchange
from .quirks import Accept, Reject
from .records import ConnectionRecord, is_control
from .refusals import refuse, turned_away
from .streams import ServerStream, drain
from .websocket import WebSocket
from .wire import ApiError
from .world import World

__all__ = ["Door"]

_HEAD_BYTES: Final = 64 * 1024
_HEAD_SECONDS: Final = 60.0
_TLS_SECONDS: Final = 10.0
_EXPECTED: Final = (
    OSError,
    ssl.SSLError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.BusyResourceError,
    trio.TooSlowError,
    h11.ProtocolError,
)


class Door:
    """Serves what comes in on one connection.

    Attributes:
        scope: Cancelled, the connection is dropped.
        websocket: The WebSocket it has become, if it has.
    """

    def __init__(self, world: World, record: ConnectionRecord) -> None:
        self.scope: trio.CancelScope = trio.CancelScope()
        self.websocket: WebSocket | None = None
        self._world = world
        self._record = record
        self._stream: ServerStream | None = None

    async def serve(self, accepted: trio.abc.Stream) -> None:
        """Serve until either side ends the connection; the caller closes the stream. Nothing a client does raises."""
        record = self._record
        try:
            with self.scope:
                stream = accepted
                if self._world.options.ssl_context is not None:
                    stream = trio.SSLStream(
                        accepted, self._world.options.ssl_context, server_side=True, https_compatible=True
                    )
                    with trio.fail_after(_TLS_SECONDS):
                        await stream.do_handshake()
                self._stream = ServerStream(stream, record)
                await self._serve_requests(self._stream)
            if self.scope.cancelled_caught:
                record.closed_by = "server"
        except* _EXPECTED as group:
            record.errors += [type(error).__name__ for error in _leaves(group)]
        except* Exception as group:
            record.errors += [type(error).__name__ for error in _leaves(group)]
            self._world.errors += _leaves(group)

    def prepare_reset(self) -> None:
        """Make the coming end of the connection discard what the client has not read."""
        if self._stream is not None:
            self._stream.prepare_reset()

    async def _serve_requests(self, stream: ServerStream) -> None:
        record = self._record
        leftover: bytes | None = b""
        while leftover is not None:
            raw = bytearray(leftover)
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
            if raw:
                connection.receive_data(bytes(raw))
            try:
                with trio.fail_after(_HEAD_SECONDS):
                    head = await _read_head(stream, connection, raw)
            except (trio.TooSlowError, trio.BrokenResourceError):
                if raw:
                    raise
                return  # an idle connection that ends is no mistake of anyone's
            except h11.RemoteProtocolError as error:
                await _answer_plainly(stream, error.error_status_hint, b"")
                await drain(stream, seconds=1.0, limit=_HEAD_BYTES)
                record.closed_by = "server"
                return
            if head is None:
                return
            self._note_head(head)
            if _wants_upgrade(record.headers):
                await self._upgrade(stream, head, bytes(raw))
                return
            record.transport = "http"
            leftover = await HttpExchange(self._world, stream, record, connection, head).run()

    def _note_head(self, head: h11.Request) -> None:
        record = self._record
        record.path = head.target.decode("ascii", "replace")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        record.authorization = headers.pop("authorization", None)
        key = headers.pop("api-key", None)
        if record.authorization is None and key is not None:
            record.authorization = f"Bearer {key}"
        record.headers = headers
        if not is_control(record.path):
            opened = {"method": head.method.decode("ascii"), "path": record.path, "headers": headers}
            self._world.tell(record, "open", opened | {"upgrade": _wants_upgrade(headers)})

    async def _upgrade(self, stream: ServerStream, head: h11.Request, raw: bytes) -> None:
        world, record = self._world, self._record
        record.transport = "websocket"
        step = world.handshakes.popleft() if world.handshakes else world.every_handshake
        if isinstance(step, Reject):
            record.handshake_status = step.status
            world.tell(record, "answer", {"status": step.status, "headers": dict(step.headers)})
        if await turned_away(stream, record, step, limit=world.max_message_bytes):
            return
        problem = self._check_upgrade(head)
        if problem is not None:
            record.handshake_status = problem.status
            world.tell(record, "answer", {"status": problem.status, "headers": dict(problem.headers)})
            await refuse(stream, record, problem)
            return
        end = raw.index(b"\r\n\r\n") + 4 if b"\r\n\r\n" in raw else len(raw)
        self.websocket = WebSocket(world, stream, record)
        try:
            await self.websocket.serve(step if isinstance(step, Accept) else Accept(), raw[end:])
        finally:
            self.websocket = None

    def _check_upgrade(self, head: h11.Request) -> Reject | None:
        record = self._record
        if self._world.under_root(urlsplit(record.path).path) != "responses":
            return _error_refusal(self._world.nothing_here())
        if head.method != b"GET" or "sec-websocket-key" not in record.headers:
            return _error_refusal(ApiError(400, None, "This is not a WebSocket upgrade."))
        if record.headers.get("sec-websocket-version") != "13":
            return Reject(426, headers={"sec-websocket-version": "13"})
        try:
            self._world.authorise(record)
        except ApiError as error:
            return _error_refusal(error)
        return None


def _error_refusal(error: ApiError) -> Reject:
    return Reject(error.status, body={"error": error.body()})


def _leaves(group: BaseExceptionGroup[Any]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _wants_upgrade(headers: Mapping[str, str]) -> bool:
    tokens = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    return "upgrade" in tokens and headers.get("upgrade", "").lower() == "websocket"


async def _read_head(stream: ServerStream, connection: h11.Connection, raw: bytearray) -> h11.Request | None:
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        data = await stream.receive_some(65536)
        raw += data
        connection.receive_data(data)


async def _answer_plainly(stream: ServerStream, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} {reason_phrase(status)}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    await stream.send_all(head.encode() + body)
