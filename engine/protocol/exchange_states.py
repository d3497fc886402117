"""The states of an exchange, as a table, and how far each means that the request got."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from engine.values.choices import Delivery

__all__ = ["DELIVERIES", "TRANSITIONS", "ExchangeState"]


class ExchangeState(Enum):
    """The states of one request."""

    NOT_SENT = "not sent"
    """Nothing of it has left."""
    AMBIGUOUS = "ambiguous"
    """Bytes of it may have left, and nothing came back."""
    ACCEPTED = "accepted"
    """An event of its response has come."""
    ENDED = "ended"
    """Its response has ended, well or not."""
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
        ExchangeState.ENDED: "a terminal event, or an error after the beginning",
    },
    ExchangeState.ENDED: {},
    ExchangeState.REJECTED: {},
}
"""From each state, where it can go, and on what. Nothing else happens."""

DELIVERIES: Final[Mapping[ExchangeState, Delivery]] = {
    ExchangeState.NOT_SENT: Delivery.NOT_SENT,
    ExchangeState.AMBIGUOUS: Delivery.AMBIGUOUS,
    ExchangeState.ACCEPTED: Delivery.ACCEPTED,
    ExchangeState.ENDED: Delivery.ACCEPTED,
    ExchangeState.REJECTED: Delivery.REJECTED,
}
"""The delivery state, by state of the exchange."""
