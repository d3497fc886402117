"""The treatment of a connection when a turn ends before its response does. A table, not a mechanism."""

from __future__ import annotations

from enum import Enum

from engine.values.choices import OnCancel

__all__ = ["Aftermath", "aftermath"]


class Aftermath(Enum):
    """The treatment of the connection."""

    NOTHING = "nothing"
    """There is nothing left of the response, or it had a connection to itself that is closed."""
    RETIRE = "retire"
    """It takes no new turn, and closes when those of other lanes have ended."""
    DRAIN = "drain"
    """The rest of the response is read and thrown away before the lane's next turn."""
    NEW_LANE = "new_lane"
    """The response is left to itself, and the next turn goes over a fresh lane."""


def aftermath(policy: OnCancel, *, wanted: bool, sound: bool, fresh_lane: bool, siblings: bool = False) -> Aftermath:
    """Decide.

    Args:
        policy: The caller's choice.
        wanted: Whether the choice applies: the caller left, or its ``turn`` budget or its buffer ran out. Where the
            peer was silent, or something broke, there is nothing to save.
        sound: Whether the connection can carry another request: it takes turns, and the whole of this one's request
            was passed on. Half a frame on the wire spoils everything after it.
        fresh_lane: Whether the connection can offer another lane.
        siblings: Whether turns of other lanes are in progress on it: they would have to wait for its replacement.
    """
    if not wanted or not sound:
        return Aftermath.RETIRE
    if policy is OnCancel.DRAIN:
        return Aftermath.DRAIN
    if fresh_lane and (siblings or policy is OnCancel.NEW_LANE):
        return Aftermath.NEW_LANE
    return Aftermath.RETIRE
