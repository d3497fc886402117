"""One turn: a request, its answer, and the block of the caller's code that waits for it.

The caller's task only queues, waits and reads. The turn's own task, in the session's nursery, gets the connection,
sends, and carries the scope that the turn's budgets act on.

Where the caller's task changes what the session holds, a KeyboardInterrupt has to wait for the next checkpoint: a turn
that has its lane by half would keep it for ever.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import trio

from engine.errors import TurnError
from engine.messages import AssistantMessage
from engine.options import Limits, OnCancel, PayloadHook, Timeouts
from engine.protocol.chain import Chain, Held, Plan
from engine.protocol.exchange import Exchange, is_cache_miss
from engine.protocol.failures import (
    Broken,
    Closed,
    Expired,
    Failure,
    Overflowed,
    TooLarge,
    Unreachable,
    to_error,
)
from engine.protocol.history import input_items, is_stored
from engine.protocol.requests import CreateText
from engine.reports import Delivery, PhaseSeconds, TurnReport
from engine.session.budgets import Budgets
from engine.session.submission import create_text, hooked
from engine.turn_events import TextDelta, ThinkingDelta, ToolCallDelta, TurnEvent

if TYPE_CHECKING:
    from engine.session.actor import Actor
    from engine.session.connection import Connection

__all__ = ["Turn"]

_DELTAS: Final = (TextDelta, ThinkingDelta, ToolCallDelta)
_EVENTS_PER_CHECKPOINT: Final = 64


class Turn:
    """A request and its answer: ``async with session.turn(...) as turn``, then iterate, or await `wait`.

    Entering waits until the lane is free. Leaving returns at once, whatever the state: a turn that has not ended is
    abandoned, its connection is given up, and no later turn can see anything of it.

    Iterating yields turn events and ends after `engine.TurnDone`; a failure raises a `engine.TurnError` after the
    events that came before it.
    """

    def __init__(
        self,
        actor: Actor,
        body: dict[str, Any],
        *,
        payload_hook: PayloadHook | None,
        timeouts: Timeouts,
        limits: Limits,
        on_cancel: OnCancel,
        text_format: Mapping[str, Any] | type | None = None,
        warm_up: bool = False,
        buffered: bool = True,
    ) -> None:
        self._actor = actor
        self._body = body
        self._payload_hook = payload_hook
        self._max_request_bytes = limits.number("max_request_bytes")
        self._max_events = limits.number("buffer_events")
        self._max_held = limits.number("buffer_bytes")
        self._budgets = Budgets(timeouts)
        self._scope = trio.CancelScope()
        self._admitted = trio.Event()
        self._done = trio.Event()
        self._over = trio.Event()
        self._parked = trio.lowlevel.ParkingLot()
        self._entered = False
        self._granted = False
        self._left = False
        self._reading = False
        self._buffered = buffered
        self._events: deque[TurnEvent] = deque()
        self._held = 0
        self._taken = 0
        self._message: AssistantMessage | None = None
        self._partial: AssistantMessage | None = None
        self._error: TurnError | None = None
        self._text: CreateText | None = None
        self._text_format = text_format
        self._warm_up = warm_up
        self._size = 0
        self._size_sent = 0
        self._chain = Chain()
        self._plan = Plan()
        self._full_because: str | None = None
        self._attempts = 0
        self._reused = False
        self._connection: Connection | None = None
        self._dialled: Connection | None = None
        self._draining: Connection | None = None
        self._tail_gone = trio.Event()
        self._times: dict[str, float] = {}
        self.timeouts = timeouts
        self.on_cancel = on_cancel
        self.flushed: bool = False
        self.context: contextvars.Context = contextvars.Context()  # its caller's, once the block is entered
        self.exchange: Exchange = Exchange(text_format=text_format)
        self.idle: float = timeouts.of("idle")
        self.last_progress: float | None = None

    # --- the caller's side ---

    async def __aenter__(self) -> Turn:
        """Queue the request and wait until the lane is granted.

        Raises:
            ConfigurationError: the request cannot be written as JSON.
            RequestTooLarge: it is over `engine.Limits.max_request_bytes`.
            TurnTimeout: the lane was not granted within the ``queue`` (or ``turn``) budget.
            SessionClosed: the session takes no more turns.

        If cancelled, the turn leaves the queue; nothing was sent.
        """
        if self._entered:
            raise RuntimeError("a turn can be entered only once")
        self._entered = True
        self.context = contextvars.copy_context()
        self._begin("entered", "turn")
        try:
            await self._prepare()
            self._actor.submit(self)
            if not self._admitted.is_set():
                self._budgets.start("queue", trio.current_time())
            with trio.CancelScope(deadline=self._budgets.deadline) as scope:
                await self._admitted.wait()
            if scope.cancelled_caught and not self._admitted.is_set():
                self._waited_long_enough()
            if self._error is not None and not self._granted:
                raise self._error
        except BaseException:
            self._leave()
            raise
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn. Has no checkpoint: it returns at once, whatever the turn's state."""
        self._leave()

    def __aiter__(self) -> Turn:
        return self

    async def __anext__(self) -> TurnEvent:
        """Return the next turn event.

        Raises:
            TurnError: the turn failed; the same error again if asked again.

        Cancelling loses no event.
        """
        self._check_reader()
        self._reading = True
        try:
            while not self._events and not self._done.is_set():
                await self._parked.park()
            self._taken += 1
            if self._events and self._taken % _EVENTS_PER_CHECKPOINT:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
        finally:
            self._reading = False
        self._check_reader()  # another task may have left the block meanwhile
        if self._events:
            event = self._events.popleft()
            self._held -= _weight(event)
            return event
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def wait(self) -> AssistantMessage:
        """Wait for the whole answer. From here on nothing is buffered, so it cannot overflow.

        Raises:
            TurnError: the turn failed.

        Cancelling only stops waiting; leaving the block is what abandons the turn.
        """
        self._check_reader()
        self._buffered = False
        self._events.clear()
        self._held = 0
        self._reading = True
        try:
            await self._done.wait()
        finally:
            self._reading = False
        if self._error is not None:
            raise self._error
        return self.message

    def _check_reader(self) -> None:
        if not self._entered:
            raise RuntimeError("enter the turn first: async with session.turn(...) as turn")
        if self._left:
            raise RuntimeError("the turn's block was left")
        if self._reading:
            raise RuntimeError("another task is reading this turn")

    @property
    def message(self) -> AssistantMessage:
        """The whole answer.

        Raises:
            RuntimeError: the turn has not ended.
            TurnError: it failed.
        """
        if self._error is not None:
            raise self._error
        if self._message is None:
            raise RuntimeError("the turn has not ended; turn.partial is what there is so far")
        return self._message

    @property
    def partial(self) -> AssistantMessage:
        """What has arrived of the answer so far; empty when nothing has."""
        return self._message or self._partial or self.exchange.partial() or AssistantMessage()

    @property
    def report(self) -> TurnReport:
        """What is known of the turn at this moment."""
        usage = self.partial.usage
        sent = self._attempts > 0
        return TurnReport(
            transport="websocket" if sent else None,
            attempts=self._attempts,
            connection_reused=self._reused,
            continued=self._plan.previous_response_id is not None,
            full_because=self._plan.full_because,
            bytes_sent=self._size_sent,
            bytes_full=self._size,
            cached_tokens=usage.cached_tokens if usage is not None else None,
            response_id=self.exchange.response_id,
            delivery=self.exchange.delivery,
            seconds=self._seconds(),
        )

    @property
    def room(self) -> int:
        """Bytes by which a later request may be larger than this one."""
        return self._max_request_bytes - self._size

    def _seconds(self) -> PhaseSeconds:
        def between(start: str, end: str) -> float | None:
            if start in self._times and end in self._times:
                return self._times[end] - self._times[start]
            return None

        return PhaseSeconds(
            queue=between("entered", "granted"),
            connect=between("granted", "connected"),
            send=between("connected", "sent"),
            first_event=between("sent", "first_event"),
            total=between("entered", "ended"),
        )

    # --- submission ---

    async def _prepare(self) -> None:
        """Let the caller's hook have its say, within the ``turn`` budget, then encode."""
        with trio.CancelScope(deadline=self._budgets.deadline) as scope:
            self._body = await hooked(self._body, self._payload_hook)
        if scope.cancelled_caught:
            self.fail(Expired("turn", self.timeouts.of("turn")))
            assert self._error is not None
            raise self._error
        self._text = create_text(self._body)
        self._size = len(self._text.frame().encode())
        if self._size > self._max_request_bytes:
            self.fail(TooLarge(self._size, self._max_request_bytes))
            assert self._error is not None
            raise self._error

    def _waited_long_enough(self) -> None:
        expired = self._budgets.expired(trio.current_time())
        assert expired is not None
        if expired.phase == "queue":
            self._budgets.stop("queue")
            self._actor.hurry(self)
        if not self._granted:
            self._actor.withdraw(self)
            self.fail(expired)

    # --- the lane's side ---

    def overdue(self, now: float) -> bool:
        """Whether a budget ran out while the turn was waiting."""
        return self._budgets.expired(now) is not None

    def grant(self, now: float) -> None:
        """The lane is the turn's own: start its task."""
        self._granted = True
        self._times["granted"] = now
        self._budgets.stop("queue")
        self._budgets.start("start", now)
        self._scope.deadline = self._budgets.deadline
        self._actor.start(self, self._run)
        self._admitted.set()

    # --- the turn's own task ---

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._drive()
            if not self._settled:
                expired = self._budgets.expired(trio.current_time())
                self.fail(expired or Closed("the turn was cancelled"))
            await self._drain()
        except Exception as error:
            self.fail(Broken(error))
        finally:
            self.fail(Closed("the session ended"))  # nothing, where the turn has ended already
            self._body, self._text = {}, None  # a turn kept for its message should not keep its request alive
            self._actor.release(self)

    async def _drive(self) -> None:
        text = self._text
        assert text is not None
        while not self._settled:
            connection = await self._actor.acquire(self.timeouts, self.joined)
            if self._settled:  # while the connection came about, and too late for a cancellation to be delivered
                return
            if isinstance(connection, Failure):
                self.fail(connection)
                return
            self._budgets.stop("connect")
            if self._warm_up and connection.fresh:
                self._actor.warm_up(connection, self._body, text, self.timeouts.of("warm_up"))
                self._warm_up = False  # once per turn: a warm-up that kills its connection must not do so again
            if connection.warming is not None:
                self._scope.deadline = self._budgets.deadline
                await connection.warming.wait()
                continue
            reused = connection.requests > 0
            self._begin("connected", "send")
            self._over = trio.Event()  # before anything can come back
            if not await connection.dispatch(self, self._planned(connection)):
                self._budgets.stop("send")
                if connection is self._dialled:
                    self.fail(connection.ending)
                continue
            self._connection = connection
            self._attempts += 1
            self._reused = reused
            self._actor.instruments.emit(
                "request_sent", self._actor.id, connection.number, self._size_sent, context=self.context
            )
            if self._settled:  # left, or its session released, while the frame was being queued
                self._forsake(wanted=True)
            await self._over.wait()

    def _planned(self, connection: Connection) -> str:
        """Use the chain up and give the frame: what is new, or everything and why."""
        assert self._text is not None
        self._chain = connection.chain
        self._plan = self._chain.take(self._body, stored=self._actor.stored)
        if self._full_because is not None:
            self._plan = Plan(full_because=self._full_because)
        frame = self._text.frame(
            stream_id=connection.lane,
            previous_response_id=self._plan.previous_response_id,
            skip=self._plan.skip,
        )
        self._size_sent = len(frame.encode())
        return frame

    async def _drain(self) -> None:
        """Hold the lane until the rest of the abandoned response has passed, within the ``drain`` budget."""
        if self._draining is None:
            return
        with trio.CancelScope(deadline=self._times["ended"] + self.timeouts.of("drain")):
            await self._tail_gone.wait()
        self.cut_short()

    def cut_short(self) -> bool:
        """Stop draining, if the turn does: give the connection up unless the response has ended."""
        connection, self._draining = self._draining, None
        if connection is None:
            return False
        if not self._tail_gone.is_set():
            self._tail_gone.set()
            self._actor.replace(connection, "the rest of an abandoned response took too long")
        return True

    def drained(self) -> None:
        """The abandoned response has ended, or its connection has."""
        self._tail_gone.set()

    def joined(self, connection: Connection) -> None:
        """The turn waits for a dial, whose clock may have been running for a while."""
        self._dialled = connection
        self._budgets.start("connect", connection.started_at)
        self._scope.deadline = self._budgets.deadline

    # --- the connection's side ---

    def passed(self, now: float) -> None:
        """The request's last byte was passed on."""
        self.flushed = True
        self._budgets.stop("send")
        if self.last_progress is None:
            self._times["sent"] = now
            self._budgets.start("first_event", now)
        self._scope.deadline = self._budgets.deadline

    def received(self, events: Sequence[TurnEvent], now: float) -> None:
        """Note an event of the response, and keep what the consumer should see of it."""
        if "first_event" not in self._times:
            self._times["first_event"] = now
            self._times.setdefault("sent", now)
            self._budgets.stop("start", "send", "first_event")
            self._scope.deadline = self._budgets.deadline
        if not events or not self._buffered or self._settled:
            return
        for event in events:
            self._events.append(event)
            self._held += _weight(event)
        if self._reading:
            self._parked.unpark_all()
        if self.exchange.outcome is not None:
            return  # nothing more can come, and an answer that is whole should not be lost to its last events
        if len(self._events) > self._max_events or self._held > self._max_held:
            self.fail(Overflowed(len(self._events), self._held))

    def ended(self) -> None:
        """The exchange has an outcome."""
        if self._settled:  # its last events were more than the buffer holds
            return
        outcome = self.exchange.outcome
        if isinstance(outcome, AssistantMessage):
            self._arm_chain(outcome)
            self._settle(message=outcome)
        elif self._plan.previous_response_id is not None and is_cache_miss(outcome):
            self._send_again()
        elif outcome is not None:
            self.fail(outcome)

    def _arm_chain(self, message: AssistantMessage) -> None:
        if not self.exchange.continuable or self.exchange.response_id is None:
            return
        output = input_items((message,), stored=is_stored(self._body))
        held = Held.after(self.exchange.response_id, self._body, output)
        self._chain.arm(held)
        if held is not None and held.stored:
            self._actor.stored = held

    def _send_again(self) -> None:
        """The server refused before it began, because it no longer holds what the request continues: send it whole.

        The one case in which the same connection is used again after a refusal, and once per turn: a whole request
        cannot be refused for this.
        """
        self._full_because = "the server no longer held the previous response"
        self._actor.stored = None
        self._connection = None
        self.exchange = Exchange(text_format=self._text_format)
        self.exchange.delivery = Delivery.REJECTED
        self.last_progress = None
        self.flushed = False
        self._times.pop("first_event", None)
        self._budgets.start("start", self._times["granted"])
        self._scope.deadline = self._budgets.deadline
        self._over.set()

    # --- how it ends ---

    @property
    def answered(self) -> bool:
        """Whether it ended with an answer."""
        return self._message is not None

    @property
    def _settled(self) -> bool:
        return self._done.is_set()

    def fail(self, failure: Failure) -> None:
        """End the turn with an error, unless it has ended."""
        if self._settled:
            return
        wanted = isinstance(failure, Overflowed) or failure == Expired("turn", self.timeouts.of("turn"))
        if isinstance(failure, Expired) and failure.phase == "connect":
            failure = Unreachable("timeout", f"no connection came about within {failure.seconds:g} s")
        error = to_error(failure)
        error.delivery = self.exchange.delivery
        error.partial = self.exchange.partial()
        self._settle(error=error, wanted=wanted)

    def _settle(
        self, *, message: AssistantMessage | None = None, error: TurnError | None = None, wanted: bool = True
    ) -> None:
        self._message = message
        self._error = error
        self._times["ended"] = trio.current_time()
        self._done.set()
        self._over.set()
        self._admitted.set()
        self._parked.unpark_all()
        if error is not None:
            error.report = self.report
        waiting = self._connection is None
        self._forsake(wanted=wanted)
        if waiting:  # its task waits for a connection that it no longer needs
            self._scope.cancel(reason="the turn has ended")
        if self._granted:
            self._actor.ended(self, error)

    def _forsake(self, *, wanted: bool) -> None:
        """Give up what is still in flight for this turn, by the cancel policy where that is ``wanted``."""
        connection, self._connection = self._connection, None
        if (
            connection is not None
            and self.exchange.outcome is None
            and self._actor.left(self, connection, wanted=wanted)
        ):
            self._draining = connection

    @trio.lowlevel.enable_ki_protection
    def _leave(self) -> None:
        """Abandon the turn if it has not ended. Synchronous: clean-up is the session's work."""
        if self._left:
            return
        self._left = True
        self._partial = self.partial  # what is still to come is nobody's
        self._events.clear()
        if not self._settled:
            self._actor.withdraw(self)
            self._settle()

    def _begin(self, moment: str, *phases: str) -> None:
        now = trio.current_time()
        self._times[moment] = now
        for phase in phases:
            self._budgets.start(phase, now)
        self._scope.deadline = self._budgets.deadline


def _weight(event: TurnEvent) -> int:
    """Bytes of the text an event holds, as UTF-8."""
    if not isinstance(event, _DELTAS):
        return 0
    return len(event.delta) if event.delta.isascii() else len(event.delta.encode("utf-8", "surrogatepass"))
