"""The engine's door: sessions by id, for as long as they are wanted, and from where they may be used."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import engine
from engine.connections.home import Home
from engine.settings.fields import SessionFields
from engine.simulator import Simulator, open_simulator


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[engine.Engine, Simulator]]:
    async with (
        open_simulator(in_memory=True) as sim,
        engine.open_engine(sim.endpoint, dialer=sim.dialer, **{"model": "m", **options}) as eng,
    ):
        yield eng, sim


# --- one object for each id


async def test_the_same_id_gives_the_same_object(autojump_clock: MockClock) -> None:
    async with opened() as (eng, _):
        one = await eng.session("one")
        assert await eng.session("one") is one
        assert await eng.session("two") is not one
        await eng.release("one")
        assert await eng.session("one") is not one


async def test_a_session_can_be_started_by_a_nursery(autojump_clock: MockClock) -> None:
    async with opened() as (eng, _):
        async with trio.open_nursery() as nursery:
            for name in ("a", "b"):
                nursery.start_soon(eng.session, name)
        assert sorted(eng) == ["a", "b"]
    assert inspect.iscoroutinefunction(engine.Engine.session)


async def test_choices_are_taken_as_strings(autojump_clock: MockClock) -> None:
    async with opened(transport="websocket", on_cancel="drain") as (eng, sim):
        session = await eng.session("one", transport="sse")
        assert (await session.ask("1+1")).text == "2"
        assert sim.connections[-1].transport == "http"
        assert await eng.session("one", transport=engine.Transport.SSE) is session
        with pytest.raises(engine.ConfigurationError, match="other options"):
            await eng.session("one", transport="auto")


# --- a session for a block


async def test_a_session_for_a_block(autojump_clock: MockClock) -> None:
    async with opened() as (eng, sim):
        async with eng.open_session("one", model="other") as session:
            assert (await session.ask("1+1")).text == "2"
            assert await eng.session("one") is session
            assert sim.requests[-1].body["model"] == "other"
        assert "one" not in eng
        assert not eng.has_session("one")
        assert sim.connections[-1].close_code == 1000
        assert eng.statistics().closing == 0
        with pytest.raises(engine.SessionClosed):
            await session.ask("1+1")
        async with eng.open_session("one") as again:
            assert again is not session


async def test_a_session_that_lives_is_not_opened_again(autojump_clock: MockClock) -> None:
    async with opened() as (eng, _):
        session = await eng.session("one")
        with pytest.raises(engine.ConfigurationError) as caught:
            async with eng.open_session("one"):
                pass
        assert caught.value.field == "session 'one'"
        assert await eng.session("one") is session
        manager = eng.open_session("two")
        async with manager:
            with pytest.raises(engine.ConfigurationError):
                await eng.open_session("two").__aenter__()
        with pytest.raises(RuntimeError):
            await manager.__aenter__()


async def test_what_the_block_raises_comes_out(autojump_clock: MockClock) -> None:
    async with opened() as (eng, _):
        with pytest.raises(ZeroDivisionError):
            async with eng.open_session("one"):
                raise ZeroDivisionError
        assert "one" not in eng


async def test_leaving_a_block_that_was_cancelled_closes_its_session(autojump_clock: MockClock) -> None:
    async with opened() as (eng, sim):
        with trio.CancelScope() as scope:
            async with eng.open_session("one") as session:
                await session.ask("1+1")
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert "one" not in eng
        assert sim.connections[-1].close_code == 1000


async def test_a_block_leaves_a_successor_of_its_session_alone(autojump_clock: MockClock) -> None:
    async with opened() as (eng, _):
        async with eng.open_session("one"):
            await eng.release("one")
            successor = await eng.session("one")
        assert await eng.session("one") is successor
        assert (await successor.ask("1+1")).text == "2"


async def test_opening_that_is_cancelled_leaves_no_session(autojump_clock: MockClock) -> None:
    async with opened() as (eng, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with eng.open_session("one"):
                pytest.fail("it was cancelled")
        assert "one" not in eng


# --- keywords


@pytest.mark.parametrize("call", [engine.open_engine, engine.open_session, engine.Engine.session])
def test_signatures_spell_the_keywords_out(call: Any) -> None:
    names = [*inspect.signature(call).parameters]
    assert names[-len(SessionFields.__annotations__) :] == [*SessionFields.__annotations__]


async def test_other_keywords_are_refused(autojump_clock: MockClock) -> None:
    async with opened() as (eng, sim):
        wrong: dict[str, Any] = {"timeuots": None}
        for call in (engine.open_engine, engine.open_session):
            with pytest.raises(TypeError, match=r"'timeuots'\. Did you mean 'timeouts'"):
                call(sim.endpoint, **wrong)
        with pytest.raises(TypeError, match=r"session\(\) got"):
            await eng.session("one", **wrong)
        with pytest.raises(TypeError):
            eng.open_session("one", **wrong)
        with pytest.raises(engine.ConfigurationError, match=r"timeouts=Timeouts\(turn=…\)"):
            engine.open_session(sim.endpoint, timeout=20)  # type: ignore[call-arg]
        for name in ("", 7, None):
            with pytest.raises(engine.ConfigurationError):
                eng.open_session(name)  # type: ignore[arg-type]


# --- where it may be used from


def elsewhere(call: Any) -> BaseException | None:
    """What a call raises in a run of Trio in another thread."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            trio.run(call)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    return raised[0] if raised else None


async def test_another_run_of_trio_is_refused_at_once() -> None:
    async with open_simulator() as sim, engine.open_engine(sim.endpoint, model="m") as eng:

        async def release() -> None:
            await eng.release("one")

        async def session() -> None:
            await eng.session("one")

        async def change() -> None:
            eng.change_endpoint(sim.endpoint)

        for call in (release, session, change):
            error = await trio.to_thread.run_sync(elsewhere, call)
            assert isinstance(error, RuntimeError)
            assert "another run of Trio" in str(error)
        assert list(eng) == []


def test_under_asyncio_the_error_says_where_to_go() -> None:
    async def main() -> None:
        async with engine.open_session(engine.Endpoint("http://localhost/v1"), model="m"):
            pass

    with pytest.raises(RuntimeError, match=r"engine\.aio"):
        asyncio.run(main())
    with pytest.raises(RuntimeError, match=r"engine\.blocking"):
        Home()


async def test_home_is_where_it_was_made() -> None:
    home = Home()
    home.check()
    await trio.lowlevel.checkpoint()
    home.check()
    with pytest.raises(RuntimeError):
        await trio.to_thread.run_sync(home.check)
