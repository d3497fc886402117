"""The line of a conversation's prompts: one is answered, the others wait in the order in which they came.

It is no lock, since a lock belongs to a task: a reply may be entered by one task and left by another, or by the
collector of garbage that closes a generator.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final

import trio

from engine.protocol.failures import Expired, to_error
from engine.settings.timeouts import Phase, ResolvedTimeouts

__all__ = ["Line", "Place"]


class Line:
    """The prompts of one conversation.

    Args:
        check_caller: Raises `RuntimeError` where the caller is no task of the run that the conversation belongs to.
    """

    def __init__(self, check_caller: Callable[[], None]) -> None:
        self.check_caller: Final = check_caller
        self._places: dict[Place, None] = {}  # the first one's prompt is being answered

    @property
    def first(self) -> Place | None:
        """The place of the prompt that is being answered."""
        return next(iter(self._places), None)

    def place(self, timeouts: ResolvedTimeouts) -> Place:
        """Return a place for a prompt, which joins the line when it is entered; the timeouts bound its wait there."""
        return Place(self, timeouts)

    def join(self, place: Place) -> None:
        """Put a place at the end; it may be the first."""
        self._places[place] = None
        self._call()

    def leave(self, place: Place) -> None:
        """Take a place out, wherever it stands."""
        self._places.pop(place, None)
        self._call()

    def _call(self) -> None:
        if self.first is not None:
            self.first.reached.set()


class Place:
    """A prompt's place in the line: ``async with line.place(...)`` waits until it is the first, and leaves at the end.

    Attributes:
        reached: Set when it is the first.
    """

    def __init__(self, line: Line, timeouts: ResolvedTimeouts) -> None:
        self.reached: trio.Event = trio.Event()
        self._line = line
        self._timeouts = timeouts
        self._task: trio.lowlevel.Task | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Place:
        """Wait until earlier prompts are answered.

        Raises:
            RuntimeError: the task is inside the reply that it would wait for, or of another run of Trio.
            TurnTimeout: it took longer than the ``queue`` (or ``turn``) budget.

        If cancelled, the line is as it was.
        """
        self._line.check_caller()
        self._task = trio.lowlevel.current_task()
        first = self._line.first
        if first is not None and first._task is self._task:
            raise RuntimeError(
                "this task is inside a reply of the conversation: leave its block first, or use another conversation"
            )
        self._line.join(self)
        try:
            await self._wait()
        except BaseException:
            self._line.leave(self)
            raise
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the line. Has no checkpoint, and may come from any task."""
        self.leave()

    def leave(self) -> None:
        """Free the line; nothing, where that was done."""
        self._line.leave(self)

    async def _wait(self) -> None:
        if self.reached.is_set():
            await trio.lowlevel.checkpoint()
            return
        phase: Phase = "queue" if self._timeouts.queue <= self._timeouts.turn else "turn"
        seconds: float = getattr(self._timeouts, phase)
        with trio.move_on_after(seconds):
            await self.reached.wait()
        if not self.reached.is_set():
            raise to_error(Expired(phase, seconds))
