"""What one turn learns of a limit of the server's rate holds the turns of every session of the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import engine
from engine.connections.gates import Gates
from engine.settings.retry import DEFAULT_RETRY
from engine.simulator import Accept, Created, Delay, Echo, Error, Reject, Say, Script, Simulator, open_simulator

BOTH = pytest.mark.parametrize(
    "transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE], ids=lambda transport: transport.value
)


def limited(seconds: float, code: str = "rate_limit_exceeded") -> list[Any]:
    return [Error(429, code, headers={"retry-after": str(seconds)})]


@asynccontextmanager
async def engine_to(
    brain: Any, *, handshake: Any = None, **options: Any
) -> AsyncIterator[tuple[engine.Engine, Simulator]]:
    retry = engine.RetryPolicy(jitter=lambda: 0.5)
    async with open_simulator(in_memory=True, brain=brain, handshake=handshake) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer, retry=retry, **options) as eng:
            yield eng, sim
        assert sim.errors == []


class Asking:
    """Sessions that ask, and when each had its answer, or what error it had instead."""

    def __init__(self, eng: engine.Engine) -> None:
        self.eng = eng
        self.answered: dict[str, float] = {}
        self.errors: dict[str, engine.TurnError] = {}
        self.attempts: dict[str, int] = {}

    async def __call__(self, name: str, **options: Any) -> None:
        session = await self.eng.session(name)
        try:
            async with session.turn(name, **options) as turn:
                await turn.wait()
        except engine.TurnError as error:
            self.errors[name] = error
        else:
            self.answered[name] = trio.current_time()
        self.attempts[name] = turn.report.attempts


@BOTH
async def test_a_limit_holds_the_turns_of_all_sessions(autojump_clock: MockClock, transport: engine.Transport) -> None:
    probed = [Delay(1), Created(), Say("a or b")]
    async with engine_to(Script([limited(5), probed], then=Echo()), transport=transport) as (eng, sim):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            await trio.sleep(1)
            for name in "bcd":
                nursery.start_soon(ask, name)
            await trio.sleep(3.9)
            assert len(sim.requests) == 1  # none has asked while they were to wait
            await trio.sleep(1)
            assert len(sim.requests) == 2  # one tries
        times = sorted(ask.answered.values())
        assert times[0] == times[1] == 6  # when it was taken, the next one went
        assert times[2:] == pytest.approx([6.25, 6.5])
        assert sum(ask.attempts.values()) == 5  # waiting is no attempt
        assert ask.errors == {}
        # What is over is forgotten.
        await trio.sleep(1)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(ask, name)
        assert trio.current_time() == begun


async def test_another_model_is_not_held(autojump_clock: MockClock) -> None:
    async with engine_to(Script([limited(5)], then=Echo())) as (eng, _):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            await trio.sleep(1)
            nursery.start_soon(lambda: ask("b", model="another"))
        assert ask.answered == {"a": 5, "b": 1}


async def test_a_turn_that_cannot_wait_is_told_at_once(autojump_clock: MockClock) -> None:
    async with engine_to(Script([limited(5)], then=Echo())) as (eng, sim):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            await trio.sleep(1)
            await ask("b", timeouts=engine.Timeouts(start=3))
            assert trio.current_time() == 1
        error = ask.errors["b"]
        assert isinstance(error, engine.RateLimited)
        assert (error.delivery, error.retry_after) == (engine.Delivery.NOT_SENT, 4)
        assert ask.attempts == {"a": 2, "b": 0}
        assert len(sim.requests) == 2


@pytest.mark.parametrize(
    "refusal", [limited(61), limited(5, "insufficient_quota"), [Error(429, "rate_limit_exceeded")]]
)
async def test_what_holds_only_the_refused_turn(autojump_clock: MockClock, refusal: list[Any]) -> None:
    async with engine_to(Script([refusal], then=Echo()), timeouts=engine.Timeouts(start=100)) as (eng, _):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            await trio.sleep(1)
            await ask("b")
            assert ask.answered["b"] == 1
        assert isinstance(ask.errors.get("a"), engine.RateLimited) or ask.answered["a"] == 61


async def test_another_turn_tries_where_the_one_that_tried_was_left(autojump_clock: MockClock) -> None:
    async with engine_to(Script([limited(5), [Delay(50), Say("late")]], then=Echo())) as (eng, _):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(7):
                async with trio.open_nursery() as left:
                    left.start_soon(ask, "a")
                    await trio.sleep(1)
                    nursery.start_soon(ask, "b")
                    await trio.sleep_forever()
            assert ask.answered == {}
        assert ask.answered == {"b": 7}


# --- a limited rate of upgrades


def busy(seconds: float) -> Reject:
    return Reject(429, headers={"retry-after": str(seconds)})


@pytest.mark.parametrize("transport", [engine.Transport.AUTO, engine.Transport.WEBSOCKET])
async def test_an_upgrade_refused_for_its_rate_holds_all_that_need_one(
    autojump_clock: MockClock, transport: engine.Transport
) -> None:
    slow = [Accept(), busy(5), Accept(delay=1), Accept()]
    async with engine_to(Echo(), handshake=slow, transport=transport) as (eng, sim):
        ask = Asking(eng)
        await ask("open")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            await trio.sleep(1)
            for name in "bcd":
                nursery.start_soon(partial(ask, name, model=f"model {name}"))
            await ask("open")
            assert ask.answered["open"] == 1  # what has a connection is not held
            await trio.sleep(3.9)
            assert len(sim.connections) == 2
            await trio.sleep(0.5)
            assert len(sim.connections) == 3  # one tries
        times = sorted(ask.answered.values())[1:]
        assert times == pytest.approx([6, 6, 6.25, 6.5])
        assert ask.errors == {}
        assert len(sim.connections) == 6
        assert {request.transport for request in sim.requests} == {"websocket"}
        assert sum(ask.attempts.values()) == 5


async def test_another_refused_upgrade_holds_them_again(autojump_clock: MockClock) -> None:
    async with engine_to(Echo(), handshake=[busy(2), busy(3), Accept()], transport="websocket") as (eng, sim):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(ask, name)
                await trio.sleep(0.5)
        assert min(ask.answered.values()) == 5
        assert len(sim.connections) == 5


async def test_a_turn_that_cannot_wait_for_a_connection(autojump_clock: MockClock) -> None:
    """It goes over HTTP where it may, and else is told at once."""
    async with engine_to(Echo(), handshake=[busy(5), Accept()]) as (eng, sim):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            await trio.sleep(1)
            await ask("b", timeouts=engine.Timeouts(start=3))
            assert ask.answered == {"b": 1}
            await ask("c", timeouts=engine.Timeouts(start=3), transport="websocket")
            assert trio.current_time() == 1
        error = ask.errors["c"]
        assert isinstance(error, engine.RateLimited)
        assert (error.delivery, error.retry_after) == (engine.Delivery.NOT_SENT, 4)
        assert [request.transport for request in sim.requests] == ["http", "websocket"]


async def test_no_connection_is_dialled_ahead_while_upgrades_are_limited(autojump_clock: MockClock) -> None:
    handshake = [Accept(), busy(5), Accept()]
    async with engine_to(Script(["one", [Delay(50), Say("late")]], then=Echo()), handshake=handshake) as (eng, sim):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            await ask("a")
            nursery.start_soon(ask, "b")  # is refused
            await trio.sleep(1)
            with trio.move_on_after(1):
                await ask("a")  # is left: its connection retires
            await trio.sleep(1)
            assert len(sim.connections) == 2
        assert "b" in ask.answered


async def test_the_turn_that_tries_is_not_held_by_its_own_warm_up(autojump_clock: MockClock) -> None:
    """It comes to the gate a second time, with the connection that it needed."""
    async with engine_to(Script([limited(5)], then=Echo())) as (eng, _sim):
        ask = Asking(eng)
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                await ask("a")  # is refused, and left
            nursery.start_soon(partial(ask, "b", options=engine.TurnOptions(warm_up=True)))
        assert ask.answered == {"b": 5}


async def test_a_turn_that_tries_with_a_warm_up_gets_its_connection(autojump_clock: MockClock) -> None:
    async with engine_to(Echo(), handshake=[busy(5), Accept()], transport="websocket") as (eng, _sim):
        ask = Asking(eng)
        await ask("a", options=engine.TurnOptions(warm_up=True))
        assert ask.answered == {"a": 5}


async def test_of_many_limits_the_newest_are_kept() -> None:
    gates = Gates(DEFAULT_RETRY)
    at = gates.at(engine.Endpoint("http://localhost/v1", api_key="sk-one"))
    for number in range(4097):
        assert at.limited(f"model {number}", 5)
        at.of("model 0")  # used all the time
    assert len(gates) == 4096
    assert (at.of("model 0") is None, at.of("model 1") is None) == (False, True)
    assert gates.at(engine.Endpoint("http://localhost/v1", api_key="sk-two")).of("model 0") is None
    assert gates.at(engine.Endpoint("http://localhost/v1", api_key="sk-one")).of("model 0") is at.of("model 0")
