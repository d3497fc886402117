"""The answer to one HTTP request: its head and its body, a stream or a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import h11
import trio

from . import wire
from .errors import reason_phrase
from .streams import ServerStream
from .writer import Writer

if TYPE_CHECKING:
    from .records import ConnectionRecord, RequestRecord
    from .world import World

__all__ = ["HttpAnswer"]


class HttpAnswer:
    """Writes one answer.

    Args:
        world: The server, whose quirks shape it.
        stream: The client's connection.
        record: Its record.
        connection: The state of HTTP on it.

    Attributes:
        headers: Further header fields.
        request: The record of the request, once there is one.
        started: Whether its head has been sent.
        ended: Whether its stream is about to end.
        spoilt: Whether a second answer was wanted when the first had begun: the connection is of no use any more.
    """

    def __init__(
        self, world: World, stream: ServerStream, record: ConnectionRecord, connection: h11.Connection
    ) -> None:
        self._world = world
        self._stream = stream
        self._record = record
        self._http = connection
        self._out = Writer(stream, batch=world.options.events_per_write)
        self._writing = trio.Lock()
        self.headers: Mapping[str, str] = {}
        self.request: RequestRecord | None = None
        self.started: bool = False
        self.ended: bool = False
        self.spoilt: bool = False

    async def write(self) -> None:
        """Write what is ready, until cancelled."""
        await self._out.run()

    async def drained(self) -> None:
        """Wait until what is ready has been written."""
        await self._out.drained()

    async def send(self, event: h11.Event) -> None:
        """Write something at once."""
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)

    def _tell_sent(self, data: bytes) -> None:
        self._world.tell(self._record, "out", data)
        if self.request is not None:
            self.request.answered(data)

    def _header_fields(self, *further: Mapping[str, str]) -> list[tuple[str, str]]:
        fields = {
            "x-request-id": self._world.ids.new("req"),
            "openai-version": "2020-10-01",
            "openai-processing-ms": "1",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
        }
        for each in (*further, self.headers):
            fields |= {name.lower(): value for name, value in each.items()}
        return list(fields.items())

    # --- a stream ---

    def _stream_head(self) -> h11.Response:
        self.started = True
        headers = self._header_fields({"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})
        self._world.tell(self._record, "answer", {"status": 200, "headers": dict(headers)})
        return h11.Response(status_code=200, headers=headers, reason=b"OK")

    async def head_alone(self) -> None:
        """Write the head of a stream at once."""
        await self.send(self._stream_head())

    async def _put(self, event: h11.Event) -> None:
        """Send within a stream; what is ready leaves in one write."""
        data = self._http.send(event)
        if data:
            await self._out.put(data)

    async def start_stream(self) -> None:
        """Send the head of a stream, unless that was done."""
        if not self.started:
            await self._put(self._stream_head())

    async def part(self, data: bytes) -> None:
        """Send a part of the stream, in slices where the server does that."""
        size = self._world.quirks.slice_bytes
        if not size:
            await self.start_stream()
            self._tell_sent(data)
            await self._put(h11.Data(data=data))
            return
        # Keepalives come from another task, and must not get between the slices of an event.
        async with self._writing:
            await self.start_stream()
            self._tell_sent(data)
            for start in range(0, len(data), size):
                await self._put(h11.Data(data=data[start : start + size]))
                await self._out.drained()

    async def end_stream(self, last: bytes = b"") -> None:
        """End the stream, with a last part if there is one."""
        self.ended = True
        await self.start_stream()
        if last:
            await self.part(last)
        await self._put(h11.EndOfMessage())
        await self._out.drained()
        self._world.tell(self._record, "end", {})

    # --- a whole ---

    async def json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        await self.content(status, wire.dumps(value).encode(), headers)

    async def content(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a body that is known."""
        if self.started:
            self.spoilt = True
            return
        await self.begin_content(status, len(content), headers)
        self._tell_sent(content)
        await self.send(h11.Data(data=content))
        await self.send(h11.EndOfMessage())
        self._world.tell(self._record, "end", {})

    async def begin_content(self, status: int, size: int, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of an answer whose body has so many bytes."""
        self.started = True
        await self._out.drained()
        given = {"content-type": "application/json", "content-length": str(size)}
        fields = self._header_fields(given, headers or {})
        self._world.tell(self._record, "answer", {"status": status, "headers": dict(fields)})
        await self.send(h11.Response(status_code=status, headers=fields, reason=reason_phrase(status).encode()))
