"""When sessions stop trying a WebSocket, and when they try again."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

import engine
from engine import RetryPolicy, Transport
from engine.connections.breakers import Breaker, BreakerState
from engine.simulator import (
    Accept,
    Created,
    Delay,
    Echo,
    Ignore,
    Reject,
    Say,
    SayDelta,
    Script,
    Simulator,
    Stall,
    open_simulator,
)
from engine.transport.http import HttpClient


@asynccontextmanager
async def engine_to(
    brain: Any = None, *, sim_options: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[engine.Engine, Simulator, Breaker]]:
    async with open_simulator(in_memory=True, brain=brain or Echo(), **(sim_options or {})) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer, **options) as eng:
            (breaker,) = eng.breakers.values()
            yield eng, sim, breaker


async def ask(eng: engine.Engine, name: str = "a", **options: Any) -> engine.TurnReport:
    async with (await eng.session(name)).turn("hi", **options) as turn:
        assert (await turn.wait()).text == "hi"
    return turn.report


def upgrades(sim: Simulator) -> int:
    return sum(connection.transport == "websocket" for connection in sim.connections)


async def test_the_second_failure_in_a_row_opens_it_for_a_minute(autojump_clock: MockClock) -> None:
    async with engine_to(sim_options={"handshake": Reject(503)}) as (eng, sim, breaker):
        assert breaker.state is BreakerState.CLOSED
        assert "503" in ((await ask(eng)).fallback_reason or "")
        assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 1)
        await ask(eng, "b")
        assert (breaker.state, breaker.remaining) == (BreakerState.OPEN, 60)
        assert "breaker is open" in ((await ask(eng, "c")).fallback_reason or "")
        assert upgrades(sim) == 2
        await trio.sleep(59)
        await ask(eng)
        assert upgrades(sim) == 2


async def test_then_one_connection_is_tried_and_its_success_closes_it(autojump_clock: MockClock) -> None:
    async with engine_to(sim_options={"handshake": [Reject(500), Reject(500), Accept(delay=3)]}) as (
        eng,
        sim,
        breaker,
    ):
        await ask(eng)
        await ask(eng)
        await trio.sleep(60)
        assert breaker.state is BreakerState.HALF_OPEN
        reports: dict[str, engine.TurnReport] = {}

        async def one(name: str) -> None:
            reports[name] = await ask(eng, name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "probe")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(one, "other")
        assert reports["probe"].transport == "websocket"
        assert "being tried" in (reports["other"].fallback_reason or "")
        assert upgrades(sim) == 3
        assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 0)
        assert (await ask(eng, "other")).transport == "websocket"


async def test_a_failed_try_opens_it_again(autojump_clock: MockClock) -> None:
    async with engine_to(sim_options={"handshake": Reject(503)}) as (eng, sim, breaker):
        await ask(eng)
        await ask(eng)
        await trio.sleep(60)
        await ask(eng)
        assert (breaker.state, breaker.remaining) == (BreakerState.OPEN, 60)
        assert upgrades(sim) == 3


async def test_a_try_that_its_caller_gives_up_leaves_room_for_the_next(autojump_clock: MockClock) -> None:
    handshakes = [Reject(503), Reject(503), Ignore(), Accept()]
    async with engine_to(sim_options={"handshake": handshakes}) as (eng, _, breaker):
        await ask(eng)
        await ask(eng)
        await trio.sleep(60)
        with trio.move_on_after(1):
            await ask(eng, "impatient")
        await eng.release("impatient")
        assert (breaker.state, breaker.failures) == (BreakerState.HALF_OPEN, 2)
        assert (await ask(eng)).transport == "websocket"


@pytest.mark.parametrize("refusal", [400, 401, 429])
async def test_a_refusal_that_is_about_the_request_does_not_count(autojump_clock: MockClock, refusal: int) -> None:
    async with engine_to(sim_options={"handshake": Reject(refusal)}) as (eng, sim, breaker):
        for _ in range(3):
            await ask(eng)
        assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 0)
        assert upgrades(sim) == 3


async def test_neither_leaving_nor_a_budget_of_the_turns_counts(autojump_clock: MockClock) -> None:
    async with engine_to(sim_options={"handshake": Ignore()}) as (eng, _, breaker):
        for number in range(3):
            with trio.move_on_after(1):
                await ask(eng, f"left {number}")
            await eng.release(f"left {number}")
        with pytest.raises(engine.TurnTimeout):
            await ask(eng, "late", timeouts=engine.Timeouts(start=2))
        await eng.release("late")
        assert breaker.failures == 0


@pytest.mark.parametrize("status", [404, 405, 426])
async def test_a_server_without_websocket_is_remembered_until_reset(autojump_clock: MockClock, status: int) -> None:
    async with engine_to(sim_options={"handshake": [Reject(status)]}) as (eng, sim, breaker):
        await ask(eng)
        await trio.sleep(1000)
        assert str(status) in ((await ask(eng, "b")).fallback_reason or "")
        assert upgrades(sim) == 1
        assert breaker.no_websocket is not None
        assert breaker.state is BreakerState.CLOSED
        eng.breakers.reset()
        assert (await ask(eng)).transport == "websocket"


async def test_it_is_consulted_in_auto_only(autojump_clock: MockClock) -> None:
    async with engine_to(sim_options={"handshake": [Reject(503), Reject(503)]}) as (eng, sim, breaker):
        await ask(eng)
        await ask(eng)
        assert breaker.state is BreakerState.OPEN
        assert (await ask(eng, transport=Transport.WEBSOCKET)).transport == "websocket"
        assert upgrades(sim) == 3
        assert breaker.state is BreakerState.CLOSED  # type: ignore[comparison-overlap]  # it was worth it


async def test_an_open_connection_is_used_whatever_the_breaker_says(autojump_clock: MockClock) -> None:
    async with engine_to(sim_options={"handshake": [Accept(), Reject(503), Reject(503)]}) as (eng, _, breaker):
        await ask(eng, "connected")
        await ask(eng, "b")
        await ask(eng, "b")
        assert breaker.state is BreakerState.OPEN
        assert (await ask(eng, "connected")).transport == "websocket"


async def test_its_numbers_are_the_engines(autojump_clock: MockClock) -> None:
    policy = RetryPolicy(breaker_threshold=1, breaker_cooldown=5)
    async with engine_to(sim_options={"handshake": [Reject(503)]}, retry=policy) as (eng, _, breaker):
        await ask(eng)
        assert (breaker.state, breaker.remaining) == (BreakerState.OPEN, 5)
        await trio.sleep(5)
        assert (await ask(eng)).transport == "websocket"


# --- another endpoint ------------------------------------------------------------------------------------------------


async def test_a_changed_key_means_a_new_connection(autojump_clock: MockClock) -> None:
    async with engine_to() as (eng, sim, breaker):
        assert eng.endpoint == sim.endpoint
        await ask(eng)
        eng.change_endpoint(attrs.evolve(sim.endpoint, api_key="sk-another", headers={"x-mine": "yes"}))
        report = await ask(eng)
        assert not report.connection_reused
        first, second = sim.connections
        assert (first.authorization, second.authorization) == ("Bearer sk-simulator", "Bearer sk-another")
        assert second.headers["x-mine"] == "yes"
        assert not first.open
        names = list(eng.breakers)
        assert len(names) == len(eng.breakers) == 2
        assert eng.breakers[names[0]] is breaker
        assert names[1] == f"{names[0]} #2"
        assert "sk-" not in repr(names)


async def test_a_running_turn_ends_where_it_is(autojump_clock: MockClock) -> None:
    async with engine_to() as (eng, sim, _):
        session = await eng.session("a")
        async with session.turn("hi") as turn:
            await anext(turn)
            eng.change_endpoint(attrs.evolve(sim.endpoint, api_key="sk-another"))
            assert (await turn.wait()).text == "hi"
        assert (await ask(eng, transport=Transport.SSE)).transport == "sse"
        assert [connection.authorization for connection in sim.connections] == [
            "Bearer sk-simulator",
            "Bearer sk-another",
        ]


async def test_a_provider_of_keys_needs_no_hash(autojump_clock: MockClock) -> None:
    @attrs.define
    class Keys:
        key: str

        async def __call__(self) -> str:
            return self.key

    async with open_simulator(in_memory=True, brain=Echo()) as sim:
        endpoint = attrs.evolve(sim.endpoint, api_key=Keys("sk-one"))
        async with engine.open_engine(endpoint, model="m", dialer=sim.dialer) as eng:
            await ask(eng)
            eng.change_endpoint(attrs.evolve(sim.endpoint, api_key=Keys("sk-two")))
            await ask(eng)
            assert len(eng.breakers) == 2
        assert [connection.authorization for connection in sim.connections] == ["Bearer sk-one", "Bearer sk-two"]


class Network:
    """Reaches a simulator by any name, and refuses or ignores who asks for ``old`` while told to."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.mode = "there"

    async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
        if host == "old" and self.mode == "away":
            raise ConnectionRefusedError
        if host == "old" and self.mode == "silent":
            await trio.sleep_forever()
        return await self.sim.dialer.open_tcp(host, port)

    async def start_tls(self, *_: Any, **__: Any) -> trio.abc.Stream:
        raise NotImplementedError


