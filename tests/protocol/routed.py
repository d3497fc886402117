"""A link and a server in miniature: the real router and real exchanges, and what becomes of each frame."""

from __future__ import annotations

from typing import Any

from engine.protocol.exchange import Exchange
from engine.protocol.failures import Failure, Lost
from engine.protocol.routing import Doubt, Router, Verdict
from engine.values.messages import AssistantMessage
from engine.wire.codec import decode_object

__all__ = ["Routed"]


class Routed:
    """Turns of one lane, one after the other, on a link that is replaced where its channel is not clean.

    Attributes:
        owners: For each exchange, by its number from 1: the owners of the frames that it took.
        outcomes: What came of each turn; None while nothing has.
        links: How many links there were.
    """

    def __init__(self) -> None:
        self.owners: dict[int, list[int]] = {}
        self.outcomes: dict[int, AssistantMessage | Failure | None] = {}
        self.links = 1
        self._router = Router()
        self._link_of: dict[int, int] = {}
        self._current: tuple[int, Exchange] | None = None
        self._retired = False

    @property
    def waiting(self) -> bool:
        """Whether a turn waits for its answer."""
        return self._current is not None

    def send(self, *, again: bool = False) -> bool:
        """Send the next turn's request; returns whether a new link was needed."""
        assert self._current is None
        anew = self._retired or not self._router.is_clean(None, again=again)
        if anew:
            self._router, self._retired = Router(), False
            self.links += 1
        number = len(self.outcomes) + 1
        exchange = Exchange()
        self._router.begin(exchange)
        exchange.dispatched()
        self._current = number, exchange
        self.owners[number], self.outcomes[number], self._link_of[number] = [], None, self.links
        return anew

    def leave(self) -> None:
        """The turn's caller leaves; the rest of the response is drained."""
        assert self._current is not None
        self._current[1].abandon()

    def gone(self, owner: int) -> bool:
        """Whether the link is no more that a frame of this turn would come over."""
        return self._link_of[owner] != self.links

    def frame(self, raw: dict[str, Any], owner: int) -> str:
        """Let a frame come, and say what became of it."""
        if self.gone(owner):
            return "gone"
        target = self._router.route(decode_object(raw))
        if isinstance(target, Doubt):
            assert self._current is not None
            self._end(Lost("doubt"))
            self._retired = True
            return "break"
        if isinstance(target, Verdict):
            if target in {Verdict.STRAY, Verdict.FATAL}:
                self._retired = True
            return {Verdict.DROPPED: "drop", Verdict.CONNECTION: "connection"}.get(target, "retire")
        assert self._current is not None
        assert self._current[1] is target
        self.owners[self._current[0]].append(owner)
        target.receive(decode_object(raw))
        if target.outcome is not None:
            self._end(target.outcome)
        return "take"

    def _end(self, outcome: AssistantMessage | Failure) -> None:
        assert self._current is not None
        number, exchange = self._current
        self._router.end(exchange)
        self.outcomes[number], self._current = outcome, None
