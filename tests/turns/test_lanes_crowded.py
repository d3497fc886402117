"""Many lanes on one connection: its places, its names, its age, and consumers that stop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from sessions import session_with
from trio.testing import MockClock

import engine
from engine.simulator import Asked, Created, Delay, Gate, Say, SayDelta, Stall, Step

session_to = session_with()


def profile(**numbers: int) -> dict[str, Any]:
    made = engine.Profile("crowded", multiplexing=True, proven=True, **numbers)  # type: ignore[arg-type]
    return {"endpoint_options": {"profile": made}, **numbers}


class Asking:
    """Repeats the prompt; one that begins with a number takes so many seconds, ``for ever`` has no end."""

    def reply(self, asked: Asked) -> list[Step]:
        text = asked.last_user_text
        first = text.split(" ")[0]
        if text.startswith("for ever"):
            return [Created(), SayDelta(text), Stall()]
        return [Created(), SayDelta(text[:1]), Delay(float(first) if first.isdigit() else 0), SayDelta(text[1:])]


async def leave(lane: engine.Lane, text: str, **options: Any) -> None:
    """Have a turn, and leave it at its first word."""
    async with lane.turn(text, **options) as turn:
        async for event in turn:
            if isinstance(event, engine.TextDelta):
                return


# --- places ----------------------------------------------------------------------------------------------------------


async def test_an_abandoned_response_holds_its_place_until_it_has_ended(autojump_clock: MockClock) -> None:
    async with session_to(Asking(), sim_options=profile(max_active=2), on_cancel="new_lane") as (session, sim):
        await leave(session.lane("a"), "3 seconds")
        await leave(session.lane("b"), "2 seconds")
        with pytest.raises(engine.TurnTimeout) as caught:
            await session.lane("c").ask("hello", timeouts=engine.Timeouts(queue=1))
        assert caught.value.phase == "queue"
        assert (await session.lane("c").ask("hello")).text == "hello"
        assert trio.current_time() == pytest.approx(2)
        assert session.statistics().turns_abandoned == 2
        assert len(sim.connections) == 1


async def test_abandoned_responses_without_an_end_give_their_places_back_with_their_connection(
    autojump_clock: MockClock,
) -> None:
    options: dict[str, Any] = {"on_cancel": "new_lane", "timeouts": engine.Timeouts(drain=2)}
    async with session_to(Asking(), sim_options=profile(max_active=4), **options) as (session, sim):
        for number in range(4):
            await leave(session.lane(f"left {number}"), "for ever")
        answers: list[str] = []

        async def ask(number: int) -> None:
            answers.append((await session.lane(f"next {number}").ask(f"hello {number}")).text)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, number)
        assert sorted(answers) == [f"hello {number}" for number in range(6)]
        assert 2 <= trio.current_time() < 3  # they had `drain`, and not a moment more
        assert len(sim.connections) == 2
        assert session.statistics().connections[0].in_flight == 0


async def test_places_hold_through_a_storm_of_leaving(autojump_clock: MockClock) -> None:
    """However turns end, no place is lost and none is given twice."""
    policies = itertools.cycle(engine.OnCancel)
    busiest = 0

    class Watching(Asking):
        def reply(self, asked: Asked) -> list[Step]:
            nonlocal busiest
            running = [each for each in sim.requests if each.finished_at is None and each.executed]
            by_connection = [sum(each.connection_id == other.connection_id for each in running) for other in running]
            busiest = max([busiest, *by_connection])
            return super().reply(asked)

    async with session_to(Watching(), sim_options=profile(max_active=3)) as (session, sim):

        async def caller(number: int, policy: engine.OnCancel) -> None:
            lane = session.lane(f"caller {number}")
            for patience in (0.5, None, 0.1, None):
                with trio.move_on_after(patience or 1000):
                    assert (await lane.ask(f"1 of {number}", on_cancel=policy)).text == f"1 of {number}"

        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(caller, number, next(policies))
        assert 0 < busiest <= 3
        # All places are there again: three turns run side by side, and the fourth waits.
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(session.lane(f"caller {number}").ask, "1 last")
        assert trio.current_time() - begun == pytest.approx(2)


# --- names -----------------------------------------------------------------------------------------------------------


async def test_the_33rd_name_while_turns_are_left(autojump_clock: MockClock) -> None:
    async with session_to(Asking(), on_cancel="new_lane") as (session, sim):
        texts: Iterator[str] = (f"number {number}" for number in itertools.count())
        for number in range(80):
            lane = session.lane(f"lane {number % 20}")
            if number % 3:
                await leave(lane, "1 to be left")
            else:
                text = next(texts)
                assert (await lane.ask(text)).text == text
        assert all(len(connection.lanes) <= 32 for connection in sim.connections)
        assert [request.error_code for request in sim.requests if request.error_code] == []
        assert session.statistics().turns_abandoned == 53
        assert 1 < len(sim.connections) <= 4  # those that had no name left for a lane were retired


async def test_names_run_out_while_every_lane_is_busy(autojump_clock: MockClock) -> None:
    async with session_to(Asking(), sim_options=profile(max_lanes=3)) as (session, sim):
        answers: list[str] = []

        async def ask(number: int) -> None:
            answers.append((await session.lane(f"lane {number}").ask(f"2 of {number}")).text)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, number)
        assert sorted(answers) == [f"2 of {number}" for number in range(5)]
        assert trio.current_time() == pytest.approx(2)  # no turn waited for the others
        assert [len(connection.lanes) for connection in sim.connections] == [3, 2]
        assert "no name left" in str(sorted({each.retired_because or "" for each in session.statistics().connections}))


# --- its age ---------------------------------------------------------------------------------------------------------


async def test_a_rotation_that_is_due_spares_three_busy_lanes(autojump_clock: MockClock) -> None:
    async with session_to(Asking(), limits=engine.Limits(connection_lifetime=10)) as (session, sim):
        answers: dict[str, tuple[str, object]] = {}

        async def ask(name: str, text: str) -> None:
            answers[name] = (await session.lane(name).ask(text)).text, trio.current_time()

        await session.lane("a").ask("first")
        await trio.sleep(8)
        async with trio.open_nursery() as nursery:
            for number, name in enumerate("abc"):
                nursery.start_soon(ask, name, f"{5 + number} seconds")
            await trio.sleep(4)  # meanwhile it has reached its lifetime
            await ask("d", "a new one")
            await ask("e", "another")
            assert len(sim.open_connections) == 2
        assert answers == {
            "a": ("5 seconds", pytest.approx(13)),
            "b": ("6 seconds", pytest.approx(14)),
            "c": ("7 seconds", pytest.approx(15)),
            "d": ("a new one", pytest.approx(12)),
            "e": ("another", pytest.approx(12)),
        }
        await trio.sleep(0.1)
        assert [request.connection_id for request in sim.requests] == [0, 0, 0, 0, 1, 1]
        assert [connection.id for connection in sim.open_connections] == [1]


# --- consumers -------------------------------------------------------------------------------------------------------


async def test_a_consumer_that_stops_loses_its_own_turn_and_no_other(autojump_clock: MockClock) -> None:
    gate = trio.Event()

    class Loud:
        def reply(self, asked: Asked) -> list[Step]:
            if asked.last_user_text == "loud":
                return [Created(), *(SayDelta("x" * 20) for _ in range(500)), Delay(1), Say("and more"), Gate(gate)]
            return [Created(), *(step for word in range(20) for step in (SayDelta(f" {word}"), Delay(0.25)))]

    async with session_to(Loud(), on_cancel="new_lane") as (session, sim):
        paces: dict[int, list[float]] = {number: [] for number in range(8)}

        async def read(number: int) -> None:
            async with session.lane(f"reader {number}").turn("quiet") as turn:
                async for event in turn:
                    if isinstance(event, engine.TextDelta):
                        paces[number].append(trio.current_time())

        async def stop() -> None:
            limits = engine.Limits(buffer_events=100)
            async with session.lane("stopped").turn("loud", limits=limits) as turn:
                await trio.sleep(3)
                events = 0
                with pytest.raises(engine.BufferOverflow):
                    async for _ in turn:
                        events += 1
                assert events > 100  # what had come before is read first

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(read, number)
            nursery.start_soon(stop)
        for pace in paces.values():
            assert pace == pytest.approx([0.25 * word for word in range(20)])
        gate.set()
        assert len(sim.connections) == 1
        assert session.lane("stopped").statistics().turns_failed == 1
        assert session.statistics().turns_completed == 8


# --- HTTP ------------------------------------------------------------------------------------------------------------


async def test_a_turn_that_falls_back_to_http_gives_its_place_back(autojump_clock: MockClock) -> None:
    limits = engine.Limits(max_request_bytes=1000)
    async with session_to(Asking(), sim_options=profile(max_active=1), limits=limits) as (session, sim):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.lane("large").ask, "5 seconds " + "x" * 2000)
            await trio.sleep(1)
            assert (await session.lane("small").ask("hello")).text == "hello"
            assert trio.current_time() == pytest.approx(1)
        assert sorted(request.transport for request in sim.requests) == ["http", "websocket"]
