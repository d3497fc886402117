"""What people type every day: any prompt in any call, single options as keywords, values, and texts as they come."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import attrs
import pytest
import trio
from sessions import session_to
from talking import outputs
from trio.testing import MockClock

import engine
from engine.simulator import Answer, Call, Created, CustomCall, Incomplete, Refuse, Say, SayDelta, Script, Stall


@attrs.frozen
class Plan:
    steps: list[str]


def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


PROMPTS: list[Any] = [
    "hello",
    engine.UserMessage("hello"),
    [engine.UserMessage("hello")],
    (each for each in [engine.UserMessage("hello")]),
    engine.Context([engine.UserMessage("hello")]),
]


@pytest.mark.parametrize("number", range(len(PROMPTS)))
@pytest.mark.parametrize("call", ["ask", "turn", "run", "send", "stream"])
async def test_every_call_takes_every_prompt(call: str, number: int, autojump_clock: MockClock) -> None:
    prompt = PROMPTS[number] if number != 3 else [engine.UserMessage("hello")]
    async with session_to(Script(["fine"])) as (session, sim):
        said = await _said(session, call, prompt, temperature=0.5, max_output_tokens=None)
        assert said == "fine"
        body = sim.requests[0].body
        assert body["input"] == [{"type": "message", "role": "user", "content": "hello"}]
        assert body["temperature"] == 0.5
        assert "max_output_tokens" not in body


async def _said(session: engine.Session, call: str, prompt: Any, **fields: Any) -> str:
    match call:
        case "turn":
            async with session.turn(prompt, **fields) as turn:
                return "".join([text async for text in turn.texts()])
        case "send":
            return (await session.conversation().send(prompt, **fields)).text
        case "stream":
            async with session.conversation().stream(prompt, **fields) as reply:
                return "".join([text async for text in reply.texts()])
    answer: engine.AssistantMessage = await getattr(session, call)(prompt, **fields)
    return answer.text


@pytest.mark.parametrize("prompt", [3, b"hello", {"role": "user"}, ["hello"], None])
@pytest.mark.parametrize("call", ["ask", "turn", "run", "send", "stream"])
async def test_what_is_no_prompt_is_refused(call: str, prompt: Any, autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        with pytest.raises(engine.ConfigurationError, match="prompt"):
            await _said(session, call, prompt)
        assert not sim.requests


async def test_keywords_lie_over_options_and_none_takes_one_away(autojump_clock: MockClock) -> None:
    options = engine.TurnOptions(temperature=0.1, top_p=0.2, store=True)
    async with session_to(lambda asked: [Say("fine")]) as (session, sim):
        await session.ask("hello", options, temperature=None, top_p=0.3)
        chat = session.conversation(options=options, reasoning_effort="low")
        await chat.send("hello", top_p=None)
        await chat.send("hello", engine.TurnOptions(store=True), metadata={"a": "b"})
    told = [{name: each.body.get(name) for name in ("temperature", "top_p", "store")} for each in sim.requests]
    assert told == [
        {"temperature": None, "top_p": 0.3, "store": True},
        {"temperature": 0.1, "top_p": None, "store": True},
        {"temperature": None, "top_p": None, "store": True},
    ]
    assert sim.requests[1].body["reasoning"] == {"effort": "low"}
    assert sim.requests[2].body["metadata"] == {"a": "b"}


async def test_instructions_and_tools_of_a_call(autojump_clock: MockClock) -> None:
    context = engine.Context([engine.UserMessage("hello")], instructions="Be long.", tools=[weather])
    async with session_to(lambda asked: [Say("fine")]) as (session, sim):
        await session.ask(context)
        await session.ask(context, instructions="Be brief.")
        await session.ask(context, instructions=None)
        await session.ask("hello", instructions="Be brief.", tools=[{"type": "web_search"}])
        await session.ask(context, tools=[{"type": "web_search"}])
    assert [each.body.get("instructions") for each in sim.requests] == [
        *("Be long.", "Be brief.", None, "Be brief.", "Be long."),
    ]
    assert [[tool["type"] for tool in each.body.get("tools", ())] for each in sim.requests] == [
        *(["function"], ["function"], ["function"], ["web_search"]),
        ["web_search", "function"],
    ]


async def test_plain_functions_are_tools(autojump_clock: MockClock) -> None:
    calls = [Call("weather", {"city": "Bergen"})]
    async with session_to(Script([calls, calls, Answer("wet"), calls, Answer("wet")])) as (session, sim):
        assert (await session.ask("How is it?", tools=[weather])).tool_calls[0].arguments == {"city": "Bergen"}
        assert (await session.run("How is it?", [weather])).text == "wet"
        assert (await session.conversation(tools=[weather]).send("How is it?")).text == "wet"
        assert outputs(sim) == ["rain in Bergen"]


@pytest.mark.parametrize("call", ["ask", "turn", "parse", "run", "conversation", "warm_up"])
async def test_a_timeout_says_what_it_should_be_called(call: str, autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        arguments: list[Any] = {"conversation": [], "parse": ["hello", int]}.get(call, ["hello"])
        with pytest.raises(engine.ConfigurationError, match=r"timeouts=Timeouts\(turn="):
            made = getattr(session, call)(*arguments, timeout=20)
            await made
        with pytest.raises(TypeError, match=r"'temprature'.*'temperature'"):
            await getattr(session, call)(*arguments, temprature=1)
    chat = session.conversation()
    with pytest.raises(engine.ConfigurationError, match=r"timeouts=Timeouts\(turn="):
        chat.stream("hello", timeout=20)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "call",
    [
        *(getattr(engine.Session, name) for name in ("ask", "turn", "parse", "run", "conversation", "warm_up")),
        *(engine.Conversation.send, engine.Conversation.stream),
    ],
)
def test_the_keywords_are_spelled_out(call: Any) -> None:
    assert {"temperature", "timeouts", "text_format"} <= set(inspect.signature(call).parameters)


async def test_settings_of_one_prompt(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("half"), Stall()]])) as (session, _):
        chat = session.conversation(timeouts=engine.Timeouts(turn=100))
        with pytest.raises(engine.TurnTimeout) as caught:
            await chat.send("hello", timeouts=engine.Timeouts(turn=2))
        assert caught.value.seconds == 2


async def test_a_conversation_takes_no_instructions_with_a_prompt(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        with pytest.raises(engine.ConfigurationError, match="its own"):
            await session.conversation().send(engine.Context([engine.UserMessage("hello")], instructions="Be brief."))


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text", "value"),
    [
        (Plan, '{"steps": ["a"]}', Plan(["a"])),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (Literal["yes", "no"], '{"value": "yes"}', "yes"),
        (int | None, '{"value": null}', None),
    ],
)
async def test_an_answer_as_a_value(answer: Any, text: str, value: Any, autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer(text)])) as (session, _):
        assert await session.parse("Plan it.", answer) == value


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        ([Refuse("No.")], "refusal"),
        ([SayDelta('{"steps"'), Incomplete()], "max_output_tokens"),
        ([Say("Let me see."), Call("look")], "tool_use"),
        ([Say('{"steps": 3}')], "schema_mismatch"),
        ([Say("Sure!")], "schema_mismatch"),
    ],
)
async def test_an_answer_without_a_value(turn: list[Any], code: str, autojump_clock: MockClock) -> None:
    async with session_to(Script([turn])) as (session, _):
        with pytest.raises(engine.ResponseFailed) as caught:
            await session.parse("Plan it.", Plan)
        error = caught.value
        assert error.code == code
        assert error.partial is not None
        assert error.partial.content
        assert error.report is not None
        assert error.report.attempts == 1
        assert error.delivery is engine.Delivery.ACCEPTED
        assert "steps" not in str(error)


# --- texts -----------------------------------------------------------------------------------------------------------


async def test_texts_leave_out_what_is_said_aside(autojump_clock: MockClock) -> None:
    turn = [Say("Let me see. ", phase="commentary"), Say("It rains.", phase="final_answer")]
    async with session_to(Script([turn, [Refuse("I would rather not.")]])) as (session, _):
        async with session.turn("How is it?") as turn_:
            assert "".join([text async for text in turn_.texts()]) == "It rains." == turn_.message.text
        async with session.turn("How is it?") as turn_:
            assert "".join([text async for text in turn_.texts()]) == "I would rather not."


async def test_texts_of_a_reply_go_over_all_its_rounds(autojump_clock: MockClock) -> None:
    brain = Script(
        [
            [Say("Hm. ", phase="commentary"), Call("weather", {"city": "Bergen"})],
            [Say("It rains."), Say(" Bye.")],
        ]
    )
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[weather])
        async with chat.stream("How is it?") as reply:
            assert reply.report.attempts == 0
            pieces = [text async for text in reply.texts()]
            assert "".join(pieces) == "It rains. Bye."
            assert reply.report == chat.rounds[-1].report
            assert reply.partial is reply.message


async def test_cancelling_loses_no_text(autojump_clock: MockClock) -> None:
    async with session_to(Script([Answer("a b c d", pause=1)])) as (session, _):
        pieces: list[str] = []
        async with session.turn("hello") as turn:
            texts = turn.texts()
            while "d" not in "".join(pieces):
                with trio.move_on_after(0.3):
                    pieces.append(await anext(texts))
        assert "".join(pieces) == "a b c d"


async def test_what_has_arrived_of_a_reply(autojump_clock: MockClock) -> None:
    async with session_to(Script([[Say("a b c d", pause=1)]])) as (session, _):
        async with session.conversation().stream("hello") as reply:
            assert reply.partial == engine.AssistantMessage()
            async for _text in reply.texts():
                break
            assert reply.partial.text == "a"
            assert reply.report.attempts == 1


# --- what a request tells --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("awaits", [True, False])
async def test_prepare_has_its_say_before_each_request(awaits: bool, autojump_clock: MockClock) -> None:
    seen: list[int] = []

    def trim(context: engine.Context) -> engine.Context:
        seen.append(len(context.messages))
        return attrs.evolve(context, messages=context.messages[-3:], instructions="Trimmed.")

    async def trim_later(context: engine.Context) -> engine.Context:
        await trio.sleep(1)
        return trim(context)

    brain = Script([Answer("one"), [Call("weather", {"city": "Bergen"})], Answer("wet")])
    async with session_to(brain, transport="sse") as (session, sim):
        chat = session.conversation(tools=[weather], prepare=trim_later if awaits else trim)
        await chat.send("first")
        await chat.send("How is it?")
        assert seen == [1, 3, 5]
        assert [len(request.body["input"]) for request in sim.requests] == [1, 3, 3]
        assert all(request.body["instructions"] == "Trimmed." for request in sim.requests)
        assert len(chat.messages) == 6
        assert chat.context.instructions is None


async def test_prepare_returns_a_context(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        chat = session.conversation(prepare=lambda context: None)  # type: ignore[arg-type, return-value]
        with pytest.raises(engine.ConfigurationError, match="prepare: returned None, not"):
            await chat.send("hello")
        assert not sim.requests


class Kept:
    """Stands between the engine and a simulator that keeps no conversations: notes what is sent to which."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[str]]] = []

    def hook(self, body: dict[str, Any]) -> None:
        self.sent.append((body.pop("conversation"), [item["type"] for item in body["input"]]))
        body["input"] = [{"type": "message", "role": "user", "content": "and all that was before"}]


