"""An agent at work for thirty turns."""

from __future__ import annotations

from typing import Any

import attrs
from sessions import session_to
from talking import tool
from trio.testing import MockClock

import engine
from engine.simulator import Answer, Asked, Call, Say

TURNS = 30


def _worker(asked: Asked) -> list[Any]:
    """Add up whatever number of things it is asked to; what it says depends on the whole conversation."""
    if asked.outputs:
        total = asked.outputs[-1]["output"]
        return [Say(f"It is {total}, after {len(asked.items)} items.")]
    number = asked.last_user_text.split()[-1]
    said = sum(item.get("type") == "message" and item.get("role") == "assistant" for item in asked.items)
    if int(number) % 5 == 4:
        return list(Answer(f"No work today, I have spoken {said} times."))
    calls = [Call("add", {"left": int(number), "right": step}) for step in range(1 + int(number) % 3)]
    return [Say("Let me add."), *calls]


def add(left: int, right: int) -> int:
    return left + right


def prompt(number: int) -> str:
    return f"Please add up number {number}"


async def full_answers() -> list[str]:
    """Hold the same conversation by hand, each request over a connection of its own, its whole input with it."""
    answers: list[str] = []
    context = engine.Context(instructions="Add.", tools=[tool(add).tool])
    async with session_to(_worker) as (_, sim):

        async def ask() -> engine.AssistantMessage:
            async with engine.open_session(sim.endpoint, model="gpt-test", dialer=sim.dialer) as session:
                return await session.ask(context)

        def extend(*messages: Any) -> engine.Context:
            return attrs.evolve(context, messages=(*context.messages, *messages))

        for number in range(TURNS):
            context = extend(engine.UserMessage(prompt(number)))
            while (message := await ask()).tool_calls:
                results = [
                    engine.ToolResult(call.id, str(add(call.arguments["left"], call.arguments["right"])))
                    for call in message.tool_calls
                ]
                context = extend(message, *results)
            context = extend(message)
            answers.append(message.text)
        assert all(record.previous_response_id is None for record in sim.requests)
        assert len(sim.connections) == len(sim.requests)
    return answers


async def test_an_agent_says_the_same_as_if_every_request_were_whole(autojump_clock: MockClock) -> None:
    expected = await full_answers()
    rounds: list[engine.Round] = []
    answers: list[str] = []
    async with session_to(_worker) as (session, sim):
        chat = session.conversation("Add.", [tool(add)], on_round=rounds.append)
        for number in range(TURNS):
            answers.append((await chat.send(prompt(number))).text)
        assert answers == expected
        assert len(set(answers)) == TURNS
        assert tuple(rounds) == chat.rounds
        assert len(rounds) == len(sim.requests) > TURNS
        assert len(sim.connections) == 1
    reports = [each.report for each in rounds]
    assert [report.continued for report in reports] == [False, *[True] * (len(rounds) - 1)]
    assert [report.full_because for report in reports[1:]] == [None] * (len(rounds) - 1)
    sent = [report.bytes_sent for report in reports[1:]]
    full = [report.bytes_full for report in reports]
    assert max(sent) < min(sent) + 500  # flat: two outputs more or less, not the transcript
    assert full == sorted(full)
    assert full[-1] > 10 * max(sent)