OLD, NEW = (engine.Endpoint(f"http://{host}/v1", api_key="sk-simulator") for host in ("old", "new"))


async def test_a_try_counts_for_the_server_it_went_to(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Echo()) as sim:
        network = Network(sim)
        async with engine.open_engine(OLD, model="m", dialer=network) as eng:
            (breaker,) = eng.breakers.values()
            network.mode = "away"
            for _ in range(2):
                with pytest.raises(engine.ConnectFailed):
                    await ask(eng)
            await trio.sleep(60)
            network.mode = "silent"
            with trio.move_on_after(1):
                await ask(eng)
            assert "being tried" in (breaker.objection or "")
            eng.change_endpoint(NEW)
            assert (await ask(eng)).transport == "websocket"
            network.mode = "there"
            await trio.sleep(10)
            assert (breaker.state, breaker.objection) == (BreakerState.HALF_OPEN, None)
            eng.change_endpoint(OLD)
            assert (await ask(eng)).transport == "websocket"
            assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("transport", [Transport.AUTO, Transport.WEBSOCKET], ids=lambda transport: transport.value)
async def test_a_turn_that_waits_for_a_dial_goes_along(autojump_clock: MockClock, transport: Transport) -> None:
    async with open_simulator(in_memory=True, brain=Echo()) as sim:
        network = Network(sim)
        network.mode = "silent"
        async with engine.open_engine(OLD, model="m", dialer=network, transport=transport) as eng:
            session = await eng.session("a")
            async with session.turn("hi") as turn:
                await trio.sleep(1)
                eng.change_endpoint(NEW)
                assert (await turn.wait()).text == "hi"
            assert (turn.report.transport, turn.report.seconds.connect) == ("websocket", 1)
            assert (session.statistics().retries, session.statistics().fallbacks) == (0, 0)


