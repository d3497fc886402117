"""Lanes of a server that claims to have them: they share a connection once it has shown that it labels its answers."""

from __future__ import annotations

import pytest
import trio
from sessions import session_with
from trio.testing import MockClock

import engine
from engine.simulator import Created, Delay, Echo, Quirks, Reject, SayDelta, Script, Simulator

session_to = session_with()
CLAIMS = engine.Profile("claims", multiplexing=True)
VOUCHED = engine.Profile("vouched", multiplexing=True, proven=True)


class Slow:
    """Repeats the prompt, taking a second."""

    def reply(self, asked: object) -> list[object]:
        text = asked.last_user_text  # type: ignore[attr-defined]
        return [Created(), SayDelta(text[:2]), Delay(1), SayDelta(text[2:])]


def options(profile: engine.Profile, **quirks: object) -> dict[str, object]:
    return {"quirks": Quirks(**quirks), "endpoint_options": {"profile": profile}}  # type: ignore[arg-type]


async def all_asked(session: engine.Session, count: int) -> list[str]:
    answers: dict[int, str] = {}

    async def ask(number: int) -> None:
        answers[number] = (await session.lane(f"lane of {number}").ask(f"number {number}")).text

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask, number)
    return [answers[number] for number in range(count)]


def named(sim: Simulator) -> list[bool]:
    """Of each request, whether it names a lane."""
    return ["stream_id" in request.body for request in sim.requests]


@pytest.mark.parametrize("transport", [engine.Transport.AUTO, engine.Transport.WEBSOCKET])
@pytest.mark.parametrize("ignores", ["ignored", False])
async def test_a_server_that_ignores_names_is_found_out_before_it_is_trusted(
    autojump_clock: MockClock, ignores: object, transport: engine.Transport
) -> None:
    async with session_to(Slow(), sim_options=options(CLAIMS, lanes=ignores), transport=transport) as (session, sim):
        assert await all_asked(session, 8) == [f"number {number}" for number in range(8)]
        assert not any(named(sim)[4 if ignores else 8 :])
        assert session.statistics().turns_completed == 8
        # It is remembered: no request names a lane any more, and each lane in use has a connection.
        before = len(sim.requests)
        assert await all_asked(session, 8) == [f"number {number}" for number in range(8)]
        assert not any(named(sim)[before:])
        # What it answered was taken for what it was; only a refusal is sent again.
        assert len(sim.requests) == (16 if ignores else 20)


async def test_what_was_found_out_is_remembered_for_the_endpoint(autojump_clock: MockClock) -> None:
    sim_options = options(CLAIMS, lanes="ignored")
    async with (
        session_to(Slow(), sim_options=sim_options) as (first, sim),
        engine.open_engine(sim.endpoint, model="gpt-test", dialer=sim.dialer) as eng,
    ):
        await first.lane("a").ask("hello there")
        assert named(sim) == [True]
        a, b = await eng.session("a"), await eng.session("b")
        await a.lane("x").ask("hello there")
        await b.lane("x").ask("hello there")
        assert named(sim) == [True, True, False]


async def test_lanes_share_a_connection_once_one_has_been_answered_with_its_name(autojump_clock: MockClock) -> None:
    async with session_to(Slow(), sim_options=options(CLAIMS)) as (session, sim):
        begun = trio.current_time()
        assert await all_asked(session, 16) == [f"number {number}" for number in range(16)]
        assert trio.current_time() - begun == pytest.approx(2)  # four by themselves, and then the others together
        assert len(sim.connections) == 4
        assert all(named(sim))


