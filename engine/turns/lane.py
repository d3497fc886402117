"""A lane: turns that are served one after the other, what they count up to, and what the server stores for them."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import trio

from engine.connections.pool import Pool
from engine.connections.tasks import Tasks
from engine.instruments import Instruments
from engine.protocol.chain import HeldResponse, Mark
from engine.protocol.failures import Failure
from engine.protocol.seals import RefusedSeals
from engine.values.problems import ConfigurationError
from engine.values.statistics import LaneStatistics
from engine.values.usage import Usage

__all__ = ["Counters", "Lane", "LaneQueue", "Queued"]

Transcript: TypeAlias = tuple[Mapping[str, Any] | Mark, ...]


class Queued(Protocol):
    """A turn's work, as far as a lane needs to know it."""

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
        self._bars: set[object] = set()
        self.active: Queued | None = None

    @property
    def queued(self) -> int:
        """The number of turns that wait."""
        return len(self._waiting)

    @property
    def unused(self) -> bool:
        """Whether no turn has it, and none waits."""
        return self.active is None and not self._waiting

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

    def bar(self, bar: object) -> None:
        """Grant nothing until `lift`: a fork has still to be told what the next turn would make the server forget."""
        self._bars.add(bar)

    def lift(self, bar: object) -> None:
        """Take a bar away."""
        if bar in self._bars:
            self._bars.remove(bar)
            self._grant()

    def fail(self, failure: Failure) -> None:
        """Fail every turn, the active one included."""
        waiting, self._waiting = self._waiting, {}
        for turn in (self.active, *waiting):
            if turn is not None:
                turn.fail(failure)

    def _grant(self) -> None:
        now = trio.current_time()
        while self.active is None and self._waiting and not self._bars:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            if not turn.overdue(now):
                self.active = turn
                turn.grant(now)


class Counters:
    """The outcomes of a lane's turns, counted, and the tokens of those that were answered."""

    __slots__ = ("abandoned", "completed", "failed", "fallbacks", "refused_seals", "retries", "started", "usage")

    def __init__(self) -> None:
        self.usage: Usage = Usage()
        self.started: int = 0
        self.completed: int = 0
        self.failed: int = 0
        self.abandoned: int = 0
        self.retries: int = 0
        self.fallbacks: int = 0
        self.refused_seals: int = 0

    @property
    def active(self) -> int:
        """Turns granted and not yet ended."""
        return self.started - self.completed - self.failed - self.abandoned

    def add(self, other: Counters) -> None:
        """Count what another one has counted too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Lane(LaneQueue):
    """One lane of a session.

    Args:
        name: Its name; None for the session's own.
        session: The session's id.
        pool: The links that its turns are sent over.
        instruments: The hooks that are told of them.
        numbers: Numbers the session's turns.
        tasks: The nursery that its turns' work lives in.
        refused_seals: Sealed reasoning that the session's server could not read.

    Attributes:
        stored: The newest response that the server keeps beyond its connection.
        held: The items that the server holds after the newest answer.
        transcript: All that led to the newest answer, and that, in input form; None while it is not known.
        has_answered: Whether a turn of its own was answered.
        parent: The lane that it is a fork of, until a turn of its own was answered.
        counters: Counts of its turns.
        failure: The reason for taking no more turns, where that is not the session's doing.
        owned: Whether a block owns it, at whose end it is forgotten.
        idle_since: The time when its last turn ended; before that, minus infinity.
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
        refused_seals: RefusedSeals,
    ) -> None:
        super().__init__()
        self.name: str | None = name
        self.session: str = session
        self.pool: Pool = pool
        self.instruments: Instruments = instruments
        self.stored: HeldResponse | None = None
        self.held: HeldResponse | None = None
        self.transcript: Transcript | None = None
        self.has_answered: bool = False
        self._adding = False
        self.parent: Lane | None = None
        self.counters: Counters = Counters()
        self.failure: Failure | None = None
        self.owned: bool = False
        self.tasks: Tasks = tasks
        self.refused_seals: RefusedSeals = refused_seals
        self.idle_since: float = -math.inf
        self._idle = trio.lowlevel.ParkingLot()
        self._numbers = numbers

    def number(self) -> int:
        """Return the number of the session's next turn."""
        return next(self._numbers)

    @trio.lowlevel.enable_ki_protection
    def submit(self, turn: Queued) -> None:
        """Queue a turn, or fail it if the session takes no more."""
        refusal = self.failure or self.tasks.failure or self.tasks.shut
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

    # --- forks ---

    def fork_of(self, parent: Lane) -> None:
        """Begin where another lane is now: with its newest answer, and everything that led to it.

        Raises:
            ConfigurationError: that is not known: it was a response of another process.
        """
        held, transcript = parent.held, parent.transcript
        if transcript is None and not parent.has_answered:
            held = held or parent.stored
            transcript = held.items if held is not None else ()
        if transcript is None or not all(isinstance(item, Mapping) for item in transcript):
            raise ConfigurationError("lane", "cannot be forked yet: what led to its newest answer is not known here")
        self.parent, self.held, self.transcript = parent.parent or parent, held, transcript
        self.stored = held if held is not None and held.stored else parent.stored
        self._adding = True

    @property
    def inherited(self) -> list[Mapping[str, Any]]:
        """The items that a fork's input is an addition to; none once a turn of its own was answered."""
        if not self._adding or self.transcript is None:
            return []
        return [item for item in self.transcript if isinstance(item, Mapping)]

    def hand_over(self) -> list[Mapping[str, Any]]:
        """Return what is inherited to a caller that sends it from now on."""
        items = self.inherited
        self._adding = False
        return items

    def warmed_up(self, held: HeldResponse | None) -> None:
        """Note what a warm-up has made ready, where there is nothing else that a fork could begin with."""
        if self.held is None and self.stored is None and not self.busy:
            self.held = held

    def answered(self, held: HeldResponse | None, transcript: Transcript | None) -> None:
        """Note an answer: what the server holds after it, and all that was said up to its end, where that is known."""
        self.parent, self.held, self.transcript, self._adding, self.has_answered = None, held, transcript, False, True
        if held is not None and held.stored:
            self.stored = held

    def statistics(self) -> LaneStatistics:
        """Counters at this moment."""
        counters = self.counters
        return LaneStatistics(
            queued=self.queued,
            active=counters.active,
            turns_started=counters.started,
            turns_completed=counters.completed,
            turns_failed=counters.failed,
            turns_abandoned=counters.abandoned,
            retries=counters.retries,
            fallbacks=counters.fallbacks,
            refused_seals=counters.refused_seals,
            usage=counters.usage,
        )
