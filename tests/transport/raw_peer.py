"""Servers that misbehave byte by byte: a raw peer over memory or TCP, and a line that a `WebSocket` keeps to it."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import trio
from invariants import Held

import engine
from engine.protocol.failures import Failure, to_error
from engine.transport.dial import TcpDialer, tls_over
from engine.transport.socket import Bounds, Callbacks
from engine.transport.websocket import WebSocket

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "sk-raw-peer-0123456789"
URL = "ws://peer.test/v1/responses"
PIPE_CAPACITY = 256 * 1024


# --- streams in memory ---


class _Way:
    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.buffer = bytearray()
        self.ended = False
        self.broken = False
        self.changed = trio.lowlevel.ParkingLot()


class PipeStream(trio.abc.Stream):
    """One end of a connection in memory that buffers like TCP. Closing or resetting an end is seen at the other."""

    def __init__(self, incoming: _Way, outgoing: _Way) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            self._check()
            if self.outgoing.broken:
                raise trio.BrokenResourceError
            room = int(min(self.outgoing.capacity - len(self.outgoing.buffer), len(rest)))
            if room > 0:
                self.outgoing.buffer += rest[:room]
                rest = rest[room:]
                self.outgoing.changed.unpark_all()
            else:
                await self.outgoing.changed.park()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self.incoming.buffer:
                data = bytes(self.incoming.buffer[:max_bytes])
                del self.incoming.buffer[: len(data)]
                self.incoming.changed.unpark_all()
                return data
            if self.incoming.ended:
                return b""
            if self.incoming.broken:
                raise trio.BrokenResourceError
            await self.incoming.changed.park()

    def _check(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError

    def reset(self) -> None:
        """As if an RST were sent: what was sent before can still be read, then reading and writing break."""
        self.outgoing.broken = True
        self._shut()

    def _shut(self) -> None:
        self.closed = True
        self.incoming.broken = True
        self.incoming.changed.unpark_all()
        self.outgoing.changed.unpark_all()

    async def aclose(self) -> None:
        self.outgoing.ended = True
        self._shut()
        await trio.lowlevel.checkpoint()


def pipe(capacity: float = PIPE_CAPACITY) -> tuple[PipeStream, PipeStream]:
    """Two ends of a connection."""
    there, back = _Way(capacity), _Way(capacity)
    return PipeStream(back, there), PipeStream(there, back)


# --- frames, RFC 6455 section 5.2 ---


def frame(
    payload: bytes | str = b"", opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, mask: bytes | None = None
) -> bytes:
    """One frame as the caller wants it, legal or not."""
    payload = payload.encode() if isinstance(payload, str) else payload
    first = bytes([fin << 7 | rsv << 4 | opcode])
    masked = 0x80 if mask is not None else 0
    if len(payload) < 126:
        length = bytes([masked | len(payload)])
    elif len(payload) < 65536:
        length = bytes([masked | 126]) + struct.pack("!H", len(payload))
    else:
        length = bytes([masked | 127]) + struct.pack("!Q", len(payload))
    if mask is not None:
        payload = mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return first + length + payload


def close_frame(code: int | None = 1000, reason: str = "") -> bytes:
    return frame(b"" if code is None else struct.pack("!H", code) + reason.encode(), CLOSE)


def event(**fields: Any) -> bytes:
    return frame(json.dumps(fields))


def created(number: int = 1) -> bytes:
    response = {"id": f"resp_{number}", "object": "response", "status": "in_progress", "output": []}
    return event(type="response.created", response=response)


CREATED = created()
DELTA = event(type="response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta="par")


def completed(text: str = "fine", number: int = 1) -> bytes:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [part]}
    response = {"id": f"resp_{number}", "object": "response", "status": "completed", "output": [item]}
    return event(type="response.completed", response=response)


# --- the peer ---


class Peer:
    """The server's end of one connection; a script decides what it does."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.head = b""
        self.received = bytearray()
        self.frames: list[int] = []

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_head(self) -> None:
        """Read the upgrade request."""
        while b"\r\n\r\n" not in self.received:
            data = await self.stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError
            self.received += data
        end = self.received.index(b"\r\n\r\n") + 4
        self.head = bytes(self.received[:end])
        del self.received[:end]

    def acceptance(self) -> bytes:
        """The 101 answer to the request that was read."""
        lines = self.head.decode().split("\r\n")
        key = next(line.split(": ", 1)[1] for line in lines if line.lower().startswith("sec-websocket-key:"))
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accept = base64.b64encode(digest).decode()
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ).encode()

    async def accept(self, behind: bytes = b"") -> None:
        """Read the request and accept it, with frames in the same segment."""
        await self.read_head()
        await self.send(self.acceptance() + behind)

    async def refuse(self, answer: bytes) -> None:
        """Read the request and answer it."""
        await self.read_head()
        await self.send(answer)

    async def next_frame(self) -> tuple[int, bytes] | None:
        """Return opcode and payload of the client's next frame, None when it is gone."""
        while (parsed := self._parse()) is None:
            try:
                data = await self.stream.receive_some(1 << 20)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self.received += data
        self.frames.append(parsed[0])
        return parsed

    def _parse(self) -> tuple[int, bytes] | None:
        data = self.received
        if len(data) < 2:
            return None
        assert data[1] & 0x80, "a client's frames are masked"
        length, start = data[1] & 0x7F, 2
        if length == 126:
            length, start = int.from_bytes(data[2:4]), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10]), 10
        if len(data) < start + 4 + length:
            return None
        mask, opcode = bytes(data[start : start + 4]), data[0] & 0x0F
        masked = bytes(data[start + 4 : start + 4 + length])
        del data[: start + 4 + length]
        repeated = (mask * (length // 4 + 1))[:length]
        return opcode, (int.from_bytes(masked) ^ int.from_bytes(repeated)).to_bytes(length)

    async def request(self) -> dict[str, Any]:
        """Return the client's next text message, read as JSON; answer a Close frame."""
        while (got := await self.next_frame()) is not None:
            if got[0] == TEXT:
                message: dict[str, Any] = json.loads(got[1])
                return message
            if got[0] == CLOSE:
                await self.send(frame(got[1], CLOSE))
        raise trio.BrokenResourceError

    async def swallow(self) -> None:
        """Read bytes until the client is gone."""
        while await self.stream.receive_some(1 << 20):
            pass

    async def until_gone(self, *, polite: bool = True) -> None:
        """Read frames until the client is gone; answer its Close frame if polite, and nothing else."""
        while (got := await self.next_frame()) is not None:
            if got[0] == CLOSE and polite:
                await self.send(frame(got[1], CLOSE))

    def reset(self) -> None:
        """Send an RST."""
        if isinstance(self.stream, trio.SocketStream):
            linger = struct.pack("ii", 1, 0)
            self.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
            self.stream.socket.close()
        else:
            self.stream.reset()


ScriptFor = Callable[[Peer], Awaitable[None]]


async def play(script: ScriptFor, stream: Any) -> None:
    """Run a script, then close its end."""
    try:
        await script(Peer(stream))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client left
    finally:
        await trio.aclose_forcefully(stream)


class PeerDialer:
    """Dials scripts in memory, the last of them again and again; every stream is watched.

    Attributes:
        dials: How many connections were made.
    """

    def __init__(self, held: Held, *scripts: ScriptFor, capacity: float = PIPE_CAPACITY) -> None:
        self.held = held
        self.scripts = scripts
        self.capacity = capacity
        self.dials = 0

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        script = self.scripts[min(self.dials, len(self.scripts) - 1)]
        self.dials += 1
        client, server = pipe(self.capacity)
        self.held.outside.start_soon(play, script, server)
        stream: trio.abc.Stream = self.held.watch(client)
        return stream

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream:
        return await tls_over(stream, ssl_context=ssl_context, server_hostname=server_hostname)


class WatchedTcpDialer(TcpDialer):
    """The real dialer; every stream it returns is watched."""

    def __init__(self, held: Held) -> None:
        self.held = held

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        stream: trio.abc.Stream = self.held.watch(await super().open_tcp(host, port))
        return stream


async def serve(held: Held, script: ScriptFor, context: ssl.SSLContext | None = None) -> int:
    """Serve a script on loopback TCP, under TLS if a context is given; return the port."""

    async def handle(stream: trio.SocketStream) -> None:
        if context is None:
            await play(script, stream)
            return
        secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await secure.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(stream)
        else:
            await play(script, secure)

    listeners = await held.outside.start(_listen, handle)
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def _listen(handle: Any, task_status: trio.TaskStatus[Any]) -> None:
    await trio.serve_tcp(handle, 0, host="127.0.0.1", task_status=task_status)


# --- the client's side ---


@attrs.define
class Line:
    """A `WebSocket` and what it told its owner.

    Attributes:
        opened: Set at the upgrade, or when there will be none.
        messages: The text messages that came.
        failures: What it reported; one at most.
    """

    held: Held
    dialer: Any
    endpoint: engine.Endpoint
    bounds: Bounds
    received: Callable[[Sequence[str]], None] = lambda texts: None
    opened: trio.Event = attrs.field(factory=trio.Event)
    opened_at: float | None = None
    failed_at: float | None = None
    ended_at: float | None = None
    messages: list[str] = attrs.field(factory=list)
    failures: list[Failure] = attrs.field(factory=list)
    socket: WebSocket = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        callbacks = Callbacks(self._opened, self._received, self._failed)
        self.socket = WebSocket(self.endpoint, self.dialer, self.bounds, callbacks)

    def _opened(self) -> None:
        self.opened_at = self.held.elapsed
        self.opened.set()

    def _received(self, texts: Sequence[str]) -> None:
        self.messages.extend(texts)
        self.received(texts)

    def _failed(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.failed_at = self.held.elapsed
        self.opened.set()

    @property
    def error(self) -> Any:
        """The exception that its only failure becomes."""
        (failure,) = self.failures
        return to_error(failure)

    async def run(self) -> None:
        """Its whole life. Closes the socket when it is cancelled, as its owner has to."""

        async def serve() -> None:
            try:
                await self.socket.run()
            finally:
                self.ended_at = self.held.elapsed
                self.opened.set()
            nursery.cancel_scope.cancel(reason="the socket is gone")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            try:
                await trio.sleep_forever()
            finally:
                self.socket.close()


def line(
    held: Held,
    script: ScriptFor | None = None,
    *,
    dialer: Any = None,
    url: str = URL,
    api_key: Any = KEY,
    ssl_context: ssl.SSLContext | None = None,
    capacity: float = PIPE_CAPACITY,
    connect: float = 10.0,
    close: float = 2.0,
    max_message_bytes: int = 1 << 26,
    max_outbox_bytes: int = 1 << 26,
    received: Callable[[Sequence[str]], None] = lambda texts: None,
) -> Line:
    """A line to a script, or to whatever a dialer reaches."""
    if dialer is None:
        assert script is not None
        dialer = PeerDialer(held, script, capacity=capacity)
    endpoint = engine.Endpoint("http://unused.test/v1", api_key, websocket_url=url, ssl_context=ssl_context)
    return Line(held, dialer, endpoint, Bounds(connect, close, max_message_bytes, max_outbox_bytes), received)


def session_over(
    held: Held, *scripts: ScriptFor, capacity: float = PIPE_CAPACITY, **options: Any
) -> engine.open_session:
    """A session whose connections are scripts, over WebSocket only."""
    options.setdefault("dialer", PeerDialer(held, *scripts, capacity=capacity))
    options.setdefault("model", "gpt-test")
    options.setdefault("transport", engine.Transport.WEBSOCKET)
    endpoint = options.pop("endpoint", None) or engine.Endpoint("http://unused.test/v1", KEY, websocket_url=URL)
    return engine.open_session(endpoint, **options)
