"""The actor behind a session: one nursery that owns its connections and its running turns.

Cancelling the actor's nursery is how a session is released. Other tasks change its state only through plain methods
that run to their end between two checkpoints, so no lock is needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import trio
from attrs import evolve

from engine.connections.attempt import Attempt
from engine.connections.compaction import Compaction
from engine.connections.warm_up import WarmUp
from engine.connections.websocket_link import Connection, State
from engine.instruments import Instruments
from engine.protocol.aftermath import Aftermath, aftermath
from engine.protocol.breaker import Breaker
from engine.protocol.chain import Chain, Held
from engine.protocol.failures import Barred, Broken, Closed, Failure, Refused, Unreachable
from engine.protocol.recovery import Decision, Remedy, counts_as_outage, lacks_websocket
from engine.settings.endpoint import Endpoint
from engine.settings.levels import Settings
from engine.settings.profiles import Profile
from engine.settings.timeouts import ResolvedTimeouts
from engine.transport.dial import Dialer
from engine.transport.http import HttpClient
from engine.turns.lane import LaneQueue
from engine.turns.turn import Turn
from engine.values.choices import Transport
from engine.values.errors import TurnError
from engine.values.statistics import SessionStatistics
from engine.wire.requests import CreateText

__all__ = ["Actor"]

_MAX_RETIRING: Final = 4


class Actor:
    """One session at work.

    Attributes:
        id: The session's id in its engine.
        settings: What holds for its turns.
        started: Set when it can take turns.
        finished: Set when its last socket is gone.
        failure: Why it takes no more turns; None while it does.
        stored: The newest response that the server keeps beyond its connection.
        server: What kind of server it talks to.
    """

    def __init__(
        self,
        session_id: str,
        *,
        endpoint: Endpoint,
        dialer: Dialer,
        settings: Settings,
        breaker: Breaker,
        instruments: Instruments,
    ) -> None:
        self.id = session_id
        self.settings = settings
        self.instruments = instruments
        self.started: trio.Event = trio.Event()
        self.finished: trio.Event = trio.Event()
        self.failure: Failure | None = None
        self.stored: Held | None = None
        self.server: Profile = endpoint.server
        self._endpoint = endpoint
        self._breaker = breaker
        self._dialer = dialer
        self._http: list[HttpClient] = []  # the newest is in use
        self._nursery: trio.Nursery | None = None
        self._leaving = False
        self._lane = LaneQueue()
        self._current: Connection | None = None
        self._next: Connection | None = None
        self._connections: list[Connection] = []
        self._tries: dict[Connection, tuple[Breaker, int]] = {}  # of the server each was dialled to
        self._reconnected = 0
        self._dialled = 0
        self._opened = 0
        self._started = self._completed = self._failed = self._abandoned = self._retries = self._fallbacks = 0

    # --- life ---

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Live until `close` or a cancellation, then until every socket is gone. Never raises an `Exception`.

        Cancelling it releases the session: connections close within their bounds.
        """
        failure: Failure = Closed("the session's engine was left")
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self.failure is not None:
                    nursery.cancel_scope.cancel(reason="the session was released before it had started")
                self.started.set()
                try:
                    await trio.sleep_forever()
                finally:
                    self._leaving = True
                    for connection in self._connections:
                        connection.close()  # a cancellation does not reach an open socket
        except* Exception as group:
            failure = Broken(group)
        finally:
            self._stop(failure)
            for client in self._http:
                await client.aclose()
            self.started.set()
            self.finished.set()

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run one of the session's tasks; if it breaks, the turns are told why before they are cancelled."""
        try:
            await task()
        except Exception as error:
            self._stop(Broken(error))
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel(reason="the session broke")

    def close(self, reason: str) -> None:
        """Fail every turn and begin to close every connection. Returns at once; `finished` tells when it is done."""
        self._stop(Closed(reason))
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=reason)

    def _stop(self, failure: Failure) -> None:
        if self.failure is None:
            self.failure = failure
            self._lane.fail(failure)

    # --- turns ---

    @trio.lowlevel.enable_ki_protection
    def submit(self, turn: Turn) -> None:
        """Queue a turn, or fail it if the session takes no more."""
        if self.failure is not None:
            turn.fail(self.failure)
        else:
            self._lane.enqueue(turn)

    def withdraw(self, turn: Turn) -> None:
        """Take a turn out of the queue."""
        self._lane.remove(turn)

    def start(self, turn: Turn, task: Callable[[], Awaitable[None]]) -> None:
        """Run a granted turn's task, in the context of whoever submitted it."""
        assert self._nursery is not None
        self._started += 1
        self.instruments.emit("turn_started", self.id, context=turn.context)
        turn.context.run(self._nursery.start_soon, task)

    def ended(self, turn: Turn, error: TurnError | None) -> None:
        """Count how a granted turn went."""
        if turn.answered:
            self._completed += 1
        elif error is not None:
            self._failed += 1
        else:
            self._abandoned += 1
        if self.instruments.wants("turn_ended"):  # a report is worth making only for somebody
            self.instruments.emit("turn_ended", self.id, turn.report, error, context=turn.context)

    def release(self, turn: Turn) -> None:
        """A granted turn's task is over: serve the next one."""
        self._lane.release(turn)

    @trio.lowlevel.enable_ki_protection
    def hurry(self, turn: Turn) -> None:
        """A turn's waiting time is over: if only the rest of an abandoned response is in its way, give that up."""
        self._lane.hurry(turn)

    def tried_again(self, turn: Turn, decision: Decision, fallback_reason: str | None) -> None:
        """Count what is done about a failed attempt."""
        if decision.remedy is Remedy.FALL_BACK:
            self._fallbacks += 1
            self.instruments.emit("fallback", self.id, fallback_reason, context=turn.context)
        else:
            self._retries += 1
            self.instruments.emit("retry", self.id, decision.row, decision.wait, context=turn.context)

    def left(self, turn: Turn, attempt: Attempt, *, wanted: bool) -> Aftermath | None:
        """A turn gave an attempt up while its response goes on; deal with the rest of it.

        Args:
            turn: The turn.
            attempt: What it gave up.
            wanted: Whether the turn's cancel policy applies.

        Returns:
            What is done; None where the connection is gone anyway. Draining is for the turn's task to do.
        """
        connection = attempt.connection
        if connection is None or not connection.abandon(attempt):
            return None
        sound = attempt.flushed and connection.usable
        chosen = aftermath(turn.on_cancel, wanted=wanted, sound=sound, fresh_lane=connection.offers_lane)
        match chosen:
            case Aftermath.NEW_LANE:
                connection.take_lane()
            case Aftermath.RETIRE:
                connection.retire("a turn was left before its response had ended")
        return chosen

    @property
    def alive(self) -> bool:
        """Whether connections may still be made."""
        cancelled = self._nursery is None or self._nursery.cancel_scope.cancel_called
        return self.failure is None and not cancelled and not self._leaving

    @trio.lowlevel.enable_ki_protection
    def warm_up(self, connection: Connection, body: Mapping[str, Any], text: CreateText, seconds: float) -> WarmUp:
        """Prepare a fresh connection, in a task that outlives whoever asked for it."""
        assert self._nursery is not None
        connection.begin_warm_up()
        warm_up = WarmUp(connection, body, text, seconds)
        self._nursery.start_soon(self._guarded, warm_up.run)
        return warm_up

    @trio.lowlevel.enable_ki_protection
    def compact(self, compaction: Compaction) -> None:
        """Run a compaction in a task of its own, or fail it if the session does no more work."""
        if self.alive:
            assert self._nursery is not None
            self._nursery.start_soon(compaction.run, self.http())
        else:
            compaction.fail(self.failure or Closed("the session is being released"))

    # --- connections ---

    @property
    def connected(self) -> bool:
        """Whether a turn dispatched now would find an open connection, as far as can be told."""
        return self.failure is None and self._current is not None and self._current.usable

    @property
    def endpoint(self) -> Endpoint:
        """Where requests go."""
        return self._endpoint

    @property
    def keyed(self) -> bool:
        """Whether a fresh key can be had."""
        return callable(self._endpoint.api_key)

    def http(self) -> HttpClient:
        """What sends requests over HTTP; closed with the session."""
        if not self._http or self._http[-1].endpoint is not self._endpoint:
            self._http = [each for each in self._http if each.busy]  # the rest hold nothing, or soon will
            idle = self.settings.limits.idle_lifetime
            self._http.append(HttpClient(self._endpoint, self._dialer, nursery=self._nursery, idle_lifetime=idle))
        return self._http[-1]

    def may_continue(self, body: Mapping[str, Any]) -> bool:
        """Whether the server is known to hold what a request would continue, on the connection there is."""
        chain = self._current.chain if self._current is not None and self._current.usable else Chain()
        return chain.plan(body, server=self.server, stored=self.stored).previous_response_id is not None

    @trio.lowlevel.enable_ki_protection
    def change_endpoint(self, endpoint: Endpoint, dialer: Dialer, breaker: Breaker) -> None:
        """Go elsewhere, or with another key: what is connected serves the turn that is on it, and no other."""
        self._endpoint, self._dialer, self._breaker, self.server = endpoint, dialer, breaker, endpoint.server
        self.stored = None
        for client in self._http:
            client.retire()
        for connection in (self._next, self._current):
            if connection is not None:
                connection.retire("the endpoint was changed")

    async def acquire(
        self, timeouts: ResolvedTimeouts, joined: Callable[[Connection], None] | None = None, *, cautious: bool = False
    ) -> Connection | Failure:
        """Return an open connection, joining the dial under way or starting one; or why there is none.

        Args:
            timeouts: For the dial, if one has to be started.
            joined: Called before waiting for a dial.
            cautious: Whether to start none where it would probably fail.

        A connection that ends as soon as it is open is a failure to connect: dialling on would hammer a server that
        accepts everybody and serves nobody.

        Cancelling stops waiting; the dial goes on for whoever comes next.
        """
        self._reconnected = 0
        waited_for: Connection | None = None
        while True:
            current = self._current
            if current is not None and current.state is State.OPEN:
                if current is waited_for and not current.usable:
                    await current.down.wait()  # it is about to say why
                    return current.ending
                if not current.usable:
                    current.retire("the socket is gone")
                elif current.age(trio.current_time()) >= self.settings.limits.connection_lifetime:
                    self.aged(current)
                else:
                    return current
                continue
            if current is None:
                if not self.alive:
                    return self.failure or Closed("the session is being released")
                if cautious and (objection := self._objection()) is not None:
                    return Barred(objection)
                current = self._current = self._dial(timeouts)
            if joined is not None:
                joined(current)
            await current.settled.wait()
            if current.called_off:
                continue  # there may be another, or another place to dial
            failure = current.failure
            if isinstance(failure, Unreachable) and failure.stage == "timeout":
                if current.patience < timeouts.connect:
                    continue  # it was begun by a turn with less patience than this one
                return failure
            if failure is not None:
                return failure
            waited_for = current

    def _objection(self) -> str | None:
        """Why no WebSocket should be tried; None where one may."""
        return self._breaker.objection if self.server.websocket else "this kind of server has no WebSocket"

    def dial_ahead(self) -> None:
        """Have a connection ready for the next turn, unless one is, or it would probably come to nothing."""
        transport = self.settings.transport
        unwise = transport is Transport.SSE or (transport is Transport.AUTO and self._objection() is not None)
        if self._current is None and self.alive and not unwise:
            self._current = self._dial(self.settings.timeouts)

    @trio.lowlevel.enable_ki_protection
    def _dial(self, timeouts: ResolvedTimeouts) -> Connection:
        assert self._nursery is not None
        self._dialled += 1
        connection = Connection(
            self._dialled,
            session=self.id,
            owner=self,
            endpoint=self._endpoint,
            dialer=self._dialer,
            timeouts=evolve(self.settings.timeouts, connect=timeouts.connect),
            limits=self.settings.limits,
            instruments=self.instruments,
        )
        self._tries[connection] = (self._breaker, self._breaker.begin())
        self._connections.append(connection)
        self._nursery.start_soon(self._guarded, connection.run)
        return connection

    # --- what connections tell ---

    def opened(self, connection: Connection) -> None:
        """Count a connection that came about."""
        self._opened += 1
        breaker, _ = self._tries[connection]
        breaker.connected()

    def unopened(self, connection: Connection, failure: Failure | None) -> None:
        """Learn from a connection that did not come about."""
        breaker, number = self._tries[connection]
        if failure is not None and counts_as_outage(failure):
            breaker.failed()
        elif isinstance(failure, Refused):
            no_websocket = f"the server has no WebSocket: it answered the upgrade with status {failure.status}"
            breaker.answered(no_websocket if lacks_websocket(failure) else None)
        else:
            breaker.given_up(number)

    def ageing(self, connection: Connection) -> None:
        """Dial the replacement of a connection that will soon have reached its lifetime."""
        if connection is self._current and self._next is None and self.alive:
            self._next = self._dial(self.settings.timeouts)
            self._next.standing_by = True

    def aged(self, connection: Connection) -> None:
        """Go over to the replacement."""
        self.instruments.emit("rotation", self.id, connection.number, connection.age(trio.current_time()))
        connection.retire("it has reached its lifetime")

    def unusable(self, connection: Connection) -> None:
        """Stop offering a connection; too many that will not end are cut short."""
        if connection is self._next:
            self._next = None
        if connection is self._current:
            self._current, self._next = self._next, None
            if self._current is not None:
                self._current.take_over(connection.idle_since)
        retiring = [each for each in self._connections if each.state is State.RETIRING]
        for oldest in retiring[:-_MAX_RETIRING]:
            oldest.abort("too many connections were waiting to close")

    def closed(self, connection: Connection) -> None:
        """Forget a connection whose socket is gone."""
        self._connections.remove(connection)
        del self._tries[connection]
        if connection.broke_unused and self.settings.retry.eager_reconnect and self.alive:
            assert self._nursery is not None
            self._nursery.start_soon(self._guarded, self._reconnect)

    async def _reconnect(self) -> None:
        """Replace a connection that ended unused: the first time at once, then backing off, until a turn comes."""
        retry = self.settings.retry
        while self._current is None and self._reconnected <= len(retry.back_off):
            number, self._reconnected = self._reconnected, self._reconnected + 1
            await trio.sleep(retry.wait(number - 1) if number else 0)
            self.dial_ahead()
            connection = self._current
            if connection is None:
                return
            await connection.settled.wait()
            if connection.failure is None:
                return

    def statistics(self) -> SessionStatistics:
        """Counters at this moment."""
        current = [self._current] if self._current is not None else []
        others = [each for each in self._connections if each is not self._current]
        return SessionStatistics(
            queued=self._lane.queued,
            active=self._started - self._completed - self._failed - self._abandoned,
            turns_started=self._started,
            turns_completed=self._completed,
            turns_failed=self._failed,
            turns_abandoned=self._abandoned,
            retries=self._retries,
            fallbacks=self._fallbacks,
            connections_opened=self._opened,
            connections=tuple(each.statistics() for each in (*current, *others)),
        )
