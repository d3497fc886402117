"""Replies that are read as they come."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from sessions import session_to
from talking import outputs, tool
from trio.testing import MockClock

import engine
from engine.simulator import Abort, Answer, Call, Created, Delay, Error, Say, Script


def work() -> str:
    return "done"


async def test_the_events_of_every_round_come_in_order(autojump_clock: MockClock) -> None:
    brain = Script([[Say("Let me see."), Call("work")], Answer("Done it.")])
    async with session_to(brain) as (session, sim):
        chat = session.conversation(tools=[tool(work)])
        async with chat.stream("go") as reply:
            with pytest.raises(RuntimeError, match="not complete"):
                _ = reply.message
            events = [event async for event in reply]
            with pytest.raises(StopAsyncIteration):
                await anext(reply)
        assert reply.message.text == "Done it."
        assert chat.messages[-1] is reply.message
        assert len(chat.messages) == 4
    assert [event.reason for event in events if isinstance(event, engine.TurnDone)] == ["tool_use", "stop"]
    deltas = [event.delta for event in events if isinstance(event, engine.TextDelta)]
    assert "".join(deltas) == "Let me see.Done it."
    assert outputs(sim) == ["done"]


async def test_tools_run_after_the_end_of_their_response_was_seen(autojump_clock: MockClock) -> None:
    ran: list[str] = []

    def look() -> str:
        ran.append("look")
        return "done"

    async with session_to(Script([[Call("look")], Answer("Done it.")])) as (session, _):
        chat = session.conversation(tools=[tool(look)])
        async with chat.stream("go") as reply:
            async for event in reply:
                if isinstance(event, engine.TurnDone):
                    break
            await trio.sleep(10)
            assert ran == []
            await anext(reply)
            assert ran == ["look"]


@pytest.mark.parametrize("at", ["text", "tool_use", "stop"])
async def test_a_reply_can_be_left_at_any_event(at: str, autojump_clock: MockClock) -> None:
    brain = Script([[Say("Let me see."), Call("work")], Answer("Done it."), Answer("next")])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[tool(work)])
        async with chat.stream("go") as reply:
            async for event in reply:
                if isinstance(event, engine.TextDelta) and at == "text":
                    break
                if isinstance(event, engine.TurnDone) and event.reason == at:
                    break
        assert len(chat.messages) == (4 if at == "stop" else 0)
        assert len(chat.rounds) == (2 if at == "stop" else 0)
        with pytest.raises(RuntimeError, match="inside its block"):
            await anext(reply)
        answer = (await chat.send("go on")).text
        assert answer == ("next" if at == "stop" else "Done it.")


async def test_an_error_comes_after_the_events_before_it_and_again(autojump_clock: MockClock) -> None:
    brain = Script([[Call("work")], [Created(), Say("half"), Abort()], Answer("next")])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[tool(work)])
        text = ""
        async with chat.stream("go") as reply:
            with pytest.raises(engine.ConnectionLost) as caught:
                async for event in reply:
                    if isinstance(event, engine.TextDelta):
                        text += event.delta
            assert text == "half"
            with pytest.raises(engine.ConnectionLost) as again:
                await anext(reply)
            assert again.value is caught.value
        assert len(chat.messages) == 3
        assert (await chat.send([])).text == "next"


async def test_too_many_rounds(autojump_clock: MockClock) -> None:
    async with session_to(lambda asked: [Call("work")]) as (session, _):
        chat = session.conversation(tools=[tool(work)], max_rounds=2)
        async with chat.stream("go") as reply:
            for _ in range(2):
                with pytest.raises(engine.ResponseFailed, match="calls tools"):
                    async for _ in reply:
                        pass
        assert len(chat.messages) == 3


async def test_a_refusal_before_any_event(autojump_clock: MockClock) -> None:
    async with session_to(Script([Error(400, "bad", type="invalid_request_error"), "fine"])) as (session, _):
        chat = session.conversation()
        async with chat.stream("go") as reply:
            with pytest.raises(engine.RequestRejected):
                await anext(reply)
        assert chat.messages == ()
        assert (await chat.send("go")).text == "fine"


async def test_cancelling_between_events_loses_none(autojump_clock: MockClock) -> None:
    brain = Script([[Say("a b c d e f", pause=1), Call("work")], Answer("g h i", pause=1)])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[tool(work)])
        events: list[Any] = []
        async with chat.stream("go") as reply:
            while not any(isinstance(event, engine.TurnDone) and event.reason == "stop" for event in events):
                with trio.move_on_after(0.3):
                    events.append(await anext(reply))
        assert "".join(event.delta for event in events if isinstance(event, engine.TextDelta)) == "a b c d e fg h i"
        assert len(chat.messages) == 4


async def test_a_reply_whose_tools_were_cancelled_is_over(autojump_clock: MockClock) -> None:
    ran = 0

    async def slow() -> str:
        nonlocal ran
        ran += 1
        await trio.sleep(5)
        return "done"

    async with session_to(Script([[Call("slow")], Answer("next")])) as (session, _):
        chat = session.conversation(tools=[tool(slow)])
        async with chat.stream("go") as reply:
            with trio.move_on_after(1) as scope:
                async for _ in reply:
                    pass
            assert scope.cancelled_caught
            for _ in range(2):
                with pytest.raises(RuntimeError, match="cut short"):
                    await anext(reply)
        assert ran == 1
        assert chat.messages == ()
        assert (await chat.send("go")).text == "next"


@pytest.mark.parametrize("last", [True, False])
async def test_a_round_that_is_told_of_is_kept_whatever_becomes_of_the_telling(
    last: bool, autojump_clock: MockClock
) -> None:
    told: list[int] = []

    async def tell(done: engine.Round) -> None:
        told.append(len(done.results))
        await trio.sleep(5)

    async with session_to(Script([[Call("work")], Answer("Done it.")])) as (session, _):
        chat = session.conversation(tools=[tool(work)], on_round=tell)
        async with chat.stream("go") as reply:
            with trio.move_on_after(6 if last else 1) as scope:
                async for _ in reply:
                    pass
            assert scope.cancelled_caught
            assert len(chat.messages) == (4 if last else 3)
            rest = [event async for event in reply]
        assert isinstance(rest[-1], engine.TurnDone)
        assert rest[-1].reason == "stop"
        assert reply.message.text == "Done it."
        assert told == [1, 0]


async def test_an_exception_of_on_round_passes_through(autojump_clock: MockClock) -> None:
    def tell(done: engine.Round) -> None:
        raise ValueError("mine")

    async with session_to(Script(["one"])) as (session, _):
        chat = session.conversation(on_round=tell)
        async with chat.stream("go") as reply:
            with pytest.raises(ValueError, match="mine"):
                async for _ in reply:
                    pass
        assert len(chat.messages) == 2


async def test_a_reply_is_used_as_it_should_be(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Delay(5), Say("a b c")], Answer("next")])) as (session, _):
        chat = session.conversation()
        with pytest.raises(engine.ConfigurationError):
            async with chat.stream([]):
                raise AssertionError
        reply = chat.stream("go")
        with pytest.raises(RuntimeError, match="inside its block"):
            await anext(reply)
        async with reply:
            with pytest.raises(RuntimeError, match="only once"):
                await reply.__aenter__()
            with pytest.raises(RuntimeError):  # it would wait for itself
                await chat.send("and now?")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, reply)
                await trio.sleep(0.01)
                with pytest.raises(RuntimeError, match="another task"):
                    await anext(reply)
        assert (await chat.send("go on")).text == "next"


async def test_a_reply_tells_when_an_event_is_there(autojump_clock: MockClock) -> None:
    async def slow() -> str:
        await trio.sleep(5)
        return "done"

    brain = Script([[Say("a b c", pause=1), Call("slow")], Answer("d")])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[slow])
        waited = 0.0
        async with chat.stream("go") as reply:
            assert not reply.ready
            while True:
                ready, before = reply.ready, trio.current_time()
                try:
                    await anext(reply)
                except StopAsyncIteration:
                    break
                assert not ready or trio.current_time() == before
                waited = max(waited, trio.current_time() - before)
                await trio.sleep(0.5)
        assert waited == pytest.approx(5, abs=0.1)
