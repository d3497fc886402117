"""Connections without sockets: a bounded pair of byte streams, and the dialers that clients are given."""

from __future__ import annotations

import operator
import ssl
from collections.abc import Callable
from typing import Final

import attrs
import trio

__all__ = ["MemoryDialer", "MemoryStream", "SimulatorDialer", "TcpDialer", "memory_stream_pair"]

CAPACITY: Final = 256 * 1024
"""Bytes one direction holds before a sender waits, about what a loopback socket takes."""


class _Pipe:
    """One direction. A task that waits sits in a parking lot, so virtual time can jump."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer: bytearray = bytearray()
        self.ended = False  # the sender will send no more
        self.deaf = False  # the receiver is gone
        self.reset = False
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of an in-memory connection; behaves like a TCP stream, with a bounded buffer each way."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in = incoming
        self._out = outgoing
        self._closed = False
        self._sending = False
        self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, waiting while the peer's buffer is full. Cancelled midway, an unknown part has been sent."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            while True:
                self._check_send()
                room = self._out.capacity - len(self._out.buffer)
                if room > 0 and view:
                    self._out.buffer += view[:room]
                    view = view[room:]
                    self._out.changed.unpark_all()
                if not view:
                    return
                await self._out.changed.park()
        finally:
            self._sending = False

    def _check_send(self) -> None:
        if self._closed or self._out.ended:
            raise trio.ClosedResourceError("this end was closed")
        if self._out.deaf or self._in.reset:
            raise trio.BrokenResourceError("the peer is gone")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the peer's buffer has room. Cancellation changes nothing."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                self._check_send()
                if len(self._out.buffer) < self._out.capacity:
                    return
                await self._out.changed.park()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, ``b""`` at the end. Cancelled, nothing has been taken."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be positive")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this end was closed")
                if self._in.reset:
                    raise trio.BrokenResourceError("the peer reset the connection")
                if self._in.buffer:
                    amount = len(self._in.buffer) if max_bytes is None else max_bytes
                    data = bytes(self._in.buffer[:amount])
                    del self._in.buffer[:amount]
                    self._in.changed.unpark_all()
                    return data
                if self._in.ended:
                    return b""
                await self._in.changed.park()
        finally:
            self._receiving = False

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        await trio.lowlevel.checkpoint()
        self._out.ended = True
        self._out.changed.unpark_all()

    def close(self) -> None:
        """Close both directions; the peer still receives what was sent."""
        self._closed = True
        self._out.ended = True
        self._in.deaf = True
        self._in.buffer.clear()
        self._out.changed.unpark_all()
        self._in.changed.unpark_all()

    def abort(self) -> None:
        """Reset the connection: the peer loses what it has not read yet."""
        self._out.reset = True
        self._out.buffer.clear()
        self.close()

    async def aclose(self) -> None:
        """Close; done before the checkpoint, hence even when cancelled."""
        self.close()
        await trio.lowlevel.checkpoint()


def memory_stream_pair(capacity: int = CAPACITY) -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a connection that buffers at most ``capacity`` bytes each way."""
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(back, there), MemoryStream(there, back)


class SimulatorDialer:
    """The dialer by which a client reaches the simulator: opens streams and wraps them in TLS."""

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Return a stream to the simulator. Cancelled, nothing stays open.

        Raises:
            OSError: the simulator is not there.
        """
        raise NotImplementedError

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream:
        """Return ``stream`` inside TLS after the handshake; closes it when that fails or is cancelled.

        Raises:
            trio.BrokenResourceError: the handshake failed.
        """
        secure = trio.SSLStream(stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        try:
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secure


@attrs.define(eq=False)
class MemoryDialer(SimulatorDialer):
    """Reaches a simulator that lives in memory, whatever host and port are asked for.

    Attributes:
        refusals: The number of next dials that fail as if nothing listened.
        dials: The number of dials so far.
    """

    _connect: Callable[[MemoryStream], None]
    refusals: int = 0
    dials: int = 0

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Return the client's end of a new connection; see `SimulatorDialer.open_tcp`."""
        await trio.lowlevel.checkpoint()
        self.dials += 1
        if self.refusals > 0:
            self.refusals -= 1
            raise ConnectionRefusedError("the simulator was told to refuse this connection")
        client, server = memory_stream_pair()
        self._connect(server)
        return client


class TcpDialer(SimulatorDialer):
    """Reaches a simulator through real sockets."""

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Return a TCP stream; see `SimulatorDialer.open_tcp`."""
        return await trio.open_tcp_stream(host, port)
