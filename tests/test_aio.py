"""The engine under asyncio: `engine.aio` gives what Trio programs get, and cancelling works both ways."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from steps import Steered

from engine import (
    AssistantMessage,
    ConfigurationError,
    FunctionTool,
    Round,
    SessionClosed,
    SteerRejected,
    TextDelta,
    TurnDone,
    TurnError,
    UserMessage,
    aio,
)
from engine.simulator import Call, Error, Say, SayDelta, Script, Stall
from engine.testing import RunningSimulator, run_simulator

MODEL = "gpt-5.4"


@pytest.fixture
def server() -> Iterator[RunningSimulator]:
    with run_simulator() as simulator:
        yield simulator


Program = Callable[[aio.Session], Coroutine[Any, Any, None]]


def run(server: RunningSimulator, program: Program) -> None:
    async def main() -> None:
        async with aio.open_session(server.endpoint, model=MODEL) as session:
            await program(session)

    asyncio.run(main())


def test_asks_streams_and_reports(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        assert session.id == "default"
        assert (await session.ask("What is 2+2?")).text == "4"
        async with session.turn("one two three") as turn:
            events = [event async for event in turn]
        assert "".join(event.delta for event in events if isinstance(event, TextDelta)) == "one two three"
        assert isinstance(events[-1], TurnDone)
        assert turn.message.text == turn.partial.text == "one two three"
        assert turn.report.connection_reused
        assert session.connected
        assert session.statistics().turns_completed == 2
        async with session.turn("one two") as turn:
            assert (await turn.wait()).text == "one two"

    run(server, program)


def test_steering(server: RunningSimulator) -> None:
    server.brain = Script([[SayDelta("one "), Steered(), SayDelta("two ")], [Say("three")]] * 2)

    async def program(session: aio.Session) -> None:
        async with session.turn("count", model="gpt-6") as turn:
            await anext(turn)
            await turn.steer("faster")
            assert (await turn.wait()).text == "one two three"
            with pytest.raises(SteerRejected):
                await turn.steer("too late")
        assert [type(each) for each in turn.messages] == [AssistantMessage, UserMessage, AssistantMessage]
        chat = session.conversation(model="gpt-6")
        async with chat.stream("count") as reply:
            await anext(reply)
            await reply.steer("faster")
            async for _ in reply:
                pass
        assert len(chat.messages) == 4

    run(server, program)


def test_turns_beside_each_other(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        answers = await asyncio.gather(*(session.ask(f"say {number} again") for number in range(20)))
        assert [answer.text for answer in answers] == [f"say {number} again" for number in range(20)]

    run(server, program)


def test_errors_are_the_engines_own(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        with pytest.raises(ConfigurationError):
            await session.ask(3)  # type: ignore[arg-type]
        server.brain = Script([Error(400, "bad", "no")])
        with pytest.raises(TurnError):
            await session.ask("hello")
        with pytest.raises(ZeroDivisionError):
            async with session.turn("hello"):
                raise ZeroDivisionError

    run(server, program)


def test_cancelling_the_task_cancels_the_turn(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        server.brain = Script([Stall()])
        asking = asyncio.create_task(session.ask("hang"))
        await asyncio.to_thread(server.wait_for, 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert session.statistics().turns_abandoned == 1
        assert (await session.ask("What is 2+2?")).text == "4"

    run(server, program)


def test_a_timeout_of_asyncio(server: RunningSimulator) -> None:
    async def expire(limit: asyncio.Timeout) -> None:
        await asyncio.to_thread(server.wait_for, 1)
        limit.reschedule(asyncio.get_running_loop().time())

    async def program(session: aio.Session) -> None:
        server.brain = Script([Stall()])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                expiry = asyncio.create_task(expire(limit))
                await session.ask("hang")
        await expiry
        assert session.statistics().turns_abandoned == 1

    run(server, program)


def test_a_read_that_is_cancelled_loses_no_event(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        text = "one two three four five six seven eight"
        heard: list[str] = []
        async with session.turn(text) as turn:
            reading: asyncio.Task[Any] | None = None
            for attempt in range(1000):
                reading = asyncio.ensure_future(anext(turn))
                if attempt % 2:
                    await asyncio.sleep(0)
                    reading.cancel()
                try:
                    event = await reading
                except asyncio.CancelledError:
                    continue
                except StopAsyncIteration:
                    break
                if isinstance(event, TextDelta):
                    heard.append(event.delta)
        assert "".join(heard) == text

    run(server, program)


def test_tools_run_in_the_event_loop(server: RunningSimulator) -> None:
    name = contextvars.ContextVar("name", default="nothing")

    async def program(session: aio.Session) -> None:
        loop, thread = asyncio.get_running_loop(), threading.get_ident()

        async def who() -> str:
            """Say who asks."""
            await asyncio.sleep(0)
            assert asyncio.get_running_loop() is loop
            return name.get()

        def plain() -> str:
            """Say where it runs."""
            return "here" if threading.get_ident() == thread else "elsewhere"

        async def approve(call: object) -> bool:
            await asyncio.sleep(0)
            return True

        server.brain = Script([[Call("who"), Call("plain")]])
        name.set("ada")
        rounds: list[Round] = []
        tools = [FunctionTool(who), FunctionTool(plain)]
        answer = await session.run("who?", tools, approve=approve, on_round=rounds.append)
        assert answer.text.split("\n") == ["ada", "here"]
        assert len(rounds) == 2

    run(server, program)


def test_cancelling_cancels_a_tool_in_the_event_loop(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        began = asyncio.Event()
        ended: list[str] = []

        async def slow() -> str:
            """Take a while."""
            began.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("cancelled")
            return ""

        server.brain = Script([Call("slow")])
        running = asyncio.create_task(session.run("go", [FunctionTool(slow)]))
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ended == ["cancelled"]

    run(server, program)


def test_conversations(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        server.brain = Script(["hello", "bye"])
        chat = session.conversation(instructions="Be brief")
        assert (await chat.send("hi")).text == "hello"
        async with chat.stream("bye") as reply:
            assert [event async for event in reply]
        assert reply.message.text == "bye"
        assert len(chat.messages) == 4

    run(server, program)


def test_lanes_beside_each_other(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        async with session.lane("critic") as critic:
            lanes: list[Any] = [critic, session.lane("b"), session]
            answers = await asyncio.gather(*(lane.ask(f"say {number}") for number, lane in enumerate(lanes)))
            assert [answer.text for answer in answers] == ["say 0", "say 1", "say 2"]
            assert (await critic.fork("second thoughts").ask("What is 2+2?")).text == "4"

    run(server, program)


def test_a_journal_of_the_callers_runs_in_the_event_loop(server: RunningSimulator) -> None:
    async def program(session: aio.Session) -> None:
        loop = asyncio.get_running_loop()
        told: list[str] = []

        class Journal:
            def __getattr__(self, name: str) -> Any:
                async def tell(*_: object) -> None:
                    assert asyncio.get_running_loop() is loop
                    await asyncio.sleep(0)
                    told.append(name)

                return tell

        journal: Any = Journal()
        await session.conversation(journal=journal).send("hello")
        assert told[0] == "sending"
        assert told[-1] == "round"

    run(server, program)


def test_an_engine_with_sessions(server: RunningSimulator) -> None:
    async def main() -> None:
        async with aio.open_engine(server.endpoint, model=MODEL) as running:
            first = await running.session("a")
            assert (await first.ask("What is 1+1?")).text == "2"
            assert "a" in running
            assert await running.release("a")
            async with running.open_session("b") as other:
                assert (await other.ask("What is 1+2?")).text == "3"
            assert "b" not in running

    asyncio.run(main())


def test_after_it_was_closed(server: RunningSimulator) -> None:
    async def main() -> None:
        opener = aio.open_session(server.endpoint, model=MODEL)
        session = await opener.open()
        await opener.close()
        await opener.close()
        with pytest.raises(SessionClosed, match="the session was closed"):
            await session.ask("hello")

    asyncio.run(main())


def test_leaving_in_a_generator(server: RunningSimulator) -> None:
    """An async generator that is left early abandons its turn when it is closed."""

    async def program(session: aio.Session) -> None:
        async def words(prompt: str) -> AsyncIterator[str]:
            async with session.turn(prompt) as turn:
                async for event in turn:
                    if isinstance(event, TextDelta):
                        yield event.delta

        spoken = words("one two three four")
        async for _ in spoken:
            break
        await spoken.aclose()  # type: ignore[attr-defined]
        assert (await session.ask("five six")).text == "five six"

    run(server, program)
