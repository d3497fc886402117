"""One request and its responses. Which events are its own, `engine.protocol.routing` says.

There is one response, or where the request is steered several: each goes on where the one before it stopped, and all of
them together are one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import evolve

from engine.protocol.assembly import Assembly
from engine.protocol.display import Oddity, made_call_id
from engine.protocol.exchange_states import AWAITING, DELIVERIES, TRANSITIONS, ExchangeState
from engine.protocol.failures import Failed, Failure, Mismatched, Violated
from engine.protocol.faults import Fault
from engine.protocol.refusals import code_of, rejection, wait_asked_for, wait_in_words
from engine.protocol.shortcut import Shortcut
from engine.protocol.steers import Steer, Steers, SteerState, refusal_of
from engine.values.choices import Delivery
from engine.values.messages import AssistantMessage, Message
from engine.values.turn_events import TurnContinued, TurnDone, TurnEvent, TurnStarted
from engine.wire.base import attach
from engine.wire.control_events import ErrorEvent, SteerEvent
from engine.wire.events import (
    LifecycleEvent,
    OutputEvent,
    ResponseFailed,
    ResponseIncomplete,
    ServerEvent,
    TerminalEvent,
    UnknownEvent,
)

__all__ = ["FOREIGN_TERMINALS", "TERMINAL_TYPES", "Exchange", "LaneName"]

LaneName: TypeAlias = str | None

FOREIGN_TERMINALS: Final[dict[str, str | None]] = {"response.cancelled": "cancelled", "response.error": None}
"""Terminals that no schema has and that some servers send all the same, with the code that stands in for their own."""

TERMINAL_TYPES: Final = frozenset({"response.completed", "response.done", "response.failed", "response.incomplete"})
"""The types of terminals."""


class Exchange:
    """One request and its responses.

    Args:
        lane: The ``stream_id`` it is sent with; None on the default lane.
        text_format: The form that the text of a whole answer has to have; None for any text.
        made_call_id: Makes the id of a call that has none of its own.

    Attributes:
        lane: The ``stream_id`` it was sent with; None on the default lane.
        state: The stage of its life; changed only as `engine.protocol.exchange_states` allows.
        output_seen: Whether the caller was shown anything but the start.
        response_id: The server's id of the response, once known; of several, of the newest.
        abandoned: Whether its turn was left: from then on only the end of its response is of interest, and what has
            arrived of the answer stays as it was.
        outcome: The answer or the failure, once the last response has ended.
        continuable: Whether the last response ended in such a way that a request may continue it.
        injected: The ids of the calls whose outputs were handed to its response while that ran.
        shortcut: The way of its last event, where another delta can take it without being routed; None where none can.
    """

    __slots__ = (
        "_as_held",
        "_assembly",
        "_earlier",
        "_oddities",
        "_steers",
        "_text_format",
        "abandoned",
        "continuable",
        "injected",
        "lane",
        "outcome",
        "output_seen",
        "response_id",
        "shortcut",
        "state",
    )

    def __init__(
        self, lane: LaneName = None, *, text_format: Any = None, made_call_id: Callable[[], str] = made_call_id
    ) -> None:
        self._text_format = text_format
        self.lane: LaneName = lane
        self.state: ExchangeState = ExchangeState.NOT_SENT
        self.output_seen: bool = False
        self.response_id: str | None = None
        self.abandoned: bool = False
        self.continuable: bool = False
        self.outcome: AssistantMessage | Failure | None = None
        self.injected: frozenset[str] = frozenset()
        self.shortcut: Shortcut | None = None
        self._assembly = Assembly(made_call_id=made_call_id)
        self._earlier: list[Message] = []  # of a steered request: what came before the present response
        self._as_held = True  # whether that is what the server holds
        self._oddities: Counter[Oddity] | None = None  # of that
        self._steers = Steers()

    @property
    def delivery(self) -> Delivery:
        """The request's delivery state."""
        return DELIVERIES[self.state]

    def _move(self, state: ExchangeState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"an exchange that is {self.state.value} cannot become {state.value}")
        self.state = state

    # --- what a link tells ---

    def dispatched(self) -> None:
        """Its frame is about to enter the outbox: from now on it may have been delivered."""
        self._move(ExchangeState.AMBIGUOUS)

    def withdrawn(self) -> None:
        """Its frame turned out not to have left."""
        if self.state is ExchangeState.AMBIGUOUS:
            self._move(ExchangeState.NOT_SENT)

    def refused(self) -> None:
        """The server turned it away without beginning, by other means than an event of the exchange's own."""
        if self.state is ExchangeState.AMBIGUOUS:
            self._move(ExchangeState.REJECTED)

    def abandon(self) -> None:
        """Its turn was left: from now on only the end of its response is of interest."""
        self.abandoned = True
        self.shortcut = None

    # --- steering ---

    @property
    def steerable(self) -> bool:
        """Whether a response runs that can be named."""
        return self.state is ExchangeState.ACCEPTED and self.response_id is not None

    def steer(self, steer: Steer) -> str:
        """Take note of a steer whose frame is about to enter the outbox, and return the response it is for."""
        if not self.steerable or self.response_id is None:
            raise RuntimeError(f"an exchange that is {self.state.value} cannot be steered")
        self._steers.add(steer, self.response_id)
        return self.response_id

    @property
    def steered(self) -> bool:
        """Whether a steer was sent."""
        return bool(self._steers)

    @property
    def steering(self) -> bool:
        """Whether the server has still to do something about a steer, so that the answer is not at its end."""
        return self._steers.outstanding

    @property
    def awaits_steer_answer(self) -> bool:
        """Whether the server has not said yet whether it takes a steer."""
        return self._steers.any_of(SteerState.SENT)

    @property
    def settled(self) -> bool:
        """Whether it is known which responses there are to come for steers, after the end: none."""
        return not self._steers.outstanding and not self._steers.in_doubt

    @property
    def unapplied(self) -> tuple[Mapping[str, Any], ...]:
        """The items of steers that no response was given, as far as is known; not those that the server refused."""
        return self._steers.unapplied

    @property
    def waiting(self) -> int:
        """The number of messages at the end of the answer's parts that wait at the server for the outputs of calls."""
        return len(self._steers.waiting)

    def concerns(self, event: SteerEvent) -> bool:
        """Whether an event is about a steer of its own."""
        return self._steers.concerns(event)

    # --- what the server says ---

    def _accepted(self) -> None:
        if self.state is ExchangeState.AMBIGUOUS or self.state is ExchangeState.NOT_SENT:
            self._move(ExchangeState.ACCEPTED)

    def _end(self, outcome: AssistantMessage | Failure) -> None:
        self._move(ExchangeState.ENDED)
        self.outcome = outcome

    @property
    def oddities(self) -> Mapping[Oddity, int]:
        """The oddities of its response, counted by kind."""
        return self._assembly.oddities if self._oddities is None else self._oddities + self._assembly.oddities

    def partial(self) -> AssistantMessage | None:
        """The part of the answer that has arrived, None when nothing has."""
        newest = self._assembly.partial()
        if not self._earlier:
            return newest
        parts = self._earlier if newest is None else [*self._earlier, newest]
        return evolve(AssistantMessage.joined(parts), stop_reason=None)

    def receive(self, event: ServerEvent) -> list[TurnEvent]:
        """Take an event that was routed here; return what the caller should see of it."""
        if self.abandoned:
            self._watch_for_end(event)
            return []
        if self.output_seen and isinstance(event, OutputEvent):
            events = self._assembly.feed(event)
            self.shortcut = self._assembly.shortcut
            return events
        self.shortcut = None
        if isinstance(event, ErrorEvent) and event.refuses_an_event and self.awaits_steer_answer:
            event = refusal_of(event)
        if isinstance(event, SteerEvent):
            return self._answered(event)
        if isinstance(event, ErrorEvent):
            self._refuse(event)
            return self._shown(self._assembly.finish(None))
        if self._turned_away(event):
            return self._shown(self._assembly.finish(None))
        self._accepted()
        if isinstance(event, LifecycleEvent):
            if self.state in AWAITING:
                return self._between(event)
            self.response_id = event.response_id or self.response_id  # some servers rename it in every event
            if isinstance(event, TerminalEvent):
                return self._ended(event)
        elif event.__class__ is UnknownEvent:
            end = _unknown_end(event, self.response_id)
            if end is not None:
                self._end(end)
                return self._shown(self._assembly.finish(None))
        return self._shown(self._assembly.feed(event))

    def _watch_for_end(self, event: ServerEvent) -> None:
        if isinstance(event, SteerEvent):
            return
        if isinstance(event, ErrorEvent) and event.refuses_an_event and self.awaits_steer_answer:
            return
        if isinstance(event, ErrorEvent):
            self._refuse(event)
            return
        if self._turned_away(event):
            return
        self._accepted()
        if isinstance(event, TerminalEvent):
            self._end(_failure(event) or AssistantMessage())
        elif event.__class__ is UnknownEvent and (end := _unknown_end(event, self.response_id)) is not None:
            self._end(end)

    def _shown(self, events: list[TurnEvent]) -> list[TurnEvent]:
        if events and not self.output_seen:
            self.output_seen = True
            events.insert(0, TurnStarted(self.response_id))
        return events

    def _refuse(self, event: ErrorEvent) -> None:
        if self.state is not ExchangeState.ACCEPTED and self.state not in AWAITING:
            self._move(ExchangeState.REJECTED)
            self.outcome = rejection(event)
            return
        self._end(
            Failed(
                code_of(event),
                event.error_type,
                self.response_id,
                event.message or "",
                status=event.status,
                retry_after=wait_asked_for(event),
            )
        )

    def _turned_away(self, event: ServerEvent) -> bool:
        """Whether the server says that the response failed before it has said that it began: a refusal."""
        if self.state is not ExchangeState.AMBIGUOUS or event.type != "response.failed":
            return False
        self._move(ExchangeState.REJECTED)
        self.outcome = _failure(event) if isinstance(event, ResponseFailed) else _unknown_end(event, None)
        return True

    def _ended(self, event: TerminalEvent) -> list[TurnEvent]:
        events = self._assembly.finish(event.response, incomplete=isinstance(event, ResponseIncomplete))
        failure = _failure(event)
        if failure is not None:
            self._end(failure)
            return self._shown(events)
        message = self._assembly.message()
        if not message.content and event.response.error:  # complete, it says, and that it failed
            self._end(_failed(event.response.error, None, self.response_id))
            return self._shown(events)
        if self.injected:
            self._as_held = False  # the server has the outputs besides, in their places
            if self.injected.issuperset(call.call_id for call in message.tool_calls):
                message = evolve(message, stop_reason="stop")
        cut = isinstance(event, ResponseIncomplete) or event.response.status == "incomplete"
        self._as_held = self._as_held and self._assembly.as_held
        self.continuable = self._as_held and (not cut or event.response.incomplete_reason == "steered")
        if not self._steers:
            return self._shown([*events, *self._conclude(message, ExchangeState.ENDED)])
        self._earlier.append(message)
        self._oddities = self._assembly.oddities + (self._oddities or Counter())
        self._assembly = Assembly(after=self._assembly)
        return self._shown([*events, *self._go_on()])

    def _conclude(self, message: AssistantMessage, state: ExchangeState) -> Sequence[TurnEvent]:
        """The whole answer is there."""
        text_format = self._text_format
        if text_format is not None and message.stop_reason == "stop" and not message.refusal:
            try:
                message = evolve(message, parsed=message.parsed_as(text_format))
            except ValueError as mismatch:
                self.continuable = False
                self._end(Mismatched(mismatch, self.response_id))
                return ()
        self._move(state)
        self.outcome = message
        self.continuable = self.continuable and self.settled
        return (TurnDone(message.stop_reason or "stop", message),)

    # --- what the server says of steers ---

    def _go_on(self) -> Sequence[TurnEvent]:
        """A response has ended well: wait for what the server does about steers, if it has to; else that was all."""
        steers = self._steers
        if steers.any_of(SteerState.SENT):
            state = ExchangeState.AWAITING_ACK
        elif steers.any_of(SteerState.ACCEPTED):
            state = ExchangeState.AWAITING_SUCCESSOR
        else:
            waits = steers.any_of(SteerState.WAITING)
            last = ExchangeState.AWAITING_INPUT if waits else ExchangeState.ENDED
            return self._conclude(AssistantMessage.joined([*self._earlier, *steers.waiting]), last)
        if state is not self.state:
            self._move(state)
        return ()

    def _answered(self, event: SteerEvent) -> list[TurnEvent]:
        self._steers.receive(event, newest=self.response_id)
        return self._shown([*self._go_on()]) if self.state in AWAITING else []

    def _between(self, event: LifecycleEvent) -> list[TurnEvent]:
        """Take what comes between a response's good end and its successor: the beginning of that, or a failure."""
        if isinstance(event, TerminalEvent):
            failure = _failure(event)
            if failure is not None:
                self._end(failure)
            return []
        shown = self._shown([TurnContinued(event.response_id)])
        self._move(ExchangeState.ACCEPTED)
        self._earlier += self._steers.apply()
        self.response_id, self.continuable = event.response_id, False
        return [*shown, *self._assembly.feed(event)]


