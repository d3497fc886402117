"""Conversations: what joins the transcript, when, and who may speak."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from sessions import session_to
from talking import answers, outputs, tool
from trio.testing import MockClock

import engine
from engine.simulator import Abort, Answer, Call, Created, CustomCall, Error, Incomplete, Say, Script, Stall

LOOK = engine.Tool("look", "Look.", {"type": "object", "properties": {}})


def work() -> str:
    return "done"


def spoken(chat: engine.Conversation) -> list[str]:
    """The transcript, a word for each message."""
    said: list[str] = []
    for message in chat.messages:
        match message:
            case engine.UserMessage(content=(engine.Text(text),)) | engine.DeveloperMessage(text):
                said.append(text)
            case engine.AssistantMessage():
                said.append(message.text or "+".join(call.name for call in message.tool_calls))
            case engine.ToolResult(content=(engine.Text(text),), is_error=is_error):
                said.append(f"{'!' if is_error else '='}{text}")
    return said


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_a_conversation_remembers(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        chat = session.conversation("Be brief.")
        assert chat.messages == ()
        first = await chat.send("What is 2+2?")
        second = await chat.send(engine.UserMessage("What is 3+4?"))
        assert (first.text, second.text) == ("4", "7")
        assert chat.messages == (engine.UserMessage("What is 2+2?"), first, engine.UserMessage("What is 3+4?"), second)  # type: ignore[comparison-overlap]
        assert chat.context == engine.Context(chat.messages, instructions="Be brief.")
        assert "2+2" not in repr(chat)
        assert [each.message for each in chat.rounds] == [first, second]
    assert [request.body["instructions"] for request in sim.requests] == ["Be brief."] * 2
    assert [record.previous_response_id for record in sim.requests] == [None, sim.requests[0].response_id]


async def test_a_transcript_can_be_gone_on_with_elsewhere(autojump_clock: MockClock) -> None:
    brain = Script([[Call("work")], Answer("one"), Answer("two")])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[tool(work)])
        await chat.send("go")
        other = session.conversation(tools=[tool(work)], messages=chat.messages)
        await other.send("go on")
        assert spoken(chat) == ["go", "work", "=done", "one"]
        assert spoken(other) == ["go", "work", "=done", "one", "go on", "two"]
        assert len(other.rounds) == 1


async def test_a_prompt_may_be_several_messages_or_none(autojump_clock: MockClock) -> None:
    async with session_to(Script(["a", "b"])) as (session, sim):
        chat = session.conversation()
        with pytest.raises(engine.ConfigurationError) as caught:
            await chat.send([])
        assert caught.value.field == "prompt"
        await chat.send([engine.DeveloperMessage("rules"), engine.UserMessage("hello")])
        await chat.send(())
        assert spoken(chat) == ["rules", "hello", "a", "b"]
    assert len(sim.requests) == 2


@pytest.mark.parametrize(
    ("prompt", "wrong"),
    [(None, "prompt"), (b"hello", "prompt"), ({"role": "user"}, "prompt"), (["hello"], "prompt[0]"), (3, "prompt")],
)
async def test_what_is_no_prompt_is_refused(prompt: Any, wrong: str, autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        chat = session.conversation()
        with pytest.raises(engine.ConfigurationError) as caught:
            await chat.send(prompt)
        assert caught.value.field == wrong
        with pytest.raises(engine.ConfigurationError) as caught:
            chat.stream(prompt)
        assert caught.value.field == wrong
        with pytest.raises(engine.ConfigurationError):
            await chat.send("hello", {})  # type: ignore[arg-type]
        assert chat.messages == ()
    assert sim.requests == []


async def test_options_of_a_prompt_replace_those_of_the_conversation(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        chat = session.conversation(options=engine.TurnOptions(temperature=0.5))
        await chat.send("a")
        await chat.send("b", engine.TurnOptions(top_p=0.5))
        await chat.send("c")
    assert [(each.body.get("temperature"), each.body.get("top_p")) for each in sim.requests] == [
        (0.5, None),
        (None, 0.5),
        (0.5, None),
    ]


async def test_a_round_joins_the_transcript_whole(autojump_clock: MockClock) -> None:
    seen: list[list[str]] = []
    chat: engine.Conversation

    def look() -> str:
        seen.append(spoken(chat))
        return "nothing"

    def tell(done: engine.Round) -> None:
        seen.append(spoken(chat))

    brain = Script([[Call("look"), Call("look")], [Call("look")], Answer("done")])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[tool(look)], on_round=tell, max_concurrent_tools=1)
        await chat.send("go")
    one = ["go", "look+look", "=nothing", "=nothing"]
    two = [*one, "look", "=nothing"]
    assert seen == [[], [], one, one, two, [*two, "done"]]
    assert [len(each.results) for each in chat.rounds] == [2, 1, 0]


# --- what is not -----------------------------------------------------------------------------------------------------

FAILURES: list[tuple[Any, type[engine.TurnError]]] = [
    ([Created(), Say("half an ans"), Abort()], engine.ConnectionLost),
    (Error(400, "bad", type="invalid_request_error"), engine.RequestRejected),
    ([Created(), Say("half an ans"), Stall()], engine.TurnTimeout),
]


@pytest.mark.parametrize(("failure", "kind"), FAILURES, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_failed_round_leaves_the_transcript(
    failure: Any, kind: type[engine.TurnError], autojump_clock: MockClock
) -> None:
    brain = Script(["one", failure, "two"])
    async with session_to(brain) as (session, _):
        chat = session.conversation(timeouts=engine.Timeouts(turn=20))
        await chat.send("first")
        with pytest.raises(kind) as caught:
            await chat.send("second")
        if kind is not engine.RequestRejected:
            assert caught.value.partial is not None
            assert caught.value.partial.text == "half an ans"
        assert spoken(chat) == ["first", "one"]
        assert len(chat.rounds) == 1
        assert (await chat.send("third")).text == "two"
        assert spoken(chat) == ["first", "one", "third", "two"]


async def test_rounds_before_a_failure_stay_and_can_be_gone_on_from(autojump_clock: MockClock) -> None:
    ran = 0

    def count() -> int:
        nonlocal ran
        ran += 1
        return ran

    brain = Script([[Call("count")], [Created(), Say("half"), Abort()], Answer("counted")])
    async with session_to(brain) as (session, sim):
        chat = session.conversation(tools=[tool(count)])
        with pytest.raises(engine.ConnectionLost):
            await chat.send("go")
        assert spoken(chat) == ["go", "count", "=1"]
        assert (await chat.send([])).text == "counted"
        assert spoken(chat) == ["go", "count", "=1", "counted"]
    assert ran == 1
    assert outputs(sim) == ["1"]


async def test_too_many_rounds_keep_those_that_are_complete(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Call("work")], [Call("work")], Answer("at last")])) as (session, _):
        chat = session.conversation(tools=[tool(work)], max_rounds=2)
        with pytest.raises(engine.ResponseFailed) as caught:
            await chat.send("go")
        assert caught.value.code == "max_rounds"
        assert spoken(chat) == ["go", "work", "=done"]
        assert (await chat.send([])).text == "at last"


async def test_a_cancelled_round_leaves_the_transcript(autojump_clock: MockClock) -> None:
    async def sleep() -> str:
        await trio.sleep_forever()
        return ""

    brain = Script([[Call("work")], [Call("sleep"), Call("work")], Answer("fine")])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[tool(work), tool(sleep)])
        with trio.move_on_after(5) as scope:
            await chat.send("go")
        assert scope.cancelled_caught
        assert spoken(chat) == ["go", "work", "=done"]
        assert (await chat.send("never mind")).text == "fine"
        assert spoken(chat) == ["go", "work", "=done", "never mind", "fine"]


# --- calls that the caller answers -----------------------------------------------------------------------------------


async def test_the_callers_results_join_with_the_calls(autojump_clock: MockClock) -> None:
    brain = Script([[Call("look"), Call("work"), CustomCall("shell", "ls")], Answer("thanks")])
    shell = {"type": "custom", "name": "shell"}
    async with session_to(brain) as (session, sim):
        chat = session.conversation(tools=[LOOK, shell, tool(work)])
        reply = await chat.send("go")
        assert chat.unanswered == reply.tool_calls
        assert len(reply.tool_calls) == 3
        assert chat.messages == ()
        assert [each.results for each in chat.rounds] == [()]
        results = [engine.ToolResult(call.id, f"my {call.name}", kind=call.kind) for call in reply.tool_calls]
        assert (await chat.send(results)).text == "thanks"
        assert chat.unanswered == ()
        assert spoken(chat) == ["go", "look+work+shell", "=my look", "=my work", "=my shell", "thanks"]
    assert [item["type"] for item in answers(sim)] == [
        "function_call_output",
        "function_call_output",
        "custom_tool_call_output",
    ]


async def test_a_failure_does_not_lose_the_calls(autojump_clock: MockClock) -> None:
    brain = Script([[Call("look")], [Created(), Abort()], Answer("thanks")])
    async with session_to(brain, transport=engine.Transport.WEBSOCKET) as (session, _):
        chat = session.conversation(tools=[LOOK])
        reply = await chat.send("go")
        result = engine.ToolResult(reply.tool_calls[0].id, "seen")
        with pytest.raises(engine.ConnectionLost):
            await chat.send(result)
        assert chat.messages == ()
        assert chat.unanswered == reply.tool_calls
        assert (await chat.send(result)).text == "thanks"
        assert spoken(chat) == ["go", "look", "=seen", "thanks"]


async def test_calls_that_nobody_answers_are_answered_as_such(autojump_clock: MockClock) -> None:
    brain = Script([[Call("look"), Call("look")], Answer("all right")])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[LOOK])
        reply = await chat.send("go")
        second = engine.ToolResult(reply.tool_calls[1].id, "seen")
        assert (await chat.send([second, engine.UserMessage("and be quick")])).text == "all right"
        assert spoken(chat) == ["go", "look+look", "!the call was not answered", "=seen", "and be quick", "all right"]


async def test_a_response_that_was_cut_amid_its_calls_can_be_gone_on_from(autojump_clock: MockClock) -> None:
    brain = Script([[Created(), Call("work"), Incomplete()], Answer("all right")])
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[tool(work)])
        assert (await chat.send("go")).stop_reason == "length"
        assert (await chat.send("go on")).text == "all right"
        assert spoken(chat) == ["go", "work", "!the call was not answered", "go on", "all right"]


async def test_calls_of_a_given_transcript_count_too(autojump_clock: MockClock) -> None:
    call = engine.ToolCall("call_1", "look", raw_arguments="{}")
    given = [engine.UserMessage("go"), engine.AssistantMessage([call])]
    async with session_to() as (session, _):
        chat = session.conversation(tools=[LOOK], messages=given)  # type: ignore[arg-type]
        assert chat.unanswered == (call,)
        await chat.send(engine.ToolResult("call_1", "seen"))
        assert spoken(chat) == ["go", "look", "=seen", "seen"]


# --- who speaks when -------------------------------------------------------------------------------------------------


async def test_prompts_are_answered_one_after_the_other(autojump_clock: MockClock) -> None:
    async def slow() -> str:
        await trio.sleep(5)
        return "done"

    async def say(chat: engine.Conversation, number: int) -> None:
        assert (await chat.send(f"number {number}")).text == f"answer {number}"

    turns = [turn for number in range(4) for turn in ([Call("slow")], Answer(f"answer {number}"))]
    async with session_to(Script(turns)) as (session, _):
        chat = session.conversation(tools=[tool(slow)])
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(say, chat, number)
                await trio.sleep(0.001)
    assert spoken(chat) == [
        said for number in range(4) for said in (f"number {number}", "slow", "=done", f"answer {number}")
    ]


async def test_a_prompt_that_is_cancelled_while_it_waits_was_never_given(autojump_clock: MockClock) -> None:
    async def slow() -> str:
        await trio.sleep(5)
        return "done"

    async with session_to(Script([[Call("slow")], Answer("one"), Answer("two")])) as (session, sim):
        chat = session.conversation(tools=[tool(slow)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat.send, "first")
            await trio.sleep(1)
            with trio.move_on_after(1) as scope:
                await chat.send("second")
            assert scope.cancelled_caught
            with trio.move_on_after(1) as scope:
                async with chat.stream("second too"):
                    raise AssertionError
            assert scope.cancelled_caught
            assert (await chat.send("third")).text == "two"
    assert spoken(chat) == ["first", "slow", "=done", "one", "third", "two"]
    assert len(sim.requests) == 3


async def test_conversations_of_one_session_are_apart(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        chats = [session.conversation() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for number, chat in enumerate(chats):
                nursery.start_soon(chat.send, f"number {number}")
    assert [spoken(chat) for chat in chats] == [[f"number {number}"] * 2 for number in range(3)]


async def test_a_tool_cannot_wait_for_its_own_conversation(autojump_clock: MockClock) -> None:
    chat: engine.Conversation

    async def deep() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat.send, "are you there?")
        return ""

    async def deeper() -> str:
        async with chat.stream("are you there?"):
            return ""

    brain = Script([[Call("deep"), Call("deeper"), Call("aside")], Answer("I see.")])
    async with session_to(brain) as (session, sim):

        async def aside() -> str:
            return (await session.ask("What is 2+2?")).text

        sim.brain = Script([[Call("deep"), Call("deeper"), Call("aside")], Answer("four"), Answer("I see.")])
        chat = session.conversation(tools=[tool(deep), tool(deeper), tool(aside)])
        with trio.fail_after(10):
            assert (await chat.send("go")).text == "I see."
        *refused, answered = outputs(sim)
        assert answered == "four"
        assert all("RuntimeError: the conversation waits for the function" in said for said in refused)


async def test_a_child_of_the_task_that_sends_may_send_too(autojump_clock: MockClock) -> None:
    async def slow() -> str:
        await trio.sleep(5)
        return "done"

    async def later(chat: engine.Conversation) -> None:
        await trio.sleep(2)
        assert (await chat.send("second")).text == "two"

    async with session_to(Script([[Call("slow")], Answer("one"), Answer("two")])) as (session, _):
        chat = session.conversation(tools=[tool(slow)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, chat)
            assert (await chat.send("first")).text == "one"


async def test_a_closed_session_answers_no_more(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        chat = session.conversation()
        await chat.send("hello")
    with pytest.raises(engine.SessionClosed):
        await chat.send("are you there?")
    assert spoken(chat) == ["hello", "hello"]
