"""Forks: what they continue, and what their parent waits for meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from sessions import session_with
from trio.testing import MockClock

import engine
from engine.simulator import (
    Abort,
    Completed,
    Created,
    Delay,
    Echo,
    Error,
    Failed,
    Gate,
    Incomplete,
    InProgress,
    Quirks,
    Say,
    Script,
    Simulator,
    Stall,
)

session_to = session_with()
Steps = Callable[[trio.Event], list[Any]]


def continued(sim: Simulator) -> list[str | None]:
    """The response that each request continues."""
    return [request.body.get("previous_response_id") for request in sim.requests]


def lengths(sim: Simulator) -> list[int]:
    return [len(request.input) for request in sim.requests]


BEGINNINGS: dict[str, Steps] = {
    "in progress": lambda gate: [Created(), Gate(gate), InProgress(), Delay(3), Say("forked")],
    "output": lambda gate: [Created(), Gate(gate), Say("forked", pause=3)],
    "end": lambda gate: [Created(), Gate(gate), Completed()],
    "failure": lambda gate: [Created(), Gate(gate), Failed("invalid_prompt")],
    "refusal": lambda gate: [Gate(gate), Error(400, "invalid_prompt", "x", "invalid_request_error")],
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a_parent_goes_on_when_its_fork_has_begun_to_be_generated(
    autojump_clock: MockClock, beginning: str
) -> None:
    gate = trio.Event()
    script = Script(["the plan", BEGINNINGS[beginning](gate)], then=Echo())
    quirks = Quirks(in_progress=beginning == "in progress")
    async with session_to(script, sim_options={"quirks": quirks}) as (session, sim):
        chat = session.conversation()
        await chat.send("make a plan")
        fork = session.fork("critic")

        async def ask() -> None:
            try:
                await fork.ask("what is wrong with it?")
            except engine.TurnError:
                assert beginning in ("failure", "refusal")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            nursery.start_soon(chat.send, "go on")
            await trio.sleep(1)
            assert len(sim.requests) == 2  # its response was created, and may still wait for its turn
            gate.set()
            await trio.sleep(1)
            assert len(sim.requests) == 3
        assert continued(sim) == [None, *[sim.requests[0].response_id] * 2]
        assert lengths(sim) == [1, 1, 1]


async def test_a_parent_goes_on_when_its_fork_is_left(autojump_clock: MockClock) -> None:
    script = Script(["the plan", [Created(), Delay(5), Say("forked")]], then=Echo())
    async with session_to(script, on_cancel="new_lane") as (session, sim):
        await session.ask("make a plan")
        fork = session.fork("critic")
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                async with fork.turn("what is wrong with it?"):
                    nursery.start_soon(session.ask, "go on")
                    await trio.sleep(10)
        assert trio.current_time() == pytest.approx(1)
        assert len(sim.requests) == 3


async def test_a_parent_goes_on_when_its_forks_connection_is_lost(autojump_clock: MockClock) -> None:
    script = Script(["the plan", [Created(), Delay(1), Abort()]], then=Echo())
    async with session_to(script) as (session, sim):
        await session.ask("make a plan")
        fork = session.fork("critic")
        answers: list[str] = []

        async def ask(lane: engine.Lane | engine.Session, text: str) -> None:
            answers.append((await lane.ask(text)).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, fork, "forked")
            await trio.sleep(0.5)
            nursery.start_soon(ask, session, "gone on")
        assert sorted(answers) == ["forked", "gone on"]
        assert lengths(sim)[1] == 1
        assert sorted(lengths(sim)[2:]) == [1, 3]  # the fork is whole, the parent's prompt was by itself anyway


@pytest.mark.parametrize("many", [1, 3])
async def test_a_barred_parent_has_no_place(autojump_clock: MockClock, many: int) -> None:
    """Lane, barrier, place: what waits for a barrier keeps nothing from the others."""
    gate = trio.Event()
    forked: list[Any] = [Created(), Gate(gate), InProgress(), Say("forked")]
    script = Script(["the plan", forked], then=Echo())
    profile = engine.Profile("two places", multiplexing=True, proven=True, max_active=2)
    async with session_to(script, sim_options={"endpoint_options": {"profile": profile}}) as (session, sim):
        await session.ask("make a plan")
        fork = session.fork("critic")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fork.ask, "what is wrong with it?")
            await trio.sleep(1)
            nursery.start_soon(session.ask, "go on")
            await trio.sleep(1)
            for number in range(many):
                assert (await session.lane(f"other {number}").ask("beside")).text == "beside"
            assert len(sim.requests) == 2 + many
            gate.set()
        assert len(sim.requests) == 3 + many


async def test_a_fork_that_waits_for_a_place_bars_nothing(autojump_clock: MockClock) -> None:
    profile = engine.Profile("one place", multiplexing=True, proven=True, max_active=1)
    script = Script(["the plan", [Delay(2), Say("busy")]], then=Echo())
    async with session_to(script, sim_options={"endpoint_options": {"profile": profile}}) as (session, sim):
        await session.ask("make a plan")
        fork = session.fork("critic")
        answers: list[str] = []

        async def ask(lane: engine.Lane | engine.Session, text: str) -> None:
            answers.append((await lane.ask(text)).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, session.lane("other"), "hold the place")
            await trio.sleep(1)
            nursery.start_soon(ask, session, "go on")
            await trio.sleep(0.1)
            nursery.start_soon(ask, fork, "what is wrong with it?")
        assert answers == ["busy", "go on", "what is wrong with it?"]
        # The parent went on before: what the fork continues may be gone, and it is not asked for.
        assert continued(sim) == [None] * 4
        assert lengths(sim) == [1, 1, 1, 3]


async def test_a_fork_of_a_lane_that_is_busy_has_its_newest_answer(autojump_clock: MockClock) -> None:
    script = Script(["the plan", [Created(), InProgress(), Delay(2), Say("more of it")]], then=Echo())
    async with session_to(script) as (session, sim):
        chat = session.conversation()
        await chat.send("make a plan")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat.send, "more")
            await trio.sleep(1)
            fork = session.fork("critic")
            assert (await fork.ask("what is wrong with it?")).text == "what is wrong with it?"
            assert trio.current_time() == pytest.approx(1)
        assert sim.requests[2].input[1]["content"][0]["text"] == "the plan"
        assert lengths(sim) == [1, 1, 3]


async def test_a_fork_of_a_fork_bars_the_one_whose_answer_it_continues(autojump_clock: MockClock) -> None:
    gate = trio.Event()
    script = Script(["the plan", [Created(), Gate(gate), InProgress(), Say("forked")]], then=Echo())
    async with session_to(script) as (session, sim):
        await session.ask("make a plan")
        grandchild = session.fork("child").fork("grandchild")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(grandchild.ask, "what is wrong with it?")
            await trio.sleep(1)
            assert (await session.lane("other").ask("beside")).text == "beside"
            nursery.start_soon(session.ask, "go on")
            await trio.sleep(1)
            assert len(sim.requests) == 3
            gate.set()
        assert sim.requests[1].body["previous_response_id"] == sim.requests[0].response_id


@pytest.mark.parametrize("store", [False, True])
async def test_a_fork_of_a_warm_up_begins_where_that_has_got(autojump_clock: MockClock, store: bool) -> None:
    async with session_to() as (session, sim):
        plan = session.lane("plan")
        assert await plan.warm_up("hello", instructions="Be brief.", store=store)
        forks = [plan.fork(name) for name in ("a", "b")]
        for fork in forks:
            async with fork.turn("hello", instructions="Be brief.", store=store) as turn:
                assert (await turn.wait()).text == "hello"
            assert turn.report.continued
        assert continued(sim) == [None, *[sim.requests[0].response_id] * 2]


async def test_a_fork_is_whole_where_another_lane_has_its_parents_name(autojump_clock: MockClock) -> None:
    profile = engine.Profile("few", multiplexing=True, proven=True, max_lanes=2)
    async with session_to(sim_options={"endpoint_options": {"profile": profile}, "max_lanes": 2}) as (session, sim):
        plan = session.lane("plan")
        await plan.ask("make a plan")
        fork = plan.fork("critic")
        for name in ("a", "b"):
            await session.lane(name).ask(name)
        await fork.ask("what is wrong with it?")
        assert continued(sim) == [None] * 4
        assert lengths(sim) == [1, 1, 1, 3]
        assert len(sim.connections) == 1


async def test_eight_forks_of_one_answer(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        chat = session.conversation()
        await chat.send("make a plan")
        forks = [session.fork(f"critic {number}") for number in range(8)]
        answers: dict[str, str] = {}

        async def ask(fork: engine.Lane) -> None:
            answers[fork.name] = (await fork.ask(fork.name)).text

        async with trio.open_nursery() as nursery:
            for fork in forks:
                nursery.start_soon(ask, fork)
        assert answers == {fork.name: fork.name for fork in forks}
        assert (await chat.send("go on")).text == "go on"
        assert continued(sim) == [None, *[sim.requests[0].response_id] * 9]
        assert len(sim.connections) == 1


async def test_forking_while_the_parent_is_cancelled(autojump_clock: MockClock) -> None:
    script = Script(["the plan", [Created(), InProgress(), Say("more"), Stall()]], then=Echo())
    async with session_to(script, on_cancel="new_lane") as (session, sim):
        chat = session.conversation()
        await chat.send("make a plan")
        with trio.move_on_after(1) as scope:
            await chat.send("more")
        assert scope.cancelled_caught
        fork = session.fork("critic")
        assert (await fork.ask("what is wrong with it?")).text == "what is wrong with it?"
        assert (await chat.send("go on")).text == "go on"
        assert lengths(sim) == [1, 1, 3, 3]


async def test_a_fork_and_its_parent_go_on_in_the_same_tick(autojump_clock: MockClock) -> None:
    """Whichever comes first: the server, which runs one after the other, is never asked for what it has forgotten."""

    class Slow:
        def reply(self, asked: Any) -> list[Any]:
            return [Created(), Delay(1), InProgress(), Say(asked.last_user_text)]

    for _ in range(10):
        async with session_to(Slow(), sim_options={"max_active": 1}, transport="websocket") as (session, sim):
            chat = session.conversation()
            await chat.send("make a plan")
            fork = session.fork("critic")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.lane("busy").ask, "busy")
                nursery.start_soon(chat.send, "go on")
                nursery.start_soon(fork.ask, "what is wrong with it?")
            assert {request.error_code for request in sim.requests} == {None}
            assert sim.requests[-1].status == "completed"


@pytest.mark.parametrize("store", [False, True])
async def test_a_fork_of_an_answer_that_cannot_be_continued_has_it_all_the_same(
    autojump_clock: MockClock, store: bool
) -> None:
    script = Script([["first"], [Created(), Say("cut sho"), Incomplete()]], then=Echo())
    async with session_to(script) as (session, sim):
        chat = session.conversation(options=engine.TurnOptions(store=store))
        await chat.send("one")
        await chat.send("two")
        fork = session.fork("critic")
        await fork.ask("what is wrong with it?", store=store)
        assert sim.requests[2].body.get("previous_response_id") == (sim.requests[0].response_id if store else None)
        held = sim.history(sim.requests[2].response_id or "")
        texts = ["".join(part["text"] for part in item["content"]) for item in held]
        assert texts == ["one", "first", "two", "cut sho", "what is wrong with it?", "what is wrong with it?"]


async def test_what_only_the_server_knows_cannot_be_forked(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        first = await session.ask("first", store=True)
        await session.ask("second", store=True, previous_response_id=first.response_id)
        with pytest.raises(engine.ConfigurationError, match="not known here"):
            session.fork("critic")
        assert len(sim.requests) == 2
        await session.ask("third")
        assert (await session.fork("critic").ask("fourth")).text == "fourth"


async def test_waiting_for_a_fork_to_begin_is_bounded_by_the_queue_budget(autojump_clock: MockClock) -> None:
    script = Script(["the plan", [Created(), Delay(9), InProgress(), Say("forked")]], then=Echo())
    async with session_to(script) as (session, sim):
        await session.ask("make a plan")
        fork = session.fork("critic")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fork.ask, "what is wrong with it?")
            await trio.sleep(1)
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.ask("go on", timeouts=engine.Timeouts(queue=2))
            assert (caught.value.phase, caught.value.delivery) == ("queue", engine.Delivery.NOT_SENT)
            assert trio.current_time() == pytest.approx(3)
            assert len(sim.requests) == 2
            # The bar is the fork's, not the turn's that waited for it.
            assert (await session.ask("go on")).text == "go on"
            assert trio.current_time() == pytest.approx(9)
