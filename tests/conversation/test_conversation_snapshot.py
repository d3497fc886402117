"""Conversations and sessions as plain data, gone on with elsewhere."""

from __future__ import annotations

import copy
import json
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from random_messages import messages, names, responses, texts, tool_results, usages
from talking import outputs
from trio.testing import MockClock

import engine
from engine.conversation.rounds import Progress
from engine.conversation.snapshot import ConversationState, Memory, conversation_from, conversation_snapshot
from engine.protocol.chain import HeldResponse, Mark
from engine.simulator import Answer, Call, Created, Script, Simulator, Stall, open_simulator

KEY = "sk-secret-of-all"


def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


@asynccontextmanager
async def process(sim: Simulator, **options: Any) -> AsyncIterator[engine.Session]:
    """An engine of its own, as another process would have."""
    async with engine.open_session(sim.endpoint, **{"model": "gpt-test", "dialer": sim.dialer, **options}) as session:
        yield session


def sent(snapshot: engine.Snapshot) -> engine.Snapshot:
    """A snapshot as it comes out of a file."""
    again: engine.Snapshot = json.loads(json.dumps(snapshot))
    assert again == snapshot
    return again


# --- any conversation ------------------------------------------------------------------------------------------------

plain = st.dictionaries(names, st.none() | st.booleans() | st.integers() | texts, max_size=3)
options = st.builds(
    engine.TurnOptions,
    model=st.none() | names,
    temperature=st.none() | st.floats(0, 2),
    max_output_tokens=st.none() | st.integers(0, 10),
    store=st.sampled_from([None, True, False]),
    metadata=st.none() | st.dictionaries(names, texts, max_size=2),
    extra=st.dictionaries(st.sampled_from(["user", "prompt", "top_logprobs"]), plain, max_size=2),
    text_format=st.none() | st.just({"type": "json_object"}),
)
progress = st.builds(
    Progress,
    prompt=st.lists(messages, max_size=2).map(tuple),
    response=st.none() | responses,
    results=st.lists(tool_results, max_size=2).map(lambda each: {result.call_id: result for result in each}),
).map(lambda each: each if each else Progress())
transcripts = st.lists(messages, max_size=3).map(tuple)


@st.composite
def states(draw: st.DrawFn) -> ConversationState:
    whole, pending = draw(transcripts), draw(transcripts)
    last = [each for each in (*whole, *pending) if isinstance(each, engine.AssistantMessage)][-1:]
    memory = None
    if last and last[0].response_id and draw(st.booleans()):
        marks = tuple(map(Mark, draw(st.lists(names, max_size=3))))
        memory = Memory(server="there", held=HeldResponse(last[0].response_id, marks, draw(plain)))
    return ConversationState(
        instructions=draw(st.none() | texts),
        messages=whole,
        pending=pending,
        interrupted=draw(progress),
        options=draw(options),
        tools=draw(st.dictionaries(names, names, max_size=2)),
        usage=draw(usages),
        memory=memory,
    )


@settings(derandomize=True, deadline=None, max_examples=150)
@given(states())
def test_every_conversation_comes_back_equal(state: ConversationState) -> None:
    data = conversation_snapshot(state)
    again = conversation_from(sent(data), "there")
    assert again == state
    assert conversation_snapshot(again) == data


@settings(derandomize=True, deadline=None, max_examples=150)
@given(states(), st.data())
def test_what_was_tampered_with_is_read_or_refused_by_name(state: ConversationState, data: st.DataObject) -> None:
    snapshot = conversation_snapshot(state)
    places = sorted(_places(snapshot), key=str)
    *path, last = data.draw(st.sampled_from(places))
    node: Any = snapshot
    for step in path:
        node = node[step]
    node[last] = data.draw(st.sampled_from([None, 3, -1, "x", [], {}, [3], {"x": 1}, True]))
    with _refused_by_name():
        conversation_from(snapshot, "there")


@contextmanager
def _refused_by_name() -> Iterator[None]:
    """Let through what names a part of the snapshot."""
    try:
        yield
    except engine.ConfigurationError as error:
        if not error.field.startswith("resume"):
            raise


