"""A lane: turns that are served one after the other."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio

from engine.protocol.failures import Failure

__all__ = ["LaneQueue", "Queued"]


class Queued(Protocol):
    """What a lane needs to know of a turn."""

    def overdue(self, now: float) -> bool:
        """Whether its waiting time is over, although nobody has told it yet."""
        ...

    def grant(self, now: float) -> None:
        """The lane is its own until it is released."""
        ...

    def fail(self, failure: Failure) -> None:
        """It will not be served."""
        ...

    def cut_short(self) -> bool:
        """Stop throwing away the rest of an abandoned response, if that is what it still does."""
        ...


class LaneQueue:
    """The turns that wait for one lane and the one that has it.

    The queue is unbounded, since each entry is a block that some task is inside of.
    """

    def __init__(self) -> None:
        self._waiting: deque[Queued] = deque()
        self.active: Queued | None = None

    @property
    def queued(self) -> int:
        """How many turns wait."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether a turn has the lane."""
        return self.active is not None

    def enqueue(self, turn: Queued) -> None:
        """Put a turn at the end; it may be granted at once."""
        self._waiting.append(turn)
        self._grant()

    def remove(self, turn: Queued) -> None:
        """Take a turn out that no longer waits."""
        if turn in self._waiting:
            self._waiting.remove(turn)

    def release(self, turn: Queued) -> None:
        """Give the lane to the next turn."""
        if self.active is turn:
            self.active = None
            self._grant()

    def hurry(self, turn: Queued) -> None:
        """The first turn in the queue has waited long enough for a response that nobody wants any more."""
        if self._waiting and self._waiting[0] is turn and self.active is not None and self.active.cut_short():
            self.release(self.active)

    def fail(self, failure: Failure) -> None:
        """Fail every turn, the active one included."""
        waiting, self._waiting = self._waiting, deque()
        for turn in (self.active, *waiting):
            if turn is not None:
                turn.fail(failure)

    def _grant(self) -> None:
        now = trio.current_time()
        while self.active is None and self._waiting:
            turn = self._waiting.popleft()
            if not turn.overdue(now):
                self.active = turn
                turn.grant(now)
