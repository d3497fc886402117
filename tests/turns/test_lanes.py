"""Lanes of a session side by side: on one connection where the server multiplexes, else on one each."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
import trio
from sessions import session_with
from trio.testing import MockClock, wait_all_tasks_blocked

import engine
from engine.simulator import Abort, Accept, Created, Delay, Echo, Gate, InProgress, Reject, Say, SayDelta, Script, Stall

session_to = session_with()
PLAIN = {"endpoint_options": {"profile": engine.Profile("plain")}}
LANES = {"endpoint_options": {"profile": engine.Profile("lanes", multiplexing=True, proven=True)}}


class Slow:
    """Repeats the prompt, taking a second."""

    def reply(self, asked: object) -> list[object]:
        text = asked.last_user_text  # type: ignore[attr-defined]
        return [Created(), InProgress(), SayDelta(text[:2]), Delay(1), SayDelta(text[2:])]


async def asked(session: engine.Session, count: int) -> list[str]:
    answers: dict[int, str] = {}

    async def ask(number: int) -> None:
        answers[number] = (await session.lane(f"lane of {number}").ask(f"number {number}")).text

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask, number)
    return [answers[number] for number in range(count)]


async def test_lanes_run_side_by_side_on_one_connection(autojump_clock: MockClock) -> None:
    async with session_to(Slow(), sim_options=LANES) as (session, sim):
        begun = trio.current_time()
        assert await asked(session, 16) == [f"number {number}" for number in range(16)]
        assert trio.current_time() - begun == pytest.approx(1)
        assert len(sim.connections) == 1
        assert len({request.body["stream_id"] for request in sim.requests}) == 16


async def test_more_than_there_are_places_for_wait_in_the_queue(autojump_clock: MockClock) -> None:
    async with session_to(Slow(), sim_options=LANES) as (session, sim):
        begun = trio.current_time()
        assert await asked(session, 20) == [f"number {number}" for number in range(20)]
        assert trio.current_time() - begun == pytest.approx(2)
        assert len(sim.connections) == 1
        async with trio.open_nursery() as nursery:
            for number in range(16):
                nursery.start_soon(session.lane(f"busy {number}").ask, "hi there")
            await trio.sleep(0.1)
            with pytest.raises(engine.TurnTimeout) as caught:
                await session.lane("late").ask("hi", timeouts=engine.Timeouts(queue=0.1))
        assert caught.value.phase == "queue"
        assert (await session.lane("late").ask("again")).text == "again"


async def test_a_lanes_turns_are_served_one_after_the_other_and_continue_each_other(autojump_clock: MockClock) -> None:
    async with session_to(sim_options=LANES) as (session, sim):
        lane = session.lane("critic")
        first = await lane.ask("one")
        context = engine.Context([engine.UserMessage("one"), first, engine.UserMessage("two")])
        assert (await session.ask("beside")).text == "beside"
        async with lane.turn(context) as turn:
            assert (await turn.wait()).text == "two"
        assert turn.report.continued
        assert [request.body.get("stream_id") for request in sim.requests] == ["lane-1", None, "lane-1"]
        assert (lane.statistics().turns_completed, session.statistics().turns_completed) == (2, 3)


async def test_a_server_without_lanes_has_a_connection_for_each_up_to_a_number(autojump_clock: MockClock) -> None:
    async with session_to(Slow(), sim_options=PLAIN, limits=engine.Limits(max_connections=3)) as (session, sim):
        begun = trio.current_time()
        assert await asked(session, 6) == [f"number {number}" for number in range(6)]
        assert trio.current_time() - begun == pytest.approx(2)
        assert len(sim.connections) == 3
        assert all("stream_id" not in request.body for request in sim.requests)


async def test_a_connection_changes_lanes_only_when_nothing_is_to_come_on_it(autojump_clock: MockClock) -> None:
    """Of two connections one drains, and one is dialled for a turn that was left: the next lane waits for that one."""
    dials = {"handshake": [Accept(), Accept(delay=2)]}
    limits = engine.Limits(max_connections=2)
    async with session_to(Slow(), sim_options={**PLAIN, **dials}, limits=limits, on_cancel="drain") as (session, sim):
        async with session.lane("drains").turn("left alone") as turn:
            async for event in turn:
                if isinstance(event, engine.TextDelta):
                    break
            with trio.move_on_after(0.2):
                await session.lane("dials").ask("left before it was sent")
        assert (await session.lane("next").ask("the next")).text == "the next"
        assert trio.current_time() == pytest.approx(3)
        assert (await session.lane("drains").ask("again")).text == "again"
        assert len(sim.connections) == 2
        assert [request.input[-1]["content"] for request in sim.requests] == ["left alone", "the next", "again"]


@pytest.mark.parametrize("policy", list(engine.OnCancel))
async def test_leaving_one_lane_disturbs_no_other(autojump_clock: MockClock, policy: engine.OnCancel) -> None:
    async with session_to(Slow(), sim_options=LANES, on_cancel=policy) as (session, sim):
        answers: list[str] = []

        async def other() -> None:
            answers.append((await session.lane("other").ask("the other")).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            async with session.lane("left").turn("left alone") as turn:
                async for event in turn:
                    if isinstance(event, engine.TextDelta):
                        break
            # Closing would make the other lane wait for a replacement.
            assert turn.report.on_cancel == ("new_lane" if policy == "close" else policy)
            assert (await session.lane("left").ask("the next")).text == "the next"
        assert answers == ["the other"]
        assert len(sim.connections) == 1


async def test_a_lost_connection_is_recovered_from_by_each_lane(autojump_clock: MockClock) -> None:
    lost = [Created(), Delay(1), Abort()]
    async with session_to(Script([lost, lost], then=Echo()), sim_options=LANES) as (session, sim):
        assert await asked(session, 2) == ["number 0", "number 1"]
        assert [connection.open for connection in sim.connections] == [False, True]
        assert session.statistics().retries == 2


async def test_when_the_names_are_used_up_an_idle_lane_gives_its_own_up(autojump_clock: MockClock) -> None:
    profile = {"endpoint_options": {"profile": engine.Profile("few", multiplexing=True, proven=True, max_lanes=2)}}
    async with session_to(sim_options=profile) as (session, sim):
        for name in ("a", "b", "c", "a"):
            assert (await session.lane(name).ask(name)).text == name
        assert [request.body["stream_id"] for request in sim.requests] == ["lane-1", "lane-2", "lane-1", "lane-2"]
        assert len(sim.connections) == 1


async def test_a_lane_ends_with_its_block(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("so"), Stall()]], then=Echo()), sim_options=LANES) as (session, _):
        failures: list[engine.TurnError] = []

        async def ask(lane: engine.Lane) -> None:
            try:
                await lane.ask("hi")
            except engine.TurnError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            async with session.lane("critic") as lane:
                with pytest.raises(engine.ConfigurationError):
                    async with session.lane("critic"):
                        pytest.fail("two blocks own it")
                nursery.start_soon(ask, lane)
                await trio.sleep(1)
        assert [type(error) for error in failures] == [engine.SessionClosed]
        with pytest.raises(engine.SessionClosed):
            await lane.ask("too late")
        with pytest.raises(engine.ConfigurationError, match="'critic' was left"):
            await lane.__aenter__()
        assert (await session.lane("critic").ask("anew")).text == "anew"
        assert session.statistics().turns_failed == 1


async def test_a_lane_that_was_left_sends_no_warm_up(autojump_clock: MockClock) -> None:
    async with session_to(sim_options=LANES) as (session, sim):
        async with session.lane("critic") as lane:
            pass
        assert not await lane.warm_up("Be brief.")
        assert len(sim.requests) == 0
        assert await session.lane("critic").warm_up("Be brief.")


def held_by_the_engine() -> Counter[str]:
    gc.collect()
    kinds = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return Counter(
        kind for kind in kinds if kind.startswith(("engine.turns.", "engine.values.", "engine.connections."))
    )


async def test_lanes_that_were_left_are_counted_and_not_kept(autojump_clock: MockClock) -> None:
    async with session_to(sim_options=LANES) as (session, _):

        async def use(first: int, last: int) -> None:
            for number in range(first, last):
                async with session.lane(f"brief {number}") as lane:
                    await lane.ask("hi")
            await wait_all_tasks_blocked()  # the session's tasks let go of the last turn with their next step

        await use(0, 40)
        before = held_by_the_engine()
        await use(40, 60)
        assert held_by_the_engine() - before == Counter()
        assert session.statistics().turns_completed == 60


@pytest.mark.parametrize("store", [False, True])
async def test_a_fork_continues_its_parent(autojump_clock: MockClock, store: bool) -> None:
    async with session_to(sim_options=LANES) as (session, sim):
        plan = session.lane("plan")
        await plan.ask("the plan", store=store)
        fork = plan.fork("critic")
        async with fork.turn("what is wrong with it?", store=store) as turn:
            assert (await turn.wait()).text == "what is wrong with it?"
        assert turn.report.continued
        assert sim.requests[1].body["previous_response_id"] == sim.requests[0].response_id
        assert len(sim.requests[1].input) == 1
        assert (await fork.fork("of the fork").ask("and with that?", store=store)).text == "and with that?"
        assert sim.requests[2].body["previous_response_id"] == sim.requests[1].response_id
        with pytest.raises(engine.ConfigurationError):
            plan.fork("critic")


async def test_a_fork_is_whole_where_the_connection_is_gone(autojump_clock: MockClock) -> None:
    limits = engine.Limits(idle_lifetime=5)
    async with session_to(sim_options=LANES, limits=limits) as (session, sim):
        await session.ask("the plan")
        fork = session.fork("critic")
        await trio.sleep(10)
        await fork.ask("what is wrong with it?")
        assert "previous_response_id" not in sim.requests[1].body
        assert len(sim.requests[1].input) == 3


async def test_a_parent_waits_until_the_server_has_begun_with_its_fork(autojump_clock: MockClock) -> None:
    begun = trio.Event()
    script = Script(
        [["the plan"], [Gate(begun), Created(), InProgress(), Say("forked")], ["gone on"]],
    )
    async with session_to(script, sim_options=LANES) as (session, sim):
        await session.ask("make a plan")
        fork = session.fork("critic")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fork.ask, "what is wrong with it?")
            await trio.sleep(1)
            nursery.start_soon(session.ask, "go on")
            await trio.sleep(1)
            assert len(sim.requests) == 2
            begun.set()
        assert len(sim.requests) == 3


async def test_a_fork_that_fails_leaves_its_parent_alone(autojump_clock: MockClock) -> None:
    async with session_to(sim_options=LANES) as (session, sim):
        chat = session.conversation()
        await chat.send("first")
        fork = session.fork("critic")
        with pytest.raises(engine.ConfigurationError):
            await fork.ask("hi", extra={"stream_id": "mine"})
        await chat.send("second")
        assert "previous_response_id" in sim.requests[1].body


async def test_a_conversation_on_a_fork_begins_with_what_its_parent_had(autojump_clock: MockClock) -> None:
    async with session_to(sim_options=LANES) as (session, sim):
        await session.ask("the plan")
        chat = session.fork("critic").conversation()
        assert (await chat.send("what is wrong with it?")).text == "what is wrong with it?"
        assert (await chat.send("and then?")).text == "and then?"
        assert [len(request.input) for request in sim.requests] == [1, 1, 1]
        assert [request.body.get("previous_response_id") for request in sim.requests] == [
            None,
            sim.requests[0].response_id,
            sim.requests[1].response_id,
        ]


@pytest.mark.parametrize("multiplexing", [True, False])
async def test_a_server_without_websocket_serves_every_lane_over_http(
    autojump_clock: MockClock, multiplexing: bool
) -> None:
    options = {**(LANES if multiplexing else PLAIN), "handshake": Reject(426)}
    async with session_to(sim_options=options) as (session, sim):
        assert await asked(session, 6) == [f"number {number}" for number in range(6)]
        refusals = sum(len(connection.refusals) for connection in sim.connections)
        assert refusals == (1 if multiplexing else 4)  # those that were under way when the first was refused
        assert session.statistics().fallbacks == 6
