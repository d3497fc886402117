"""The states of a link over WebSocket, as a table."""

from __future__ import annotations

from enum import Enum
from typing import Final

from engine.protocol.states import Transitions

__all__ = ["OVER", "TRANSITIONS", "LinkState"]


class LinkState(Enum):
    """The states of a link."""

    DIALLING = "dialling"
    """Its socket is being connected and upgraded."""
    OPEN = "open"
    """It takes turns."""
    RETIRING = "retiring"
    """It takes no new turns, and closes once those in progress have ended."""
    CALLED_OFF = "called_off"
    """It was given up before it was open."""
    FAILED = "failed"
    """Its socket never came about, or broke."""
    CLOSED = "closed"
    """Its socket is gone."""


TRANSITIONS: Final[Transitions[LinkState]] = {
    LinkState.DIALLING: {
        LinkState.OPEN: "upgraded",
        LinkState.CALLED_OFF: "retired",
        LinkState.FAILED: "refused, unreachable, too slow",
    },
    LinkState.OPEN: {
        LinkState.RETIRING: "retired",
        LinkState.FAILED: "lost",
    },
    LinkState.RETIRING: {
        LinkState.FAILED: "lost",
        LinkState.CLOSED: "the last turn has ended",
    },
    LinkState.CALLED_OFF: {
        LinkState.CLOSED: "the dial has ended",
    },
    LinkState.FAILED: {
        LinkState.CLOSED: "the socket is gone",
    },
    LinkState.CLOSED: {},
}
"""From each state, where it can go, and on what."""

OVER: Final = frozenset({LinkState.CALLED_OFF, LinkState.FAILED, LinkState.CLOSED})
"""States in which nothing is in progress on it any more."""
