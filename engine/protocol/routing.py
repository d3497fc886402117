"""Which events of one connection belong to which of its exchanges.

On the default lane server events carry no mark of the request they answer, so a client that is careless here shows one
request's answer as another's. The order of the rules in `Router.route` is the order of their certainty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

from attrs import define, field

from engine.protocol.exchange import Exchange, LaneName
from engine.protocol.failures import Failed, Rejected, Violated
from engine.protocol.faults import CODES, Fault
from engine.wire.account_events import AccountEvent
from engine.wire.base import member
from engine.wire.control_events import ErrorEvent
from engine.wire.events import (
    LifecycleEvent,
    OutputEvent,
    OutputItemAdded,
    OutputItemDone,
    ResponseFailed,
    ServerEvent,
    TerminalEvent,
    UnknownEvent,
)

__all__ = ["Router", "Verdict"]

_REMEMBERED_RESPONSES: Final = 64
_REMEMBERED_ITEMS: Final = 256


class Verdict(Enum):
    """Where an event goes that belongs to no exchange."""

    CONNECTION = "connection"
    """It is about the connection or the account."""
    LIMIT = "limit"
    """The server ends the connection's life."""
    DROPPED = "dropped"
    """It belongs to a response that nobody waits for."""
    STRAY = "stray"
    """It came on a lane with nothing in flight: the lane can no longer be trusted with another request."""
    FATAL = "fatal"
    """It is an error that belongs to no request: the connection cannot be trusted."""


@define(eq=False)
class _LaneState:
    current: Exchange | None = None
    broken_off: bool = False  # whether a response was left, or ended badly: more of it may be on its way
    refused: bool = False  # whether the last request was refused, before any response
    finished: deque[str] = field(factory=lambda: deque(maxlen=_REMEMBERED_RESPONSES))
    earlier_items: dict[str, None] = field(factory=dict)  # a set that knows which is the oldest

    def remember(self, items: Iterable[str]) -> None:
        self.earlier_items.update(dict.fromkeys(items))
        while len(self.earlier_items) > _REMEMBERED_ITEMS:
            del self.earlier_items[next(iter(self.earlier_items))]


class Router:
    """Knows what is in flight on one connection and whose each event is."""

    def __init__(self) -> None:
        self._lanes: dict[LaneName, _LaneState] = {}
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """How many exchanges have not ended, abandoned ones included."""
        return self._in_flight

    def exchanges(self) -> Iterator[Exchange]:
        """The exchanges that have not ended."""
        return (state.current for state in self._lanes.values() if state.current is not None)

    def begin(self, exchange: Exchange) -> None:
        """Take note of a request about to be sent. One at a time is in flight on a lane."""
        state = self._lanes.setdefault(exchange.lane, _LaneState())
        assert state.current is None, "the lane's previous response has not ended"
        state.current = exchange
        self._in_flight += 1

    def end(self, exchange: Exchange) -> None:
        """Take note that the exchange has ended, or that its frame was never sent."""
        state = self._lanes[exchange.lane]
        if state.current is not exchange:
            return
        state.current = None
        self._in_flight -= 1
        if exchange.abandoned or isinstance(exchange.outcome, Failed | Rejected | Violated):
            state.broken_off = True
        state.refused = isinstance(exchange.outcome, Rejected)
        if exchange.response_id is not None:
            state.finished.append(exchange.response_id)
        state.remember(exchange.item_ids)

    def route(self, event: ServerEvent) -> Exchange | Verdict:
        """Say whose the event is."""
        output = isinstance(event, OutputEvent)
        if not output:
            if isinstance(event, AccountEvent):
                return Verdict.CONNECTION
            if isinstance(event, ErrorEvent) and CODES.get(event.code or "") is Fault.CONNECTION_LIMIT:
                return Verdict.LIMIT
        name = event.raw.get("stream_id")  # rather than the attribute: this is done for every delta
        if name is not None and name.__class__ is not str:
            name = None
        state = self._lanes.get(name)
        if state is None:
            # On a named lane this connection never used, nothing is anybody's.
            return Verdict.DROPPED if name is not None else self._unclaimed(event, None)
        exchange = state.current
        if exchange is None:
            return self._unclaimed(event, state)
        if output:
            if not (state.broken_off or state.earlier_items or exchange.abandoned):
                return exchange
            return Verdict.DROPPED if self._stale(event, exchange, state) else exchange  # type: ignore[arg-type]
        return Verdict.DROPPED if self._foreign(event, exchange, state) else exchange

    def _stale(self, event: OutputEvent, exchange: Exchange, state: _LaneState) -> bool:
        """Whether output is a predecessor's; what an abandoned exchange would have taken is remembered."""
        item_id = _item_named_by(event)
        stale = self._predates(event, item_id, exchange, state)
        if exchange.abandoned and item_id is not None:
            state.remember((item_id,))  # nobody takes the event, and a later one of the item must be recognised
        return stale

    def _predates(self, event: OutputEvent, item_id: str | None, exchange: Exchange, state: _LaneState) -> bool:
        """Whether output must be a predecessor's: it came before its response was announced, or names an old item."""
        announced = exchange.response_id is not None
        if state.broken_off and not announced:
            return True
        if item_id not in state.earlier_items:
            return False
        # Where a server counts items anew in each response, the response announces them itself.
        return not (announced and (isinstance(event, OutputItemAdded) or item_id in exchange.item_ids))

    def _foreign(self, event: ServerEvent, exchange: Exchange, state: _LaneState) -> bool:
        """Whether an event that is no output is another response's. Learns the name of the exchange's own."""
        named = _response_named_by(event)
        if named is None:
            # Unknown events may be output in a shape that is not known; errors never come after a response's end.
            return isinstance(event, UnknownEvent) and exchange.response_id is None and state.broken_off
        if named in state.finished or exchange.response_id not in {None, named}:
            return True
        if exchange.response_id is None and state.refused and isinstance(event, ResponseFailed):
            return True  # some servers say twice that they refuse; a response that began and failed was announced
        if isinstance(event, LifecycleEvent):
            # Even if nobody takes the event any more, since its turn was left: a later one of it must be recognised.
            exchange.response_id = named
        return False

    def _unclaimed(self, event: ServerEvent, state: _LaneState | None) -> Exchange | Verdict:
        if event.__class__ is ErrorEvent:
            if event.stream_id is None:
                in_flight = list(self.exchanges())
                return in_flight[0] if len(in_flight) == 1 else Verdict.FATAL
            return Verdict.STRAY
        if state is None:
            return Verdict.DROPPED  # nothing was ever sent here, so nothing can be mistaken for its answer
        if isinstance(event, TerminalEvent) and event.response_id in state.finished:
            return Verdict.DROPPED  # a second terminal under another name: some servers send both
        return Verdict.STRAY


def _item_named_by(event: OutputEvent) -> str | None:
    """The id of the item an event is about."""
    named = event.raw.get("item_id")  # rather than the attribute: this is done for every delta
    if isinstance(named, str):
        return named
    return event.item.id if isinstance(event, (OutputItemAdded, OutputItemDone)) and event.item is not None else None


def _response_named_by(event: ServerEvent) -> str | None:
    """The id of the response an event names as the one it is about."""
    if isinstance(event, LifecycleEvent):
        return event.response_id
    named = event.raw.get("response_id")
    return named if isinstance(named, str) else member(event.raw, "response", "id")
