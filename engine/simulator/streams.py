"""The stream under a connection: counts, can be frozen and deafened."""

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
    """Wraps the accepted stream: counts its bytes, and can be made mute or deaf."""

    def __init__(self, stream: trio.abc.Stream, record: ConnectionRecord) -> None:
        self._stream = stream
        self._record = record
        self.frozen = False
        self.deaf = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, unless frozen."""
        if self.frozen:
            await trio.lowlevel.checkpoint()
            return
        await self._stream.send_all(data)
        self._record.bytes_out += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what arrives; for ever nothing once deaf."""
        if self.deaf:
            await trio.sleep_forever()
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
