"""One stream that carries HTTP/1.1 requests one after the other, spoken with h11."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import h11
import httpx
import trio

from engine.protocol.failures import Failure, Lost, Unreachable, Violated
from engine.transport.dial import close_at_once, network_problem, refused_by_tls

__all__ = ["HttpConnection", "HttpFailed"]

_RECEIVE_BYTES: Final = 65536
_SEND_BYTES: Final = 256 * 1024  # a TLS stream encrypts what it is given in one go
_MAX_HEAD: Final = 64 * 1024
_LAST_WORDS_GRACE: Final = 1.0
_CUT: Final = "the server closed the connection before the answer had ended"
_STAYS_OPEN: Final = re.compile(r"(?i)\btimeout\s*=\s*(\d{1,6})")


class HttpFailed(httpx.TransportError):
    """There will be no answer, or no more of it.

    Attributes:
        failure: The reason.
        unread: Whether it is certain that the server has not read the request.
    """

    def __init__(self, failure: Failure, *, unread: bool = False) -> None:
        super().__init__(type(failure).__name__)
        self.failure = failure
        self.unread = unread


class HttpConnection:
    """A stream and what is under way on it. Its owner closes it.

    Attributes:
        requests: Requests that were begun on it.
        ended: Whether the answer under way has been read to its end.
        patience: Seconds that the server keeps it when nothing is under way, as far as it has said.
    """

    def __init__(self, stream: trio.abc.Stream, server: str) -> None:
        self._stream = stream
        self._server = server
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._eof = False
        self._received = 0  # bytes of the answer under way
        self._answered = False
        self.requests: int = 0
        self.ended: bool = False
        self.patience: float = float("inf")

    async def ask(
        self, request: httpx.Request, on_sending: Callable[[], None], on_sent: Callable[[], None]
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Send a request; returns status and header fields of the answer.

        Args:
            request: The request, whose body has been read.
            on_sending: Called when its first byte is about to leave.
            on_sent: Called when its last byte was passed on.

        Raises:
            HttpFailed: there is no answer.

        If cancelled, the connection is of no further use, as after a failure.
        """
        if self.requests:
            self._protocol.start_next_cycle()
        self.requests += 1
        self._received, self._answered, self.ended = 0, False, False
        on_sending()
        broke = await self._write(request)
        if broke is None:
            on_sent()
            return await self._head()
        # A server that turns away, say from a request too large for it, may have told why: that is still to be read.
        try:
            with trio.move_on_after(_LAST_WORDS_GRACE):
                return await self._head()
        except HttpFailed as failed:
            if failed.unread:
                raise
        raise self._broken(broke, written=False)

    async def _write(self, request: httpx.Request) -> Exception | None:
        """Send all of a request; returns what broke, if something did.

        The head goes out with the body. A server that hangs up in between would make the body's write fail, and a TLS
        stream on which one has failed keeps what the server said to itself.
        """
        protocol, content = self._protocol, request.content
        head = protocol.send(
            h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        )
        assert head is not None
        if content:
            protocol.send_with_data_passthrough(h11.Data(content))  # counted; with a length, it goes as it is
        protocol.send(h11.EndOfMessage())
        view = memoryview(content)
        try:
            await self._stream.send_all(head + content[:_SEND_BYTES])
            for start in range(_SEND_BYTES, len(view), _SEND_BYTES):
                await self._stream.send_all(view[start : start + _SEND_BYTES])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return error
        return None

    async def _head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        while True:
            event = self._next_event()
            if isinstance(event, h11.Response):
                self._answered = True
                fields = list(event.headers)
                self.patience = _patience(fields)
                return event.status_code, fields
            if event is h11.NEED_DATA:
                await self._receive()
            elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise HttpFailed(Unreachable("http", f"what answers at {self._server} does not speak HTTP/1.1"))

    async def read(self) -> bytes:
        """Return what came next of the answer's body, all that is there; nothing at its end.

        Raises:
            HttpFailed: there will be no more of it.

        If cancelled, the connection is of no further use.
        """
        parts: list[bytes] = []
        while not self.ended:
            event = self._next_event()
            if isinstance(event, h11.Data):
                parts.append(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.ended = True
            elif parts:
                break
            else:
                await self._receive()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        try:
            return self._protocol.next_event()
        except h11.RemoteProtocolError:
            if self._eof:
                raise HttpFailed(Lost(_CUT), unread=False) from None
            if self._answered:
                raise HttpFailed(Violated("the server broke HTTP within its answer")) from None
            problem = f"what answers at {self._server} does not speak HTTP/1.1"
            raise HttpFailed(Unreachable("http", problem)) from None

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._broken(error, written=True) from None
        self._received += len(data)
        self._eof = not data
        try:
            self._protocol.receive_data(bytes(data))
        except h11.RemoteProtocolError:
            raise HttpFailed(Lost(_CUT)) from None

    def _broken(self, error: Exception, *, written: bool) -> HttpFailed:
        """Say what the stream's breaking means."""
        refused = refused_by_tls(error) if not self._received else None
        if refused is not None:
            return HttpFailed(refused, unread=True)  # such a server has not read any of it
        problem = f"the connection broke before the answer had ended{network_problem(error)}"
        lost = Lost(problem, cause=error)
        # A server may close a connection that it keeps while the next request is on its way; one that it has not had
        # to its end, it will not have begun.
        return HttpFailed(lost, unread=self.requests > 1 and not written and not self._received)

    # --- between requests ---

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: both sides agree, and nothing has come behind the answer."""
        protocol = self._protocol
        return (
            protocol.our_state is h11.DONE
            and protocol.their_state is h11.DONE
            and protocol.trailing_data == (b"", False)
            and not self._eof
        )

    async def wait_unwanted(self) -> None:
        """Wait until the server says something unasked, or leaves: after that, it is of no use. Cancelling is safe."""
        with suppress(Exception):  # whatever it is, it ends the connection
            await self._stream.receive_some(1)

    async def aclose(self) -> None:
        """Close at once. Cancellation does not reach it."""
        await close_at_once(self._stream)


def _patience(fields: Sequence[tuple[bytes, bytes]]) -> float:
    """Return how long the server keeps the connection, from its Keep-Alive field (RFC 2068 section 19.7.1.1)."""
    for name, value in fields:
        if name == b"keep-alive":
            said = _STAYS_OPEN.search(value.decode("latin-1"))
            if said is not None:
                return float(said[1])
    return float("inf")
