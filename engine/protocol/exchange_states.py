"""The states of an exchange, as a table, and how far each means that the request got."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from engine.values.choices import Delivery

__all__ = ["AWAITING", "DELIVERIES", "TRANSITIONS", "ExchangeState"]


class ExchangeState(Enum):
    """The states of one request."""

    NOT_SENT = "not sent"
    """Nothing of it has left."""
    AMBIGUOUS = "ambiguous"
    """Bytes of it may have left, and nothing came back."""
    ACCEPTED = "accepted"
    """An event of its response has come, or of the successor that goes on in its place."""
    AWAITING_ACK = "awaiting the acknowledgement"
    """Its response has ended well, and the server has not said whether it takes the steer."""
    AWAITING_SUCCESSOR = "awaiting the successor"
    """Its response has ended well, and the server has to begin another one for the steer it took."""
    AWAITING_INPUT = "awaiting outputs"
    """Its response has ended well, and the steer waits at the server for the outputs of the client's calls: for its
    turn that is the end."""
    ENDED = "ended"
    """Its last response has ended, well or not."""
    REJECTED = "rejected"
    """The server refused it, before any response."""


TRANSITIONS: Final[Mapping[ExchangeState, Mapping[ExchangeState, str]]] = {
    ExchangeState.NOT_SENT: {
        ExchangeState.AMBIGUOUS: "dispatched",
    },
    ExchangeState.AMBIGUOUS: {
        ExchangeState.NOT_SENT: "withdrawn: its frame never left",
        ExchangeState.ACCEPTED: "an event of its response",
        ExchangeState.REJECTED: "refused, or not even read",
    },
    ExchangeState.ACCEPTED: {
        ExchangeState.AWAITING_ACK: "a good end, with a steer unanswered",
        ExchangeState.AWAITING_SUCCESSOR: "a good end, with a steer accepted",
        ExchangeState.AWAITING_INPUT: "a good end, with a steer that waits for outputs",
        ExchangeState.ENDED: "a terminal event, or an error after the beginning",
    },
    ExchangeState.AWAITING_ACK: {
        ExchangeState.ACCEPTED: "response.created of its successor",
        ExchangeState.AWAITING_SUCCESSOR: "response.steer.accepted",
        ExchangeState.AWAITING_INPUT: "response.steer.failed, and another steer waits",
        ExchangeState.ENDED: "response.steer.failed, or a failure",
    },
    ExchangeState.AWAITING_SUCCESSOR: {
        ExchangeState.ACCEPTED: "response.created of its successor",
        ExchangeState.AWAITING_INPUT: "response.steer.pending",
        ExchangeState.ENDED: "response.steer.failed, or a failure",
    },
    ExchangeState.AWAITING_INPUT: {},
    ExchangeState.ENDED: {},
    ExchangeState.REJECTED: {},
}
"""From each state, where it can go, and on what. Nothing else happens."""

DELIVERIES: Final[Mapping[ExchangeState, Delivery]] = {
    ExchangeState.NOT_SENT: Delivery.NOT_SENT,
    ExchangeState.AMBIGUOUS: Delivery.AMBIGUOUS,
    ExchangeState.ACCEPTED: Delivery.ACCEPTED,
    ExchangeState.AWAITING_ACK: Delivery.ACCEPTED,
    ExchangeState.AWAITING_SUCCESSOR: Delivery.ACCEPTED,
    ExchangeState.AWAITING_INPUT: Delivery.ACCEPTED,
    ExchangeState.ENDED: Delivery.ACCEPTED,
    ExchangeState.REJECTED: Delivery.REJECTED,
}
"""The delivery state, by state of the exchange."""

AWAITING: Final = frozenset({ExchangeState.AWAITING_ACK, ExchangeState.AWAITING_SUCCESSOR})
"""States between the end of one response and what the server does about a steer."""
