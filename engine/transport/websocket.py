"""One live WebSocket over trio-websocket: dialled, served and closed by one task that owns its stream.

trio-websocket leaves the socket open when its nursery ends, may wait for ever in handshakes, and tears frames when a
sender is cancelled. Only its public interface is used; the stream it runs over is a `Tap`, and every wait around it
has an end of our own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, cast

import trio
from attrs import evolve
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection, wrap_client_stream

from engine.protocol.failures import Broken, Failure, Lost, Unreachable, Violated
from engine.settings.endpoint import Endpoint
from engine.transport.credentials import request_headers, resolve
from engine.transport.dial import Dialer, Target, close_at_once, open_stream, too_slow, undialled
from engine.transport.inlet import Inlet
from engine.transport.proxy import proxy_on_the_way
from engine.transport.socket import Bounds, Callbacks, Traffic
from engine.transport.tap import Tap

__all__ = ["WebSocket"]

_RECEIVE_BYTES: Final = 65536
_QUEUED_MESSAGES: Final = 64
_END_GRACE: Final = 5.0  # for tasks that need only be given their turn, however many sessions close at the same time


def _nothing() -> None:
    pass


_NOBODY: Final = Callbacks(_nothing, lambda texts: None, lambda failure: None)


class WebSocket:
    """One socket, from dialling to its closed file descriptor. `run` is its whole life."""

    def __init__(self, endpoint: Endpoint, dialer: Dialer, bounds: Bounds, callbacks: Callbacks) -> None:
        self._endpoint = endpoint
        self._target = Target.of(endpoint.websocket)
        self._dialer = dialer
        self._bounds = bounds
        self._callbacks = callbacks
        self._stage = "credentials"
        self._failed = False
        self._closing = trio.Event()
        self._connecting = trio.CancelScope()
        self._alarm = trio.CancelScope()
        self._stream: trio.abc.Stream | None = None
        self._nursery: trio.Nursery | None = None
        self._listening = False
        self._pings = 0
        self._inlet = Inlet(bounds.max_message_bytes, self._hand_on, lambda: self.over)
        self._tap: Tap | None = None
        self._traffic = Traffic()
        self._ws: WebSocketConnection | None = None

    # --- what the owner asks ---

    @property
    def usable(self) -> bool:
        """Whether a frame sent now could arrive: open, not closing, both directions unbroken as far as known."""
        tap = self._tap
        return (
            self._ws is not None
            and self._ws.closed is None
            and not self._failed
            and not self._closing.is_set()
            and tap is not None
            and not tap.ended
            and not tap.torn
        )

    @property
    def traffic(self) -> Traffic:
        """The socket's traffic."""
        return self._traffic

    @property
    def over(self) -> bool:
        """Whether it has failed, or is to be closed."""
        return self._failed or self._closing.is_set()

    @property
    def handshake_headers(self) -> tuple[tuple[str, str], ...]:
        """The fields of the server's 101 answer; empty before it."""
        given = self._ws.handshake_headers if self._ws is not None else ()
        return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in given)

    def too_slow(self, seconds: float) -> Unreachable:
        """Say what is taking too long: the step that connecting has come to."""
        proxy = proxy_on_the_way(self._dialer, self._endpoint.websocket)
        return too_slow(self._stage, self._target.shown, seconds, proxy=proxy)

    def close(self) -> None:
        """Begin the closing handshake, or abort where there is no peer to shake hands with. Idempotent."""
        self._closing.set()
        if self._ws is None:
            self._connecting.cancel(reason="the socket was closed before it was open")

    def fail(self, failure: Failure) -> None:
        """Give the socket up: tell the owner why, then abort."""
        try:
            self._report(failure)
        finally:
            self._abort("the socket failed")

    def _abort(self, reason: str) -> None:
        scope = self._connecting if self._nursery is None else self._nursery.cancel_scope
        scope.cancel(reason=reason)

    async def send(
        self, text: str, *, on_reached: Callable[[], None] = _nothing, on_passed: Callable[[], None] = _nothing
    ) -> bool:
        """Queue one text message; False if the socket is gone.

        The shield needs no deadline: the outbox never blocks, and the library's lock is held only while something is
        put there.
        """
        assert self._ws is not None
        assert self._tap is not None
        with trio.CancelScope(shield=True):
            try:
                await self._ws.send_message(text)
            except ConnectionClosed:
                return False
        if self._failed:
            # It failed while the frame waited for the library's lock. A turn that is told that nothing was sent may be
            # sent elsewhere, so the pump must not find the frame.
            self._tap.outbox.retract()
            return False
        self._tap.outbox.follow(on_reached, on_passed)
        return True

    def ping(self, timeout: float) -> None:
        """Ping the peer, and wait up to ``timeout`` seconds for the pong, in a task of the socket's own."""
        assert self._nursery is not None
        self._nursery.start_soon(self._guarded, self._ping, timeout)

    def wake_by(self, deadline: float) -> None:
        """Have `Callbacks.on_due` called at that time, unless it is called before."""
        if deadline < self._alarm.deadline:
            self._alarm.deadline = deadline

    # --- the socket's life ---

    async def run(self) -> None:
        """Dial, upgrade, receive until closed or failed, then close. Never raises for what the peer does.

        Cancelling it ends the dial. An open socket is shielded, so that goodbyes can be said: its owner calls `close`
        as well, from which on `Bounds.close` counts. The stream is closed in any case.
        """
        deadline = trio.current_time() + self._bounds.connect
        try:
            stream = self._stream = await self._dial(deadline)
            if stream is None:
                return
            try:
                await self._serve(stream, deadline)
            finally:
                await self._close_stream()
        finally:
            self._closing.set()
            self._forget()

    @trio.lowlevel.enable_ki_protection
    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await close_at_once(stream)

    def _forget(self) -> None:
        """Let go of owner and tasks, so that a closed socket is freed at once, not when garbage is next looked for."""
        self._failed = True
        self._callbacks = _NOBODY
        self._nursery = None
        self._inlet.forget()
        if self._tap is not None:
            self._tap.forget()

    def _reach(self, stage: str) -> None:
        self._stage = stage

    async def _dial(self, deadline: float) -> trio.abc.Stream | None:
        try:
            self._connecting.deadline = deadline
            with self._connecting:
                self._credentials = await resolve(self._endpoint)
                return await open_stream(self._dialer, self._target, self._endpoint, self._reach)
        except Exception as error:
            self._report(undialled(self._stage, self._target.shown, error))
        else:
            if self._connecting.cancelled_caught:
                self._report(self.too_slow(self._bounds.connect))
        return None

    async def _serve(self, stream: trio.abc.Stream, deadline: float) -> None:
        tap = self._tap = Tap(
            stream,
            max_outbox_bytes=self._bounds.max_outbox_bytes,
            fail=self.fail,
            on_rest=self._listen,
            inlet=self._inlet,
            traffic=self._traffic,
        )
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.cancel_scope.shield = True
                nursery.start_soon(self._guarded, tap.pump)
                if await self._upgrade(nursery, tap, deadline):
                    await self._guarded(self._use, tap)
                if tap.outbox.idle and not self._pings:
                    # The pump and the reader end by themselves then. To cancel them, and unwind their stacks, would
                    # cost as much as all the rest of closing.
                    tap.forget()
                    tap.outbox.end()
                    await self._close_stream()
                    nursery.cancel_scope.deadline = trio.current_time() + _END_GRACE
                else:
                    self._abort("the socket is closed")
        except* Exception as group:
            # Ours are guarded, so this is trio-websocket's reader: wsproto objected to what the peer sent, or a Ping
            # met our Close frame (its issue 184).
            if self._ws is None:
                self._report(evolve(tap.objection, cause=_only(group)))
            else:
                self._report(Violated("the peer broke the WebSocket protocol"))

    async def _use(self, tap: Tap) -> None:
        """Serve the open socket until it is to be closed, then say goodbye."""
        assert self._ws is not None
        if self._ws.closed is not None:
            await self._read()  # over before it was open; what the server said on the way still counts
        else:
            self._callbacks.on_opened()
            self._inlet.open()
            if tap.has_rest:
                self._listen()
        while not self._closing.is_set():
            with trio.CancelScope(deadline=self._callbacks.on_due(trio.current_time())) as self._alarm:
                await self._closing.wait()
        with trio.move_on_after(self._bounds.close):
            await self._say_goodbye(tap)

    async def _ping(self, timeout: float) -> None:  # noqa: ASYNC109 - a pong is awaited nowhere else
        assert self._ws is not None
        self._pings += 1
        try:
            with trio.move_on_after(timeout), suppress(ConnectionClosed):
                await self._ws.ping()
        finally:
            self._pings -= 1

    async def _guarded(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        try:
            await task(*args)
        except Exception as error:
            self.fail(Broken(error))

    async def _upgrade(self, nursery: trio.Nursery, tap: Tap, deadline: float) -> bool:
        self._stage = "upgrade"
        with trio.CancelScope(deadline=deadline) as scope:
            self._connecting = scope
            if self.over:
                scope.cancel(reason="the socket was closed before it was open")
            ws = await wrap_client_stream(
                nursery,
                cast("Any", tap),  # annotated as a socket or TLS stream, documented for any stream
                self._target.shown,
                self._target.resource,
                extra_headers=request_headers(self._endpoint, self._credentials),
                message_queue_size=_QUEUED_MESSAGES,
                max_message_size=self._bounds.max_message_bytes,
                receive_buffer_size=_RECEIVE_BYTES,
            )
            tap.upgraded()
            self._ws = ws
        if scope.cancelled_caught:
            self._report(tap.refusal or self.too_slow(self._bounds.connect))
        return self._ws is not None

    def _listen(self) -> None:
        """Begin to listen to trio-websocket, which has something to say of its own: a message, or the end."""
        if self._ws is not None and self._nursery is not None and not (self._listening or self._closing.is_set()):
            self._listening = True
            self._nursery.start_soon(self._guarded, self._read)

    async def _read(self) -> None:
        """Hand on what trio-websocket makes of the messages that were left to it, and learn of the end.

        Nothing here waits for a consumer, so Pings are always answered.
        """
        assert self._ws is not None
        try:
            while True:
                message = await self._ws.get_message()
                try:
                    text = message if isinstance(message, str) else message.decode()  # some send JSON as binary
                except UnicodeDecodeError:
                    self.fail(Violated("the server sent a binary message that is no text"))
                    return
                self._inlet.add(text)
        except ConnectionClosed as closed:
            self._report(self._ending(closed.reason))
            self._closing.set()

    def _hand_on(self, texts: Sequence[str]) -> None:
        try:
            self._callbacks.on_texts(texts)
        except Exception as error:
            self.fail(Broken(error))

    def _ending(self, reason: CloseReason | None) -> Failure:
        tap = self._tap
        assert tap is not None
        if reason is None:
            return Violated("the peer broke the WebSocket protocol")
        limit = self._bounds.max_message_bytes
        if reason.code == 1009 and reason.reason == f"Exceeded maximum message size: {limit} bytes":
            return Violated(f"the server sent a message over {limit} bytes")
        if reason.code == 1006:
            return Lost("the connection ended without a Close frame")
        if not tap.close_sent and not tap.torn:  # a Close frame of the peer's would have been answered
            return Violated("the peer broke the WebSocket protocol")
        return Lost(f"the server closed the connection with code {reason.code}", int(reason.code), reason.reason)

    async def _say_goodbye(self, tap: Tap) -> None:
        """Close politely where that can work: nothing half-sent, and a peer that may still answer.

        When the peer closed first, this only lets the library's answering Close frame out.
        """
        ws = self._ws
        assert ws is not None
        if ws.closed is None and tap.clean:
            await ws.aclose()
        if ws.closed is not None and not (tap.torn or tap.ended):
            await tap.outbox.drained()

    def _report(self, failure: Failure) -> None:
        self._inlet.flush()  # what was said before counts
        if not self._failed and not self._closing.is_set():
            self._failed = True
            self._callbacks.on_failed(failure)


def _only(group: BaseException) -> BaseException:
    """The exception in ``group``, if it is alone there."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        group = group.exceptions[0]
    return group
