"""Every budget, expired at exactly its time on the virtual clock, with everything its exception says."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from policies import ONE_WAY
from sessions import session_with
from trio.testing import MockClock

import engine
from engine.simulator import (
    Accept,
    Answer,
    Created,
    Deaf,
    Delay,
    Ignore,
    Keepalive,
    Mute,
    Raw,
    Say,
    SayDelta,
    Script,
    Stall,
    open_simulator,
)

session_to = session_with(**ONE_WAY)


async def expiry(session: engine.Session, **options: Any) -> tuple[float, engine.TurnError]:
    """Ask something that fails, and return after how many seconds and how."""
    start = trio.current_time()
    with pytest.raises(engine.TurnError) as caught:
        await session.ask("hi", **options)
    return trio.current_time() - start, caught.value


def check(
    error: engine.TurnError, phase: str, seconds: float, delivery: engine.Delivery, partial: str | None = None
) -> None:
    assert type(error) is engine.TurnTimeout
    assert (error.phase, error.seconds) == (phase, seconds)
    assert not isinstance(error, trio.TooSlowError)
    assert error.delivery is delivery
    assert (error.partial.text if error.partial is not None else None) == partial
    assert error.report is not None
    assert error.report.delivery is delivery
    assert error.report.seconds.total is not None
    assert phase in str(error)


async def test_queue(autojump_clock: MockClock) -> None:
    script = Script([[Created(), Delay(100), Say("slow")], Answer("next")])
    async with session_to(script, timeouts=engine.Timeouts(queue=7)) as (session, sim):
        async with session.turn("1") as first:
            took, error = await expiry(session)
            assert took == 7
            check(error, "queue", 7, engine.Delivery.NOT_SENT)
            assert error.report is not None
            assert error.report.attempts == 0
            assert (await first.wait()).text == "slow"
        assert (await session.ask("3")).text == "next"
    assert len(sim.requests) == 2


async def test_connect_is_a_failure_to_connect(autojump_clock: MockClock) -> None:
    async with session_to(sim_options={"handshake": [Ignore()]}, timeouts=engine.Timeouts(connect=4)) as (session, _):
        took, error = await expiry(session)
        assert took == 4
        assert type(error) is engine.ConnectFailed
        assert (error.status, error.stage) == (None, "timeout")
        assert error.delivery is engine.Delivery.NOT_SENT
        assert (await session.ask("again")).text == "again"


async def test_a_turn_that_joins_a_dial_has_only_what_is_left_of_its_clock(autojump_clock: MockClock) -> None:
    sim_options = {"handshake": Ignore()}
    async with session_to(sim_options=sim_options, timeouts=engine.Timeouts(connect=10)) as (session, _):
        with trio.move_on_after(6):
            await session.ask("starts the dial")
        took, error = await expiry(session)
        assert took == 4
        assert type(error) is engine.ConnectFailed


async def test_a_turn_of_its_own_connect_budget_may_give_up_before_the_dial_does(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("ok")] * 3), sim_options={"handshake": [Accept(delay=8)]}) as (session, sim):
        took, error = await expiry(session, timeouts=engine.Timeouts(connect=3))
        assert took == 3
        assert type(error) is engine.ConnectFailed
        # The dial itself was begun with those three seconds too; the next turn dials afresh.
        assert (await session.ask("again")).text == "ok"
        assert len(sim.connections) == 2


async def test_start_covers_everything_up_to_the_first_event(autojump_clock: MockClock) -> None:
    budgets = engine.Timeouts(start=9, first_event=None, connect=None)
    sim_options = {"handshake": [Accept(delay=5)]}
    async with session_to(Script([[Delay(100), Created()]]), sim_options=sim_options, timeouts=budgets) as (session, _):
        took, error = await expiry(session)
    assert took == 9
    check(error, "start", 9, engine.Delivery.AMBIGUOUS)


async def test_send_and_the_peer_that_does_not_read(autojump_clock: MockClock) -> None:
    script = Script([[Deaf(), Created(), Say("deaf from now on")], Answer("fine")])
    async with session_to(script, timeouts=engine.Timeouts(send=3)) as (session, sim):
        assert (await session.ask("1")).text == "deaf from now on"
        took, error = await expiry(session, options=engine.TurnOptions(metadata={"big": "x" * 8_000_000}))
        assert took == 3
        check(error, "send", 3, engine.Delivery.AMBIGUOUS)
        assert (await session.ask("3")).text == "fine"
    assert len(sim.connections) == 2


async def test_first_event(autojump_clock: MockClock) -> None:
    script = Script([[Delay(20), Say("late")], Answer("fine")])
    async with session_to(script, timeouts=engine.Timeouts(first_event=6)) as (session, sim):
        took, error = await expiry(session)
        assert took == 6
        check(error, "first_event", 6, engine.Delivery.AMBIGUOUS)
        assert (await session.ask("2")).text == "fine"
    assert len(sim.connections) == 2


async def test_first_event_is_met_by_any_event_of_the_turn(autojump_clock: MockClock) -> None:
    script = Script([[Created(), Delay(100), Say("in time")]])
    async with session_to(script, timeouts=engine.Timeouts(first_event=6)) as (session, _):
        assert (await session.ask("hi")).text == "in time"


async def test_idle(autojump_clock: MockClock) -> None:
    script = Script([[Created(), Delay(4), SayDelta("so far"), Stall()], Answer("fine")])
    async with session_to(script, timeouts=engine.Timeouts(idle=5)) as (session, sim):
        took, error = await expiry(session)
        assert took == 9
        check(error, "idle", 5, engine.Delivery.ACCEPTED, "so far")
        assert (await session.ask("2")).text == "fine"
    assert len(sim.connections) == 2


@pytest.mark.parametrize("word", [Keepalive(), Raw('{"type":"ping"}'), Raw('{"type":"heartbeat"}')])
async def test_keepalives_are_progress_and_pongs_are_not(autojump_clock: MockClock, word: Any) -> None:
    limits = engine.Limits(ping_interval=1, ping_timeout=1)
    alive = [step for _ in range(5) for step in (Delay(4), word)]
    script = Script([[Created(), *alive, Stall()]])
    async with session_to(script, timeouts=engine.Timeouts(idle=5), limits=limits) as (session, _):
        took, error = await expiry(session)
    assert took == 25
    check(error, "idle", 5, engine.Delivery.ACCEPTED)


async def test_a_slow_consumer_neither_starts_nor_hides_the_idle_budget(autojump_clock: MockClock) -> None:
    steady = [step for n in range(20) for step in (Delay(1), SayDelta(f"{n} "))]
    script = Script([[Created(), *steady], [Created(), SayDelta("a"), Stall()]])
    async with session_to(script, timeouts=engine.Timeouts(idle=5)) as (session, _):
        async with session.turn("read slowly") as turn:
            async for _event in turn:
                await trio.sleep(50)
            assert turn.message.text == " ".join(map(str, range(20))) + " "
        start = trio.current_time()
        async with session.turn("silence behind a sleeping consumer") as turn:
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
            await trio.sleep(100)
            with pytest.raises(engine.TurnTimeout) as caught:
                await anext(turn)
    assert caught.value.phase == "idle"
    assert caught.value.report is not None
    assert caught.value.report.seconds.total == 5
    assert trio.current_time() - start >= 100


async def test_turn(autojump_clock: MockClock) -> None:
    steady = [step for n in range(50) for step in (Delay(1), SayDelta("x"))]
    async with session_to(Script([[Created(), *steady], Answer("fine")])) as (session, _):
        took, error = await expiry(session, timeouts=engine.Timeouts(turn=10.5))
        assert took == 10.5
        check(error, "turn", 10.5, engine.Delivery.ACCEPTED, "x" * 10)
        assert (await session.ask("2")).text == "fine"


async def test_turn_counts_from_entering_the_block(autojump_clock: MockClock) -> None:
    script = Script([[Created(), Delay(6), Say("slow")], [Created(), Stall()]])
    async with session_to(script) as (session, _):
        async with session.turn("1") as first:
            took, error = await expiry(session, timeouts=engine.Timeouts(turn=4))
            assert took == 4
            check(error, "turn", 4, engine.Delivery.NOT_SENT)
            took, error = await expiry(session, timeouts=engine.Timeouts(turn=5, queue=None))
            assert took == 5
            check(error, "turn", 5, engine.Delivery.ACCEPTED)
            assert (await first.wait()).text == "slow"


async def test_the_most_general_of_two_that_end_together_is_named(autojump_clock: MockClock) -> None:
    silent = Script([[Stall()]] * 3)
    async with session_to(silent) as (session, _):
        for budgets, phase in (
            (engine.Timeouts(turn=5, start=5, first_event=5), "turn"),
            (engine.Timeouts(start=5, first_event=5), "start"),
            (engine.Timeouts(first_event=5), "first_event"),
        ):
            took, error = await expiry(session, timeouts=budgets)
            assert took == 5
            assert isinstance(error, engine.TurnTimeout)
            assert error.phase == phase


async def test_the_connection_that_never_answers_pings_is_lost(autojump_clock: MockClock) -> None:
    limits = engine.Limits(ping_interval=10, ping_timeout=4)
    script = Script([[Created(), Mute(frozen=True), Stall()], Answer("fine")])
    async with session_to(script, limits=limits) as (session, _):
        took, error = await expiry(session)
        assert took == 14
        assert type(error) is engine.ConnectionLost
        assert error.close_code == 1006
        assert (await session.ask("2")).text == "fine"


async def test_budgets_are_merged_field_by_field(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Stall()]] * 3)) as sim:
        async with engine.open_engine(
            sim.endpoint, model="m", dialer=sim.dialer, timeouts=engine.Timeouts(first_event=20, start=100), **ONE_WAY
        ) as eng:
            outer = await eng.session("outer")
            inner = await eng.session("inner", timeouts=engine.Timeouts(first_event=8))
            assert (await expiry(outer))[0] == 20
            assert (await expiry(inner))[0] == 8
            assert (await expiry(inner, timeouts=engine.Timeouts(first_event=None, start=30)))[0] == 30


async def test_the_callers_deadline_is_theirs_even_when_ours_is_close(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Stall()]] * 2)) as (session, _):
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(4.999):
                await session.ask("hi", timeouts=engine.Timeouts(first_event=5))
        with pytest.raises(engine.TurnTimeout):
            with trio.fail_after(5.001):
                await session.ask("hi", timeouts=engine.Timeouts(first_event=5))


@pytest.mark.parametrize("phase", ["first_event", "idle"])
async def test_silence_never_drains_or_reuses_the_connection(autojump_clock: MockClock, phase: str) -> None:
    script = Script([[Created(), Stall()] if phase == "idle" else [Stall()], Answer("fine")])
    async with session_to(script, on_cancel=engine.OnCancel.DRAIN) as (session, sim):
        took, _ = await expiry(session, timeouts=engine.Timeouts(**{phase: 3}))
        assert took == 3
        start = trio.current_time()
        assert (await session.ask("2")).text == "fine"
        assert trio.current_time() == start
    assert len(sim.connections) == 2


async def test_zero_is_a_budget(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("never")])) as (session, sim):
        took, error = await expiry(session, timeouts=engine.Timeouts(turn=0))
        assert took == 0
        check(error, "turn", 0, engine.Delivery.NOT_SENT)
    assert sim.requests == []


@pytest.mark.parametrize("code", [1008, 1006])
async def test_a_server_that_accepts_and_hangs_up_is_not_dialled_again_and_again(
    autojump_clock: MockClock, code: int
) -> None:
    async with session_to(sim_options={"handshake": Accept(close_code=code)}) as (session, sim):
        for expected in (1, 2, 3):
            took, error = await expiry(session)
            assert took == 0
            assert type(error) is engine.ConnectionLost
            assert error.close_code == code
            assert len(sim.connections) == expected
