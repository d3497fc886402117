"""The failures of a turn, as plain values, and the one place that turns each into its public exception.

A connection's failure is told to every turn that was on it, and each needs an exception of its own; a value can be
told any number of times.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

from attrs import field, frozen

from engine.protocol.faults import TOO_MANY_REQUESTS, Fault, fault_of
from engine.values.errors import (
    AuthenticationFailed,
    BufferOverflow,
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ResponseFailed,
    SessionClosed,
    SteerRejected,
    TurnError,
    TurnTimeout,
)
from engine.values.shown import token

__all__ = [
    "Broken",
    "Closed",
    "Expired",
    "Failed",
    "Failure",
    "Lost",
    "Mismatched",
    "Overflowed",
    "RequestRefused",
    "SteerRefused",
    "Throttled",
    "TooLarge",
    "Unreachable",
    "UpgradeRefused",
    "Violated",
    "WebSocketBarred",
    "to_error",
]


def _shown(said: str | None) -> str:
    """Stand in for a server's word in a repr, as `token` does in a text."""
    return "None" if said is None else repr(token(said))


@frozen
class WebSocketBarred:
    """No connection was tried: experience says that it would fail."""

    reason: str


@frozen
class Unreachable:
    """No connection came about: name resolution, TCP, TLS, or an upgrade that was never answered properly.

    Where the stage is ``"timeout"``, ``during`` is the one that took too long.
    """

    stage: str
    detail: str
    cause: BaseException | None = field(default=None, repr=False)
    during: str | None = None