@pytest.mark.parametrize("transport", [Transport.WEBSOCKET, Transport.SSE], ids=lambda transport: transport.value)
@pytest.mark.parametrize("during", [False, True])
async def test_no_server_is_told_what_another_stores(
    autojump_clock: MockClock, transport: Transport, during: bool
) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Delay(2), Say("one")]], then=Echo())) as sim:
        async with engine.open_engine(OLD, model="m", dialer=Network(sim)) as eng:
            session = await eng.session("a")
            stored = engine.TurnOptions(store=True)
            async with session.turn("hi", stored, transport=transport) as turn:
                await trio.sleep(1 if during else 3)
                eng.change_endpoint(NEW)
                reply = await turn.wait()
            context = engine.Context([engine.UserMessage("hi"), reply, engine.UserMessage("again")])
            assert (await session.ask(context, stored)).text == "again"
            assert [request.previous_response_id for request in sim.requests] == [None, None]


async def test_a_replacement_at_the_old_server_is_given_up(autojump_clock: MockClock) -> None:
    limits = engine.Limits(connection_lifetime=1100, idle_lifetime=None, ping_interval=None)
    async with engine_to(limits=limits) as (eng, sim, _):
        await ask(eng)
        await trio.sleep(1050)
        assert [connection.open for connection in sim.connections] == [True, True]
        eng.change_endpoint(attrs.evolve(sim.endpoint, api_key="sk-another"))
        await trio.sleep(1)
        assert [connection.open for connection in sim.connections] == [False, False]
        await ask(eng)
        assert sim.connections[-1].authorization == "Bearer sk-another"


