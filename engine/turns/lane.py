"""A lane: turns that are served one after the other, what they count up to, and what the server stores for them."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import trio

from engine.connections.pool import Pool
from engine.connections.tasks import Tasks
from engine.instruments import Instruments
from engine.protocol.chain import Held
from engine.protocol.failures import Failure
from engine.values.usage import Usage

__all__ = ["Counters", "Lane", "LaneQueue", "Queued"]


class Queued(Protocol):
    """What a lane needs to know of a turn's work."""

    def overdue(self, now: float) -> bool:
        """Whether its waiting time is over, although it was not told yet."""
        ...

    def grant(self, now: float) -> None:
        """The lane is its own until it is released."""
        ...

    def fail(self, failure: Failure) -> None:
        """It will not be served."""
        ...

    def stop_draining(self) -> bool:
        """Stop throwing away the rest of an abandoned response, if that is what it still does."""
        ...


class LaneQueue:
    """The turns that wait for one lane and the one that has it.

    The queue is unbounded, since each entry is a block that some task is inside of. Entering and leaving it cost the
    same however long it is.
    """

    def __init__(self) -> None:
        self._waiting: dict[Queued, None] = {}  # in the order of their coming
        self.active: Queued | None = None

    @property
    def queued(self) -> int:
        """How many turns wait."""
        return len(self._waiting)

    def enqueue(self, turn: Queued) -> None:
        """Put a turn at the end; it may be granted at once."""
        self._waiting[turn] = None
        self._grant()

    def remove(self, turn: Queued) -> None:
        """Take a turn out that no longer waits."""
        self._waiting.pop(turn, None)

    def release(self, turn: Queued) -> None:
        """Give the lane to the next turn."""
        if self.active is turn:
            self.active = None
            self._grant()

    def claim(self, turn: Queued) -> None:
        """A turn has waited long enough: if it is the first and only a drain is in its way, end that."""
        first = next(iter(self._waiting), None)
        if first is turn and self.active is not None and self.active.stop_draining():
            self.release(self.active)

    def fail(self, failure: Failure) -> None:
        """Fail every turn, the active one included."""
        waiting, self._waiting = self._waiting, {}
        for turn in (self.active, *waiting):
            if turn is not None:
                turn.fail(failure)

    def _grant(self) -> None:
        now = trio.current_time()
        while self.active is None and self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            if not turn.overdue(now):
                self.active = turn
                turn.grant(now)


class Counters:
    """How the turns of a lane went, and the tokens of those that were answered."""

    __slots__ = ("abandoned", "completed", "failed", "fallbacks", "retries", "started", "usage")

    def __init__(self) -> None:
        self.usage: Usage = Usage()
        self.started = self.completed = self.failed = self.abandoned = self.retries = self.fallbacks = 0

    @property
    def active(self) -> int:
        """Turns granted and not yet ended."""
        return self.started - self.completed - self.failed - self.abandoned


class Lane(LaneQueue):
    """One lane of a session.

    Args:
        name: Its name; None for the session's own.
        session: The session's id.
        pool: What its turns are sent over.
        instruments: What is told of them.
        numbers: Numbers the session's turns.
        tasks: Where its turns' work lives.

    Attributes:
        stored: The newest response that the server keeps beyond its connection.
        counters: How its turns went.
        idle_since: When its last turn ended, or when it was made.
    """

    def __init__(
        self,
        name: str | None,
        *,
        session: str,
        pool: Pool,
        instruments: Instruments,
        numbers: Iterator[int],
        tasks: Tasks,
    ) -> None:
        super().__init__()
        self.name: str | None = name
        self.session: str = session
        self.pool: Pool = pool
        self.instruments: Instruments = instruments
        self.stored: Held | None = None
        self.counters: Counters = Counters()
        self.tasks: Tasks = tasks
        self.idle_since: float = trio.current_time()
        self._idle = trio.lowlevel.ParkingLot()
        self._numbers = numbers

    def number(self) -> int:
        """Return the number of the session's next turn."""
        return next(self._numbers)

    @trio.lowlevel.enable_ki_protection
    def submit(self, turn: Queued) -> None:
        """Queue a turn, or fail it if the session takes no more."""
        refusal = self.tasks.failure or self.tasks.shut
        if refusal is not None:
            turn.fail(refusal)
        else:
            self.enqueue(turn)

    def remove(self, turn: Queued) -> None:
        """Take a turn out that no longer waits."""
        super().remove(turn)
        self._on_change()

    def release(self, turn: Queued) -> None:
        """Give the lane to the next turn."""
        super().release(turn)
        self._on_change()

    @property
    def busy(self) -> bool:
        """Whether a turn has the lane, or waits for it."""
        return self.active is not None or self.queued > 0

    def _on_change(self) -> None:
        if not self.busy:
            self.idle_since = trio.current_time()
            self._idle.unpark_all()

    async def until_idle(self) -> None:
        """Wait until no turn has the lane or waits for it. Cancelling only stops waiting."""
        await trio.lowlevel.checkpoint()
        while self.busy:
            await self._idle.park()

    @trio.lowlevel.enable_ki_protection
    def claim(self, turn: Queued) -> None:
        """A turn has waited long enough: if it is the first and only a drain is in its way, end that."""
        super().claim(turn)

    def start(self, context: contextvars.Context, task: Callable[[], Awaitable[None]]) -> None:
        """Run a granted turn's task, in the context of its caller."""
        context.run(self.tasks.start, task)
