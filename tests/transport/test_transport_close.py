"""How a connection ends that we end, in memory and virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve
from invariants import Held, contained
from raw_peer import (
    CLOSE,
    CREATED,
    PING,
    TEXT,
    Line,
    Peer,
    PeerDialer,
    close_frame,
    completed,
    frame,
    line,
    session_over,
)
from trio.testing import MockClock

import engine
from engine.protocol.failures import Lost
from engine.transport.socket import Callbacks
from engine.transport.websocket import WebSocket


@asynccontextmanager
async def opened(held: Held, script: Any, **options: Any) -> AsyncIterator[Line]:
    """An open line; behind the block it has ended."""
    async with trio.open_nursery() as nursery:
        whole = line(held, script, **options)
        nursery.start_soon(whole.run)
        await whole.opened.wait()
        await trio.testing.wait_all_tasks_blocked()
        yield whole


async def test_a_polite_close_takes_no_time(autojump_clock: MockClock) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        got = await peer.next_frame()
        seen.append(got)
        await peer.send(frame(got[1] if got else b"", CLOSE))
        await peer.until_gone()

    async with contained(within=0) as held, opened(held, script) as whole:
        whole.socket.close()
        whole.socket.close()
    assert whole.failures == []
    assert seen == [(CLOSE, b"\x03\xe8")]


async def test_a_peer_that_does_not_answer_costs_exactly_the_close_budget(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.until_gone(polite=False)

    async with contained(within=2) as held, opened(held, script, close=2) as whole:
        whole.socket.close()
    assert whole.ended_at == 2
    assert whole.failures == []


async def test_a_budget_of_zero_aborts_at_once(autojump_clock: MockClock) -> None:
    peers = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await peer.accept()
        await peer.until_gone()

    async with contained(within=0) as held, opened(held, script, close=0) as whole:
        whole.socket.close()
    await trio.testing.wait_all_tasks_blocked()
    assert peers[0].frames == []


async def test_cancelling_is_closing(autojump_clock: MockClock) -> None:
    peers = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await peer.accept()
        await peer.until_gone(polite=False)

    async with contained(within=3) as held:
        whole = line(held, script, close=2)
        with trio.move_on_after(1) as scope:
            await whole.run()
        assert scope.cancelled_caught
        assert held.elapsed == 3
        assert peers[0].frames == [CLOSE]
        assert whole.failures == []


async def answer_the_close_frame(peer: Peer) -> None:
    await peer.accept()
    while (got := await peer.next_frame()) is not None:
        if got[0] == CLOSE:
            await peer.send(frame(got[1], CLOSE))


async def test_a_ping_without_a_pong_does_not_hold_up_a_close(autojump_clock: MockClock) -> None:
    async with contained(within=0) as held, opened(held, answer_the_close_frame) as whole:
        whole.socket.ping(60)
        await trio.testing.wait_all_tasks_blocked()
        whole.socket.close()
    assert whole.failures == []


class Deaf(trio.abc.Stream):
    """A stream whose reader learns nothing of its end: neither of the peer's, nor of its being closed."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(max_bytes) or await trio.sleep_forever()
        except trio.ClosedResourceError:
            await trio.sleep_forever()
        raise AssertionError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class DeafDialer(PeerDialer):
    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        return Deaf(await super().open_tcp(host, port))


async def test_a_stream_that_breaks_its_contract_holds_up_a_close_for_seconds_at_most(
    autojump_clock: MockClock,
) -> None:
    async with contained(within=5) as held:
        whole = line(held, dialer=DeafDialer(held, answer_the_close_frame))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(whole.run)
            await whole.opened.wait()
            whole.socket.close()
    assert whole.failures == []


