"""The gate before a server that limits its rate: no turn until it has said when, then one, then others at intervals.

A server that refuses one turn for its rate would refuse the next one too, and counts it. So a refusal holds them all.
The first that goes then tries whether the limit is over; what has gathered behind it follows spaced, or it would bring
the limit back at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Final

__all__ = ["LONGEST_HOLD", "RateGate", "RateGateState"]

LONGEST_HOLD: Final = 60.0
"""Seconds: a longer wait is that of the refused turn alone."""

_WIDEST_GAP: Final = 0.25


class RateGateState(Enum):
    """The treatment of turns by a gate."""

    HOLDING = "holding"
    """They wait until the server is ready again; the first that comes then tries it."""
    TRYING = "trying"
    """One has gone, and the others wait for what becomes of it."""
    SPACING = "spacing"
    """They go one by one."""


class RateGate:
    """The gate of one server, credential and model.

    Args:
        clock: Returns the time, in seconds.
        jitter: Returns a random number from 0 to 1.

    Attributes:
        state: The gate's present state.
    """

    def __init__(self, *, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self.state: RateGateState = RateGateState.HOLDING
        self._clock = clock
        self._jitter = jitter
        self._asked = 0.0
        self._opens_at = -math.inf
        self._waiting: dict[Hashable, None] = {}  # in the order of their coming
        self._trying: Hashable = None

    @property
    def first(self) -> Hashable:
        """The turn that goes next; None where none waits."""
        return next(iter(self._waiting), None)

    @property
    def opens_at(self) -> float:
        """The time when the next turn may go; infinite as long as that is not known."""
        return math.inf if self.state is RateGateState.TRYING else self._opens_at

    @property
    def remaining(self) -> float:
        """Seconds that the server has asked to wait, and that are not over."""
        return max(self._opens_at - self._clock(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether the limit is over, and all that had waited are gone."""
        return self.state is RateGateState.SPACING and not self._waiting and self.remaining == 0

    def limited(self, seconds: float) -> None:
        """The server refused a turn, and asks to wait."""
        self.state, self._trying = RateGateState.HOLDING, None
        self._asked = seconds
        self._opens_at = max(self._opens_at, self._clock() + seconds)

    def join(self, turn: Hashable) -> None:
        """A turn comes to the end of the queue."""
        self._waiting[turn] = None

    def admit(self, turn: Hashable) -> bool:
        """Let a turn through if it is its moment."""
        now = self._clock()
        if self.first != turn or now < self.opens_at:
            return False
        if self.state is RateGateState.HOLDING:
            self.state, self._trying = RateGateState.TRYING, turn
        else:
            # All that wait should be through in about the time that the server had asked for.
            gap = min(_WIDEST_GAP, self._asked / len(self._waiting))
            self._opens_at = now + gap * (0.5 + min(max(self._jitter(), 0.0), 1.0))
        del self._waiting[turn]
        return True

    def is_tried_by(self, turn: Hashable) -> bool:
        """Whether a turn has gone to try whether the limit is over."""
        return self.state is RateGateState.TRYING and self._trying == turn

    def accepted(self, turn: Hashable) -> None:
        """The server has begun with a turn: if it was the one that tried, the limit is over."""
        if self.is_tried_by(turn):
            self.state, self._trying = RateGateState.SPACING, None

    def left(self, turn: Hashable) -> None:
        """A turn is over or failed, and that says nothing about the limit: if it was to try, the next one does."""
        self._waiting.pop(turn, None)
        if self.is_tried_by(turn):
            self.state, self._trying = RateGateState.HOLDING, None
