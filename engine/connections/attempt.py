"""One attempt at a turn's request: it is sent once, over one transport, and what comes back is read.

A turn that is tried again makes another attempt, with an exchange of its own: nothing that still comes of the first can
be taken for the second's.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import trio

from engine.connections.websocket_link import Connection
from engine.instruments import Instruments
from engine.protocol.chain import Chain, Plan
from engine.protocol.exchange import Exchange
from engine.protocol.failures import Failure, Lost, Rejected
from engine.protocol.routing import Router, Verdict
from engine.settings.endpoint import Endpoint
from engine.transport.http import HttpClient
from engine.transport.sse import stream_events
from engine.turns.inbox import Inbox
from engine.values.choices import Transport
from engine.values.turn_events import TurnEvent
from engine.wire.account_events import KeepAlive
from engine.wire.codec import MalformedFrame, decode
from engine.wire.events import Chunks, ServerEvent
from engine.wire.sse import SseEvent

__all__ = ["Attempt", "Client", "StreamedAttempt"]

_logger = logging.getLogger("engine.attempt")

_PATH: Final = "/responses"

# What stands between us and the server says so, and cannot know whether the server had begun (RFC 9110 section 15.6).
_GATEWAY_STATUSES: Final = frozenset({502, 504})


class Client(Protocol):
    """Who makes attempts: a turn."""

    def passed(self, attempt: Attempt, now: float) -> None:
        """The request's last byte was passed on."""
        ...

    def begun(self, attempt: Attempt, now: float) -> None:
        """The first event of the response arrived."""
        ...

    def overflowed(self, attempt: Attempt) -> None:
        """The inbox holds more than it may."""
        ...

    def concluded(self, attempt: Attempt) -> None:
        """The attempt's exchange has an outcome."""
        ...

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """The attempt will have no outcome."""
        ...


class _Nobody:
    """The client of an attempt whose turn is over."""

    def passed(self, attempt: Attempt, now: float) -> None:
        pass

    def begun(self, attempt: Attempt, now: float) -> None:
        pass

    def overflowed(self, attempt: Attempt) -> None:
        pass

    def concluded(self, attempt: Attempt) -> None:
        pass

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        pass

    def sending(self, attempt: Attempt, now: float) -> None:
        pass

    def heard(self, attempt: Attempt, now: float) -> None:
        pass


_NOBODY: Final = _Nobody()


class Attempt:
    """One sending of a request; over a WebSocket, the rider of a connection.

    Attributes:
        over: `Transport.WEBSOCKET` or `Transport.SSE`.
        size: Bytes of the request, as UTF-8.
        plan: How much of the input it carries, and why.
        endpoint: Where it goes.
        connection: The WebSocket it goes over; None over HTTP.
        chain: What the server holds there; None over HTTP.
        reused: Whether that WebSocket has carried a request before.
        exchange: What the server says to it.
        queued: Whether its frame is in a connection's outbox, or beyond.
        flushed: Whether the whole request was passed on.
        last_progress: When the last of its events came, None before the first.
        idle: Seconds of silence that are allowed between two events.
        context: The context of whoever submitted the turn.
        finished: Set when there is nothing more to wait for.
        tail_gone: Set when nothing of its response can come any more, after it was abandoned.
    """

    over: Transport = Transport.WEBSOCKET

    def __init__(
        self,
        client: Client,
        inbox: Inbox,
        size: int,
        plan: Plan,
        *,
        connection: Connection | None = None,
        endpoint: Endpoint,
        idle: float,
        context: contextvars.Context,
        text_format: Mapping[str, Any] | type | None,
    ) -> None:
        self._client = client
        self._inbox = inbox
        self.size: int = size
        self.plan: Plan = plan
        self.endpoint: Endpoint = endpoint
        self.connection: Connection | None = connection
        self.chain: Chain | None = connection.chain if connection is not None else None
        self.reused: bool = connection is not None and connection.requests > 0
        self.exchange: Exchange = Exchange(text_format=text_format)
        self.queued: bool = False
        self.flushed: bool = False
        self.last_progress: float | None = None
        self.idle: float = idle
        self.context: contextvars.Context = context
        self.finished: trio.Event = trio.Event()
        self.tail_gone: trio.Event = trio.Event()

    def passed(self, now: float) -> None:
        """The request's last byte was passed on."""
        self.flushed = True
        self._client.passed(self, now)

    def received(self, events: Sequence[TurnEvent], now: float) -> None:
        """An event of the response arrived, with what the consumer should see of it."""
        if self.last_progress is None:
            self._client.begun(self, now)
        self.last_progress = now
        if not events:
            return
        # An answer that is whole should not be lost to its last events: nothing more can come.
        if self._inbox.put(events) and self.exchange.outcome is None:
            self._client.overflowed(self)

    def kept_alive(self, now: float) -> None:
        """The server says that it goes on: progress, where there has been any."""
        if self.last_progress is not None:
            self.last_progress = now

    def wake(self) -> None:
        """Nothing more follows at once."""
        self._inbox.wake()

    def ended(self) -> None:
        """The exchange has an outcome."""
        self._client.concluded(self)

    def fail(self, failure: Failure) -> None:
        """There will be no answer."""
        if isinstance(failure, Lost) and failure.close_code == 1009:
            self.exchange.refused()  # the server would not even read it
        self._client.failed(self, failure)

    def drained(self) -> None:
        """Nothing of the response can come any more, after it was abandoned."""
        self.tail_gone.set()

    def forsake(self) -> None:
        """Let go of everybody: its client's work is done, and turn and connection can each be freed at once."""
        self._client = _NOBODY
        self.connection = self.chain = None


