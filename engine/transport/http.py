"""HTTP over the same dialer as the WebSocket, through httpx.

Every stream that is opened belongs to the `HttpClient` that opened it, and every request to the `Post` that sends it;
both close what is theirs, at once. httpx's own timeouts are off: cancel scopes rule, and the caller's bound the whole.

httpx logs the URL of every request at INFO, and httpcore the header fields of every answer at DEBUG. Nothing is changed
about that here, because logging belongs to the program: give the handlers that may not show them a
`WithoutHttpDetails`.
"""

from __future__ import annotations

import functools
import logging
import math
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore
import httpx
import trio

from engine.protocol.failures import Broken, Failure, Lost, Unreachable, Violated
from engine.protocol.refusals import refusal
from engine.settings.endpoint import Endpoint
from engine.transport.credentials import Credentials, request_headers, resolve
from engine.transport.dial import Dialer, close_at_once, default_ssl_context, refused_by_tls, too_slow, undialled
from engine.transport.proxy import proxy_on_the_way

__all__ = ["HttpClient", "Post", "WithoutHttpDetails", "read_body", "read_refusal", "whole_answer"]

_SEND_BYTES: Final = 256 * 1024
_MAX_REFUSAL: Final = 16 * 1024
_REFUSAL_GRACE: Final = 1.0
_CLOSING: Final = 1.0


class WithoutHttpDetails(logging.Filter):
    """Keeps what httpx and httpcore log below WARNING, with URLs and header fields in it, from a handler.

    ``handler.addFilter(WithoutHttpDetails())``. On a logger it would do nothing for the loggers below.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may be shown."""
        return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in {"httpx", "httpcore"}


# --- streams ---------------------------------------------------------------------------------------------------------


class _DialError(Exception):
    """No stream came about."""

    def __init__(self, failure: Unreachable) -> None:
        super().__init__(failure.stage)
        self.failure = failure


class _Stream(httpcore.AsyncNetworkStream):
    """A Trio stream as httpcore wants it. Closing is forceful, so that httpcore's unbounded shields end at once."""

    def __init__(self, stream: trio.abc.Stream, backend: _Backend, server: str) -> None:
        self._stream = stream
        self._backend = backend
        self._server = server
        self._head = b""
        self.used = False
        self.ended = False
        self.broken: Exception | None = None  # httpcore drops the causes of its exceptions
        self.opener: trio.lowlevel.Task = trio.lowlevel.current_task()
        backend.streams.add(self)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - ignored
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.broken = error
            raise httpcore.ReadError from None
        self.ended = not data
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - ignored
        if not self.used:
            # The head goes out with the body. A server that hangs up in between would make the body's write fail,
            # and a TLS stream on which one has failed keeps what the server said to itself.
            self.used = True
            self._head = buffer
            return
        view = memoryview(buffer)
        first, self._head = self._head + buffer[:_SEND_BYTES], b""
        try:
            if first:
                await self._stream.send_all(first)
            for start in range(_SEND_BYTES, len(view), _SEND_BYTES):  # a TLS stream encrypts what it is given in one go
                await self._stream.send_all(view[start : start + _SEND_BYTES])
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.broken = error
            raise httpcore.WriteError from None

    async def aclose(self) -> None:
        self._backend.streams.discard(self)
        await close_at_once(self._stream)

    @trio.lowlevel.enable_ki_protection  # between a stream and its owner nobody would close it
    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - ignored
    ) -> _Stream:
        """Go over to TLS with the endpoint's context: httpcore's own would be changed by it, and ours is shared."""
        assert server_hostname is not None
        try:
            encrypted = await self._encrypted(server_hostname)
        except Exception as error:
            raise _DialError(undialled("tls", self._server, error)) from None
        self._backend.streams.discard(self)
        return _Stream(encrypted, self._backend, self._server)

    async def _encrypted(self, server_hostname: str) -> trio.abc.Stream:
        try:
            endpoint = self._backend.endpoint
            return await self._backend.dialer.start_tls(
                self._stream,
                ssl_context=endpoint.ssl_context or default_ssl_context(),
                server_hostname=endpoint.server_hostname or server_hostname,
            )
        except BaseException:  # an interrupt can come before the dialer's first instruction
            await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return None


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens streams with the dialer, and knows those that are open."""

    def __init__(self, endpoint: Endpoint, dialer: Dialer, server: str) -> None:
        self.endpoint = endpoint
        self.dialer = dialer
        self.server = server
        self.streams: set[_Stream] = set()

    @trio.lowlevel.enable_ki_protection  # as above
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - ignored
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        try:
            stream = await self.dialer.open_tcp(host, port)
        except Exception as error:
            raise _DialError(undialled("tcp", self.server, error)) from None
        return _Stream(stream, self, self.server)

    async def close_unused(self) -> None:
        """Close what this task opened and never wrote to.

        A request that is cancelled between its dial and its first byte leaves an open stream in httpcore's pool.
        """
        task = trio.lowlevel.current_task()
        for stream in [each for each in self.streams if each.opener is task and not each.used]:
            await stream.aclose()

    async def close(self) -> None:
        for stream in list(self.streams):
            await stream.aclose()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise httpx's exceptions for httpcore's, without their texts: those quote what the peer sent."""
    try:
        yield
    except httpcore.NetworkError:
        raise httpx.ReadError("") from None
    except httpcore.ProtocolError:
        raise httpx.RemoteProtocolError("") from None


