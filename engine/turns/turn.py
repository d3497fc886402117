"""One turn: a request, its answer, and the block of the caller's code that waits for it.

The caller's task only queues, waits and reads. The turn's own task, in the session's nursery, makes attempts: it gets a
connection, sends, and carries the scope that the turn's budgets act on. What is done about a failed attempt is decided
by `engine.protocol.recovery`.

Where the caller's task changes what the session holds, a KeyboardInterrupt has to wait for the next checkpoint: a turn
that has its lane by half would keep it for ever.
"""

from __future__ import annotations

import contextvars
import math
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import trio

from engine.connections.attempt import Attempt, StreamedAttempt
from engine.protocol.aftermath import Aftermath
from engine.protocol.chain import Held, Plan
from engine.protocol.failures import (
    Broken,
    Closed,
    Expired,
    Failure,
    Overflowed,
    TooLarge,
    to_error,
)
from engine.protocol.recovery import Decision, Recovery, Remedy, Setback
from engine.protocol.request_body import input_items, is_stored
from engine.settings.levels import Settings
from engine.settings.turn_options import TurnOptions
from engine.turns.inbox import Inbox
from engine.turns.submission import create_text, hooked
from engine.turns.texts import Texts
from engine.turns.timeline import Timeline
from engine.values.choices import Delivery, OnCancel, Transport, further
from engine.values.errors import TurnError
from engine.values.messages import AssistantMessage
from engine.values.reports import TurnReport
from engine.values.turn_events import TurnEvent
from engine.wire.requests import CreateText

if TYPE_CHECKING:
    from engine.connections.websocket_link import Connection
    from engine.turns.core import Actor

__all__ = ["Turn"]

_FORGOTTEN: Final = "the server no longer held the previous response"
_OVER_HTTP: Final = "every request over HTTP is whole"


