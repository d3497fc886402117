"""Which of a turn's budgets are running, and which one an expiry belongs to. No clock and no scope in here."""

from __future__ import annotations

import math
from typing import Final

from engine.protocol.failures import Expired
from engine.settings.turn_options import Timeouts

__all__ = ["Budgets"]

# When two run out at the same instant, the one that says most about the whole turn is named.
_RANK: Final = {"turn": 0, "start": 1}


class Budgets:
    """The running budgets of one turn; `deadline` is the earliest of their ends.

    Args:
        timeouts: Merged timeouts: every field is a number or None.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._running: dict[str, float] = {}
        self.deadline: float = math.inf

    def start(self, phase: str, now: float) -> None:
        """Start the budget called ``phase`` at ``now``; one that runs already is started again."""
        self._running[phase] = now + self._timeouts.of(phase)
        self.deadline = min(self._running.values())

    def stop(self, *phases: str) -> None:
        """Stop budgets whose purpose is fulfilled; those that do not run are left alone."""
        for phase in phases:
            self._running.pop(phase, None)
        self.deadline = min(self._running.values(), default=math.inf)

    def expired(self, now: float) -> Expired | None:
        """The budget that has run out by ``now``; the earliest, and of those that tie the most general."""
        phase = min(self._running, key=lambda name: (self._running[name], _RANK.get(name, 2)), default=None)
        if phase is None or self._running[phase] > now:
            return None
        return Expired(phase, self._timeouts.of(phase))
