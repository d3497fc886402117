"""The states of a turn, as tables: one for its caller's block, one for its work.

They are two, because neither follows from the other: a caller may be inside long after the work has ended, and a
response may still have to be drained when its caller has left, or when it never will be read.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from engine.protocol.states import Transitions

__all__ = ["TURN_TRANSITIONS", "WORK_TRANSITIONS", "TurnState", "WorkState"]


class TurnState(Enum):
    """The states of a caller's block."""

    NEW = "new"
    """The block was not entered yet."""
    INSIDE = "inside"
    """The caller is in the block."""
    LEFT = "left"
    """The block was left."""


TURN_TRANSITIONS: Final[Transitions[TurnState]] = {
    TurnState.NEW: {TurnState.INSIDE: "entered"},
    TurnState.INSIDE: {TurnState.LEFT: "left, in whatever way"},
    TurnState.LEFT: {},
}
"""From each state, where it can go, and on what."""


class WorkState(Enum):
    """The states of the session's work for a turn."""

    QUEUED = "queued"
    """It waits for its lane; nothing was sent."""
    RUNNING = "running"
    """Attempts are made."""
    DRAINING = "draining"
    """It has ended for its caller; the rest of its response is read and thrown away."""
    ENDED = "ended"
    """There is nothing left to do but to free the lane."""


WORK_TRANSITIONS: Final[Transitions[WorkState]] = {
    WorkState.QUEUED: {
        WorkState.RUNNING: "granted its lane",
        WorkState.ENDED: "left, expired or failed while it waited",
    },
    WorkState.RUNNING: {
        WorkState.DRAINING: "abandoned, with OnCancel.DRAIN",
        WorkState.ENDED: "answered, failed, or abandoned",
    },
    WorkState.DRAINING: {
        WorkState.ENDED: "the response has ended, or took too long",
    },
    WorkState.ENDED: {},
}
"""From each state, where it can go, and on what."""