def _failure(event: TerminalEvent) -> Failed | None:
    """Return the failure that a terminal event tells of; None for an answer, a cut one included."""
    response = event.response
    if isinstance(event, ResponseFailed) or response.status in {"failed", "cancelled"}:
        error = response.raw.get("error") or event.raw.get("error")
        return _failed(error, "cancelled" if response.status == "cancelled" else None, response.id)
    incomplete = isinstance(event, ResponseIncomplete) or response.status == "incomplete"
    if incomplete and response.incomplete_reason == "content_filter":
        return Failed("content_filter", response_id=response.id)
    return None


def _failed(error: object, fallback: str | None, response_id: str | None) -> Failed:
    event = ErrorEvent()
    attach(event, {"type": "error", "error": error})
    failed = Failed(code_of(event) or fallback, event.error_type, response_id, event.message or "", status=event.status)
    return evolve(failed, retry_after=wait_in_words(failed.message)) if failed.fault is Fault.RATE else failed


def _unknown_end(event: ServerEvent, response_id: str | None) -> Failure | None:
    """Return the end that an event of no known shape tells of; None when it does not end the response."""
    if event.type != "response.failed" and event.type not in FOREIGN_TERMINALS:
        missing = event.type in TERMINAL_TYPES
        return Violated(f"the event {event.type} held no response") if missing else None
    fallback = FOREIGN_TERMINALS.get(event.type)
    response = event.raw.get("response")
    for holder in (event.raw, response):
        error = holder.get("error") if isinstance(holder, dict) else None
        if isinstance(error, dict | str):
            return _failed(error, fallback, response_id)
    return Failed(fallback, response_id=response_id)
