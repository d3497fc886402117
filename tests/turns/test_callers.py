"""What callers' functions raise to end the program, and callers from elsewhere."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import engine
from engine.simulator import open_simulator


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


@pytest.mark.parametrize("what", ["ask", "warm_up", "compact"])
async def test_a_session_belongs_to_one_run(what: str) -> None:
    """In real time: two runs are under way at once."""
    raised: list[BaseException] = []
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:

            async def elsewhere() -> None:
                await getattr(session, what)("hi")

            def run() -> None:
                try:
                    trio.run(elsewhere)
                except BaseException as error:
                    raised.append(error)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            with trio.fail_after(5):
                await trio.to_thread.run_sync(thread.join)
            (error,) = raised
            assert isinstance(error, RuntimeError)
            assert "another run of Trio" in str(error)
            assert (await session.ask("mine")).text == "mine"
