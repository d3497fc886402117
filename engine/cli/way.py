"""The way to a server, step by step and by hand: proxy, name, connection, TLS, upgrade."""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import SplitResult

import h11
import trio

from engine import Endpoint
from engine.cli.findings import STATUS_HINTS, Trouble, Verdict, words_of
from engine.transport.credentials import request_headers, resolve
from engine.transport.dial import Dialer, ProxyFailed, close_at_once, default_ssl_context, tls_problem
from engine.transport.proxy import dialer_to, proxy_on_the_way

__all__ = ["Way"]

_DAY: Final = 86_400
_SOON: Final = 14 * _DAY
_RECEIVE_BYTES: Final = 16_384


class Way:
    """The way to one server, and how far it has been gone.

    Args:
        endpoint: The server.
        dialer: The dialer to take; None for the network.

    Attributes:
        secret: The key, once it is known.
    """

    def __init__(self, endpoint: Endpoint, dialer: Dialer | None = None) -> None:
        self._endpoint = endpoint
        self._given = dialer
        self._dialer: Dialer | None = None
        self._stream: trio.abc.Stream | None = None
        self.secret: str | None = endpoint.api_key if isinstance(endpoint.api_key, str) else None

    def steps(self) -> dict[str, Callable[[], Awaitable[Verdict]]]:
        """The steps by name, in their order."""
        return {
            "proxy": self._find_proxy,
            "dns": self._resolve,
            "tcp": self._connect,
            "tls": self._encrypt,
            "upgrade": self._upgrade,
        }

    @property
    def _url(self) -> SplitResult:
        return self._endpoint.websocket

    @property
    def _host(self) -> str:
        return self._url.hostname or ""

    @property
    def _port(self) -> int:
        return self._url.port or (443 if self._url.scheme == "wss" else 80)

    @property
    def _proxy(self) -> str | None:
        return None if self._dialer is None else proxy_on_the_way(self._dialer, self._url)

    async def _find_proxy(self) -> Verdict:
        await trio.lowlevel.checkpoint()
        self._dialer = dialer_to(self._endpoint, self._given)
        if self._proxy is None:
            set_but_unused = [name for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") if _environment(name)]
            return "none" + (f", although {set_but_unused[0]} is set" if set_but_unused else "")
        return f"through {self._proxy}"

    async def _resolve(self) -> Verdict:
        if self._given is not None:
            await trio.lowlevel.checkpoint()
            return "the dialer's own affair"
        host = self._host if self._proxy is None else self._proxy.rpartition(":")[0].strip("[]")
        if _is_address(host):
            await trio.lowlevel.checkpoint()
            return f"{host} is an address"
        try:
            found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Trouble(
                f"the name {host} could not be resolved ({words_of(error)})",
                "Look at the spelling of the host, at the network, and at /etc/resolv.conf.",
            ) from None
        addresses = sorted({str(address[0]) for *_, address in found})
        return f"{host} has {len(addresses)} address{'es' if len(addresses) > 1 else ''}: {', '.join(addresses[:4])}"

    async def _connect(self) -> Verdict:
        assert self._dialer is not None
        try:
            self._stream = await self._dialer.open_tcp(self._host, self._port)
        except ProxyFailed as error:
            raise Trouble(str(error), "The proxy has to allow CONNECT to this host and port.") from None
        except (OSError, trio.BrokenResourceError) as error:
            raise Trouble(
                f"no connection to {self._host} port {self._port} ({words_of(error)})",
                "Nothing listens there, or a firewall is in the way; a proxy may be needed (HTTPS_PROXY).",
            ) from None
        return f"connected to {self._host} port {self._port}" + (f" through {self._proxy}" if self._proxy else "")

    async def _encrypt(self) -> Verdict:
        if self._url.scheme != "wss":
            await trio.lowlevel.checkpoint()
            return "not used: the URL is not https"
        assert self._dialer is not None
        assert self._stream is not None
        stream, self._stream = self._stream, None
        try:
            self._stream = await self._dialer.start_tls(
                stream,
                ssl_context=self._endpoint.ssl_context or default_ssl_context(),
                server_hostname=self._endpoint.server_hostname or self._host,
            )
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            words = tls_problem(cause) if cause is not None else ""
            raise Trouble(f"the handshake failed{words}", _certificate_hint(cause)) from None
        return _certificate_verdict(self._stream)

    async def _upgrade(self) -> Verdict:
        assert self._stream is not None
        try:
            credentials = await resolve(self._endpoint)
        except Exception as error:  # the caller's function may raise anything
            raise Trouble(f"the function for the key or the header fields failed ({type(error).__name__})") from None
        self.secret = credentials.key or self.secret
        try:
            answer = await _ask_for_websocket(self._stream, self._url, request_headers(self._endpoint, credentials))
        finally:
            await self.drop()
        status = answer.status_code
        if status == 101:
            return "the server speaks WebSocket"
        hint = STATUS_HINTS.get(status)
        if hint is None:
            hint = "The server, or a gateway before it, is not able to serve." if status >= 500 else None
        raise Trouble(f"the server answered {status} instead of 101", hint)

    async def drop(self) -> None:
        """Close what is open."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await close_at_once(stream)


async def _ask_for_websocket(
    stream: trio.abc.Stream, url: SplitResult, fields: list[tuple[bytes, bytes]]
) -> h11.Response | h11.InformationalResponse:
    """Send an upgrade (RFC 6455 section 4.1) and return the head of the answer."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_RECEIVE_BYTES)
    target = url.path + (f"?{url.query}" if url.query else "")
    host = url.netloc.rpartition("@")[2]
    upgrade = [
        (b"Host", host.encode("ascii")),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", base64.b64encode(os.urandom(16))),
    ]
    request = connection.send(h11.Request(method="GET", target=target, headers=upgrade + fields))
    assert request is not None
    try:
        await stream.send_all(request)
        received = b""
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                return event
            if event is h11.NEED_DATA:
                data = await stream.receive_some(_RECEIVE_BYTES)
                if not data:
                    raise h11.RemoteProtocolError("") if received[:5] not in b"HTTP/" else trio.BrokenResourceError
                received = received or bytes(data)
                connection.receive_data(bytes(data))
    except h11.RemoteProtocolError:
        raise Trouble(
            "the answer to the upgrade is no HTTP",
            "Something else listens there, or the scheme is wrong: http for https, or the other way round.",
        ) from None
    except (trio.BrokenResourceError, OSError):
        raise Trouble(
            "the connection broke during the upgrade",
            "A gateway may refuse WebSockets without saying so. Transport.AUTO goes over HTTP.",
        ) from None


# --- words ---------------------------------------------------------------------------------------------------------


def _environment(name: str) -> str:
    return os.environ.get(name.lower()) or os.environ.get(name) or ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _certificate_hint(cause: BaseException | None) -> str | None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            "If a proxy of the company's inspects TLS, or the server has an authority of its own, give that authority: "
            "Endpoint(ssl_context=...), or SSL_CERT_FILE."
        )
    return "Is it a TLS server, and on this port? The scheme http:// is for servers without TLS."


def _certificate_verdict(stream: trio.abc.Stream) -> Verdict:
    """Say which version of TLS, whom the certificate is for, who signed it, and for how long it is valid."""
    if not isinstance(stream, trio.SSLStream):
        return "encrypted by the dialer"
    version = stream.version() or "TLS"
    certificate = stream.getpeercert() or {}
    subject = _name(certificate.get("subject"), "commonName") or _first_alternative(certificate)
    issuer = _name(certificate.get("issuer"), "organizationName") or _name(certificate.get("issuer"), "commonName")
    text = f"{version}, certificate for {subject or 'a name that it does not give'}"
    if issuer:
        text += f", signed by {issuer}"
    if "notAfter" in certificate:
        left = ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()
        text += f", valid for {max(0, int(left // _DAY))} more days"
        if left < _SOON:
            return text, "The certificate ends soon."
    return text


def _name(parts: object, key: str) -> str | None:
    if isinstance(parts, tuple):
        for part in parts:
            for name, value in part:
                if name == key:
                    return str(value)
    return None


def _first_alternative(certificate: Mapping[str, object]) -> str | None:
    names = certificate.get("subjectAltName")
    return str(names[0][1]) if isinstance(names, tuple) and names else None
