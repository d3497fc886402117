"""A bad network between a client and any server: a dialer whose streams are slow, torn, silent or cut, by plan.

::

    injector = FaultInjector(sim.dialer, RandomFaults(), seed=7)
    async with open_session(sim.endpoint, model="m", dialer=injector) as session:
        ...
    injector.log     # what was done to which connection, and when

Works over real and in-memory streams, under a real clock and under `trio.testing.MockClock`; starts no tasks.
"""

from __future__ import annotations

import operator
import random
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Literal, Protocol, TypeAlias

import attrs
import trio

from .memory import CAPACITY, MemoryStream, SimulatorDialer

__all__ = ["Cut", "FaultInjector", "Faults", "Injected", "InjectedStream", "RandomFaults"]

_EVENT: Final = b'{"type":"response.'
"""The beginning of an event's JSON, inside a WebSocket frame as well as in an event stream, and nothing within one."""


@attrs.frozen
class Cut:
    """The end of a connection, when so many bytes have passed.

    Attributes:
        kind: ``reset`` discards what is on its way, in both directions. ``eof`` closes both, and what is on its way to
            the server still arrives. ``stall`` leaves both open and lets nothing pass any more, like a peer whose cable
            was pulled: reads wait, and writes vanish until a buffer is full.
        direction: The way in which the bytes are counted, ``send`` from the client to the server.
        at: After how many bytes; 0 before the first.
        in_event: In place of ``at``: after the first bytes of this event's JSON, counted from 1, which is in the middle
            of a WebSocket frame, or of an event of a stream. Only ``receive``, and not below TLS.
    """

    kind: Literal["reset", "eof", "stall"]
    direction: Literal["send", "receive"] = "receive"
    at: int = 0
    in_event: int | None = None


@attrs.frozen
class Faults:
    """The faults of one connection; by default none.

    Attributes:
        dial: ``refuse`` as if nothing listened; ``hang`` for ever.
        dial_delay: Seconds before the dial is answered.
        send_delay: Seconds before what is sent leaves.
        receive_delay: Seconds before what has come is handed over.
        send_bytes: The most that leaves at once; 0 for any amount.
        receive_bytes: The most that one read returns; 0 for any amount.
        cut: The way and time of its end.
    """

    dial: Literal["connect", "refuse", "hang"] = "connect"
    dial_delay: float = 0.0
    send_delay: float = 0.0
    receive_delay: float = 0.0
    send_bytes: int = 0
    receive_bytes: int = 0
    cut: Cut | None = None


Plan: TypeAlias = "Callable[[random.Random, int], Faults]"


@attrs.frozen
class RandomFaults:
    """Faults by chance; give it to a `FaultInjector` as its plan.

    Attributes:
        dial: The chances that a dial is refused, and that it hangs.
        cut: The chance that a connection is cut.
        slow: The chance that it is slow in either direction.
        sliced: The chance that its reads are a few bytes each.
        delay: The longest delay, in seconds.
        within: The most bytes that pass before a cut.
        events: The most events that pass before a cut inside one.
        kinds: The kinds of cuts.
    """

    dial: float = 0.05
    cut: float = 0.4
    slow: float = 0.3
    sliced: float = 0.1
    delay: float = 0.5
    within: int = 16 * 1024
    events: int = 40
    kinds: tuple[Literal["reset", "eof", "stall"], ...] = ("reset", "eof", "stall")

    def __call__(self, rng: random.Random, number: int) -> Faults:
        """Return what is done to connection ``number``."""
        chance = rng.random()
        if chance < 2 * self.dial:
            return Faults("refuse" if chance < self.dial else "hang", dial_delay=rng.random() * self.delay)
        cut = None
        if rng.random() < self.cut:
            kind = rng.choice(self.kinds)
            match rng.randrange(3):
                case 0:
                    cut = Cut(kind, "send", rng.randrange(self.within))
                case 1:
                    cut = Cut(kind, "receive", rng.randrange(self.within))
                case _:
                    cut = Cut(kind, in_event=rng.randrange(1, self.events + 1))
        slow = rng.random() < self.slow
        sliced = rng.random() < self.sliced
        return Faults(
            send_delay=rng.random() * self.delay if slow else 0.0,
            receive_delay=rng.random() * self.delay if slow else 0.0,
            receive_bytes=rng.choice((1, 2, 7, 100)) if sliced else 0,
            cut=cut,
        )


