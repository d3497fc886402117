"""Whatever happens to a conversation, the server holds what the client's transcript says.

Random conversations with edits, dropped messages, changed options, failures, turns that are left, lost connections and
forgetful servers. After every answer the simulator's own history of the response is compared with the transcript, item
by item, whether the request carried everything or only what was new.

Replay a failing example by running this file again: examples are derandomised, and a failure prints its steps.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import engine
from engine.simulator import (
    Asked,
    Call,
    Created,
    Delay,
    Error,
    Failed,
    Incomplete,
    Say,
    SayDelta,
    Think,
    open_simulator,
)

pytestmark = pytest.mark.slow

TOOL = engine.Tool("look", "Look something up.", {"properties": {"what": {"type": "string"}}})


def brain(asked: Asked) -> Any:
    """Do what the newest user message asks for; answer everything else with a text of its own."""
    if asked.outputs:
        return [Think("I have what I need."), Say(f"found after {len(asked.outputs)}")]
    match asked.last_user_text.partition(" ")[0]:
        case "think":
            return [Think(["First.", "Then."]), Say("thought")]
        case "call":
            return [Say("Let me look."), Call("look", {"what": asked.last_user_text}), Call("look", {"what": "more"})]
        case "fail":
            return [Created(), SayDelta("almost"), Failed()]
        case "refuse":
            return [Error(400, "invalid_prompt", type="invalid_request_error")]
        case "cut":
            return [SayDelta("cut sh"), Incomplete()]
        case "slow":
            return [Created(), SayDelta("sl"), Delay(50), Say("ow")]
    return [Say(f"heard {asked.last_user_text}")]


def said(item: Any) -> tuple[Any, ...]:
    """What an item says, in whichever of its forms."""
    match item.get("type", "message"):
        case "message":
            content = item["content"]
            texts = [content] if isinstance(content, str) else [part["text"] for part in content]
            return ("message", item["role"], *texts)
        case "function_call":
            return ("call", item["call_id"], item["name"], item["arguments"])
        case "function_call_output":
            return ("output", item["call_id"], item["output"])
        case "reasoning":
            return ("reasoning", *(part["text"] for part in item["summary"]))
        case other:
            raise AssertionError(other)


def sayings(messages: list[Any]) -> list[tuple[Any, ...]]:
    """What a transcript says, without going by the library's own conversion."""
    result: list[tuple[Any, ...]] = []
    for message in messages:
        if isinstance(message, engine.UserMessage):
            result.append(("message", "user", *(block.text for block in message.content)))  # type: ignore[union-attr]
        elif isinstance(message, engine.ToolResult):
            result.append(("output", message.call_id, *(block.text for block in message.content)))  # type: ignore[union-attr]
        else:
            for block in message.content:
                match block:
                    case engine.Text():
                        result.append(("message", "assistant", block.text))
                    case engine.Thinking():
                        result.append(("reasoning", *block.text.split("\n\n")))
                    case engine.ToolCall():
                        result.append(("call", block.call_id, block.name, block.raw_arguments))
    return result


words = st.sampled_from(["hello", "think", "call", "fail", "refuse", "cut", "slow"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), words),
        st.tuples(st.just("say"), st.just("hello")),
        st.tuples(st.sampled_from(["edit", "drop", "abort", "forget", "model", "instructions", "store", "release"])),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(steps=steps, policy=st.sampled_from(list(engine.OnCancel)), random=st.random_module())
def test_the_server_holds_what_the_transcript_says(steps: list[Any], policy: engine.OnCancel, random: Any) -> None:
    trio.run(converse, steps, policy, clock=MockClock(autojump_threshold=0))


async def converse(steps: list[Any], policy: engine.OnCancel) -> None:
    messages: list[Any] = []
    options: dict[str, Any] = {"model": "m", "store": False}
    instructions = "be brief"
    async with open_simulator(in_memory=True, brain=brain) as sim:
        async with engine.open_engine(sim.endpoint, model="m", dialer=sim.dialer, on_cancel=policy) as eng:
            for number, (kind, *rest) in enumerate(steps):
                match kind:
                    case "edit":
                        users = [place for place, each in enumerate(messages) if isinstance(each, engine.UserMessage)]
                        if users:
                            messages[users[number % len(users)]] = engine.UserMessage(f"edited {number}")
                    case "drop":
                        users = [place for place, each in enumerate(messages) if isinstance(each, engine.UserMessage)]
                        messages = messages[: users[-1]] if users else []
                    case "abort":
                        sim.abort()
                        await trio.sleep(1)
                    case "forget":
                        sim.forget()
                    case "model":
                        options["model"] = "n" if options["model"] == "m" else "m"
                    case "store":
                        options["store"] = not options["store"]
                    case "instructions":
                        instructions += "."
                    case "release":
                        await eng.release("a")
                    case "say":
                        session = await eng.session("a")
                        asked = [*messages, engine.UserMessage(f"{rest[0]} {number}")]
                        while asked is not None:
                            context = engine.Context(asked, instructions=instructions, tools=[TOOL])
                            reply = None
                            with suppress(engine.ResponseFailed, engine.RequestRejected), trio.move_on_after(10):
                                async with session.turn(context, engine.TurnOptions(**options)) as turn:
                                    reply = await turn.wait()
                            if reply is None:
                                break
                            held = [said(item) for item in sim.history(reply.response_id or "")]
                            assert held == sayings([*asked, reply])
                            messages = [*asked, reply]
                            results = [engine.ToolResult(call.id, f"of {call.call_id}") for call in reply.tool_calls]
                            asked = [*messages, *results] if results else None  # type: ignore[assignment]
    assert sim.errors == []


def test_the_property_meets_continued_turns() -> None:
    """The property would hold of a client that never continues anything; this one does."""

    async def main() -> None:
        async with open_simulator(in_memory=True, brain=brain) as sim:
            async with engine.open_session(sim.endpoint, model="m", dialer=sim.dialer) as session:
                messages: list[Any] = [engine.UserMessage("call it")]
                continued = []
                for _ in range(2):
                    async with session.turn(engine.Context(messages, tools=[TOOL])) as turn:
                        reply = await turn.wait()
                    continued.append(turn.report.continued)
                    messages += [reply, *(engine.ToolResult(call.id, "x") for call in reply.tool_calls)]
        assert continued == [False, True]

    trio.run(main, clock=MockClock(autojump_threshold=0))
