"""The end-to-end checks of the system this library re-imagines: against the simulator, and against the real service.

``pytest -m live`` runs them for real; they are skipped without ``OPENAI_API_KEY``. ``OPENAI_TEST_MODEL`` names the
model.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import engine
from engine.simulator import Simulator, open_simulator

SECONDS = 45.0

places = pytest.mark.parametrize(
    "place",
    [
        "simulator",
        pytest.param(
            "live",
            marks=[
                pytest.mark.live,
                pytest.mark.skipif(not os.environ.get("OPENAI_API_KEY"), reason="needs OPENAI_API_KEY"),
            ],
        ),
    ],
)


@asynccontextmanager
async def opened(place: str) -> AsyncIterator[tuple[engine.Engine, Simulator | None]]:
    timeouts = engine.Timeouts(turn=SECONDS)
    if place == "live":
        model = os.environ.get("OPENAI_TEST_MODEL", "gpt-5.4")
        async with engine.open_engine(engine.Endpoint.from_env(), model=model, timeouts=timeouts) as eng:
            yield eng, None
    else:
        async with open_simulator() as sim:
            async with engine.open_engine(sim.endpoint, model="gpt-test", timeouts=timeouts) as eng:
                yield eng, sim


@places
async def test_one_turn_over_websocket(place: str) -> None:
    async with opened(place) as (eng, sim):
        reply = await (await eng.session("one")).ask("What is 2+2? Answer with the number only.")
        assert reply.content
        assert "4" in reply.text
        if sim is not None:
            assert [connection.transport for connection in sim.connections] == ["websocket"]


@places
async def test_the_temperature_is_forwarded_and_the_turn_always_ends(place: str) -> None:
    async with opened(place) as (eng, sim):
        session = await eng.session("warm")
        try:
            # Some models refuse the option; what matters is that it arrives and that the turn ends.
            reply = await session.ask("Say hello.", engine.TurnOptions(temperature=0.8))
            assert reply.text
        except engine.RequestRejected as refused:
            assert refused.param == "temperature"  # noqa: PT017
        if sim is not None:
            assert sim.requests[0].body["temperature"] == 0.8


@places
async def test_a_session_is_in_the_registry_from_its_turn_to_its_release(place: str) -> None:
    async with opened(place) as (eng, sim):
        assert not eng.has_session("user-42")
        session = await eng.session("user-42")
        await session.ask("Say hi.")
        assert eng.has_session("user-42")
        assert await eng.release("user-42")
        assert not eng.has_session("user-42")
        if sim is not None:
            with trio.fail_after(5):
                while sim.open_connections:
                    await trio.lowlevel.checkpoint()


@places
async def test_a_session_is_warmed_up_before_its_first_turn(place: str) -> None:
    async with opened(place) as (eng, sim):
        session = await eng.session("warm")
        options = engine.TurnOptions(warm_up=True)
        reply = await session.ask("Say the word pineapple.", options, timeouts=engine.Timeouts(turn=SECONDS))
        assert "pineapple" in reply.text.lower()
        if sim is not None:
            assert [request.body.get("generate") for request in sim.requests] == [False, None]


@places
@pytest.mark.parametrize("transport", list(engine.Transport))
async def test_a_wrong_key_ends_the_turn_with_an_authentication_failure(
    place: str, transport: engine.Transport
) -> None:
    async with open_simulator(api_key="sk-right") as sim:
        base_url = sim.base_url if place == "simulator" else "https://api.openai.com/v1"
        wrong = engine.Endpoint(base_url, "sk-wrong")
        with trio.fail_after(SECONDS):
            async with engine.open_session(wrong, model="gpt-test", transport=transport) as session:
                with pytest.raises(engine.AuthenticationFailed) as caught:
                    await session.ask("hi")
        assert caught.value.status == 401
        assert caught.value.delivery in {engine.Delivery.NOT_SENT, engine.Delivery.REJECTED}