@pytest.mark.parametrize("place", ["extra", "option"])
async def test_where_the_server_keeps_the_conversation_only_what_is_new_is_sent(
    place: str, autojump_clock: MockClock
) -> None:

    def named(name: str) -> Any:
        return {"extra": {"conversation": name}} if place == "extra" else {"conversation": name}

    kept = Kept()
    brain = Script([[Call("weather", {"city": "Bergen"})], Answer("wet"), Answer("bye")])
    async with session_to(brain) as (session, _):
        before = [engine.UserMessage("before")]
        chat = session.conversation(tools=[weather], messages=before, payload_hook=kept.hook, **named("conv_1"))
        await chat.send("How is it?")
        await chat.send("And now?")
    assert kept.sent == [
        ("conv_1", ["message", "message"]),
        ("conv_1", ["function_call_output"]),
        ("conv_1", ["message"]),
    ]


async def test_results_for_a_conversation_that_the_server_keeps(autojump_clock: MockClock) -> None:
    kept = Kept()
    async with session_to(Script([[Call("look")], [Created(), Stall()], Answer("I see.")])) as (session, _):
        chat = session.conversation(
            tools=[engine.Tool("look")], payload_hook=kept.hook, extra={"conversation": "conv_1"}
        )
        reply = await chat.send("go")
        result = engine.ToolResult(reply.tool_calls[0].id, "seen")
        with trio.move_on_after(1):
            await chat.send(result)
        await chat.send([])
        assert [kinds for _, kinds in kept.sent] == [["message"], ["function_call_output"], ["function_call_output"]]
        assert len(chat.messages) == 4


