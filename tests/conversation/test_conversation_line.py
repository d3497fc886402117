"""The line of a conversation's prompts: however they leave it, and prompts that would wait for themselves."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from sessions import session_to
from talking import outputs, tool
from trio.testing import MockClock

import engine
from engine.conversation.rounds import Progress
from engine.simulator import Answer, Call, Created, Say, Script, Stall


async def test_a_reply_is_entered_by_one_task_and_left_by_another(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("one"), Answer("two")])) as (session, _):
        chat = session.conversation()
        reply = chat.stream("first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reply.__aenter__)
        await reply.__aexit__(None, None, None)
        assert (await chat.send("second")).text == "one"
        await reply.__aexit__(None, None, None)  # once more: nothing


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_a_reply_in_a_generator_that_is_thrown_away(autojump_clock: MockClock) -> None:
    async def texts(chat: engine.Conversation) -> AsyncIterator[str]:
        async with chat.stream("first") as reply:
            async for event in reply:
                if isinstance(event, engine.TextDelta):
                    yield event.delta

    async with session_to(Script([Answer("a b c"), Answer("two")])) as (session, _):
        chat = session.conversation()
        generator = texts(chat)
        async for _text in generator:
            break
        del generator
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        assert (await chat.send("second")).text == "two"


@pytest.mark.parametrize(
    ("timeouts", "phase"),
    [
        (engine.Timeouts(queue=3), "queue"),
        (engine.Timeouts(turn=3), "turn"),
        (engine.Timeouts(queue=None, turn=3), "turn"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_wait_for_an_earlier_prompt_is_bounded(
    timeouts: engine.Timeouts, phase: str, streamed: bool, autojump_clock: MockClock
) -> None:
    async with session_to(Script([Answer("one"), Answer("two")]), timeouts=timeouts) as (session, sim):
        chat = session.conversation()

        async def second() -> None:
            before = trio.current_time()
            with pytest.raises(engine.TurnTimeout) as caught:
                if streamed:
                    async with chat.stream("two"):
                        raise AssertionError
                await chat.send("two")
            assert caught.value.phase == phase
            assert caught.value.delivery is engine.Delivery.NOT_SENT
            assert trio.current_time() - before == pytest.approx(3, abs=0.01)

        async with chat.stream("one") as reply:
            async for _ in reply:
                pass  # it is answered, and its block is not left
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second)
        assert len(sim.requests) == 1
        assert (await chat.send("three")).text == "two"


async def test_whoever_leaves_the_line_does_not_hold_it_up(autojump_clock: MockClock) -> None:
    said: list[str] = []
    async with session_to(lambda asked: [Say(asked.last_user_text)]) as (session, _):
        chat = session.conversation()

        async def send(text: str, scope: trio.CancelScope) -> None:
            with scope:
                said.append((await chat.send(text)).text)

        scopes = [trio.CancelScope() for _ in range(5)]
        async with trio.open_nursery() as nursery:
            async with chat.stream("first"):
                for number, scope in enumerate(scopes):
                    nursery.start_soon(send, str(number), scope)
                    await trio.testing.wait_all_tasks_blocked()
                scopes[0].cancel()
                scopes[2].cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert said == []
        assert said == ["1", "3", "4"]


async def test_a_task_inside_a_reply_is_told_that_it_would_wait_for_itself(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        chat = session.conversation()
        async with chat.stream("first"):
            with pytest.raises(RuntimeError, match="leave its block first"):
                await chat.send("second")
            assert (await session.conversation().send("What is 2+2?")).text == "4"


def _thread_tool(chat: list[engine.Conversation]) -> Any:
    def ask() -> str:
        return trio.from_thread.run(chat[0].send, "inner").text

    return engine.FunctionTool(ask, thread=True)


def _tool_that_threads(chat: list[engine.Conversation], abandon: bool) -> Any:
    async def ask() -> str:
        def inner() -> str:
            return trio.from_thread.run(chat[0].send, "inner").text

        return await trio.to_thread.run_sync(inner, abandon_on_cancel=abandon)

    return engine.FunctionTool(ask)


def _portal_tool(chat: list[engine.Conversation], nursery: list[trio.Nursery]) -> Any:
    def ask() -> str:
        done: list[Any] = []
        event = trio.Event()

        async def send() -> None:
            try:
                done.append((await chat[0].send("inner")).text)
            except RuntimeError as error:
                done.append(error)
            event.set()

        trio.from_thread.run_sync(nursery[0].start_soon, send)
        trio.from_thread.run(event.wait)
        if isinstance(done[0], RuntimeError):
            raise done[0]
        return str(done[0])

    return engine.FunctionTool(ask, thread=True)


@pytest.mark.parametrize("kind", ["thread", "inside", "abandoned", "portal"])
async def test_a_tool_cannot_wait_for_its_conversation_from_a_thread(kind: str) -> None:
    chat: list[engine.Conversation] = []
    async with trio.open_nursery() as nursery:
        made = {
            "thread": lambda: _thread_tool(chat),
            "inside": lambda: _tool_that_threads(chat, False),
            "abandoned": lambda: _tool_that_threads(chat, True),
            "portal": lambda: _portal_tool(chat, [nursery]),
        }[kind]()
        async with session_to(Script([[Call("ask")], Answer("done")])) as (session, sim):
            chat.append(session.conversation(tools=[made]))
            with trio.fail_after(20):
                assert (await chat[0].send("outer")).text == "done"
            assert "RuntimeError: the conversation waits for the function" in outputs(sim)[0]


@pytest.mark.parametrize("place", ["approve", "on_round"])
async def test_what_the_loop_asks_and_tells_cannot_wait_for_it(place: str, autojump_clock: MockClock) -> None:
    chat: engine.Conversation

    async def wait(_: Any) -> bool:
        await chat.send("inner")
        return True

    async with session_to(Script([[Call("look")], Answer("done")])) as (session, _):
        options: dict[str, Any] = {place: wait}
        chat = session.conversation(tools=[tool(look)], **options)
        with pytest.raises(RuntimeError, match="let the function return first"):
            await chat.send("outer")
        assert chat.interrupted is not None or place == "on_round"


def look() -> str:
    return "seen"


async def test_a_tool_of_one_conversation_cannot_wait_for_it_by_way_of_another(autojump_clock: MockClock) -> None:
    chats: list[engine.Conversation] = []

    async def outer() -> str:
        return (await chats[1].send("between")).text

    async def inner() -> str:
        return (await chats[0].send("inner")).text

    async with session_to(Script([[Call("outer")], [Call("inner")], Answer("b"), Answer("a")])) as (session, _):
        chats += [session.conversation(tools=[tool(outer)]), session.conversation(tools=[tool(inner)])]
        with trio.fail_after(10):
            assert (await chats[0].send("go")).text == "a"
        (result,) = chats[1].rounds[0].results
        assert result.is_error


async def test_a_task_that_a_tool_starts_elsewhere_may_send(autojump_clock: MockClock) -> None:
    said: list[str] = []
    async with session_to(Script([[Call("start")], Answer("one"), Answer("two")])) as (session, _):
        async with trio.open_nursery() as nursery:

            async def later() -> None:
                said.append((await chat.send("and then?")).text)

            async def start() -> str:
                nursery.start_soon(later)
                await trio.sleep(5)  # it sends while the tool runs
                return "started"

            chat = session.conversation(tools=[tool(start)])
            assert (await chat.send("go")).text == "one"
        assert said == ["two"]


async def test_leaving_a_reply_from_another_task_ends_its_tools(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def slow() -> str:
        try:
            await trio.sleep(60)
        finally:
            ended.append("slow")
        return "done"

    async with session_to(Script([[Call("slow")], Answer("next")])) as (session, _):
        chat = session.conversation(tools=[tool(slow)])
        reply = await chat.stream("go").__aenter__()

        async def read() -> None:
            with pytest.raises(RuntimeError, match="left"):
                async for _ in reply:
                    pass
            ended.append("read")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.sleep(5)
            await reply.__aexit__(None, None, None)
            assert (await chat.send("never mind")).text == "next"
        assert ended == ["slow", "read"]
        assert len(chat.messages) == 2


async def test_leaving_a_reply_whose_turn_waits_for_its_lane(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Stall()], Answer("next")])) as (session, _):
        chat = session.conversation()
        async with session.turn("hold the lane"):
            reply = await chat.stream("go").__aenter__()

            async def read() -> None:
                with pytest.raises(RuntimeError, match="left"):
                    await anext(reply)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await reply.__aexit__(None, None, None)
        assert (await chat.send("never mind")).text == "next"


async def test_a_prompt_that_was_interrupted_is_gone_on_with(autojump_clock: MockClock) -> None:
    ran: list[str] = []

    async def work(text: str) -> str:
        ran.append(text)
        await trio.sleep(60 if text == "slow" and ran.count("slow") == 1 else 1)
        return f"did {text}"

    calls = [Call("work", {"text": "quick"}), Call("work", {"text": "slow"})]
    async with session_to(Script([calls, Answer("done")])) as (session, sim):
        chat = session.conversation(tools=[tool(work)])
        with trio.move_on_after(10):
            await chat.send("go")
        assert chat.messages == ()
        left = chat.interrupted
        assert left is not None
        assert left.response is not None
        assert [result.content[0] for result in left.results.values()] == [engine.Text("did quick")]
        assert (await chat.send([])).text == "done"
        assert sorted(ran) == ["quick", "slow", "slow"]
        assert chat.interrupted is None
        assert len(sim.requests) == 2
        assert outputs(sim) == ["did quick", "did slow"]
        assert len(chat.messages) == 5


async def test_another_prompt_takes_the_place_of_an_interrupted_one(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Created(), Stall()], Answer("fine")])) as (session, sim):
        chat = session.conversation()
        with trio.move_on_after(1):
            await chat.send("go")
        assert chat.interrupted == Progress(prompt=(engine.UserMessage("go"),))
        assert (await chat.send("something else")).text == "fine"
        assert [item["content"] for item in sim.requests[-1].body["input"]] == ["something else"]
