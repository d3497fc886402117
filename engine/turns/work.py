"""The work of one turn: rate gate, hook, link, attempt, and another attempt where the first one fails.

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
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio

from engine.connections.attempt import Attempt
from engine.connections.link import Link
from engine.protocol.aftermath import Aftermath
from engine.protocol.failures import Broken, Closed, Expired, Failure, Overflowed, TooLarge
from engine.protocol.recovery import Decision, Recovery, Remedy
from engine.protocol.states import move
from engine.settings.levels import Settings
from engine.turns.account import Account, arrived
from engine.turns.dispatcher import ON_THE_SAME, Dispatcher
from engine.turns.inbox import Inbox
from engine.turns.lane import Lane
from engine.turns.pace import Pace
from engine.turns.states import WORK_TRANSITIONS, WorkState
from engine.turns.steering import Steering
from engine.turns.submission import Submission
from engine.turns.timeline import Timeline
from engine.turns.watch import Watch
from engine.values.choices import Transport
from engine.values.errors import TurnError
from engine.values.messages import AssistantMessage
from engine.values.reports import TurnReport
from engine.values.turn_events import TurnEvent

__all__ = ["BeforeDispatch", "Work"]

_logger = logging.getLogger("engine.turn")

BeforeDispatch: TypeAlias = Callable[[int], Awaitable[None]]
"""Awaited before each dispatch of a turn, resends included, when all else is ready; what it raises ends the turn, as it
is. It is told how many earlier dispatches of the turn may still be at work at the server."""


class Work:
    """The session's work for one turn.

    Args:
        lane: The lane it takes its turn on.
        submission: The turn's request.
        settings: The turn's settings.
        buffered: Whether its events will be read.
        gate: Awaited before each dispatch.

    Attributes:
        lane: The turn's lane.
        submission: The turn's request.
        settings: The turn's settings.
        account: The turn's report, and what its lane's counters and hooks are told.
        admitted: Set when it was granted its lane, or ended before.
        link: The link of the newest attempt.
        attempt: The newest attempt; None while there is none.
        steering: The input that is to be added while a response runs; None while there is none.
        state: The stage of the work; changed only as `engine.turns.states` allows.
        inbox: The events that were not read yet.
        timeline: The times of what happened, and the budgets.
        message: The answer, once it has come.
        error: The exception that ended it otherwise.
        context: The context of the caller.
    """

    def __init__(
        self,
        lane: Lane,
        submission: Submission,
        settings: Settings,
        *,
        buffered: bool,
        gate: BeforeDispatch | None = None,
    ) -> None:
        self.lane: Lane = lane
        self._pool = lane.pool
        self.submission: Submission = submission
        self.settings: Settings = settings
        self._gate = gate
        self.state: WorkState = WorkState.QUEUED
        self.timeline: Timeline = Timeline(settings.timeouts)
        self.inbox: Inbox = Inbox(settings.limits, keeping=buffered)
        self.message: AssistantMessage | None = None
        self.error: Exception | None = None
        self.context: contextvars.Context = contextvars.Context()  # its caller's, once the block is entered
        self._recovery = Recovery(
            settings.transport, settings.retry, renewable_key=callable(self._pool.endpoint.api_key)
        )
        self.account: Account = Account(lane, submission, self.timeline, self._recovery)
        self._dispatcher = Dispatcher(lane, submission, settings, self.timeline)
        self._watch = Watch(self.timeline)
        self._pace = Pace(lane.name, self._pool, submission, self.timeline)
        self.steering: Steering | None = None  # while it runs, once its caller steers it
        self._scope: trio.CancelScope | None = None
        self.admitted: trio.Event = trio.Event()
        self.link: Link | None = None
        self.attempt: Attempt | None = None
        self._aftermath = Aftermath.NOTHING
        self._not_before = 0.0

    # --- the caller's side ---

    @trio.lowlevel.enable_ki_protection
    def leave(self) -> None:
        """Abandon it if it has not ended. Synchronous: clean-up is the session's work."""
        self.inbox.discard()
        if self.decided:
            return
        if self.attempt is not None:
            self.attempt.exchange.abandon()  # what is still to come counts for nothing
        self._decide()

    # --- what is known of it ---

    @property
    def decided(self) -> bool:
        """Whether it has ended for its caller."""
        return self.state is WorkState.ENDED or self.state is WorkState.DRAINING

    @property
    def arrived(self) -> AssistantMessage | None:
        """The part of the answer that has come; None while nothing has."""
        return arrived(self.message, self.attempt)

    @property
    def report(self) -> TurnReport:
        """The turn's report at this moment."""
        return self.account.report(self.message, self.attempt)

    @property
    def over_http(self) -> bool:
        """Whether it goes over HTTP by now."""
        return self._recovery.transport is Transport.SSE

    @property
    def oversized(self) -> TooLarge | None:
        """The reason why the request cannot go over a WebSocket; see `Dispatcher.oversized`."""
        return self._dispatcher.oversized

    @property
    def room(self) -> float:
        """Bytes by which a later request may be larger than this one; infinite where it could go over HTTP."""
        return self._dispatcher.room

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
        self.timeline.reach("granted", now)
        self.timeline.stop("queue")
        self.timeline.start("start", now)
        try:
            self.account.open(self.context)
        finally:  # a hook may raise what ends the program; without its task the turn would keep its lane for ever
            self.lane.start(self.context, self._run)
            self.admitted.set()

    def _move(self, state: WorkState) -> None:
        self.state = move(WORK_TRANSITIONS, self.state, state)

    def stop_draining(self) -> bool:
        """Stop draining, if that is what it does: give the connection up unless the response has ended."""
        if self.state is not WorkState.DRAINING:
            return False
        assert self.link is not None
        assert self.attempt is not None
        if not self.attempt.drained.is_set():
            self.link.settle(self.attempt)
            self._aftermath = self.account.aftermath = Aftermath.RETIRE
        self._move(WorkState.ENDED)
        return True

    # --- its task ---

    async def _run(self) -> None:
        try:
            while not self.decided:
                self._scope = self.timeline.scope()
                with self._scope as scope:
                    await self._go_on()
                if scope.cancelled_caught and not self.decided:
                    expired = await self._watch.expired(self.attempt, self.link)
                    if expired is not None and not self.decided:
                        self._setback(expired)
            await self._drain()
        except Exception as error:
            self.fail(Broken(error))
        finally:
            self.fail(self.lane.tasks.ending)  # nothing, where it has ended already
            if self.state is WorkState.DRAINING:
                self._move(WorkState.ENDED)
            self.submission.forget()
            self._give_place_back()
            self.lane.release(self)
            for attempt in (self.attempt, self.account.sent):
                if attempt is not None:
                    attempt.forget()
            self.link = self._dispatcher.joined = None
            if self._aftermath is Aftermath.RETIRE:
                # Here, because the one who leaves a turn should not have to wait for it.
                self._pool.dial_ahead(self.lane.name)

    async def _go_on(self) -> None:
        """Make an attempt, or wait for the end of the one there is."""
        if self.attempt is None:
            if self._not_before > trio.current_time():
                await trio.sleep_until(self._not_before)
            cautious = self.settings.transport is Transport.AUTO
            if (held := await self._pace.wait(self._recovery.transport, cautious=cautious)) is not None:
                self._setback(held)
            elif not self.decided:
                await self._begin()
        attempt = self.attempt
        if attempt is None or self.decided:
            return
        if not attempt.done.is_set():
            await attempt.done.wait()
        if not self.decided and not isinstance(attempt.result, AssistantMessage):
            assert attempt.result is not None
            self._setback(attempt.result)

    async def _begin(self) -> None:
        """Send the request over the link that there is, or find out what stands in the way."""
        dispatcher, origin = self._dispatcher, self.account.origin
        link = await dispatcher.link(self._recovery.transport)
        if self.decided:  # while the link came about, and too late for a cancellation to be delivered
            return
        if isinstance(link, Failure):
            self._setback(link)
            return
        self.timeline.stop("connect")
        if self._gate is not None and not await self._pass_gate(self._gate, link):
            return
        if not await dispatcher.prepare(link, origin):
            return  # another look at the links is needed
        attempt = dispatcher.attempt(link, origin, self._recovery.dispatches + 1, self)
        if isinstance(attempt, TooLarge):
            self._setback(attempt)
            return
        self.link, self.attempt = link, attempt
        if not await link.carry(attempt) and attempt is self.attempt:
            self.attempt = None
            dispatcher.lift_bar()
            self.timeline.stop("send")
            if link is dispatcher.joined and not self.decided:
                assert attempt.failure is not None
                self._setback(attempt.failure)

    async def _pass_gate(self, gate: BeforeDispatch, link: Link) -> bool:
        """Await the gate; returns whether the request may leave over that link now.

        Last of all: between its word and the first byte lies no wait for a connection or for the server's rate.
        """
        try:
            await gate(self._recovery.risked)
        except Exception as error:
            self._decide(error=error)
        return not self.decided and await self._dispatcher.link(self._recovery.transport) is link and not self.decided

    async def _drain(self) -> None:
        """Hold the lane until the rest of the abandoned response has passed, within the ``drain`` budget."""
        if self.state is not WorkState.DRAINING:
            return
        assert self.attempt is not None
        with trio.CancelScope(deadline=self.timeline.at("ended") + self.settings.timeouts.drain):
            await self.attempt.drained.wait()
        self.stop_draining()

    # --- the attempt's side ---

    @property
    def listening(self) -> bool:
        """Whether its events are kept for a reader."""
        return self.inbox.keeping

    def on_connected(self, attempt: Attempt, now: float) -> None:
        """A connection is there, and the request is about to be queued on it."""
        self._pace.connected()
        self.timeline.reach("connected", now)

    def on_sending(self, attempt: Attempt, now: float) -> None:
        """The first byte of the request is about to leave. Another's upload before it counts in ``start`` only."""
        if attempt is self.attempt:
            self.timeline.start("send", now)

    def on_dispatched(self, attempt: Attempt) -> None:
        """The request is on its way."""
        assert self.link is not None
        self.account.dispatched(attempt, self.link)

    def on_sent(self, attempt: Attempt, now: float) -> None:
        """The request's last byte was passed on."""
        if attempt is not self.attempt:
            return
        if attempt.last_progress is None:
            self.timeline.reach("sent", now)
            self.timeline.replace("send", begun="first_event", since=now)
        else:
            self.timeline.stop("send")

    def on_first_event(self, attempt: Attempt, now: float) -> None:
        """The first event of the response arrived. From now on silence is measured by `idle`."""
        self._pace.accepted()
        self.timeline.reach("first_event", now)
        if not self.timeline.reached("sent"):
            self.timeline.reach("sent", now)
        self.timeline.replace("start", "send", "first_event", begun="idle", since=now)

    def on_events(self, attempt: Attempt, events: Sequence[TurnEvent]) -> None:
        """The consumer should see these."""
        # An answer that is whole should not be lost to its last events: nothing more can come.
        if self.inbox.put(events) and attempt.exchange.outcome is None and not self.decided:
            self.fail(Overflowed(len(self.inbox), self.inbox.held))

    def on_batch_end(self) -> None:
        """Nothing more follows at once."""
        self.inbox.wake()
        if self.steering is not None:
            self.steering.look()

    def on_answer(self, attempt: Attempt, message: AssistantMessage) -> None:
        """The response has ended, and this is the answer."""
        if self.decided or attempt is not self.attempt:
            return
        assert self.link is not None
        here = self.link.endpoint is self._pool.endpoint  # no other server has it
        self.lane.answered(attempt.held if here else None, attempt.transcript)
        self._pool.note_answer(self.link, self._recovery.fell_back_on)
        self._decide(message=message)

    # --- when an attempt fails ---

    def _setback(self, failure: Failure) -> None:
        """Do about a failure what the table says: try again, or end the turn with it."""
        if isinstance(failure, Expired) and failure.phase == "connect":
            failure = self._dispatcher.too_slow(failure.seconds)
        failure = self.account.with_unread(failure, self.link)
        if not self.lane.tasks.alive:
            self.fail(failure)
            return
        setback = self.account.setback(failure, self.attempt)
        held = self._pace.failed(setback)
        decision = self._recovery.decide(setback, left=self.timeline.left_to_start(trio.current_time()))
        if decision.remedy is None:
            self.fail(failure)
        else:
            self._try_again(decision, failure)
            if held and decision.remedy is Remedy.RETRY_AFTER:
                self._not_before = trio.current_time()  # it waits with the others

    def _try_again(self, decision: Decision, failure: Failure) -> None:
        self._dispatcher.lift_bar()
        attempt = self.attempt
        self._dispatcher.follow(decision, attempt)
        if attempt is not None:
            self.account.given_up(attempt)
            if attempt.exchange.outcome is None and decision.remedy not in ON_THE_SAME:
                self._abandon(attempt, wanted=False)
            elif self.link is not None and not self._dispatcher.again:
                self.link.avoid()
            attempt.forget()
            self.attempt = None
        if self._recovery.transport is Transport.SSE:
            self._give_place_back()
        self.timeline.begin_again()
        self._not_before = trio.current_time() + decision.wait
        self.account.tried_again(decision, failure)
        if self.steering is not None:
            self.steering.look()

    # --- how it ends ---

    def fail(self, failure: Failure) -> None:
        """End it with an error, unless it has ended."""
        if self.decided:
            return
        wanted = isinstance(failure, Overflowed) or failure == Expired("turn", self.settings.timeouts.turn)
        wanted = wanted or (isinstance(failure, Closed) and self.lane.tasks.alive)  # its lane was left
        self._decide(error=self.account.error(failure, self.attempt), wanted=wanted)

    def _decide(
        self, *, message: AssistantMessage | None = None, error: Exception | None = None, wanted: bool = True
    ) -> None:
        """End it for its caller; ``wanted`` as for `engine.protocol.aftermath.aftermath`."""
        granted = self.state is WorkState.RUNNING
        self.message, self.error = message, error
        self.timeline.reach("ended", trio.current_time())
        attempt = self.attempt
        aftermath = self._abandon(attempt, wanted=wanted) if attempt is not None else Aftermath.NOTHING
        self.account.aftermath = aftermath
        self._move(WorkState.DRAINING if aftermath is Aftermath.DRAIN else WorkState.ENDED)
        self.admitted.set()
        self._dispatcher.lift_bar()
        self._pace.end()
        self.inbox.close()
        if self.steering is not None:
            self.steering.end()
            self.steering = None  # they hold each other
        if isinstance(error, TurnError):
            error.report = self.report
        if message is None and self._scope is not None:
            self._scope.cancel(reason="the turn has ended")  # an answer wakes its task by itself
        if granted:
            self.account.close(message, error, attempt)
        else:
            self._pool.places.give_back(self)
            self.lane.remove(self)
            self.lane.release(self)

    def _abandon(self, attempt: Attempt, *, wanted: bool) -> Aftermath:
        """Give up what a link still does for an attempt, by the cancel policy where that is ``wanted``."""
        if attempt.exchange.outcome is not None or self.link is None:
            return Aftermath.NOTHING
        aftermath = self.link.abandon(attempt, self.settings.on_cancel, wanted=wanted)
        if aftermath in {Aftermath.RETIRE, Aftermath.NEW_LANE}:
            self._aftermath = aftermath
        return aftermath

    def _give_place_back(self) -> None:
        """Let another turn have the place; what goes on of an abandoned response keeps it until it has ended."""
        places, attempt = self._pool.places, self.attempt
        if self._aftermath is Aftermath.NEW_LANE and attempt is not None and not attempt.drained.is_set():
            places.pass_on(self, attempt)
            attempt.on_drained = functools.partial(places.give_back, attempt)
        else:
            self._dispatcher.give_place_back(self)
