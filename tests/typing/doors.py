"""Never run, only checked: what programs that do not run Trio, and tests, may write."""

from __future__ import annotations

from typing import assert_type

from engine import AssistantMessage, Endpoint, Message, Text, TextDelta, Timeouts, TurnReport, aio, blocking
from engine.simulator import Call, Error, RequestRecord, Requests, Script, When
from engine.testing import Cassette, LazySimulator, RunningSimulator, SessionOpener, run_simulator

ENDPOINT = Endpoint(api_key="sk-any")


def threads() -> None:
    with blocking.open_engine(ENDPOINT, model="gpt-5.4", timeouts=Timeouts(turn=5)) as engine:
        assert_type(engine, blocking.Engine)
        assert_type(engine.session("a"), blocking.Session)
        with engine.open_session("b") as session:
            assert_type(session.ask("hello", temperature=0), AssistantMessage)
            assert_type(session.parse("how many?", int), int)
            assert_type(session.parse("which?", list[str]), list[str])
            with session.turn("hello", on_cancel="drain") as turn:
                for event in turn:
                    if isinstance(event, TextDelta):
                        assert_type(event.delta, str)
                turn.steer("and more")
                assert_type(turn.wait(), AssistantMessage)
                assert_type(turn.messages, tuple[Message, ...])
                assert_type(turn.report, TurnReport)
            chat = session.conversation(instructions="Be brief")
            assert_type(chat.send("hello"), AssistantMessage)
            with chat.stream("more") as reply:
                reply.steer("and more")
                assert_type(reply.message, AssistantMessage)
        session.ask("hello", temperatur=0)  # type: ignore[call-arg]
        session.ask(3)  # type: ignore[arg-type]


async def asyncio_program() -> None:
    async with aio.open_session(ENDPOINT, model="gpt-5.4") as session:
        assert_type(await session.ask("hello"), AssistantMessage)
        assert_type(await session.parse("how many?", int), int)
        async with session.turn("hello") as turn:
            async for event in turn:
                if isinstance(event, TextDelta):
                    assert_type(event.delta, str)
            await turn.steer("and more")
            assert_type(await turn.wait(), AssistantMessage)
        async with session.conversation().stream("more") as reply:
            assert_type(reply.message, AssistantMessage)
        await session.ask(Text("hello"))  # type: ignore[arg-type]


def tests(server: RunningSimulator, simulator: LazySimulator, sessions: SessionOpener, cassette: Cassette) -> None:
    server.add("text", [Call("weather"), "and more"], When(text="busy").then(Error(429)))
    simulator.brain = Script(["one"], strict=True)
    assert_type(server.wait_for(1), Requests)
    assert_type(server.requests.last, RequestRecord)
    assert_type(cassette.endpoint, Endpoint)
    with sessions.blocking() as session:
        assert_type(session, blocking.Session)
    with run_simulator(brain=Script(["one"]), api_key="sk-right") as running:
        assert_type(running, RunningSimulator)