class Turn:
    """A request and its answer: ``async with session.turn(...) as turn``, then iterate, or await `wait`.

    Entering waits until the lane is free. Leaving returns at once, whatever the state: a turn that has not ended is
    abandoned, its connection is given up, and no later turn can see anything of it.

    Iterating yields turn events and ends after `engine.TurnDone`; a failure raises a `engine.TurnError` after the
    events that came before it.
    """

    def __init__(
        self, actor: Actor, body: dict[str, Any], options: TurnOptions, settings: Settings, *, buffered: bool = True
    ) -> None:
        self._actor = actor
        self._body = body
        self._payload_hook = options.payload_hook
        self._text_format = options.text_format
        self._warm_up = options.warm_up
        self._settings = settings
        self._timeouts = settings.timeouts
        self._recovery = Recovery(settings.transport, settings.retry, keyed=actor.keyed)
        self._max_request_bytes = settings.limits.max_request_bytes
        self._timeline = Timeline(settings.timeouts)
        self._inbox = Inbox(settings.limits, keeping=buffered)
        self._scope: trio.CancelScope | None = None
        self._admitted = trio.Event()
        self._settled = False
        self._entered = False
        self._granted = False
        self._left = False
        self._message: AssistantMessage | None = None
        self._error: TurnError | None = None
        self._text: CreateText | None = None
        self._size = 0
        self._full_because: str | None = None
        self._attempt: Attempt | None = None
        self._sent: Attempt | None = None
        self._abandoned: Attempt | None = None
        self._gave_up = False
        self._before = Delivery.NOT_SENT
        self._dialled: Connection | None = None
        self._not_before = 0.0
        self._last_failure: Failure | None = None
        self.on_cancel: OnCancel = settings.on_cancel
        self.context: contextvars.Context = contextvars.Context()  # its caller's, once the block is entered

    # --- the caller's side ---

    async def __aenter__(self) -> Turn:
        """Queue the request and wait until the lane is granted.

        Raises:
            ConfigurationError: the request cannot be written as JSON.
            RequestTooLarge: it is over `engine.Limits.max_request_bytes`, and may travel over WebSocket only.
            TurnTimeout: the lane was not granted within the ``queue`` (or ``turn``) budget.
            SessionClosed: the session takes no more turns.

        If cancelled, the turn leaves the queue; nothing was sent.
        """
        if self._entered:
            raise RuntimeError("a turn can be entered only once")
        self._entered = True
        self.context = contextvars.copy_context()
        self._timeline.begin("entered", "turn", trio.current_time())
        try:
            await self._prepare()
            self._actor.submit(self)
            if self._admitted.is_set():
                await trio.lowlevel.checkpoint()
            else:
                await self._queue()
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
        if self._left or not self._entered:
            self._check_entered()
        if self._inbox.ready():
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self._inbox.wait()
            self._check_entered()  # another task may have left the block meanwhile
        event = self._inbox.take()
        if event is not None:
            return event
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def texts(self) -> Texts:
        """The answer's words as they come: ``async for text in turn.texts()``. Everything else is passed over."""
        return Texts(self)

    async def wait(self) -> AssistantMessage:
        """Wait for the whole answer. From here on nothing is buffered, so it cannot overflow.

        Raises:
            TurnError: the turn failed.

        Cancelling only stops waiting; leaving the block is what abandons the turn.
        """
        self._check_entered()
        await self._inbox.wait_closed()
        if self._error is not None:
            raise self._error
        return self.message

    def _check_entered(self) -> None:
        if self._left:
            raise RuntimeError("the turn's block was left")
        if not self._entered:
            raise RuntimeError("enter the turn first: async with session.turn(...) as turn")

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
        return self._message or self._arrived() or AssistantMessage()

    @property
    def report(self) -> TurnReport:
        """What is known of the turn at this moment."""
        usage = self.partial.usage
        sent = self._sent
        plan = sent.plan if sent is not None else Plan()
        return TurnReport(
            transport=sent.over if sent is not None else None,
            attempts=self._recovery.dispatches,
            connection_reused=sent is not None and sent.reused,
            continued=plan.previous_response_id is not None,
            full_because=plan.full_because,
            bytes_sent=sent.size if sent is not None else 0,
            bytes_full=self._size,
            cached_tokens=usage.cached_tokens if usage is not None else None,
            fallback_reason=self._recovery.fallback_reason,
            response_id=self._attempt.exchange.response_id if self._attempt is not None else None,
            delivery=self._delivery,
            seconds=self._timeline.seconds(),
        )

    @property
    def room(self) -> float:
        """Bytes by which a later request may be larger than this one; infinite where it could go over HTTP."""
        over_websocket = self._settings.transport is Transport.WEBSOCKET
        return self._max_request_bytes - self._size if over_websocket else math.inf

    # --- submission ---

    async def _prepare(self) -> None:
        """Let the caller's hook have its say, within the ``turn`` budget, then encode."""
        if self._payload_hook is None:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            with self._timeline.scope() as scope:
                self._body = await hooked(self._body, self._payload_hook)
            if scope.cancelled_caught:
                self.fail(Expired("turn", self._timeouts.turn))
                assert self._error is not None
                raise self._error
        self._text = create_text(self._body)
        self._size = len(self._text.frame().encode())
        if self._settings.transport is Transport.WEBSOCKET and self._oversized:
            self.fail(self._oversized)
            assert self._error is not None
            raise self._error

    @property
    def _oversized(self) -> TooLarge | None:
        """Why the request cannot go over a WebSocket, if what the server holds does not make it shorter."""
        if self._size <= self._max_request_bytes or self._actor.may_continue(self._body):
            return None
        return TooLarge(self._size, self._max_request_bytes)

    async def _queue(self) -> None:
        """Wait for the lane, within the budgets that bound that."""
        self._timeline.start("queue", trio.current_time())
        with self._timeline.scope() as scope:
            await self._admitted.wait()
        if not scope.cancelled_caught or self._admitted.is_set():
            return
        expired = self._timeline.expired(trio.current_time())
        assert expired is not None
        if expired.phase == "queue":
            self._timeline.stop("queue")
            self._actor.hurry(self)
        if not self._granted:
            self._actor.withdraw(self)
            self.fail(expired)

    # --- the lane's side ---

    def overdue(self, now: float) -> bool:
        """Whether a budget ran out while the turn was waiting."""
        return self._timeline.expired(now) is not None

    def grant(self, now: float) -> None:
        """The lane is the turn's own: start its task."""
        self._granted = True
        self._timeline.reach("granted", now)
        self._timeline.stop("queue")
        self._timeline.start("start", now)
        self._actor.start(self, self._run)
        self._admitted.set()

    def cut_short(self) -> bool:
        """Stop draining, if the turn does: give the connection up unless the response has ended."""
        attempt, self._abandoned = self._abandoned, None
        if attempt is None:
            return False
        if not attempt.tail_gone.is_set():
            attempt.tail_gone.set()
            assert attempt.connection is not None
            attempt.connection.retire("the rest of an abandoned response took too long")
            self._gave_up = True
        return True

    # --- the turn's own task ---

    async def _run(self) -> None:
        try:
            while not self._settled:
                self._scope = self._timeline.scope()
                with self._scope as scope:
                    if self._not_before > trio.current_time():
                        await trio.sleep_until(self._not_before)
                    await self._try()
                if scope.cancelled_caught and not self._settled:
                    self._setback(self._timeline.expired(trio.current_time()) or Closed("the turn was cancelled"))
            await self._drain()
        except Exception as error:
            self.fail(Broken(error))
        finally:
            self.fail(Closed("the session ended"))  # nothing, where the turn has ended already
            self._body, self._text = {}, None  # a turn kept for its message should not keep its request alive
            self._actor.release(self)
            for attempt in (self._attempt, self._sent):
                if attempt is not None:
                    attempt.forsake()
            self._dialled = None
            if self._gave_up:
                self._actor.dial_ahead()  # here, because whoever leaves a turn should not have to wait for it

    async def _try(self) -> None:
        """Make one attempt, or find out what stands in the way of one."""
        if self._recovery.over is Transport.SSE:
            await self._over_http()
        elif self._oversized is not None:
            self._setback(self._oversized)
        else:
            await self._over_websocket()

    async def _over_websocket(self) -> None:
        text = self._text
        assert text is not None
        cautious = self._settings.transport is Transport.AUTO
        connection = await self._actor.acquire(self._timeouts, self._joined, cautious=cautious)
        if self._settled:  # while the connection came about, and too late for a cancellation to be delivered
            return
        if isinstance(connection, Failure):
            self._setback(connection)
            return
        self._timeline.stop("connect")
        if self._warm_up and connection.fresh:
            self._actor.warm_up(connection, self._body, text, self._timeouts.warm_up)
            self._warm_up = False  # once per turn: a warm-up that kills its connection must not do so again
        if connection.warming is not None:
            await connection.warming.wait()
            return
        frame, plan = self._planned(connection)
        size = len(frame.encode())
        if size > self._max_request_bytes:
            self._setback(TooLarge(size, self._max_request_bytes))
            return
        connection.chain.use_up()
        attempt = Attempt(self, self._inbox, size, plan, connection=connection, **self._common)
        self._attempt = attempt
        self._timeline.begin("connected", "send", trio.current_time())
        attempt.queued = await connection.dispatch(attempt, frame)
        if attempt.queued:
            self._dispatched(attempt, connection.number)
        if self._settled:  # left, or its session released, while the frame was being queued
            self._abandon(attempt, wanted=True)
        elif attempt.queued:
            await attempt.finished.wait()
        elif attempt is self._attempt:
            self._attempt = None
            self._timeline.stop("send")
            if connection is self._dialled:
                self._setback(connection.ending)

    def _planned(self, connection: Connection) -> tuple[str, Plan]:
        """The frame: what is new, or everything, and why."""
        assert self._text is not None
        if self._full_because is not None:
            plan = Plan(full_because=self._full_because)
        else:
            plan = connection.chain.plan(self._body, server=self._actor.server, stored=self._actor.stored)
        previous = plan.previous_response_id
        return self._text.frame(stream_id=connection.lane, previous_response_id=previous, skip=plan.skip), plan

    async def _over_http(self) -> None:
        assert self._text is not None
        text = self._text.http_body(stream=True)
        plan = Plan(full_because=_OVER_HTTP)
        attempt = StreamedAttempt(
            self,
            self._inbox,
            len(text.encode()),
            plan,
            session=self._actor.id,
            instruments=self._actor.instruments,
            **self._common,
        )
        self._attempt = attempt
        await attempt.run(
            self._actor.http(),
            text,
            connect=self._timeouts.connect,
            max_event_bytes=self._settings.limits.max_message_bytes,
        )

    @property
    def _common(self) -> dict[str, Any]:
        return {
            "endpoint": self._actor.endpoint,
            "idle": self._timeouts.idle,
            "context": self.context,
            "text_format": self._text_format,
        }

    def _dispatched(self, attempt: Attempt, connection: int) -> None:
        self._sent = attempt
        self._recovery.dispatches += 1
        self._actor.instruments.emit("request_sent", self._actor.id, connection, attempt.size, context=self.context)

    async def _drain(self) -> None:
        """Hold the lane until the rest of the abandoned response has passed, within the ``drain`` budget."""
        if self._abandoned is None:
            return
        with trio.CancelScope(deadline=self._timeline.at("ended") + self._timeouts.drain):
            await self._abandoned.tail_gone.wait()
        self.cut_short()

    def _joined(self, connection: Connection) -> None:
        """The turn waits for a dial, whose clock may have been running for a while."""
        self._dialled = connection
        self._timeline.start("connect", connection.started_at)

    # --- the attempt's side ---

    def sending(self, attempt: Attempt, now: float) -> None:
        """An HTTP connection is there, and the first byte of the request is about to leave."""
        self._timeline.begin("connected", "send", now)
        self._dispatched(attempt, 0)

    def passed(self, attempt: Attempt, now: float) -> None:
        """The request's last byte was passed on."""
        if attempt is not self._attempt:
            return
        if attempt.last_progress is None:
            self._timeline.reach("sent", now)
            self._timeline.turn_over("send", "first_event", now)
        else:
            self._timeline.stop("send")

    def begun(self, attempt: Attempt, now: float) -> None:
        """The first event of the response arrived."""
        self._timeline.reach("first_event", now)
        if not self._timeline.reached("sent"):
            self._timeline.reach("sent", now)
        self._timeline.stop("start", "send", "first_event")

    def heard(self, attempt: Attempt, now: float) -> None:
        """Something of the response arrived over HTTP, where no connection watches over silence."""
        self._timeline.start("idle", now)

    def overflowed(self, attempt: Attempt) -> None:
        """The inbox holds more than it may."""
        if not self._settled:
            self.fail(Overflowed(len(self._inbox), self._inbox.held))

    def concluded(self, attempt: Attempt) -> None:
        """The exchange of the attempt has an outcome."""
        outcome = attempt.exchange.outcome
        if self._settled or attempt is not self._attempt:  # its last events may have been more than the inbox holds
            attempt.finished.set()
        elif isinstance(outcome, AssistantMessage):
            self._arm_chain(attempt, outcome)
            self._settle(message=outcome)
        elif outcome is not None:
            self._setback(outcome)

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """The attempt will have no outcome."""
        if attempt is self._attempt:
            self._setback(failure)

    def _arm_chain(self, attempt: Attempt, message: AssistantMessage) -> None:
        exchange = attempt.exchange
        if not exchange.continuable or exchange.response_id is None:
            return
        output = input_items((message,), stored=is_stored(self._body))
        held = Held.after(exchange.response_id, self._body, output)
        if attempt.chain is not None:
            attempt.chain.arm(held)
        if held is not None and held.stored and attempt.endpoint is self._actor.endpoint:  # no other server has it
            self._actor.stored = held

    # --- when an attempt fails ---

    def _setback(self, failure: Failure) -> None:
        """Do about a failure what the table says: try again, or end the turn with it."""
        if self._settled:
            return
        if isinstance(failure, Expired) and failure.phase == "connect":
            assert self._dialled is not None
            failure = self._dialled.too_slow(failure.seconds)
        if not self._actor.alive:
            self.fail(failure)
            return
        attempt = self._attempt
        setback = Setback(
            failure,
            over=self._recovery.over,
            delivery=attempt.exchange.delivery if attempt is not None else Delivery.NOT_SENT,
            output_seen=attempt is not None and attempt.exchange.output_seen,
            continued=attempt is not None and attempt.plan.previous_response_id is not None,
            untyped=not self._actor.server.typed_errors,
        )
        try:
            decision = self._recovery.decide(setback, left=self._timeline.left_to_start(trio.current_time()))
        except Exception as error:  # the policy's jitter is the caller's, and this may run in a connection's reader
            self.fail(Broken(error))
            return
        if decision.remedy is None:
            self.fail(failure)
        else:
            self._try_again(decision, failure)

    def _try_again(self, decision: Decision, failure: Failure) -> None:
        attempt, self._last_failure = self._attempt, failure
        if attempt is not None:
            self._before = further(self._before, attempt.exchange.delivery)
            if decision.remedy is Remedy.SAME_CONNECTION:
                self._full_because = _FORGOTTEN
                self._actor.stored = None
            elif attempt.exchange.outcome is None:
                self._abandon(attempt, wanted=False)
            elif attempt.connection is not None:
                attempt.connection.retire("a request that failed on it is sent over another")
            self._attempt = None
            attempt.finished.set()
        self._timeline.begin_again()
        self._not_before = trio.current_time() + decision.wait
        self._actor.tried_again(self, decision, self._recovery.fallback_reason)

    # --- how it ends ---

    @property
    def _delivery(self) -> Delivery:
        """How far the request got, over all attempts."""
        now = self._attempt.exchange.delivery if self._attempt is not None else Delivery.NOT_SENT
        return further(self._before, now)

    def _arrived(self) -> AssistantMessage | None:
        return self._attempt.exchange.partial() if self._attempt is not None else None

    @property
    def answered(self) -> bool:
        """Whether it ended with an answer."""
        return self._message is not None

    def fail(self, failure: Failure) -> None:
        """End the turn with an error, unless it has ended."""
        if self._settled:
            return
        wanted = isinstance(failure, Overflowed) or failure == Expired("turn", self._timeouts.turn)
        error = to_error(failure)
        if isinstance(failure, Expired) and self._last_failure is not None:
            error.__cause__ = to_error(self._last_failure)  # what the time was spent on
        error.delivery = self._delivery
        error.partial = self._arrived()
        self._settle(error=error, wanted=wanted)

    def _settle(
        self, *, message: AssistantMessage | None = None, error: TurnError | None = None, wanted: bool = True
    ) -> None:
        self._message = message
        self._error = error
        self._timeline.reach("ended", trio.current_time())
        self._settled = True
        self._admitted.set()
        self._inbox.close()
        if error is not None:
            error.report = self.report
        attempt = self._attempt
        reading = attempt is None or (attempt.over is Transport.SSE and attempt.exchange.outcome is None)
        if reading and self._scope is not None:
            self._scope.cancel(reason="the turn has ended")  # its task waits for a connection, or reads a stream
        if attempt is not None:
            self._abandon(attempt, wanted=wanted)
            attempt.finished.set()
        if self._granted:
            self._actor.ended(self, error)

    def _abandon(self, attempt: Attempt, *, wanted: bool) -> None:
        """Give up what a connection still does for an attempt, by the cancel policy where that is ``wanted``."""
        if attempt.queued and attempt.exchange.outcome is None:
            match self._actor.left(self, attempt, wanted=wanted):
                case Aftermath.DRAIN:
                    self._abandoned = attempt
                case Aftermath.RETIRE:
                    self._gave_up = True

    @trio.lowlevel.enable_ki_protection
    def _leave(self) -> None:
        """Abandon the turn if it has not ended. Synchronous: clean-up is the session's work."""
        if self._left:
            return
        self._left = True
        self._inbox.discard()
        if not self._settled:
            if self._attempt is not None:
                self._attempt.exchange.abandoned = True  # what is still to come is nobody's
            self._actor.withdraw(self)
            self._settle()
