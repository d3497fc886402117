"""Values of which there is a fixed set: how a turn travels, what leaving it does, how far its request got."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any, Final, Literal, TypeAlias, TypeVar

from engine.values.problems import ConfigurationError
from engine.values.type_names import kind_of

__all__ = [
    "UNSET",
    "Delivery",
    "OnCancel",
    "OnCancelName",
    "Transport",
    "TransportName",
    "Unset",
    "choice",
    "further",
]


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""Not given: the next outer level decides (turn, then session, then engine, then the default)."""


class Transport(StrEnum):
    """The transport of a turn. Its strings are taken wherever it is: ``transport="sse"``."""

    AUTO = "auto"
    """WebSocket, and HTTP with server-sent events where that fails safely."""
    WEBSOCKET = "websocket"
    """WebSocket only."""
    SSE = "sse"
    """HTTP with server-sent events only."""


class OnCancel(StrEnum):
    """The treatment of the connection when a turn is left before its response has ended.

    Its strings are taken wherever it is: ``on_cancel="drain"``.
    """

    CLOSE = "close"
    """Close it and dial its replacement at once."""
    DRAIN = "drain"
    """Read the rest of the response and throw it away, within the ``drain`` budget; then as `CLOSE`."""
    NEW_LANE = "new_lane"
    """Leave it to itself and go on over a fresh lane of the same connection; as `CLOSE` where there are no lanes."""


class Delivery(StrEnum):
    """The delivery of a request. It decides whether sending it again could do the work, and cost the money, twice."""

    NOT_SENT = "not_sent"
    """No byte of it left this process."""
    AMBIGUOUS = "ambiguous"
    """Bytes may have left, and nothing of this turn came back: the server may or may not be working on it."""
    ACCEPTED = "accepted"
    """An event of this turn was seen."""
    REJECTED = "rejected"
    """The server refused it before starting."""


TransportName: TypeAlias = Literal["auto", "websocket", "sse"]
OnCancelName: TypeAlias = Literal["close", "drain", "new_lane"]

_Choice = TypeVar("_Choice", Transport, OnCancel)
_FURTHER: Final = (Delivery.NOT_SENT, Delivery.REJECTED, Delivery.AMBIGUOUS, Delivery.ACCEPTED)


def choice(kind: type[_Choice], value: Any, where: str) -> _Choice:
    """Return a choice that was given as itself or as its string.

    Raises:
        ConfigurationError: it is neither; ``where`` names it.
    """
    if isinstance(value, kind):
        return value
    # Another choice is a string too, and means something else.
    if type(value) is str and value in tuple(kind):
        return kind(value)
    wrong = "is" if type(value) is str else f"is {kind_of(value)},"
    raise ConfigurationError(where, f"{wrong} not one of {', '.join(kind)}")


def further(one: Delivery, other: Delivery) -> Delivery:
    """Of two attempts at one request, return how far the one got that could cost more."""
    return max(one, other, key=_FURTHER.index)
