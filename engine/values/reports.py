"""The report of one turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from engine.values.choices import Delivery, OnCancel, Transport
from engine.values.shown import size_only
from engine.values.usage import Usage

__all__ = ["PhaseSeconds", "TurnReport"]


@frozen(kw_only=True)
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


@frozen(kw_only=True)
class TurnReport:
    """The report of one turn.

    Attributes:
        transport: The transport of the request, `Transport.WEBSOCKET` or `Transport.SSE`, which is any request over
            HTTP; None if no connection was reached.
        model: The model that answered, as the server names it; the one that was asked for where it does not say.
        usage: Tokens, over all responses of the turn; None when the server reported none.
        lane: The lane's name; None for the session's own.
        attempts: The number of times that the request was handed to a transport: 1, unless it was sent again.
        connection_reused: Whether the connection had served an earlier request.
        continued: Whether only the new input was sent, on top of what the server already held.
        full_because: The reason for sending the whole input instead: the first differing field or item index.
        bytes_sent: Size of the request as sent, in bytes of UTF-8.
        bytes_full: Size it would have had with the whole input, in bytes of UTF-8.
        cached_tokens: Input tokens the server took from its cache; None if it did not say.
        fallback_reason: The reason for going to another transport; None if the turn did not.
        response_id: The server's id of the response, None before its first event; of several, of the newest.
        request_id: The server's id of the request, to tell its makers; None where it named none.
        headers: Fields of the answer's header about limits and processing (``x-ratelimit-…``, ``openai-…``), lower-case
            names; of the upgrade, where it went over a WebSocket.
        unapplied: The input that the turn was steered with and no response was given, as far as is known, as the wire's
            own items: the server gave it back, or said nothing more of it. Not what the server refused.
        on_cancel: The cancel policy as it was carried out, where the response was left before its end: `OnCancel.CLOSE`
            becomes `OnCancel.NEW_LANE` where turns of other lanes run on the connection, and a drain that took too long
            becomes `OnCancel.CLOSE`. None where it was not left, or there was nothing to decide.
        delivery: The request's delivery state.
        seconds: Time spent, by phase.
    """

    transport: Transport | None = None
    model: str | None = None
    usage: Usage | None = None
    lane: str | None = None
    attempts: int = 0
    connection_reused: bool = False
    continued: bool = False
    full_because: str | None = None
    bytes_sent: int = 0
    bytes_full: int = 0
    cached_tokens: int | None = None
    fallback_reason: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    headers: Mapping[str, str] = field(factory=dict, hash=False, repr=lambda headers: f"<{len(headers)}>")
    unapplied: tuple[Mapping[str, Any], ...] = field(default=(), repr=size_only, hash=False)
    on_cancel: OnCancel | None = None
    delivery: Delivery = Delivery.NOT_SENT
    seconds: PhaseSeconds = PhaseSeconds()
