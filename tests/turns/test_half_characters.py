"""Text that cannot be written as UTF-8 is refused where it is given, and never changed on its way out."""

from __future__ import annotations

from typing import Any

import pytest
from sessions import session_to
from trio.testing import MockClock

import engine
from engine import Context, DeveloperMessage, File, OutputItem, Text, Tool, ToolResult, UserMessage
from engine.simulator import Call, Delay, SayDelta, Script

HALF = "cut \ud83d"
CALLED = OutputItem({"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"})
LOOK = Tool("look", HALF, {"type": "object", "properties": {}})
HELLO = UserMessage("hello")


def add_user(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"user": HALF}


GIVEN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a text": (HALF, {}, "request['input'][0]['content']"),
    "a message": ([HELLO, DeveloperMessage(HALF)], {}, "request['input'][1]['content']"),
    "a block": (UserMessage([Text("a"), Text(HALF)]), {}, "request['input'][0]['content'][1]['text']"),
    "a file's name": (
        UserMessage([File.from_bytes(b"x", "f" + HALF)]),
        {},
        "request['input'][0]['content'][0]['filename']",
    ),
    "a tool's result": ([HELLO, CALLED, ToolResult("c", HALF)], {}, "request['input'][2]['output']"),
    "a name": (OutputItem({"type": "message", "role": "user", HALF: 1}), {}, "request['input'][0]['…']"),
    "instructions": (HELLO, {"instructions": HALF}, "request['instructions']"),
    "a tool's description": (Context([HELLO], tools=[LOOK]), {}, "request['tools'][0]['description']"),
    "metadata": (HELLO, {"metadata": {"k": HALF}}, "request['metadata']['k']"),
    "a model": (HELLO, {"model": HALF}, "request['model']"),
    "a further field": (HELLO, {"extra": {"x": [{"y": HALF}]}}, "request['x'][0]['y']"),
    "an addition of a hook's": (HELLO, {"payload_hook": add_user}, "request['user']"),
}
"""What is given: the prompt, further fields, and the place that the error names."""


@pytest.mark.parametrize("transport", ["websocket", "sse"])
@pytest.mark.parametrize("what", GIVEN)
async def test_what_is_given_is_refused_with_its_place(what: str, transport: str, autojump_clock: MockClock) -> None:
    prompt, fields, where = GIVEN[what]
    async with session_to(transport=transport) as (session, sim):
        with pytest.raises(engine.ConfigurationError) as caught:
            await session.ask(prompt, **fields)
        assert caught.value.field == where
        assert caught.value.problem == "has half a character (a lone surrogate), which cannot be sent"
        assert caught.value.__context__ is None, "the parser's errors show what was given"
        assert (await session.ask("1+1")).text == "2"
        assert len(sim.requests) == 1


async def test_halves_that_meet_are_sent_as_the_character(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        await session.ask("smile: " + "\ud83d" + "\ude00", metadata={"k": "\ud83d\ude00"})
        assert sim.requests[0].input[0]["content"] == "smile: \U0001f600"
        assert sim.requests[0].body["metadata"] == {"k": "\U0001f600"}


async def test_a_conversation_is_as_it_was(autojump_clock: MockClock) -> None:
    async with session_to() as (session, _):
        chat = session.conversation()
        with pytest.raises(engine.ConfigurationError):
            await chat.send(HALF)
        assert chat.messages == ()
        assert (await chat.send("1+1")).text == "2"


async def test_what_a_tool_returns_is_an_error_that_the_model_is_told(autojump_clock: MockClock) -> None:
    def text() -> str:
        """List files, with a name that is no UTF-8 as os.listdir gives it."""
        return b"caf\xe9".decode("utf-8", "surrogateescape")

    def plain() -> list[str]:
        return [HALF]

    def block() -> Text:
        return Text(HALF)

    def raising() -> str:
        raise FileNotFoundError(2, "No such file", b"caf\xe9".decode("utf-8", "surrogateescape"))

    def approve(call: engine.ToolCall) -> bool | str:
        return HALF if call.name == "refused" else True

    script = Script([[Call(name) for name in ("text", "plain", "block", "raising", "refused")], "seen"])
    tools: list[Any] = [text, plain, block, raising, engine.FunctionTool(plain, name="refused")]
    async with session_to(script) as (session, sim):
        chat = session.conversation(tools=tools, approve=approve)
        assert (await chat.send("look")).text == "seen"
        told = [item["output"] for item in sim.requests[1].input]
        cut = "Error: ValueError: the tool returned half a character (a lone surrogate), which cannot be sent"
        assert told[:3] == [cut] * 3
        assert told[3].startswith("Error: FileNotFoundError: [Errno 2] No such file: 'caf\\udce9'")
        assert told[4] == "Error: the call was refused: cut \\ud83d"


async def test_input_for_a_turn_that_runs(autojump_clock: MockClock) -> None:
    async with session_to(Script([[SayDelta("one "), Delay(1)]]), model="gpt-6") as (session, sim):
        async with session.turn("count") as turn:
            await anext(turn)
            with pytest.raises(engine.ConfigurationError) as caught:
                await turn.steer([UserMessage("a"), UserMessage([Text("b"), Text(HALF)])])
            assert caught.value.field == "input[1]['content'][1]['text']"
            await turn.wait()
        assert sim.connections[0].steers == []


async def test_what_goes_beside_turns(autojump_clock: MockClock) -> None:
    async with session_to() as (session, sim):
        with pytest.raises(engine.ConfigurationError) as caught:
            await session.compact([UserMessage(HALF)])
        assert caught.value.field == "request['input'][0]['content']"
        with pytest.raises(engine.ConfigurationError):
            await session.warm_up(Context([HELLO], instructions=HALF))
        assert sim.requests == []
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer) as eng:
            with pytest.raises(engine.ConfigurationError) as caught:
                await eng.request("POST", "/x", json={"a": [HALF]})
            assert caught.value.field == "json['a'][0]"
