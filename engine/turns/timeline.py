"""The times of one turn: the moments it has reached, the budgets that run, and the scope that ends with them."""

from __future__ import annotations

import math
from typing import Final

import trio

from engine.protocol.budgets import Budgets
from engine.protocol.failures import Expired
from engine.settings.timeouts import Phase, ResolvedTimeouts
from engine.values.reports import PhaseSeconds

__all__ = ["Timeline"]

_OF_AN_ATTEMPT = ("connected", "sent", "first_event")
_PHASES_OF_AN_ATTEMPT: Final[tuple[Phase, ...]] = ("connect", "send", "first_event", "idle")


class Timeline:
    """The moments of a turn so far, and when the next budget runs out.

    Args:
        timeouts: The lengths of the budgets.
    """

    def __init__(self, timeouts: ResolvedTimeouts) -> None:
        self._timeouts = timeouts
        self._budgets = Budgets(timeouts)
        self._moments: dict[str, float] = {}
        self._scope: trio.CancelScope | None = None
        self._followed = math.inf  # the scope's deadline

    def scope(self) -> trio.CancelScope:
        """Make the scope that follows the running budgets from now on; the one before it no longer does."""
        self._followed = self._budgets.deadline
        self._scope = trio.CancelScope(deadline=self._followed)
        return self._scope

    def reach(self, moment: str, now: float) -> None:
        """Note when something happened."""
        self._moments[moment] = now

    def begin(self, moment: str, phase: Phase, now: float) -> None:
        """Note that something happened with which a phase begins."""
        self.reach(moment, now)
        self.start(phase, now)

    def reached(self, moment: str) -> bool:
        """Whether it has happened."""
        return moment in self._moments

    def at(self, moment: str) -> float:
        """Return the moment when it happened."""
        return self._moments[moment]

    def start(self, phase: Phase, since: float) -> None:
        """Let a budget run; one that runs already is started again."""
        self._budgets.start(phase, since)
        self._follow()

    def stop(self, *phases: Phase) -> None:
        """Stop budgets whose purpose is fulfilled."""
        self._budgets.stop(*phases)
        self._follow()

    def replace(self, *ended: Phase, begun: Phase, since: float) -> None:
        """Let one budget run in place of others."""
        self._budgets.stop(*ended)
        self.start(begun, since)

    def _follow(self) -> None:
        # Setting a deadline costs more than everything else here, and asking for it nearly as much.
        if self._scope is not None and self._followed != self._budgets.deadline:
            self._scope.deadline = self._followed = self._budgets.deadline

    def expired(self, now: float) -> Expired | None:
        """The budget that has run out; see `Budgets.expired`."""
        return self._budgets.expired(now)

    def left_to_start(self, now: float) -> float:
        """Seconds until the turn has to have had its first event, whatever the attempt."""
        start = self._moments["granted"] + self._timeouts.start
        turn = self._moments["entered"] + self._timeouts.turn
        return min(start, turn) - now

    def begin_again(self) -> None:
        """Another attempt: what belongs to the one before is over, what holds for all of them goes on."""
        for moment in _OF_AN_ATTEMPT:
            self._moments.pop(moment, None)
        self._budgets.stop(*_PHASES_OF_AN_ATTEMPT)
        self.start("start", self._moments["granted"])

    def seconds(self) -> PhaseSeconds:
        """The seconds of each phase."""

        def between(start: str, end: str) -> float | None:
            if start in self._moments and end in self._moments:
                return self._moments[end] - self._moments[start]
            return None

        return PhaseSeconds(
            queue=between("entered", "granted"),
            connect=between("granted", "connected"),
            send=between("connected", "sent"),
            first_event=between("sent", "first_event"),
            total=between("entered", "ended"),
        )
