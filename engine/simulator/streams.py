"""The stream under a connection: gives back what was read too early, counts, serialises, can be frozen."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import trio

from .memory import MemoryStream

if TYPE_CHECKING:
    from .records import ConnectionRecord

__all__ = ["ServerStream", "drain"]


class ServerStream(trio.abc.Stream):
    """Wraps the accepted stream.

    trio-websocket sends its own Pong and Close frames from its reader task, so the lock is what keeps a scripted half
    frame from being torn by one.
    """

    def __init__(self, stream: trio.abc.Stream, record: ConnectionRecord) -> None:
        self._stream = stream
        self._record = record
        self._lock = trio.StrictFIFOLock()
        self._pending = b""
        self._held = b""
        self._released = trio.Event()
        self._released.set()
        self.frozen = False
        self.deaf = False

    def replay(self, head: bytes, rest: bytes) -> None:
        """Hand ``head`` to whoever receives next, and ``rest`` and all else only after `release`.

        trio-websocket overlooks frames that it receives together with the upgrade request.
        """
        self._pending = head
        self._held = rest
        self._released = trio.Event()

    def release(self) -> None:
        """Let the bytes after the head pass."""
        self._pending += self._held
        self._held = b""
        self._released.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send in turn with the other tasks of this connection."""
        if self.frozen:
            await trio.lowlevel.checkpoint()
            return
        async with self._lock:
            await self._stream.send_all(data)
            self._record.bytes_out += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what was handed back, else what arrives."""
        if self.deaf:
            await trio.sleep_forever()
        if self._pending:
            await trio.lowlevel.checkpoint()
            amount = len(self._pending) if max_bytes is None else max_bytes
            data, self._pending = self._pending[:amount], self._pending[amount:]
            return data
        if not self._released.is_set():
            await self._released.wait()
            return await self.receive_some(max_bytes)
        received = bytes(await self._stream.receive_some(max_bytes))
        self._record.bytes_in += len(received)
        return received

    async def aclose(self) -> None:
        """Close the accepted stream."""
        await self._stream.aclose()

    def prepare_reset(self) -> None:
        """Make the coming close discard what the peer has not read."""
        inner = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        if isinstance(inner, MemoryStream):
            inner.abort()
        elif isinstance(inner, trio.SocketStream):
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def drain(stream: trio.abc.Stream, *, seconds: float, limit: int) -> None:
    """Read and discard until the peer closes, within bounds.

    A socket that is closed with unread data resets the connection, and the peer then loses the answer it was sent.
    """
    received = 0
    with trio.move_on_after(seconds):
        while received < limit:
            data = await stream.receive_some(65536)
            if not data:
                return
            received += len(data)