class _RequestBody:
    """The body of a request, in one piece. httpx's and httpcore's own are generators, left half-read on a failure."""

    def __init__(self, content: bytes) -> None:
        self._rest = [content]

    def __aiter__(self) -> _RequestBody:
        return self

    async def __anext__(self) -> bytes:
        if not self._rest:
            raise StopAsyncIteration
        return self._rest.pop()


class _Body(httpx.AsyncByteStream):
    """The body of an answer. A plain iterator, so that there is one generator less to leave half-read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._parts: Any = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._parts = self._stream.__aiter__()
        return self

    async def __anext__(self) -> bytes:
        with _as_httpx():
            part: bytes = await self._parts.__anext__()
        return part

    async def aclose(self) -> None:
        await self._stream.aclose()


@functools.cache
def _unused_context() -> ssl.SSLContext:
    """What httpcore is given to play with: it sets the protocols that a context offers."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Transport(httpx.AsyncBaseTransport):
    """httpcore's pool without what httpx puts around it: environment, proxies, certificate bundles.

    No connection serves two requests. One that is used again may have been closed by the server a moment ago, and
    whether the request that meets this arrived, nobody knows. Nor is there anybody to close one that stays unused.
    """

    def __init__(self, backend: _Backend) -> None:
        self._backend = backend
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_unused_context(),
            max_connections=None,  # where requests wait for a connection, cancelled ones take theirs with them
            max_keepalive_connections=0,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            with _as_httpx():
                response = await self._pool.handle_async_request(
                    httpcore.Request(
                        method=request.method,
                        url=httpcore.URL(
                            scheme=request.url.raw_scheme,
                            host=request.url.raw_host,
                            port=request.url.port,
                            target=request.url.raw_path,
                        ),
                        headers=request.headers.raw,
                        content=_RequestBody(request.content),
                        extensions=request.extensions,
                    )
                )
        except BaseException:
            with trio.move_on_after(_CLOSING, shield=True):
                await self._backend.close_unused()
            raise
        # httpx would make a request of a redirection's target even if it may not follow it.
        headers = [(name, value) for name, value in response.headers if name.lower() != b"location"]
        return httpx.Response(response.status, headers=headers, stream=_Body(response.stream))

    async def aclose(self) -> None:
        await self._pool.aclose()


# --- requests --------------------------------------------------------------------------------------------------------


