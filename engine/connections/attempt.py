"""One attempt at a request: it is sent once, over one link, and what comes back is read.

A turn that is tried again makes another attempt, with an exchange of its own: nothing that still comes of the first can
be taken for the second's.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

import trio
from attrs import field, frozen

from engine.instruments import Instruments
from engine.protocol.chain import HeldResponse, Mark, Plan, transcript
from engine.protocol.exchange import Exchange
from engine.protocol.failures import Failure, Lost
from engine.protocol.faults import Fault
from engine.protocol.request_body import input_items, is_stored
from engine.protocol.seals import holds_seals
from engine.values.choices import Transport
from engine.values.messages import AssistantMessage
from engine.values.turn_events import TurnEvent

__all__ = ["Attempt", "Origin", "Sink"]


class Facts(TypedDict):
    """The origin of a request, as records of hooks have it."""

    session: str
    lane: str | None
    turn: int
    model: str | None


@frozen
class Origin:
    """The origin of a request.

    Attributes:
        session: The session's id.
        lane: The lane's name; None for the session's own.
        turn: The turn's number in its session; 0 where it is no turn's.
        model: The model that is asked.
        context: The context of the caller.
        instruments: The hooks that are told of it.
    """

    session: str
    lane: str | None
    turn: int
    model: str | None
    context: contextvars.Context = field(repr=False, eq=False)
    instruments: Instruments = field(repr=False, eq=False)

    @property
    def facts(self) -> Facts:
        """The fields that the record of every hook has of it."""
        return {"session": self.session, "lane": self.lane, "turn": self.turn, "model": self.model}

    def wants(self, hook: str) -> bool:
        """Whether a hook's record is worth making."""
        return self.instruments.wants(hook)

    def emit(self, hook: str, info: object) -> None:
        """Call a hook, in the caller's context."""
        self.instruments.emit(hook, info, self.context)


class Sink(Protocol):
    """The receiver of an attempt's events. Plain functions, called from the link's tasks."""

    @property
    def listening(self) -> bool:
        """Whether anything is done with events of the caller's: where not, none need be made."""
        ...

    def on_connected(self, attempt: Attempt, now: float) -> None:
        """A connection is there, and the request is about to be queued on it."""
        ...

    def on_sending(self, attempt: Attempt, now: float) -> None:
        """Everything queued before it has left, and the first byte of the request is about to."""
        ...

    def on_dispatched(self, attempt: Attempt) -> None:
        """The request is on its way."""
        ...

    def on_sent(self, attempt: Attempt, now: float) -> None:
        """The request's last byte was passed on."""
        ...

    def on_first_event(self, attempt: Attempt, now: float) -> None:
        """The first event of the response arrived."""
        ...

    def on_events(self, attempt: Attempt, events: Sequence[TurnEvent]) -> None:
        """The consumer should see these."""
        ...

    def on_batch_end(self) -> None:
        """Nothing more follows at once: let the consumer have what is there."""
        ...

    def on_answer(self, attempt: Attempt, message: AssistantMessage) -> None:
        """The response has ended, and this is the answer."""
        ...


