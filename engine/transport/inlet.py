"""From the bytes of an open connection to its owner: messages are cut out and handed on, and the rest is returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

import trio

from engine.transport.fairness import meter
from engine.transport.frames import FrameCutter

__all__ = ["Inlet"]

_AT_ONCE: Final = 64
_LITTLE: Final = 4096  # bytes: so few are taken at once, however much others bring


def _nothing(texts: Sequence[str]) -> None:
    pass


def _always() -> bool:
    return True


class Inlet:
    """Hands messages on in order: never before `open`, and in batches between which others have their turn.

    Args:
        max_message_bytes: The largest message that is cut; what is larger is the library's to judge.
        on_texts: Is given the messages of a batch. It raises nothing.
        over: Says whether nothing counts any more.
    """

    def __init__(
        self, max_message_bytes: int, on_texts: Callable[[Sequence[str]], None], over: Callable[[], bool]
    ) -> None:
        self._cutter = FrameCutter(max_message_bytes)
        self._on_texts = on_texts
        self._over = over
        self._waiting: list[str] = []
        self._opened = False
        self._handing_on = False

    @property
    def ended(self) -> bool:
        """Whether everything is left to the library from now on."""
        return self._cutter.ended

    async def feed(self, data: bytes, *, dropping: bool) -> bytes:
        """Take the next bytes, hand their messages on, and return what is left when all of them are.

        Args:
            data: The bytes.
            dropping: Whether messages do not count any more, because a Close frame of ours is under way.

        If cancelled, messages that were not handed on yet stay here.
        """
        little = len(data) <= _LITTLE
        run = meter()
        try:
            if not little:
                await run.admit()
            started = perf_counter()
            texts, passed = self._cutter.feed(data)
            if texts and not dropping:
                self._waiting += texts
                if self._opened:
                    self._hand_on(_AT_ONCE)
            run.spent(perf_counter() - started)
            while self._opened and self._waiting:
                if not little:
                    await run.admit()
                started = perf_counter()
                self._hand_on(_AT_ONCE)
                run.spent(perf_counter() - started)
        finally:
            await run.leave()
        return passed

    def add(self, text: str) -> None:
        """Hand on a message that the library made of what was left to it."""
        self._waiting.append(text)
        self.flush()

    def open(self) -> None:
        """Hand on what has come, and from now on at once what comes."""
        self._opened = True
        self.flush()

    def flush(self) -> None:
        """Hand on all that has come, unless a batch is just being handed on."""
        while self._waiting and not self._handing_on:
            self._hand_on(_AT_ONCE)

    def forget(self) -> None:
        """Let go of the owner: nothing is handed on any more."""
        self._waiting.clear()
        self._on_texts = _nothing
        self._over = _always

    # This may run in trio-websocket's reader, which may be cancelled by what it brings about: there a KeyboardInterrupt
    # would be replaced by a Cancelled, and would be lost.
    @trio.lowlevel.enable_ki_protection
    def _hand_on(self, most: int) -> None:
        if self._over():
            self._waiting.clear()
            return
        batch = self._waiting[:most]
        del self._waiting[:most]
        self._handing_on = True
        try:
            self._on_texts(batch)
        finally:
            self._handing_on = False
