"""The outbox of one stream, and the one task that sends it.

Putting something in never blocks, so no cancelled writer can tear a frame, and a small answer never waits for its
writer to come back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio
from attrs import define

from engine.transport.socket import Traffic

__all__ = ["Outbox"]

_CHUNK: Final = 256 * 1024  # a TLS stream encrypts what it is given in one go


def _nothing() -> None:
    pass


@define
class _Parcel:
    """One write, and who wants to know how far it has got."""

    data: bytes
    on_reached: Callable[[], None] = _nothing
    on_passed: Callable[[], None] = _nothing


class Outbox:
    """A queue of writes that `pump` moves to a stream.

    Args:
        stream: The stream that everything goes to.
        traffic: The counts that are kept up to date.
        max_bytes: The most bytes that may wait before it is `full`.

    Attributes:
        sending: Whether the pump is within a write.
        torn: Whether a write to the stream did not finish: nothing sensible can follow it.
    """

    def __init__(self, stream: trio.abc.Stream, traffic: Traffic, *, max_bytes: int) -> None:
        self._stream = stream
        self._traffic = traffic
        self._max_bytes = max_bytes
        self._parcels: deque[_Parcel] = deque()
        self._filled = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()
        self.sending: bool = False
        self.torn: bool = False
        self._ending = False

    @property
    def full(self) -> bool:
        """Whether nothing more may be queued.

        The write that fills it may be of any size: on a new connection it would be as large.
        """
        return self._traffic.outbox_bytes >= self._max_bytes

    @property
    def idle(self) -> bool:
        """Whether everything is out, and nothing half-sent."""
        return not (self._traffic.outbox_bytes or self.sending or self.torn)

    def put(self, data: bytes) -> None:
        """Queue one write."""
        self._traffic.bytes_queued += len(data)
        self._parcels.append(_Parcel(data))
        self._filled.unpark()

    def retract(self) -> None:
        """Take back what was queued last. Only before the next checkpoint: the pump must not have seen it."""
        self._traffic.bytes_queued -= len(self._parcels.pop().data)

    def follow(self, on_reached: Callable[[], None], on_passed: Callable[[], None]) -> None:
        """Have it told how the write that was queued last gets on. Only before the next checkpoint."""
        parcel = self._parcels[-1]
        parcel.on_reached, parcel.on_passed = on_reached, on_passed

    async def pump(self) -> None:
        """Move what is queued to the stream until `end` or cancelled: the only place that writes to it.

        Raises:
            trio.BrokenResourceError: the stream broke, as ``torn`` says.
            trio.ClosedResourceError: likewise.
        """
        traffic = self._traffic
        try:
            while True:
                while not self._parcels:
                    self._emptied.unpark_all()
                    if self._ending:
                        return
                    await self._filled.park()
                parcel = self._parcels.popleft()
                self.sending = True
                parcel.on_reached()
                view = memoryview(parcel.data)
                for start in range(0, len(view), _CHUNK):
                    chunk = view[start : start + _CHUNK]
                    await self._stream.send_all(chunk)
                    traffic.bytes_sent += len(chunk)
                self.sending = False
                parcel.on_passed()
                del parcel, view, chunk  # else it would be held until the next one comes
        finally:
            self.torn = self.torn or self.sending

    async def drained(self) -> None:
        """Wait until everything is passed on. The caller bounds the wait."""
        while self._traffic.outbox_bytes:
            await self._emptied.park()

    def end(self) -> None:
        """Let the pump end when it has sent what is queued: without the exception that cancelling it would take."""
        self._ending = True
        self._filled.unpark()

    def forget(self) -> None:
        """Tell nothing more of what is still queued."""
        for parcel in self._parcels:
            parcel.on_reached = parcel.on_passed = _nothing
