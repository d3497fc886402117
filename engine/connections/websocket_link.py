"""One connection of a session: one socket, and what is in progress on it.

It hands every event to the attempt it belongs to, and watches its own age, use and pings; the silence of a turn is for
`engine.turns.watch`. What the server remembers of the conversation lives and dies with it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import trio

from engine.connections.attempt import Attempt
from engine.connections.clock import Alarms, Clock
from engine.connections.link_states import OVER, TRANSITIONS, LinkState
from engine.connections.multiplexer import Multiplexer
from engine.connections.notices import Notices
from engine.instruments import Instruments
from engine.protocol.aftermath import Aftermath, aftermath
from engine.protocol.failures import Failure, Lost, to_error
from engine.protocol.injections import Injection
from engine.protocol.labels import Labels
from engine.protocol.states import move
from engine.protocol.steers import Steer
from engine.settings.endpoint import Endpoint
from engine.settings.limits import ResolvedLimits
from engine.settings.timeouts import ResolvedTimeouts
from engine.transport.dial import Dialer
from engine.transport.socket import Bounds, Callbacks, SocketFactory
from engine.values.choices import OnCancel, Transport
from engine.values.statistics import ConnectionStatistics
from engine.wire.codec import encode
from engine.wire.requests import ResponseInject, ResponseSteer

__all__ = ["WebSocketLink"]


class WebSocketLink(Multiplexer):
    """A link over a WebSocket.

    Args:
        number: Counts the session's connections.
        session: The session's id.
        endpoint: The server.
        dialer: Opens its stream.
        make_socket: Makes its socket.
        timeouts: Of which ``connect``, ``close`` and ``drain`` count.
        limits: Bounds on what it holds, and on its lifetime.
        labels: Whether the server answers on the lane that a request names.
        instruments: The hooks that are told of it.
        on_change: Called when its state has changed, with the state before.
        on_ageing: Called when it will soon have reached its lifetime.
        on_aged: Called when it has reached its lifetime, and no turn is on it.

    Attributes:
        started_at: The time when dialling began, on Trio's clock.
        patience: Seconds its dial may take.
        failure: The reason for its failure, None while it has not failed.
        dial_done: Set when it is open, or will never be.
        ended: Set when nothing is in progress on it any more, and nothing will be.
        requests: Requests handed to it.
        broke_unused: Whether it failed, having been open, with no turn on it.
    """

    transport = Transport.WEBSOCKET

    def __init__(
        self,
        number: int,
        *,
        session: str,
        endpoint: Endpoint,
        dialer: Dialer,
        make_socket: SocketFactory,
        timeouts: ResolvedTimeouts,
        limits: ResolvedLimits,
        labels: Labels,
        instruments: Instruments,
        on_change: Callable[[WebSocketLink, LinkState], None],
        on_ageing: Callable[[WebSocketLink], None],
        on_aged: Callable[[WebSocketLink], None],
    ) -> None:
        super().__init__(instruments, server=endpoint.server, labels=labels, drain=timeouts.drain)
        self.number: int = number
        self.endpoint: Endpoint = endpoint
        self.patience: float = timeouts.connect
        self.failure: Failure | None = None
        self.dial_done: trio.Event = trio.Event()
        self.ended: trio.Event = trio.Event()
        self.requests: int = 0
        self.broke_unused: bool = False
        self._notices = Notices(instruments, session, number)
        self.started_at: float = self._notices.started_at
        self._on_change = on_change
        self._on_ageing = on_ageing
        self._on_aged = on_aged
        self._state = LinkState.DIALLING
        self._retired_because: str | None = None
        self._headers: tuple[tuple[str, str], ...] = ()  # of the upgrade
        self._socket = make_socket(
            endpoint,
            dialer,
            Bounds(timeouts.connect, timeouts.close, limits.max_message_bytes, limits.max_outbox_bytes),
            Callbacks(
                on_opened=self._on_opened, on_texts=self._on_texts, on_failed=self._on_failed, on_due=self._on_due
            ),
        )
        self._clock = Clock(limits, self._socket.traffic)

    # --- its state ---

    @property
    def state(self) -> LinkState:
        """The link's state."""
        return self._state

    def _become(self, state: LinkState) -> None:
        before, self._state = self._state, move(TRANSITIONS, self._state, state)
        self._on_change(self, before)
        if state is not LinkState.RETIRING:
            self.dial_done.set()
        if state in OVER:
            self.ended.set()

    @property
    def usable(self) -> bool:
        """Whether a turn may be dispatched on it: open, not retiring, and unbroken as far as known."""
        return self._state is LinkState.OPEN and self._socket.usable

    @property
    def ending(self) -> Failure:
        """The reason why it is of no use any more, once it is not."""
        return self.failure or Lost("the connection ended as soon as it was open")

    def too_slow(self, seconds: float) -> Failure:
        """Say what keeps it from being open after so many seconds."""
        return self._socket.too_slow(seconds)

    @property
    def bytes_received(self) -> int:
        """Bytes received so far, framing included."""
        return self._socket.traffic.bytes_received

    def age(self, now: float) -> float:
        """Seconds since it was opened."""
        return now - self._clock.opened_at

    @property
    def idle_since(self) -> float:
        """Since when nothing is in progress on it; infinite while something is, or it is not open."""
        return math.inf if self._router.in_flight else self._clock.idle_since

    def stand_by(self) -> None:
        """Wait to replace another link."""
        self._clock.standing_by = True

    def take_over(self, idle_since: float) -> None:
        """Stand in for a link that was idle since then."""
        self._socket.wake_by(self._clock.take_over(min(idle_since, trio.current_time())))

    # --- requests ---

    def prepare(self, lane: str | None, *, again: bool) -> bool:
        """Whether a lane's next request can go over it; if not, it has retired.

        Where more may come of the lane's last response, another request is sent under a name that was never used.
        """
        if self._router.is_clean(self._channels.of(lane).name, again=again):
            return True
        if self._offers_lane:
            self._channels.renew(lane)
            self._channels.of(lane).chain.use_up()  # which says why it has nothing
            return True
        self.retire("more may come of the last response on it")
        return False

    async def carry(self, attempt: Attempt) -> bool:
        """Send an attempt on its way; False if the socket turned out to be gone and no byte of it was queued.

        Cancellation cannot interrupt it.
        """
        exchange = attempt.exchange
        channel = self._channels.use(attempt.origin.lane)
        channel.chain.use_up()
        exchange.lane = channel.name
        attempt.transport, attempt.reused, attempt.headers = self.transport, self.requests > 0, self._headers
        self._router.begin(exchange, may_cause=attempt.may_cause)
        self._attempts[exchange] = attempt  # an error may arrive while the frame is being queued
        # The turn may end while it is, and the frame leaves all the same: it must not say that nothing was sent.
        exchange.dispatched()
        attempt.connected()
        queued = await self._socket.send(attempt.frame, on_reached=attempt.sending, on_passed=attempt.sent)
        if not queued or self.failure is not None:  # what is queued on a failed socket goes nowhere
            exchange.withdrawn()
            self._attempts.pop(exchange, None)
            self._router.end(exchange)
            self._abandoned.end(exchange)
            attempt.end_drain()
            attempt.fail(self.ending)
            return False
        self.requests += 1
        attempt.dispatched()
        return True

    async def steer(self, attempt: Attempt, steer: Steer) -> bool:
        """Add input to the response that runs; False where none does.

        Cancellation cannot interrupt it.
        """
        if attempt.exchange not in self._attempts or not attempt.exchange.steerable:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return False
        target = attempt.exchange.steer(steer)  # the answer may arrive while the frame is being queued
        await self._socket.send(encode(ResponseSteer(target, steer.items)))
        return True

    async def inject(self, attempt: Attempt, injection: Injection) -> bool:
        """Hand outputs to the response that runs; False where none does.

        Cancellation cannot interrupt it.
        """
        target = attempt.exchange.response_id
        if attempt.exchange not in self._attempts or target is None or self.failure is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return False
        self._injections.add(injection, target)  # the answer may arrive while the frame is being queued
        attempt.exchange.injected |= injection.call_ids
        await self._socket.send(encode(ResponseInject(target, list(injection.items))))
        return True

    def abandon(self, attempt: Attempt, policy: OnCancel, *, wanted: bool) -> Aftermath:
        """Give an attempt up; what is still to come of its response is dropped."""
        exchange = attempt.exchange
        if self._attempts.pop(exchange, None) is None:
            return Aftermath.NOTHING  # it has ended, or failed with the link
        exchange.abandon()
        self._on_idle(trio.current_time())
        self._abandoned.add(attempt)
        # A steer may bring about another response, of which nothing else would tell where it ends.
        sound = attempt.sent_at is not None and self.usable and not exchange.steering
        chosen = aftermath(policy, wanted=wanted, sound=sound, fresh_lane=self._offers_lane, siblings=self.busy)
        match chosen:
            case Aftermath.NEW_LANE:
                self._channels.renew(attempt.origin.lane)
                self._socket.wake_by(self._abandoned.bound(exchange, trio.current_time()))
            case Aftermath.RETIRE:
                self.retire("a turn was left before its response had ended")
                if attempt.stuck and not wanted:  # nothing that is queued behind it will ever leave
                    self.abort("the peer did not take a request in time")
        return chosen

    @property
    def _offers_lane(self) -> bool:
        """Whether another response may be in progress beside the ones that are, on a lane of its own."""
        return self._state is LinkState.OPEN and self._labels.shared(self._server) and self._channels.names_left > 0

    def settle(self, attempt: Attempt) -> None:
        """Wait no longer for the rest of an abandoned response."""
        if not attempt.drained.is_set():
            attempt.end_drain()
            self.retire("the rest of an abandoned response took too long")

    # --- its end ---

    def avoid(self) -> None:
        """A request that failed on it is sent again, over another connection."""
        self.retire("a request that failed on it is sent over another")

    def retire(self, reason: str) -> None:
        """Take no new turns, and close once those in progress have ended. Idempotent, and returns at once."""
        if self._state is LinkState.DIALLING or self._state is LinkState.OPEN:
            self._retired_because = reason
            self._become(LinkState.RETIRING if self._state is LinkState.OPEN else LinkState.CALLED_OFF)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._attempts and self._state in {LinkState.RETIRING, LinkState.CALLED_OFF}:
            self._socket.close()

    def close(self) -> None:
        """Begin to close, whatever is in progress. Idempotent, and returns at once."""
        self._socket.close()

    def abort(self, reason: str) -> None:
        """Give the socket up without a closing handshake."""
        self._break(Lost(reason))

    def _break(self, failure: Failure) -> None:
        self._socket.fail(failure)

    async def run(self) -> None:
        """Live: from dialling to the closed socket.

        Cancelling it ends the dial; an open socket is shielded, and closes within bounds after `close`.
        """
        try:
            await self._socket.run()
        finally:
            self.retire("the session was closed")
            if self._attempts:
                self._fail(Lost("the connection was closed"))
            else:
                self._abandoned.end_all()
            self._injections.end()
            self._become(LinkState.CLOSED)
            self._notices.closed(self._retired_because)

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
            odd=self._odd,
            outbox_bytes=traffic.outbox_bytes,
            retired_because=self._retired_because,
        )

    # --- what its socket tells ---

    @property
    def _name(self) -> str:
        return self._notices.name

    def _on_opened(self) -> None:
        self._clock.open(trio.current_time())
        self._headers = self._socket.handshake_headers
        if self._state is LinkState.DIALLING:
            self._become(LinkState.OPEN)
            self._notices.opened()

    def _on_failed(self, failure: Failure) -> None:
        self._notices.failed(failure)
        self.broke_unused = self._state is LinkState.OPEN and not self._attempts
        self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        """Fail everything in progress."""
        self._receiving = False
        self.failure = self.failure or failure
        if self._state not in OVER:
            self._retired_because = self._retired_because or str(to_error(failure))
            self._become(LinkState.FAILED)
        for exchange, attempt in list(self._attempts.items()):
            if attempt.queued:  # of one that is not, `carry` will notice
                del self._attempts[exchange]
                self._router.end(exchange)
                attempt.fail(failure)
        self._abandoned.end_all()
        self._injections.end()

    def _on_texts(self, texts: Sequence[str]) -> None:
        now = self._clock.last_decoded = trio.current_time()
        self._receive(texts, now)

    def _on_idle(self, now: float) -> None:
        self._clock.idle_since = now

    # --- time ---

    def _on_due(self, now: float) -> float:
        alarms = Alarms(
            ping=self._socket.ping,
            on_unanswered_ping=self._on_unanswered_ping,
            on_unused=functools.partial(self.retire, "no turn used it for a while"),
            on_ageing=functools.partial(self._on_ageing, self),
            on_aged=self._on_end_of_life,
        )
        due = self._clock.due(now, alarms, busy=self._router.in_flight > 0)
        if self._abandoned.give_up_at > now:
            return min(due, self._abandoned.give_up_at)
        self._abandoned.give_up()
        self.retire("a response that was left to itself went on for too long")
        return due

    def _on_unanswered_ping(self, seconds: float) -> None:
        self._break(Lost(f"the server did not answer a ping within {seconds:g} s"))

    def _on_end_of_life(self) -> None:
        if not self._attempts:
            self._on_aged(self)
