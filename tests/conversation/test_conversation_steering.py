"""Steered replies: what joins the transcript and where, tools that run once, and snapshots of what is under way."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from sessions import session_with
from talking import outputs, tool
from trio.testing import MockClock

import engine
from engine import SteerRejected
from engine.simulator import Call, Completed, Delay, Echo, Failed, Say, SayDelta, Script

session_to = session_with(model="gpt-6-astra")


def said(message: engine.Message) -> str:
    match message:
        case engine.UserMessage(content=(engine.Text(text),)):
            return f"user: {text}"
        case engine.AssistantMessage():
            return f"assistant: {message.text}"
        case engine.ToolResult():
            return f"tool: {message.text}"
    raise AssertionError(message)


async def read(reply: engine.Reply, *steers: str) -> list[Any]:
    """Read a reply, and steer it at its first text."""
    events = []
    left = list(steers)
    async for event in reply:
        events.append(event)
        if isinstance(event, engine.TextDelta):
            while left:
                await reply.steer(left.pop(0))
    return events


@pytest.mark.parametrize("ending", [[], [Completed()]], ids=["interrupting", "after a clean end"])
async def test_steered_input_joins_the_transcript_where_the_service_put_it(
    autojump_clock: MockClock, ending: list[Any]
) -> None:
    script = Script([[SayDelta("one "), Delay(1), *ending], [Say("two")]], then=Echo())
    async with session_to(script) as (session, sim):
        chat = session.conversation()
        async with chat.stream("count") as reply:
            events = await read(reply, "faster")
        assert sum(isinstance(event, engine.TurnDone) for event in events) == 1
        assert reply.message.text == "one two"
        expected = ["user: count", "assistant: one ", "user: faster", "assistant: two"]
        assert [said(each) for each in chat.messages] == expected
        assert len(chat.rounds) == 1
        assert chat.usage == reply.message.usage
        assert (await chat.send("next")).text == "next"
        assert len(sim.requests[-1].input) == 1, "the server holds all the rest"
        history = sim.history(chat.messages[-1].response_id or "")  # type: ignore[union-attr]
        assert len(history) == len(chat.messages)


@pytest.mark.parametrize("steers", [("closely",), ("closely", "and twice")])
async def test_a_steer_that_waits_for_the_tools(autojump_clock: MockClock, steers: tuple[str, ...]) -> None:
    runs: list[str] = []

    def look() -> str:
        runs.append("look")
        return "a cat"

    script = Script([[SayDelta("I look. "), Delay(1), Call("look")], [Say("Seen.")]], then=Echo())
    async with session_to(script) as (session, sim):
        chat = session.conversation(tools=[tool(look)])
        async with chat.stream("look") as reply:
            await read(reply, *steers)
            assert reply.report.continued
        assert runs == ["look"]
        assert [said(each) for each in chat.messages] == [
            "user: look", "assistant: I look. ", *(f"user: {text}" for text in steers), "tool: a cat",
            "assistant: Seen.",
        ]  # fmt: skip
        assert outputs(sim) == ["a cat"]
        sent = [body["input"] for body in (request.body for request in sim.requests)]
        assert [item["type"] for item in sent[-1]][-1] == "function_call_output"
        last = chat.messages[-1]
        assert isinstance(last, engine.AssistantMessage)
        held = sim.history(last.response_id or "")
        texts = json.dumps(held)
        for text in steers:
            assert texts.count(text) == 1, "said once"
        assert (await chat.send("next")).text == "next"
        assert len(sim.requests[-1].input) == 1


async def test_what_waits_for_the_tools_is_said_with_the_whole_where_the_connection_is_gone(
    autojump_clock: MockClock,
) -> None:
    script = Script([[SayDelta("I look. "), Delay(1), Call("look")], [Say("Seen.")]], then=Echo())
    async with session_to(script) as (session, sim):

        async def look() -> str:
            sim.abort()
            await trio.sleep(1)
            return "a cat"

        chat = session.conversation(tools=[tool(look)])
        async with chat.stream("look") as reply:
            await read(reply, "closely")
        assert not reply.report.continued
        roles = [item.get("role") or item["type"] for item in sim.requests[-1].input]
        assert roles == ["user", "assistant", "function_call", "user", "function_call_output"]


async def test_a_steer_that_waits_for_results_that_the_caller_owes(autojump_clock: MockClock) -> None:
    look = engine.Tool("look", "Look.", {"type": "object", "properties": {}}, strict=False)
    script = Script([[SayDelta("I look. "), Delay(1), Call("look", call_id="c1")], [Say("Seen.")]], then=Echo())
    async with session_to(script) as (session, sim):
        chat = session.conversation(tools=[look])
        async with chat.stream("look") as reply:
            await read(reply, "closely")
        assert chat.messages == ()
        assert [call.call_id for call in chat.unanswered] == ["c1"]
        again = session.conversation(tools=[look], resume=chat.snapshot())
        assert [call.call_id for call in again.unanswered] == ["c1"]
        assert (await again.send([engine.ToolResult("c1", "a cat")])).text == "Seen."
        assert [said(each) for each in again.messages] == [
            "user: look", "assistant: I look. ", "user: closely", "tool: a cat", "assistant: Seen.",
        ]  # fmt: skip
        assert [item["type"] for item in sim.requests[-1].input] == ["function_call_output"], "the server has the rest"


async def test_a_snapshot_while_the_tools_run_holds_what_waits_for_them(autojump_clock: MockClock) -> None:
    snapshots: list[Any] = []

    def look() -> str:
        snapshots.append(chat.snapshot())
        return "a cat"

    script = Script([[SayDelta("I look. "), Delay(1), Call("look")], [Say("Seen.")], [Say("Seen again.")]])
    async with session_to(script) as (session, _):
        chat = session.conversation(tools=[tool(look)])
        async with chat.stream("look") as reply:
            await read(reply, "closely")
        other = session.lane("other").conversation(tools=[tool(look)], resume=json.loads(json.dumps(snapshots[0])))
        assert (await other.send([])).text == "Seen again."
        assert [said(each) for each in other.messages[:-1]] == [said(each) for each in chat.messages[:-1]]
        assert said(other.messages[2]) == "user: closely"


async def test_a_journal_is_given_what_a_round_was_steered_with(autojump_clock: MockClock) -> None:
    told: list[engine.AssistantMessage] = []

    class Book:
        async def sending(self, prompt: Any, context: Any) -> None: ...

        async def answered(self, response: engine.AssistantMessage) -> None:
            told.append(response)

        async def tool_done(self, call: Any, output: Any) -> None: ...

        async def round(self, done: engine.Round) -> None:
            assert done.message is told[-1]

    script = Script([[SayDelta("one "), Delay(1)], [Say("two")]])
    async with session_to(script) as (session, _):
        chat = session.conversation(journal=Book())
        async with chat.stream("count") as reply:
            await read(reply, "faster")
        (response,) = told
        assert [said(each) for each in response.messages] == ["assistant: one ", "user: faster", "assistant: two"]
        assert chat.messages[1:] == response.messages


async def test_a_round_that_fails_leaves_the_transcript_as_it_was(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("one "), Delay(1)], [SayDelta("two"), Failed()]])
    async with session_to(script) as (session, _):
        chat = session.conversation()
        with pytest.raises(engine.ResponseFailed) as caught:
            async with chat.stream("count") as reply:
                await read(reply, "faster")
        assert chat.messages == ()
        assert caught.value.partial is not None
        assert caught.value.partial.text == "one two"
        assert reply.report.unapplied == ()


async def test_where_no_response_runs_there_is_nothing_to_steer(autojump_clock: MockClock) -> None:
    refusals: list[SteerRejected] = []

    async def look() -> str:
        with pytest.raises(SteerRejected, match="no response runs") as caught:
            await reply.steer("more")
        refusals.append(caught.value)
        return "a cat"

    script = Script([[Call("look")], [Say("Seen.")]])
    async with session_to(script) as (session, sim):
        chat = session.conversation(tools=[tool(look)])
        reply = chat.stream("look")
        with pytest.raises(RuntimeError, match="inside its block"):
            await reply.steer("more")
        async with reply:
            async for _ in reply:
                pass
            with pytest.raises(SteerRejected, match="no response runs") as caught:
                await reply.steer("more")
            refusals.append(caught.value)
            with pytest.raises(engine.ConfigurationError, match="is empty"):
                await reply.steer("")
        with pytest.raises(SteerRejected, match="no response runs") as caught:
            await reply.steer("more")
        assert caught.value.code == "response_already_completed"
        assert [error.code for error in refusals] == ["response_not_active", "response_already_completed"]
        assert {error.delivery for error in refusals} == {engine.Delivery.NOT_SENT}
        assert sim.connections[0].steers == []


async def test_an_answer_that_was_steered_can_be_said_again_as_it_is(autojump_clock: MockClock) -> None:
    """Whether a caller keeps the parts or the whole, the next request continues it."""
    script = Script([[SayDelta("one "), Delay(1)], [Say("two")]], then=Echo())
    async with session_to(script) as (session, sim):
        async with session.turn("count") as turn:
            async for event in turn:
                if isinstance(event, engine.TextDelta) and not turn.report.unapplied and event.delta == "one ":
                    await turn.steer("faster")
        context = engine.Context([engine.UserMessage("count"), turn.message, engine.UserMessage("next")])
        assert (await session.ask(context)).text == "next"
        assert len(sim.requests[-1].input) == 1
        changed = engine.AssistantMessage("one, two", parts=turn.message.parts)
        assert changed.messages == (changed,), "a message whose content was changed is what it says"


async def test_a_stored_answer_that_was_steered_is_continued_elsewhere(autojump_clock: MockClock) -> None:
    script = Script([[SayDelta("one "), Delay(1)], [Say("two")]], then=Echo())
    async with session_to(script) as (session, sim):
        chat = session.conversation(store=True)
        async with chat.stream("count") as reply:
            await read(reply, "faster")
        snapshot = json.loads(json.dumps(chat.snapshot()))
        assert snapshot["lost"] == {}
        async with engine.open_session(sim.endpoint, model="gpt-6-astra", dialer=sim.dialer) as other:
            again = other.conversation(resume=snapshot)
            assert again.messages == chat.messages
            assert (await again.send("next")).text == "next"
            assert len(sim.requests[-1].input) == 1
