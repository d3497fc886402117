"""Reaching servers through proxies: HTTP CONNECT (RFC 9110 section 9.3.6), SOCKS5 (RFC 1928) and SOCKS4.

python-socks speaks the protocols. It neither dials nor closes here: it is given a stream that is open already, in the
place where it would take that of a proxy before this one. The stream is the dialer's that opened it, and belongs to
the caller of `ProxyDialer.open_tcp`, or is closed there.
"""

from __future__ import annotations

import math
import os
import re
import socket
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import SplitResult, urlsplit

import trio

from engine.settings.endpoint import Endpoint
from engine.settings.proxies import Proxy, environment_proxy, parse_proxy
from engine.transport.dial import (
    Dialer,
    ProxyFailed,
    TcpDialer,
    close_at_once,
    default_ssl_context,
    network_problem,
    tls_problem,
)

if TYPE_CHECKING:
    from python_socks import ProxyError

__all__ = ["ProxyDialer", "dialer_to", "proxy_on_the_way"]

_TLS_PORT: Final = 443
_PLAIN_PORT: Final = 80
_MAX_HEAD: Final = 16 * 1024
_RECEIVE_BYTES: Final = 4096
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")  # RFC 9112 section 2.2 admits a bare line feed
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5])[0-9]{2}[ \r\n]")

_CONNECT: Final = {"http", "https"}
_SOCKS_4: Final = {"socks4", "socks4a"}
_NAMES_RESOLVED_THERE: Final = {"socks4a", "socks5h"}  # as curl has it; CONNECT always sends the name

# Errors that python-socks tells without a code, where they are no nonsense of the proxy's.
_LOGINS: Final = {
    "No acceptable authentication methods were offered": "accepts none of the ways to log in that it was offered",
    "Username and password authentication failure": "did not accept the user name and password",
}


# --- which way to go -------------------------------------------------------------------------------------------------


def dialer_to(endpoint: Endpoint, dialer: Dialer | None) -> Dialer:
    """Return what opens streams to an endpoint: the dialer, behind the endpoint's proxy where there is one.

    Args:
        endpoint: The server to reach; its ``proxy`` decides.
        dialer: The dialer that was asked for. None for the network, and only then does the environment count: a
            caller's dialer decides where its streams lead.

    Raises:
        ConfigurationError: the environment names a proxy that cannot be used.
    """
    opener: Dialer = TcpDialer() if dialer is None else dialer
    servers = {_server(endpoint.websocket), _server(urlsplit(endpoint.http_url("")))}
    routes: dict[tuple[str, int], Proxy | None] = {}
    if isinstance(endpoint.proxy, str):
        proxy = parse_proxy(endpoint.proxy, where="proxy")
        routes = {(host, port): proxy for _, host, port in servers}
    elif endpoint.proxy is not None and dialer is None:
        environ = dict(os.environ)
        routes = {
            (host, port): environment_proxy(environ, tls=tls, host=host, port=port) for tls, host, port in servers
        }
    return ProxyDialer(opener, routes) if any(routes.values()) else opener


def _server(url: SplitResult) -> tuple[bool, str, int]:
    tls = url.scheme in {"https", "wss"}
    return tls, url.hostname or "", url.port or (_TLS_PORT if tls else _PLAIN_PORT)


def proxy_on_the_way(dialer: Dialer, url: SplitResult) -> str | None:
    """The proxy through which a dialer reaches a server, as it may be shown; None where there is none."""
    proxy = dialer.routes.get(_server(url)[1:]) if isinstance(dialer, ProxyDialer) else None
    return None if proxy is None else str(proxy)


