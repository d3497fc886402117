"""Releasing sessions and leaving the engine: bounded whatever the peers do, in every phase and in any number.

``RELEASE_SESSIONS`` sets how many sessions the run over TCP has.
"""

from __future__ import annotations

import gc
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from stuck import KINDS, stuck_peers
from trio.testing import MockClock

import engine
from engine.instruments import ConnectionInfo, RequestInfo
from engine.simulator import (
    Accept,
    Created,
    Ignore,
    Mute,
    Say,
    SayDelta,
    Script,
    Simulator,
    Stall,
    open_simulator,
)

pytestmark = pytest.mark.slow

TICK = 1e-6
MIB = 1024 * 1024
OVER_TCP = int(os.environ.get("RELEASE_SESSIONS", "200"))


def bound(close: float, sessions: int = 1) -> float:
    """Seconds that leaving an engine may take without the garbage collector, which these tests do without."""
    return close + 0.5 + 0.0005 * sessions


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing may count on the garbage collector to close a socket."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def until(condition: Callable[[], bool], *, turns: int = 20_000) -> None:
    """Let other tasks run until the condition holds; bounded, so that a failure does not hang."""
    for _ in range(turns):
        if condition():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it did not come about")


async def expect_closed(session: engine.Session, seen: list[engine.SessionClosed]) -> None:
    with pytest.raises(engine.SessionClosed) as caught:
        await session.ask("hi", timeouts=engine.Timeouts(first_event=None, start=None, queue=None))
    seen.append(caught.value)


class Sent(engine.Instrument):
    """Counts requests handed to a connection."""

    def __init__(self) -> None:
        self.requests = 0

    def request_sent(self, info: RequestInfo, /) -> None:
        self.requests += 1


async def ask_many(eng: engine.Engine, sent: Sent, nursery: trio.Nursery, count: int) -> list[engine.SessionClosed]:
    """Start sessions and a turn on each; return, once all are sent, the list of how they will have ended."""
    seen: list[engine.SessionClosed] = []
    for number in range(count):
        nursery.start_soon(expect_closed, await eng.session(f"s{number}"), seen)
    await until(lambda: sent.requests == count, turns=200_000)
    return seen


# --- in any number ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("close", [0, 2])
async def test_a_thousand_sessions_with_stuck_peers_end_within_the_bound(
    autojump_clock: MockClock, uncollected: None, close: float
) -> None:
    count = 1000
    sent = Sent()
    async with stuck_peers(*KINDS) as peers, trio.open_nursery() as nursery:
        async with engine.open_engine(
            peers.endpoint, model="m", dialer=peers, instruments=[sent], timeouts=engine.Timeouts(close=close)
        ) as eng:
            seen = await ask_many(eng, sent, nursery, count)
            started = trio.current_time()
        took = trio.current_time() - started
        assert took <= bound(close, count) + TICK
        assert took >= close - TICK  # the peers were given their time, all at once
        assert peers.still_open == []
        await until(lambda: len(seen) == count)
    assert {error.delivery for error in seen} == {engine.Delivery.AMBIGUOUS}


async def test_sessions_of_stuck_tcp_peers_are_all_closed(uncollected: None) -> None:
    close = 0.5
    sent = Sent()
    before = descriptors()
    async with stuck_peers(*KINDS, tcp=True) as peers, trio.open_nursery() as nursery:
        async with engine.open_engine(
            peers.endpoint,
            model="m",
            dialer=peers,
            instruments=[sent],
            timeouts=engine.Timeouts(close=close, connect=30),
        ) as eng:
            seen = await ask_many(eng, sent, nursery, OVER_TCP)
            assert descriptors() >= before + 2 * OVER_TCP
            started = time.perf_counter()
        took = time.perf_counter() - started
        print(f"{OVER_TCP} sessions with stuck TCP peers, close={close}: left in {took:.3f} s")
        assert peers.still_open == []
        assert took <= 4 * bound(close, OVER_TCP)
        await until(lambda: len(seen) == OVER_TCP)
    assert descriptors() == before


async def test_releases_of_many_sessions_run_at_the_same_time(autojump_clock: MockClock) -> None:
    sent = Sent()
    async with stuck_peers("silent") as peers, trio.open_nursery() as turns:
        async with engine.open_engine(peers.endpoint, model="m", dialer=peers, instruments=[sent]) as eng:
            seen = await ask_many(eng, sent, turns, 100)
            started = trio.current_time()
            async with trio.open_nursery() as nursery:
                for each in eng:
                    nursery.start_soon(eng.release, each)
            assert trio.current_time() - started <= bound(2, 1) + TICK
            assert list(eng) == []
            assert eng.statistics().closing == 0
            assert peers.still_open == []
            assert len(seen) == 100


# --- in every phase --------------------------------------------------------------------------------------------------


