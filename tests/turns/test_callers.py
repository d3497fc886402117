"""What callers' functions raise to end the program, and callers from elsewhere."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import engine
from engine.simulator import Answer, Script, Stall, open_simulator


class Stop(BaseException):
    """Ends a program; no `Exception`."""


class StopsAt(engine.Instrument):
    """Raises at one hook, the first time."""

    def __init__(self, hook: str, error: BaseException) -> None:
        self._errors = {hook: error}

    def _raise(self, hook: str) -> None:
        error = self._errors.pop(hook, None)
        if error is not None:
            raise error

    def turn_started(self, *_: Any) -> None:
        self._raise("turn_started")

    def request_sent(self, *_: Any) -> None:
        self._raise("request_sent")

    def turn_ended(self, *_: Any) -> None:
        self._raise("turn_ended")

    def connection_opened(self, *_: Any) -> None:
        self._raise("connection_opened")


@pytest.mark.parametrize("hook", ["request_sent", "turn_ended", "connection_opened"])
@pytest.mark.parametrize("error", [SystemExit(3), Stop()], ids=lambda error: type(error).__name__)
async def test_what_a_hook_raises_to_end_the_program_comes_out_as_itself(
    autojump_clock: MockClock, hook: str, error: BaseException
) -> None:
    async with open_simulator(in_memory=True) as sim:
        with pytest.raises(type(error)) as caught:
            async with engine.open_session(
                sim.endpoint, model="m", dialer=sim.dialer, instruments=[StopsAt(hook, error)]
            ) as session:
                await session.ask("hi")
                await trio.sleep(1)
        assert caught.value is error


@pytest.mark.parametrize("transport", [engine.Transport.WEBSOCKET, engine.Transport.SSE])
async def test_what_a_key_function_raises_to_end_the_program_comes_out_as_itself(
    autojump_clock: MockClock, transport: engine.Transport
) -> None:
    async def leave() -> str:
        sys.exit(3)

    async with open_simulator(in_memory=True) as sim:
        endpoint = engine.Endpoint(sim.endpoint.base_url, leave)
        with pytest.raises(SystemExit) as caught:
            async with engine.open_session(endpoint, model="m", dialer=sim.dialer, transport=transport) as session:
                await session.ask("hi")
        assert caught.value.code == 3


async def test_a_hook_that_ends_the_program_leaves_no_lane_stuck(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(
            sim.endpoint, model="m", dialer=sim.dialer, instruments=[StopsAt("turn_started", Stop())]
        ) as session:
            with pytest.raises(Stop):
                await session.ask("one")
            assert (await session.ask("two")).text == "two"
            assert session.statistics().active == 0


async def entered(block: Any) -> None:
    async with block:
        pass


CALLS: dict[str, Callable[[engine.Session, engine.Turn], Awaitable[object]]] = {
    "ask": lambda session, _: session.ask("hi"),
    "run": lambda session, _: session.run("hi", []),
    "turn": lambda session, _: entered(session.turn("hi")),
    "a lane": lambda session, _: session.lane("other").ask("hi"),
    "a hook": lambda session, _: session.ask("hi", payload_hook=lambda body: body),
    "warm_up": lambda session, _: session.warm_up("hi"),
    "compact": lambda session, _: session.compact("hi"),
    "send": lambda session, _: session.conversation().send("hi"),
    "stream": lambda session, _: entered(session.conversation().stream("hi")),
    "wait": lambda _, turn: turn.wait(),
    "next": lambda _, turn: turn.__anext__(),
    "steer": lambda _, turn: turn.steer("hi"),
}


def run_by_trio(call: Callable[[], Awaitable[object]]) -> None:
    trio.run(call)


def run_by_asyncio(call: Callable[[], Awaitable[object]]) -> None:
    async def main() -> None:
        await call()

    asyncio.run(main())


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("run", [run_by_trio, run_by_asyncio])
async def test_a_session_belongs_to_one_run(what: str, run: Callable[[Callable[[], Awaitable[object]]], None]) -> None:
    """In real time: two runs are under way at once."""
    raised: list[BaseException] = []
    async with open_simulator(in_memory=True, brain=Script([[Stall()], Answer("mine")])) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            async with session.turn("under way") as turn:
                await trio.testing.wait_all_tasks_blocked()
                assert len(sim.requests) == 1

                def elsewhere() -> None:
                    try:
                        run(lambda: CALLS[what](session, turn))
                    except BaseException as error:
                        raised.append(error)

                thread = threading.Thread(target=elsewhere, daemon=True)
                thread.start()
                with trio.fail_after(5):
                    await trio.to_thread.run_sync(thread.join)
                assert session.statistics().queued == 0
            (error,) = raised
            assert isinstance(error, RuntimeError)
            assert "another run of Trio" in str(error) or "engine.aio" in str(error)
            assert ("engine.aio" in str(error)) == (run is run_by_asyncio)
            assert (await session.ask("mine")).text == "mine"


async def test_who_waits_for_a_turn_that_another_task_leaves_is_told_so(autojump_clock: MockClock) -> None:
    raised: list[RuntimeError] = []
    async with open_simulator(in_memory=True, brain=Script([[Stall()]])) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    with pytest.raises(RuntimeError) as caught:
                        await turn.wait()
                    raised.append(caught.value)

                async with session.turn("hi") as turn:
                    nursery.start_soon(wait)
                    await trio.sleep(1)
    assert "its block was left" in str(raised[0])
