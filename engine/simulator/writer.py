"""The one task that writes to a connection: what is ready goes out in one write, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

__all__ = ["Writer"]

_ITEMS: Final = 64
_BYTES: Final = 1024 * 1024

_Action: TypeAlias = Callable[[], Awaitable[None]]


class Writer:
    """Takes bytes, and actions that must not overtake them.

    Args:
        stream: The stream that the bytes go to.
        batch: After how many of them the one who puts makes room for the other tasks. Until then, and as long as the
            peer is slow, they gather and leave in one write.
    """

    def __init__(self, stream: trio.abc.SendStream, *, batch: int) -> None:
        self._stream = stream
        self._batch = batch
        self._most = max(_ITEMS, 2 * batch)
        self._ready: list[bytes | _Action] = []
        self._size = 0
        self._writing = False
        self._wake = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._idle = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            trio.BrokenResourceError: the peer is gone.
            trio.ClosedResourceError: this end has been closed.
        """
        while True:
            if not self._ready:
                self._writing = False
                self._idle.unpark_all()
                await self._wake.park()
                continue
            self._writing = True
            ready, self._ready, self._size = self._ready, [], 0
            self._room.unpark_all()
            start = 0
            while start < len(ready):
                item = ready[start]
                if isinstance(item, bytes):
                    end = start + 1
                    while end < len(ready) and isinstance(ready[end], bytes):
                        end += 1
                    await self._stream.send_all(b"".join(ready[start:end]))  # type: ignore[arg-type]
                    start = end
                else:
                    await item()
                    start += 1

    @property
    def _full(self) -> bool:
        return len(self._ready) >= self._most or self._size > _BYTES

    async def put(self, item: bytes | _Action) -> None:
        """Take bytes or an action, after waiting for room. Cancelled, it may have been taken."""
        if self._full:
            while self._full:
                await self._room.park()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        self._take(item)
        if len(self._ready) >= self._batch:
            await trio.lowlevel.checkpoint()

    def put_nowait(self, item: bytes | _Action) -> bool:
        """Take bytes or an action if there is room; returns whether there was."""
        if self._full:
            return False
        self._take(item)
        return True

    def first(self, item: bytes | _Action) -> None:
        """Take bytes or an action that go before all that waits, whether or not there is room."""
        self._ready.insert(0, item)
        self._wake.unpark_all()

    def _take(self, item: bytes | _Action) -> None:
        self._ready.append(item)
        if isinstance(item, bytes):
            self._size += len(item)
        if not self._writing:
            self._wake.unpark_all()

    def drop(self) -> None:
        """Forget what waits."""
        self._ready.clear()
        self._size = 0
        self._room.unpark_all()

    async def drained(self) -> None:
        """Wait until everything has been written. Cancellation changes nothing."""
        while self._ready or self._writing:
            await self._idle.park()