async def test_a_custom_tool_gets_its_function_as_a_plain_one(autojump_clock: MockClock) -> None:
    def shout(text: str) -> str:
        return text.upper()

    async with session_to(Script([[CustomCall("shout", "hey")], Answer("done")])) as (session, sim):
        await session.run("go", [{"type": "custom", "name": "shout"}, shout])
        assert outputs(sim) == ["HEY"]


async def test_tokens_are_summed_everywhere(autojump_clock: MockClock) -> None:
    brain = Script(
        [
            [Call("weather", {"city": "Bergen"})],
            Answer("wet"),
            [SayDelta("half"), Stall()],
            Answer("fine"),
            Answer("it"),
        ]
    )
    async with session_to(brain) as (session, _):
        chat = session.conversation(tools=[weather])
        assert chat.usage == engine.Usage()
        await chat.send("How is it?")
        with trio.move_on_after(1):
            await chat.send("Tell me more.")
        other = await session.ask("And elsewhere?")
        messages = [done.message for done in chat.rounds]
        assert chat.usage == sum(message.usage for message in messages if message.usage)
        assert other.usage is not None
        statistics = session.statistics()
        assert statistics.usage == chat.usage + other.usage
        lane = session.lane("critic")
        answer = await lane.ask("What is missing?")
        assert lane.statistics().usage == answer.usage
        assert session.statistics().usage == statistics.usage + answer.usage
        assert engine.EngineStatistics(sessions={"a": statistics, "b": statistics}, closing=0).usage == (
            statistics.usage + statistics.usage
        )


async def test_a_response_whose_tools_were_cancelled_is_counted(autojump_clock: MockClock) -> None:
    async def slow() -> str:
        await trio.sleep(60)
        return "done"

    async with session_to(Script([[Call("slow")]])) as (session, _):
        chat = session.conversation(tools=[slow])
        with trio.move_on_after(5):
            await chat.send("go")
        assert chat.rounds == ()
        assert chat.usage.total_tokens