class Hanging:
    """A dialer that never arrives, in its TCP or in its TLS step."""

    def __init__(self, inner: Any, step: str) -> None:
        self.inner = inner
        self.step = step
        self.under_way = 0

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        if self.step == "tcp":
            await self._hang()
        stream: trio.abc.Stream = await self.inner.open_tcp(host, port)
        return stream

    async def start_tls(self, stream: trio.abc.Stream, **_: object) -> trio.abc.Stream:
        try:
            await self._hang()
        finally:
            await trio.aclose_forcefully(stream)
        return stream

    async def _hang(self) -> None:
        self.under_way += 1
        try:
            await trio.sleep_forever()
        finally:
            self.under_way -= 1


@asynccontextmanager
async def released(
    sim: Simulator,
    prepare: Callable[[engine.Session, trio.Nursery], Awaitable[object]],
    close: float,
    *,
    lasting: int = 0,
    **options: Any,
) -> AsyncIterator[list[float]]:
    """Bring a session into a phase, release it, check that nothing is left; yield how long the release took.

    ``lasting``: how many tasks of peers come into being meanwhile and stay.
    """
    await trio.testing.wait_all_tasks_blocked()
    tasks = trio.lowlevel.current_statistics().tasks_living
    options.setdefault("dialer", sim.dialer)
    options.setdefault("endpoint", sim.endpoint)
    took: list[float] = []
    async with trio.open_nursery() as nursery:
        async with engine.open_engine(
            options.pop("endpoint"), model="m", timeouts=engine.Timeouts(close=close, queue=None), **options
        ) as eng:
            session = await eng.session("a")
            await prepare(session, nursery)
            started = trio.current_time()
            assert await eng.release("a")
            took.append(trio.current_time() - started)
            assert (list(eng), eng.statistics().closing) == ([], 0)
            assert session.statistics().connections == ()
            with pytest.raises(engine.SessionClosed):
                await session.ask("too late")
            yield took
    assert took[0] <= close + 0.5 + TICK
    sim.abort()  # a peer that reads nothing does not notice
    await trio.testing.wait_all_tasks_blocked()
    assert sim.open_connections == []
    assert trio.lowlevel.current_statistics().tasks_living == tasks + lasting


CLOSES = pytest.mark.parametrize("close", [0, 1, 2])


async def start_turn(session: engine.Session, nursery: trio.Nursery, prompt: str = "hi") -> list[engine.SessionClosed]:
    seen: list[engine.SessionClosed] = []
    nursery.start_soon(expect_closed, session, seen)
    await trio.testing.wait_all_tasks_blocked()
    return seen


@CLOSES
async def test_while_dialling(autojump_clock: MockClock, close: float) -> None:
    async with open_simulator(in_memory=True) as sim:
        dialer = Hanging(sim.dialer, "tcp")
        async with released(sim, start_turn, close, dialer=dialer) as took:
            assert dialer.under_way == 0
        assert took == [0]


@CLOSES
async def test_while_shaking_hands_over_tls(autojump_clock: MockClock, close: float) -> None:
    async with open_simulator(in_memory=True) as sim:
        dialer = Hanging(sim.dialer, "tls")
        endpoint = engine.Endpoint("https://simulator.invalid/v1", "sk-x")
        async with released(sim, start_turn, close, dialer=dialer, endpoint=endpoint) as took:
            assert dialer.under_way == 0
        assert took == [0]


@CLOSES
@pytest.mark.parametrize("handshake", [Ignore(), Accept(delay=100)], ids=["never", "late"])
async def test_while_upgrading(autojump_clock: MockClock, close: float, handshake: Any) -> None:
    async with open_simulator(in_memory=True, handshake=handshake) as sim:
        async with released(sim, start_turn, close) as took:
            pass
        assert took == [0]


@CLOSES
async def test_while_a_response_comes_in(autojump_clock: MockClock, close: float) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), SayDelta("so far"), Stall()]])) as sim:
        async with released(sim, start_turn, close) as took:
            pass
        assert took == [0]  # the simulator answers the Close frame at once


@CLOSES
@pytest.mark.parametrize("kind", KINDS)
async def test_while_the_peer_answers_nothing(autojump_clock: MockClock, close: float, kind: str) -> None:
    async with open_simulator(in_memory=True) as sim, stuck_peers(kind) as peers:
        async with released(sim, start_turn, close, dialer=peers, endpoint=peers.endpoint, lasting=1) as took:
            assert peers.still_open == []
        # A Ping that meets our Close frame makes trio-websocket give up at once (its issue 184).
        assert took == [pytest.approx(0 if kind == "pinging" else close)]


@CLOSES
async def test_while_sixteen_mebibytes_wait_for_a_peer_that_does_not_read(
    autojump_clock: MockClock, close: float
) -> None:
    async with open_simulator(in_memory=True) as sim, stuck_peers("deaf") as peers:

        async def send(session: engine.Session, nursery: trio.Nursery) -> None:
            async def ask() -> None:
                with pytest.raises(engine.SessionClosed) as caught:
                    await session.ask("x" * (16 * MIB - 4096))
                assert caught.value.delivery is engine.Delivery.AMBIGUOUS

            nursery.start_soon(ask)
            await until(lambda: session.connected)
            await trio.testing.wait_all_tasks_blocked()
            assert session.statistics().connections[0].outbox_bytes > 15 * MIB

        async with released(sim, send, close, dialer=peers, endpoint=peers.endpoint, lasting=1) as took:
            pass
        assert took == [0]  # nothing can be said behind half a frame
        assert peers.still_open == []


