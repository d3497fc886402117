"""One connection of a session: DIALLING → OPEN → RETIRING → CLOSED.

It knows what is in flight on it, hands every event to the turn it belongs to, and watches the time. What the server
remembers of the conversation lives and dies with it.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import math
from collections.abc import Sequence
from enum import Enum
from typing import Final, Protocol

import trio

from engine.instruments import Instruments
from engine.protocol.chain import Chain
from engine.protocol.exchange import Exchange
from engine.protocol.failures import Expired, Failure, Lost
from engine.protocol.refusals import rejection
from engine.protocol.routing import Router, Verdict
from engine.settings.endpoint import Endpoint
from engine.settings.limits import ResolvedLimits
from engine.settings.timeouts import ResolvedTimeouts
from engine.transport.dial import Dialer
from engine.transport.socket import Bounds, Callbacks, SocketFactory
from engine.transport.websocket import WebSocket
from engine.values.statistics import ConnectionStatistics
from engine.values.turn_events import TurnEvent
from engine.wire.account_events import KeepAlive
from engine.wire.codec import MalformedFrame, decode
from engine.wire.control_events import ErrorEvent
from engine.wire.events import Chunks, ServerEvent

__all__ = ["Connection", "Owner", "Rider", "State"]

_logger = logging.getLogger("engine.connection")

# The last part of a connection's lifetime, in which its replacement is dialled: 5 of 55 minutes.
_REPLACED_BEFORE: Final = 1 / 11


class State(Enum):
    """A connection's life, in order."""

    DIALLING = "dialling"
    OPEN = "open"
    RETIRING = "retiring"
    CLOSED = "closed"


class Rider(Protocol):
    """Who sent a request and waits for its answer: a turn's attempt, or a warm-up."""

    exchange: Exchange
    idle: float
    last_progress: float | None
    context: contextvars.Context

    def passed(self, now: float) -> None:
        """The request's last byte was passed on."""
        ...

    def received(self, events: Sequence[TurnEvent], now: float) -> None:
        """An event of its response arrived, with what the consumer should see of it; this is progress."""
        ...

    def wake(self) -> None:
        """Nothing more follows at once: let whoever reads its events have them."""
        ...

    def ended(self) -> None:
        """Its exchange has an outcome."""
        ...

    def fail(self, failure: Failure) -> None:
        """There will be no answer."""
        ...

    def drained(self) -> None:
        """Nothing of its response can come any more, after it was abandoned."""
        ...


class Owner(Protocol):
    """The session, as its connections see it."""

    def opened(self, connection: Connection) -> None:
        """The connection can be used."""
        ...

    def unopened(self, connection: Connection, failure: Failure | None) -> None:
        """The connection never came about; without a failure because nobody waits for it any more."""
        ...

    def ageing(self, connection: Connection) -> None:
        """The connection will soon have reached its lifetime: time to have another one ready."""
        ...

    def unusable(self, connection: Connection) -> None:
        """The connection takes no new turns."""
        ...

    def aged(self, connection: Connection) -> None:
        """The connection has reached its lifetime, and no turn is on it."""
        ...

    def closed(self, connection: Connection) -> None:
        """Its socket is gone."""
        ...


