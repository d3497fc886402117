"""Requests over HTTP, each with a stream of server-sent events for an answer.

Each exchange runs in a task of the link's own, so that a turn's budgets and its caller's leaving cancel nothing but the
wait for it; giving an attempt up cancels its task, which closes its connection at once.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import trio

from engine.connections.attempt import Attempt
from engine.connections.receiver import Receiver
from engine.instruments import Instruments
from engine.protocol.aftermath import Aftermath
from engine.protocol.chain import HeldResponse, Plan
from engine.protocol.display import Oddity
from engine.protocol.exchange import Exchange
from engine.protocol.failures import Broken, Failure, RequestRefused
from engine.protocol.injections import Injection
from engine.protocol.routing import Doubt, Unlabelled, Verdict
from engine.protocol.steers import Steer
from engine.settings.endpoint import Endpoint
from engine.settings.limits import ResolvedLimits
from engine.transport.dial import Dialer
from engine.transport.http import HttpClient
from engine.transport.sse import stream_events
from engine.values.choices import OnCancel, Transport
from engine.wire.account_events import KeepAlive
from engine.wire.codec import MalformedFrame, encode, parse_object
from engine.wire.events import ServerEvent
from engine.wire.requests import CreateText
from engine.wire.sse import SseEvent

__all__ = ["HttpLink"]

_PATH: Final = "/responses"
_WHOLE: Final = Plan(full_because="every request over HTTP is whole")

# A gateway between us and the server says so, and cannot know whether the server had begun (RFC 9110 section 15.6).
_GATEWAY_STATUSES: Final = frozenset({502, 504})


class HttpLink:
    """A link over HTTP.

    Args:
        endpoint: The server.
        dialer: Opens its streams.
        limits: Of which ``max_message_bytes`` holds for events, and ``idle_lifetime`` for connections that are kept.
        instruments: The hooks that are told of it.

    Attributes:
        started: Set when it can carry requests.
    """

    transport = Transport.SSE
    number = 0

    def __init__(self, endpoint: Endpoint, dialer: Dialer, *, limits: ResolvedLimits, instruments: Instruments) -> None:
        self.endpoint: Endpoint = endpoint
        self._dialer = dialer
        self._limits = limits
        self._client: HttpClient | None = None
        self.started: trio.Event = trio.Event()
        self._instruments = instruments
        self._nursery: trio.Nursery | None = None
        self._odd_before: set[Oddity] = set()
        self._exchanges: dict[Attempt, _HttpExchange] = {}
        self._tasks = 0
        self._bytes_received = 0
        self._retired = False
        self._unused = trio.Event()

    @property
    def bytes_received(self) -> int:
        """Bytes of answers received so far."""
        return self._bytes_received + sum(each.bytes_received for each in self._exchanges.values())

    @property
    def unread(self) -> int:
        """Frames of the answers under way that could not be read."""
        return sum(each.unread for each in self._exchanges.values())

    @property
    def usable(self) -> bool:
        """Whether it can carry requests."""
        return self._nursery is not None and not self._nursery.cancel_scope.cancel_called

    async def run(self) -> None:
        """Live until cancelled, or until retired and unused. Cancelling it closes every connection at once."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._client = HttpClient(
                    self.endpoint, self._dialer, nursery=nursery, idle_lifetime=self._limits.idle_lifetime
                )
                self.started.set()
                try:
                    await self._unused.wait()
                finally:
                    self._nursery = None
                    await self._client.aclose()
                nursery.cancel_scope.cancel(reason="the link is not used any more")
        finally:
            self.started.set()

    @property
    def client(self) -> HttpClient:
        """The client that sends the requests."""
        assert self._client is not None
        return self._client

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that uses `client`. It must not raise an `Exception`."""
        assert self._nursery is not None
        self._tasks += 1
        self._nursery.start_soon(self._counted, task)

    async def _counted(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        finally:
            self._tasks -= 1
            self._end_if_unused()

    # --- requests ---

    def fresh(self, lane: str | None) -> bool:
        """Whether a warm-up could help: over HTTP the server keeps nothing ready."""
        return False

    def prepare(self, lane: str | None, *, again: bool) -> bool:
        """Whether a lane's next request can go over it: each has an answer of its own."""
        return True

    def plan(self, lane: str | None, body: Mapping[str, Any], *, stored: HeldResponse | None = None) -> Plan:
        """Say how a lane's request would be sent: whole."""
        return _WHOLE

    def adopt(self, lane: str | None, held: HeldResponse, *, parent: str | None) -> bool:
        """False: over HTTP the server holds nothing that was not stored."""
        return False

    def write(self, lane: str | None, text: CreateText, plan: Plan, *, generate: bool | None = None) -> str:
        """Give a request its form on the wire."""
        return text.http_body(stream=True)

    def warming(self, lane: str | None) -> trio.Event | None:
        """None: there is nothing to warm up."""
        return None

    def begin_warm_up(self, lane: str | None) -> None:
        """Never: there is nothing to warm up."""
        raise NotImplementedError

    def end_warm_up(self, lane: str | None) -> None:
        """Never: there is nothing to warm up."""
        raise NotImplementedError

    async def carry(self, attempt: Attempt) -> bool:
        """Send an attempt on its way. If cancelled, it was not begun."""
        await trio.lowlevel.checkpoint_if_cancelled()
        exchange = self._exchanges[attempt] = _HttpExchange(self.client, attempt, self._instruments, self._odd_before)
        attempt.transport = self.transport
        self.start(functools.partial(self._run, exchange))
        return True

    async def steer(self, attempt: Attempt, steer: Steer) -> bool:
        """False: over HTTP nothing can be added to a response."""
        await trio.lowlevel.checkpoint()
        return False

    async def inject(self, attempt: Attempt, injection: Injection) -> bool:
        """False: over HTTP nothing can be added to a response."""
        await trio.lowlevel.checkpoint()
        return False

    async def _run(self, exchange: _HttpExchange) -> None:
        attempt = exchange.attempt
        try:
            await exchange.run(max_event_bytes=self._limits.max_message_bytes)
        except Exception as error:
            attempt.fail(Broken(error))
        finally:
            del self._exchanges[attempt]
            self._bytes_received += exchange.bytes_received
            attempt.end_drain()

    def abandon(self, attempt: Attempt, policy: OnCancel, *, wanted: bool) -> Aftermath:
        """Give an attempt up: close its connection."""
        exchange = self._exchanges.get(attempt)
        if exchange is not None:
            exchange.cancel()
        return Aftermath.NOTHING

    def settle(self, attempt: Attempt) -> None:
        """Wait no longer for the rest of an abandoned response: there is none."""

    def avoid(self) -> None:
        """A request that failed is sent again: over another connection in any case."""

    def retire(self, reason: str) -> None:
        """Take no new turns, and end once those in progress have ended. Idempotent, and returns at once."""
        self._retired = True
        if self._client is not None:
            self._client.retire()
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._retired and not self._tasks:
            self._unused.set()


