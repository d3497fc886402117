"""The work of one turn: gate, link, attempt, and another attempt where the first one fails.

Its task lives in the session's nursery, and its scope carries the turn's budgets, and no other's. It never surrounds
what is sent or received: the task only waits, for a link or for the end of an attempt. What is done about a failed
attempt is decided by `engine.protocol.recovery`.

Where the caller's task changes what the session holds, a KeyboardInterrupt has to wait for the next checkpoint: a turn
that has its lane by half would keep it for ever.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import trio
from attrs import evolve

from engine.connections.attempt import Attempt, Origin
from engine.connections.gates import Gate as RateGate
from engine.connections.link import Link
from engine.connections.websocket_link import WebSocketLink
from engine.instruments import FallbackInfo, RequestInfo, RetryInfo, TurnEndInfo, TurnStartInfo
from engine.protocol.aftermath import Aftermath
from engine.protocol.chain import Plan
from engine.protocol.failures import (
    Broken,
    Closed,
    Expired,
    Failed,
    Failure,
    Overflowed,
    RequestRefused,
    Throttled,
    TooLarge,
    to_error,
)
from engine.protocol.faults import Fault
from engine.protocol.recovery import Decision, Recovery, Remedy, Setback
from engine.protocol.refusals import lower_case, request_id, telling
from engine.protocol.seals import is_sealed
from engine.protocol.states import move
from engine.settings.levels import Settings
from engine.turns.inbox import Inbox
from engine.turns.lane import Lane
from engine.turns.states import WORK_TRANSITIONS, WorkState
from engine.turns.submission import Submission
from engine.turns.timeline import Timeline
from engine.values.choices import Delivery, Transport, further
from engine.values.errors import TurnError
from engine.values.messages import AssistantMessage
from engine.values.reports import TurnReport
from engine.values.turn_events import TurnEvent

__all__ = ["Gate", "Work"]

_logger = logging.getLogger("engine.turn")

Gate: TypeAlias = Callable[[], Awaitable[None]]
"""Awaited before each dispatch of a turn, resends included; what it raises ends the turn, as it is."""

# Remedies that need nothing but the connection there is → why the request is whole then.
_ON_THE_SAME: Final = {
    Remedy.SAME_CONNECTION: "the server no longer held the previous response",
    Remedy.UNSEALED: "the server could not read sealed reasoning",
}

# Budgets that end a silence. What has come in and was not read yet, because the process was busy, is no silence.
_SILENCES: Final = frozenset({"start", "first_event", "idle"})
_LOOKS: Final = 8
_QUIET_LOOKS: Final = 2


class Work:
    """What a session does for one turn.

    Args:
        lane: The lane it takes its turn on.
        submission: What is asked.
        settings: What holds for it.
        buffered: Whether its events will be read.
        gate: Awaited before each dispatch.

    Attributes:
        state: Where it is; changed only as `engine.turns.states` allows.
        inbox: The events that were not read yet.
        timeline: When what happened, and what may take how long.
        message: The answer, once it has come.
        error: What ended it otherwise.
        context: The context of the caller.
    """

    def __init__(
        self, lane: Lane, submission: Submission, settings: Settings, *, buffered: bool, gate: Gate | None = None
    ) -> None:
        self._lane = lane
        self._pool = lane.pool
        self._submission = submission
        self._settings = settings
        self._timeouts = settings.timeouts
        self._gate = gate
        self._recovery = Recovery(
            settings.transport, settings.retry, renewable_key=callable(self._pool.endpoint.api_key)
        )
        self.state: WorkState = WorkState.QUEUED
        self.timeline: Timeline = Timeline(settings.timeouts)
        self.inbox: Inbox = Inbox(settings.limits, keeping=buffered)
        self.message: AssistantMessage | None = None
        self.error: Exception | None = None
        self.context: contextvars.Context = contextvars.Context()  # its caller's, once the block is entered
        self._origin: Origin | None = None
        self._scope: trio.CancelScope | None = None
        self._admitted = trio.Event()
        self._link: Link | None = None
        self._attempt: Attempt | None = None
        self._sent: Attempt | None = None
        self._aftermath = Aftermath.NOTHING
        self._delivered = Delivery.NOT_SENT  # by attempts that were given up
        self._joined: WebSocketLink | None = None
        self._barred: Lane | None = None  # the lane that waits until the server has begun with this
        self._rate_gate: RateGate | None = None  # where it waits, or has gone first
        self._full_because: str | None = None
        self._unread = 0  # what the link had dropped before this attempt
        self._again = False  # whether the next attempt is the last one, sent again where that was refused
        self._not_before = 0.0
        self._last_failure: Failure | None = None

    # --- the caller's side ---

    async def submit(self) -> None:
        """Queue the request and wait until the lane is granted; see `engine.turns.turn.Turn.__aenter__`."""
        self._lane.tasks.check_caller()
        self.context = contextvars.copy_context()
        self.timeline.begin("entered", "turn", trio.current_time())
        self._submission.prepend(self._lane.inherited)
        await self._prepare()
        self._lane.submit(self)
        if self._admitted.is_set():
            await trio.lowlevel.checkpoint()
        else:
            await self._queue()
        if self.error is not None and not self.timeline.reached("granted"):
            raise self.error

    async def _prepare(self) -> None:
        """Let the caller's hook have its say, within the ``turn`` budget, then encode."""
        submission = self._submission
        if not submission.hooked:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            with self.timeline.scope() as scope:
                await submission.ask_hook()
            if scope.cancelled_caught:
                raise self._failed(Expired("turn", self._timeouts.turn))
        submission.leave_out(self._lane.refused_seals)
        submission.encode()
        if self._settings.transport is Transport.WEBSOCKET and (oversized := self._oversized) is not None:
            raise self._failed(oversized)

    def _failed(self, failure: Failure) -> Exception:
        self.fail(failure)
        assert self.error is not None
        return self.error

    async def _queue(self) -> None:
        """Wait for the lane, within the budgets that bound that."""
        self.timeline.start("queue", trio.current_time())
        with self.timeline.scope() as scope:
            await self._admitted.wait()
        if not scope.cancelled_caught or self._admitted.is_set():
            return
        expired = self.timeline.expired(trio.current_time())
        assert expired is not None
        if expired.phase == "queue":
            self.timeline.stop("queue")
            self._lane.claim(self)
        if self.state is WorkState.QUEUED:
            self.fail(expired)

    @trio.lowlevel.enable_ki_protection
    def leave(self) -> None:
        """Abandon it if it has not ended. Synchronous: clean-up is the session's work."""
        self.inbox.discard()
        if self.settled:
            return
        if self._attempt is not None:
            self._attempt.exchange.abandon()  # what is still to come counts for nothing
        self._settle()

    # --- what is known of it ---

    @property
    def settled(self) -> bool:
        """Whether it has ended for its caller."""
        return self.state is WorkState.ENDED or self.state is WorkState.DRAINING

    @property
    def arrived(self) -> AssistantMessage | None:
        """What has come of the answer; None while nothing has."""
        return self.message or (self._attempt.exchange.partial() if self._attempt is not None else None)

    @property
    def delivery(self) -> Delivery:
        """How far the request got, over all attempts."""
        now = self._attempt.exchange.delivery if self._attempt is not None else Delivery.NOT_SENT
        return further(self._delivered, now)

    @property
    def report(self) -> TurnReport:
        """What is known of the turn at this moment."""
        arrived, sent = self.arrived, self._sent
        usage = arrived.usage if arrived is not None else None
        model = arrived.model if arrived is not None else None
        asked = self._origin.model if self._origin is not None else self._submission.model
        fields = lower_case(sent.headers) if sent is not None else {}
        plan = sent.plan if sent is not None else Plan()
        return TurnReport(
            transport=sent.transport if sent is not None else None,
            model=model or asked,
            usage=usage,
            lane=self._lane.name,
            attempts=self._recovery.dispatches,
            connection_reused=sent is not None and sent.reused,
            continued=plan.previous_response_id is not None,
            full_because=plan.full_because,
            bytes_sent=sent.size if sent is not None else 0,
            bytes_full=self._submission.size,
            cached_tokens=usage.cached_tokens if usage is not None else None,
            fallback_reason=self._recovery.fallback_reason,
            response_id=self._attempt.exchange.response_id if self._attempt is not None else None,
            request_id=request_id(fields),
            headers=telling(fields),
            delivery=self.delivery,
            seconds=self.timeline.seconds(),
        )

    @property
    def room(self) -> float:
        """Bytes by which a later request may be larger than this one; infinite where it could go over HTTP."""
        over_websocket = self._settings.transport is Transport.WEBSOCKET
        return self._settings.limits.max_request_bytes - self._submission.size if over_websocket else math.inf

    @property
    def _oversized(self) -> TooLarge | None:
        """Why the request cannot go over a WebSocket, if what the server holds does not make it shorter."""
        size, limit = self._submission.size, self._settings.limits.max_request_bytes
        lane = self._lane
        if size <= limit or self._pool.may_continue(lane.name, self._submission.body, lane.stored):
            return None
        return TooLarge(size, limit)

    # --- the lane's side ---

    def overdue(self, now: float) -> bool:
        """Whether a budget ran out while it was waiting."""
        return self.timeline.expired(now) is not None

    def grant(self, now: float) -> None:
        """The lane is its own: now it needs a place, if it goes over a WebSocket."""
        if self._recovery.transport is Transport.SSE:
            self.on_place(now)
        else:
            self._pool.places.ask(self)

    def on_place(self, now: float) -> None:
        """It has a lane and a place: start its task."""
        self._move(WorkState.RUNNING)
        lane = self._lane
        self._origin = Origin(
            lane.session, lane.name, lane.number(), self._submission.model, self.context, lane.instruments
        )
        self.timeline.reach("granted", now)
        self.timeline.stop("queue")
        self.timeline.start("start", now)
        lane.counters.started += 1
        try:
            if self._origin.wants("turn_started"):
                server = self._pool.endpoint.websocket.netloc
                self._origin.emit("turn_started", TurnStartInfo(**self._origin.facts, server=server))
        finally:  # a hook may raise what ends the program; without its task the turn would keep its lane for ever
            lane.start(self.context, self._run)
            self._admitted.set()

    def _move(self, state: WorkState) -> None:
        self.state = move(WORK_TRANSITIONS, self.state, state)

    def stop_draining(self) -> bool:
        """Stop draining, if that is what it does: give the connection up unless the response has ended."""
        if self.state is not WorkState.DRAINING:
            return False
        assert self._link is not None
        assert self._attempt is not None
        if not self._attempt.drained.is_set():
            self._link.settle(self._attempt)
            self._aftermath = Aftermath.RETIRE
        self._move(WorkState.ENDED)
        return True

    # --- its task ---

    async def _run(self) -> None:
        try:
            while not self.settled:
                self._scope = self.timeline.scope()
                with self._scope as scope:
                    await self._go_on()
                if scope.cancelled_caught and not self.settled:
                    expired = await self._expired()
                    if expired is not None:
                        self._setback(expired)
            await self._drain()
        except Exception as error:
            self.fail(Broken(error))
        finally:
            self.fail(self._lane.tasks.ending)  # nothing, where it has ended already
            if self.state is WorkState.DRAINING:
                self._move(WorkState.ENDED)
            self._submission.forget()
            self._give_place_back()
            self._lane.release(self)
            for attempt in (self._attempt, self._sent):
                if attempt is not None:
                    attempt.forget()
            self._link = self._joined = None
            if self._aftermath is Aftermath.RETIRE:
                self._pool.dial_ahead(
                    self._lane.name
                )  # here, because the one who leaves a turn should not have to wait for it

    async def _go_on(self) -> None:
        """Make an attempt, or wait for the end of the one there is."""
        if self._attempt is None:
            if self._not_before > trio.current_time():
                await trio.sleep_until(self._not_before)
            if self._gate is not None:
                await self._pass(self._gate)
            if not self.settled:
                await self._wait_for_rate()
            if not self.settled:
                await self._begin()
        attempt = self._attempt
        if attempt is None or self.settled:
            return
        if not attempt.done.is_set():
            await attempt.done.wait()
        result = attempt.result
        if not self.settled and not isinstance(result, AssistantMessage):
            assert result is not None
            self._setback(result)

    async def _wait_for_rate(self) -> None:
        """Wait out a limit of the server's rate that was told to any turn of the engine's."""
        gate = self._pool.gates.of(self._submission.model)
        if gate is None:
            return
        remaining = gate.rule.remaining
        if remaining > 0 and remaining >= self.timeline.left_to_start(trio.current_time()):
            self.fail(self._last_failure or Throttled(remaining))
            return
        self._rate_gate = gate
        await gate.wait(self)

    def _leave_rate_gate(self) -> None:
        gate, self._rate_gate = self._rate_gate, None
        if gate is not None:
            gate.left(self)

    async def _pass(self, gate: Gate) -> None:
        try:
            await gate()
        except Exception as error:
            self._settle(error=error)

    async def _begin(self) -> None:
        """Send the request over the link that there is, or find out what stands in the way."""
        transport = self._recovery.transport
        if transport is Transport.WEBSOCKET and (oversized := self._oversized) is not None:
            self._setback(oversized)
            return
        link = await self._pool.link(
            self._lane.name,
            transport,
            connect=self._timeouts.connect,
            cautious=self._settings.transport is Transport.AUTO,
            on_joined=self._on_joined,
        )
        if self.settled:  # while the link came about, and too late for a cancellation to be delivered
            return
        if isinstance(link, Failure):
            self._setback(link)
            return
        self.timeline.stop("connect")
        if not await self._warmed_up(link) or not link.prepare(self._lane.name, again=self._again):
            return  # another look at the links is needed
        self._continue_parent(link)
        attempt = self._attempt_over(link)
        if transport is Transport.WEBSOCKET and attempt.size > self._settings.limits.max_request_bytes:
            self._setback(TooLarge(attempt.size, self._settings.limits.max_request_bytes))
            return
        self._link, self._attempt = link, attempt
        if not await link.carry(attempt) and attempt is self._attempt:
            self._attempt = None
            self.timeline.stop("send")
            if link is self._joined and not self.settled:
                assert attempt.failure is not None
                self._setback(attempt.failure)

    async def _warmed_up(self, link: Link) -> bool:
        """Have a fresh connection prepared, if that is wanted; False where another look at the links is needed."""
        if self._submission.warm_up and link.fresh(self._lane.name):
            assert self._origin is not None
            self._pool.warm_up(link, self._origin, self._submission.body, self._submission.text, self._timeouts.warm_up)
            self._submission.warm_up = False  # once per turn: one that kills its connection must not do so again
        warming = link.warming(self._lane.name)
        if warming is None:
            return True
        await warming.wait()
        return False

    def _continue_parent(self, link: Link) -> None:
        """Let a fork's first request continue what its parent has there, before the parent makes the server forget."""
        lane = self._lane
        if lane.parent is None or lane.held is None or lane.held_by != link.number or self._full_because is not None:
            return
        link.adopt(lane.name, lane.held)
        if not lane.held.stored:
            lane.parent.bar(self)
            self._barred = lane.parent

    def _lift_bar(self) -> None:
        barred, self._barred = self._barred, None
        if barred is not None:
            barred.lift(self)

    def _attempt_over(self, link: Link) -> Attempt:
        submission, lane = self._submission, self._lane
        if self._full_because is not None and link.transport is Transport.WEBSOCKET:
            plan = Plan(full_because=self._full_because)
        else:
            plan = link.plan(lane.name, submission.body, stored=lane.stored)
        assert self._origin is not None
        return Attempt(
            self._origin,
            self._recovery.dispatches + 1,
            link.write(lane.name, submission.text, plan),
            plan,
            body=submission.body,
            patience=self._timeouts.connect,
            sink=self,
            text_format=submission.text_format,
        )

    def _on_joined(self, link: WebSocketLink) -> None:
        """It waits for a dial, whose clock may have been running for a while."""
        self._joined = link
        self.timeline.start("connect", link.started_at)

    async def _expired(self) -> Expired | None:
        """Return the budget that ran out; None where none did, or where something had come in and was not read yet."""
        expired = self._overrun()
        quiet = 0
        for _ in range(_LOOKS):
            if expired is None or expired.phase not in _SILENCES or self._link is None or quiet == _QUIET_LOOKS:
                break
            received = self._link.bytes_received
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            if self.settled:
                return None
            expired = self._overrun()
            quiet = quiet + 1 if self._link.bytes_received == received else 0
        return expired

    def _overrun(self) -> Expired | None:
        attempt = self._attempt
        if attempt is not None and attempt.last_progress is not None:
            self.timeline.start("idle", attempt.last_progress)
        if attempt is not None and attempt.done.is_set():
            return None
        return self.timeline.expired(trio.current_time())

    async def _drain(self) -> None:
        """Hold the lane until the rest of the abandoned response has passed, within the ``drain`` budget."""
        if self.state is not WorkState.DRAINING:
            return
        assert self._attempt is not None
        with trio.CancelScope(deadline=self.timeline.at("ended") + self._timeouts.drain):
            await self._attempt.drained.wait()
        self.stop_draining()

    # --- the attempt's side ---

    @property
    def listening(self) -> bool:
        """Whether its events are kept for a reader."""
        return self.inbox.keeping

    def on_connected(self, attempt: Attempt, now: float) -> None:
        """A connection is there, and the request is about to be queued on it."""
        self.timeline.reach("connected", now)

    def on_sending(self, attempt: Attempt, now: float) -> None:
        """The first byte of the request is about to leave. Another's upload before it counts in ``start`` only."""
        if attempt is self._attempt:
            self.timeline.start("send", now)

    def on_dispatched(self, attempt: Attempt) -> None:
        """The request is on its way."""
        assert self._link is not None
        self._sent = attempt
        self._unread = self._link.unread
        self._recovery.dispatches += 1
        if attempt.origin.wants("request_sent"):
            info = RequestInfo(
                **attempt.origin.facts,
                attempt=attempt.number,
                connection=self._link.number,
                transport=attempt.transport,
                size=attempt.size,
            )
            attempt.origin.emit("request_sent", info)

    def on_sent(self, attempt: Attempt, now: float) -> None:
        """The request's last byte was passed on."""
        if attempt is not self._attempt:
            return
        if attempt.last_progress is None:
            self.timeline.reach("sent", now)
            self.timeline.replace("send", "first_event", now)
        else:
            self.timeline.stop("send")

    def on_first_event(self, attempt: Attempt, now: float) -> None:
        """The first event of the response arrived. From now on `_overrun` looks after silence."""
        self._lift_bar()
        gate, self._rate_gate = self._rate_gate, None
        if gate is not None:
            gate.accepted(self)
        self.timeline.reach("first_event", now)
        if not self.timeline.reached("sent"):
            self.timeline.reach("sent", now)
        self.timeline.stop("start", "send", "first_event")
        self.timeline.start("idle", now)

    def on_events(self, attempt: Attempt, events: Sequence[TurnEvent]) -> None:
        """The consumer should see these."""
        # An answer that is whole should not be lost to its last events: nothing more can come.
        if self.inbox.put(events) and attempt.exchange.outcome is None and not self.settled:
            self.fail(Overflowed(len(self.inbox), self.inbox.held))

    def on_batch_end(self) -> None:
        """Nothing more follows at once."""
        self.inbox.wake()

    def on_answer(self, attempt: Attempt, message: AssistantMessage) -> None:
        """The response has ended, and this is the answer."""
        if self.settled or attempt is not self._attempt:
            return
        assert self._link is not None
        here = self._link.endpoint is self._pool.endpoint  # no other server has it
        self._lane.answered(attempt.held if here else None, self._link)
        self._pool.note_answer(self._link, self._recovery.fell_back_on)
        self._settle(message=message)

    # --- when an attempt fails ---

    def _setback(self, failure: Failure) -> None:
        """Do about a failure what the table says: try again, or end the turn with it."""
        if isinstance(failure, Expired) and failure.phase == "connect":
            assert self._joined is not None
            failure = self._joined.too_slow(failure.seconds)
        elif isinstance(failure, Expired) and failure.phase in _SILENCES and self._link is not None:
            failure = evolve(failure, unread=self._link.unread - self._unread)
        if not self._lane.tasks.alive:
            self.fail(failure)
            return
        attempt = self._attempt
        setback = Setback(
            failure,
            transport=self._recovery.transport,
            delivery=attempt.exchange.delivery if attempt is not None else Delivery.NOT_SENT,
            output_seen=attempt is not None and attempt.exchange.output_seen,
            continued=attempt is not None and attempt.plan.previous_response_id is not None,
            sealed=is_sealed(self._submission.body),
            untyped=not self._pool.endpoint.server.typed_errors,
        )
        held = setback.fault is Fault.RATE and self._hold_others(failure)
        self._leave_rate_gate()
        decision = self._recovery.decide(setback, left=self.timeline.left_to_start(trio.current_time()))
        if decision.remedy is None:
            self.fail(failure)
        else:
            self._try_again(decision, failure)
            if held and decision.remedy is Remedy.RETRY_AFTER:
                self._not_before = trio.current_time()  # it waits with the others

    def _hold_others(self, failure: Failure) -> bool:
        """Let no other turn ask for more while the server's rate is limited; returns whether they are held."""
        wait = failure.retry_after if isinstance(failure, RequestRefused | Failed) else None
        return wait is not None and self._pool.gates.limited(self._submission.model, wait)

    def _try_again(self, decision: Decision, failure: Failure) -> None:
        self._lift_bar()
        attempt, self._last_failure = self._attempt, failure
        self._again = decision.remedy in _ON_THE_SAME
        if attempt is not None:
            self._again = self._again or _may_stay(decision, attempt)
            self._delivered = further(self._delivered, attempt.exchange.delivery)
            if decision.remedy in _ON_THE_SAME:
                self._full_because = _ON_THE_SAME[decision.remedy]
                self._lane.stored = None
            elif attempt.exchange.outcome is None:
                self._abandon(attempt, wanted=False)
            elif self._link is not None and not _may_stay(decision, attempt):
                self._link.avoid()
            attempt.forget()
            self._attempt = None
        if decision.remedy is Remedy.UNSEALED:
            self._unseal()
        if self._recovery.transport is Transport.SSE:
            self._give_place_back()
        self.timeline.begin_again()
        self._not_before = trio.current_time() + decision.wait
        self._count(decision)

    def _unseal(self) -> None:
        """Leave the sealed reasoning out, now and in every later turn of the session."""
        refused = self._lane.refused_seals.add(self._submission.body)
        self._lane.counters.refused_seals += refused
        _logger.warning("sealed reasoning that the server cannot read is left out from now on: %d items", refused)
        self._submission.leave_out(self._lane.refused_seals)
        self._submission.encode()

    def _count(self, decision: Decision) -> None:
        assert self._origin is not None
        facts, dispatched = self._origin.facts, self._recovery.dispatches
        if decision.remedy is Remedy.FALL_BACK:
            self._lane.counters.fallbacks += 1
            reason = self._recovery.fallback_reason or decision.row
            _logger.info("a turn goes over HTTP: %s", reason)
            if self._origin.wants("fallback"):
                self._origin.emit("fallback", FallbackInfo(**facts, attempt=dispatched, reason=reason))
        else:
            self._lane.counters.retries += 1
            _logger.info("a turn is tried again in %.3f s: %s", decision.wait, decision.row)
            if self._origin.wants("retry"):
                info = RetryInfo(**facts, attempt=dispatched, reason=decision.row, seconds=decision.wait)
                self._origin.emit("retry", info)

    # --- how it ends ---

    def fail(self, failure: Failure) -> None:
        """End it with an error, unless it has ended."""
        if self.settled:
            return
        wanted = isinstance(failure, Overflowed) or failure == Expired("turn", self._timeouts.turn)
        wanted = wanted or (isinstance(failure, Closed) and self._lane.tasks.alive)  # its lane was left
        error = to_error(failure)
        if isinstance(failure, Expired) and self._last_failure is not None:
            error.__cause__ = to_error(self._last_failure)  # what the time was spent on
        error.delivery = self.delivery
        error.partial = self.arrived
        self._settle(error=error, wanted=wanted)

    def _settle(
        self, *, message: AssistantMessage | None = None, error: Exception | None = None, wanted: bool = True
    ) -> None:
        """End it for its caller; ``wanted`` as for `engine.protocol.aftermath.aftermath`."""
        granted = self.state is WorkState.RUNNING
        self.message, self.error = message, error
        self.timeline.reach("ended", trio.current_time())
        attempt = self._attempt
        aftermath = self._abandon(attempt, wanted=wanted) if attempt is not None else Aftermath.NOTHING
        self._move(WorkState.DRAINING if aftermath is Aftermath.DRAIN else WorkState.ENDED)
        self._admitted.set()
        self._lift_bar()
        self._leave_rate_gate()
        self.inbox.close()
        if isinstance(error, TurnError):
            error.report = self.report
        if message is None and self._scope is not None:
            self._scope.cancel(reason="the turn has ended")  # an answer wakes its task by itself
        if granted:
            self._ended(error)
        else:
            self._pool.places.give_back(self)
            self._lane.remove(self)
            self._lane.release(self)

    def _abandon(self, attempt: Attempt, *, wanted: bool) -> Aftermath:
        """Give up what a link still does for an attempt, by the cancel policy where that is ``wanted``."""
        if attempt.exchange.outcome is not None or self._link is None:
            return Aftermath.NOTHING
        aftermath = self._link.abandon(attempt, self._settings.on_cancel, wanted=wanted)
        if aftermath in {Aftermath.RETIRE, Aftermath.NEW_LANE}:
            self._aftermath = aftermath
        return aftermath

    def _give_place_back(self) -> None:
        """Let another turn have the place; what goes on of an abandoned response keeps it until it has ended."""
        places, attempt = self._pool.places, self._attempt
        if self._aftermath is Aftermath.NEW_LANE and attempt is not None and not attempt.drained.is_set():
            places.pass_on(self, attempt)
            attempt.on_drained = functools.partial(places.give_back, attempt)
        else:
            places.give_back(self)

    def _ended(self, error: Exception | None) -> None:
        """Count how it went."""
        counters = self._lane.counters
        if self.message is not None:
            counters.completed += 1
            if self.message.usage is not None:
                counters.usage += self.message.usage
        elif error is not None:
            counters.failed += 1
        else:
            counters.abandoned += 1
        assert self._origin is not None
        if self._origin.wants("turn_ended"):
            info = TurnEndInfo(
                **self._origin.facts,
                attempt=self._recovery.dispatches,
                report=self.report,
                error=error,
                answered=self.message is not None,
            )
            self._origin.emit("turn_ended", info)


def _may_stay(decision: Decision, attempt: Attempt) -> bool:
    """Whether the next attempt may go over the connection of the one that failed: it was refused in band, and whole."""
    return decision.remedy is Remedy.RETRY_AFTER and attempt.exchange.delivery is Delivery.REJECTED
