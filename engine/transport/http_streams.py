"""The transport under httpx: requests over streams of the dialer's, which are kept for the next request.

No connection is kept of which it is not certain that the next request finds it as it should be: its answer was read to
the end with nothing behind it, and while it waits a task reads from it. Whatever that task gets, be it bytes, an end
or an error, closes the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import httpx
import trio
from attrs import define, field

from engine.protocol.failures import Unreachable
from engine.settings.endpoint import Endpoint
from engine.transport.dial import Dialer, Target, open_stream, undialled
from engine.transport.http_connection import HttpConnection, HttpFailed

__all__ = ["Carriage", "HttpStreams"]

_CLOSING: Final = 1.0
_TAIL_SECONDS: Final = 0.5
_TAIL_BYTES: Final = 64 * 1024
_SOONER: Final = 1.0  # than the server, which counts from when it sent, and may be slow to say that it closes


def _nothing() -> None:
    pass


def _no_stage(stage: str) -> None:
    pass


@define(eq=False)
class Carriage:
    """The record of one request on its way; given to the transport as the request's extension ``carriage``.

    Attributes:
        on_stage: Told of each step of reaching the server, by its name.
        on_sending: Called when a connection is there and the first byte is about to leave.
        on_sent: Called when the last byte was passed on.
        connection: The connection that it goes over, once there is one.
        reused: Whether that has carried requests before.
    """

    on_stage: Callable[[str], None] = _no_stage
    on_sending: Callable[[], None] = _nothing
    on_sent: Callable[[], None] = _nothing
    connection: HttpConnection | None = None
    reused: bool = False

    def forget(self) -> None:
        """Tell nothing more."""
        self.on_stage, self.on_sending, self.on_sent = _no_stage, _nothing, _nothing


@define(eq=False)
class _Kept:
    """A connection that waits for its next request, with the task that watches it."""

    connection: HttpConnection
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    over: trio.Event = field(factory=trio.Event)
    looking: bool = False
    wanted: bool = False  # for another request
    intact: bool = False  # and it got there with nothing amiss


class _Body(httpx.AsyncByteStream):
    """The body of an answer as httpx reads it. `Answer` reads the connection itself, without httpx's generators."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        data = await self._connection.read()
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        await self._connection.aclose()


