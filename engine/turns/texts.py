"""The words of an answer, as they come."""

from __future__ import annotations

from typing import Any

from engine.values.turn_events import TextDelta, TextStarted, TurnDone, TurnEvent

__all__ = ["Texts"]


class Texts:
    """The pieces of an answer's text: ``async for text in turn.texts()``.

    They are the words of the answer, or of the model's refusal; what it marks as commentary is left out. No generator:
    there is nothing to close when the loop is left.

    Args:
        events: The source of turn events. Where it is read without ``await``, so are the texts.
    """

    def __init__(self, events: Any) -> None:
        self._events = events
        self._aside: set[int] = set()

    def __aiter__(self) -> Texts:
        return self

    async def __anext__(self) -> str:
        """Return the next piece.

        Raises what reading the events raises. Cancelling loses no piece.
        """
        while True:
            piece = self._piece(await anext(self._events))
            if piece:
                return piece

    def __iter__(self) -> Texts:
        return self

    def __next__(self) -> str:
        while True:
            piece = self._piece(next(self._events))
            if piece:
                return piece

    def _piece(self, event: TurnEvent) -> str:
        """Return the piece of text that an event adds."""
        if isinstance(event, TextDelta):
            return "" if event.index in self._aside else event.delta
        if isinstance(event, TextStarted) and event.block.phase == "commentary":
            self._aside.add(event.index)
        elif isinstance(event, TurnDone):
            self._aside.clear()  # the next round of a reply counts its blocks anew
        return ""
