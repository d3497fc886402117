"""A connection to a store's database that breaks at a chosen step, for tests of what holds all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.store import Connection

__all__ = ["ConnectionCut", "Disturbed", "WorkerKilled"]


class WorkerKilled(BaseException):
    """The process ends here: nothing of it runs any more, and its connection is gone."""


class ConnectionCut(Exception):
    """The connection to the database is gone; another one can be made."""


class Disturbed:
    """A connection that raises at its n-th step, once. A step is a statement, or either side of a commit.

    Args:
        inner: The connection. It is closed at that step, as if the network or the process were gone.
        at: The number of the step, from 0.
        error: Makes the exception; `WorkerKilled` breaks every later step too.

    Attributes:
        steps: The number of steps so far.
    """

    def __init__(self, inner: Connection, at: int, error: Callable[[], BaseException]) -> None:
        self.steps: int = 0
        self.now: str = inner.now
        self.binary: str = inner.binary
        self.real: str = inner.real
        self.big: str = inner.big
        self._inner = inner
        self._at = at
        self._error = error
        self._gone = False

    def _step(self) -> None:
        if self._gone:
            raise WorkerKilled
        step, self.steps = self.steps, self.steps + 1
        if step == self._at:
            error = self._error()
            self._gone = isinstance(error, WorkerKilled)
            self._inner.close()
            raise error

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement."""
        self._step()
        return self._inner.execute(statement, parameters)

    def connect(self) -> None:
        """Connect. No step: what it does for the first time, it does for every process."""
        if self._gone:
            raise WorkerKilled
        self._inner.connect()

    def begin(self) -> None:
        """Begin a transaction."""
        self._step()
        self._inner.begin()

    def commit(self) -> None:
        """End the transaction; it may break before, or when all is done and only the answer is missing."""
        self._step()
        self._inner.commit()
        self._step()

    def rollback(self) -> None:
        """Undo the transaction."""
        if not self._gone:
            self._inner.rollback()

    def save(self) -> None:
        """Set a point inside the transaction."""
        self._inner.save()

    def keep(self) -> None:
        """Keep what was done since the point."""
        self._inner.keep()

    def undo(self) -> None:
        """Go back to the point."""
        self._inner.undo()

    def close(self) -> None:
        """Close it."""
        self._inner.close()

    def unavailable(self, error: BaseException) -> bool:
        """Whether an error is the database's being out of reach."""
        return isinstance(error, ConnectionCut) or self._inner.unavailable(error)

    def passing(self, error: BaseException) -> bool:
        """Whether trying again may help."""
        return isinstance(error, ConnectionCut) or self._inner.passing(error)

    def reason(self, error: BaseException) -> str:
        """The database's own words."""
        return "" if isinstance(error, ConnectionCut) else self._inner.reason(error)