class HttpStreams(httpx.AsyncBaseTransport):
    """Sends requests to one endpoint, each over a kept connection or a new one.

    Nothing of the environment counts here, and connections are as many as requests are under way: a bound would make
    cancelled requests take places with them.

    Args:
        endpoint: The endpoint whose TLS context and server name are used.
        dialer: Opens the streams.
        target: The server.
        nursery: The nursery of tasks that watch kept connections. Without one, none is kept.
        idle_lifetime: Seconds for which one is kept at most.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        dialer: Dialer,
        target: Target,
        *,
        nursery: trio.Nursery | None,
        idle_lifetime: float,
    ) -> None:
        self._endpoint = endpoint
        self._dialer = dialer
        self._target = target
        self._nursery = nursery
        self._idle_lifetime = idle_lifetime
        self._open: set[HttpConnection] = set()
        self._kept: list[_Kept] = []
        self._watched: set[_Kept] = set()
        self._closed = False

    @property
    def open_connections(self) -> int:
        """The number of connections, kept ones included."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the answer, of which only the head has come. If cancelled, nothing stays open."""
        carriage: Carriage = request.extensions.get("carriage") or Carriage()
        connection: HttpConnection | None = None
        try:
            connection = await self._take()
            carriage.reused = connection is not None
            if connection is None:
                connection = await self._dial(carriage)
            carriage.connection = connection
            status, fields = await connection.ask(request, carriage.on_sending, carriage.on_sent)
        except BaseException:
            if connection is not None:
                await self.close(connection)
            raise
        # httpx would make a request of a redirection's target even if it may not follow it.
        fields = [(name, value) for name, value in fields if name != b"location"]
        return httpx.Response(status, headers=fields, stream=_Body(connection))

    @trio.lowlevel.enable_ki_protection  # between a stream and its owner nothing would close it
    async def _dial(self, carriage: Carriage) -> HttpConnection:
        stage = "tcp"

        def reach(step: str) -> None:
            nonlocal stage
            stage = step
            carriage.on_stage(step)

        try:
            stream = await open_stream(self._dialer, self._target, self._endpoint, reach)
        except Exception as error:
            raise HttpFailed(undialled(stage, self._target.shown, error), unread=True) from None
        connection = HttpConnection(stream, self._target.shown)
        self._open.add(connection)
        if self._closed:
            await self.close(connection)
            raise HttpFailed(Unreachable("http", "the client was closed"), unread=True)
        return connection

    # --- connections that are kept ---

    async def _take(self) -> HttpConnection | None:
        """Return the connection that was kept last, if one is as it should be."""
        while self._kept:
            kept = self._kept.pop()
            kept.wanted = True
            with trio.CancelScope(shield=True):  # its task ends at once, and no connection must be lost between two
                if not kept.looking:
                    await trio.lowlevel.checkpoint()  # what has come already must be seen
                kept.scope.cancel(reason="the connection is used again")
                await kept.over.wait()
            if kept.intact:
                return kept.connection
        return None

    async def release(self, connection: HttpConnection) -> None:
        """Take back a connection of whose answer nothing more is wanted; it is kept, or closed at once.

        What is left of the answer is read in the background, if it comes soon and is little. Cancellation does not
        reach it.
        """
        if not self._keeps(connection):
            await self.close(connection)
            return
        assert self._nursery is not None
        kept = _Kept(connection)
        self._watched.add(kept)
        if connection.ended:
            self._kept.append(kept)
        self._nursery.start_soon(self._watch, kept)

    def _keeps(self, connection: HttpConnection) -> bool:
        nursery = self._nursery
        able = nursery is not None and not nursery.cancel_scope.cancel_called and not self._closed
        fit = connection.reusable or not connection.ended
        return able and fit and connection in self._open and self._life(connection) > 0

    def _life(self, connection: HttpConnection) -> float:
        return min(self._idle_lifetime, connection.patience - _SOONER)

    @trio.lowlevel.enable_ki_protection
    async def _watch(self, kept: _Kept) -> None:
        """Read what is left of an answer, then see that nothing comes until the connection is used again."""
        connection = kept.connection
        try:
            with kept.scope:
                if await _finished(connection):
                    kept.scope.deadline = trio.current_time() + self._life(connection)
                    if kept not in self._kept and not kept.wanted:
                        self._kept.append(kept)
                    kept.looking = True
                    await connection.wait_unwanted()
                    kept.wanted = False
            kept.intact = kept.wanted
        finally:
            self._watched.discard(kept)
            if kept in self._kept:
                self._kept.remove(kept)
            if not kept.intact:
                await self.close(connection)
            kept.over.set()

    def retire(self) -> None:
        """Close what is kept, and keep nothing any more; requests under way go on."""
        self._nursery = None
        for kept in list(self._watched):
            kept.scope.cancel(reason="nothing more is to be sent")

    # --- closing ---

    async def close(self, connection: HttpConnection) -> None:
        """Close a connection at once. Cancellation does not reach it."""
        self._open.discard(connection)
        await connection.aclose()

    async def aclose(self) -> None:
        """Close everything at once, also under requests. Cancellation does not reach it."""
        self._closed = True
        self.retire()
        for connection in list(self._open):
            await self.close(connection)
        with trio.move_on_after(_CLOSING, shield=True):
            for kept in list(self._watched):
                await kept.over.wait()


async def _finished(connection: HttpConnection) -> bool:
    """Read to the end of an answer if it comes soon and is little; whether another request may follow."""
    size = 0
    with trio.move_on_after(_TAIL_SECONDS):
        with suppress(Exception):  # whatever it is, it ends the connection
            while not connection.ended and size <= _TAIL_BYTES:
                size += len(await connection.read())
    return connection.ended and connection.reusable
