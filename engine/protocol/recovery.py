"""The remedies of failures: one table, and the little that has to be remembered of a turn to read it.

A row is a kind of failure; for each `Transport` it has remedies, tried in that order. The first that is still possible
is taken: each has a number of times per turn, fits into the time that is left, and keeps to what the `RetryPolicy`
allows. Where none is, the failure is raised. The first row that fits counts, so rows go from the particular to the
general.

One rule stands above the table. Where the server may have begun to work on the request, sending it again can do the
work, and cost the money, twice, even where it says that it failed: that is done in `Transport.AUTO` only, and
`RetryPolicy.resend_ambiguous` times at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from attrs import field, frozen

from engine.protocol.failures import (
    Expired,
    Failed,
    Failure,
    Lost,
    RequestRefused,
    TooLarge,
    Unreachable,
    UpgradeRefused,
    WebSocketBarred,
    to_error,
)
from engine.protocol.faults import TOO_MANY_REQUESTS, Fault, close_code
from engine.protocol.parent_words import is_about_the_parent
from engine.protocol.refusals import retry_after
from engine.settings.retry import ResolvedRetry
from engine.values.choices import Delivery, Transport

__all__ = [
    "TABLE",
    "Decision",
    "Dose",
    "Recovery",
    "Remedy",
    "Row",
    "Setback",
    "asked_wait",
    "counts_as_outage",
    "forbids_websocket",
    "lacks_lanes",
    "lacks_websocket",
]


class Remedy(Enum):
    """The remedies of a failure."""

    SAME_CONNECTION = "send it whole on the same connection"
    UNSEALED = "send it whole and without its sealed reasoning on the same connection"
    NEW_CONNECTION = "send it over a new connection"
    BACK_OFF = "wait a random part of the back-off, and as long as the server asks, then a new connection"
    RETRY_AFTER = "wait as long as the server asks, then again: over the same connection, if it refused in band"
    FRESH_KEY = "ask for a fresh key, then a new connection"
    FALL_BACK = "go over HTTP"


@frozen
class Dose:
    """A remedy, and how often one turn may take it for one row; None for as often as the `RetryPolicy` allows."""

    remedy: Remedy
    times: int | None = 1


@frozen
class Setback:
    """A failure of one attempt, and what is known of the attempt.

    Attributes:
        failure: The failure.
        transport: The transport of the attempt, `Transport.WEBSOCKET` or `Transport.SSE`.
        delivery: The request's delivery state.
        output_seen: Whether the turn has shown any of an answer.
        steered: Whether anything was added to it while it ran.
        continued: Whether the request named a response to continue.
        sealed: Whether the request has sealed reasoning.
        untyped: Whether the server is of a kind whose errors do not say what they are about.
    """

    failure: Failure
    transport: Transport = Transport.WEBSOCKET
    delivery: Delivery = Delivery.NOT_SENT
    output_seen: bool = False
    steered: bool = False
    continued: bool = False
    sealed: bool = False
    untyped: bool = False

    @property
    def fault(self) -> Fault | None:
        """The subject of the server's error; None where it is no error of the server's, or an unknown one."""
        return self.failure.fault if isinstance(self.failure, RequestRefused | Failed) else None

    @property
    def risky(self) -> bool:
        """Whether sending it again could do the work twice: it may have arrived, or the server had begun.

        A response that waited at the server for its turn, and then had nothing to continue, was not begun.
        """
        return self.delivery in {Delivery.AMBIGUOUS, Delivery.ACCEPTED} and self.fault is not Fault.CACHE_MISS


@frozen
class Row:
    """One kind of failure.

    Attributes:
        name: The row's name.
        fits: Whether a failure is of this kind.
        auto: The remedies in `Transport.AUTO`.
        websocket: The remedies in `Transport.WEBSOCKET`.
        sse: The remedies in `Transport.SSE`.
    """

    name: str
    fits: Callable[[Setback], bool] = field(repr=False)
    auto: tuple[Dose, ...] = ()
    websocket: tuple[Dose, ...] = ()
    sse: tuple[Dose, ...] = ()

    def doses(self, transport: Transport) -> tuple[Dose, ...]:
        """Return the remedies for a turn of that transport."""
        return {Transport.AUTO: self.auto, Transport.WEBSOCKET: self.websocket, Transport.SSE: self.sse}[transport]


def _refused(*statuses: int) -> Callable[[Setback], bool]:
    return lambda setback: isinstance(setback.failure, UpgradeRefused) and setback.failure.status in statuses


def _refused_by_a_broken_server(setback: Setback) -> bool:
    return isinstance(setback.failure, UpgradeRefused) and setback.failure.status >= 500


def _unreachable_over(transport: Transport) -> Callable[[Setback], bool]:
    return lambda setback: isinstance(setback.failure, Unreachable) and setback.transport is transport


def _without_a_key(setback: Setback) -> bool:
    failure = setback.failure
    return isinstance(failure, Unreachable) and "credentials" in {failure.stage, failure.during}


def _of(fault: Fault) -> Callable[[Setback], bool]:
    return lambda setback: setback.fault is fault


def _is_refusal(setback: Setback) -> bool:
    # Some servers refuse with a failed response that never began.
    return isinstance(setback.failure, RequestRefused) or setback.delivery is Delivery.REJECTED


def _forgotten(setback: Setback) -> bool:
    if not setback.continued:
        return False
    if setback.fault is Fault.CACHE_MISS:
        return True
    if setback.fault not in {None, Fault.REQUEST} or not _is_refusal(setback):
        return False
    return (setback.untyped and setback.fault is None) or _refuses_the_parent(setback.failure)


def _refuses_the_parent(failure: Failure) -> bool:
    match failure:
        case RequestRefused():
            return is_about_the_parent(failure.param, failure.message)
        case Failed():
            return is_about_the_parent(None, failure.message)
    return False


def _unreadable(setback: Setback) -> bool:
    return setback.fault is Fault.SEAL and setback.sealed and _is_refusal(setback)


def _nameless(setback: Setback) -> bool:
    return isinstance(setback.failure, RequestRefused) and setback.failure.param == "stream_id"


def _failed_server(setback: Setback) -> bool:
    if setback.fault is Fault.SERVER:
        return True
    # A response that began and failed for an unknown reason; a refusal without one is the request's.
    return isinstance(setback.failure, Failed) and setback.fault is None


def _refused_credentials_over_http(setback: Setback) -> bool:
    return setback.fault is Fault.CREDENTIALS and setback.transport is Transport.SSE


def _lost(setback: Setback) -> bool:
    return isinstance(setback.failure, Lost)


def _lost_unsent(setback: Setback) -> bool:
    return _lost(setback) and setback.delivery is Delivery.NOT_SENT


def _lost_for_good(setback: Setback) -> bool:
    return isinstance(setback.failure, Lost) and not close_code(setback.failure.close_code).curable


def _lost_to_its_size(setback: Setback) -> bool:
    return isinstance(setback.failure, Lost) and setback.failure.close_code == 1009


def _silent(setback: Setback) -> bool:
    return isinstance(setback.failure, Expired) and setback.failure.phase == "first_event"


_LANE_CODES: Final = frozenset({"invalid_stream_id", "websocket_stream_limit_reached"})
_RESEND: Final = (Dose(Remedy.SAME_CONNECTION),)
_RESEND_UNSEALED: Final = (Dose(Remedy.UNSEALED),)
_AGAIN: Final = (Dose(Remedy.NEW_CONNECTION),)
_AT_A_RISK: Final = (Dose(Remedy.NEW_CONNECTION, None),)
_BACK_OFF_ONCE: Final = (Dose(Remedy.BACK_OFF),)
_BACK_OFF: Final = (Dose(Remedy.BACK_OFF, None),)
_WHEN_ASKED: Final = (Dose(Remedy.RETRY_AFTER, 2),)
_FRESH_KEY: Final = (Dose(Remedy.FRESH_KEY),)
_HTTP: Final = (Dose(Remedy.FALL_BACK),)

TABLE: Final = (
    Row("anything after output", lambda setback: setback.output_seen),
    Row("anything after a steer", lambda setback: setback.steered),
    Row("content filter or policy", _of(Fault.CONTENT)),
    Row(
        "breaker open, or no WebSocket there", lambda setback: isinstance(setback.failure, WebSocketBarred), auto=_HTTP
    ),
    Row("the api_key function failed", _without_a_key),
    Row("upgrade 401", _refused(401), auto=_FRESH_KEY + _HTTP, websocket=_FRESH_KEY),
    Row("upgrade 404, 405, 426", _refused(404, 405, 426), auto=_HTTP),
    Row("upgrade 429", _refused(TOO_MANY_REQUESTS), auto=_WHEN_ASKED + _HTTP, websocket=_WHEN_ASKED),
    Row("upgrade 5xx", _refused_by_a_broken_server, auto=_HTTP, websocket=_BACK_OFF),
    Row(
        "upgrade 400, 403, or any other status", lambda setback: isinstance(setback.failure, UpgradeRefused), auto=_HTTP
    ),
    Row("no WebSocket came about", _unreachable_over(Transport.WEBSOCKET), auto=_HTTP, websocket=_BACK_OFF),
    Row("no HTTP connection came about", _unreachable_over(Transport.SSE), sse=_BACK_OFF),
    Row("request too large for the WebSocket", lambda setback: isinstance(setback.failure, TooLarge), auto=_HTTP),
    Row("previous_response_not_found", _forgotten, auto=_RESEND, websocket=_RESEND),
    Row(
        "invalid_encrypted_content",
        _unreadable,
        auto=_RESEND_UNSEALED,
        websocket=_RESEND_UNSEALED,
        sse=_RESEND_UNSEALED,
    ),
    Row("stream_id not known, or no name left", _nameless, auto=_AGAIN, websocket=_AGAIN),
    Row("websocket_connection_limit_reached", _of(Fault.CONNECTION_LIMIT), auto=_AGAIN, websocket=_AGAIN),
    Row("401 over HTTP", _refused_credentials_over_http, auto=_FRESH_KEY, sse=_FRESH_KEY),
    Row("quota used up", _of(Fault.QUOTA)),
    Row("rate limit", _of(Fault.RATE), auto=_WHEN_ASKED, websocket=_WHEN_ASKED, sse=_WHEN_ASKED),
    Row("the server failed", _failed_server, auto=_BACK_OFF_ONCE + _HTTP, websocket=_BACK_OFF_ONCE, sse=_BACK_OFF_ONCE),
    Row("any other refusal or failed response", lambda setback: isinstance(setback.failure, RequestRefused | Failed)),
    Row("closed with 1009", _lost_to_its_size, auto=_HTTP),
    Row("lost before anything was sent", _lost_unsent, auto=_HTTP, websocket=_BACK_OFF, sse=_BACK_OFF),
    Row("closed with a code that will come again", _lost_for_good, auto=_HTTP),
    Row("lost before output", _lost, auto=_AT_A_RISK),
    Row("no first event", _silent, auto=_HTTP),
    Row("anything else", lambda setback: True),
)
"""Every kind of failure. The last row fits all that is left: the caller left, a budget ran out, the session was
released or broke, the consumer fell behind, the peer broke the protocol, a reply does not have the format asked for."""


def lacks_websocket(failure: Failure) -> bool:
    """Whether a failure shows that the server has no WebSocket, and will have none in a minute either."""
    return isinstance(failure, UpgradeRefused) and failure.status in {404, 405, 426}


def forbids_websocket(failure: Failure | None) -> bool:
    """Whether a failure shows, if HTTP works with the same key, that the server has no WebSocket for it.

    Frameworks answer 403 where they have no route for an upgrade; so does a key without the right to one.
    """
    return isinstance(failure, UpgradeRefused) and failure.status == 403


def lacks_lanes(failure: Failure) -> bool:
    """Whether a failure shows that the server knows no ``stream_id``, rather than that it has no name left."""
    return isinstance(failure, RequestRefused) and failure.param == "stream_id" and failure.code not in _LANE_CODES


def counts_as_outage(failure: Failure) -> bool:
    """Whether a failure to connect counts for the breaker: the server was not there, or not able to serve."""
    if isinstance(failure, UpgradeRefused):
        return failure.status >= 500
    if not isinstance(failure, Unreachable) or failure.during == "credentials":
        return False
    return failure.stage in {"tcp", "timeout", "upgrade"}


# --- reading the table -----------------------------------------------------------------------------------------------


@frozen
class Decision:
    """The decision about a failure.

    Attributes:
        row: The name of the row that fits.
        remedy: The remedy; None to raise the failure.
        wait: Seconds to wait before.
    """

    row: str
    remedy: Remedy | None = None
    wait: float = 0.0


class Recovery:
    """The remedies that one turn has used so far.

    Args:
        transport: The transports that the turn may take.
        policy: A merged policy.
        renewable_key: Whether a fresh key can be had: `engine.Endpoint.api_key` is a function.

    Attributes:
        transport: The transport of the next attempt, `Transport.WEBSOCKET` or `Transport.SSE`.
        fallback_reason: The reason for going over to HTTP; None while it has not.
        fell_back_on: The failure for which it did.
        dispatches: The number of times that the request was sent.
        risked: The number of times that it was sent again although the server may have been at work on it.
    """

    def __init__(self, transport: Transport, policy: ResolvedRetry, *, renewable_key: bool) -> None:
        self.transport: Transport = Transport.SSE if transport is Transport.SSE else Transport.WEBSOCKET
        self.fallback_reason: str | None = None
        self.fell_back_on: Failure | None = None
        self.dispatches: int = 0
        self.risked: int = 0
        self._transport = transport
        self._policy = policy
        self._renewable_key = renewable_key
        self._taken: Counter[tuple[str, Remedy]] = Counter()

    def decide(self, setback: Setback, *, left: float) -> Decision:
        """Decide what to do about a failure, and take note of it.

        Args:
            setback: The failure.
            left: Seconds until the turn has to have had its first event.
        """
        row = next(row for row in TABLE if row.fits(setback))
        for dose in row.doses(self._transport):
            wait = self._wait(row, dose, setback)
            if wait is not None and (wait == 0 or wait < left) and left > 0:
                self._take(row, dose, setback)
                return Decision(row.name, dose.remedy, wait)
        return Decision(row.name)

    def _wait(self, row: Row, dose: Dose, setback: Setback) -> float | None:
        """Return how long to wait before the remedy; None where it is not possible any more."""
        taken = self._taken[row.name, dose.remedy]
        if dose.times is not None and taken >= dose.times:
            return None
        if self.dispatches >= self._policy.max_dispatches:
            return None
        if setback.risky and not self._may_risk:
            return None
        match dose.remedy:
            case Remedy.FALL_BACK if self.transport is Transport.SSE:
                return None
            case Remedy.FRESH_KEY if not self._renewable_key or self._refreshed:
                return None
            case Remedy.RETRY_AFTER:
                return asked_wait(setback.failure)
            case Remedy.BACK_OFF:
                waited = sum(times for (_, remedy), times in self._taken.items() if remedy is Remedy.BACK_OFF)
                if waited >= len(self._policy.back_off):
                    return None
                return max(self._policy.wait(waited), asked_wait(setback.failure) or 0.0)
        return 0.0

    @property
    def _may_risk(self) -> bool:
        return self._transport is Transport.AUTO and self.risked < self._policy.resend_ambiguous

    @property
    def _refreshed(self) -> bool:
        return any(remedy is Remedy.FRESH_KEY for (_, remedy), times in self._taken.items() if times)

    def _take(self, row: Row, dose: Dose, setback: Setback) -> None:
        self._taken[row.name, dose.remedy] += 1
        self.risked += setback.risky
        if dose.remedy is Remedy.FALL_BACK:
            self.transport = Transport.SSE
            self.fallback_reason = str(to_error(setback.failure))
            self.fell_back_on = setback.failure


def asked_wait(failure: Failure) -> float | None:
    """Return how long the server asks to wait; None where it does not say."""
    match failure:
        case RequestRefused() | Failed():
            return failure.retry_after
        case UpgradeRefused():
            fields: Mapping[str, str] = {name.lower(): value for name, value in reversed(failure.headers)}
            return retry_after(fields)
    return None