class Attempt:
    """One sending of a request, the same over either transport.

    Attributes:
        origin: The turn, or the warm-up, whose request it is.
        number: Counts the attempts of its turn.
        body: The request's body, with its whole input.
        frame: The text that is sent.
        size: Bytes of that, as UTF-8.
        plan: The part of the input that it carries, and the reason.
        patience: Seconds that connecting may take, where its link connects for each request.
        transport: The transport that it goes over, `Transport.WEBSOCKET` or `Transport.SSE`; set by the link.
        headers: Fields of the answer's header, or of the upgrade's; set by the link.
        reused: Whether its connection has carried a request before; set by the link.
        exchange: The exchange that reads the server's answer.
        sink: The reader of its events; None once no reader is interested.
        queued: Whether the link has taken it: from then on only the link can say what became of it.
        sent_at: The time when its last byte was passed on, None before that.
        last_progress: The time when the last of its events came, None before the first.
        held: The items that the server holds after a clean end.
        transcript: The conversation after an answer, as far as it is known.
        failure: The reason for there being no answer, where the response itself does not give it.
        done: Set when there is nothing more to wait for.
        drained: Set when nothing of its response can come any more, after it was abandoned.
        on_begun: Called once the server has begun to generate: what the request continues may be forgotten.
        on_drained: Called then.
    """

    __slots__ = (
        "__weakref__",
        "body",
        "done",
        "drained",
        "exchange",
        "failure",
        "frame",
        "headers",
        "held",
        "last_progress",
        "number",
        "on_begun",
        "on_drained",
        "origin",
        "patience",
        "plan",
        "queued",
        "reused",
        "sending_at",
        "sent_at",
        "sink",
        "size",
        "transcript",
        "transport",
    )

    def __init__(
        self,
        origin: Origin,
        number: int,
        frame: str,
        plan: Plan,
        *,
        body: Mapping[str, Any],
        patience: float = math.inf,
        sink: Sink | None = None,
        text_format: Mapping[str, Any] | type | None = None,
    ) -> None:
        self.origin: Origin = origin
        self.number: int = number
        self.body: Mapping[str, Any] = body
        self.frame: str = frame
        self.size: int = len(frame.encode())
        self.plan: Plan = plan
        self.patience: float = patience
        self.transport: Transport = Transport.WEBSOCKET
        self.headers: Sequence[tuple[str, str]] = ()
        self.reused: bool = False
        self.exchange: Exchange = Exchange(text_format=text_format)
        self.sink: Sink | None = sink
        self.queued: bool = False
        self.sending_at: float | None = None
        self.sent_at: float | None = None
        self.last_progress: float | None = None
        self.held: HeldResponse | None = None
        self.transcript: tuple[Mapping[str, Any] | Mark, ...] | None = None
        self.failure: Failure | None = None
        self.done: trio.Event = trio.Event()
        self.drained: trio.Event = trio.Event()
        self.on_begun: Callable[[], None] | None = None
        self.on_drained: Callable[[], None] | None = None

    # --- what its link tells ---

    def connected(self) -> None:
        """A connection is there, and the request is about to be queued on it."""
        if self.sink is not None:
            self.sink.on_connected(self, trio.current_time())

    def sending(self) -> None:
        """The first byte of the request is about to leave: what was queued before it has."""
        self.sending_at = trio.current_time()
        if self.sink is not None:
            self.sink.on_sending(self, self.sending_at)

    @property
    def stuck(self) -> bool:
        """Whether a part of the request has left, and the rest has not."""
        return self.sending_at is not None and self.sent_at is None

    def dispatched(self) -> None:
        """The request is on its way."""
        self.queued = True
        if self.sink is not None:
            self.sink.on_dispatched(self)

    def sent(self) -> None:
        """The request's last byte was passed on."""
        self.sent_at = trio.current_time()
        self.frame = ""
        if self.sink is not None:
            self.sink.on_sent(self, self.sent_at)

    def kept_alive(self, now: float) -> None:
        """The server says that it goes on: progress, where there has been any."""
        if self.last_progress is not None:
            self.last_progress = now

    def conclude(self) -> None:
        """The exchange has an outcome."""
        exchange = self.exchange
        message = exchange.outcome
        if isinstance(message, AssistantMessage):
            output = input_items((message,), stored=is_stored(self.body))
            if exchange.continuable and exchange.response_id is not None:
                self.held = HeldResponse.after(exchange.response_id, self.body, output, waiting=exchange.waiting)
            if self.held is not None:
                self.transcript = self.held.items
            elif not exchange.injected:  # else there are outputs in places that are not known
                self.transcript = transcript(self.body, output)
            if self.sink is not None:
                self.sink.on_answer(self, message)
        self.done.set()

    def fail(self, failure: Failure) -> None:
        """There will be no answer."""
        if isinstance(failure, Lost) and failure.close_code == 1009:
            self.exchange.refused()  # the server would not even read it
        self.failure = failure
        self.done.set()

    def end_drain(self) -> None:
        """Nothing of its response can come any more."""
        self.drained.set()
        on_drained, self.on_drained = self.on_drained, None
        if on_drained is not None:
            on_drained()

    def may_cause(self, fault: Fault) -> bool:
        """Whether the request has what the fault is about."""
        continues = self.plan.previous_response_id is not None or self.body.get("previous_response_id") is not None
        if fault is Fault.CACHE_MISS or continues:
            return continues
        return fault is not Fault.SEAL or self.body.get("conversation") is not None or holds_seals(self.body)

    # --- what its owner tells ---

    def forget(self) -> None:
        """Let go of its turn, which is over: turn and link can each be freed at once."""
        self.sink = self.on_begun = None
        self.body = {}
        self.frame = ""

    @property
    def result(self) -> AssistantMessage | Failure | None:
        """The answer, or why there is none; None while neither is known."""
        return self.exchange.outcome if self.exchange.outcome is not None else self.failure