class StreamedAttempt(Attempt):
    """One sending over HTTP, with a stream of server-sent events for an answer. `run` is its whole life."""

    over: Transport = Transport.SSE

    def __init__(
        self,
        client: StreamClient,
        inbox: Inbox,
        size: int,
        plan: Plan,
        *,
        session: str,
        instruments: Instruments,
        **rest: Any,
    ) -> None:
        super().__init__(client, inbox, size, plan, **rest)
        self._stream_client = client
        self._session = session
        self._instruments = instruments
        self._observed = instruments.wants("event_received")
        self._router = Router()
        self._malformed = 0

    def forsake(self) -> None:
        """Let go of everybody: its client's work is done."""
        super().forsake()
        self._stream_client = _NOBODY

    async def run(self, client: HttpClient, text: str, *, connect: float, max_event_bytes: int) -> None:
        """Send the request and read its answer to the end. Tells its client what came of it, and raises nothing.

        Args:
            client: Who sends it.
            text: The request's body, as JSON text.
            connect: Seconds for the key, name resolution, TCP, proxy and TLS together.
            max_event_bytes: The largest event that is accepted.

        If cancelled, the connection is closed at once.
        """
        exchange = self.exchange
        self._router.begin(exchange)
        post = client.post(
            _PATH, text, accept="text/event-stream", connect=connect, sending=self._sending, sent=self._sent
        )
        failure = await stream_events(post, self._take, max_event_bytes=max_event_bytes, on_comment=self._commented)
        if failure is None or exchange.outcome is not None:
            return
        if not post.sent:  # what had left turned out to be unread
            exchange.withdrawn()
        refused = isinstance(failure, Rejected) and failure.status not in _GATEWAY_STATUSES
        if refused:
            exchange.refused()
        self.fail(failure)

    def _sending(self) -> None:
        self.exchange.dispatched()
        self._stream_client.sending(self, trio.current_time())

    def _sent(self) -> None:
        self.passed(trio.current_time())

    def _commented(self) -> None:
        now = trio.current_time()
        if self.last_progress is not None:
            self.kept_alive(now)
            self._stream_client.heard(self, now)

    def _take(self, events: Sequence[SseEvent]) -> bool:
        """Take the events that came in one piece; returns whether the response has ended."""
        now = trio.current_time()
        before = self.last_progress
        for each in events:
            if self.exchange.outcome is not None:
                break
            try:
                event = decode(each.data)
            except MalformedFrame as malformed:
                self._malformed += 1
                if self._malformed == 1:
                    _logger.warning("an event of a stream was dropped, %s", malformed.reason)
                continue
            if event.__class__ is Chunks:
                for part in event.events:
                    self._receive(part, now)
            else:
                self._receive(event, now)
        self.wake()
        if self.exchange.outcome is not None:
            return True
        if self.last_progress is not None and self.last_progress != before:
            self._stream_client.heard(self, now)
        return False

    def _receive(self, event: ServerEvent, now: float) -> None:
        exchange = self.exchange
        if exchange.outcome is not None:
            return
        target = self._router.route(event)
        if target is Verdict.CONNECTION:
            if isinstance(event, KeepAlive):
                self.kept_alive(now)
            return
        if target is not exchange and target is not Verdict.LIMIT:
            return
        if self._observed:
            self._instruments.emit("event_received", self._session, event, context=self.context)
        self.received(exchange.receive(event), now)
        if exchange.outcome is not None:
            self.ended()


class StreamClient(Client, Protocol):
    """Who makes attempts over HTTP."""

    def sending(self, attempt: Attempt, now: float) -> None:
        """A connection is there, and the first byte of the request is about to leave."""
        ...

    def heard(self, attempt: Attempt, now: float) -> None:
        """Something of the response arrived."""
        ...