@CLOSES
async def test_while_fifty_turns_wait(autojump_clock: MockClock, close: float) -> None:
    ended: list[engine.SessionClosed] = []
    async with open_simulator(in_memory=True, brain=Script([[Created(), Stall()]])) as sim:

        async def queue(session: engine.Session, nursery: trio.Nursery) -> None:
            await start_turn(session, nursery)
            for _ in range(50):
                nursery.start_soon(expect_closed, session, ended)
            await trio.testing.wait_all_tasks_blocked()
            assert session.statistics().queued == 50

        async with released(sim, queue, close):
            assert len(ended) == 50
        assert {error.delivery for error in ended} == {engine.Delivery.NOT_SENT}
        assert all(error.report is not None and error.report.attempts == 0 for error in ended)
        assert len(sim.requests) == 1


@CLOSES
async def test_while_draining(autojump_clock: MockClock, close: float) -> None:
    async with open_simulator(in_memory=True, brain=Script([[SayDelta("old"), Stall()], "new"])) as sim:

        async def leave(session: engine.Session, nursery: trio.Nursery) -> None:
            async with session.turn("hi", on_cancel=engine.OnCancel.DRAIN) as turn:
                await anext(turn)
            await start_turn(session, nursery)  # waits for the rest of the first
            assert session.statistics().queued == 1

        async with released(sim, leave, close) as took:
            pass
        assert took == [0]
        assert len(sim.requests) == 1


@CLOSES
async def test_while_warming_up(autojump_clock: MockClock, close: float) -> None:
    brain = Script([[Stall()]], warm_ups=True)
    async with open_simulator(in_memory=True, brain=brain) as sim:

        async def warm_up(session: engine.Session, nursery: trio.Nursery) -> None:
            async def ask() -> None:
                with pytest.raises(engine.SessionClosed) as caught:
                    await session.ask("hi", engine.TurnOptions(warm_up=True))
                assert caught.value.delivery is engine.Delivery.NOT_SENT

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()

        async with released(sim, warm_up, close) as took:
            pass
        assert took == [0]
        assert [request.body.get("generate") for request in sim.requests] == [False]


@CLOSES
@pytest.mark.parametrize("gone", [True, False], ids=["gone", "frozen"])
async def test_over_tls_with_a_peer_that_is_gone(autojump_clock: MockClock, close: float, gone: bool) -> None:
    authority = trustme.CA()
    server, client = _contexts(authority)
    script = Script([[Created(), Mute(frozen=True), Stall()]])
    options = {"ssl_context": client}
    async with open_simulator(in_memory=True, brain=script, ssl_context=server, endpoint_options=options) as sim:

        async def vanish(session: engine.Session, nursery: trio.Nursery) -> None:
            async def ask() -> None:
                with pytest.raises((engine.ConnectionLost, engine.SessionClosed) if gone else engine.SessionClosed):
                    await session.ask("hi")

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            if gone:
                sim.abort()

        async with released(sim, vanish, close):
            pass


def _contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("simulator.invalid").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


# --- at every moment -------------------------------------------------------------------------------------------------


async def test_at_every_step_of_a_turn_what_was_not_sent_is_not_sent_later(autojump_clock: MockClock) -> None:
    unsent = 0
    for steps in range(120):
        async with open_simulator(in_memory=True, brain=lambda _: [Say("fine")]) as sim:
            async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
                session = await eng.session("a")
                seen: list[engine.TurnError] = []

                async def ask(session: engine.Session = session, seen: list[engine.TurnError] = seen) -> None:
                    try:
                        await session.ask("hi")
                    except engine.SessionClosed as error:
                        seen.append(error)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    await eng.release("a")
            await trio.testing.wait_all_tasks_blocked()
            assert sim.open_connections == []
            if seen and seen[0].delivery is engine.Delivery.NOT_SENT:
                unsent += 1
                assert sim.requests == [], f"released after {steps} steps"
    assert 5 < unsent < 115


class Leave(engine.Instrument):
    """Cancels its scope as soon as a connection is open."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()

    def connection_opened(self, info: ConnectionInfo, /) -> None:
        self.scope.cancel(reason="the connection has just opened")


async def test_a_turn_left_as_its_connection_opens_is_not_sent_later(autojump_clock: MockClock) -> None:
    unsent = 0
    for _ in range(40):  # whose task runs first at that moment is up to the scheduler
        leave = Leave()
        async with open_simulator(in_memory=True) as sim:
            async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer, instruments=[leave]) as session:
                turn = session.turn("hi")
                with leave.scope:
                    async with turn:
                        await turn.wait()
                await trio.testing.wait_all_tasks_blocked()
                if turn.report.delivery is engine.Delivery.NOT_SENT:
                    unsent += 1
                    assert sim.requests == []
    assert unsent
