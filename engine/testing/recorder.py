"""Stands between clients and a server, and writes down what passes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx
import trio

import engine
from engine.protocol.failures import Failure, Lost, UpgradeRefused, to_error
from engine.simulator.frame_log import FrameLog
from engine.simulator.front import Head, HttpAnswer, Relayed
from engine.transport.dial import Dialer
from engine.transport.proxy import dialer_to
from engine.transport.socket import Bounds, Callbacks
from engine.transport.websocket import WebSocket

__all__ = ["Recorder"]

_logger = logging.getLogger(__name__)
_JSON: Final = [("content-type", "application/json")]
_MIB: Final = 1024 * 1024
_BOUNDS: Final = Bounds(connect=30.0, close=2.0, max_message_bytes=64 * _MIB, max_outbox_bytes=64 * _MIB)
_QUEUE: Final = 100_000
_HOP: Final = frozenset(
    {"host", "connection", "upgrade", "content-length", "transfer-encoding", "te", "trailer", "keep-alive"}
    | {"proxy-authorization", "proxy-connection", "accept-encoding", "expect"}
)


class Recorder:
    """A backend that hands everything on to a server.

    Args:
        upstream: The server's origin, such as ``https://api.openai.com``; paths are those that clients ask for.
        log: The log that it is written to.
        dialer: Opens streams to the server; the network by default, through the proxies that the environment names.
    """

    def __init__(self, upstream: str, log: FrameLog, *, dialer: Dialer | None = None) -> None:
        split = urlsplit(upstream)
        self._origin = f"{split.scheme}://{split.netloc}"
        self._log = log
        self._dialer = dialer

    # --- HTTP ---

    async def http(self, connection: int, head: Head, body: bytes, answer: HttpAnswer) -> None:
        """Hand a request on, and its answer back as it comes."""
        log, headers = self._log, _end_to_end(head)
        log.opened(connection, head.headers.get("authorization"), _opened(head))
        log.received(connection, body)
        async with httpx.AsyncClient(timeout=None, follow_redirects=False) as client:  # noqa: S113 - the client decides
            request = client.build_request(head.method, self._origin + head.target, headers=headers, content=body)
            try:
                given = await client.send(request, stream=True)
            except httpx.TransportError as error:
                said = self._unreachable(str(error) or type(error).__name__)
                log.answered(connection, 502, dict(_JSON))
                log.sent(connection, said)
                log.ended(connection)
                await answer.whole(502, _JSON, said)
                return
            try:
                log.answered(connection, given.status_code, dict(given.headers))
                await answer.begin(given.status_code, given.headers.multi_items())
                blocks = _Blocks(given.headers.get("content-type", ""))
                async for part in given.aiter_raw():
                    for block in blocks.take(part):
                        log.sent(connection, block)
                    await answer.part(part)
                log.sent(connection, blocks.rest)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _BOUNDS.close):
                    await given.aclose()
        log.ended(connection)
        await answer.end()

    # --- WebSocket ---

    async def websocket(self, connection: int, head: Head, socket: Relayed) -> None:
        """Hand an upgrade on, then messages both ways until either side ends it."""
        self._log.opened(connection, head.headers.get("authorization"), _opened(head))
        key = head.headers.get("authorization", "").removeprefix("Bearer ").strip()
        headers = {
            name: value
            for name, value in _end_to_end(head).items()
            if not name.startswith("sec-websocket-") and name not in {"authorization", "accept-encoding"}
        }
        url = "ws" + self._origin.removeprefix("http") + head.target
        endpoint = engine.Endpoint(base_url=self._origin, websocket_url=url, api_key=key or None, headers=headers)
        async with trio.open_nursery() as nursery:
            relay = _Relay(connection, socket, self._log, nursery.cancel_scope)
            upstream = WebSocket(endpoint, dialer_to(endpoint, self._dialer), _BOUNDS, relay.callbacks())
            nursery.start_soon(upstream.run)
            await relay.opened.wait()
            if relay.was_open:
                await self._both_ways(connection, socket, upstream, relay, nursery)
            else:
                assert relay.failure is not None
                await self._refuse(connection, relay.failure, socket)
                nursery.cancel_scope.cancel(reason="the server refused")

    async def _both_ways(
        self, connection: int, socket: Relayed, upstream: WebSocket, relay: _Relay, nursery: trio.Nursery
    ) -> None:
        await socket.accept(_kept(upstream.handshake_headers))
        self._log.answered(connection, 101, dict(upstream.handshake_headers))
        nursery.start_soon(relay.hand_back)
        while (message := await socket.receive()) is not None:
            text = message if isinstance(message, str) else message.decode("utf-8", "replace")
            self._log.received(connection, text)
            if not await upstream.send(text):
                break
        upstream.close()
        if relay.failure is None:
            self._log.ended(connection, {"code": socket.code, "reason": socket.reason, "by": socket.by})
            nursery.cancel_scope.cancel(reason="the client has left")

    async def _refuse(self, connection: int, failure: Failure, socket: Relayed) -> None:
        headers: Sequence[tuple[str, str]]
        if isinstance(failure, UpgradeRefused):
            status, headers, body = failure.status, failure.headers, failure.body
        else:
            status, headers, body = 502, _JSON, self._unreachable(str(to_error(failure)))
        self._log.answered(connection, status, dict(headers))
        self._log.sent(connection, body)
        await socket.refuse(status, headers, body)

    def _unreachable(self, reason: str) -> bytes:
        """Return what a client is told of an upstream that is not there, in the form in which it reads errors."""
        message = f"The upstream {self._origin} cannot be reached: {reason}."
        _logger.warning("%s", message)
        return json.dumps({"error": {"type": "server_error", "code": None, "message": message, "param": None}}).encode()


class _Relay:
    """The messages of the upstream socket, handed back to the client in order."""

    def __init__(self, connection: int, socket: Relayed, log: FrameLog, scope: trio.CancelScope) -> None:
        self.opened = trio.Event()
        self.was_open = False
        self.failure: Failure | None = None
        self._connection = connection
        self._socket = socket
        self._log = log
        self._scope = scope
        self._texts, self._received = trio.open_memory_channel[str](_QUEUE)

    def callbacks(self) -> Callbacks:
        """Return what the upstream socket tells."""
        return Callbacks(on_opened=self._on_opened, on_texts=self._on_texts, on_failed=self._on_failed)

    def _on_opened(self) -> None:
        self.was_open = True
        self.opened.set()

    def _on_texts(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._log.sent(self._connection, text)
            self._texts.send_nowait(text)

    def _on_failed(self, failure: Failure) -> None:
        self.failure = failure
        self.opened.set()
        self._texts.close()

    async def hand_back(self) -> None:
        """Send the client what came, then the server's end."""
        async for text in self._received:
            await self._socket.send(text)
        code, reason = 1006, None
        if isinstance(self.failure, Lost):
            code, reason = self.failure.close_code, self.failure.close_reason
        self._log.ended(self._connection, {"code": code, "reason": reason, "by": "server"})
        await self._socket.close(code, reason)
        self._scope.cancel(reason="the server has ended it")


class _Blocks:
    """A body in the pieces in which it is written down: event by event, or as a whole.

    Attributes:
        rest: The end, which is no whole piece yet.
    """

    def __init__(self, content_type: str) -> None:
        self._events = content_type.startswith("text/event-stream")
        self.rest = b""

    def take(self, data: bytes) -> Iterator[bytes]:
        """Yield the events that the bytes complete, with the blank lines that end them."""
        self.rest += data
        while self._events and (end := _BLANK.search(self.rest)) is not None:
            block, self.rest = self.rest[: end.end()], self.rest[end.end() :]
            yield block


_BLANK: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")


def _opened(head: Head) -> dict[str, object]:
    return {"method": head.method, "path": head.target, "headers": dict(head.headers), "upgrade": head.upgrade}


def _end_to_end(head: Head) -> dict[str, str]:
    """Return the fields that are the server's to see (RFC 9110 section 7.6.1)."""
    return {name: value for name, value in head.headers.items() if name not in _HOP} | {"accept-encoding": "identity"}


def _kept(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {n: v for n, v in headers if n not in _HOP and not n.startswith("sec-websocket-")}
