"""The socket seam: whole turns over a socket that is neither a stream nor a WebSocket library."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import engine
from engine.protocol.failures import Failure, Lost, Unreachable
from engine.transport.dial import Dialer
from engine.transport.socket import Bounds, Callbacks, Socket, Traffic
from engine.turns.core import SessionCore

Answer = Callable[["MemorySocket", str], Awaitable[None]]


class MemorySocket:
    """A socket whose peer is a function: called with each text that is sent, in the socket's own task."""

    def __init__(self, answer: Answer, bounds: Bounds, callbacks: Callbacks) -> None:
        self.answer = answer
        self.bounds = bounds
        self.callbacks = callbacks
        self.failed = False
        self.closing = trio.Event()
        self.sent: list[str] = []
        self.pings = 0
        self.gone = False
        self.traffic = Traffic()
        self.handshake_headers: tuple[tuple[str, str], ...] = ()
        self._queue, self._waiting = trio.open_memory_channel[tuple[str, Callable[[], None], Callable[[], None]]](
            math.inf
        )
        self._scope = trio.CancelScope(shield=True)
        self._alarm = trio.CancelScope()

    @property
    def usable(self) -> bool:
        return not self.over

    @property
    def over(self) -> bool:
        return self.failed or self.closing.is_set()

    def too_slow(self, seconds: float) -> Unreachable:
        return Unreachable("timeout", f"memory took longer than {seconds:g} s")

    async def run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump)
                    self.handshake_headers = (("x-request-id", "req_memory"),)
                    self.callbacks.on_opened()
                    while not self.closing.is_set():
                        due = self.callbacks.on_due(trio.current_time())
                        with trio.CancelScope(deadline=due) as self._alarm:
                            await self.closing.wait()
                    nursery.cancel_scope.cancel(reason="the socket is closed")
        finally:
            self.gone = True

    async def _pump(self) -> None:
        async for text, on_reached, on_passed in self._waiting:
            on_reached()
            self.traffic.bytes_sent += len(text)
            on_passed()
            await self.answer(self, text)

    async def send(
        self, text: str, *, on_reached: Callable[[], None] = lambda: None, on_passed: Callable[[], None] = lambda: None
    ) -> bool:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        if self.over:
            return False
        self.sent.append(text)
        self.traffic.bytes_queued += len(text)
        self._queue.send_nowait((text, on_reached, on_passed))
        return True

    def say(self, *events: dict[str, object]) -> None:
        texts = [json.dumps(event) for event in events]
        self.traffic.bytes_received += sum(map(len, texts))
        self.callbacks.on_texts(texts)

    def ping(self, timeout: float) -> None:
        self.pings += 1
        self.traffic.bytes_received += 2

    def wake_by(self, deadline: float) -> None:
        self._alarm.deadline = min(self._alarm.deadline, deadline)

    def close(self) -> None:
        self.closing.set()

    def fail(self, failure: Failure) -> None:
        if not self.over:
            self.failed = True
            self.callbacks.on_failed(failure)
        self._scope.cancel(reason="the socket failed")


class Nowhere:
    """A dialer that must not be used."""

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        raise AssertionError("nothing is dialled in memory")

    async def start_tls(self, stream: trio.abc.Stream, *, ssl_context: object, server_hostname: str) -> trio.abc.Stream:
        raise AssertionError("nothing is dialled in memory")


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], list[MemorySocket]]:
    """Have every connection made over memory, with the given answer; returns the sockets as they are made."""

    def install(answer: Answer) -> list[MemorySocket]:
        made: list[MemorySocket] = []

        def make_socket(endpoint: engine.Endpoint, dialer: Dialer, bounds: Bounds, callbacks: Callbacks) -> Socket:
            made.append(MemorySocket(answer, bounds, callbacks))
            return made[-1]

        monkeypatch.setattr("engine.registry.SessionCore", functools.partial(SessionCore, make_socket=make_socket))
        return made

    return install


def session(**options: Any) -> engine.open_session:
    endpoint = engine.Endpoint("http://memory.test/v1", "sk-memory")
    options.setdefault("transport", engine.Transport.WEBSOCKET)
    return engine.open_session(endpoint, model="m", dialer=Nowhere(), **options)


def events(text: str, number: int = 1) -> Sequence[dict[str, object]]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [part]}
    response = {"id": f"resp_{number}", "object": "response", "status": "completed", "output": [item]}
    return (
        {"type": "response.created", "response": {"id": f"resp_{number}", "status": "in_progress", "output": []}},
        {"type": "response.output_text.delta", "item_id": f"msg_{number}", "output_index": 0, "content_index": 0}
        | {"delta": text},
        {"type": "response.completed", "response": response},
    )


async def echo(socket: MemorySocket, text: str) -> None:
    number = len(socket.sent)
    socket.say(*events(json.loads(text)["input"][-1]["content"], number))


async def test_turns_run_over_any_socket(autojump_clock: MockClock, sockets: Callable[..., list[MemorySocket]]) -> None:
    made = sockets(echo)
    async with session() as one:
        assert (await one.ask("first")).text == "first"
        async with one.turn("second") as turn:
            assert [each.delta async for each in turn if isinstance(each, engine.TextDelta)] == ["second"]
        (socket,) = made
        statistics = one.statistics().connections[0]
        assert statistics.bytes_sent == sum(map(len, socket.sent))
        assert statistics.bytes_received == socket.traffic.bytes_received
        assert statistics.outbox_bytes == 0
    assert socket.gone


async def test_a_socket_that_fails_is_replaced(
    autojump_clock: MockClock, sockets: Callable[..., list[MemorySocket]]
) -> None:
    async def fail_first(socket: MemorySocket, text: str) -> None:
        if socket is made[0]:
            socket.fail(Lost("memory ran out"))
        else:
            await echo(socket, text)

    made = sockets(fail_first)
    async with session(transport=engine.Transport.AUTO) as one:
        assert (await one.ask("again")).text == "again"
    assert len(made) == 2
    assert all(socket.gone for socket in made)


async def test_its_clock_wakes_its_owner(autojump_clock: MockClock, sockets: Callable[..., list[MemorySocket]]) -> None:
    async def hesitate(socket: MemorySocket, text: str) -> None:
        socket.say(*events("late")[:2])
        await trio.sleep_forever()

    made = sockets(hesitate)
    async with session(timeouts=engine.Timeouts(idle=70), limits=engine.Limits(ping_interval=30)) as one:
        with pytest.raises(engine.TurnTimeout) as caught:
            await one.ask("?")
    assert caught.value.phase == "idle"
    assert made[0].pings == 2


async def test_leaving_a_turn_closes_its_socket(
    autojump_clock: MockClock, sockets: Callable[..., list[MemorySocket]]
) -> None:
    async def begin(socket: MemorySocket, text: str) -> None:
        socket.say(*events("never finished")[:2])

    made = sockets(begin)
    async with session() as one:
        async with one.turn("?") as turn:
            async for _ in turn:
                break
        await trio.sleep(1)
        assert made[0].gone
        assert not made[0].failed
