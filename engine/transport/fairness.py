"""The time that sockets may hand messages on before everything else has its turn.

A socket that brings much hands a whole batch on within one step of its task. With a hundred such sockets a step of the
event loop would take a hundred batches, and timers and callers would wait for all of them. So one meter per run counts
the time spent; once it is full, the next batch lets the loop come round first, and those behind it queue up.
"""

from __future__ import annotations

from typing import Final

import trio

__all__ = ["Meter", "meter"]

_BUDGET: Final = 0.001  # seconds per step of the event loop
_WEIGHT: Final = 1 / 16  # of the latest batch in the mean

_METER: trio.lowlevel.RunVar[Meter] = trio.lowlevel.RunVar("meter of messages")


def meter() -> Meter:
    """The meter of this run."""
    try:
        return _METER.get()
    except LookupError:
        made = Meter()
        _METER.set(made)
        return made


class Meter:
    """Counts the time that all sockets of a run spend in batches.

    A task asks `admit` before each batch, notes with `spent` what it took, and calls `leave` when it has no more. At
    any time one task at most lets the loop come round; it, or a task that it wakes, sees to those that wait.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._mean = _BUDGET
        self._resting = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def admit(self) -> None:
        """Wait until another batch may be handed on. If cancelled, this raises, and nothing is to be handed on."""
        if self._spent < _BUDGET:
            return
        if self._resting:
            await self._waiting.park()
        else:
            await self._rest()
            await trio.lowlevel.checkpoint_if_cancelled()

    def spent(self, seconds: float) -> None:
        """Note how long a batch took."""
        self._spent += seconds
        self._mean += (seconds - self._mean) * _WEIGHT

    async def leave(self) -> None:
        """See to the tasks that wait, if no other does. To be called whatever has happened since `admit`."""
        if not self._waiting or self._resting:
            return
        if self._spent < _BUDGET:
            self._waiting.unpark()
        else:
            await self._rest()

    async def _rest(self) -> None:
        """Let the event loop come round once, then begin a new count and wake as many as it has room for."""
        self._resting = True
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        self._resting = False
        self._spent = 0.0
        self._waiting.unpark(count=max(1, int(_BUDGET / self._mean)))
