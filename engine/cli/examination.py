"""The steps of ``doctor`` on the way to a server, one after the other, each timed and judged.

The steps up to the upgrade are taken by hand, so that each is seen by itself. Those behind it are turns of an ordinary
session. A step that needs another one which failed is not tried. Answers are never shown, nor is the key.
"""

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
from attrs import frozen

from engine import Endpoint, RetryPolicy, Session, Timeouts, Transport, TurnReport, open_session
from engine.cli.errors import describe, one_line, redact
from engine.transport.credentials import request_headers, resolve
from engine.transport.dial import Dialer, ProxyFailed, close_at_once, default_ssl_context, tls_problem
from engine.transport.proxy import dialer_to, proxy_on_the_way
from engine.values.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionLost,
    RateLimited,
    RequestRejected,
    ResponseFailed,
    SteerRejected,
    TurnError,
    TurnTimeout,
)
from engine.values.problems import ConfigurationError

__all__ = ["NEEDS", "Examination", "Finding", "Trouble"]

NEEDS: Final[Mapping[str, str | None]] = {
    "proxy": None,
    "dns": "proxy",
    "tcp": "dns",
    "tls": "tcp",
    "upgrade": "tls",
    "first_event": "upgrade",
    "http": "tls",
    "keep_alive": "http",
    "lanes": "first_event",
    "steering": "first_event",
}
"""The steps in their order, each with the one without which it is not tried."""

_PROMPT: Final = "Reply with the word OK."
_LONG_PROMPT: Final = "Count from one to forty in words."
_DAY: Final = 86_400
_SOON: Final = 14 * _DAY
_RECEIVE_BYTES: Final = 16_384
_GRACE: Final = 1.0
"""Seconds that a step has beyond its patience, so that the budget which says most runs out first."""
_ONCE: Final = RetryPolicy(back_off=(), resend_ambiguous=0)

_STATUS_HINTS: Final = {
    401: "The key is not accepted: look at OPENAI_API_KEY, and whether it belongs to this server.",
    403: "The server, or a gateway before it, does not let this key or this address in.",
    404: "There is no WebSocket at this path: look at the base URL. Transport.AUTO goes over HTTP.",
    405: "There is no WebSocket at this path. Transport.AUTO goes over HTTP.",
    407: "The proxy asks for credentials: give them in its URL.",
    426: "The server has no WebSocket, or a proxy took the Upgrade header away. Transport.AUTO goes over HTTP.",
    429: "Too many requests for now; Retry-After says how long to wait.",
}


@frozen(kw_only=True)
class Finding:
    """The finding of one step.

    Attributes:
        step: Its name, one of `NEEDS`.
        ok: Whether it succeeded; None where it was not tried.
        seconds: Seconds that it took; None where it was not tried.
        verdict: The finding, in one line.
        hint: A remedy; None where nothing need be done.
    """

    step: str
    ok: bool | None
    seconds: float | None
    verdict: str
    hint: str | None = None


class Trouble(Exception):
    """A step failed. The text is its verdict.

    Attributes:
        hint: A remedy.
    """

    def __init__(self, verdict: str, hint: str | None = None) -> None:
        super().__init__(verdict)
        self.hint = hint


Verdict = str | tuple[str, str]
"""The finding of a step that succeeded, alone or with a hint."""


