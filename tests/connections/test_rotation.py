"""How connections are replaced: before they grow too old, and when they end unused."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from sessions import session_with
from trio.testing import MockClock

import engine
from engine import Limits, RetryPolicy, Transport
from engine.instruments import ConnectionInfo, RotationInfo
from engine.simulator import Accept, Created, Delay, Echo, Ignore, Reject, Say, Script, open_simulator

LIMITS = Limits(connection_lifetime=1100, idle_lifetime=None, ping_interval=None)
"""The replacement is dialled after 1,000 s."""


class Rotations(engine.Instrument):
    def __init__(self) -> None:
        self.ages: list[float] = []
        self.closed: list[str | None] = []

    def rotation(self, info: RotationInfo, /) -> None:
        self.ages.append(info.seconds)

    def connection_closed(self, info: ConnectionInfo, /) -> None:
        self.closed.append(info.reason)


session_to = session_with(limits=LIMITS)


async def ask(session: engine.Session, **options: Any) -> engine.TurnReport:
    async with session.turn("hi", **options) as turn:
        assert (await turn.wait()).text == "hi"
    return turn.report


async def test_the_replacement_is_dialled_before_and_swapped_at_a_turn(autojump_clock: MockClock) -> None:
    rotations = Rotations()
    async with session_to(instruments=[rotations]) as (session, sim):
        await ask(session)
        await trio.sleep(1050)
        assert [connection.open for connection in sim.connections] == [True, True]
        assert (await ask(session)).connection_reused  # not before it must be
        assert [len(connection.requests) for connection in sim.connections] == [2, 0]
        await trio.sleep(49)
        async with session.turn("over the end") as turn:
            await trio.sleep(10)
            assert (await turn.wait()).text == "over the end"
        report = await ask(session)
        assert (report.connection_reused, report.seconds.connect) == (False, 0)
        assert [len(connection.requests) for connection in sim.connections] == [3, 1]
        assert len(rotations.ages) == 1
        assert rotations.ages[0] >= 1100
        await trio.testing.wait_all_tasks_blocked()
        assert rotations.closed == ["it has reached its lifetime"]


async def test_a_replacement_is_as_idle_as_what_it_replaces(autojump_clock: MockClock) -> None:
    limits = Limits(connection_lifetime=1100, idle_lifetime=100, ping_interval=None)  # the ratio of the defaults
    rotations = Rotations()
    async with session_to(instruments=[rotations], limits=limits) as (session, sim):
        for _ in range(12):
            await ask(session)
            await trio.sleep(90)
        await ask(session)
        await trio.sleep(30)
        assert len(rotations.ages) == 1
        await trio.sleep(60)
        assert session.connected
        assert (await ask(session)).seconds.connect == 0
        assert [len(connection.requests) for connection in sim.connections] == [13, 1]
        await trio.sleep(101)
        assert not session.connected
        assert rotations.closed == ["it has reached its lifetime", "no turn used it for a while"]


async def test_a_replacement_waits_for_the_end_of_a_long_turn(autojump_clock: MockClock) -> None:
    limits = Limits(connection_lifetime=1100, idle_lifetime=100, ping_interval=None)
    long = [Created(), Delay(1200), Say("long")]
    async with session_to(Script([long], then=Echo()), limits=limits, timeouts=engine.Timeouts(idle=None)) as (
        session,
        sim,
    ):
        await session.ask("hi")
        assert (await ask(session)).seconds.connect == 0
        assert [len(connection.requests) for connection in sim.connections] == [1, 1]


async def test_a_turn_in_progress_is_not_cut(autojump_clock: MockClock) -> None:
    slow = [Created(), Delay(200), Say("long")]
    async with session_to(Script([slow], then=Echo())) as (session, sim):
        async with session.turn("first") as turn:
            assert (await turn.wait()).text == "long"
        await trio.sleep(850)
        sim.brain = Script([slow], then=Echo())
        assert (await session.ask("second")).text == "long"  # from 1,050 s to 1,250 s
        assert [connection.open for connection in sim.connections] == [True, True]
        assert not (await ask(session)).connection_reused


async def test_an_unused_connection_goes_over_by_itself(autojump_clock: MockClock) -> None:
    rotations = Rotations()
    async with session_to(instruments=[rotations]) as (session, sim):
        await ask(session)
        await trio.sleep(1101)
        assert [connection.open for connection in sim.connections] == [False, True]
        assert rotations.ages == [1100]
        assert session.connected
        assert (await ask(session)).seconds.connect == 0


@pytest.mark.parametrize("handshake", [Reject(503), Ignore()])
async def test_a_replacement_that_fails_is_silent(autojump_clock: MockClock, handshake: Any) -> None:
    async with session_to(sim_options={"handshake": [Accept(), handshake]}) as (session, sim):
        await ask(session)
        await trio.sleep(1099)
        assert (await ask(session)).connection_reused
        await trio.sleep(10)
        assert not session.connected
        assert not (await ask(session)).connection_reused
        assert len(sim.connections) == 3


async def test_the_lifetime_is_the_profiles_unless_it_is_given(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Echo(), endpoint_options={"profile": "xai"}) as sim:
        limits = Limits(idle_lifetime=None, ping_interval=None)
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer, limits=limits) as session:
            await ask(session)
            await trio.sleep(1441)
            assert [connection.open for connection in sim.connections] == [False, True]


# --- unused connections that end -------------------------------------------------------------------------------------


async def test_an_unused_connection_that_ends_is_replaced_by_the_next_turn(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        await ask(session)
        sim.abort()
        await trio.sleep(100)
        assert not session.connected
        assert len(sim.connections) == 1
        assert not (await ask(session)).connection_reused


async def test_or_at_once(autojump_clock: MockClock) -> None:
    async with session_to(retry=RetryPolicy(eager_reconnect=True)) as (session, sim):
        await ask(session)
        for count in (2, 3):
            sim.abort()
            await trio.testing.wait_all_tasks_blocked()
            assert session.connected
            assert len(sim.connections) == count
            assert (await ask(session)).seconds.connect == 0


async def test_the_limit_told_to_an_unused_connection_is_such_an_end(autojump_clock: MockClock) -> None:
    options = {"sim_options": {"connection_lifetime": 50.0}, "retry": RetryPolicy(eager_reconnect=True)}
    async with session_to(**options) as (session, sim):
        await ask(session)
        await trio.sleep(51)
        assert session.connected
        assert len(sim.connections) == 2
        report = await ask(session)
        assert (report.attempts, report.seconds.connect) == (1, 0)


async def test_reconnecting_backs_off_and_gives_up(autojump_clock: MockClock) -> None:
    policy = RetryPolicy(eager_reconnect=True, jitter=lambda: 1.0)
    async with session_to(retry=policy, transport=Transport.WEBSOCKET) as (session, sim):
        await ask(session)
        sim.every_handshake = Accept(close_code=1006)
        begun = trio.current_time()
        sim.abort()
        await trio.sleep(1000)
        tries = [connection.opened_at - begun for connection in sim.connections[1:]]
        assert tries == pytest.approx([0, 1, 3, 7, 15, 31])
        sim.every_handshake = Accept()
        await ask(session)  # from here on it counts anew
        sim.abort()
        await trio.testing.wait_all_tasks_blocked()
        assert session.connected


async def test_closing_an_unused_connection_is_no_reason_to_reconnect(autojump_clock: MockClock) -> None:
    limits = Limits(idle_lifetime=60, ping_interval=None)
    async with session_to(retry=RetryPolicy(eager_reconnect=True), limits=limits) as (session, sim):
        await ask(session)
        await trio.sleep(100)
        assert not session.connected
        assert len(sim.connections) == 1
