"""Opening byte streams: the one seam through which every transport, and every in-memory test, reaches a server."""

from __future__ import annotations

import errno
import functools
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import SplitResult

import trio
from attrs import frozen

from engine.protocol.failures import Unreachable
from engine.settings.endpoint import Endpoint
from engine.values.problems import ConfigurationError

__all__ = [
    "Dialer",
    "ProxyFailed",
    "Target",
    "TcpDialer",
    "close_at_once",
    "default_ssl_context",
    "network_problem",
    "open_stream",
    "refused_by_tls",
    "tls_problem",
    "too_slow",
    "undialled",
]


_TLS_PORT: Final = 443
_PLAIN_PORT: Final = 80


class Dialer(Protocol):
    """Opens streams. Both steps close what they opened, at once, when they are cancelled or fail."""

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Resolve ``host``, connect, and return the stream.

        Raises:
            OSError: nothing answered; `socket.gaierror` when the name is unknown.

        If cancelled, nothing stays open.
        """
        ...

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream:
        """Do the TLS handshake over ``stream`` and return the encrypted stream, which then owns it.

        Raises:
            trio.BrokenResourceError: the handshake failed; `ssl.SSLError` is its cause where TLS itself objected.

        If cancelled or failed, ``stream`` is closed.
        """
        ...


class TcpDialer:
    """Dials over the network."""

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        """Resolve and connect, trying several addresses as RFC 8305 suggests. If cancelled, nothing stays open."""
        return await trio.open_tcp_stream(host, port)

    async def start_tls(
        self, stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
    ) -> trio.abc.Stream:
        """Do the TLS handshake. If cancelled or failed, ``stream`` is closed."""
        return await tls_over(stream, ssl_context=ssl_context, server_hostname=server_hostname)


async def tls_over(
    stream: trio.abc.Stream, *, ssl_context: ssl.SSLContext, server_hostname: str
) -> trio.SSLStream[Any]:
    """Do the client's TLS handshake over any stream. If cancelled or failed, ``stream`` is closed.

    ``https_compatible``: closing then needs no answer from the peer. A truncated stream looks like a clean end, which
    is safe here because only a terminal event ends a response.
    """
    try:
        encrypted = trio.SSLStream(stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        await encrypted.do_handshake()
    except BaseException:
        await close_at_once(stream)
        raise
    return encrypted


@trio.lowlevel.enable_ki_protection
async def close_at_once(stream: trio.abc.Stream) -> None:
    """Close without a goodbye. Cancellation does not reach it, so that an exception on its way out stays what it is.

    In a cancelled task, a checkpoint in a ``finally`` clause puts a `trio.Cancelled` in the place of a
    KeyboardInterrupt, and then it is never learnt of.
    """
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        stream.socket.close()  # all that its aclose does, save for a checkpoint
        return
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


@functools.cache
def default_ssl_context() -> ssl.SSLContext:
    """The verifying context that connections share: making one takes tens of milliseconds and blocks the loop."""
    return ssl.create_default_context()


@frozen
class Target:
    """A server: where a URL leads.

    Attributes:
        host: Its name or address.
        port: Its port.
        tls: Whether it is reached under TLS.
        shown: Host, and port where that is not the default, as in a Host field and in texts.
        resource: Path and query of the URL.
    """

    host: str
    port: int
    tls: bool
    shown: str
    resource: str

    @classmethod
    def of(cls, url: SplitResult) -> Target:
        """The target of an ``http``, ``https``, ``ws`` or ``wss`` URL."""
        host = url.hostname or ""
        tls = url.scheme in {"https", "wss"}
        default = _TLS_PORT if tls else _PLAIN_PORT
        port = url.port or default
        named = f"[{host}]" if ":" in host else host
        return cls(
            host=host,
            port=port,
            tls=tls,
            shown=named if port == default else f"{named}:{port}",
            resource=(url.path or "/") + (f"?{url.query}" if url.query else ""),
        )


async def open_stream(
    dialer: Dialer, target: Target, endpoint: Endpoint, on_stage: Callable[[str], None]
) -> trio.abc.Stream:
    """Open a stream to a server, with TLS where its URL says so.

    Args:
        dialer: Opens it.
        target: The server.
        endpoint: The endpoint whose TLS context and server name are used.
        on_stage: Told of each step before it is taken: ``"tcp"``, ``"tls"``.

    Raises whatever the dialer does. If cancelled or failed, nothing stays open.
    """
    context = None
    if target.tls:
        on_stage("tls")
        context = endpoint.ssl_context or default_ssl_context()
    on_stage("tcp")
    stream = await dialer.open_tcp(target.host, target.port)
    if context is None:
        return stream
    on_stage("tls")
    try:
        name = endpoint.server_hostname or target.host
        return await dialer.start_tls(stream, ssl_context=context, server_hostname=name)
    except BaseException:  # an interrupt can come before the dialer's first instruction
        await close_at_once(stream)
        raise


# --- what can go wrong on the way to a server ------------------------------------------------------------------------


class ProxyFailed(OSError):
    """A proxy was not reached, refused, or answered nonsense. The text names it, and never its credentials."""


_STEPS: Final = {
    "credentials": "asking for the key of",
    "tcp": "connecting to",
    "tls": "the TLS handshake with",
    "upgrade": "the WebSocket upgrade at",
}


def undialled(stage: str, server: str, error: Exception) -> Unreachable:
    """Say why a server could not be reached.

    Args:
        stage: ``"credentials"``, ``"tcp"`` or ``"tls"``.
        server: The server as it may be shown: its host, and its port where that is not the default.
        error: The exception that the step raised.
    """
    if stage == "credentials":
        problem = "returned an unusable key" if isinstance(error, ConfigurationError) else "raised"
        return Unreachable(stage, f"the api_key function {problem}", error)
    if isinstance(error, ProxyFailed):
        return Unreachable("proxy", f"connecting to {server} failed: {error}", error.__cause__)
    if stage == "tcp" and isinstance(error, (socket.gaierror, UnicodeError)):
        return Unreachable("dns", f"the host name of {server} could not be resolved", error)
    if isinstance(error.__cause__, ssl.SSLError):
        cause = error.__cause__
        return Unreachable(stage, f"{_STEPS[stage]} {server} failed{tls_problem(cause)}", cause)
    problem = "failed" if isinstance(error, (OSError, trio.BrokenResourceError)) else "raised"
    return Unreachable(stage, f"{_STEPS[stage]} {server} {problem}{network_problem(error)}", error)


def network_problem(error: BaseException | None) -> str:
    """Return the system's words, as they go behind "failed"; empty where it said nothing that has a name.

    Where several addresses were tried, the first that has a name counts.
    """
    if error is None:
        return ""
    if isinstance(error, OSError) and error.errno in _PROBLEMS:
        return f": {_PROBLEMS[error.errno]}"
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((said for each in (*inner, error.__cause__) if (said := network_problem(each))), "")


_PROBLEMS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset by the peer",
    errno.EPIPE: "connection closed by the peer",
    errno.ETIMEDOUT: "connection timed out",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "the network cannot be reached",
    errno.EADDRNOTAVAIL: "no address to connect from",
    errno.EACCES: "not permitted",
    errno.EPERM: "not permitted",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}


def too_slow(stage: str, server: str, seconds: float, *, proxy: str | None = None) -> Unreachable:
    """Say which step took too long.

    Args:
        stage: As for `undialled`, or ``"upgrade"``.
        server: As for `undialled`.
        seconds: The most seconds that it could have taken.
        proxy: The proxy on the way, as it may be shown.
    """
    way = f" through the proxy {proxy}" if proxy is not None and stage == "tcp" else ""
    return Unreachable("timeout", f"{_STEPS[stage]} {server}{way} took longer than {seconds:g} s", during=stage)


_REFUSALS: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE", "DECRYPT_ERROR")
"""The words in the names of the alerts that answer a client's certificate, or its absence."""


def tls_problem(cause: BaseException) -> str:
    """Return TLS's objection, as it goes behind "failed": the verdict on a certificate, or the name of an alert."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f": the certificate was not accepted ({cause.verify_message.rstrip('.')})"
    reason = getattr(cause, "reason", None)
    if not isinstance(reason, str):
        return ""
    hint = ", the server asks for a client certificate" if "CERTIFICATE_REQUIRED" in reason else ""
    return f": {reason.lower().replace('_', ' ')}{hint}"


def refused_by_tls(error: BaseException | None) -> Unreachable | None:
    """Say what a stream's breaking means if the server ended the TLS handshake with it; None if it did not.

    To be asked only where nothing was received yet. In TLS 1.3 the client's handshake is done before the server has
    looked at its certificate: what the server thinks of it comes where its answer would (RFC 8446, figure 1).
    """
    cause = error.__cause__ if error is not None else None
    if not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLCertVerificationError):
        return None
    reason = cause.reason or ""
    if "ALERT" not in reason or not any(name in reason for name in _REFUSALS):
        return None
    return Unreachable("tls", f"the server refused the TLS handshake{tls_problem(cause)}", cause)
