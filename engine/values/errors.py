"""Every exception this library raises on purpose.

    EngineError
    ├── ConfigurationError        what you passed in is wrong; nothing was sent (also a ValueError)
    └── TurnError                 a turn did not produce its answer
        ├── SessionClosed         the session was released, or broke, before the turn ended
        ├── TurnTimeout           one of the turn's budgets ran out: ``phase`` names it
        ├── ConnectFailed         no usable connection could be opened
        ├── ConnectionLost        the connection ended before the response did
        ├── RequestRejected       the server refused the request
        │   ├── AuthenticationFailed
        │   ├── RateLimited
        │   └── SteerRejected     what a turn was steered with was not taken; the turn goes on
        ├── ResponseFailed        the server accepted the request, then the response failed
        ├── RequestTooLarge       the encoded request is over the limit; it was not sent
        ├── BufferOverflow        the consumer fell further behind than the turn's buffer allows
        └── ProtocolViolation     the peer broke the protocol

The text of these exceptions holds no prompts, replies, keys or header values, so it is safe to log. What the
server said in its own words is kept apart, in attributes such as `RequestRejected.message`, and stands in a text inside
`engine.show_content` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.values.choices import Delivery
from engine.values.problems import EngineError
from engine.values.shown import worded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.values.messages import AssistantMessage
    from engine.values.reports import TurnReport

__all__ = [
    "AuthenticationFailed",
    "BufferOverflow",
    "ConnectFailed",
    "ConnectionLost",
    "ProtocolViolation",
    "RateLimited",
    "RequestRejected",
    "RequestTooLarge",
    "ResponseFailed",
    "SessionClosed",
    "SteerRejected",
    "TurnError",
    "TurnTimeout",
]


class TurnError(EngineError):
    """A turn ended without its answer.

    Attributes:
        delivery: The request's delivery state when the turn failed.
        partial: The part of the answer that had arrived, or None when nothing had.
        report: The report on the turn: transport, attempts, seconds per phase. None if it never started.
    """

    delivery: Delivery
    partial: AssistantMessage | None
    report: TurnReport | None

    def __init__(
        self,
        message: str = "",
        *,
        delivery: Delivery = Delivery.NOT_SENT,
        partial: AssistantMessage | None = None,
        report: TurnReport | None = None,
    ) -> None:
        super().__init__(message)
        self.delivery = delivery
        self.partial = partial
        self.report = report


class SessionClosed(TurnError):
    """The session was released, its engine was left, or it broke, before the turn ended.

    When the session broke, ``__cause__`` is the exception that broke it.
    """


class TurnTimeout(TurnError):
    """A budget of the turn ran out. Not a `trio.TooSlowError`: that one always belongs to a scope of the caller's.

    Attributes:
        phase: The field of `engine.Timeouts` that expired, for example ``"first_event"``.
        seconds: That budget's length, in seconds.
    """

    phase: str
    seconds: float

    def __init__(self, message: str = "", *, phase: str = "", seconds: float = 0.0) -> None:
        super().__init__(message)
        self.phase = phase
        self.seconds = seconds


class ConnectFailed(TurnError):
    """No usable connection could be opened; the request was not sent.

    Attributes:
        status: HTTP status with which the server refused the WebSocket upgrade, None if it did not come to that.
        headers: The refusal's response headers, lower-case names, in order.
        body: As much of the refusal's body as arrived promptly, in bytes.
        stage: ``"credentials"`` (the key function), ``"dns"``, ``"proxy"`` (it was not reached, refused, or answered
            nonsense), ``"tcp"``, ``"tls"``, ``"upgrade"``, ``"http"`` (what answered does not speak it),
            ``"timeout"``, or ``"barred"`` (experience says that it would fail).
    """

    status: int | None
    headers: Sequence[tuple[str, str]]
    body: bytes
    stage: str

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        stage: str = "upgrade",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = body
        self.stage = stage


class ConnectionLost(TurnError):
    """The connection ended after the request may have been sent and before the response had ended.

    Attributes:
        close_code: The WebSocket close code (RFC 6455 section 7.4), 1006 when the peer sent no Close frame.
        close_reason: The peer's reason text, None if it gave none.
    """

    close_code: int
    close_reason: str | None

    def __init__(self, message: str = "", *, close_code: int = 1006, close_reason: str | None = None) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.close_reason = close_reason


class RequestRejected(TurnError):
    """The server refused the request before it began to answer.

    Attributes:
        status: HTTP status, or its equivalent in an in-band error; None when the server gave none.
        code: The server's error code, for example ``"model_not_found"``.
        type: The server's error type, for example ``"invalid_request_error"``.
        param: The request field the server complains of.
        message: The server's own words. They may quote your request: think before you log them.
        request_id: The server's id of the request, to tell its makers; None where it named none.
    """

    status: int | None
    code: str | None
    type: str | None
    param: str | None
    message: str
    request_id: str | None

    def __init__(
        self,
        text: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        type: str | None = None,  # noqa: A002 - the wire's own name, fixed by the public interface
        param: str | None = None,
        message: str = "",
        request_id: str | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return worded(super().__str__(), self.message)


class AuthenticationFailed(RequestRejected):
    """The server did not accept the credentials: a 401 at the upgrade, in band or over HTTP."""


class RateLimited(RequestRejected):
    """The server refused the request because of a rate limit or a spent quota.

    Attributes:
        retry_after: Seconds the server asks to wait, None when it did not say.
    """

    retry_after: float | None = None


class SteerRejected(RequestRejected):
    """The input that was to steer a turn was not taken. The turn itself goes on as if nothing had been said.

    ``delivery`` tells where it was refused: `Delivery.REJECTED`, by the server; `Delivery.NOT_SENT`, here, because the
    turn has ended, waits for its lane, goes over HTTP, or its server knows no steering, or because another task has
    left the turn's block. Where that happens after the input was sent and before the server has answered, it is
    `Delivery.AMBIGUOUS`. ``code`` is the server's word in all cases, for example ``"response_already_completed"`` or
    ``"steering_not_supported"``.
    """


class ResponseFailed(TurnError):
    """The server began the response and then gave up: it failed, was cancelled, or was cut by a content filter.

    Attributes:
        code: The server's error code, or the reason of an incomplete response.
        type: The server's error type, where it gave one.
        response_id: The id of the response that failed.
        message: The server's own words. They may quote your request: think before you log them.
    """

    code: str | None
    type: str | None
    response_id: str | None
    message: str

    def __init__(
        self,
        text: str = "",
        *,
        code: str | None = None,
        type: str | None = None,  # noqa: A002 - the wire's own name, as on RequestRejected
        response_id: str | None = None,
        message: str = "",
    ) -> None:
        super().__init__(text)
        self.code = code
        self.type = type
        self.response_id = response_id
        self.message = message

    def __str__(self) -> str:
        return worded(super().__str__(), self.message)


class RequestTooLarge(TurnError):
    """The encoded request is larger than the server is known to take; it was not sent.

    Attributes:
        size: Size of the encoded request, in bytes.
        limit: `engine.Limits.max_request_bytes`, in bytes.
    """

    size: int
    limit: int

    def __init__(self, message: str = "", *, size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class BufferOverflow(TurnError):
    """More events arrived than the turn's buffer holds while no reader took them.

    Raise `engine.Limits.buffer_events` or ``buffer_bytes``, read faster, or use `Turn.wait`, which does not buffer.
    """


class ProtocolViolation(TurnError):
    """The peer broke RFC 6455 or sent events no Responses server may send."""