async def ping_when_closed(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()
    await peer.send(frame("are you there", PING))
    await trio.sleep(1)
    await peer.send(frame("are you there", PING))
    await peer.until_gone(polite=False)


async def flood_when_closed(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()
    while True:
        await peer.send(frame("x" * 1000))
        await trio.sleep(0.01)


async def end_when_closed(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()


async def reset_when_closed(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()
    peer.reset()


async def violate_when_closed(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()
    await peer.send(frame("", 3))
    await peer.until_gone(polite=False)


async def close_with_another_code(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()
    await peer.send(close_frame(1011, "crossing yours"))
    await trio.sleep_forever()


async def cut_its_close_frame(peer: Peer) -> None:
    await peer.accept()
    await peer.next_frame()
    await peer.send(close_frame(1000, "some words")[:5])
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("script", "within"),
    [
        (ping_when_closed, 2),
        (flood_when_closed, 2),
        (end_when_closed, 0),
        (reset_when_closed, 0),
        (violate_when_closed, 2),
        (close_with_another_code, 0),
        (cut_its_close_frame, 2),
    ],
)
async def test_whatever_a_peer_does_meanwhile_closing_is_bounded_and_silent(
    autojump_clock: MockClock, script: Any, within: float
) -> None:
    async with contained(within=within) as held, opened(held, script, close=2) as whole:
        whole.socket.close()
    assert whole.failures == []


async def test_both_closing_at_once_is_no_failure(autojump_clock: MockClock) -> None:
    go = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await go.wait()
        await peer.send(close_frame(1001))
        await peer.until_gone()

    async with contained(within=0) as held, opened(held, script) as whole:
        go.set()
        whole.socket.close()
    assert whole.failures == []


async def test_with_a_frame_half_sent_there_is_no_goodbye(autojump_clock: MockClock) -> None:
    received = bytearray()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await trio.sleep(1)
        while data := await peer.stream.receive_some(4096):
            received.extend(data)

    async with contained(within=0) as held:
        async with opened(held, script, capacity=1000) as whole:
            assert await whole.socket.send("x" * 5000) is not None
            await trio.testing.wait_all_tasks_blocked()
            whole.socket.close()
        await trio.testing.wait_all_tasks_blocked()
    assert len(received) < 5000  # nothing was put behind the torn frame


async def test_a_goodbye_that_cannot_get_out_is_bounded(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await trio.sleep_forever()

    async with contained(within=2) as held, opened(held, script, capacity=300, close=2) as whole:
        assert await whole.socket.send("x" * (300 - 8)) is not None
        await trio.testing.wait_all_tasks_blocked()
        whole.socket.close()
    assert whole.ended_at == 2


async def test_an_answer_to_a_close_frame_that_cannot_get_out_is_bounded(autojump_clock: MockClock) -> None:
    go = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await go.wait()
        await peer.send(close_frame(1012))
        await trio.sleep_forever()

    async with contained(within=2) as held, opened(held, script, capacity=300, close=2) as whole:
        assert await whole.socket.send("x" * 3000) is not None
        go.set()
    assert whole.error.close_code == 1012
    assert whole.failed_at == 0


async def test_an_answer_to_a_close_frame_gets_out_behind_what_is_on_its_way(autojump_clock: MockClock) -> None:
    peers = []
    go = trio.Event()

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await peer.accept()
        await go.wait()
        await peer.send(close_frame(1012))
        while len(peer.received) < 2500:
            await trio.sleep(0.01)
            peer.received += await peer.stream.receive_some(100)
        await peer.until_gone(polite=False)

    async with contained(within=1) as held, opened(held, script, capacity=300, close=2) as whole:
        assert await whole.socket.send("x" * 3000) is not None
        go.set()
        await trio.sleep(0.5)
        assert peers[0].frames == [TEXT, CLOSE]
    assert whole.error.close_code == 1012


async def test_failing_aborts_without_a_goodbye(autojump_clock: MockClock) -> None:
    peers = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await peer.accept()
        await peer.until_gone()

    async with contained(within=0) as held, opened(held, script) as whole:
        whole.socket.fail(Lost("no longer wanted"))
        whole.socket.fail(Lost("said again"))
        whole.socket.close()
        assert not whole.socket.usable
    await trio.testing.wait_all_tasks_blocked()
    assert len(whole.failures) == 1
    assert peers[0].frames == []


async def test_an_owner_that_raises_breaks_its_connection_only(autojump_clock: MockClock) -> None:
    def raises(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    async def script(peer: Peer) -> None:
        await peer.accept(frame("one"))
        await peer.until_gone()

    for name in ("on_opened", "on_texts"):
        async with contained(within=0) as held:
            whole = line(held, script)
            callbacks = Callbacks(whole._opened, whole.messages.extend, whole._failed)
            callbacks = evolve(callbacks, **{name: raises})  # type: ignore[arg-type]
            whole.socket = WebSocket(whole.endpoint, whole.dialer, whole.bounds, callbacks)
            await whole.run()
            assert type(whole.error) is engine.SessionClosed
            assert isinstance(whole.error.__cause__, ZeroDivisionError)


# --- sessions ---


async def answer_then(peer: Peer, what: str) -> None:
    await peer.accept()
    await peer.request()
    await peer.send(CREATED + completed())
    match what:
        case "ignore":
            await peer.until_gone(polite=False)
        case "stop reading":
            await trio.sleep_forever()
        case "ping":
            while True:
                await peer.send(frame("x", PING))
                await trio.sleep(0.1)
        case "close":
            await peer.send(close_frame(1000))
            await trio.sleep_forever()


@pytest.mark.parametrize("what", ["ignore", "stop reading", "ping", "close"])
@pytest.mark.parametrize("close", [0, 2, 5])
async def test_leaving_a_session_is_bounded_by_the_close_budget(
    autojump_clock: MockClock, what: str, close: float
) -> None:
    async def script(peer: Peer) -> None:
        await answer_then(peer, what)

    async with contained(within=close) as held:
        async with session_over(held, script, timeouts=engine.Timeouts(close=close)) as session:
            assert (await session.ask("hi")).text == "fine"


async def test_releasing_many_sessions_takes_as_long_as_one(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await answer_then(peer, "stop reading")

    async with contained(within=4) as held:
        endpoint = engine.Endpoint("ws://peer.test")
        async with engine.open_engine(endpoint, model="m", dialer=PeerDialer(held, script)) as eng:
            for number in range(20):
                await (await eng.session(str(number))).ask("hi")
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(eng.release, str(number))
            assert held.elapsed == 2


async def test_nothing_is_queued_on_a_socket_that_fails_while_sending(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.until_gone()

    class AfterOneStep(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            trio.lowlevel.remove_instrument(self)
            whole.socket.fail(Lost("in the middle of sending"))

    async with contained() as held, opened(held, script) as whole:
        before = whole.socket.traffic.bytes_queued
        trio.lowlevel.add_instrument(AfterOneStep())
        assert not await whole.socket.send("too late")
        assert whole.socket.traffic.bytes_queued == before
    assert whole.failures == [Lost("in the middle of sending")]