async def test_the_sessions_own_lane_is_not_beside_one_that_proves_nothing_yet(autojump_clock: MockClock) -> None:
    async with session_to(Slow(), sim_options=options(CLAIMS, lanes="ignored")) as (session, sim):
        answers: list[str] = []

        async def own() -> None:
            answers.append((await session.ask("the session's own")).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(own)
            await trio.sleep(0.5)
            assert (await session.lane("a").ask("a lane's")).text == "a lane's"
        assert answers == ["the session's own"]
        assert [request.connection_id for request in sim.requests] == [0, 1]


async def test_a_vouched_server_that_ignores_names_fails_what_cannot_be_told(autojump_clock: MockClock) -> None:
    async with session_to(Slow(), sim_options=options(VOUCHED, lanes="ignored")) as (session, sim):
        assert await all_asked(session, 3) == ["number 0", "number 1", "number 2"]
        assert session.statistics().retries == 3
        assert named(sim) == [True] * 3 + [False] * 3
    websocket = engine.Transport.WEBSOCKET
    async with session_to(Slow(), sim_options=options(VOUCHED, lanes="ignored"), transport=websocket) as (session, sim):
        failures: list[engine.ConnectionLost] = []

        async def ask(number: int) -> None:
            with pytest.raises(engine.ConnectionLost, match="which of several requests") as caught:
                await session.lane(str(number)).ask("hello there")
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(ask, number)
        assert [failure.delivery for failure in failures] == [engine.Delivery.AMBIGUOUS] * 2
        assert (await session.lane("0").ask("hello there")).text == "hello there"


async def test_a_lane_left_before_its_server_is_known_leaves_nothing_to_the_next(autojump_clock: MockClock) -> None:
    for ignores in (True, "ignored"):
        policy = engine.OnCancel.NEW_LANE
        async with session_to(Slow(), sim_options=options(CLAIMS, lanes=ignores), on_cancel=policy) as (session, sim):
            async with session.lane("a").turn("to be left") as turn:
                await anext(turn)
            assert (await session.lane("a").ask("the next")).text == "the next"
            assert len(sim.connections) == 2


async def test_a_repeat_of_the_own_lanes_end_proves_nothing(autojump_clock: MockClock) -> None:
    sim_options = options(VOUCHED, done="also")
    async with session_to(sim_options=sim_options) as (session, sim):
        await session.ask("first")
        assert await all_asked(session, 3) == ["number 0", "number 1", "number 2"]
        assert len(sim.connections) == 1
        assert all(named(sim)[1:])


async def test_a_reset_breaker_lets_a_server_prove_itself_again(autojump_clock: MockClock) -> None:
    async with session_to(sim_options=options(CLAIMS, lanes="ignored")) as (_, sim):
        async with engine.open_engine(sim.endpoint, model="gpt-test", dialer=sim.dialer) as eng:
            await (await eng.session("a")).lane("x").ask("hello")
            for breaker in eng.breakers.values():
                breaker.reset()
            await (await eng.session("b")).lane("x").ask("hello")
        assert named(sim) == [True, True]


async def test_names_that_the_server_has_fewer_of_are_made_do_with(autojump_clock: MockClock) -> None:
    sim_options = {**options(VOUCHED), "max_lanes": 2}
    async with session_to(sim_options=sim_options) as (session, sim):
        for name in ("a", "b", "c", "d"):
            assert (await session.lane(name).ask(name)).text == name
        assert len(sim.connections) == 2


@pytest.mark.parametrize("multiplexing", [True, False])
async def test_five_lanes_wait_for_a_dial_that_is_answered_with_426(
    autojump_clock: MockClock, multiplexing: bool
) -> None:
    profile = VOUCHED if multiplexing else engine.Profile("plain")
    refusal = Reject(426, delay=1)
    sim_options = {"endpoint_options": {"profile": profile}, "handshake": refusal}
    async with session_to(Script([], then=Echo()), sim_options=sim_options) as (session, sim):
        assert await all_asked(session, 5) == [f"number {number}" for number in range(5)]
        assert session.statistics().fallbacks == 5
        assert sum(len(connection.refusals) for connection in sim.connections) == (1 if multiplexing else 4)
        assert {request.transport for request in sim.requests} == {"http"}
        before = len(sim.requests)
        assert await all_asked(session, 5) == [f"number {number}" for number in range(5)]
        assert sum(len(connection.refusals) for connection in sim.connections) == (1 if multiplexing else 4)
        assert len(sim.requests) == before + 5


@pytest.mark.parametrize("ignores", [True, "ignored"])
@pytest.mark.parametrize("order", [("own", "a", "b"), ("a", "own", "b"), ("a", "b", "own")])
async def test_one_connection_that_changes_lanes(
    autojump_clock: MockClock, ignores: object, order: tuple[str, ...]
) -> None:
    """What the connection carried before is told from what a lane is answered, whoever names what."""
    sim_options = options(CLAIMS, lanes=ignores)
    async with session_to(Slow(), sim_options=sim_options, limits=engine.Limits(max_connections=1)) as (session, sim):
        for _ in range(2):
            for name in order:
                lane = session if name == "own" else session.lane(name)
                assert (await lane.ask(f"asked by {name}")).text == f"asked by {name}"
        assert session.statistics().turns_completed == 6
        assert session.statistics().retries == 0
        assert len(sim.connections) == (1 if ignores is True else 2)
