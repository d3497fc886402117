"""HTTP over the same dialer as the WebSocket, through httpx.

Every connection belongs to the `HttpClient` that opened it, and every request to the `HttpRequest` that sends it; both
close what is theirs, at once. httpx's own timeouts are off: cancel scopes rule, and the caller's bound the whole.

Of httpx there are its requests, its answers and the interface of its transports. Its client stays away: it would follow
redirections, keep cookies, read the environment and log URLs, and takes half as long again.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

import httpx
import trio

from engine.protocol.failures import Broken, Failure, Lost, Unreachable, Violated
from engine.protocol.refusals import refusal
from engine.settings.endpoint import Endpoint
from engine.transport.content_coding import unpacker
from engine.transport.credentials import Credentials, request_headers, resolve
from engine.transport.dial import Dialer, Target, too_slow, undialled
from engine.transport.http_connection import HttpConnection, HttpFailed
from engine.transport.http_streams import Carriage, HttpStreams
from engine.transport.proxy import proxy_on_the_way

__all__ = ["Answer", "HttpClient", "HttpRequest", "read_body", "read_refusal", "whole_answer"]

_MAX_REFUSAL: Final = 16 * 1024
_REFUSAL_GRACE: Final = 1.0
_CLOSING: Final = 1.0


# --- requests --------------------------------------------------------------------------------------------------------


class HttpClient:
    """Sends requests to one endpoint: ``async with HttpClient(endpoint, dialer) as client``.

    Every connection is closed when the block is left.

    Args:
        endpoint: The server that requests go to.
        dialer: Opens the streams.
        nursery: The nursery of tasks that watch connections until they are used again. It has to be there until the
            block is left. Without one, every answer closes its connection.
        idle_lifetime: Seconds for which a connection waits to be used again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        dialer: Dialer,
        *,
        nursery: trio.Nursery | None = None,
        idle_lifetime: float = math.inf,
    ) -> None:
        self.endpoint = endpoint
        url = urlsplit(endpoint.http_url(""))
        target = Target.of(url)
        self.server: str = target.shown
        self.proxy: str | None = proxy_on_the_way(dialer, url)
        self.streams: HttpStreams = HttpStreams(endpoint, dialer, target, nursery=nursery, idle_lifetime=idle_lifetime)

    @property
    def busy(self) -> bool:
        """Whether a connection of its own is open, be it kept only."""
        return bool(self.streams.open_connections)

    def retire(self) -> None:
        """Close the connections that are kept, and keep none any more. Returns at once; requests under way go on."""
        self.streams.retire()

    async def __aenter__(self) -> HttpClient:
        """Open nothing yet."""
        await trio.lowlevel.checkpoint_if_cancelled()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection, at once; see `aclose`."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection, at once: that waits for no peer, and cancellation does not reach it."""
        await self.streams.aclose()

    def post(
        self,
        path: str,
        text: str,
        *,
        accept: str = "application/json",
        connect: float = math.inf,
        on_sending: Callable[[], None] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> HttpRequest:
        """Prepare a POST of a JSON text; see `HttpRequest`."""
        return HttpRequest(
            self, "POST", path, text, accept=accept, connect=connect, on_sending=on_sending, on_sent=on_sent
        )

    def send(self, method: str, path: str, text: str | None, *, connect: float) -> HttpRequest:
        """Prepare a request with a JSON text, or none; see `HttpRequest`."""
        return HttpRequest(
            self, method, path, text, accept="application/json", connect=connect, on_sending=None, on_sent=None
        )


class Answer:
    """An answer whose head has come.

    Attributes:
        status: Its status.
        headers: Its fields, with lower-case names.
    """

    def __init__(self, status: int, headers: Sequence[tuple[str, str]], connection: HttpConnection) -> None:
        self.status: int = status
        self.headers: tuple[tuple[str, str], ...] = tuple(headers)
        self._connection = connection
        self._unpacker = unpacker(self.field("content-encoding"))
        self.released: bool = False

    def __repr__(self) -> str:
        return f"<Answer, status {self.status}>"

    def field(self, name: str) -> str:
        """The value of a field; of several the first, and empty where there is none."""
        return next((value for each, value in self.headers if each == name), "")

    @property
    def succeeds(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300

    async def read(self) -> bytes:
        """Return what came next of the body, all that is there, unpacked; nothing at its end.

        Raises:
            HttpFailed: there will be no more of it.

        If cancelled, the rest is lost.
        """
        if self._unpacker is None:
            return await self._connection.read()
        if isinstance(self._unpacker, Violated):
            raise HttpFailed(self._unpacker)
        while True:
            packed = b"" if self._unpacker.has_more else await self._connection.read()
            if not packed and not self._unpacker.has_more:
                if not self._unpacker.complete:
                    raise HttpFailed(Lost("the server ended its compressed answer before the end"))
                return b""
            try:
                data = self._unpacker.unpack(packed)
            except zlib.error:
                raise HttpFailed(Violated("the server sent a compressed answer that cannot be unpacked")) from None
            if data:
                return data

    def release(self) -> None:
        """Say that nothing more of it is wanted, so that its connection may be used again."""
        self.released = True


class HttpRequest:
    """One request: ``async with client.post(...) as answer`` sends it and waits for the answer's head.

    What sending it, or reading the answer, raises is explained by `failure`. When the block is left, the connection is
    closed, unless the answer was released; cancelling closes it at once.

    Args:
        client: The client that sends it.
        path: Below the endpoint's base URL.
        text: The JSON text.
        accept: The media type that is wanted.
        connect: Seconds for the key, name resolution, TCP and TLS together.
        on_sending: Called when a connection is there and the first byte is about to leave.
        on_sent: Called when the last byte was passed on.

    Attributes:
        sent: Whether the server may have read bytes of the request.
        status: The answer's status, None before it came.
        reused: Whether it went over a connection that had carried a request before.
        headers: The answer's fields, with lower-case names; empty before they came.
    """

    def __init__(
        self,
        client: HttpClient,
        method: str,
        path: str,
        text: str | None,
        *,
        accept: str,
        connect: float,
        on_sending: Callable[[], None] | None,
        on_sent: Callable[[], None] | None,
    ) -> None:
        self._client = client
        self._method = method
        self._path = path
        self._text = text
        self._accept = accept
        self._connect = connect
        self._connecting = trio.CancelScope()
        self._stage = "credentials"
        self._carriage = Carriage(on_stage=self._reach, on_sending=functools.partial(self._begin, on_sending))
        if on_sent is not None:
            self._carriage.on_sent = on_sent
        self._answer: Answer | None = None
        self.sent: bool = False
        self.status: int | None = None
        self.headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"<HttpRequest, status {self.status}>"

    @property
    def reused(self) -> bool:
        """Whether it went over a connection that had carried a request before."""
        return self._carriage.reused

    async def __aenter__(self) -> Answer:
        """Send the request and return the answer, of which only the head has come.

        Raises:
            Exception: what `failure` explains.

        If cancelled, the connection is closed.
        """
        client = self._client
        self._connecting.deadline = trio.current_time() + self._connect
        try:
            with self._connecting:
                try:
                    credentials = await resolve(client.endpoint)
                except Exception as error:
                    raise HttpFailed(undialled(self._stage, client.server, error)) from None
                self._stage = "tcp"
                request = httpx.Request(
                    self._method,
                    client.endpoint.http_url(self._path),
                    headers=self._headers(credentials),
                    content=self._text.encode() if self._text is not None else None,
                    extensions={"carriage": self._carriage},
                )
                return self._answered(await client.streams.handle_async_request(request))
        finally:
            self._carriage.forget()  # and be freed at once, with all that waits for it
        raise HttpFailed(too_slow(self._stage, client.server, self._connect, proxy=client.proxy))

    def _answered(self, response: httpx.Response) -> Answer:
        assert self._carriage.connection is not None
        fields = [(name.lower(), value) for name, value in response.headers.multi_items()]
        answer = self._answer = Answer(response.status_code, fields, self._carriage.connection)
        self.status, self.headers = answer.status, answer.headers
        return answer

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the connection back, or close it: that waits for no peer, and cancellation does not reach it."""
        assert self._answer is not None
        connection = self._carriage.connection
        assert connection is not None
        if exc is None and self._answer.released:
            await self._client.streams.release(connection)
        else:
            await self._client.streams.close(connection)

    def _headers(self, credentials: Credentials) -> list[tuple[bytes, bytes]]:
        own = {
            **({b"content-type": b"application/json"} if self._text is not None else {}),
            b"accept": self._accept.encode("ascii"),
            b"accept-encoding": b"identity",  # a small answer that unpacks to a large one would pass every limit
        }
        given = request_headers(self._client.endpoint, credentials)
        return [*own.items(), *((name, value) for name, value in given if name.lower() not in own)]

    def _reach(self, stage: str) -> None:
        self._stage = stage

    def _begin(self, on_sending: Callable[[], None] | None) -> None:
        self.sent = True
        self._connecting.deadline = math.inf
        if on_sending is not None:
            on_sending()

    def failure(self, error: Exception) -> Failure:
        """Say what an exception from sending the request, or from reading its answer, means."""
        match error:
            case HttpFailed():
                if error.unread:
                    self.sent = False
                return error.failure
            case httpx.InvalidURL():
                return Unreachable("http", "the URL cannot be used for HTTP")
            case _:
                return Broken(error)


# --- whole answers ---------------------------------------------------------------------------------------------------


async def whole_answer(post: HttpRequest, *, max_bytes: int) -> bytes | Failure:
    """Send the request and read its answer to the end.

    Args:
        post: The request.
        max_bytes: The largest answer that is accepted.

    Returns:
        The body of an answer whose status is one of success; or why there is none. A redirection is a refusal.

    If cancelled, the connection is closed at once.
    """
    try:
        async with post as answer:
            if not answer.succeeds:
                return refusal(answer.status, answer.headers, await read_refusal(answer))
            body, complete = await read_body(answer, max_bytes)
    except Exception as error:
        return post.failure(error)
    return body if complete else Violated(f"the server sent an answer over {max_bytes} bytes")


async def read_body(answer: Answer, max_bytes: int) -> tuple[bytes, bool]:
    """Read a body; return it, or its beginning and that it is not all."""
    body = bytearray()
    while part := await answer.read():
        body += part
        if len(body) > max_bytes:
            return bytes(body[:max_bytes]), False
    answer.release()
    return bytes(body), True


async def read_refusal(answer: Answer) -> bytes:
    """Read what comes promptly of a refusal's body: the status has said the most important already."""
    body = bytearray()
    with trio.move_on_after(_REFUSAL_GRACE), suppress(HttpFailed):  # what was understood so far is the answer
        while len(body) <= _MAX_REFUSAL and (part := await answer.read()):
            body += part
        answer.release()
    return bytes(body[:_MAX_REFUSAL])