@attrs.frozen
class Injected:
    """One thing that was done to a connection.

    Attributes:
        connection: Its number, counted from 0 by dials.
        what: ``refuse``, ``hang``, ``connect``, ``reset``, ``eof``, ``stall``, or ``close`` for the client's own.
        time: The time, on Trio's clock.
        sent: Bytes that had left then.
        received: Bytes that had been handed over then.
    """

    connection: int
    what: str
    time: float
    sent: int = 0
    received: int = 0


class _OpensStreams(Protocol):
    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream: ...

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream: ...


class FaultInjector(SimulatorDialer):
    """Dials through another dialer, and does to each connection what the plan says.

    Args:
        dialer: The dialer that really dials.
        plan: The faults: a function of a random generator and the connection's number, or faults for one connection
            each, followed by connections without any.
        seed: Of the generators. Each connection has one of its own, so that what happens to one does not depend on how
            the others fare.

    Attributes:
        plan: May be replaced at any time.
        log: The faults so far, in order.
        streams: The streams it opened, in order of their dials.
    """

    def __init__(self, dialer: _OpensStreams, plan: Plan | Iterable[Faults] = (), *, seed: int = 0) -> None:
        self._dialer = dialer
        self._seed = seed
        self._count = 0
        self.plan: Plan = plan if callable(plan) else _in_turn(plan)
        self.log: list[Injected] = []
        self.streams: list[InjectedStream] = []

    @property
    def dials(self) -> int:
        """The number of dials."""
        return self._count

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Return a stream that misbehaves as planned. Cancelled, nothing stays open.

        Raises:
            OSError: nothing answered, or the plan says so.
        """
        number = self._count
        self._count += 1
        # The stream is named by text, so that neighbouring connections have nothing in common.
        faults = self.plan(random.Random(f"{self._seed} {number}"), number)  # noqa: S311 - chance, not a secret
        await trio.sleep(faults.dial_delay)
        if faults.dial == "refuse":
            self.note(number, "refuse")
            raise ConnectionRefusedError("the injector refuses this connection")
        if faults.dial == "hang":
            self.note(number, "hang")
            await trio.sleep_forever()
        stream = InjectedStream(await self._dialer.open_tcp(host, port), faults, self, number)
        self.streams.append(stream)
        self.note(number, "connect")
        return stream

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream:
        """Do the TLS handshake over the misbehaving stream; closes it when that fails or is cancelled."""
        return await self._dialer.start_tls(stream, ssl_context=ssl_context, server_hostname=server_hostname)

    def note(self, connection: int, what: str, *, sent: int = 0, received: int = 0) -> None:
        """Write a line of the log."""
        self.log.append(Injected(connection, what, trio.current_time(), sent, received))


def _in_turn(several: Iterable[Faults]) -> Plan:
    left = deque(several)

    def next_faults(rng: random.Random, number: int) -> Faults:
        return left.popleft() if left else Faults()

    return next_faults


class InjectedStream(trio.abc.Stream):
    """The client's end of a connection through a bad network. Closing it closes the real one.

    Attributes:
        number: The connection's, as in the log.
        faults: The faults that befall it.
        sent: Bytes that have left.
        received: Bytes that have been handed over.
    """

    def __init__(self, stream: trio.abc.Stream, faults: Faults, injector: FaultInjector, number: int) -> None:
        self.number = number
        self.faults = faults
        self.sent: int = 0
        self.received: int = 0
        self._stream = stream
        self._injector = injector
        self._ending: Literal["reset", "eof", "stall"] | None = None
        self._closed = trio.Event()
        self._sending = False
        self._receiving = False
        self._arrived = b""  # received, and not handed over yet
        self._scanned = b""  # the end of what was searched for events
        self._events = 0
        self._last = False  # what has arrived ends where the cut is
        self._vanished = 0

    @property
    def closed(self) -> bool:
        """Whether the client has closed it."""
        return self._closed.is_set()

    @property
    def ending(self) -> Literal["reset", "eof", "stall"] | None:
        """The network's way of ending it, if it has ended."""
        return self._ending

    # --- sending ---

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send as far as the faults allow. Cancelled midway, an unknown part has been sent."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_open()
            if self._ending is None and self.faults.send_delay:
                await trio.sleep(self.faults.send_delay)
            await self._send(memoryview(data))
        finally:
            self._sending = False

    async def _send(self, view: memoryview) -> None:
        cut = self.faults.cut
        ends_at = cut.at if cut is not None and cut.direction == "send" else None
        while True:
            self._check_open()
            if ends_at is not None and self.sent >= ends_at:
                await self._end()
            if not view:
                return
            if self._ending == "stall":
                await self._vanish(len(view))
                return
            if self._ending is not None:
                raise trio.BrokenResourceError("the network has ended the connection")
            size = self.faults.send_bytes or len(view)
            if ends_at is not None:
                size = min(size, ends_at - self.sent)
            try:
                await self._stream.send_all(view[:size])
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                if self._ending is None:
                    raise
                continue
            size = min(size, len(view))
            self.sent += size
            view = view[size:]

    async def _vanish(self, size: int) -> None:
        # The sending host keeps what the other side does not acknowledge, and takes no more when its buffer is full.
        self._vanished += size
        if self._vanished > CAPACITY:
            await self._wait_for_close()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room; for ever when the connection has stalled with a full buffer."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._ending is None:
            await self._stream.wait_send_all_might_not_block()
        elif self._ending == "stall" and self._vanished > CAPACITY:
            await self._wait_for_close()

    # --- receiving ---

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what the faults let through. Cancelled, nothing is lost."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be positive")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                self._check_open()
                if self._ending == "stall":
                    await self._wait_for_close()
                if self._ending == "reset":
                    raise trio.BrokenResourceError("the network has reset the connection")
                if self._ending == "eof":
                    return b""
                if self._arrived:
                    return self._hand_over(max_bytes)
                if self._last or self._cut_at(b"") is not None:
                    await self._end()
                    continue
                if not await self._take():
                    return b""
        finally:
            self._receiving = False

    async def _take(self) -> bool:
        """Take what comes next; returns whether there is something to look at."""
        try:
            data = bytes(await self._stream.receive_some())
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            if self._ending is None and not self.closed:
                raise
            return True
        if not data:
            return self._ending is not None
        end = self._cut_at(data)
        self._last = end is not None
        self._arrived = data[:end]
        if self.faults.receive_delay:
            await trio.sleep(self.faults.receive_delay)
        return True

    def _cut_at(self, data: bytes) -> int | None:
        """Return how much of what comes next gets through, None for all of it."""
        cut = self.faults.cut
        if cut is None or cut.direction == "send":
            return None
        if cut.in_event is None:
            left = cut.at - self.received
            return left if left <= len(data) else None
        searched = self._scanned + data
        position = 0
        while (found := searched.find(_EVENT, position)) >= 0:
            position = found + len(_EVENT)
            self._events += 1
            if self._events == cut.in_event:
                return max(1, position - len(self._scanned))
        self._scanned = searched[max(position, len(searched) - len(_EVENT) + 1) :]
        return None

    def _hand_over(self, max_bytes: int | None) -> bytes:
        size = min(max_bytes or len(self._arrived), self.faults.receive_bytes or len(self._arrived))
        data, self._arrived = self._arrived[:size], self._arrived[size:]
        self.received += len(data)
        return data

    # --- ending ---

    async def _end(self) -> None:
        """Cut the connection; tasks that wait in the real stream wake up and find out."""
        if self._ending is not None:
            return
        assert self.faults.cut is not None
        self._ending = self.faults.cut.kind
        self._note(self._ending)
        if self._ending == "reset":
            self._prepare_reset()
        if self._ending != "stall":
            await trio.aclose_forcefully(self._stream)

    def _prepare_reset(self) -> None:
        if isinstance(self._stream, MemoryStream):
            self._stream.abort()
        elif isinstance(self._stream, trio.SocketStream):
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def aclose(self) -> None:
        """Close the real stream; done before the checkpoint, hence even when cancelled."""
        if not self.closed:
            self._note("close")
            self._closed.set()
        await self._stream.aclose()

    async def _wait_for_close(self) -> None:
        await self._closed.wait()
        self._check_open()

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this end was closed")

    def _note(self, what: str) -> None:
        self._injector.note(self.number, what, sent=self.sent, received=self.received)
