"""The budgets of a turn: which are running, and which one an expiry belongs to. No clock and no scope in here."""

from __future__ import annotations

import math
from typing import Final

from engine.protocol.failures import Expired
from engine.settings.timeouts import Phase, ResolvedTimeouts

__all__ = ["Budgets"]

# Of two that run out at the same instant, the one that says most about the whole turn is named.
_RANK: Final[dict[Phase, int]] = {"turn": 0, "start": 1}


class Budgets:
    """The running budgets of one turn; `deadline` is the earliest of their ends.

    Args:
        timeouts: Their lengths.
    """

    def __init__(self, timeouts: ResolvedTimeouts) -> None:
        self._timeouts = timeouts
        self._running: dict[Phase, float] = {}
        self.deadline: float = math.inf

    def start(self, phase: Phase, now: float) -> None:
        """Start the budget called ``phase`` at ``now``; one that runs already is started again."""
        self._running[phase] = now + getattr(self._timeouts, phase)
        self.deadline = min(self._running.values())

    def stop(self, *phases: Phase) -> None:
        """Stop budgets whose purpose is fulfilled; those that do not run are left alone."""
        for phase in phases:
            self._running.pop(phase, None)
        self.deadline = min(self._running.values(), default=math.inf)

    def expired(self, now: float) -> Expired | None:
        """The budget that has run out by ``now``; the earliest, and of those that tie the most general."""
        phase = min(self._running, key=lambda name: (self._running[name], _RANK.get(name, 2)), default=None)
        if phase is None or self._running[phase] > now:
            return None
        return Expired(phase, getattr(self._timeouts, phase))
