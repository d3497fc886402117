"""The warm-up: an exchange of its own, never a turn."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from sessions import session_to
from trio.testing import MockClock

import engine
from engine.simulator import (
    Accept,
    Asked,
    Created,
    Delay,
    Error,
    Reject,
    Say,
    SayDelta,
    Stall,
    open_simulator,
)

WARM = engine.TurnOptions(warm_up=True)


class Warming:
    """Plays a script for warm-ups and echoes turns."""

    warm_ups = True

    def __init__(self, *warm_up: Any) -> None:
        self.warm_up = warm_up

    def reply(self, asked: Asked) -> Any:
        return list(self.warm_up) if not asked.generate else [Created(), Say(asked.last_user_text)]


async def test_it_goes_first_once_per_connection_and_says_what_the_turn_will_say(autojump_clock: MockClock) -> None:
    tool = engine.Tool("add")
    context = engine.Context([engine.UserMessage("hi")], instructions="be brief", tools=[tool])
    async with session_to() as (session, sim):
        assert (await session.ask(context, WARM)).text == "hi"
        assert (await session.ask("again", WARM)).text == "again"
    warm_up, first, second = (dict(request.body) for request in sim.requests)
    assert first.pop("previous_response_id") == sim.requests[0].response_id
    assert warm_up == {**first, "generate": False, "input": []}
    assert "generate" not in first
    assert "generate" not in second
    assert len(sim.connections) == 1


async def test_without_the_option_there_is_none(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        await session.ask("hi")
    assert len(sim.requests) == 1


async def test_a_late_answer_to_it_is_never_a_turns(autojump_clock: MockClock) -> None:
    brain = Warming(Delay(10), Created(), SayDelta("ghost"))
    async with session_to(brain, timeouts=engine.Timeouts(warm_up=4)) as (session, sim):
        async with session.turn("mine", WARM) as turn:
            assert (await turn.wait()).text == "mine"
        assert turn.report.seconds.total == 4
        await trio.sleep(20)
        assert (await session.ask("mine too")).text == "mine too"
    assert [connection.open for connection in sim.connections] == [False, False]


@pytest.mark.parametrize("warm_up", [Error(500), Error(404, "model_not_found")])
async def test_a_failed_one_is_ignored(autojump_clock: MockClock, warm_up: Any) -> None:
    async with session_to(Warming(warm_up)) as (session, sim):
        assert (await session.ask("hi", WARM)).text == "hi"
    assert len(sim.connections) == 1


async def test_a_turn_left_meanwhile_leaves_it_running_for_the_next(autojump_clock: MockClock) -> None:
    async with session_to(Warming(Delay(3), Created())) as (session, sim):
        with trio.move_on_after(1):
            await session.ask("left", WARM)
        async with session.turn("next", WARM) as turn:
            assert (await turn.wait()).text == "next"
        assert turn.report.seconds.total == 2
    assert [request.body.get("generate") for request in sim.requests] == [False, None]
    assert len(sim.connections) == 1


async def test_release_does_not_wait_for_it(autojump_clock: MockClock) -> None:
    async with session_to(Warming(Stall())) as (session, _):
        with trio.move_on_after(1):
            await session.ask("hi", WARM)
        start = trio.current_time()
    assert trio.current_time() - start <= 2.5


async def test_it_can_be_asked_for_ahead_of_the_first_turn(autojump_clock: MockClock) -> None:
    context = engine.Context([engine.UserMessage("hi")], instructions="be brief")
    async with session_to() as (session, sim):
        assert await session.warm_up(context) is True
        assert session.connected
        async with session.turn(context) as turn:
            assert (await turn.wait()).text == "hi"
        assert turn.report.continued
        assert turn.report.connection_reused
        assert await session.warm_up(context) is False  # once per connection, and only before its first turn
    assert [request.body.get("generate") for request in sim.requests] == [False, None]
    assert sim.requests[1].previous_response_id == sim.requests[0].response_id


async def test_one_that_fails_is_no_error(autojump_clock: MockClock) -> None:
    async with session_to(Warming(Error(500))) as (session, _):
        assert await session.warm_up("hi") is False
        assert (await session.ask("hi")).text == "hi"
    async with open_simulator(in_memory=True, handshake=[Reject(503)]) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            assert await session.warm_up("hi") is False
            assert (await session.ask("hi")).text == "hi"


async def test_bad_input_is_told_before_anything_is_sent(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        with pytest.raises(engine.ConfigurationError):
            await session.warm_up("hi", engine.TurnOptions(extra={"x": object()}))
    assert sim.connections == []


async def test_asking_and_warming_up_at_once_share_the_dial_and_nothing_else(autojump_clock: MockClock) -> None:
    for _ in range(10):
        async with session_to() as (session, sim):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.ask, "one")
                nursery.start_soon(session.warm_up, "one")
                nursery.start_soon(session.ask, "two")
            assert (await session.ask("three")).text == "three"
            assert len(sim.connections) == 1


async def test_it_is_held_to_the_rules_of_a_turn(autojump_clock: MockClock) -> None:
    def hook(body: dict[str, Any]) -> None:
        body["instructions"] = "redacted"

    context = engine.Context(instructions="x" * 1000)
    async with session_to(limits=engine.Limits(max_request_bytes=500)) as (session, sim):
        with pytest.raises(engine.RequestTooLarge):
            await session.warm_up(context)
        with pytest.raises(engine.ConfigurationError, match="options"):
            await session.warm_up("hi", {"model": "m"})  # type: ignore[arg-type]
        assert sim.connections == []
        assert await session.warm_up(context, engine.TurnOptions(payload_hook=hook))
    assert sim.requests[0].body["instructions"] == "redacted"


async def test_it_waits_no_longer_for_a_connection_than_it_may(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, handshake=[Accept(delay=50)]) as sim:
        async with engine.open_session(
            sim.endpoint, model="m", dialer=sim.dialer, timeouts=engine.Timeouts(connect=100)
        ) as session:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.ask, "slow")
                start = trio.current_time()
                assert await session.warm_up("hi", timeouts=engine.Timeouts(connect=3)) is False
                assert trio.current_time() - start == 3


# --- its place ---


def places(number: int) -> dict[str, Any]:
    return {"endpoint_options": {"profile": engine.Profile("p", multiplexing=True, proven=True, max_active=number)}}


async def test_it_has_a_place_of_its_own(autojump_clock: MockClock) -> None:
    async with session_to(Warming(Delay(2)), sim_options=places(1)) as (session, sim):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.lane("a").warm_up, "hi")
            await trio.sleep(1)
            assert (await session.lane("b").ask("hello")).text == "hello"
            assert trio.current_time() == pytest.approx(2)  # it waited for the place, and not before another lane's
        assert len(sim.connections) == 1


async def test_it_waits_for_a_place_within_its_queue_budget(autojump_clock: MockClock) -> None:
    class Busy(Warming):
        def reply(self, asked: Asked) -> Any:
            return [Delay(3), *super().reply(asked)]

    async with session_to(Busy(), sim_options=places(1)) as (session, sim):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.lane("b").ask, "hello")
            await trio.sleep(1)
            assert not await session.lane("a").warm_up("hi", timeouts=engine.Timeouts(queue=1))
            assert trio.current_time() == pytest.approx(2)
            with trio.move_on_after(0.5):
                await session.lane("a").warm_up("hi")
        assert len(sim.requests) == 1  # neither of them was sent
        assert await session.lane("a").warm_up("hi")


async def test_one_that_goes_on_without_its_turn_keeps_its_place(autojump_clock: MockClock) -> None:
    async with session_to(Warming(Delay(4)), sim_options=places(1)) as (session, sim):
        with trio.move_on_after(1):
            await session.lane("a").ask("hello", WARM)
        assert (await session.lane("b").ask("hello")).text == "hello"
        assert trio.current_time() == pytest.approx(4)
        assert (await session.lane("a").ask("again", WARM)).text == "again"
        assert [request.body.get("generate") for request in sim.requests] == [False, None, None]


async def test_it_makes_no_sibling_wait(autojump_clock: MockClock) -> None:
    async with session_to(Warming(Delay(4)), sim_options=places(3)) as (session, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.lane("a").ask, "hello", WARM)
            await trio.sleep(1)
            for name in ("b", "c"):
                assert (await session.lane(name).ask(name)).text == name
            assert trio.current_time() == pytest.approx(1)