@frozen
class UpgradeRefused:
    """The server answered the upgrade with something other than 101."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    said: RequestRefused | None = field(default=None, repr=False)  # its words, as far as the body has any


@frozen
class Lost:
    """The connection ended: a Close frame, a reset, the end of the stream, or a ping that stayed unanswered."""

    detail: str
    close_code: int = 1006
    close_reason: str | None = field(default=None, repr=False)
    cause: BaseException | None = field(default=None, repr=False)


@frozen
class Violated:
    """The peer broke RFC 6455 or the rules of the Responses API."""

    detail: str


@frozen
class RequestRefused:
    """The server refused the request, in band or over HTTP."""

    status: int | None
    code: str | None = field(repr=_shown)
    type: str | None = field(repr=_shown)
    param: str | None = field(repr=_shown)
    message: str = field(default="", repr=False)
    retry_after: float | None = None
    request_id: str | None = field(default=None, repr=_shown)

    @property
    def fault(self) -> Fault | None:
        """The subject of the refusal; None where nothing of it is known."""
        return fault_of(self.status, self.code, self.type)


@frozen
class SteerRefused:
    """Input for a response that runs was not taken: by the server, or because of what ``barred`` says, and not sent."""

    code: str | None = field(repr=_shown)
    type: str | None = field(default=None, repr=_shown)
    message: str = field(default="", repr=False)
    barred: str | None = None


@frozen
class Failed:
    """The server began the response and gave up."""

    code: str | None = field(repr=_shown)
    type: str | None = field(default=None, repr=_shown)
    response_id: str | None = field(default=None, repr=_shown)
    message: str = field(default="", repr=False)
    status: int | None = None
    retry_after: float | None = None

    @property
    def fault(self) -> Fault | None:
        """The subject of the failure; None where nothing of it is known."""
        return fault_of(self.status, self.code, self.type)


@frozen
class Throttled:
    """The server asks every turn to wait, longer than this one can. Nothing was sent."""

    seconds: float


@frozen
class Mismatched:
    """The response is complete, but its text is not the value that its format promised."""

    cause: BaseException = field(repr=False)
    response_id: str | None = field(default=None, repr=_shown)


@frozen
class Expired:
    """A budget of the turn ran out. Meanwhile so many events and frames came of which the turn was told nothing."""

    phase: str
    seconds: float
    unread: int = 0


@frozen
class TooLarge:
    """The encoded request is over the limit."""

    size: int
    limit: int


@frozen
class Overflowed:
    """The consumer fell too far behind."""

    events: int
    size: int


@frozen
class Closed:
    """The session was released or its engine left."""

    reason: str


@frozen
class Broken:
    """The session itself failed: a bug, here or in something it was given."""

    cause: BaseException = field(repr=False)


Failure: TypeAlias = (
    WebSocketBarred
    | Unreachable
    | UpgradeRefused
    | Lost
    | Violated
    | RequestRefused
    | SteerRefused
    | Failed
    | Throttled
    | Mismatched
    | Expired
    | TooLarge
    | Overflowed
    | Closed
    | Broken
)


def to_error(failure: Failure) -> TurnError:
    """Return a new exception for ``failure``; the texts hold no payload, key or header value."""
    match failure:
        case WebSocketBarred():
            error: TurnError = ConnectFailed(failure.reason, stage="barred")
        case Unreachable():
            error = ConnectFailed(failure.detail, stage=failure.stage)
            error.__cause__ = failure.cause
        case UpgradeRefused(status=401):
            error = _rejection(failure.said or RequestRefused(401, None, None, None), "refused the WebSocket upgrade")
        case UpgradeRefused():
            error = ConnectFailed(
                f"the server answered the WebSocket upgrade with status {failure.status}",
                status=failure.status,
                headers=failure.headers,
                body=failure.body,
                stage="upgrade",
            )
        case Lost():
            error = ConnectionLost(failure.detail, close_code=failure.close_code, close_reason=failure.close_reason)
            error.__cause__ = failure.cause
        case Violated():
            error = ProtocolViolation(failure.detail)
        case RequestRefused():
            error = _rejection(failure)
        case SteerRefused():
            said = _said(failure, code=failure.code, type=failure.type)
            error = SteerRejected(
                failure.barred or f"the server did not take what the turn was to be steered with ({said})",
                code=failure.code,
                type=failure.type,
                message=failure.message,
            )
        case Failed():
            error = ResponseFailed(
                f"the response failed ({_said(failure, status=failure.status, code=failure.code, type=failure.type)})",
                code=failure.code,
                type=failure.type,
                response_id=failure.response_id,
                message=failure.message,
            )
        case Throttled():
            error = RateLimited(
                f"the server limits the rate for {failure.seconds:.3g} s more, and the turn cannot wait that long",
                status=None,
                code=None,
                type=None,
                param=None,
                message="",
                request_id=None,
            )
            error.retry_after = failure.seconds
        case Mismatched():
            error = ResponseFailed(
                "the response does not have the format it was asked for (code: schema_mismatch)",
                code="schema_mismatch",
                response_id=failure.response_id,
            )
            error.__cause__ = failure.cause
        case Expired():
            error = TurnTimeout(
                f"the {failure.phase} budget of {failure.seconds:g} s ran out{_meanwhile(failure.unread)}",
                phase=failure.phase,
                seconds=failure.seconds,
            )
        case TooLarge():
            error = RequestTooLarge(
                f"the request has {failure.size} bytes, the limit is {failure.limit}",
                size=failure.size,
                limit=failure.limit,
            )
        case Overflowed():
            error = BufferOverflow(f"{failure.events} events with {failure.size} bytes of text were waiting to be read")
        case Closed():
            error = SessionClosed(failure.reason)
        case Broken():
            error = SessionClosed(f"the session broke: {type(failure.cause).__name__}")
            error.__cause__ = failure.cause
        case _:
            assert_never(failure)
    return error


def _rejection(failure: RequestRefused, did: str = "rejected the request") -> RequestRejected:
    fault = failure.fault
    if fault is Fault.CREDENTIALS:
        kind: type[RequestRejected] = AuthenticationFailed
    elif failure.status == TOO_MANY_REQUESTS or fault in {Fault.RATE, Fault.QUOTA}:
        kind = RateLimited
    else:
        kind = RequestRejected
    said = _said(failure, status=failure.status, code=failure.code, type=failure.type, param=failure.param)
    error = kind(
        f"the server {did} ({said})",
        status=failure.status,
        code=failure.code,
        type=failure.type,
        param=failure.param,
        message=failure.message,
        request_id=failure.request_id,
    )
    if isinstance(error, RateLimited):
        error.retry_after = failure.retry_after
    return error


def _said(failure: RequestRefused | SteerRefused | Failed, **words: int | str | None) -> str:
    """Return the server's reasons, as far as a text may tell them: its own words may quote the prompt."""
    named = [
        f"{name}: {word if isinstance(word, int) else token(word)}" for name, word in words.items() if word is not None
    ]
    return ", ".join(named) or ("see its message" if failure.message else "without saying why")


def _meanwhile(unread: int) -> str:
    """Say that a server that seemed silent was not."""
    if not unread:
        return ""
    what = "1 frame was" if unread == 1 else f"{unread} frames were"
    return f"; meanwhile {what} dropped or could not be read"
