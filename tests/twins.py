"""trio-websocket alone and trio-websocket behind the tap, given the same bytes in the same slices.

`lives` lets both live through the same happenings, one after the other, and takes a snapshot of each when everything
has come to rest. Whatever the cutter does, the two lists have to be equal: the same messages, Pongs, Close frames,
reasons and exceptions, and none of them later.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

import trio
import trio.testing
from attrs import frozen
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from engine.protocol.failures import Failure
from engine.transport.inlet import Inlet
from engine.transport.outbox import Outbox
from engine.transport.socket import Traffic
from engine.transport.tap import Tap

__all__ = ["HEAD", "Happening", "Snapshot", "lives", "slices"]

Happening: TypeAlias = bytes | Literal["close", "end", "reset", "cancel", "ping"]

HEAD: Final = b"<head>"
"""Stands for the head of the 101 answer where it occurs in a slice."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@frozen
class Snapshot:
    """What can be seen of a connection at rest.

    Attributes:
        opened: Whether trio-websocket is content with the answer to the upgrade.
        messages: What came, of either type.
        sent: Opcode and payload of each frame that it wanted to send.
        closed: Code and reason, once it counts as closed.
        raised: The types of what its tasks raised.
        shut: Whether trio-websocket has closed the stream.
    """

    opened: bool
    messages: tuple[str | bytes, ...]
    sent: tuple[tuple[int, bytes], ...]
    closed: tuple[int, str | None] | None
    raised: tuple[str, ...]
    shut: bool


class _Line(trio.abc.Stream):
    """The client's end, with the test at the other: what is fed arrives in these slices and no others."""

    def __init__(self) -> None:
        self.arriving: list[bytes] = []
        self.arrived = trio.lowlevel.ParkingLot()
        self.broken = False
        self.shut = False

    def feed(self, data: bytes) -> None:
        self.arriving.append(data)
        self.arrived.unpark_all()

    def reset(self) -> None:
        self.broken = True
        self.arrived.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.arriving:
            if self.shut:
                raise trio.ClosedResourceError
            if self.broken:
                raise trio.BrokenResourceError
            await self.arrived.park()
        data = self.arriving[0]
        if data:
            del self.arriving[0]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.shut or self.broken:
            raise trio.ClosedResourceError if self.shut else trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.shut = True
        self.arrived.unpark_all()
        await trio.lowlevel.checkpoint()


class _Unblocking(trio.abc.Stream):
    """The line with an outbox, so that both twins send alike and nothing but cutting differs."""

    def __init__(self, line: _Line) -> None:
        self.line = line
        self.outbox = Outbox(line, Traffic(), max_bytes=1 << 30)
        self.shut = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.shut or self.outbox.torn:
            raise trio.ClosedResourceError
        self.outbox.put(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.shut:
            raise trio.ClosedResourceError
        return await self.line.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.shut = True
        await trio.lowlevel.checkpoint()


class _Twin:
    def __init__(self, limit: int, *, cut: bool) -> None:
        self.limit = limit
        self.line = _Line()
        self.messages: list[str | bytes] = []
        self.raised: list[str] = []
        self.failures: list[Failure] = []
        self.websocket: WebSocketConnection | None = None
        self.scope = trio.CancelScope()
        self.pings = 0
        self.stream: Tap | _Unblocking = _Unblocking(self.line)
        if cut:
            inlet = Inlet(limit, self.messages.extend, lambda: False)
            inlet.open()
            self.stream = Tap(
                self.line,
                max_outbox_bytes=1 << 30,
                fail=self.failures.append,
                on_rest=lambda: None,
                inlet=inlet,
                traffic=Traffic(),
            )

        # What is queued counts: whether the pump comes to it before an exception ends everything is chance.
        self.queued = bytearray()
        put = self.stream.outbox.put

        def note(data: bytes) -> None:
            self.queued.extend(data)
            put(data)

        self.stream.outbox.put = note  # type: ignore[method-assign]

    async def live(self) -> None:
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump)
                    nursery.start_soon(self._use, nursery)
        except BaseExceptionGroup as group:
            self.raised += [type(each).__name__ for each in _leaves(group)]

    async def _pump(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.outbox.pump()

    async def _use(self, nursery: trio.Nursery) -> None:
        stream: Any = self.stream
        self.websocket = await wrap_client_stream(
            nursery, stream, "peer.test", "/", message_queue_size=0, max_message_size=self.limit
        )
        if isinstance(self.stream, Tap):
            self.stream.upgraded()
        try:
            while True:
                self.messages.append(await self.websocket.get_message())
        except ConnectionClosed:
            pass

    async def close(self) -> None:
        if self.websocket is not None:
            with trio.move_on_after(1000):
                await self.websocket.aclose()

    async def ping(self) -> None:
        if self.websocket is not None:
            try:
                self.pings += 1
                await self.websocket.ping(b"%d" % self.pings)
            except ConnectionClosed:
                self.raised.append("ping")

    def accept(self, data: bytes) -> bytes:
        """Put the head that belongs to the request where `HEAD` stands."""
        key = next(
            line[19:] for line in bytes(self.queued).split(b"\r\n") if line[:18].lower() == b"sec-websocket-key:"
        )
        token = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "
        return data.replace(HEAD, head + token + b"\r\n\r\n")

    @property
    def now(self) -> Snapshot:
        reason = self.websocket.closed if self.websocket is not None else None
        return Snapshot(
            opened=self.websocket is not None,
            messages=tuple(self.messages),
            sent=tuple(_frames(bytes(self.queued).partition(b"\r\n\r\n")[2])),
            closed=None if reason is None else (int(reason.code), reason.reason),
            raised=tuple(self.raised),
            shut=self.stream.closed_by_library if isinstance(self.stream, Tap) else self.stream.shut,
        )


def _leaves(error: BaseException) -> list[BaseException]:
    return (
        [leaf for each in error.exceptions for leaf in _leaves(each)]
        if isinstance(error, BaseExceptionGroup)
        else [error]
    )


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    """The frames a client sent: masked, and short ones only."""
    frames = []
    while data:
        size, mask = data[1] & 0x7F, data[2:6]
        frames.append((data[0], bytes(byte ^ mask[place % 4] for place, byte in enumerate(data[6 : 6 + size]))))
        data = data[6 + size :]
    return frames


def lives(happenings: Sequence[Happening], *, limit: int = 1 << 20) -> tuple[list[Snapshot], list[Snapshot]]:
    """Let both twins live through the same; returns the snapshots of the one alone and of the one behind the tap."""
    return trio.run(_live, happenings, limit, False), trio.run(_live, happenings, limit, True)


async def _live(happenings: Sequence[Happening], limit: int, cut: bool) -> list[Snapshot]:
    twin = _Twin(limit, cut=cut)
    snapshots = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(twin.live)
        await trio.testing.wait_all_tasks_blocked()
        for each in happenings:
            match each:
                case "close":
                    nursery.start_soon(twin.close)
                case "ping":
                    nursery.start_soon(twin.ping)
                case "end":
                    twin.line.feed(b"")
                case "reset":
                    twin.line.reset()
                case "cancel":
                    twin.scope.cancel(reason="as the test says")
                case _:
                    twin.line.feed(twin.accept(each))
            await trio.testing.wait_all_tasks_blocked()
            snapshots.append(twin.now)
        nursery.cancel_scope.cancel(reason="seen enough")
    return snapshots


def slices(data: bytes, places: Sequence[int]) -> list[bytes]:
    """``data``, torn at these places."""
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]