class HttpClient:
    """Sends requests to one endpoint: ``async with HttpClient(endpoint, dialer) as client``.

    Every stream it opened is closed when the block is left.
    """

    def __init__(self, endpoint: Endpoint, dialer: Dialer) -> None:
        self.endpoint = endpoint
        url = urlsplit(endpoint.http_url(""))
        self.server: str = url.netloc
        self.proxy: str | None = proxy_on_the_way(dialer, url)
        self._backend = _Backend(endpoint, dialer, self.server)
        self.httpx: httpx.AsyncClient = httpx.AsyncClient(
            transport=_Transport(self._backend),
            timeout=None,  # noqa: S113 - scopes bound every request
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none is kept: the WebSocket keeps none
        )

    @property
    def busy(self) -> bool:
        """Whether a stream of its own is open."""
        return bool(self._backend.streams)

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
        """Close every stream, at once; see `aclose`."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close every stream, at once: that waits for nobody, and cancellation does not reach it."""
        try:
            with trio.move_on_after(_CLOSING, shield=True):
                await self.httpx.aclose()
        finally:
            with trio.move_on_after(_CLOSING, shield=True):
                await self._backend.close()

    def post(
        self,
        path: str,
        text: str,
        *,
        accept: str = "application/json",
        connect: float = math.inf,
        sending: Callable[[], None] | None = None,
        sent: Callable[[], None] | None = None,
    ) -> Post:
        """Prepare a POST of a JSON text; see `Post`."""
        return Post(self, path, text, accept=accept, connect=connect, sending=sending, sent=sent)


