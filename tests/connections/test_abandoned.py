"""What becomes of the connection when a turn is left early, by policy."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.simulator import (
    Abandon,
    Accept,
    Answer,
    Created,
    CutMidFrame,
    Delay,
    Echo,
    Error,
    Event,
    Ignore,
    Say,
    SayDelta,
    Script,
    Stall,
)

OLD = [Created(), SayDelta("old"), Delay(3), Say("the rest")]


async def leave_after_the_first_delta(session: engine.Session, **options: Any) -> None:
    async with session.turn("1", **options) as turn:
        async for event in turn:
            if isinstance(event, engine.TextDelta):
                break
        start = trio.current_time()
    assert trio.current_time() == start  # leaving never waits


async def test_close_dials_the_replacement_at_once(autojump_clock: MockClock) -> None:
    async with session_to(Script([OLD, Answer("new")])) as (session, sim):
        await leave_after_the_first_delta(session)
        await trio.testing.wait_all_tasks_blocked()
        assert session.connected
        async with session.turn("2") as turn:
            assert (await turn.wait()).text == "new"
        assert not turn.report.connection_reused
        assert turn.report.seconds.connect == 0
        assert [connection.open for connection in sim.connections] == [False, True]


async def test_a_turn_that_comes_early_joins_the_replacements_dial(autojump_clock: MockClock) -> None:
    handshakes = {"handshake": [Accept(), Accept(delay=2)]}
    async with session_to(Script([OLD, Answer("new")]), sim_options=handshakes) as (session, sim):
        await leave_after_the_first_delta(session)
        await trio.sleep(0.5)
        async with session.turn("2") as turn:
            assert (await turn.wait()).text == "new"
        assert turn.report.seconds.connect == 1.5
        assert len(sim.connections) == 2


async def test_a_replacement_that_fails_is_silent_unless_a_turn_waits_for_it(autojump_clock: MockClock) -> None:
    handshakes = {"handshake": [Accept(), Ignore(), Accept()]}
    budgets = engine.Timeouts(connect=5)
    async with session_to(Script([OLD, Answer("new")]), sim_options=handshakes, timeouts=budgets) as (session, sim):
        await leave_after_the_first_delta(session)
        await trio.sleep(10)
        assert not session.connected
        assert (await session.ask("2")).text == "new"
        assert len(sim.connections) == 3


async def test_a_turn_left_before_anything_was_sent_costs_no_connection(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("ok")] * 3), sim_options={"handshake": [Accept(delay=2)]}) as (session, sim):
        with trio.move_on_after(1):
            await session.ask("left while dialling")
        assert (await session.ask("2")).text == "ok"
        assert len(sim.connections) == 1
        assert len(sim.requests) == 1


async def test_a_turn_left_after_its_terminal_keeps_the_connection(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("ok")] * 3)) as (session, sim):
        async with session.turn("1"):
            await trio.sleep(1)  # the answer is there, unread
        assert (await session.ask("2")).text == "ok"
        assert len(sim.connections) == 1


async def test_drain_keeps_the_connection_and_the_next_turn_waits_for_the_rest(autojump_clock: MockClock) -> None:
    async with session_to(Script([OLD, Answer("new")]), on_cancel=engine.OnCancel.DRAIN) as (session, sim):
        await leave_after_the_first_delta(session)
        async with session.turn("2") as turn:
            assert (await turn.wait()).text == "new"
        assert turn.report.connection_reused
        assert turn.report.seconds.queue == 3
        assert session.statistics().connections[0].dropped > 0
    assert len(sim.connections) == 1
    assert [request.status for request in sim.requests] == ["completed", "completed"]


async def test_drain_gives_up_after_its_budget(autojump_clock: MockClock) -> None:
    budgets = engine.Timeouts(drain=2)
    script = Script([[Created(), SayDelta("old"), Stall()], Answer("new")])
    async with session_to(script, on_cancel=engine.OnCancel.DRAIN, timeouts=budgets) as (session, sim):
        await leave_after_the_first_delta(session)
        async with session.turn("2") as turn:
            assert (await turn.wait()).text == "new"
        assert turn.report.seconds.queue == 2
    assert len(sim.connections) == 2


async def test_a_waiter_whose_queue_budget_runs_out_ends_the_drain_early(autojump_clock: MockClock) -> None:
    budgets = engine.Timeouts(drain=60)
    script = Script([[Created(), SayDelta("old"), Stall()], Answer("new")])
    async with session_to(script, on_cancel=engine.OnCancel.DRAIN, timeouts=budgets) as (session, sim):
        await leave_after_the_first_delta(session)
        async with session.turn("2", timeouts=engine.Timeouts(queue=7)) as turn:
            assert (await turn.wait()).text == "new"
        assert turn.report.seconds.queue == 7
    assert len(sim.connections) == 2


async def test_a_drain_ends_with_its_connection(autojump_clock: MockClock) -> None:
    script = Script([[Created(), SayDelta("old"), Delay(1), CutMidFrame()], Answer("new")])
    async with session_to(script, on_cancel=engine.OnCancel.DRAIN) as (session, sim):
        await leave_after_the_first_delta(session)
        async with session.turn("2") as turn:
            assert (await turn.wait()).text == "new"
        assert turn.report.seconds.queue == 1
    assert len(sim.connections) == 2


async def test_a_drain_ends_with_an_error_event(autojump_clock: MockClock) -> None:
    script = Script([[Created(), SayDelta("old"), Delay(1), Error(500)], Answer("new")])
    async with session_to(script, on_cancel=engine.OnCancel.DRAIN) as (session, sim):
        await leave_after_the_first_delta(session)
        assert (await session.ask("2")).text == "new"
    assert len(sim.connections) == 1


async def test_new_lane_goes_on_at_once_on_the_same_connection(autojump_clock: MockClock) -> None:
    async with session_to(Script([OLD, Answer("new"), Answer("newer")]), on_cancel=engine.OnCancel.NEW_LANE) as (
        session,
        sim,
    ):
        await leave_after_the_first_delta(session)
        async with session.turn("2") as turn:
            assert (await turn.wait()).text == "new"
        assert turn.report.connection_reused
        assert turn.report.seconds.queue == 0
        await trio.sleep(10)  # the old response ends meanwhile, and nobody sees it
        assert (await session.ask("3")).text == "newer"
    assert len(sim.connections) == 1
    assert [request.stream_id for request in sim.requests] == [None, "lane-1", "lane-1"]
    assert all(request.status == "completed" for request in sim.requests)


async def test_new_lane_closes_where_there_are_no_lanes(autojump_clock: MockClock) -> None:
    sim_options = {"endpoint_options": {"profile": "generic"}}
    policy = engine.OnCancel.NEW_LANE
    async with session_to(Script([OLD, Answer("new")]), sim_options=sim_options, on_cancel=policy) as (session, sim):
        await leave_after_the_first_delta(session)
        assert (await session.ask("2")).text == "new"
    assert len(sim.connections) == 2
    assert [request.stream_id for request in sim.requests] == [None, None]


async def test_new_lane_closes_when_the_lanes_are_used_up(autojump_clock: MockClock) -> None:
    turns = 34
    short = [Created(), SayDelta("old"), Delay(0.1), Say("rest")]
    script = Script([*([short] * turns), Answer("new")])
    async with session_to(script, on_cancel=engine.OnCancel.NEW_LANE) as (session, sim):
        for _ in range(turns):
            await leave_after_the_first_delta(session)
            await trio.sleep(1)
        assert (await session.ask("last")).text == "new"
    assert len(sim.connections) == 2
    assert len(sim.connections[0].lanes) == 32


async def test_new_lane_leaves_no_more_than_the_server_runs_at_once(autojump_clock: MockClock) -> None:
    endless = [Created(), SayDelta("old"), Stall()]
    async with session_to(Script([*([endless] * 17), Answer("new")]), on_cancel=engine.OnCancel.NEW_LANE) as (
        session,
        sim,
    ):
        for _ in range(17):
            await leave_after_the_first_delta(session)
        assert (await session.ask("last")).text == "new"
    assert len(sim.connections) == 2


@pytest.mark.parametrize("policy", list(engine.OnCancel))
async def test_a_request_that_was_not_flushed_spoils_its_connection(
    autojump_clock: MockClock, policy: engine.OnCancel
) -> None:
    from engine.simulator import Deaf

    script = Script([[Deaf(), Created(), Say("deaf from now on")], Answer("new")])
    async with session_to(script, on_cancel=policy) as (session, sim):
        await session.ask("1")
        with trio.move_on_after(1):
            await session.ask("x" * 8_000_000)
        assert (await session.ask("3")).text == "new"
    assert len(sim.connections) == 2


@pytest.mark.parametrize("policy", list(engine.OnCancel))
async def test_the_policy_of_the_turn_wins(autojump_clock: MockClock, policy: engine.OnCancel) -> None:
    async with session_to(Script([OLD, Answer("new")])) as (session, sim):
        await leave_after_the_first_delta(session, on_cancel=policy)
        assert (await session.ask("2")).text == "new"
    assert len(sim.connections) == (2 if policy is engine.OnCancel.CLOSE else 1)


@pytest.mark.parametrize("policy", list(engine.OnCancel))
async def test_the_policy_applies_to_an_expired_turn_and_to_an_overflow(
    autojump_clock: MockClock, policy: engine.OnCancel
) -> None:
    script = Script([OLD, [Created(), *(SayDelta("x") for _ in range(50)), Delay(1)], Answer("new")])
    async with session_to(script, on_cancel=policy) as (session, sim):
        with pytest.raises(engine.TurnTimeout):
            await session.ask("1", timeouts=engine.Timeouts(turn=1))
        async with session.turn("2", limits=engine.Limits(buffer_events=10)) as turn:
            await trio.sleep(5)
            with pytest.raises(engine.BufferOverflow):
                await turn.wait()
        assert (await session.ask("3")).text == "new"
    assert len(sim.connections) == (3 if policy is engine.OnCancel.CLOSE else 1)


async def test_at_most_four_connections_are_left_to_close(autojump_clock: MockClock) -> None:
    """Peers that never answer our Close frame hold their connections up; the oldest is aborted."""
    from engine.simulator import Mute

    mute = [Created(), SayDelta("old"), Mute(frozen=True), Stall()]
    async with session_to(Script([mute] * 8), timeouts=engine.Timeouts(close=1000)) as (session, sim):
        for _ in range(8):
            await leave_after_the_first_delta(session)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sim.open_connections) <= 5


async def test_a_drain_ends_with_a_terminal_that_no_schema_has(autojump_clock: MockClock) -> None:
    cancelled = Event({"type": "response.cancelled"})
    script = Script([[Created(), SayDelta("old"), Delay(1), cancelled, Abandon()], Answer("new")])
    async with session_to(script, on_cancel=engine.OnCancel.DRAIN) as (session, sim):
        await leave_after_the_first_delta(session)
        async with session.turn("2") as turn:
            assert (await turn.wait()).text == "new"
        assert turn.report.seconds.queue == 1
    assert len(sim.connections) == 1


@pytest.mark.parametrize(
    ("policy", "seconds", "carried_out"),
    [
        (engine.OnCancel.CLOSE, 1, engine.OnCancel.CLOSE),
        (engine.OnCancel.DRAIN, 1, engine.OnCancel.DRAIN),
        (engine.OnCancel.DRAIN, 9, engine.OnCancel.CLOSE),
        (engine.OnCancel.NEW_LANE, 9, engine.OnCancel.NEW_LANE),
    ],
)
async def test_the_report_says_which_policy_was_carried_out(
    autojump_clock: MockClock, policy: engine.OnCancel, seconds: float, carried_out: engine.OnCancel
) -> None:
    script = Script([[SayDelta("so "), Delay(seconds), SayDelta("long")]], then=Echo())
    async with session_to(script, on_cancel=policy) as (session, _):
        async with session.turn("first") as turn:
            assert turn.report.on_cancel is None
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
        await session.ask("second")
        assert turn.report.on_cancel is carried_out
        async with session.turn("third") as whole:
            await whole.wait()
        assert whole.report.on_cancel is None