class Connection:
    """One socket and what is in flight on it.

    Attributes:
        number: Counts the session's connections.
        started_at: When dialling began, on Trio's clock.
        patience: Seconds its dial may take.
        failure: Why it failed, None while it did not.
        broke_unused: Whether it failed, having been open, with no turn on it.
        called_off: Whether it was given up before it was open.
        settled: Set when it is open, or will never be.
        down: Set when it has failed or is closed.
        requests: Requests handed to it.
        standing_by: Whether it waits to replace another: until then it is not idle, however long that takes.
        warming: Set when its warm-up is over; None while none is under way.
        lane: The lane that requests go over; None for the default lane.
        chain: What the server holds on that lane.
    """

    def __init__(
        self,
        number: int,
        *,
        session: str,
        owner: Owner,
        endpoint: Endpoint,
        dialer: Dialer,
        timeouts: ResolvedTimeouts,
        limits: ResolvedLimits,
        instruments: Instruments,
        make_socket: SocketFactory = WebSocket,
    ) -> None:
        self.number = number
        self.patience: float = timeouts.connect
        self.started_at: float = trio.current_time()
        self.failure: Failure | None = None
        self.broke_unused: bool = False
        self.called_off: bool = False
        self.settled: trio.Event = trio.Event()
        self.down: trio.Event = trio.Event()
        self.requests: int = 0
        self.standing_by: bool = False
        self.warming: trio.Event | None = None
        self.lane: str | None = None
        self.chain: Chain = Chain()
        self._session = session
        self._owner = owner
        self._limits = limits
        self._dialling = True
        self._ageing_told = False
        self._instruments = instruments
        self._observed = instruments.wants("event_received")
        self._router = Router()
        self._unwoken: Rider | None = None
        self._riders: dict[Exchange, Rider] = {}
        self._abandoned: dict[Exchange, Rider] = {}
        self._queueing: set[Exchange] = set()
        self._server = endpoint.server
        self._lanes_used = 0
        self._state = State.DIALLING
        self._retired_because: str | None = None
        self._opened_at = math.inf
        self._idle_since = math.inf
        self._last_decoded = -math.inf
        self._ping: tuple[float, int] | None = None
        self._last_ping = -math.inf
        self._events = 0
        self._dropped = 0
        self._malformed = 0
        self._socket = make_socket(
            endpoint,
            dialer,
            Bounds(
                connect=timeouts.connect,
                close=timeouts.close,
                max_message_bytes=limits.max_message_bytes,
                max_outbox_bytes=limits.max_outbox_bytes,
            ),
            Callbacks(self._opened, self._received, self._failed, self._due),
        )

    # --- what the session asks ---

    @property
    def state(self) -> State:
        """Where in its life it is."""
        return self._state

    @property
    def usable(self) -> bool:
        """Whether a turn may be dispatched on it: open, not retiring, and unbroken as far as known."""
        return self._state is State.OPEN and self._socket.usable

    @property
    def ending(self) -> Failure:
        """Why it is of no use any more, once it is not."""
        return self.failure or Lost("the connection ended as soon as it was open")

    def too_slow(self, seconds: float) -> Failure:
        """Say what keeps it from being open after so many seconds."""
        return self._socket.too_slow(seconds)

    def age(self, now: float) -> float:
        """Seconds since it was opened."""
        return now - self._opened_at

    @property
    def idle_since(self) -> float:
        """Since when nothing is in progress on it; infinite while something is, or it is not open."""
        return math.inf if self._router.in_flight else self._idle_since

    def take_over(self, idle_since: float) -> None:
        """Stand in for a connection that was idle since then."""
        self.standing_by = False
        self._idle_since = min(idle_since, trio.current_time())
        self._socket.wake_by(self._idle_since + self._limits.idle_lifetime)

    @property
    def fresh(self) -> bool:
        """Whether nothing was ever sent on it."""
        return self.requests == 0 and self.warming is None and not self._router.in_flight

    async def dispatch(self, rider: Rider, frame: str) -> bool:
        """Send a request; False if the socket turned out to be gone and no byte of it was queued.

        Cancellation cannot interrupt it.

        Args:
            rider: Who waits for the answer.
            frame: The request, made for this connection's `lane`.
        """
        exchange = rider.exchange
        exchange.lane = self.lane
        self._router.begin(exchange)
        self._riders[exchange] = rider  # an error may arrive while the frame is being queued
        # The turn may end while it is, and the frame leaves all the same: it must not say that nothing was sent.
        exchange.dispatched()
        self._queueing.add(exchange)
        queued = await self._socket.send(frame, on_passed=functools.partial(self._passed, rider))
        self._queueing.remove(exchange)
        if not queued or self.failure is not None:  # what is queued on a failed socket goes nowhere
            exchange.withdrawn()
            self._riders.pop(exchange, None)
            self._router.end(exchange)
            return False
        self.requests += 1
        return True

    def abandon(self, rider: Rider) -> bool:
        """Forget who waited for an answer that is still to come; what comes of it is dropped.

        Returns:
            Whether there was one to come: a connection that failed has told its turns already.
        """
        if self._riders.pop(rider.exchange, None) is None:
            return False
        rider.exchange.abandoned = True
        self._idle_since = trio.current_time()
        self._abandoned[rider.exchange] = rider
        return True

    @property
    def offers_lane(self) -> bool:
        """Whether another response may be in progress beside the ones that are, on a lane of its own."""
        return (
            self._state is State.OPEN
            and self._server.multiplexing
            and self._lanes_used < self._server.max_lanes
            and self._router.in_flight < self._server.max_active
        )

    def take_lane(self) -> None:
        """Send what follows on a lane that was never used."""
        self._lanes_used += 1
        self.lane = f"lane-{self._lanes_used}"
        self.chain = Chain()

    def begin_warm_up(self) -> None:
        """Hold turns back until `warmed_up`."""
        self.warming = trio.Event()

    def warmed_up(self) -> None:
        """Let turns through, whatever came of the warm-up."""
        warming, self.warming = self.warming, None
        if warming is not None:
            warming.set()

    def retire(self, reason: str) -> None:
        """Take no new turns, and close once those in flight have ended. Idempotent, and returns at once."""
        if self._state is State.DIALLING or self._state is State.OPEN:
            self.called_off = self._state is State.DIALLING
            self._state = State.RETIRING
            self._retired_because = reason
            self._owner.unusable(self)
            self.settled.set()  # whoever waits for its dial goes on to another
        self._close_if_done()

    def close(self) -> None:
        """Begin to close, whatever is in flight. Idempotent, and returns at once."""
        self._socket.close()

    def abort(self, reason: str) -> None:
        """Give the socket up without a closing handshake."""
        self._socket.fail(Lost(reason))

    def _close_if_done(self) -> None:
        if self._state is State.RETIRING and not self._riders:
            self._socket.close()

    async def run(self) -> None:
        """The connection's task: from dialling to the closed socket.

        Cancelling it ends the dial; an open socket is shielded, and closes within bounds after `close`.
        """
        try:
            await self._socket.run()
        finally:
            self._retired_because = self._retired_because or "the session was closed"
            self._down(Lost("the connection was closed"))
            self._state = State.CLOSED
            self._owner.closed(self)
            _logger.debug("connection %d of a session closed", self.number)
            self._instruments.emit(
                "connection_closed", self._session, self.number, self._retired_because or "the session was closed"
            )

    def statistics(self) -> ConnectionStatistics:
        """Counters at this moment."""
        traffic = self._socket.traffic
        return ConnectionStatistics(
            state=self._state.value,
            requests=self.requests,
            in_flight=self._router.in_flight,
            bytes_sent=traffic.bytes_sent,
            bytes_received=traffic.bytes_received,
            events=self._events,
            dropped=self._dropped,
            malformed=self._malformed,
            outbox_bytes=traffic.outbox_bytes,
            retired_because=self._retired_because,
        )

    # --- what the socket tells ---

    def _opened(self) -> None:
        now = trio.current_time()
        self._opened_at = self._idle_since = self._last_decoded = now
        self._dialling = False
        if self._state is State.DIALLING:
            self._state = State.OPEN
        self.settled.set()
        self._owner.opened(self)
        _logger.debug("connection %d of a session open", self.number)
        self._instruments.emit("connection_opened", self._session, self.number, now - self.started_at)

    def _failed(self, failure: Failure) -> None:
        _logger.info("connection %d of a session failed: %s", self.number, type(failure).__name__)
        self.broke_unused = self._state is State.OPEN and not self._riders
        self._down(failure)

    def _down(self, failure: Failure) -> None:
        """Fail everything in flight."""
        if self._dialling:
            self._dialling = False
            self._owner.unopened(self, failure if self._state is State.DIALLING else None)
        if self.failure is None:
            self.failure = failure
        if self._state is not State.CLOSED:
            self._retired_because = self._retired_because or type(failure).__name__.lower()
            self._state = State.RETIRING
            self._owner.unusable(self)
        self.settled.set()
        self.down.set()
        riders, self._riders = self._riders, {}
        for exchange, rider in riders.items():
            if exchange in self._queueing:
                continue  # its dispatch will notice, and its turn go elsewhere
            self._router.end(exchange)
            rider.fail(failure)
        abandoned, self._abandoned = self._abandoned, {}
        for rider in abandoned.values():
            rider.drained()

    def _passed(self, rider: Rider) -> None:
        rider.passed(trio.current_time())

    def _received(self, texts: Sequence[str]) -> None:
        now = self._last_decoded = trio.current_time()
        for text in texts:
            if self.failure is not None:
                break  # one of those before it ended the connection
            self._events += 1
            try:
                event = decode(text)
            except MalformedFrame as malformed:
                # Reported and dropped, the connection kept: one garbled frame must not cost the others their answers.
                self._malformed += 1
                if self._malformed == 1:
                    _logger.warning("connection %d of a session: frame dropped, %s", self.number, malformed.reason)
                continue
            if event.__class__ is Chunks:
                for each in event.events:
                    self._take(each, now)
            else:
                self._take(event, now)
        # Waking a reader costs as much as handing it an event: once is enough for all of them.
        unwoken, self._unwoken = self._unwoken, None
        if unwoken is not None:
            unwoken.wake()

    def _take(self, event: ServerEvent, now: float) -> None:
        target = self._router.route(event)
        rider = self._riders.get(target)  # type: ignore[arg-type]
        if rider is None:
            self._unclaimed(target, event, now)
            return
        exchange = rider.exchange
        if self._observed:
            self._instruments.emit("event_received", self._session, event, context=rider.context)
        if rider is not self._unwoken:
            if self._unwoken is not None:
                self._unwoken.wake()
            self._unwoken = rider
        first = rider.last_progress is None
        rider.received(exchange.receive(event), now)
        if exchange.outcome is not None:
            # The consumer's overflow may have failed it meanwhile, and then it is no longer ours to end.
            if self._riders.pop(exchange, None) is not None:
                self._router.end(exchange)
                rider.ended()
            self._idle_since = now
            self._close_if_done()
        elif first:
            self._socket.wake_by(now + rider.idle)

    def _unclaimed(self, target: Exchange | Verdict, event: ServerEvent, now: float) -> None:
        """Nobody waits for the event."""
        if isinstance(target, Verdict):
            self._unrouted(target, event, now)
            return
        self._dropped += 1  # its turn was left
        target.receive(event)
        if target.outcome is not None:
            self._tail_ended(target)

    def _tail_ended(self, exchange: Exchange) -> None:
        self._router.end(exchange)
        self._idle_since = trio.current_time()
        rider = self._abandoned.pop(exchange, None)
        if rider is not None:
            rider.drained()

    def _unrouted(self, verdict: Verdict, event: ServerEvent, now: float) -> None:
        match verdict:
            case Verdict.CONNECTION:
                if isinstance(event, KeepAlive):
                    for rider in self._riders.values():
                        if rider.last_progress is not None:
                            rider.last_progress = now
            case Verdict.LIMIT:
                assert isinstance(event, ErrorEvent)
                for exchange in self._riders:
                    exchange.refused()
                self._socket.fail(rejection(event))
            case Verdict.DROPPED:
                self._dropped += 1
            case Verdict.STRAY:
                self._dropped += 1
                self.retire("the server sent something after the response had ended")
            case Verdict.FATAL:
                assert isinstance(event, ErrorEvent)
                self._socket.fail(rejection(event))

    # --- time ---

    def _due(self, now: float) -> float:
        """Do what is due, and say when to look again. Readers only note the time."""
        return min(
            self._check_idle_turns(now),
            self._check_ping(now),
            self._check_idle_close(now),
            self._check_age(now),
        )

    def _check_idle_turns(self, now: float) -> float:
        due = math.inf
        for rider in list(self._riders.values()):
            if rider.last_progress is None:
                continue
            end = rider.last_progress + rider.idle
            if end <= now:
                rider.fail(Expired("idle", rider.idle))
            else:
                due = min(due, end)
        return due

    def _check_ping(self, now: float) -> float:
        traffic = self._socket.traffic
        interval = self._limits.ping_interval
        allowed = self._limits.ping_timeout
        if self._ping is not None:
            sent_at, received_then = self._ping
            if traffic.bytes_received != received_then:
                self._ping = None  # any byte shows that the peer lives
            elif sent_at + allowed <= now:
                self._socket.fail(Lost(f"the server did not answer a ping within {allowed:g} s"))
                return math.inf
            else:
                return min(sent_at + allowed, now + interval)
        due = max(self._last_decoded, self._last_ping) + interval
        if due > now:
            return due
        if traffic.outbox_bytes:
            return now + interval  # the peer is still taking in a request: its silence means nothing
        self._ping = (now, traffic.bytes_received)
        self._last_ping = now
        self._socket.ping(allowed)
        return now + min(allowed, interval)  # nobody tells when it is answered, and then the next is due

    def _check_idle_close(self, now: float) -> float:
        if self._router.in_flight or self.standing_by:
            return now + self._limits.idle_lifetime
        due = self._idle_since + self._limits.idle_lifetime
        if due <= now:
            self.retire("no turn used it for a while")
            return math.inf
        return due

    def _check_age(self, now: float) -> float:
        lifetime = self._limits.connection_lifetime
        told = self._opened_at + lifetime * (1 - _REPLACED_BEFORE)
        if now < told:
            return told
        if not self._ageing_told:
            self._ageing_told = True
            self._owner.ageing(self)
        end = self._opened_at + lifetime
        if now < end:
            return end
        if not self._riders:
            self._owner.aged(self)
        return math.inf  # where a turn is running, at the next dispatch
