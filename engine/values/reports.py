"""What happened to one turn."""

from __future__ import annotations

from attrs import frozen

from engine.values.choices import Delivery

__all__ = ["PhaseSeconds", "TurnReport"]


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
