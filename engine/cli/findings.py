"""The findings of ``doctor``: the steps by name, the finding of one, and advice about what went wrong."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from engine.values.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionLost,
    RateLimited,
    RequestRejected,
    ResponseFailed,
    TurnError,
    TurnTimeout,
)

__all__ = ["NEEDS", "SLOW_HINTS", "STATUS_HINTS", "Finding", "Trouble", "Verdict", "advice", "words_of"]

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

STATUS_HINTS: Final = {
    401: "The key is not accepted: look at OPENAI_API_KEY, and whether it belongs to this server.",
    403: "The server, or a gateway before it, does not let this key or this address in.",
    404: "There is no WebSocket at this path: look at the base URL. Transport.AUTO goes over HTTP.",
    405: "There is no WebSocket at this path. Transport.AUTO goes over HTTP.",
    407: "The proxy asks for credentials: give them in its URL.",
    426: "The server has no WebSocket, or a proxy took the Upgrade header away. Transport.AUTO goes over HTTP.",
    429: "Too many requests for now; Retry-After says how long to wait.",
}


SLOW_HINTS: Final = {
    "dns": "The resolver does not answer: look at the network and at /etc/resolv.conf.",
    "tcp": "Packets are dropped on the way, as firewalls do; a proxy may be needed (HTTPS_PROXY).",
    "tls": "The server accepts connections and says nothing: is it a TLS server?",
    "upgrade": "A gateway holds the upgrade back. Transport.AUTO goes over HTTP after Timeouts.connect.",
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


def advice(error: TurnError) -> str | None:
    """Return advice about a turn that failed."""
    match error:
        case AuthenticationFailed():
            return STATUS_HINTS[401]
        case RateLimited():
            return "The account's limits or quota are used up for now."
        case RequestRejected():
            return "The server does not take this request: look at the model's name and the base URL."
        case ResponseFailed():
            return "The server began and gave up; the code says why."
        case TurnTimeout() | ConnectionLost():
            return "The server, or a proxy on the way, is silent or cuts connections."
        case ConnectFailed():
            return STATUS_HINTS.get(error.status or 0)
        case _:
            return None


def words_of(error: BaseException) -> str:
    """The reason at the bottom of an error: the operating system's own words for the first of several attempts."""
    words = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            # Trio writes the address into the words; OpenSSL and the resolver have numbers of their own.
            own = isinstance(cause, (ssl.SSLError, socket.gaierror)) or cause.errno is None
            words = (cause.strerror if own else os.strerror(cause.errno or 0)) or words
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__
    return words