def _places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    steps: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in steps:
        yield (*path, step)
        yield from _places(each, *path, step)


# --- going on elsewhere ----------------------------------------------------------------------------------------------


async def test_a_stored_response_is_continued_by_another_process(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with process(sim) as session:
            chat = session.conversation("Be brief. " * 200, tools=[add], store=True)
            await chat.send("What is 2+2? " + "Think. " * 200)
            data = sent(chat.snapshot())
        assert data["lost"] == {}
        assert len(data["held"]["marks"]) == 2
        async with process(sim) as session:
            again = session.conversation(tools=[add], resume=data)
            assert again.messages == chat.messages
            assert again.usage == chat.usage
            assert (await again.send("What is 3+3?")).text == "6"
            report = again.rounds[-1].report
            assert report.continued
            assert report.bytes_sent < report.bytes_full - 1300
            await again.send("What is 4+4?")
            assert again.rounds[-1].report.continued
            assert again.usage.total_tokens is not None
            assert chat.usage.total_tokens is not None
            assert again.usage.total_tokens > chat.usage.total_tokens


async def test_what_is_not_stored_goes_whole_once(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with process(sim) as session:
            chat = session.conversation("Be brief.", tools=[add])
            await chat.send("What is 2+2?")
            data = sent(chat.snapshot())
        assert data["held"] is None
        assert set(data["lost"]) == {"held"}
        async with process(sim) as session:
            again = session.conversation(tools=[add], resume=data)
            assert (await again.send("What is 3+3?")).text == "6"
            assert (await again.send("What is 4+4?")).text == "8"
        assert [done.report.continued for done in again.rounds] == [False, True]
        assert sim.requests[1].body["instructions"] == "Be brief."
        assert len(sim.requests[1].body["input"]) == 3


async def test_a_stored_response_that_is_gone_after_all(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, open_simulator(in_memory=True) as other:
        async with process(sim) as session:
            chat = session.conversation(store=True)
            await chat.send("What is 2+2?")
            data = sent(chat.snapshot())
        async with process(other) as session:
            again = session.conversation(resume=data)
            assert (await again.send("What is 3+3?")).text == "6"
            assert not again.rounds[-1].report.continued


@pytest.mark.parametrize("store", [True, False])
async def test_a_pending_call(store: bool, autojump_clock: MockClock) -> None:
    look = engine.Tool("look", "Look.")
    async with open_simulator(in_memory=True, brain=Script([[Call("look")], Answer("I see.")])) as sim:
        async with process(sim) as session:
            chat = session.conversation(tools=[look], store=store)
            reply = await chat.send("go")
            data = sent(chat.snapshot())
        async with process(sim) as session:
            again = session.conversation(tools=[look], resume=data)
            assert again.unanswered == reply.tool_calls
            assert again.messages == ()
            assert (await again.send(engine.ToolResult(reply.tool_calls[0].id, "seen"))).text == "I see."
            assert again.rounds[-1].report.continued is store
            assert len(again.messages) == 4
        assert outputs(sim) == ["seen"]


async def test_a_prompt_that_was_under_way(autojump_clock: MockClock) -> None:
    ran: list[str] = []

    async def work(text: str) -> str:
        ran.append(text)
        await trio.sleep(100 if text == "slow" and ran.count("slow") == 1 else 1)
        return f"did {text}"

    calls = [Call("work", {"text": "quick"}), Call("work", {"text": "slow"})]
    async with open_simulator(in_memory=True, brain=Script([Answer("hello"), calls, Answer("done")])) as sim:
        async with process(sim) as session:
            chat = session.conversation(tools=[work])
            await chat.send("hi")
            with trio.move_on_after(1000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(chat.send, "go")
                    await trio.sleep(50)
                    assert chat.interrupted is None  # it is being answered
                    data = sent(chat.snapshot())
                    nursery.cancel_scope.cancel()
        async with process(sim) as session:
            again = session.conversation(tools=[work], resume=data)
            assert len(again.messages) == 2
            assert again.interrupted is not None
            assert again.interrupted.prompt == (engine.UserMessage("go"),)
            assert (await again.send([])).text == "done"
            assert again.interrupted is None
            assert again.rounds[0].report == engine.TurnReport()
        assert sorted(ran) == ["quick", "slow", "slow"]
        assert outputs(sim) == ["did quick", "did slow"]
        assert len(again.messages) == 7


async def test_a_reply_that_goes_on_with_what_another_process_began(autojump_clock: MockClock) -> None:
    calls = [Call("add", {"left": 2, "right": 3})]
    kept: list[engine.Snapshot] = []

    def stop(call: engine.ToolCall) -> bool:
        kept.append(sent(chat.snapshot()))
        raise ValueError("mine")

    async with open_simulator(in_memory=True, brain=Script([calls, Answer("five")])) as sim:
        async with process(sim) as session:
            chat = session.conversation(tools=[add], approve=stop)
            with pytest.raises(ValueError, match="mine"):
                await chat.send("go")
        async with process(sim) as session:
            again = session.conversation(tools=[add], resume=kept[0])
            async with again.stream([]) as reply:
                assert "".join([text async for text in reply.texts()]) == "five"
        assert outputs(sim) == ["5"]
        assert len(sim.requests) == 2


async def test_an_answer_that_had_come_is_not_asked_for_again(autojump_clock: MockClock) -> None:
    kept: list[engine.Snapshot] = []

    class Keeping:
        async def sending(self, prompt: Any, context: Any) -> None: ...
        async def answered(self, response: Any) -> None: ...
        async def tool_done(self, call: Any, output: Any) -> None: ...
        async def round(self, done: Any) -> None:
            kept.append(sent(chat.snapshot()))

    async with open_simulator(in_memory=True, brain=Script([Answer("hello")])) as sim:
        async with process(sim) as session:
            chat = session.conversation(journal=Keeping())
            await chat.send("hi")
        async with process(sim) as session:
            for streamed in (False, True):
                again = session.conversation(resume=kept[0])
                if streamed:
                    async with again.stream([]) as reply:
                        assert [event async for event in reply] == []
                    assert reply.message.text == "hello"
                else:
                    assert (await again.send([])).text == "hello"
                assert again.messages == chat.messages
        assert len(sim.requests) == 1


@pytest.mark.parametrize("store", [True, False])
async def test_after_a_compaction(store: bool, autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with process(sim) as session:
            chat = session.conversation(store=store)
            await chat.send("What is 2+2?")
            shorter = await session.compact(chat.context)
            chat = session.conversation(messages=shorter.messages, store=store)
            await chat.send("What is 3+3?")
            data = sent(chat.snapshot())
        async with process(sim) as session:
            again = session.conversation(resume=data)
            assert again.messages == chat.messages
            assert (await again.send("What is 4+4?")).text == "8"
            assert again.rounds[-1].report.continued is store


async def test_options_instructions_and_usage_are_kept(autojump_clock: MockClock) -> None:
    @attrs.frozen
    class Sum:
        result: int

    async with open_simulator(in_memory=True) as sim, process(sim) as session:
        chat = session.conversation(
            "Be brief.", temperature=0.5, store=None, text_format=Sum, payload_hook=lambda body: None
        )
        data = sent(chat.snapshot())
        assert set(data["lost"]) == {"options.payload_hook", "options.text_format"}
        again = session.conversation(resume=data, top_p=0.5)
        await again.send("What is 2+2?")
        body = sim.requests[0].body
        assert (body["instructions"], body["temperature"], body["top_p"]) == ("Be brief.", 0.5, 0.5)
        assert "store" not in body
        assert body["text"]["format"]["schema"]["required"] == ["result"]
        other = session.conversation("Be long.", resume=data, options=engine.TurnOptions())
        await other.send("What is 2+2?")
        assert "temperature" not in sim.requests[1].body
        assert sim.requests[1].body["instructions"] == "Be long."


@pytest.mark.parametrize("store", [True, False])
async def test_another_process_in_earnest(store: bool) -> None:
    program = textwrap.dedent(
        """
        import json, sys, trio
        from engine import Endpoint, open_session

        def add(left: int, right: int) -> int:
            "Add two numbers."
            return left + right

        async def main():
            told = json.load(sys.stdin)
            async with open_session(Endpoint(told["url"], "key", proxy=None), model="gpt-test") as session:
                chat = session.conversation(tools=[add], resume=told["data"])
                answer = await chat.send("What is 3+3?")
                report = chat.rounds[-1].report
                print(json.dumps([answer.text, report.continued, chat.snapshot()]))

        trio.run(main)
        """
    )
    async with open_simulator() as sim:
        async with engine.open_session(sim.endpoint, model="gpt-test") as session:
            chat = session.conversation(tools=[add], store=store)
            await chat.send("What is 2+2?")
            told = json.dumps({"url": sim.endpoint.base_url, "data": chat.snapshot()})
            done = await trio.run_process([sys.executable, "-c", program], stdin=told.encode(), capture_stdout=True)
            text, continued, data = json.loads(done.stdout)
            assert (text, continued) == ("6", store)
            back = session.conversation(tools=[add], resume=data)
            assert (await back.send("What is 4+4?")).text == "8"
            assert back.rounds[-1].report.continued  # this connection still knows what the transcript begins with


# --- what does not fit -----------------------------------------------------------------------------------------------


async def _conversation(sim: Simulator, **fields: Any) -> engine.Snapshot:
    async with process(sim) as session:
        chat = session.conversation(tools=[add, {"type": "web_search"}], store=True, **fields)
        await chat.send("What is 2+2?")
        return sent(chat.snapshot())


def _renamed(text: str) -> Any:
    def add(left: int, right: str) -> int:
        raise NotImplementedError

    def described(left: int, right: int) -> int:
        """Add, in other words."""
        raise NotImplementedError

    described.__name__ = "add"
    return add if text == "changed" else described


async def test_a_tool_that_changed(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        data = await _conversation(sim)
        async with process(sim) as session:
            with pytest.raises(engine.ConfigurationError) as caught:
                session.conversation(tools=[_renamed("changed"), {"type": "web_search"}], resume=data)
            assert (caught.value.field, caught.value.problem) == (
                "resume.tools.add",
                "has another schema than when the snapshot was made",
            )
            with pytest.raises(engine.ConfigurationError, match=r"resume\.tools\.web_search: is not among the tools"):
                session.conversation(tools=[add], resume=data)
            more: list[Any] = [_renamed("described"), {"type": "web_search"}, engine.Tool("look")]
            session.conversation(tools=more, resume=data)
            del data["tools"]["web_search"]  # meant so
            session.conversation(tools=[add], resume=data)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "session"}, "resume.kind"),
        ({"version": 2}, "resume.version"),
        ({"version": None}, "resume.version"),
        ({"version": True}, "resume.version"),
        ({"messages": 3}, "resume.messages"),
        ({"messages": [{"kind": "user", "content": 3}]}, "resume.messages[0].content"),
        ({"pending": None}, "resume.pending"),
        ({"options": {"temprature": 1}}, "resume.options.temprature"),
        ({"options": {"temperature": "hot"}}, "resume.options.temperature"),
        ({"tools": {"add": 3}}, "resume.tools.add"),
        ({"interrupted": {"prompt": [], "response": {"kind": "user", "content": []}}}, "resume.interrupted.response"),
        ({"interrupted": {"prompt": 3}}, "resume.interrupted.prompt"),
        ({"interrupted": {"what": 3}}, "resume.interrupted.what"),
        ({"held": {"server": "memory", "marks": []}}, "resume.held.response_id"),
        ({"usage": {"input_tokens": "many"}}, "resume.usage.input_tokens"),
        ({"more": 1}, "resume.more"),
    ],
)
async def test_what_is_no_snapshot_is_refused_by_name(
    changes: dict[str, Any], field: str, autojump_clock: MockClock
) -> None:
    async with open_simulator(in_memory=True) as sim:
        data = await _conversation(sim)
        async with process(sim) as session:
            with pytest.raises(engine.ConfigurationError) as caught:
                session.conversation(tools=[add, {"type": "web_search"}], resume={**data, **changes})
            assert caught.value.field == field
            for nonsense in ("text", 3, [data]):
                with pytest.raises(engine.ConfigurationError, match=r"^resume: is a"):
                    session.conversation(resume=nonsense)  # type: ignore[arg-type]
            with pytest.raises(engine.ConfigurationError, match=r"^messages: "):
                session.conversation(tools=[add], messages=[engine.UserMessage("x")], resume=data)


async def test_another_server(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        data = await _conversation(sim)
        elsewhere = attrs.evolve(sim.endpoint, base_url="http://elsewhere/v1")
        async with engine.open_session(elsewhere, model="m", dialer=sim.dialer) as session:
            tools: list[Any] = [add, {"type": "web_search"}]
            with pytest.raises(engine.ConfigurationError, match=r"resume\.held\.server.*elsewhere"):
                session.conversation(tools=tools, resume=data)
            data["held"] = None
            chat = session.conversation(tools=tools, resume=data)
            assert (await chat.send("What is 3+3?")).text == "6"
            assert not chat.rounds[-1].report.continued


async def test_the_lane_went_on_with_something_else(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, process(sim) as session:
        chat = session.conversation(store=True)
        await chat.send("What is 2+2?")
        await session.ask("What is 3+3?", store=True)
        data = chat.snapshot()
        assert data["held"] is None
        assert "something else" in data["lost"]["held"]


async def test_what_has_no_json_form(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, process(sim) as session:
        chat = session.conversation(extra={"user": object()})
        with pytest.raises(engine.ConfigurationError, match=r"^snapshot\.options: "):
            chat.snapshot()


async def test_a_snapshot_is_a_copy(autojump_clock: MockClock) -> None:
    item = engine.OutputItem({"type": "compaction", "encrypted_content": "x", "parts": [{"a": 1}]})
    async with open_simulator(in_memory=True) as sim, process(sim) as session:
        chat = session.conversation(messages=[engine.AssistantMessage([item])])
        before = copy.deepcopy(chat.messages)
        data = chat.snapshot()
        data["messages"][0]["content"][0]["item"]["parts"][0]["a"] = 2
        assert chat.messages == before


async def test_no_secret_is_in_it(autojump_clock: MockClock) -> None:
    hidden = [KEY, "header-secret", "mcp-secret", "proxy-secret"]
    mcp: dict[str, Any] = {
        "type": "mcp",
        "server_label": "files",
        "server_url": "https://mcp.example",
        "headers": {"Authorization": "Bearer mcp-secret"},
    }
    async with open_simulator(in_memory=True) as sim:
        endpoint = attrs.evolve(
            sim.endpoint, api_key=KEY, headers={"x-secret": "header-secret"}, proxy="http://u:proxy-secret@p:1"
        )
        async with engine.open_session(endpoint, model="m", dialer=sim.dialer) as session:
            chat = session.conversation(tools=[add, mcp], store=True)
            for data in (chat.snapshot(), session.snapshot()):
                assert not [word for word in hidden if word in json.dumps(data)]
            rotated = {**mcp, "headers": {"Authorization": "Bearer another"}}
            session.conversation(tools=[add, rotated], resume=chat.snapshot())


# --- sessions --------------------------------------------------------------------------------------------------------


async def test_a_session_goes_on_elsewhere(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with engine.open_engine(sim.endpoint, dialer=sim.dialer) as one:
            session = await one.session(
                "user-42",
                model="gpt-test",
                timeouts=engine.Timeouts(turn=7, idle=None),
                limits=engine.Limits(idle_lifetime=None, buffer_events=7),
                retry=engine.RetryPolicy(max_dispatches=2, back_off=[1, 2.5]),
                on_cancel=engine.OnCancel.DRAIN,
                transport=engine.Transport.WEBSOCKET,
            )
            context = [engine.UserMessage("What is 2+2?")]
            answer = await session.ask(context, store=True)
            data = sent(session.snapshot())
        assert data["lanes"][""]["held"]["response_id"] == answer.response_id
        async with engine.open_engine(sim.endpoint, dialer=sim.dialer) as two:
            session = await two.session("another-name", resume=data)
            assert session.snapshot() == data
            with pytest.raises(engine.ConfigurationError, match=r"another-name.*cannot be resumed"):
                await two.session("another-name", resume=data)
            async with session.turn([*context, answer, engine.UserMessage("What is 3+3?")], store=True) as turn:
                assert (await turn.wait()).text == "6"
            assert turn.report.continued
            other = await two.session("third", resume=data, timeouts=engine.Timeouts(turn=9), model="other")
            again = other.snapshot()
            assert again["settings"]["timeouts"]["turn"] == 9
            assert again["settings"]["timeouts"]["idle"] is None
            assert again["model"] == "other"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "conversation"}, "resume.kind"),
        ({"version": 9}, "resume.version"),
        ({"server": "elsewhere"}, "resume.server"),
        ({"settings": {}}, "resume.settings.timeouts"),
        ({"model": 3}, "resume.model"),
        ({"lanes": {"": {"held": {"marks": []}}}}, "resume.lanes..held.response_id"),
        ({"lanes": {"x" * 513: {"held": None}}}, "resume.lanes"),
        ({"more": 3}, "resume.more"),
    ],
)
async def test_what_is_no_snapshot_of_a_session(changes: dict[str, Any], field: str, autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim, engine.open_engine(sim.endpoint, dialer=sim.dialer) as one:
        session = await one.session("a", model="m")
        await session.ask("hello", store=True)
        data = sent(session.snapshot())
        with pytest.raises(engine.ConfigurationError) as caught:
            await one.session("b", resume={**data, **changes})
        assert caught.value.field == field
        data["settings"]["timeouts"]["turn"] = "long"
        with pytest.raises(engine.ConfigurationError, match=r"^resume\.settings\.timeouts\.turn"):
            await one.session("b", resume=data)


async def test_stalled_prompts_are_in_it_with_their_prompt(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True, brain=Script([[Created(), Stall()], Answer("fine")])) as sim:
        async with process(sim) as session:
            chat = session.conversation()
            with trio.move_on_after(5):
                await chat.send("hi")
            data = sent(chat.snapshot())
        async with process(sim) as session:
            again = session.conversation(resume=data)
            assert again.interrupted == Progress(prompt=(engine.UserMessage("hi"),))
            assert (await again.send([])).text == "fine"


async def test_every_lane_goes_on_elsewhere(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with process(sim) as session:
            chats = {name: session.lane(name).conversation(store=True) for name in ("author", "critic")}
            async with trio.open_nursery() as nursery:
                for chat in chats.values():
                    nursery.start_soon(chat.send, "What is 2+2?")
            data, kept = sent(session.snapshot()), {name: sent(chat.snapshot()) for name, chat in chats.items()}
        assert data["lanes"][""]["held"] is None
        for name, written in kept.items():
            assert data["lanes"][name]["held"]["response_id"] == written["held"]["response_id"]
        async with engine.open_engine(sim.endpoint, dialer=sim.dialer) as other:
            session = await other.session("user-42", resume=data)
            assert session.snapshot()["lanes"] == data["lanes"]
            for name in ("author", "critic"):
                again = session.lane(name).conversation(resume={**kept[name], "held": None})
                assert (await again.send("What is 3+3?")).text == "6"
                assert again.rounds[-1].report.continued  # the lane knows by its own snapshot


async def test_a_fork_of_a_conversation_is_written_down_whole(autojump_clock: MockClock) -> None:
    async with open_simulator(in_memory=True) as sim:
        async with process(sim) as session:
            lane = session.lane("author")
            chat = lane.conversation("Be brief.")
            await chat.send("What is 2+2?")
            fork = lane.fork("critic").conversation("Be brief.")
            await fork.send("What is 3+3?")
            await chat.send("What is 4+4?")
            data = sent(fork.snapshot())
        async with process(sim) as session:
            again = session.conversation(resume=data)
            assert (await again.send("What is 5+5?")).text == "10"
        said = [item["content"] for item in sim.requests[-1].input if item.get("role") == "user"]
        assert said == ["What is 2+2?", "What is 3+3?", "What is 5+5?"]