class _HttpExchange(Receiver):
    """One request over HTTP and its answer. `run` is its whole life."""

    _has_lanes = False

    def __init__(self, client: HttpClient, attempt: Attempt, instruments: Instruments, odd_before: set[Oddity]) -> None:
        super().__init__(instruments)
        self._noted = odd_before  # by all answers of the link together
        self.attempt = attempt
        self.bytes_received = 0
        self._scope = trio.CancelScope()
        self._router.begin(attempt.exchange)
        self._attempts[attempt.exchange] = attempt
        self._post = client.post(
            _PATH,
            attempt.frame,
            accept="text/event-stream",
            connect=attempt.patience,
            on_sending=self._sending,
            on_sent=attempt.sent,
        )

    def cancel(self) -> None:
        """Break it off: nothing of it reaches its attempt any more, and its connection closes at once."""
        self._receiving = False
        self.attempt.exchange.abandon()
        self._scope.cancel(reason="the turn was left")

    async def run(self, *, max_event_bytes: int) -> None:
        """Send the request and read the answer to the end."""
        with self._scope:
            failure = await stream_events(
                self._post, self._on_events, max_event_bytes=max_event_bytes, on_comment=self._on_comment
            )
            if failure is not None:
                self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        self.attempt.headers = self._post.headers
        exchange = self.attempt.exchange
        if exchange.outcome is not None or not self._receiving:
            return
        if not self._post.sent:  # what had left turned out to be unread
            exchange.withdrawn()
        if isinstance(failure, RequestRefused) and failure.status not in _GATEWAY_STATUSES:
            exchange.refused()
        self.attempt.fail(failure)

    def _on_comment(self) -> None:
        self.attempt.kept_alive(trio.current_time())

    def _sending(self) -> None:
        self.attempt.reused = self._post.reused
        self.attempt.exchange.dispatched()
        self.attempt.connected()
        self.attempt.sending()
        self.attempt.dispatched()

    def _on_events(self, events: Sequence[SseEvent]) -> bool:
        """Take the events that came in one piece; returns whether the response has ended."""
        self.attempt.headers = self._post.headers
        self.bytes_received += sum(len(event.data) for event in events)
        now = trio.current_time()
        if events:  # all there is in the body is this answer's, what cannot be read as well
            self.attempt.kept_alive(now)
        self._receive([_text_of(event) for event in events if event.data], now)
        return self.attempt.exchange.outcome is not None

    @property
    def _name(self) -> str:
        return "an answer over HTTP"

    def _unclaimed(self, target: Exchange | Verdict | Doubt | Unlabelled, event: ServerEvent, now: float) -> None:
        if target is Verdict.CONNECTION and isinstance(event, KeepAlive):
            self.attempt.kept_alive(now)
        elif target is Verdict.LIMIT:  # it is about a socket elsewhere, and ends this answer all the same
            self._feed(self.attempt, event, now)

    def _ended(self, attempt: Attempt, now: float) -> None:
        self._receiving = False


def _text_of(event: SseEvent) -> str:
    """Return an event's data; where only the event's name says that it is an error, as one that says so itself.

    The same for the name of any other event whose data is an object without a type.
    """
    name, data = event.event, event.data
    if name in {"message", ""} or (name != "error" and f'"{name}"' in data):
        return data
    try:
        raw = parse_object(data)
    except MalformedFrame:
        return encode({"type": "error", "error": data}) if name == "error" else data
    if name == "error":
        return data if raw.get("type") == name or "error" in raw else encode({"type": name, "error": raw})
    return data if "type" in raw or "error" in raw else encode({**raw, "type": name})
