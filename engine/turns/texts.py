"""The words of an answer, as they come."""

from __future__ import annotations

from typing import Final, Protocol

from engine.values.turn_events import TextDelta, TextStarted, TurnDone, TurnEvent

__all__ = ["Texts"]

_ASIDE: Final = "commentary"


class TurnEvents(Protocol):
    """What yields turn events."""

    async def __anext__(self) -> TurnEvent:
        """Return the next one."""
        ...


class Texts:
    """The pieces of an answer's text: ``async for text in turn.texts()``.

    They are the words of the answer, or of the model's refusal; what it marks as commentary is left out. No generator:
    there is nothing to close when the loop is left.
    """

    def __init__(self, events: TurnEvents) -> None:
        self._events = events
        self._aside: set[int] = set()

    def __aiter__(self) -> Texts:
        return self

    async def __anext__(self) -> str:
        """Return the next piece.

        Raises what reading the events raises. Cancelling loses no piece.
        """
        while True:
            event = await self._events.__anext__()
            if isinstance(event, TextDelta):
                if event.index not in self._aside and event.delta:
                    return event.delta
            elif isinstance(event, TextStarted):
                if event.block.phase == _ASIDE:
                    self._aside.add(event.index)
            elif isinstance(event, TurnDone):
                self._aside.clear()  # the next round of a reply counts its blocks anew
