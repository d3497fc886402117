"""Bare WebSocket libraries under Trio, with `json.loads`."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

from benchmarks.peers import TERMINALS, Target, trusting

__all__ = ["BareSocket", "over_nothing", "over_trio_websocket", "over_websockets"]


class BareSocket:
    """A socket that sends text and receives text; everything else is up to its user.

    Args:
        send: Sends a text.
        receive: Receives one.
        model: The model that is asked.
        keeping: Whether the answer's text is put together.
    """

    def __init__(
        self,
        send: Callable[[str], Awaitable[None]],
        receive: Callable[[], Awaitable[Any]],
        model: str,
        *,
        keeping: bool = False,
    ) -> None:
        self._send = send
        self._receive = receive
        self._model = model
        self._keeping = keeping
        self.text = ""

    async def _ask(self, prompt: str) -> None:
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}
        body = {"type": "response.create", "model": self._model, "store": False, "input": [message]}
        await self._send(json.dumps(body))

    async def turn(self, prompt: str) -> int:
        receive, loads = self._receive, json.loads
        await self._ask(prompt)
        events = 0
        if self._keeping:
            return await self._kept()
        while True:
            event = loads(await receive())
            events += 1
            if event["type"] in TERMINALS:
                return events

    async def _kept(self) -> int:
        receive, loads = self._receive, json.loads
        pieces = []
        events = 0
        while True:
            event = loads(await receive())
            events += 1
            kind = event["type"]
            if kind == "response.output_text.delta":
                pieces.append(event["delta"])
            elif kind in TERMINALS:
                self.text = "".join(pieces)
                return events

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        await self._ask(prompt)
        while True:
            event = json.loads(await self._receive())
            notice(event["delta"] if event["type"] == "response.output_text.delta" else "")
            if event["type"] in TERMINALS:
                return

    async def tools(self, count: int, size: int) -> int:
        raise NotImplementedError


def _context(target: Target) -> ssl.SSLContext | None:
    return trusting(target.ca) if target.ca is not None else None


@asynccontextmanager
async def over_trio_websocket(target: Target) -> AsyncIterator[BareSocket]:
    """trio-websocket, with the receive buffer that suits it best."""
    from trio_websocket import open_websocket_url

    headers = [(b"Authorization", b"Bearer sk-benchmark")]
    async with open_websocket_url(
        target.websocket_url,
        ssl_context=_context(target),
        extra_headers=headers,
        max_message_size=1 << 26,
        receive_buffer_size=65536,
        message_queue_size=64,
        disconnect_timeout=2,
    ) as socket:
        yield BareSocket(socket.send_message, socket.get_message, target.model, keeping=target.keeping)


@asynccontextmanager
async def over_websockets(target: Target) -> AsyncIterator[BareSocket]:
    """The Trio client that websockets has from version 17 on."""
    from websockets.trio.client import connect  # type: ignore[import-not-found,unused-ignore]

    headers = {"Authorization": "Bearer sk-benchmark"}
    async with connect(
        target.websocket_url,
        ssl=_context(target),
        additional_headers=headers,
        compression=None,
        max_size=None,
        close_timeout=2,
    ) as socket:
        yield BareSocket(socket.send, socket.recv, target.model, keeping=target.keeping)


class _BareStream:
    async def turn(self, prompt: str) -> int:
        return 0

    async def watch(self, prompt: str, notice: Callable[[str], None]) -> None:
        raise NotImplementedError

    async def tools(self, count: int, size: int) -> int:
        raise NotImplementedError


@asynccontextmanager
async def over_nothing(target: Target) -> AsyncIterator[_BareStream]:
    """The bytes alone: what a connection weighs before anybody speaks over it."""
    parts = urlsplit(target.base_url)
    assert parts.hostname is not None
    assert parts.port is not None
    stream: trio.abc.Stream = await trio.open_tcp_stream(parts.hostname, parts.port)
    if target.ca is not None:
        encrypted = trio.SSLStream(stream, trusting(target.ca), server_hostname=parts.hostname, https_compatible=True)
        await encrypted.do_handshake()
        stream = encrypted
    async with stream:
        yield _BareStream()
