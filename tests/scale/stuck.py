"""Peers that open a WebSocket properly and are then of no help in closing it, in memory or over loopback TCP."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

import engine
from engine.simulator import memory_stream_pair

__all__ = ["KINDS", "Peers", "stuck_peers"]

KINDS = ("deaf", "silent", "pinging")
"""Reads nothing more; reads everything and never answers, Close frames included; answers everything with a Ping."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PING = b"\x89\x00"
_TEXT_OR_CLOSE = b"\x81\x88"  # to ping upon a Pong would never end


class Peers:
    """A dialer to stuck peers, which live in a nursery of their own. Kinds take turns."""

    def __init__(self, nursery: trio.Nursery, kinds: tuple[str, ...], listener: trio.SocketListener | None) -> None:
        self.nursery = nursery
        self.kinds = kinds
        self.listener = listener
        self.upgraded = 0
        self.received = 0
        self.streams: list[Any] = []
        self._accepted = 0

    @property
    def endpoint(self) -> engine.Endpoint:
        return engine.Endpoint("http://stuck.test/v1", "sk-stuck", profile="openai")

    @property
    def still_open(self) -> list[Any]:
        """The client's streams that nobody has closed."""
        return [stream for stream in self.streams if not _closed(stream)]

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        if self.listener is None:
            await trio.lowlevel.checkpoint()
            client, server = memory_stream_pair()
            self.nursery.start_soon(self.serve, server)
            stream: trio.abc.Stream = client
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self.listener.socket.getsockname()[1])
        self.streams.append(stream)
        return stream

    async def start_tls(self, stream: trio.abc.Stream, **_: object) -> trio.abc.Stream:
        raise AssertionError("there is no TLS here")

    async def serve(self, stream: trio.abc.Stream) -> None:
        kind = self.kinds[self._accepted % len(self.kinds)]
        self._accepted += 1
        try:
            await self._serve(stream, kind)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.abc.Stream, kind: str) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(65536)
        (key,) = (line[19:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await stream.send_all(answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self.upgraded += 1
        while kind != "deaf" and (data := await stream.receive_some(65536)):
            self.received += len(data)
            if kind == "pinging" and data[0] in _TEXT_OR_CLOSE:
                await stream.send_all(_PING)
        await trio.sleep_forever()  # an end of the stream is of no interest either


def _closed(stream: Any) -> bool:
    if isinstance(stream, trio.SocketStream):
        return stream.socket.fileno() == -1
    return bool(stream._closed)


@asynccontextmanager
async def stuck_peers(*kinds: str, tcp: bool = False) -> AsyncIterator[Peers]:
    """Run stuck peers for the length of a block."""
    async with trio.open_nursery() as nursery:
        listener = None
        if tcp:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
        peers = Peers(nursery, kinds or KINDS, listener)
        if listener is not None:
            nursery.start_soon(
                functools.partial(trio.serve_listeners, handler_nursery=nursery), peers.serve, [listener]
            )
        yield peers
        nursery.cancel_scope.cancel(reason="the block is over")
