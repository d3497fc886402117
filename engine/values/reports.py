"""What the library tells about its own work: delivery states, turn reports, statistics."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

__all__ = [
    "ConnectionStatistics",
    "Delivery",
    "EngineStatistics",
    "PhaseSeconds",
    "SessionStatistics",
    "TurnReport",
    "further",
]


class Delivery(Enum):
    """How far a request got. It decides whether sending it again could do the work, and cost the money, twice."""

    NOT_SENT = "not_sent"
    """No byte of it left this process."""
    AMBIGUOUS = "ambiguous"
    """Bytes may have left, and nothing of this turn came back: the server may or may not be working on it."""
    ACCEPTED = "accepted"
    """An event of this turn was seen."""
    REJECTED = "rejected"
    """The server refused it before starting."""


_FURTHER = (Delivery.NOT_SENT, Delivery.REJECTED, Delivery.AMBIGUOUS, Delivery.ACCEPTED)


def further(one: Delivery, other: Delivery) -> Delivery:
    """Of two attempts at one request, return how far the one got that could cost more."""
    return max(one, other, key=_FURTHER.index)


@frozen
class PhaseSeconds:
    """Seconds a turn spent in each phase; None for a phase it never reached the end of.

    Attributes:
        queue: From entering the block until the lane was granted.
        connect: From the grant until a connection was open; near zero when one was open already.
        send: From the hand-over of the frame until its last byte was passed to the operating system.
        first_event: From then until the first event of this turn.
        total: From entering the block until the turn ended.
    """

    queue: float | None = None
    connect: float | None = None
    send: float | None = None
    first_event: float | None = None
    total: float | None = None


@frozen
class TurnReport:
    """What happened to one turn.

    Attributes:
        transport: ``"websocket"`` or ``"sse"``, ``"http"`` for a compaction; None if no connection was reached.
        attempts: How often the request was handed to a transport: 1, unless it was sent again.
        connection_reused: Whether the connection had served an earlier request.
        continued: Whether only the new input was sent, on top of what the server already held.
        full_because: Why the whole input was sent instead: the first differing field or item index.
        bytes_sent: Size of the request as sent, in bytes of UTF-8.
        bytes_full: Size it would have had with the whole input, in bytes of UTF-8.
        cached_tokens: Input tokens the server took from its cache; None if it did not say.
        fallback_reason: Why the turn went to another transport; None if it did not.
        response_id: The server's id of the response, None before its first event.
        delivery: How far the request got.
        seconds: Time spent, by phase.
    """

    transport: str | None = None
    attempts: int = 0
    connection_reused: bool = False
    continued: bool = False
    full_because: str | None = None
    bytes_sent: int = 0
    bytes_full: int = 0
    cached_tokens: int | None = None
    fallback_reason: str | None = None
    response_id: str | None = None
    delivery: Delivery = Delivery.NOT_SENT
    seconds: PhaseSeconds = PhaseSeconds()


@frozen
class ConnectionStatistics:
    """One connection at one moment.

    Attributes:
        state: ``"dialling"``, ``"open"``, ``"retiring"`` or ``"closed"``.
        requests: Requests handed to it.
        in_flight: Requests whose response has not ended.
        bytes_sent: Bytes passed to the operating system, framing included.
        bytes_received: Bytes received, framing included.
        events: Frames decoded.
        dropped: Events dropped because they belonged to no live turn.
        malformed: Frames dropped because they were not a JSON object with a type.
        outbox_bytes: Bytes waiting to be sent.
        retired_because: Why it takes no new turns; None while it does.
    """

    state: str
    requests: int
    in_flight: int
    bytes_sent: int
    bytes_received: int
    events: int
    dropped: int
    malformed: int
    outbox_bytes: int
    retired_because: str | None


@frozen
class SessionStatistics:
    """One session at one moment.

    Attributes:
        queued: Turns waiting for a lane.
        active: Turns granted and not yet ended.
        turns_started: Turns granted so far.
        turns_completed: Of those, how many ended with an answer.
        turns_failed: Of those, how many ended with an error.
        turns_abandoned: Of those, how many were left before they ended.
        retries: How often a turn was tried again.
        fallbacks: How often a turn went over HTTP because WebSocket would not do.
        connections_opened: Connections opened so far.
        connections: The connections that exist now, the current one first.
    """

    queued: int
    active: int
    turns_started: int
    turns_completed: int
    turns_failed: int
    turns_abandoned: int
    retries: int
    fallbacks: int
    connections_opened: int
    connections: tuple[ConnectionStatistics, ...]


@frozen
class EngineStatistics:
    """One engine at one moment.

    Attributes:
        sessions: Statistics of each registered session, by id.
        closing: Sessions released whose sockets are still being closed.
    """

    sessions: dict[str, SessionStatistics]
    closing: int
