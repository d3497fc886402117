"""The events that a turn holds for its reader: those that have arrived and were not taken yet.

What says who is parked and who was rescheduled has to be right at any time, so there a KeyboardInterrupt waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import trio

from engine.settings.limits import ResolvedLimits
from engine.values.turn_events import TextDelta, ThinkingDelta, ToolCallDelta, TurnEvent

__all__ = ["Inbox"]

_DELTAS: Final = (TextDelta, ThinkingDelta, ToolCallDelta)
_EVENTS_PER_CHECKPOINT: Final = 64


class Inbox:
    """A turn's events, bounded in number and in bytes of text.

    Args:
        limits: Merged limits.
        keeping: Whether there will be a reader; if not, nothing is kept.

    Attributes:
        keeping: Whether there is a reader.
        held: Bytes of text of the events in it, as UTF-8.
    """

    def __init__(self, limits: ResolvedLimits, *, keeping: bool) -> None:
        self._max_events = limits.buffer_events
        self._max_held = limits.buffer_bytes
        self.keeping: bool = keeping
        self._events: deque[TurnEvent] = deque()
        self._parked: trio.lowlevel.Task | None = None
        self._reading = False
        self._closed = False
        self._in_batch = False
        self._before_batch = (0, 0)
        self._at_wait = (0, 0)
        self._allowance = _EVENTS_PER_CHECKPOINT
        self.held: int = 0

    def __len__(self) -> int:
        return len(self._events)

    # --- the turn's side ---

    def put(self, events: Sequence[TurnEvent]) -> bool:
        """Keep events for the next `wake`; returns whether the reader has fallen too far behind.

        That is judged by what was left from before the batch, whose size is the server's and the network's doing; for a
        reader that waits, and cannot take anything before it has run, by what it left there when it began to.
        """
        if not self.keeping or self._closed:
            return False
        if not self._in_batch:
            self._in_batch = True
            self._before_batch = (len(self._events), self.held)
        for event in events:
            self._events.append(event)
            self.held += _weight(event)
        number, held = self._at_wait if self._reading else self._before_batch
        return number > self._max_events or held > self._max_held

    @trio.lowlevel.enable_ki_protection
    def wake(self) -> None:
        """A batch is complete: wake the reader, if it waits and there is something."""
        self._in_batch = False
        if self._parked is not None and (self._events or self._closed):
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    def close(self) -> None:
        """Nothing more will be put in; what is in it can still be taken."""
        self._closed = True
        self.wake()

    def discard(self) -> None:
        """Throw away what is in it, and keep nothing from now on."""
        self.keeping = False
        self._events.clear()
        self.held = 0

    # --- the reader's side ---

    def check_reader(self) -> None:
        """Raise `RuntimeError` if another task is reading."""
        if self._reading:
            raise RuntimeError("another task is reading this turn")

    @property
    def has_something(self) -> bool:
        """Whether there is an event, or will never be another."""
        return bool(self._events) or self._closed

    def ready(self) -> bool:
        """Whether an event can be taken without waiting; now and then not, so that others get their turn."""
        if self._reading:
            self.check_reader()
        self._allowance -= 1
        return bool(self._events) and self._allowance >= 0

    async def wait(self) -> None:
        """Wait until there is something to take, or never will be. Cancelling it takes nothing."""
        self._reading = True
        self._at_wait = (len(self._events), self.held)
        try:
            if self._events or self._closed:
                await trio.lowlevel.checkpoint()
            while not self._events and not self._closed:
                await self._park()
        finally:
            self._reading = False
            # All that is there now may be taken in a row: the reader would never keep up with large batches otherwise.
            self._allowance = max(len(self._events), _EVENTS_PER_CHECKPOINT) - 1

    async def wait_closed(self) -> None:
        """Wait for the end, and keep nothing until then. Cancelling it only stops waiting."""
        self.check_reader()
        self.discard()
        self._reading = True
        try:
            if self._closed:
                await trio.lowlevel.checkpoint()
            while not self._closed:
                await self._park()
        finally:
            self._reading = False

    @trio.lowlevel.enable_ki_protection
    async def _park(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked = trio.lowlevel.current_task()  # there is one reader at most, so this is all that is needed
        await trio.lowlevel.wait_task_rescheduled(abort)

    def take(self) -> TurnEvent | None:
        """Take the oldest event; None where there is none."""
        if not self._events:
            return None
        event = self._events.popleft()
        self.held -= _weight(event)
        return event


def _weight(event: TurnEvent) -> int:
    """Bytes of the text an event holds, as UTF-8."""
    if not isinstance(event, _DELTAS):
        return 0
    return len(event.delta) if event.delta.isascii() else len(event.delta.encode("utf-8", "surrogatepass"))
