"""The end-to-end checks of tools and reasoning: against the simulator over loopback TCP, and against the real service.

``pytest -m live`` runs them for real; they are skipped without ``OPENAI_API_KEY``. ``OPENAI_TEST_MODEL`` names the
model, ``OPENAI_TEST_REASONING_MODEL`` one that reasons.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from talking import tool

import engine
from engine.simulator import Simulator, open_simulator

SECONDS = 120.0

places = pytest.mark.parametrize(
    "place",
    [
        "simulator",
        pytest.param(
            "live",
            marks=[
                pytest.mark.live,
                pytest.mark.timeout(4 * SECONDS),
                pytest.mark.skipif(not os.environ.get("OPENAI_API_KEY"), reason="needs OPENAI_API_KEY"),
            ],
        ),
    ],
)


@asynccontextmanager
async def opened(
    place: str, variable: str = "OPENAI_TEST_MODEL"
) -> AsyncIterator[tuple[engine.Session, Simulator | None]]:
    timeouts = engine.Timeouts(turn=SECONDS)
    if place == "live":
        model = os.environ.get(variable, "gpt-5.4")
        async with engine.open_session(engine.Endpoint.from_env(), model=model, timeouts=timeouts) as session:
            yield session, None
    else:
        async with open_simulator() as sim:
            async with engine.open_session(sim.endpoint, model="gpt-test", timeouts=timeouts) as session:
                yield session, sim


def noop() -> str:
    """Return TOOL_OK."""
    return "TOOL_OK"


QUESTION = "Call the tool noop, then say what it returned, and nothing else."


@places
async def test_a_session_is_reused_for_what_a_tool_gave_back(place: str) -> None:
    async with opened(place) as (session, sim):
        schema = tool(noop).tool
        question = engine.UserMessage(QUESTION)
        first = await session.ask(
            engine.Context([question], tools=[schema]), engine.TurnOptions(tool_choice="required")
        )
        (call,) = first.tool_calls
        assert call.name == "noop"
        assert call.call_id
        context = engine.Context([question, first, engine.ToolResult(call.id, "TOOL_OK")], tools=[schema])
        async with session.turn(context) as turn:
            second = await turn.wait()
        assert "TOOL_OK" in second.text
        assert turn.report.continued
        assert turn.report.connection_reused
        if sim is not None:
            assert len(sim.connections) == 1
            request = sim.requests[1]
            assert request.previous_response_id == first.response_id
            assert request.input == [{"type": "function_call_output", "call_id": call.call_id, "output": "TOOL_OK"}]


@places
async def test_the_tool_loop_does_the_same(place: str) -> None:
    async with opened(place) as (session, sim):
        chat = session.conversation(tools=[tool(noop)])
        reply = await chat.send(QUESTION, engine.TurnOptions(tool_choice="required"))
        assert "TOOL_OK" in reply.text
        assert [type(message) for message in chat.messages] == [
            engine.UserMessage,
            engine.AssistantMessage,
            engine.ToolResult,
            engine.AssistantMessage,
        ]
        assert all(each.report.continued and each.report.connection_reused for each in chat.rounds[1:])
        if sim is not None:
            assert len(sim.connections) == 1
            assert [item["type"] for item in sim.requests[1].input] == ["function_call_output"]


@places
async def test_reasoning_around_tools_can_be_replayed(place: str) -> None:
    options = engine.TurnOptions(
        tool_choice="required",
        reasoning_effort="medium",
        reasoning_summary="auto",
        include=["reasoning.encrypted_content"],
    )
    async with opened(place, "OPENAI_TEST_REASONING_MODEL") as (session, sim):
        question = engine.UserMessage(f"Think about it first. {QUESTION}")
        schema = tool(noop).tool
        first = await session.ask(engine.Context([question], tools=[schema]), options)
        (call,) = first.tool_calls
        assert call.id == f"{call.call_id}|{call.item_id}"
        for thinking in first.thinking:
            assert thinking.text
            signed = json.loads(thinking.signature or "{}")
            assert signed["type"].partition(".")[0] == "reasoning"
            assert signed["id"].startswith("rs_")
            assert signed["encrypted_content"]
        result = engine.ToolResult(call.id, "TOOL_OK")
        context = engine.Context([question, first, result], tools=[schema])
        answer = engine.TurnOptions(reasoning_effort="medium", include=["reasoning.encrypted_content"])
        assert "TOOL_OK" in (await session.ask(context, answer)).text
        if sim is None:
            return
        held = sim.library.transcript(first.response_id or "")
        assert held is not None
        replayable = [item for item in held.items if item["type"] == "reasoning"]
        assert [thinking.text for thinking in first.thinking] == [item["summary"][0]["text"] for item in replayable]
        assert [json.loads(thinking.signature or "{}")["id"] for thinking in first.thinking] == [
            item["id"] for item in replayable
        ]


@places
async def test_replayed_reasoning_is_taken_by_a_connection_that_never_saw_it(place: str) -> None:
    options = engine.TurnOptions(
        reasoning_effort="medium", reasoning_summary="auto", include=["reasoning.encrypted_content"]
    )
    async with opened(place, "OPENAI_TEST_REASONING_MODEL") as (session, sim):
        chat = session.conversation(tools=[tool(noop)], options=options)
        await chat.send(f"Think about it first. {QUESTION}")
        messages = chat.messages
    async with opened(place, "OPENAI_TEST_REASONING_MODEL") as (session, sim):
        chat = session.conversation(tools=[tool(noop)], options=options, messages=messages)
        assert (await chat.send("What did the tool return? Answer with its output only.")).text
        if sim is not None:
            (request,) = sim.requests
            kinds = [item["type"] for item in request.input]
            assert kinds[:4] == ["message", "reasoning", "function_call", "function_call_output"]
            assert request.input[1]["encrypted_content"]
            assert "id" not in request.input[1]  # the server keeps nothing, so its ids mean nothing to it
