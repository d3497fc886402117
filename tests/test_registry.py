"""The engine's door: sessions by id, for as long as they are wanted, and from where they may be used."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
from trio.testing import MockClock

import engine
from engine.connections.home import Home
from engine.settings.fields import SessionFields
from engine.simulator import (
    Accept,
    Answer,
    Created,
    Delay,
    MemoryDialer,
    SayDelta,
    Script,
    Simulator,
    Stall,
    open_simulator,
)


@asynccontextmanager
async def opened(brain: Any = None, **options: Any) -> AsyncIterator[tuple[engine.Engine, Simulator]]:
    async with (
        open_simulator(in_memory=True, brain=brain) as sim,
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
        assert repr(eng) == "<Engine of 2 sessions>"
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


@pytest.mark.parametrize("cancelled", [False, True])
async def test_errors_name_the_block_that_was_left(autojump_clock: MockClock, *, cancelled: bool) -> None:
    async with open_simulator(in_memory=True) as sim:
        with trio.CancelScope() as scope:
            async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as alone:
                await alone.ask("1+1")
                if cancelled:
                    scope.cancel(reason="the test says so")
                    await trio.sleep_forever()
        with trio.CancelScope() as scope:
            async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
                one = await eng.session("one")
                if cancelled:
                    scope.cancel(reason="the test says so")
                    await trio.sleep_forever()
        for session, words in ((alone, "the session was left"), (one, "the engine was left")):
            with pytest.raises(engine.SessionClosed, match=words):
                await session.ask("1+1")
            with pytest.raises(engine.SessionClosed, match=words):
                await session.compact("1+1")


async def test_a_session_that_lives_is_not_opened_again(autojump_clock: MockClock) -> None:
    async with opened() as (eng, _):
        session = await eng.session("one")
        with pytest.raises(engine.ConfigurationError) as caught:
            async with eng.open_session("one"):
                pass
        assert str(caught.value).startswith("session id: 'one' lives already")
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


# --- sessions that are not used


async def test_idle_sessions_are_released(autojump_clock: MockClock) -> None:
    async with opened(limits=engine.Limits(session_idle=100)) as (eng, sim):
        session = await eng.session("one")
        kept = await eng.session("kept", limits=engine.Limits(session_idle=None))
        async with eng.open_session("block"):
            await trio.sleep(99)
            await session.ask("1+1")
            await trio.sleep(99)
            assert "one" in eng
            await trio.sleep(3)
            assert sorted(eng) == ["block", "kept"]
            assert sim.open_connections == []
            with pytest.raises(engine.SessionClosed):
                await session.ask("1+1")
            assert await eng.session("one") is not session
            assert await eng.session("kept") is kept


async def test_a_session_with_a_long_turn_is_not_idle(autojump_clock: MockClock) -> None:
    script = Script([[Created(), SayDelta("a"), Delay(50), SayDelta("b"), Delay(50), SayDelta("c")], Answer("d")])
    async with opened(script, limits=engine.Limits(session_idle=30)) as (eng, _):
        session = await eng.session("one", timeouts=engine.Timeouts(queue=None))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.ask, "first")
            nursery.start_soon(session.ask, "second")
        assert "one" in eng
        await trio.sleep(31)
        assert "one" not in eng


async def test_a_turn_counts_although_its_lane_was_left(autojump_clock: MockClock) -> None:
    async with opened(limits=engine.Limits(session_idle=10)) as (eng, _):
        session = await eng.session("one")
        await trio.sleep(8)
        async with session.lane("brief") as lane:
            await lane.ask("1+1")
        await trio.sleep(9)
        assert "one" in eng
        await trio.sleep(2)
        assert "one" not in eng


# --- draining


async def test_draining_lets_turns_end_and_takes_no_new_ones(autojump_clock: MockClock) -> None:
    script = Script([[Created(), SayDelta("a"), Delay(5), SayDelta("b")]], then=None)
    async with opened(script) as (eng, sim):
        session = await eng.session("one")
        await eng.session("other")
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await session.ask("go")).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            nursery.start_soon(refused_meanwhile, eng, session)
            began = trio.current_time()
            assert await eng.drain(10) is True
            assert trio.current_time() - began == pytest.approx(4, abs=0.5)
        assert answers == ["ab"]
        assert list(eng) == []
        assert sim.open_connections == []
        with pytest.raises(engine.SessionClosed, match="drained"):
            await eng.session("one")
        assert await eng.drain(0) is True


async def refused_meanwhile(eng: engine.Engine, session: engine.Session) -> None:
    await trio.sleep(1)
    for call in (session.ask("again"), eng.session("new")):
        with pytest.raises(engine.SessionClosed, match="drained") as caught:
            await call
        assert caught.value.delivery is engine.Delivery.NOT_SENT


async def test_draining_cuts_off_what_takes_too_long(autojump_clock: MockClock) -> None:
    async with opened(Script([[Created(), SayDelta("a"), Stall()]])) as (eng, sim):
        session = await eng.session("one")

        async def ask() -> None:
            with pytest.raises(engine.SessionClosed) as caught:
                await session.ask("go")
            assert caught.value.partial is not None
            assert caught.value.partial.text == "a"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            began = trio.current_time()
            assert await eng.drain(3) is False
            assert 3 <= trio.current_time() - began < 6
        assert sim.open_connections == []


async def test_draining_that_is_cancelled_leaves_turns_alone(autojump_clock: MockClock) -> None:
    async with opened(Script([[Created(), SayDelta("a"), Delay(5), SayDelta("b")]])) as (eng, _):
        session = await eng.session("one")
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await session.ask("go")).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            with trio.move_on_after(1) as scope:
                await eng.drain(100)
            assert scope.cancelled_caught
        assert answers == ["ab"]
        assert "one" in eng


@pytest.mark.parametrize("grace", [-1, "1", None, True, float("nan")])
async def test_what_is_no_grace(autojump_clock: MockClock, grace: Any) -> None:
    async with opened() as (eng, _):
        with pytest.raises(engine.ConfigurationError) as caught:
            await eng.drain(grace)
        assert caught.value.field == "grace"


# --- what turns say in another run


async def test_a_turn_in_another_run_of_trio_is_refused_at_once() -> None:
    async with open_simulator() as sim, engine.open_session(sim.endpoint, model="m") as session:
        chat = session.conversation()

        async def ask() -> None:
            await session.ask("1+1")

        async def send() -> None:
            await chat.send("1+1")

        async def warm() -> None:
            await session.warm_up("1+1")

        async def compact() -> None:
            await session.compact("1+1")

        async def enter() -> None:
            async with session.turn("1+1"):
                pytest.fail("it was let in")

        for call in (ask, send, warm, compact, enter):
            error = await trio.to_thread.run_sync(elsewhere, call)
            assert isinstance(error, RuntimeError), call
            assert "another run of Trio" in str(error)
        assert sim.requests == []
        assert (await session.ask("1+1")).text == "2"
        assert (await chat.send("1+1")).text == "2"


async def test_reports_say_what_answered(autojump_clock: MockClock) -> None:
    upgrade = Accept(headers={"X-Request-Id": "req_1", "OpenAI-Processing-Ms": "3", "X-Other": "no"})
    async with (
        open_simulator(in_memory=True, handshake=upgrade) as sim,
        engine.open_engine(sim.endpoint, dialer=sim.dialer, model="m") as eng,
    ):
        session = await eng.session("one")
        for transport in engine.Transport.WEBSOCKET, engine.Transport.SSE:
            async with session.turn("1+1", transport=transport) as turn:
                message = await turn.wait()
            report = turn.report
            assert report.transport == transport
            assert report.model == message.model
            assert report.usage == message.usage is not None
            assert report.lane is None
            assert report.request_id is not None
            assert report.headers["openai-processing-ms"]
            assert "x-other" not in report.headers
        with pytest.raises(engine.TurnError) as caught:
            await session.ask("1+1", model="missing", previous_response_id="resp_none")
        assert caught.value.report is not None
        assert (caught.value.report.model, caught.value.report.usage) == ("missing", None)


# --- other routes of the server


async def test_any_other_route_of_the_server(autojump_clock: MockClock) -> None:
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    def answer(body: bytes, status: str = "200 OK") -> bytes:
        return f"HTTP/1.1 {status}\r\nx-request-id: req_1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    answers = {
        "/v1/models": answer(b'{"data": [{"id": "m"}]}'),
        "/v1/empty": answer(b""),
        "/v1/words": answer(b"words"),
        "/v1/denied": answer(b'{"error": {"message": "s3cret", "code": "denied"}}', "403 Forbidden"),
        "/v1/slow": b"",
    }

    async def serve(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await converse(stream)

    async def converse(stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        request, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive_some()
                connection.receive_data(bytes(data))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                target = request.target.decode()
                fields = {name.decode(): value.decode() for name, value in request.headers}
                seen.append((request.method.decode(), target, fields, body))
                found = answers[target.partition("?")[0]]
                if not found:
                    await trio.sleep_forever()
                await stream.send_all(found)
                return
            else:
                return

    async with trio.open_nursery() as nursery:
        dialer = MemoryDialer(lambda stream: nursery.start_soon(serve, stream))
        endpoint = engine.Endpoint("http://routes.invalid/v1?api-version=1", "sk-1", proxy=None)
        async with engine.open_engine(endpoint, dialer=dialer) as eng:
            assert await eng.request("GET", "/models", query={"limit": "2 3"}) == {"data": [{"id": "m"}]}
            assert await eng.request("POST", "/empty", json={"a": "é"}) is None
            with pytest.raises(engine.ProtocolViolation):
                await eng.request("GET", "/words")
            with pytest.raises(engine.RequestRejected) as caught:
                await eng.request("DELETE", "/denied", json=None)
            with pytest.raises(engine.TurnTimeout) as late:
                await eng.request("GET", "/slow", timeouts=engine.Timeouts(start=0.1))
            with trio.move_on_after(0.1) as scope:
                await eng.request("GET", "/slow")
            assert scope.cancelled_caught
            assert await eng.drain(0)
            with pytest.raises(engine.SessionClosed):
                await eng.request("GET", "/models")
        nursery.cancel_scope.cancel()
    (get, target, fields, body), (post, _, posted, text), *_ = seen
    assert (get, target, body) == ("GET", "/v1/models?api-version=1&limit=2+3", b"")
    assert fields["authorization"] == "Bearer sk-1"
    assert "content-type" not in fields
    assert (post, posted["content-type"], text) == ("POST", "application/json", '{"a":"é"}'.encode())
    assert seen[3][0] == "DELETE"
    assert seen[3][3] == b"null"
    error = caught.value
    assert (error.status, error.code, error.request_id, error.delivery) == (403, "denied", "req_1", "rejected")
    assert error.report is not None
    assert (error.report.request_id, error.report.attempts) == ("req_1", 1)
    assert "s3cret" not in str(error)
    assert (late.value.phase, late.value.delivery) == ("start", "ambiguous")


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        *(("method", (method, "/models")) for method in ("get", "", "GET ", 7, "G\n")),
        *(("path", ("GET", path)) for path in ("models", "", "//host/x", "/../x", "/a b", "/a?b", "/a#b", "/é", None)),
    ],
)
async def test_requests_that_are_none(autojump_clock: MockClock, field: str, arguments: tuple[Any, Any]) -> None:
    async with opened() as (eng, sim):
        with pytest.raises(engine.ConfigurationError) as caught:
            await eng.request(*arguments)
        assert caught.value.field == field
        assert sim.connections == []


async def test_bodies_and_queries_that_are_none(autojump_clock: MockClock) -> None:
    async with opened() as (eng, sim):
        for field, options in (
            ("json", {"json": {"a": object()}}),
            ("json", {"json": float("nan")}),
            ("query", {"query": {"a": 1}}),
            ("query", {"query": "a=1"}),
            ("timeouts", {"timeouts": 20}),
        ):
            with pytest.raises(engine.ConfigurationError) as caught:
                await eng.request("POST", "/x", **options)
            assert caught.value.field == field
        assert sim.connections == []