class Examination:
    """One look at a server.

    Args:
        endpoint: The server.
        model: The model to ask; a few tokens are spent.
        patience: Seconds each step may take.
        dialer: The way to the server; None for the network.
    """

    def __init__(self, endpoint: Endpoint, *, model: str, patience: float, dialer: Dialer | None = None) -> None:
        self._endpoint = endpoint
        self._model = model
        self._patience = patience
        self._dialer = dialer
        self._way: Dialer | None = None
        self._stream: trio.abc.Stream | None = None
        self._secret: str | None = endpoint.api_key if isinstance(endpoint.api_key, str) else None

    async def run(self, tell: Callable[[Finding], Awaitable[None]]) -> tuple[Finding, ...]:
        """Take all steps, telling each finding as it comes. If cancelled, every connection is closed."""
        findings: dict[str, Finding] = {}
        steps = self._network_steps()
        try:
            async with open_session(
                self._endpoint,
                model=self._model,
                dialer=self._dialer,
                retry=_ONCE,
                timeouts=Timeouts(
                    connect=self._patience,
                    first_event=self._patience,
                    idle=self._patience,
                    start=self._patience + _GRACE,
                    turn=self._patience + _GRACE,
                ),
            ) as session:
                steps |= self._session_steps(session)
                for step, needed in NEEDS.items():
                    if needed is not None and findings[needed].ok is not True:
                        finding = Finding(step=step, ok=None, seconds=None, verdict=f"not tried, it needs {needed}")
                    else:
                        finding = await self._take(step, steps[step])
                    findings[step] = finding
                    await tell(finding)
        except ConfigurationError as error:  # entering the session looks at the environment's proxies
            finding = Finding(
                step="proxy", ok=False, seconds=0.0, verdict=str(error), hint="Nothing is sent past a proxy."
            )
            findings["proxy"] = finding
            await tell(finding)
            for step in list(NEEDS)[1:]:
                findings[step] = Finding(step=step, ok=None, seconds=None, verdict="not tried, it needs proxy")
                await tell(findings[step])
        finally:
            await self._drop()
        return tuple(findings.values())

    async def _take(self, step: str, take: Callable[[], Awaitable[Verdict]]) -> Finding:
        began = trio.current_time()
        ok, hint = True, None
        try:
            with trio.fail_after(self._patience if step in _SLOW_HINTS else self._patience + 2 * _GRACE):
                found = await take()
            verdict, hint = (found, None) if isinstance(found, str) else found
        except trio.TooSlowError:
            ok, verdict, hint = False, f"took longer than {self._patience:g} s", _SLOW_HINTS.get(step)
        except Trouble as trouble:
            ok, verdict, hint = False, str(trouble), trouble.hint
        except TurnError as error:
            ok, verdict, hint = False, describe(error, self._secret), _hint(error)
        return Finding(
            step=step,
            ok=ok,
            seconds=trio.current_time() - began,
            verdict=one_line(redact(verdict, self._secret)),
            hint=hint,
        )

    # --- the network, by hand ---

    def _network_steps(self) -> dict[str, Callable[[], Awaitable[Verdict]]]:
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
        return None if self._way is None else proxy_on_the_way(self._way, self._url)

    async def _find_proxy(self) -> Verdict:
        await trio.lowlevel.checkpoint()
        self._way = dialer_to(self._endpoint, self._dialer)
        if self._proxy is None:
            set_but_unused = [name for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") if _environment(name)]
            return "none" + (f", although {set_but_unused[0]} is set" if set_but_unused else "")
        return f"through {self._proxy}"

    async def _resolve(self) -> Verdict:
        if self._dialer is not None:
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
                f"the name {host} could not be resolved ({_words(error)})",
                "Look at the spelling of the host, at the network, and at /etc/resolv.conf.",
            ) from None
        addresses = sorted({str(address[0]) for *_, address in found})
        return f"{host} has {len(addresses)} address{'es' if len(addresses) > 1 else ''}: {', '.join(addresses[:4])}"

    async def _connect(self) -> Verdict:
        assert self._way is not None
        try:
            self._stream = await self._way.open_tcp(self._host, self._port)
        except ProxyFailed as error:
            raise Trouble(str(error), "The proxy has to allow CONNECT to this host and port.") from None
        except (OSError, trio.BrokenResourceError) as error:
            raise Trouble(
                f"no connection to {self._host} port {self._port} ({_words(error)})",
                "Nothing listens there, or a firewall is in the way; a proxy may be needed (HTTPS_PROXY).",
            ) from None
        return f"connected to {self._host} port {self._port}" + (f" through {self._proxy}" if self._proxy else "")

    async def _encrypt(self) -> Verdict:
        if self._url.scheme != "wss":
            await trio.lowlevel.checkpoint()
            return "not used: the URL is not https"
        assert self._way is not None
        assert self._stream is not None
        stream, self._stream = self._stream, None
        try:
            self._stream = await self._way.start_tls(
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
        self._secret = credentials.key or self._secret
        try:
            answer = await _ask_for_websocket(self._stream, self._url, request_headers(self._endpoint, credentials))
        finally:
            await self._drop()
        status = answer.status_code
        if status == 101:
            return "the server speaks WebSocket"
        hint = _STATUS_HINTS.get(status)
        if hint is None:
            hint = "The server, or a gateway before it, is not able to serve." if status >= 500 else None
        raise Trouble(f"the server answered {status} instead of 101", hint)

    async def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await close_at_once(stream)

    # --- turns ---

    def _session_steps(self, session: Session) -> dict[str, Callable[[], Awaitable[Verdict]]]:
        async def first_event() -> Verdict:
            report = await _turn(session, Transport.WEBSOCKET)
            return _timed(report)

        async def http() -> Verdict:
            report = await _turn(session, Transport.SSE)
            return _timed(report)

        async def keep_alive() -> Verdict:
            report = await _turn(session, Transport.SSE)
            if report.connection_reused:
                return "the connection served a second request"
            return (
                "each request opens a connection of its own",
                "The server, or a proxy, closes HTTP connections: each request pays for a handshake.",
            )

        async def lanes() -> Verdict:
            return await _lanes(session, self._endpoint)

        async def steering() -> Verdict:
            return await _steering(session, self._endpoint)

        return {
            "first_event": first_event,
            "http": http,
            "keep_alive": keep_alive,
            "lanes": lanes,
            "steering": steering,
        }


# --- the upgrade -----------------------------------------------------------------------------------------------------


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


# --- turns -----------------------------------------------------------------------------------------------------------


async def _turn(session: Session, transport: Transport) -> TurnReport:
    async with session.turn(_PROMPT, transport=transport) as turn:
        await turn.wait()
    return turn.report


def _timed(report: TurnReport) -> str:
    seconds = report.seconds
    first = "" if seconds.first_event is None else f"first event after {seconds.first_event:.3f} s, "
    whole = "" if seconds.total is None else f"the answer after {seconds.total:.3f} s"
    return first + whole


async def _lanes(session: Session, endpoint: Endpoint) -> Verdict:
    """Ask twice at once, each on a lane of its own, and see whether one connection carries both."""
    if not endpoint.server.multiplexing:
        await trio.lowlevel.checkpoint()
        return "one response at a time: further lanes open connections of their own"
    before = session.statistics().connections_opened
    failures: list[TurnError] = []

    async def ask(name: str) -> None:
        try:
            await session.lane(name).ask(_PROMPT, transport=Transport.WEBSOCKET)
        except TurnError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for name in ("doctor-1", "doctor-2"):
            nursery.start_soon(ask, name)
    if failures:
        raise failures[0]
    opened = session.statistics().connections_opened - before
    if opened:
        return f"two lanes took {opened} further connection{'s' if opened > 1 else ''}"
    return "two answers at once over one connection"


async def _steering(session: Session, endpoint: Endpoint) -> Verdict:
    """Add input to a response that has just begun, and see what becomes of it."""
    server = endpoint.server
    if not server.steering:
        await trio.lowlevel.checkpoint()
        return f"not offered: servers of the profile {server.name} take no input for a response that runs"
    refusal: SteerRejected | None = None
    async with session.turn(_LONG_PROMPT, transport=Transport.WEBSOCKET) as turn:
        try:
            await turn.steer(_PROMPT)
        except SteerRejected as error:
            refusal = error
        await turn.wait()
    if refusal is None:
        applied = len(turn.messages) > 1
        return "a running response took further input" if applied else "further input was accepted, and came too late"
    match refusal.code:
        case "steering_not_supported":
            return "not offered for this model", "Models of the GPT-6 family can be steered."
        case "response_already_completed":
            return "not tried: the answer was over before"
    return f"further input was refused ({one_line(str(refusal))})"


# --- words -----------------------------------------------------------------------------------------------------------

_SLOW_HINTS: Final = {
    "dns": "The resolver does not answer: look at the network and at /etc/resolv.conf.",
    "tcp": "Packets are dropped on the way, as firewalls do; a proxy may be needed (HTTPS_PROXY).",
    "tls": "The server accepts connections and says nothing: is it a TLS server?",
    "upgrade": "A gateway holds the upgrade back. Transport.AUTO goes over HTTP after Timeouts.connect.",
}


def _hint(error: TurnError) -> str | None:
    """Return advice about a turn that failed."""
    match error:
        case AuthenticationFailed():
            return _STATUS_HINTS[401]
        case RateLimited():
            return "The account's limits or quota are used up for now."
        case RequestRejected():
            return "The server does not take this request: look at the model's name and the base URL."
        case ResponseFailed():
            return "The server began and gave up; the code says why."
        case TurnTimeout() | ConnectionLost():
            return "The server, or a proxy on the way, is silent or cuts connections."
        case ConnectFailed():
            return _STATUS_HINTS.get(error.status or 0)
        case _:
            return None


def _words(error: BaseException) -> str:
    """The reason at the bottom of an error: the operating system's own words for the first of several attempts."""
    words = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        words = getattr(cause, "strerror", None) or words
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__
    return words


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
