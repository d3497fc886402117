"""Proxies in memory: scripts for a `Peer`, and a network in which a proxy is all there is."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from invariants import Held
from policies import ONE_WAY
from raw_peer import Peer, PeerDialer, ScriptFor, play

import engine
from engine.transport.proxy import dialer_to
from engine.values.messages import Context, UserMessage

__all__ = ["Net", "ask", "connect", "socks", "spliced", "tried"]

Onward = Callable[[], Awaitable[Any]]
GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Net(PeerDialer):
    """Leads to one script whatever is dialled.

    Attributes:
        addresses: What was dialled.
        names: The names that were asked for in TLS handshakes.
    """

    def __init__(self, held: Held, *scripts: ScriptFor, **options: Any) -> None:
        super().__init__(held, *scripts, **options)
        self.addresses: list[tuple[str, int]] = []
        self.names: list[str] = []

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        self.addresses.append((host, port))
        return await super().open_tcp(host, port)

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream:
        self.names.append(server_hostname)
        return await super().start_tls(stream, ssl_context=ssl_context, server_hostname=server_hostname)


async def spliced(one: Any, other: Any) -> None:
    """Copy both ways until either end is gone."""

    async def copy(source: Any, sink: Any, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel(reason="an end is gone")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, one, other, nursery.cancel_scope)
            nursery.start_soon(copy, other, one, nursery.cancel_scope)
    finally:
        await trio.aclose_forcefully(other)


def connect(onward: Onward | ScriptFor, heads: list[str] | None = None, answer: bytes = GRANTED) -> ScriptFor:
    """A CONNECT proxy before a stream, or before the script of a server."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        if heads is not None:
            heads.append(peer.head.decode())
        await _on(peer, onward, answer)

    return script


def socks(onward: Onward | ScriptFor, asked: list[bytes] | None = None, *, login: bytes | None = None) -> ScriptFor:
    """A SOCKS5 proxy (RFC 1928), which may want a login (RFC 1929)."""
    heard = [] if asked is None else asked

    async def script(peer: Peer) -> None:
        version, count = await _take(peer, 2)
        assert version == 5
        methods = await _take(peer, count)
        method = 0 if login is None else 2
        assert method in methods
        await peer.send(bytes([5, method]))
        if login is not None:
            head = await _take(peer, 2)
            name = await _take(peer, head[1])
            word = await _take(peer, (await _take(peer, 1))[0])
            await peer.send(b"\1\0" if (head[0], name + b":" + word) == (1, login) else b"\1\1")
        request = await _take(peer, 4)
        assert request[:3] == b"\5\1\0"
        length = {1: 4, 4: 16}.get(request[3]) or (await _take(peer, 1))[0]
        heard.append(await _take(peer, length + 2))
        await _on(peer, onward, b"\5\0\0\1" + bytes(6))

    return script


async def _take(peer: Peer, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await peer.stream.receive_some(count - len(data))
        if not more:
            raise trio.BrokenResourceError
        data += more
    return data


async def _on(peer: Peer, onward: Any, granted: bytes) -> None:
    if onward.__code__.co_argcount:
        await peer.send(granted)
        await play(onward, peer.stream)
    else:
        there = await onward()
        await peer.send(granted)
        await spliced(peer.stream, there)


async def ask(session: engine.Session, transport: str) -> str:
    """Have one exchange over a transport; return what the server said."""
    if transport == "websocket":
        return (await session.ask("What is 2+2?")).text
    if transport == "sse":
        return (await session.ask("What is 2+2?", transport=engine.Transport.SSE)).text
    compacted = await session.compact(Context(messages=[UserMessage("What is 2+2?")]))
    return "compacted" if compacted.messages else ""


async def tried(
    transport: str, endpoint: engine.Endpoint, *, dialer: Any = None, **options: Any
) -> str | engine.TurnError:
    """Open a session, have one exchange, and return what came of it."""
    options = {**ONE_WAY, **options}
    async with engine.open_session(endpoint, model="m", dialer=dialer, **options) as session:
        try:
            return await ask(session, transport)
        except engine.TurnError as error:
            return error


async def dialled(endpoint: engine.Endpoint, dialer: Any, context: ssl.SSLContext | None = None) -> trio.abc.Stream:
    """Dial an endpoint as both transports do, and no more."""
    opener = dialer_to(endpoint, dialer)
    url = endpoint.websocket
    assert url.hostname is not None
    stream = await opener.open_tcp(url.hostname, url.port or {"ws": 80, "wss": 443}[url.scheme])
    if context is not None:
        stream = await opener.start_tls(stream, ssl_context=context, server_hostname=url.hostname)
    return stream