class Post:
    """One POST of a JSON text: ``async with client.post(...) as response`` sends it and waits for the answer's head.

    Inside the block, read ``response.aiter_raw()`` to its end, or cancel a scope around the loop: breaking out of it
    would leave its generators suspended. What either raises, `failure` explains. When the block is left, the
    connection is closed; cancelling, too, closes it at once.

    Args:
        client: Who sends it.
        path: Below the endpoint's base URL.
        text: The JSON text.
        accept: The media type that is wanted.
        connect: Seconds for the key, name resolution, TCP and TLS together.
        sending: Called when a connection is there and the first byte is about to leave.
        sent: Called when the last byte was passed on.

    Attributes:
        sent: Whether bytes of the request may have left.
        status: The answer's status, None before it came.
    """

    def __init__(
        self,
        client: HttpClient,
        path: str,
        text: str,
        *,
        accept: str,
        connect: float,
        sending: Callable[[], None] | None,
        sent: Callable[[], None] | None,
    ) -> None:
        self._client = client
        self._on_sending = sending
        self._on_sent = sent
        self._path = path
        self._text = text
        self._accept = accept
        self._connect = connect
        self._connecting = trio.CancelScope()
        self._stage = "credentials"
        self._stream: _Stream | None = None
        self._response: httpx.Response | None = None
        self.sent: bool = False
        self.status: int | None = None

    def __repr__(self) -> str:
        return f"<Post, status {self.status}>"

    async def __aenter__(self) -> httpx.Response:
        """Send the request and return the answer, of which only the head has come.

        Raises:
            Exception: what `failure` explains.

        If cancelled, the connection is closed.
        """
        self._connecting.deadline = trio.current_time() + self._connect
        with self._connecting:
            try:
                credentials = await resolve(self._client.endpoint)
            except Exception as error:
                raise _DialError(undialled(self._stage, self._client.server, error)) from None
            self._stage = "tcp"
            request = self._client.httpx.build_request(
                "POST",
                self._client.endpoint.http_url(self._path),
                headers=self._headers(credentials),
                content=self._text.encode(),
                extensions={"trace": self._traced},
            )
            response = await self._client.httpx.send(request, stream=True)
            self._response = response
            self.status = response.status_code
            return response
        raise _DialError(too_slow(self._stage, self._client.server, self._connect, proxy=self._client.proxy))

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection, at once: that waits for nobody, and cancellation does not reach it."""
        assert self._response is not None
        with trio.move_on_after(_CLOSING, shield=True):
            await self._response.aclose()

    def _headers(self, credentials: Credentials) -> list[tuple[bytes, bytes]]:
        own = {
            b"content-type": b"application/json",
            b"accept": self._accept.encode("ascii"),
            b"accept-encoding": b"identity",  # a small answer that unpacks to a large one would pass every limit
        }
        given = request_headers(self._client.endpoint, credentials)
        return [*own.items(), *((name, value) for name, value in given if name.lower() not in own)]

    async def _traced(self, event: str, info: dict[str, Any]) -> None:
        """Note what httpcore is doing for this request."""
        match event:
            case "connection.start_tls.started":
                self._stage = "tls"
            case "connection.connect_tcp.complete" | "connection.start_tls.complete":
                self._stream = info["return_value"]
            case "http11.send_request_headers.started":
                self.sent = True
                self._connecting.deadline = math.inf
                if self._on_sending is not None:
                    self._on_sending()
            case "http11.send_request_body.complete":
                if self._on_sent is not None:
                    self._on_sent()

    def failure(self, error: Exception) -> Failure:
        """Say what an exception from sending the request, or from reading its answer, means."""
        match error:
            case _DialError():
                return error.failure
            case httpx.InvalidURL():
                return Unreachable("http", "the URL cannot be used for HTTP")
            case httpx.NetworkError():
                cause = self._stream.broken if self._stream is not None else None
                refused = refused_by_tls(cause) if self.status is None else None
                if refused is not None:
                    self.sent = False  # such a server has not read any of it
                    return refused
                return Lost("the connection broke before the answer had ended", cause=cause)
            case httpx.ProtocolError() if self._stream is not None and self._stream.ended:
                return Lost("the server closed the connection before the answer had ended")
            case httpx.ProtocolError() if self._response is None:
                return Unreachable("http", f"what answers at {self._client.server} does not speak HTTP/1.1")
            case httpx.ProtocolError():
                return Violated("the server broke HTTP within its answer")
            case _:
                return Broken(error)


# --- whole answers ---------------------------------------------------------------------------------------------------


async def whole_answer(post: Post, *, max_bytes: int) -> bytes | Failure:
    """Send the request and read its answer to the end.

    Args:
        post: The request.
        max_bytes: The largest answer that is accepted.

    Returns:
        The body of an answer whose status is one of success; or why there is none. A redirection is a refusal.

    If cancelled, the connection is closed at once.
    """
    try:
        async with post as response:
            if not response.is_success:
                return refusal(response.status_code, response.headers.multi_items(), await read_refusal(response))
            body, complete = await read_body(response, max_bytes)
    except Exception as error:
        return post.failure(error)
    return body if complete else Violated(f"the server sent an answer over {max_bytes} bytes")


# An interrupt inside the loops below would leave the generators that httpx reads through half-read.
@trio.lowlevel.enable_ki_protection
async def read_body(response: httpx.Response, max_bytes: int) -> tuple[bytes, bool]:
    """Read a body; return it, or its beginning and that it is not all."""
    body = bytearray()
    complete = True
    with trio.CancelScope() as scope:
        async for part in response.aiter_raw():
            if complete:
                body += part
            if len(body) > max_bytes:
                complete = False
                scope.cancel(reason="the answer is larger than it may be")  # the next read raises
    return bytes(body[:max_bytes]), complete


@trio.lowlevel.enable_ki_protection
async def read_refusal(response: httpx.Response) -> bytes:
    """Read what comes promptly of a refusal's body: the status has said the most important already."""
    body = bytearray()
    with trio.move_on_after(_REFUSAL_GRACE) as scope:
        try:
            async for part in response.aiter_raw():
                body += part
                if len(body) > _MAX_REFUSAL:
                    scope.cancel(reason="the refusal is long enough")
        except httpx.TransportError:
            pass  # what was understood so far is the answer
    return bytes(body[:_MAX_REFUSAL])
