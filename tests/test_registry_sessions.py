"""Sessions by id: starting, finding, releasing, and leaving the engine."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import engine
from engine.simulator import Answer, Created, Script, Stall, open_simulator


async def test_a_session_is_absent_then_present_then_gone(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            assert not eng.has_session("a")
            assert "a" not in eng
            session = await eng.session("a")
            assert "a" in eng
            assert not eng.has_session("a")  # nothing is dialled yet
            await session.ask("hi")
            assert eng.has_session("a")
            assert list(eng) == ["a"]
            assert await eng.release("a") is True
            assert not eng.has_session("a")
            assert "a" not in eng
            assert sim.open_connections == []
            assert await eng.release("a") is False


async def test_the_same_id_is_the_same_session_and_other_options_are_refused(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            await (await eng.session("a", model="x")).ask("1")
            await (await eng.session("a")).ask("2")
            await (await eng.session("a", model="x")).ask("3")
            with pytest.raises(engine.ConfigurationError, match="other options"):
                await eng.session("a", model="y")
            assert [r.body["model"] for r in sim.requests] == ["x", "x", "x"]
            assert len(sim.connections) == 1


async def test_release_makes_room_at_once_and_a_second_release_joins_the_first(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            await (await eng.session("a")).ask("hi")
            results: list[bool] = []

            async def release() -> None:
                results.append(await eng.release("a"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(release)
                nursery.start_soon(release)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                assert "a" not in eng
                fresh = await eng.session("a")
                assert (await fresh.ask("again")).text == "again"
            assert results == [True, True]
            assert "a" in eng


async def test_cancelling_release_does_not_stop_the_closing(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Stall()]])) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            await eng.session("a")
            with trio.CancelScope() as scope:
                scope.cancel(reason="at once")
                await eng.release("a")
            assert scope.cancelled_caught
            assert "a" not in eng
            await trio.sleep(5)
            assert eng.statistics().closing == 0


async def test_sessions_are_independent(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            one, two = await eng.session("one"), await eng.session("two")
            await one.ask("1")
            await two.ask("2")
            sim.abort(sim.connections[0])
            await trio.sleep(1)
            assert not eng.has_session("one")
            assert eng.has_session("two")
            assert (await one.ask("3")).text == "3"
            assert set(eng.statistics().sessions) == {"one", "two"}


async def test_leaving_the_engine_releases_everything_and_fails_what_runs(autojump_clock: MockClock) -> None:
    outcomes: list[str] = []

    async def ask(session: engine.Session) -> None:
        try:
            await session.ask("hi")
        except engine.SessionClosed as error:
            outcomes.append(type(error).__name__)

    async with (
        open_simulator(in_memory=True, brain=Script([[Created(), Stall()]] * 5)) as sim,
        trio.open_nursery() as nursery,
    ):
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            for number in range(5):
                nursery.start_soon(ask, await eng.session(f"s{number}"))
            await trio.testing.wait_all_tasks_blocked()
        assert sim.open_connections == []
        with pytest.raises(engine.SessionClosed):
            await eng.session("late")
    assert outcomes == ["SessionClosed"] * 5


async def test_an_engine_cancelled_from_outside_ends_without_an_exception_of_its_own(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Stall()]])) as sim:
        with trio.move_on_after(3) as scope:
            async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
                await session.ask("hi")
        assert scope.cancelled_caught
        assert sim.open_connections == []


async def test_starting_a_session_under_cancellation_leaves_nothing_running(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        with trio.CancelScope() as scope:
            scope.cancel(reason="before it begins")
            async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer):
                pytest.fail("not reached")
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        (3, "is an int, not a string"),
        (None, "is None, not a string"),
        ("half \ud83d", "has half a character (a lone surrogate)"),
        ("a\0b", "has a NUL character"),
        ("é" * 257, "is longer than 512 bytes"),
    ],
)
async def test_what_is_no_name_of_a_session_or_lane(autojump_clock: MockClock, name: Any, problem: str) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            with pytest.raises(engine.ConfigurationError) as refused:
                await eng.session(name)
            assert str(refused.value) == f"session id: {problem}"
            with pytest.raises(engine.ConfigurationError, match=re.escape(f"session id: {problem}")):
                eng.open_session(name)
            session = await eng.session("é" * 256)
            for call in (session.lane, session.fork, session.lane("é" * 256).fork):
                with pytest.raises(engine.ConfigurationError) as refused:
                    call(name)
                assert str(refused.value) == f"lane: {problem}"
        assert sim.connections == []


async def test_a_broken_session_is_replaced_and_its_siblings_live(autojump_clock: MockClock) -> None:
    class Broken:
        """A dialer with a bug."""

        def __init__(self, good: object) -> None:
            self.good = good
            self.broken = True

        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            if self.broken:
                raise ZeroDivisionError("a bug")
            return await self.good.open_tcp(host, port)  # type: ignore[attr-defined, no-any-return]

        async def start_tls(self, stream: trio.abc.Stream, **_: object) -> trio.abc.Stream:
            return stream

    async with open_simulator(in_memory=True, brain=Script([Answer("fine"), Answer("fine")])) as sim:
        dialer = Broken(sim.dialer)
        async with engine.open_engine(sim.endpoint, model="m", dialer=dialer) as eng:
            session = await eng.session("a")
            with pytest.raises(engine.ConnectFailed) as caught:
                await session.ask("hi")
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            dialer.broken = False
            assert (await (await eng.session("b")).ask("hi")).text == "fine"
            assert (await session.ask("hi")).text == "fine"


async def test_a_bug_below_fails_its_own_session_with_the_cause_and_no_other(autojump_clock: MockClock) -> None:
    class Buggy(trio.abc.Stream):
        """A stream that breaks in a way no stream may."""

        def __init__(self, stream: trio.abc.Stream) -> None:
            self.stream = stream

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self.stream.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            data = await self.stream.receive_some(max_bytes)
            if b"trigger" in data:
                raise ZeroDivisionError("a bug")
            return data

        async def aclose(self) -> None:
            await self.stream.aclose()

    class Dialer:
        def __init__(self, good: Dialer) -> None:
            self.good = good

        async def open_tcp(self, host: str, port: int) -> trio.abc.Stream:
            return Buggy(await self.good.open_tcp(host, port))

        async def start_tls(self, stream: trio.abc.Stream, **_: object) -> trio.abc.Stream:
            return stream

    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=Dialer(sim.dialer)) as eng:  # type: ignore[arg-type]
            unlucky, sibling = await eng.session("unlucky"), await eng.session("sibling")
            await sibling.ask("hi")
            with pytest.raises(engine.SessionClosed) as caught:
                await unlucky.ask("trigger")
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            assert (await sibling.ask("still here")).text == "still here"
            assert (await unlucky.ask("and I too")).text == "and I too"
        assert sim.open_connections == []