class ProxyDialer:
    """Opens streams through proxies, over another dialer.

    Attributes:
        routes: The proxy for each server, by host and port; None where a server is reached directly.
    """

    def __init__(self, dialer: Dialer, routes: Mapping[tuple[str, int], Proxy | None]) -> None:
        self._dialer = dialer
        self.routes: Mapping[tuple[str, int], Proxy | None] = routes

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Open a tunnel to a server through its proxy, and return the stream inside.

        Raises:
            ProxyFailed: the proxy was not reached, refused, or answered nonsense.
            OSError: what the other dialer raises, for a server that is reached directly; `socket.gaierror` when the
                server's name is unknown and is not the proxy's to resolve.

        If cancelled or failed, nothing stays open.
        """
        if (host, port) not in self.routes:
            raise ProxyFailed("it was not decided through which proxy it is to be reached")  # better than directly
        proxy = self.routes[host, port]
        if proxy is None:
            return await self._dialer.open_tcp(host, port)
        stream = await self._reach(proxy)
        try:
            await _open_tunnel(stream, proxy, host, port)
        except BaseException:
            await close_at_once(stream)
            raise
        return stream

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream:
        """Do the TLS handshake with the server, inside the tunnel. If cancelled or failed, ``stream`` is closed."""
        return await self._dialer.start_tls(stream, ssl_context=ssl_context, server_hostname=server_hostname)

    async def _reach(self, proxy: Proxy) -> trio.abc.Stream:
        """Connect to the proxy itself, with TLS where its URL says so.

        The endpoint's own SSLContext is for the endpoint: the client certificate in it is nothing for a proxy to see.
        """
        try:
            stream = await self._dialer.open_tcp(proxy.host, proxy.port)
        except (socket.gaierror, UnicodeError) as error:
            raise ProxyFailed(f"the host name of the proxy {proxy} could not be resolved") from error
        except (OSError, trio.BrokenResourceError) as error:
            raise ProxyFailed(f"the proxy {proxy} could not be reached{network_problem(error)}") from error
        if proxy.scheme != "https":
            return stream
        try:
            return await self._dialer.start_tls(stream, ssl_context=default_ssl_context(), server_hostname=proxy.host)
        except trio.BrokenResourceError as error:
            cause = error.__cause__ or error
            raise ProxyFailed(f"the TLS handshake with the proxy {proxy} failed{tls_problem(cause)}") from cause
        except BaseException:  # an interrupt can come before the dialer's first instruction
            await close_at_once(stream)
            raise


# --- the handshake ---------------------------------------------------------------------------------------------------


async def _open_tunnel(stream: trio.abc.Stream, proxy: Proxy, host: str, port: int) -> None:
    """Have the proxy connect the stream to a server. What the proxy says in its own words is never shown."""
    from python_socks import ProxyError, ProxyType  # few programs have a proxy
    from python_socks.async_.trio.v2 import Proxy as Handshake

    http = proxy.scheme in _CONNECT
    handshake = Handshake(
        ProxyType.HTTP if http else ProxyType.SOCKS4 if proxy.scheme in _SOCKS_4 else ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        username=proxy.username,
        password=proxy.password or ("" if http else None),
        rdns=proxy.scheme in _NAMES_RESOLVED_THERE,
        forward=cast("Any", _Wire(stream, proxy)),
    )
    target = f"[{host}]" if http and ":" in host else host
    try:
        await handshake.connect(target, port, timeout=math.inf)  # None would be a minute: the caller's scope rules
    except ProxyError as error:
        raise ProxyFailed(f"the proxy {proxy} {_refusal(error, http=http)}") from None
    except (ProxyFailed, socket.gaierror):
        raise
    except Exception:  # it could not read the answer, and may quote it
        raise ProxyFailed(f"the proxy {proxy} gave an answer that makes no sense") from None


def _refusal(error: ProxyError, *, http: bool) -> str:
    """Return a proxy's answer, in words that are not its own."""
    code = error.error_code
    if code is None:
        return _LOGINS.get(str(error), "gave an answer that makes no sense")
    if not http:
        return f"refused: {str(error).lower()}"  # from the library's table, RFC 1928 section 6
    try:
        return f"answered CONNECT with status {code} ({HTTPStatus(code).phrase})"
    except ValueError:
        return f"answered CONNECT with status {code}"


class _Wire:
    """The stream to a proxy, as python-socks wants both a proxy before this one and the stream that one opens."""

    def __init__(self, stream: trio.abc.Stream, proxy: Proxy) -> None:
        self._stream = stream
        self._proxy = proxy

    async def connect(self, dest_host: str, dest_port: int) -> _Wire:
        """Hand over the stream, which leads to the proxy already."""
        await trio.lowlevel.checkpoint_if_cancelled()
        return self

    async def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._broken() from error

    async def read(self, max_bytes: int = 0) -> bytes:
        """Return the head of the answer to a CONNECT, whole.

        python-socks takes what one read brings for the head. The rest would be taken for the server's first words.
        """
        received = bytearray()
        while True:
            while (end := _HEAD_END.search(received)) is None:
                if len(received) > _MAX_HEAD or not b"HTTP/".startswith(received[:5]):
                    raise ProxyFailed(f"the proxy {self._proxy} does not answer in HTTP")
                received += await self._receive(_RECEIVE_BYTES)
            status = _STATUS_LINE.match(received)
            if status is None:
                raise ProxyFailed(f"the proxy {self._proxy} does not answer in HTTP")
            if status[1] != b"1":
                break
            del received[: end.end()]  # an interim answer: the real one follows
        if status[1] == b"2" and len(received) > end.end():
            # Servers wait to be spoken to, so only the proxy can have said this.
            raise ProxyFailed(f"the proxy {self._proxy} sent more than the answer to CONNECT")
        return bytes(received[: end.end()])

    async def read_exactly(self, n: int) -> bytes:
        """Return the next ``n`` bytes, and leave what follows in the stream."""
        received = bytearray()
        while len(received) < n:
            received += await self._receive(n - len(received))
        return bytes(received)

    async def close(self) -> None:
        """Close at once, as python-socks asks for after a failure."""
        await close_at_once(self._stream)

    async def _receive(self, max_bytes: int) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._broken() from error
        if not data:
            raise ProxyFailed(f"the proxy {self._proxy} closed the connection before it had answered")
        return data

    def _broken(self) -> ProxyFailed:
        return ProxyFailed(f"the connection to the proxy {self._proxy} broke before it had answered")
