"""Steering by two clients, the engine and the official one: the server has the same history after the same script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest
import trio
from openai import AsyncOpenAI
from steps import Steered

import engine
from engine.simulator import Call, Completed, Say, SayDelta, Script, Simulator, Step, open_simulator

MODEL: Final = "gpt-6-astra"
LOOK: Final[Any] = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
OUTPUT: Final = "a cat"

STEERS: Final = {"once": ["faster"], "twice": ["faster", "and shorter"]}


SCRIPTS: Final[dict[str, Callable[[int], list[list[Step]]]]] = {
    "interrupting": lambda times: [[SayDelta("one "), Steered(times), SayDelta("two ")], [Say("three")]],
    "after a clean end": lambda times: [
        [SayDelta("one "), Steered(times), SayDelta("two "), Completed()],
        [Say("three")],
    ],
    "before a call": lambda times: [
        [SayDelta("I look. "), Steered(times), Call("look", {}, call_id="c1")],
        [Say("Seen.")],
    ],
}


async def by_the_official_client(sim: Simulator, steers: list[str]) -> None:
    async def work() -> None:
        async with (
            AsyncOpenAI(base_url=sim.base_url, api_key=sim.api_key, max_retries=0) as client,
            client.responses.connect() as connection,
        ):
            await connection.response.create(model=MODEL, input="count", tools=[LOOK], store=False)
            left, accepted, calls, running = list(steers), 0, False, ""
            async for event in connection:
                match event.type:
                    case "response.created":
                        running = event.response.id
                    case "response.output_text.delta" if left:
                        for text in left:
                            await connection.response.steer(input=text, previous_response_id=running)
                        left = []
                    case "response.steer.accepted":
                        accepted += 1
                    case "response.output_item.done":
                        calls = calls or event.item.type == "function_call"
                    case "response.steer.pending":
                        accepted -= 1
                        (stub,) = event.required_input
                        if not accepted:
                            given: Any = {**stub.model_dump(exclude_none=True), "output": OUTPUT}
                            await connection.response.create(
                                model=MODEL, input=[given], tools=[LOOK], store=False,
                                previous_response_id=event.steer.previous_response_id,
                            )  # fmt: skip
                    case "response.completed" if event.response.previous_response_id is not None:
                        assert accepted == (0 if calls else len(steers))
                        return

    await trio.to_thread.run_sync(asyncio.run, work())


async def by_the_engine(sim: Simulator, steers: list[str]) -> None:
    def look() -> str:
        return OUTPUT

    tool = engine.FunctionTool(look, name="look", parameters=LOOK["parameters"], strict=False)
    async with engine.open_session(sim.endpoint, model=MODEL) as session:
        chat = session.conversation(tools=[tool])
        async with chat.stream("count") as reply:
            left = list(steers)
            async for event in reply:
                if isinstance(event, engine.TextDelta):
                    while left:
                        await reply.steer(left.pop(0))
        assert len(chat.messages) == len(history(sim)) - any(call.call_id for call in calls(chat))


def calls(chat: engine.Conversation) -> list[engine.ToolCall]:
    return [call for each in chat.messages if isinstance(each, engine.AssistantMessage) for call in each.tool_calls]


def history(sim: Simulator) -> list[Any]:
    items = sim.history(sim.requests[-1].response_id or "")
    return [(item["type"], item.get("role"), words(item)) for item in items]


def words(item: Any) -> Any:
    content = item.get("content", item.get("output", item.get("arguments")))
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@pytest.mark.parametrize("steers", STEERS.values(), ids=STEERS)
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
async def test_both_leave_the_same_history(script: Callable[[int], list[list[Step]]], steers: list[str]) -> None:
    histories = []
    for client in (by_the_official_client, by_the_engine):
        async with open_simulator(brain=Script(script(len(steers)))) as sim:
            await client(sim, steers)
            assert len(sim.connections[0].steers) == len(steers)
            histories.append(history(sim))
    assert histories[0] == histories[1]
    assert [text for _, role, text in histories[0] if role == "user"] == ["count", *steers]