async def test_no_connection_is_dialled_ahead_while_it_is_open(autojump_clock: MockClock) -> None:
    async with engine_to(Script([[SayDelta("so"), Stall()]] * 2)) as (eng, sim, breaker):
        session = await eng.session("a")
        async with session.turn("hi") as turn:
            await anext(turn)
            breaker.failed()
            breaker.failed()
        await trio.sleep(1)
        assert upgrades(sim) == 1
        breaker.reset()
        async with session.turn("hi") as turn:
            await anext(turn)
        await trio.sleep(1)
        assert upgrades(sim) == 3


async def test_a_changed_key_is_used_over_http_too(autojump_clock: MockClock) -> None:
    async with engine_to(transport=Transport.SSE) as (eng, sim, _):
        await ask(eng)
        eng.change_endpoint(attrs.evolve(sim.endpoint, api_key="sk-another"))
        await ask(eng)
        assert [connection.authorization for connection in sim.connections] == [
            "Bearer sk-simulator",
            "Bearer sk-another",
        ]


async def test_what_sent_with_earlier_keys_is_not_kept(autojump_clock: MockClock) -> None:
    def clients() -> int:
        gc.collect()
        return sum(isinstance(each, HttpClient) for each in gc.get_objects())

    async with engine_to(transport=Transport.SSE) as (eng, sim, _):
        before = clients()
        for number in range(5):
            eng.change_endpoint(attrs.evolve(sim.endpoint, api_key=f"sk-{number}"))
            await ask(eng)
        assert clients() <= before + 2  # the last but one was just let go of


async def test_a_dial_to_the_old_server_ends_at_once(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Echo()) as sim:
        network = Network(sim)
        network.mode = "silent"
        async with engine.open_engine(OLD, model="m", dialer=network) as eng:
            session = await eng.session("a")
            async with session.turn("hi") as turn:
                for number in range(5):
                    await trio.testing.wait_all_tasks_blocked()
                    eng.change_endpoint(attrs.evolve(OLD, api_key=f"sk-{number}"))
                await trio.testing.wait_all_tasks_blocked()
                (dial,) = session.statistics().connections
                assert dial.state == "dialling"
                eng.change_endpoint(NEW)
                assert (await turn.wait()).text == "hi"


async def test_the_endpoint_must_be_one(autojump_clock: MockClock) -> None:
    async with engine_to() as (eng, _, _breaker):
        with pytest.raises(engine.ConfigurationError, match="endpoint"):
            eng.change_endpoint("http://elsewhere")  # type: ignore[arg-type]


async def test_breakers_of_many_keys_are_not_kept_for_ever(autojump_clock: MockClock) -> None:
    async with engine_to() as (eng, sim, _):
        for number in range(50):
            eng.change_endpoint(attrs.evolve(sim.endpoint, api_key=f"sk-{number}"))
        assert len(eng.breakers) == 16
        assert list(eng.breakers)[-1].endswith(" #51")
        assert (await ask(eng)).transport == "websocket"


async def test_a_slow_key_says_nothing_of_the_server(autojump_clock: MockClock) -> None:
    asked = 0

    async def slow() -> str:
        nonlocal asked
        asked += 1
        await trio.sleep(100)
        return "sk"

    async with open_simulator(in_memory=True) as sim:
        endpoint = attrs.evolve(sim.endpoint, api_key=slow)
        async with engine.open_engine(endpoint, model="m", dialer=sim.dialer) as eng:
            for number in range(3):
                with pytest.raises(engine.ConnectFailed):
                    await ask(eng, str(number))
            (breaker,) = eng.breakers.values()
            assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 0)
    assert asked == 3  # nor would HTTP have another key
